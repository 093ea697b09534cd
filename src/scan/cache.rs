//! Facts of layers on disk: a second scan of an image does not pull its layers again.
//!
//! One file per layer, named by the digest that was checked while it was read, below a directory of the facts schema.
//! Files are written aside and renamed, so readers and killed writers never meet half a file; a file that cannot be
//! read counts as absent. The catalog is not part of the key: new drivers need no new scan.

use crate::facts::json::{
    DeviceCodeJson, ElfJson, device_code_json, device_code_of, elf_json, elf_of, file_kind_name,
    file_kind_of, origin_name, origin_of,
};
use crate::facts::{Content, Counts, Entry, EntryKind, LayerFacts, LayerProblem, PackageFact};
use crate::names::{Digest, ImagePath};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Grows with every change of what a scan sees or how it is stored.
pub const CACHE_SCHEMA: u32 = 6;
const ZSTD_LEVEL: i32 = 3;
/// A cache file that would unpack to more is not ours.
const CACHE_BYTES_MAX: u64 = 1 << 30;

/// The cache directory, or none with `--no-cache`.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    dir: Option<PathBuf>,
}

/// What the cache holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub files: u64,
    pub bytes: u64,
}

impl Cache {
    /// A cache in `dir`, which is made when the first layer is stored.
    pub fn at(dir: &Path) -> Cache {
        Cache { dir: Some(dir.to_owned()) }
    }

    /// No cache.
    pub fn none() -> Cache {
        Cache { dir: None }
    }

    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    fn path(&self, digest: &Digest, hashed: bool) -> Option<PathBuf> {
        let suffix = if hashed { ".hashed" } else { "" };
        let name = format!("{}-{}{suffix}.json.zst", digest.algorithm(), digest.hex());
        Some(self.dir.as_ref()?.join(format!("layers-v{CACHE_SCHEMA}")).join(name))
    }

    /// Facts of a layer. `hashed`: with the SHA-256 of files.
    pub fn get(&self, digest: &Digest, hashed: bool) -> Option<LayerFacts> {
        let packed = std::fs::read(self.path(digest, hashed)?).ok()?;
        let mut plain = Vec::new();
        let decoder = zstd::stream::read::Decoder::new(packed.as_slice()).ok()?;
        decoder.take(CACHE_BYTES_MAX).read_to_end(&mut plain).ok()?;
        let json: LayerJson = serde_json::from_slice(&plain).ok()?;
        json.facts()
    }

    /// Keeps facts of a layer; a cache that cannot be written is as good as none.
    pub fn put(&self, digest: &Digest, hashed: bool, facts: &LayerFacts) {
        let Some(path) = self.path(digest, hashed) else { return };
        let _ignored = write_aside(&path, &LayerJson::of(facts));
    }

    fn files(&self) -> Vec<(PathBuf, std::fs::Metadata)> {
        let Some(dir) = &self.dir else { return Vec::new() };
        let mut out = Vec::new();
        for versioned in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let ours = versioned.file_name().to_string_lossy().starts_with("layers-v");
            for file in std::fs::read_dir(versioned.path()).into_iter().flatten().flatten().filter(|_| ours) {
                out.extend(file.metadata().ok().filter(std::fs::Metadata::is_file).map(|m| (file.path(), m)));
            }
        }
        out
    }

    pub fn usage(&self) -> Usage {
        let files = self.files();
        Usage { files: files.len() as u64, bytes: files.iter().map(|(_, m)| m.len()).sum() }
    }

    /// Removes everything.
    pub fn clear(&self) -> io::Result<Usage> {
        self.remove(|_, _| true)
    }

    /// Removes files of other schemas, and those not used for `days` days.
    pub fn prune(&self, days: u64) -> io::Result<Usage> {
        let current = format!("layers-v{CACHE_SCHEMA}");
        let oldest = std::time::Duration::from_secs(days.saturating_mul(86_400));
        self.remove(|path, metadata| {
            let is_current = path.parent().is_some_and(|p| p.ends_with(&current));
            let used = metadata.accessed().or_else(|_| metadata.modified());
            let age = used.ok().and_then(|t| t.elapsed().ok()).unwrap_or_default();
            !is_current || age >= oldest
        })
    }

    fn remove(&self, unwanted: impl Fn(&Path, &std::fs::Metadata) -> bool) -> io::Result<Usage> {
        let mut removed = Usage::default();
        for (path, metadata) in self.files() {
            if unwanted(&path, &metadata) {
                match std::fs::remove_file(&path) {
                    Ok(()) => {
                        removed.files += 1;
                        removed.bytes += metadata.len();
                    }
                    // Another process was faster.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(removed)
    }
}

fn write_aside(path: &Path, json: &LayerJson) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("cache path without directory"))?;
    std::fs::create_dir_all(dir)?;
    // With a checksum: a byte that flips on disk makes the file unreadable, not wrong.
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.write_all(&serde_json::to_vec(json)?)?;
    let packed = encoder.finish()?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&packed)?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct LayerJson {
    entries: Vec<EntryJson>,
    problems: Vec<(String, String)>,
    bytes: u64,
    files: u64,
    elf_files: u64,
    spills: u64,
    diff_id: Option<String>,
}

