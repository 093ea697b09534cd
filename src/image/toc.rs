//! The table of contents at the end of a seekable layer (zstd:chunked, eStargz) -> its entries, and where in the stored bytes the
//! pieces of each file stand. What a piece holds is checked against its digest; that the table is the right one follows from the
//! manifest, which names its digest.
//!
//! | form | where the table is | where its digest is |
//! |---|---|---|
//! | zstd:chunked | annotation `io.github.containers.zstd-chunked.manifest-position` (older: `io.containers.…`): offset, length, length unpacked, type 1 | `….manifest-checksum`: of the packed table |
//! | eStargz | the last 51 bytes of the layer: an empty gzip member whose extra field is `%016xSTARGZ`, the offset of a gzip member with a tar of `stargz.index.json` | annotation `containerd.io/snapshot/stargz/toc.digest`: of the JSON |
//!
//! Sources: `docs/format.md` of the zstd-chunked crate, `docs/estargz.md` of stargz-snapshotter, and layers that podman and skopeo wrote.

use super::{Descriptor, Error};
use crate::limits;
use crate::names::Digest;
use base64::Engine;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::io::{self, Read};

const ESTARGZ_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
const CHUNKED: [&str; 2] = ["io.github.containers.zstd-chunked.", "io.containers.zstd-chunked."];
/// A piece that cannot be packed at all, and what stands behind it up to the next one: headers, small files.
const STORED_BYTES_MAX: u64 = limits::TOC_PIECE_BYTES_MAX + (8 << 20);
/// The footer of an eStargz layer, bytes.
const FOOTER_BYTES: u64 = 51;
const FOOTER_HEAD: [u8; 10] = [0x1f, 0x8b, 0x08, 0x04, 0, 0, 0, 0, 0, 0xff];
/// Names that only the format itself has.
const OWN_NAMES: [&str; 3] = ["stargz.index.json", ".prefetch.landmark", ".no.prefetch.landmark"];

/// Where the table of a layer is, as its manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toc {
    /// Offset and length of the packed table, its length unpacked, and its digest.
    Chunked {
        offset: u64,
        packed: u64,
        unpacked: u64,
        digest: Digest,
    },
    EStargz {
        digest: Digest,
    },
}

/// How pieces are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Zstd,
    Gzip,
}

/// One entry, in the order of the tar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    /// `reg`, `dir`, `symlink`, `hardlink`, `char`, `block`, `fifo`.
    pub kind: String,
    pub link: String,
    pub size: u64,
    /// A character device 0:0, which overlay file systems leave for a removed file.
    pub device_is_zero: bool,
    pub overlay_opaque: bool,
    /// In the order of the file, without gaps.
    pub pieces: Vec<Piece>,
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it stands in the file, and how long it is.
    pub at: u64,
    pub len: u64,
    /// The stored bytes that hold it; none where it is all zeros.
    pub stored: Option<(u64, u64)>,
    /// Bytes of other pieces that stand before it there, unpacked.
    pub skip: u64,
    pub digest: Option<Digest>,
}

impl Toc {
    /// What the annotations of a layer's descriptor say; `None` where it has no table, or an unusable one.
    pub fn of(annotations: &BTreeMap<String, String>) -> Option<Toc> {
        for prefix in CHUNKED {
            let get = |name: &str| annotations.get(&format!("{prefix}{name}"));
            let (Some(position), Some(digest)) = (get("manifest-position"), get("manifest-checksum")) else {
                continue;
            };
            let numbers: Vec<u64> = position.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
            let [offset, packed, unpacked, 1] = numbers.as_slice() else { return None };
            let digest = sha256(digest)?;
            return Some(Toc::Chunked { offset: *offset, packed: *packed, unpacked: *unpacked, digest });
        }
        annotations.get(ESTARGZ_DIGEST).and_then(|d| sha256(d)).map(|digest| Toc::EStargz { digest })
    }

    pub fn packing(&self) -> Packing {
        match self {
            Toc::Chunked { .. } => Packing::Zstd,
            Toc::EStargz { .. } => Packing::Gzip,
        }
    }

