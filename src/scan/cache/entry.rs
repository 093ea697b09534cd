//! Facts of a layer <-> the bytes of one cache entry, which says itself whose facts it holds and whether it is whole.
//!
//! ```text
//! cudalint-facts <schema> <digest of the layer> <variant> <SHA-256 of the packed facts> <HMAC-SHA256 or ->\n
//! packed facts: JSON, zstd
//! ```
//!
//! An entry that was cut, mixed up with another or written by another version is no entry. The HMAC covers the line before
//! it, and with it everything: who has no key cannot make an entry that a reader with the key takes.

use super::CACHE_SCHEMA;
use super::form::LayerJson;
use crate::facts::LayerFacts;
use crate::limits;
use crate::names::{Digest, hex};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;

const ZSTD_LEVEL: i32 = 3;
const MAGIC: &str = "cudalint-facts";
const UNSIGNED: &str = "-";
/// A secret that is shorter could be guessed.
const KEY_BYTES_MIN: usize = 16;

/// Whose facts an entry holds: a layer, and how it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) digest: Digest,
    pub(crate) variant: Variant,
    /// The registry whose images may use the entry; `None`: all may.
    pub(crate) scope: Option<String>,
}

/// How a layer was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Variant {
    Plain,
    /// With the SHA-256 of files.
    Hashed,
    /// Loader tables only.
    Libraries,
}

impl Variant {
    fn name(self) -> &'static str {
        match self {
            Variant::Plain => "full",
            Variant::Hashed => "hashed",
            Variant::Libraries => "libraries",
        }
    }
}

impl Key {
    /// Path of the entry below the root of a cache.
    pub(crate) fn path(&self) -> String {
        let (algorithm, hex) = (self.digest.algorithm(), self.digest.hex());
        // Host names are no file names: of the scope its digest.
        let scope = self.scope.as_ref().map(|s| Digest::of(s.as_bytes()));
        let scope = scope.and_then(|d| Some(format!(".of-{}", d.hex().get(..16)?))).unwrap_or_default();
        format!("layers-v{CACHE_SCHEMA}/{algorithm}-{hex}.{}{scope}", self.variant.name())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MAGIC} {CACHE_SCHEMA} {} {}", self.digest, self.variant.name())?;
        self.scope.as_ref().map_or(Ok(()), |scope| write!(f, "@{scope}"))
    }
}

/// The secret of those who may write entries that others trust.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The bytes of a file, without white space around them.
    pub fn read(file: &Path) -> Result<Secret, String> {
        let mut bytes = Vec::new();
        std::fs::File::open(file)
            .and_then(|f| f.take(limits::CONFIG_FILE_BYTES_MAX).read_to_end(&mut bytes))
            .map_err(|e| format!("`{}`: {e}", file.display()))?;
        let secret = bytes.trim_ascii();
        if secret.len() < KEY_BYTES_MIN {
            return Err(format!(
                "`{}` holds {} bytes, and a secret needs {KEY_BYTES_MIN}",
                file.display(),
                secret.len()
            ));
        }
        Ok(Secret(secret.to_vec()))
    }

    fn mac(&self, text: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(text.as_bytes());
        Some(mac)
    }
}

/// Why an entry is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Cut, mixed up, of another version.
    Damaged,
    /// Without signature, or with that of another secret.
    Untrusted,
}

/// The facts packed, to be sealed for each place that keeps them.
pub(crate) fn pack(facts: &LayerFacts) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    encoder.write_all(&serde_json::to_vec(&LayerJson::of(facts))?)?;
    encoder.finish()
}

/// The entry of packed facts.
pub(crate) fn seal(key: &Key, packed: &[u8], secret: Option<&Secret>) -> Vec<u8> {
    let line = format!("{key} {}", Digest::of(packed).hex());
    let signature = secret.and_then(|s| s.mac(&line)).map(|mac| hex(&mac.finalize().into_bytes()));
    let line = format!("{line} {}\n", signature.as_deref().unwrap_or(UNSIGNED));
    [line.as_bytes(), packed].concat()
}

