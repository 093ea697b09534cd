//! An archive of an image that can be read only once (a pipe, an engine's export) -> its documents, and the facts of every
//! layer, taken while it passes. Which of them the image consists of is known at the end, when its manifest has come.

use super::cache::Cache;
use super::file::Scratch;
use super::spool::Budget;
use super::tar::{MemberKind, TarReader};
use super::{Options, Scan, walk};
use crate::facts::LayerFacts;
use crate::image::archive::Passed;
use crate::image::{Error, Image, decompress, read_full, verify};
use crate::limits;
use crate::names::{Digest, ImagePath};
use std::collections::BTreeMap;
use std::io::{self, Read};

/// What came by.
pub struct Streamed {
    /// Everything but the layers.
    pub passed: Passed,
    layers: BTreeMap<ImagePath, Layer>,
}

struct Layer {
    facts: Result<LayerFacts, Error>,
    cached: bool,
}

impl Streamed {
    /// The layers of the image that the archive turned out to hold, each checked against the digest that the config gives for
    /// its uncompressed bytes.
    pub fn layers(&self, image: &Image) -> Scan {
        let mut layers_cached = 0;
        let layers = (0..image.layer_count()).map(|index| {
            let layer = image.streamed_layer(index).and_then(|path| Some((path, self.layers.get(path)?)));
            let (path, layer) =
                layer.ok_or_else(|| Error::look(format!("layer {index} is missing in the archive")))?;
            let facts = layer.facts.clone()?;
            let wanted = image.identity.layers.get(index).and_then(|l| l.diff_id.as_ref());
            match (&facts.diff_id, wanted) {
                (Some(got), Some(wanted)) if got != wanted => Err(Error::look(format!(
                    "layer `{path}`: the uncompressed bytes have digest {got}, the config says {wanted}"
                ))),
                _ => {
                    layers_cached += u64::from(layer.cached);
                    Ok(facts)
                }
            }
        });
        let layers = layers.collect();
        Scan { layers, layers_cached }
    }
}

/// Reads the archive to its end.
pub fn archive(stream: impl Read + Send, cache: &Cache, options: &Options) -> io::Result<Streamed> {
    let mut stream = stream;
    let mut first = [0u8; 1];
    if read_full(&mut stream, &mut first)? == 0 {
        return Err(io::Error::other("empty (0 bytes)"));
    }
    let mut tar = TarReader::new(decompress::decompress(first.chain(stream))?);
    let mut scratch = Scratch::new(Budget::default(), options.hash_files);
    let mut out = Streamed { passed: Passed::default(), layers: BTreeMap::new() };
    let mut members = 0usize;
    while let Some(member) = tar.next()? {
        members += 1;
        if members > limits::ARCHIVE_MEMBERS_MAX || tar.position() > limits::LAYER_BYTES_MAX {
            return Err(io::Error::other("more members or bytes than are read of one archive"));
        }
        let path = ImagePath::from_bytes(&member.name);
        let link = String::from_utf8_lossy(&member.link);
        match member.kind {
            MemberKind::Symlink => out.passed.link(&path, path.parent().join(&link)),
            MemberKind::Hardlink => out.passed.link(&path, ImagePath::new(&link)),
            MemberKind::File => take(&path, member.size, &mut tar, cache, options, &mut scratch, &mut out)?,
            _ => {}
        }
    }
    // A program that exports says only at its end whether it succeeded.
    tar.drain(limits::LAYER_BYTES_MAX)?;
    Ok(out)
}

fn take(
    path: &ImagePath,
    size: u64,
    tar: &mut TarReader<impl Read + Send>,
    cache: &Cache,
    options: &Options,
    scratch: &mut Scratch,
    out: &mut Streamed,
) -> io::Result<()> {
    let mut head = [0u8; 512];
    let got = read_full(tar, &mut head)?;
    let head = head.get(..got).unwrap_or_default();
    if !is_layer(head) {
        if size <= limits::MANIFEST_BYTES_MAX {
            let mut bytes = head.to_vec();
            tar.read_to_end(&mut bytes)?;
            out.passed.document(path, bytes)?;
        }
        return Ok(());
    }
    if out.layers.len() >= limits::LAYERS_MAX {
        return Err(io::Error::other(format!("more than {} layers", limits::LAYERS_MAX)));
    }
    let mut body = head.chain(tar);
    let (facts, cached) = layer(path, &mut body, cache, options, scratch);
    let facts = facts.map_err(|e| Error::io(&format!("layer `{path}`"), &e));
    out.passed.layer(path, size);
    out.layers.insert(path.clone(), Layer { facts, cached });
    Ok(())
}

/// Compressed, a tar file, or an empty one, which is nothing but zeros.
fn is_layer(head: &[u8]) -> bool {
    let compressed = head.starts_with(&[0x1f, 0x8b]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let empty = head.len() == 512 && head.iter().all(|&b| b == 0);
    compressed || empty || head.get(257..262) == Some(b"ustar")
}

/// The digest that a name claims for the stored bytes: `blobs/sha256/HEX`, `HEX.tar`.
fn claimed(path: &ImagePath) -> Option<Digest> {
    let name = path.file_name();
    let hex = match path.parent().as_str() {
        "/blobs/sha256" => name,
        _ => name.strip_suffix(".tar")?,
    };
    Digest::parse(&format!("sha256:{hex}"))
}

fn layer(
    path: &ImagePath,
    body: &mut (impl Read + Send),
    cache: &Cache,
    options: &Options,
    scratch: &mut Scratch,
) -> (io::Result<LayerFacts>, bool) {
    let claimed = claimed(path);
    let is_blob = path.parent().as_str() == "/blobs/sha256";
    let known = claimed.as_ref().filter(|_| !options.verify_diff_ids);
    let known = known.and_then(|digest| cache.get(digest, options.hash_files));
    let mut stored = verify::Hashed::new(body);
    let hit = known.is_some();
    let scanned = match known {
        Some(facts) => Ok(facts),
        None => uncompressed(&mut stored, scratch, !is_blob || options.verify_diff_ids),
    };
    // What the name claims is checked in any case; a cached layer is only hashed.
    let rest = io::copy(&mut stored, &mut io::sink());
    let stored = stored.digest();
    let checked = scanned.and_then(|facts| rest.map(|_| facts)).and_then(|facts| match &claimed {
        Some(wanted) if (is_blob || hit) && *wanted != stored => {
            let message = format!("the bytes have digest {stored}");
            Err(io::Error::new(io::ErrorKind::InvalidData, message))
        }
        _ => Ok(facts),
    });
    if let (Ok(facts), false) = (&checked, hit) {
        // Only under a digest that was computed from the bytes.
        let key = if is_blob { Some(&stored) } else { facts.diff_id.as_ref() };
        if let Some(key) = key {
            cache.put(key, options.hash_files, facts);
        }
    }
    (checked, hit)
}

/// `hashed`: with the digest of the uncompressed bytes, which is all that docker's archives promise of a layer.
fn uncompressed(
    stored: &mut (impl Read + Send),
    scratch: &mut Scratch,
    hashed: bool,
) -> io::Result<LayerFacts> {
    let plain = decompress::decompress(stored)?;
    if !hashed {
        return walk(plain, scratch).map(|(facts, _)| facts);
    }
    let (mut facts, reader) = walk(verify::Hashed::new(plain), scratch)?;
    facts.diff_id = Some(reader.digest());
    Ok(facts)
}