    /// Reads the table; `fetch` gives stored bytes from an offset on, as many as asked for.
    pub fn read(
        &self,
        layer: &Descriptor,
        fetch: impl Fn(u64, u64) -> Result<Vec<u8>, Error>,
    ) -> Result<Vec<Entry>, Error> {
        let wrong = |why: &str| Error::look(format!("table of contents: {why}"));
        let max = limits::TOC_BYTES_MAX;
        let (json, tables_at) = match self {
            Toc::Chunked { offset, packed, unpacked, digest } => {
                let end = offset.checked_add(*packed).filter(|end| *end <= layer.size);
                if end.is_none() || *packed > max || *unpacked > max {
                    return Err(wrong("its position cannot be"));
                }
                let bytes = fetch(*offset, *packed)?;
                if Digest::of(&bytes) != *digest {
                    return Err(wrong("it does not have the digest that the manifest gives"));
                }
                let decoder =
                    zstd::stream::read::Decoder::new(bytes.as_slice()).map_err(|e| wrong(&e.to_string()))?;
                (read_bounded(decoder, *unpacked).map_err(|e| wrong(&e.to_string()))?, *offset)
            }
            Toc::EStargz { digest } => {
                let start =
                    layer.size.checked_sub(FOOTER_BYTES).ok_or_else(|| wrong("the layer is too short"))?;
                let offset = footer(&fetch(start, FOOTER_BYTES)?).filter(|o| *o < start);
                let offset = offset.ok_or_else(|| wrong("the layer has no footer"))?;
                if start - offset > max {
                    return Err(wrong("it is too large"));
                }
                let bytes = fetch(offset, start - offset)?;
                let json = json_in_tar(&bytes).map_err(|e| wrong(&e.to_string()))?;
                if Digest::of(&json) != *digest {
                    return Err(wrong("it does not have the digest that the manifest gives"));
                }
                (json, offset)
            }
        };
        if !json.starts_with(b"{") {
            return Err(wrong("it is no JSON object"));
        }
        let document: Document = serde_json::from_slice(&json).map_err(|e| wrong(&e.to_string()))?;
        // Tens of megabytes for a layer with PyTorch.
        drop(json);
        if document.version != 1 {
            return Err(wrong(&format!("it is of version {}", document.version)));
        }
        entries(document, tables_at).ok_or_else(|| wrong("pieces of a file leave gaps or have no digest"))
    }
}

fn sha256(text: &str) -> Option<Digest> {
    Digest::parse(text).filter(|d| d.algorithm() == "sha256")
}

fn read_bounded(reader: impl Read, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > max {
        true => Err(io::Error::other("it is longer than it says")),
        false => Ok(bytes),
    }
}

/// The offset of the table: 16 hexadecimal digits behind the header of an extra field `SG` of 22 bytes.
fn footer(bytes: &[u8]) -> Option<u64> {
    let extra = bytes.strip_prefix(&FOOTER_HEAD)?.strip_prefix(&[26, 0, b'S', b'G', 22, 0])?;
    let (digits, rest) = extra.split_at_checked(16)?;
    let offset = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    rest.starts_with(b"STARGZ").then_some(offset)
}

/// A gzip member that holds a tar of one file.
fn json_in_tar(bytes: &[u8]) -> io::Result<Vec<u8>> {
    // Names are kept whole, however long.
    let plain = super::decompress::decompress(bytes)?.take(limits::TOC_BYTES_MAX);
    let mut archive = tar::Archive::new(plain);
    for member in archive.entries()? {
        let member = member?;
        if member.path_bytes().ends_with(b"stargz.index.json") {
            return read_bounded(member, limits::TOC_BYTES_MAX);
        }
    }
    Err(io::Error::other("it is not where the footer says"))
}

#[derive(Deserialize)]
struct Document {
    version: u64,
    #[serde(deserialize_with = "bounded")]
    entries: Vec<EntryJson>,
}