/// The packed facts of an entry that is what it should be.
pub(crate) fn open<'a>(key: &Key, entry: &'a [u8], secret: Option<&Secret>) -> Result<&'a [u8], Refused> {
    let split = memchr::memchr(b'\n', entry).ok_or(Refused::Damaged)?;
    let (line, packed) = entry.split_at_checked(split).ok_or(Refused::Damaged)?;
    let packed = packed.get(1..).unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Refused::Damaged)?;
    let (line, signature) = line.rsplit_once(' ').ok_or(Refused::Damaged)?;
    if line != format!("{key} {}", Digest::of(packed).hex()) {
        return Err(Refused::Damaged);
    }
    if let Some(secret) = secret {
        let signature = unhex(signature).ok_or(Refused::Untrusted)?;
        let mac = secret.mac(line).ok_or(Refused::Untrusted)?;
        mac.verify_slice(&signature).map_err(|_| Refused::Untrusted)?;
    }
    Ok(packed)
}

/// Packed facts -> facts.
pub(crate) fn unpack(packed: &[u8]) -> Option<LayerFacts> {
    let mut plain = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(packed).ok()?;
    decoder.take(limits::CACHE_ENTRY_UNPACKED_BYTES_MAX).read_to_end(&mut plain).ok()?;
    let json: LayerJson = serde_json::from_slice(&plain).ok()?;
    json.facts()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|p| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Entry, EntryKind};
    use crate::names::ImagePath;

    fn key(of: &[u8]) -> Key {
        Key { digest: Digest::of(of), variant: Variant::Plain, scope: None }
    }

    fn facts() -> LayerFacts {
        let entry = Entry { path: ImagePath::new("/etc"), kind: EntryKind::Dir, content: None };
        LayerFacts { entries: vec![entry], ..LayerFacts::default() }
    }

    #[test]
    fn an_entry_opens_for_its_own_layer_only() {
        let packed = pack(&facts()).unwrap();
        let entry = seal(&key(b"one"), &packed, None);
        let opened = open(&key(b"one"), &entry, None).unwrap();
        assert_eq!(unpack(opened), Some(facts()));
        assert_eq!(open(&key(b"two"), &entry, None), Err(Refused::Damaged));
        let hashed = Key { variant: Variant::Hashed, ..key(b"one") };
        assert_eq!(open(&hashed, &entry, None), Err(Refused::Damaged));
    }

    #[test]
    fn damage_anywhere_is_seen() {
        let entry = seal(&key(b"one"), &pack(&facts()).unwrap(), None);
        assert_eq!(open(&key(b"one"), &entry[..entry.len() - 1], None), Err(Refused::Damaged));
        for at in (0..entry.len()).filter(|at| entry[*at] != b'-') {
            let mut wrong = entry.clone();
            wrong[at] ^= 1;
            assert!(open(&key(b"one"), &wrong, None).is_err(), "byte {at}");
        }
        assert_eq!(open(&key(b"one"), b"", None), Err(Refused::Damaged));
    }

    #[test]
    fn with_a_secret_only_entries_of_the_same_secret_count() {
        let (ours, theirs) = (Secret(b"0123456789abcdef".to_vec()), Secret(b"fedcba9876543210".to_vec()));
        let packed = pack(&facts()).unwrap();
        let one = key(b"one");
        let signed = seal(&one, &packed, Some(&ours));
        assert!(open(&one, &signed, Some(&ours)).is_ok());
        assert!(open(&one, &signed, None).is_ok(), "who trusts the place reads signed entries too");
        assert_eq!(open(&one, &signed, Some(&theirs)), Err(Refused::Untrusted));
        assert_eq!(open(&one, &seal(&one, &packed, None), Some(&ours)), Err(Refused::Untrusted));
    }
}
