//! An archive of an image that can be read only once (a pipe, an engine's export) -> its documents, and the facts of every
//! layer, taken while it passes. Which of them the image consists of is known at the end, when its manifest has come.

use super::cache::Cache;
use super::file::Scratch;
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
        let mut entries = 0usize;
        let layers = (0..image.layer_count()).map(|index| {
            let layer = image.streamed_layer(index).and_then(|path| Some((path, self.layers.get(path)?)));
            let (path, layer) =
                layer.ok_or_else(|| Error::look(format!("layer {index} is missing in the archive")))?;
            let facts = layer.facts.as_ref().map_err(Clone::clone)?;
            // One layer may be named many times.
            entries = entries.saturating_add(facts.entries.len());
            if entries > limits::IMAGE_ENTRIES_MAX {
                return Err(Error::look(format!(
                    "more than {} entries in all layers",
                    limits::IMAGE_ENTRIES_MAX
                )));
            }
            let wanted = image.identity.layers.get(index).and_then(|l| l.diff_id.as_ref());
            match (&facts.diff_id, wanted) {
                (Some(got), Some(wanted)) if got != wanted => Err(Error::look(format!(
                    "layer `{path}`: the uncompressed bytes have digest {got}, the config says {wanted}"
                ))),
                _ => {
                    layers_cached += u64::from(layer.cached);
                    Ok(facts.clone())
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
    let mut scratch =
        Scratch::new(options.budget.clone().unwrap_or_default(), options.hash_files, options.depth);
    let mut out = Streamed { passed: Passed::default(), layers: BTreeMap::new() };
    let mut members = 0usize;
    while let Some(member) = tar.next()? {
        members += 1;
        if members > limits::ARCHIVE_MEMBERS_MAX || tar.position() > limits::LAYER_BYTES_MAX {
            return Err(io::Error::other("more members or bytes than are read of one archive"));
        }
        let path = ImagePath::from_bytes(&member.name);
        // As with a file that is extracted: the last of a name is the one that counts.
        out.passed.forget(&path);
        out.layers.remove(&path);
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
    if is_document(path, head) {
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
    // Layers that no manifest names are kept up to here, too.
    let entries = |l: &Layer| l.facts.as_ref().map_or(0, |f| f.entries.len());
    let total: usize = out.layers.values().map(entries).sum();
    if total + facts.as_ref().map_or(0, |f| f.entries.len()) > limits::IMAGE_ENTRIES_MAX {
        return Err(io::Error::other(format!(
            "more than {} entries in all layers",
            limits::IMAGE_ENTRIES_MAX
        )));
    }
    let facts = facts.map_err(|e| Error::io(&format!("layer `{path}`"), &e));
    out.passed.layer(path, size);
    out.layers.insert(path.clone(), Layer { facts, cached });
    Ok(())
}

/// JSON, and the one line of text that docker writes. Everything else may be a layer: what is none is named by no manifest.
fn is_document(path: &ImagePath, head: &[u8]) -> bool {
    let json = head.trim_ascii_start().first().is_some_and(|b| matches!(b, b'{' | b'['));
    (json || path.file_name() == "VERSION") && head.get(257..262) != Some(b"ustar")
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

/// Scans one layer; both of its digests are computed, and facts are kept only under that of the stored bytes: other bytes can
/// unpack to bytes that are themselves a stored layer, compressed once more.
fn layer(
    path: &ImagePath,
    body: &mut (impl Read + Send),
    cache: &Cache,
    options: &Options,
    scratch: &mut Scratch,
) -> (io::Result<LayerFacts>, bool) {
    let claimed = claimed(path);
    let known = claimed.as_ref().filter(|_| !options.verify_diff_ids);
    // A cached layer must tell what it unpacks to: the config is checked against that.
    let known = known.and_then(|digest| cache.get(&options.key(digest))).filter(|f| f.diff_id.is_some());
    let mut stored = verify::Hashed::new(body);
    let hit = known.is_some();
    let scanned = match known {
        Some(facts) => Ok(facts),
        None => uncompressed(&mut stored, scratch),
    };
    // What the name claims is checked in any case; a cached layer is only hashed.
    let rest = io::copy(&mut stored, &mut io::sink());
    let stored = stored.digest();
    let is_blob = path.parent().as_str() == "/blobs/sha256";
    let checked = scanned.and_then(|facts| rest.map(|_| facts)).and_then(|facts| match &claimed {
        Some(wanted) if (is_blob || hit) && *wanted != stored => {
            let message = format!("the bytes have digest {stored}");
            Err(io::Error::new(io::ErrorKind::InvalidData, message))
        }
        _ => Ok(facts),
    });
    if let (Ok(facts), false) = (&checked, hit) {
        cache.put(&options.key(&stored), facts);
    }
    (checked, hit)
}

fn uncompressed(stored: &mut (impl Read + Send), scratch: &mut Scratch) -> io::Result<LayerFacts> {
    let (mut facts, reader) = walk(verify::Hashed::new(decompress::decompress(stored)?), scratch)?;
    facts.diff_id = Some(reader.digest());
    Ok(facts)
}