/// A list of at most [`limits::TOC_ENTRIES_MAX`] entries: two bytes of a table would be hundreds here.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<EntryJson>, D::Error> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<EntryJson>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of entries")
        }

        // What skopeo writes for a layer without files.
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = list.next_element()? {
                if entries.len() >= limits::TOC_ENTRIES_MAX {
                    return Err(A::Error::custom(format!("more than {} entries", limits::TOC_ENTRIES_MAX)));
                }
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_any(Entries)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct EntryJson {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    link_name: String,
    size: u64,
    digest: String,
    offset: u64,
    end_offset: u64,
    chunk_offset: u64,
    chunk_size: u64,
    chunk_digest: String,
    chunk_type: String,
    /// Small files of eStargz may share one gzip member.
    inner_offset: u64,
    dev_major: u64,
    dev_minor: u64,
    xattrs: BTreeMap<String, String>,
}

/// Groups pieces under their files. `None` where they do not make up the files.
fn entries(document: Document, tables_at: u64) -> Option<Vec<Entry>> {
    // Where a piece does not say where it ends, the next one begins, or the table.
    let mut starts: Vec<u64> = document.entries.iter().map(|e| e.offset).filter(|o| *o > 0).collect();
    starts.extend(document.entries.iter().map(|e| e.end_offset));
    starts.push(tables_at);
    starts.sort_unstable();
    starts.dedup();
    let end_of = |start: u64| starts.get(starts.partition_point(|s| *s <= start)).copied();
    let mut out: Vec<Entry> = Vec::with_capacity(document.entries.len());
    for json in document.entries {
        let is_chunk = json.kind == "chunk";
        if !is_chunk {
            if OWN_NAMES.contains(&json.name.trim_start_matches("./")) {
                // Its chunks, if there are any, are not those of the entry before.
                out.push(Entry { kind: "own".to_owned(), ..Entry::default() });
                continue;
            }
            let opaque = json.xattrs.get("trusted.overlay.opaque");
            let engine = &base64::engine::general_purpose::STANDARD;
            out.push(Entry {
                name: json.name,
                device_is_zero: json.dev_major == 0 && json.dev_minor == 0,
                overlay_opaque: opaque.and_then(|v| engine.decode(v).ok()).is_some_and(|v| v == b"y"),
                link: json.link_name,
                size: json.size,
                pieces: Vec::new(),
                kind: json.kind.clone(),
            });
        }
        let entry = out.last_mut()?;
        if entry.size == 0 || !matches!(json.kind.as_str(), "reg" | "chunk") || entry.kind == "own" {
            continue;
        }
        let at = json.chunk_offset;
        if at != entry.pieces.last().map_or(0, |p| p.at + p.len) {
            return None;
        }
        let left = entry.size.checked_sub(at).filter(|left| *left > 0)?;
        let len = if json.chunk_size == 0 { left } else { json.chunk_size };
        if len > left || len > limits::TOC_PIECE_BYTES_MAX {
            return None;
        }
        let zeros = json.chunk_type == "zeros";
        let digest =
            if json.chunk_digest.is_empty() && len == entry.size { json.digest } else { json.chunk_digest };
        let digest = sha256(&digest);
        if digest.is_none() && !zeros {
            return None;
        }
        let within = |end: &u64| *end <= tables_at;
        let stored = if zeros { None } else { Some((json.offset, end_of(json.offset).filter(within)?)) };
        let skip = json.inner_offset;
        let stored_bytes = stored.map_or(0, |(start, end)| end.saturating_sub(start));
        if stored_bytes > STORED_BYTES_MAX || skip > limits::TOC_PIECE_BYTES_MAX {
            return None;
        }
        entry.pieces.push(Piece { at, len, stored, skip, digest });
    }
    let whole = |e: &Entry| e.kind != "reg" || e.pieces.last().map_or(0, |p| p.at + p.len) == e.size;
    out.retain(|e| e.kind != "own");
    out.iter().all(whole).then_some(out)
}

/// The bytes of a piece from what is stored of it, checked.
pub fn unpack(piece: &Piece, stored: &[u8], packing: Packing) -> io::Result<Vec<u8>> {
    let damaged = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("a piece of a file {why}"));
    let len = usize::try_from(piece.len).map_err(|_| damaged("is too long"))?;
    if piece.stored.is_none() {
        let zeros = vec![0; len];
        return match &piece.digest {
            Some(digest) if Digest::of(&zeros) != *digest => {
                Err(damaged("does not have the digest that its table gives"))
            }
            _ => Ok(zeros),
        };
    }
    let mut bytes = Vec::with_capacity(len);
    let mut take = |plain: &mut dyn Read| -> io::Result<()> {
        io::copy(&mut (&mut *plain).take(piece.skip), &mut io::sink())?;
        plain.take(piece.len).read_to_end(&mut bytes).map(drop)
    };
    match packing {
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(stored)?;
            decoder.window_log_max(limits::ZSTD_WINDOW_LOG_MAX)?;
            take(&mut decoder)?;
        }
        // The tar header of the next file may stand in the same member.
        Packing::Gzip => take(&mut super::decompress::decompress(stored)?)?,
    }
    if bytes.len() != len {
        return Err(damaged("is shorter than its table says"));
    }
    match piece.digest.as_ref() {
        Some(digest) if Digest::of(&bytes) == *digest => Ok(bytes),
        _ => Err(damaged("does not have the digest that its table gives")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(json: &str) -> Option<Vec<Entry>> {
        entries(serde_json::from_str(json).unwrap(), 1000)
    }

    const D: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn pieces_are_put_under_their_files() {
        let text = format!(
            r#"{{"version":1,"entries":[{{"type":"dir","name":"a/"}},
            {{"type":"reg","name":"a/x","size":30,"offset":10,"endOffset":90,"chunkSize":10,"chunkDigest":"{D}"}},
            {{"type":"chunk","name":"a/x","offset":40,"chunkOffset":10,"chunkSize":15,"chunkDigest":"{D}"}},
            {{"type":"chunk","name":"a/x","chunkOffset":25,"chunkSize":5,"chunkType":"zeros"}},
            {{"type":"reg","name":"a/e"}},
            {{"type":"reg","name":".prefetch.landmark","size":1,"offset":95,"digest":"{D}"}},
            {{"type":"reg","name":"a/y","size":7,"offset":100,"digest":"{D}"}}]}}"#
        );
        let entries = document(&text).unwrap();
        let names: Vec<&str> = entries.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["a/", "a/x", "a/e", "a/y"]);
        let stored: Vec<_> = entries[1].pieces.iter().map(|p| (p.at, p.len, p.stored)).collect();
        assert_eq!(stored, [(0, 10, Some((10, 40))), (10, 15, Some((40, 90))), (25, 5, None)]);
        assert_eq!(entries[3].pieces[0].stored, Some((100, 1000)));
    }

    #[test]
    fn tables_that_cannot_be_are_refused() {
        for entries in [
            format!(
                r#"{{"type":"reg","name":"x","size":30,"offset":10,"chunkSize":10,"chunkDigest":"{D}"}}"#
            ),
            r#"{"type":"reg","name":"x","size":30,"offset":10}"#.to_owned(),
            format!(r#"{{"type":"reg","name":"x","size":9,"offset":10,"chunkOffset":3,"digest":"{D}"}}"#),
            format!(r#"{{"type":"chunk","name":"x","size":9,"offset":10,"digest":"{D}"}}"#),
            format!(r#"{{"type":"reg","name":"x","size":{},"offset":10,"digest":"{D}"}}"#, u64::MAX),
        ] {
            assert_eq!(document(&format!(r#"{{"version":1,"entries":[{entries}]}}"#)), None, "{entries}");
        }
    }

    #[test]
    fn a_piece_is_checked_against_its_digest() {
        let piece = |bytes: &[u8], len: u64| Piece {
            at: 0,
            len,
            stored: Some((0, 1)),
            skip: 0,
            digest: Some(Digest::of(bytes)),
        };
        let packed = zstd::encode_all(&b"library"[..], 1).unwrap();
        assert_eq!(unpack(&piece(b"library", 7), &packed, Packing::Zstd).unwrap(), b"library");
        assert!(unpack(&piece(b"another", 7), &packed, Packing::Zstd).is_err());
        assert!(unpack(&piece(b"library", 8), &packed, Packing::Zstd).is_err());
    }

    #[test]
    fn the_footer_of_estargz_says_where_the_table_is() {
        let mut bytes = FOOTER_HEAD.to_vec();
        bytes.extend([26, 0, b'S', b'G', 22, 0]);
        bytes.extend(format!("{:016x}STARGZ", 0x1234).as_bytes());
        bytes.extend([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes.len() as u64, FOOTER_BYTES);
        assert_eq!(footer(&bytes), Some(0x1234));
        assert_eq!(footer(&bytes[1..]), None);
    }
}
