//! A stream of blob bytes -> the same bytes, with their digest and size checked at the end.
//!
//! The mismatch is an error of the last read: who uses the bytes must hold back what it learned until then.

use super::Descriptor;
use crate::names::{Digest, hex};
use sha2::Digest as _;
use std::io::{self, Read};

/// Hashes while it passes bytes on.
pub struct Verified<R> {
    inner: R,
    wanted: Descriptor,
    hash: Hash,
    seen: u64,
    checked: bool,
}

enum Hash {
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Hash {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hash::Sha256(h) => h.update(bytes),
            Hash::Sha384(h) => h.update(bytes),
            Hash::Sha512(h) => h.update(bytes),
        }
    }

    fn hex(&self) -> String {
        let bytes = match self {
            Hash::Sha256(h) => h.clone().finalize().to_vec(),
            Hash::Sha384(h) => h.clone().finalize().to_vec(),
            Hash::Sha512(h) => h.clone().finalize().to_vec(),
        };
        hex(&bytes)
    }
}

impl<R: Read> Verified<R> {
    pub fn new(inner: R, wanted: Descriptor) -> Verified<R> {
        let hash = match wanted.digest.algorithm() {
            "sha384" => Hash::Sha384(sha2::Sha384::new()),
            "sha512" => Hash::Sha512(sha2::Sha512::new()),
            _ => Hash::Sha256(sha2::Sha256::new()),
        };
        Verified { inner, wanted, hash, seen: 0, checked: false }
    }

    fn check(&mut self) -> io::Result<()> {
        if self.checked {
            return Ok(());
        }
        self.checked = true;
        let wanted = &self.wanted;
        if self.seen != wanted.size {
            return Err(mismatch(format!(
                "the blob has {} bytes, its manifest says {}",
                self.seen, wanted.size
            )));
        }
        let got = self.hash.hex();
        if got != wanted.digest.hex() {
            return Err(mismatch(format!("the bytes have digest {}:{got}", wanted.digest.algorithm())));
        }
        Ok(())
    }
}

fn mismatch(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        if got == 0 && !buffer.is_empty() {
            self.check()?;
            return Ok(0);
        }
        self.seen = self.seen.saturating_add(got as u64);
        if self.seen > self.wanted.size {
            return Err(mismatch(format!(
                "the blob is longer than the {} bytes of its manifest",
                self.wanted.size
            )));
        }
        self.hash.update(buffer.get(..got).unwrap_or_default());
        Ok(got)
    }
}

/// Reads a small blob whole and checks it.
pub fn read_all(reader: impl Read, wanted: &Descriptor, max: u64) -> io::Result<Vec<u8>> {
    if wanted.size > max {
        return Err(mismatch(format!("{} bytes announced, at most {max} are read", wanted.size)));
    }
    let mut bytes = Vec::new();
    let mut verified = Verified::new(reader, wanted.clone());
    let mut chunk = [0u8; 8192];
    loop {
        match verified.read(&mut chunk)? {
            0 => return Ok(bytes),
            n => bytes.extend_from_slice(chunk.get(..n).unwrap_or_default()),
        }
    }
}

/// Computes the SHA-256 of what passes: the diff_id of a layer.
pub struct Hashed<R> {
    inner: R,
    hash: sha2::Sha256,
}

impl<R: Read> Hashed<R> {
    pub fn new(inner: R) -> Hashed<R> {
        Hashed { inner, hash: sha2::Sha256::new() }
    }

    /// Digest of everything that was read.
    pub fn digest(self) -> Digest {
        Digest::sha256(&self.hash.finalize())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..got).unwrap_or_default());
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(bytes: &[u8]) -> Descriptor {
        Descriptor {
            media_type: String::new(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            urls: Vec::new(),
            annotations: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn right_bytes_pass_and_wrong_ones_fail_at_the_end() {
        let wanted = descriptor(b"layer");
        assert_eq!(read_all(&b"layer"[..], &wanted, 100).unwrap(), b"layer");
        assert!(
            read_all(&b"lager"[..], &wanted, 100).unwrap_err().to_string().contains("have digest sha256:")
        );
        assert!(read_all(&b"lay"[..], &wanted, 100).unwrap_err().to_string().contains("has 3 bytes"));
        assert!(
            read_all(&b"layers"[..], &wanted, 100).unwrap_err().to_string().contains("longer than the 5")
        );
        assert!(read_all(&b"layer"[..], &wanted, 4).is_err());
    }
}