/// Path, kind (`f` file, `d` directory, `s` symbolic link, `h` hard link, `w` whiteout, `o` opaque, `x` other), link
/// target, size, content.
#[derive(Serialize, Deserialize)]
struct EntryJson(String, char, Option<String>, u64, Option<Box<ContentJson>>);

#[derive(Serialize, Deserialize)]
struct ContentJson {
    kind: Option<String>,
    elf: Option<ElfJson>,
    device_code: Option<DeviceCodeJson>,
    packages: Vec<(String, String, String, Vec<String>)>,
    text: Option<String>,
    sha256: Option<String>,
}

impl LayerJson {
    fn of(facts: &LayerFacts) -> LayerJson {
        LayerJson {
            entries: facts.entries.iter().map(entry_json).collect(),
            problems: facts.problems.iter().map(|p| (p.path.to_string(), p.detail.clone())).collect(),
            bytes: facts.counts.bytes_decompressed,
            files: facts.counts.files,
            elf_files: facts.counts.elf_files,
            spills: facts.counts.spills,
            diff_id: facts.diff_id.as_ref().map(Digest::to_string),
        }
    }

    fn facts(self) -> Option<LayerFacts> {
        let problem = |(path, detail): (String, String)| LayerProblem { path: ImagePath::new(&path), detail };
        Some(LayerFacts {
            entries: self.entries.into_iter().map(entry_of).collect::<Option<_>>()?,
            problems: self.problems.into_iter().map(problem).collect(),
            counts: Counts {
                bytes_decompressed: self.bytes,
                files: self.files,
                elf_files: self.elf_files,
                spills: self.spills,
            },
            diff_id: self.diff_id.and_then(|d| Digest::parse(&d)),
        })
    }
}

fn entry_json(entry: &Entry) -> EntryJson {
    let (kind, target, size) = match &entry.kind {
        EntryKind::File { size } => ('f', None, *size),
        EntryKind::Dir => ('d', None, 0),
        EntryKind::Symlink(target) => ('s', Some(target.clone()), 0),
        EntryKind::Hardlink(target) => ('h', Some(target.to_string()), 0),
        EntryKind::Whiteout => ('w', None, 0),
        EntryKind::Opaque => ('o', None, 0),
        EntryKind::Other => ('x', None, 0),
    };
    let content = entry.content.as_ref().map(|c| Box::new(content_json(c)));
    EntryJson(entry.path.to_string(), kind, target, size, content)
}

fn entry_of(EntryJson(path, kind, target, size, content): EntryJson) -> Option<Entry> {
    let kind = match (kind, target) {
        ('f', _) => EntryKind::File { size },
        ('d', _) => EntryKind::Dir,
        ('s', Some(target)) => EntryKind::Symlink(target),
        ('h', Some(target)) => EntryKind::Hardlink(ImagePath::new(&target)),
        ('w', _) => EntryKind::Whiteout,
        ('o', _) => EntryKind::Opaque,
        ('x', _) => EntryKind::Other,
        _ => return None,
    };
    let content = match content {
        Some(content) => Some(Box::new(content_of(*content)?)),
        None => None,
    };
    Some(Entry { path: ImagePath::new(&path), kind, content })
}

fn content_json(content: &Content) -> ContentJson {
    let package = |p: &PackageFact| {
        (origin_name(p.origin).to_owned(), p.name.clone(), p.version.clone(), p.requires.clone())
    };
    ContentJson {
        kind: content.kind.map(|k| file_kind_name(k).to_owned()),
        elf: content.elf.as_ref().map(elf_json),
        device_code: content.device_code.as_ref().map(device_code_json),
        packages: content.packages.iter().map(package).collect(),
        text: content.text.clone(),
        sha256: content.sha256.as_ref().map(Digest::to_string),
    }
}

fn content_of(json: ContentJson) -> Option<Content> {
    let package = |(origin, name, version, requires): (String, String, String, Vec<String>)| {
        Some(PackageFact { origin: origin_of(&origin)?, name, version, requires })
    };
    Some(Content {
        kind: match json.kind {
            Some(kind) => Some(file_kind_of(&kind)?),
            None => None,
        },
        elf: json.elf.map(elf_of),
        device_code: match json.device_code {
            Some(code) => Some(device_code_of(code)?),
            None => None,
        },
        packages: json.packages.into_iter().map(package).collect::<Option<_>>()?,
        text: json.text,
        sha256: json.sha256.and_then(|d| Digest::parse(&d)),
    })
}
