//! [`LayerFacts`] <-> JSON, as caches keep them. Every change here or in what a scan sees asks for a new
//! [`super::CACHE_SCHEMA`].

use crate::facts::json::{
    DeviceCodeJson, ElfJson, device_code_json, device_code_of, elf_json, elf_of, file_kind_name,
    file_kind_of, origin_name, origin_of,
};
use crate::facts::{Content, Counts, Entry, EntryKind, LayerFacts, LayerProblem, PackageFact};
use crate::names::{Digest, ImagePath};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(super) struct LayerJson {
    entries: Vec<EntryJson>,
    problems: Vec<(String, String)>,
    bytes: u64,
    files: u64,
    elf_files: u64,
    spills: u64,
    by_table: u64,
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
    pub(super) fn of(facts: &LayerFacts) -> LayerJson {
        LayerJson {
            entries: facts.entries.iter().map(entry_json).collect(),
            problems: facts.problems.iter().map(|p| (p.path.to_string(), p.detail.clone())).collect(),
            bytes: facts.counts.bytes_decompressed,
            files: facts.counts.files,
            elf_files: facts.counts.elf_files,
            spills: facts.counts.spills,
            by_table: facts.counts.by_table,
            diff_id: facts.diff_id.as_ref().map(Digest::to_string),
        }
    }

    pub(super) fn facts(self) -> Option<LayerFacts> {
        let problem = |(path, detail): (String, String)| LayerProblem { path: ImagePath::new(&path), detail };
        Some(LayerFacts {
            entries: self.entries.into_iter().map(entry_of).collect::<Option<_>>()?,
            problems: self.problems.into_iter().map(problem).collect(),
            counts: Counts {
                bytes_decompressed: self.bytes,
                files: self.files,
                elf_files: self.elf_files,
                spills: self.spills,
                by_table: self.by_table,
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
    Some(Entry { path: ImagePath::from_owned(path), kind, content })
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
