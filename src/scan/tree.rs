//! A directory, a single file or a wheel -> the facts of one layer, as if a tar had held it.

use super::file::{FileScan, Scratch, scan};
use super::take_scan;
use crate::facts::{Depth, Entry, EntryKind, LayerFacts, LayerProblem};
use crate::limits;
use crate::names::ImagePath;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

/// Deepest directory that is entered.
const DEPTH_MAX: usize = 1000;

/// An unpacked root file system. Links are read, never followed.
pub(super) fn directory(root: &Path, scratch: &mut Scratch) -> io::Result<LayerFacts> {
    let mut facts = LayerFacts::default();
    visit(root, &ImagePath::new("/"), 0, scratch, &mut facts, &mut BTreeMap::new())?;
    Ok(facts)
}

/// Names of files that have several, by device and inode.
type Linked = BTreeMap<(u64, u64), ImagePath>;

fn visit(
    dir: &Path,
    at: &ImagePath,
    depth: usize,
    scratch: &mut Scratch,
    facts: &mut LayerFacts,
    linked: &mut Linked,
) -> io::Result<()> {
    let listed: io::Result<Vec<std::fs::DirEntry>> = std::fs::read_dir(dir).and_then(Iterator::collect);
    let mut listed = match listed {
        Ok(listed) => listed,
        Err(error) if at.is_root() => return Err(error),
        Err(error) => {
            facts
                .problems
                .push(LayerProblem { path: at.clone(), detail: format!("directory not readable: {error}") });
            return Ok(());
        }
    };
    listed.sort_by_key(std::fs::DirEntry::file_name);
    for item in listed {
        let path = at.join(&item.file_name().to_string_lossy());
        if facts.entries.len() >= limits::LAYER_ENTRIES_MAX || depth >= DEPTH_MAX {
            return Err(io::Error::other("more entries, or deeper directories, than are read"));
        }
        let kind = item.file_type()?;
        if kind.is_dir() {
            facts.entries.push(Entry { path: path.clone(), kind: EntryKind::Dir, content: None });
            visit(&item.path(), &path, depth + 1, scratch, facts, linked)?;
        } else if kind.is_symlink() {
            let target = std::fs::read_link(item.path())?.to_string_lossy().into_owned();
            facts.entries.push(Entry { path, kind: EntryKind::Symlink(target), content: None });
        } else if kind.is_file() {
            let metadata = item.metadata();
            if let Some(inode) = metadata.as_ref().ok().and_then(inode_of_several_names) {
                if let Some(first) = linked.get(&inode) {
                    let kind = EntryKind::Hardlink(first.clone());
                    facts.entries.push(Entry { path, kind, content: None });
                    continue;
                }
                linked.insert(inode, path.clone());
            }
            let size = metadata.map_or(0, |m| m.len());
            match File::open(item.path()).and_then(|mut f| scan(&path, size, &mut f, scratch)) {
                Ok(scanned) => push_file(path, size, scanned, facts),
                Err(error) => {
                    facts.problems.push(LayerProblem { path, detail: format!("not readable: {error}") });
                }
            }
        } else {
            facts.entries.push(Entry { path, kind: EntryKind::Other, content: None });
        }
    }
    Ok(())
}

/// Device and inode of a file with more than one name.
#[cfg(unix)]
fn inode_of_several_names(metadata: &std::fs::Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    (metadata.nlink() > 1).then(|| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn inode_of_several_names(_: &std::fs::Metadata) -> Option<(u64, u64)> {
    None
}

fn push_file(path: ImagePath, size: u64, scanned: FileScan, facts: &mut LayerFacts) {
    let content = take_scan(&path, scanned, facts);
    facts.entries.push(Entry { path, kind: EntryKind::File { size }, content });
}

/// One ELF file, cubin, fatbin, PTX file, static library, or the members of a wheel.
pub(super) fn single_file(file: &Path, scratch: &mut Scratch) -> io::Result<LayerFacts> {
    let mut facts = LayerFacts::default();
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut opened = File::open(file)?;
    let size = opened.metadata()?.len();
    if size == 0 {
        return Err(io::Error::other("the file is empty (0 bytes)"));
    }
    if Path::new(&name).extension().is_some_and(|e| e.eq_ignore_ascii_case("whl")) {
        return wheel(opened, scratch);
    }
    let path = ImagePath::new(&name);
    let scanned = scan(&path, size, &mut opened, scratch)?;
    if scanned.content.is_none() && scanned.problems.is_empty() && scratch.depth == Depth::Full {
        return Err(io::Error::other("neither an ELF file, cubin, fatbin, PTX, static library nor wheel"));
    }
    push_file(path, size, scanned, &mut facts);
    Ok(facts)
}

fn wheel(file: File, scratch: &mut Scratch) -> io::Result<LayerFacts> {
    let mut facts = LayerFacts::default();
    let mut archive =
        zip::ZipArchive::new(file).map_err(|e| io::Error::other(format!("damaged wheel: {e}")))?;
    if archive.len() > limits::ARCHIVE_MEMBERS_MAX {
        return Err(io::Error::other("the wheel has more members than are read"));
    }
    for index in 0..archive.len() {
        let mut member =
            archive.by_index(index).map_err(|e| io::Error::other(format!("damaged wheel: {e}")))?;
        let path = ImagePath::from_bytes(member.name_raw());
        if member.is_dir() {
            continue;
        }
        let size = member.size();
        if size > limits::LAYER_BYTES_MAX {
            return Err(io::Error::other(format!("`{path}` announces {size} bytes")));
        }
        match scan(&path, size, &mut member, scratch) {
            Ok(scanned) => push_file(path, size, scanned, &mut facts),
            Err(error) => {
                facts.problems.push(LayerProblem { path, detail: format!("damaged wheel member: {error}") });
            }
        }
    }
    Ok(facts)
}
