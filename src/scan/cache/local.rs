//! Cache entries as files of one directory.
//!
//! Files are written aside and renamed, so readers and killed writers never meet half a file; what cannot be read counts as
//! absent. The time of a file's change is the last day on which it was used, since file systems rarely keep times of access.

use super::CACHE_SCHEMA;
use crate::limits;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(86_400);

/// A directory of entries.
#[derive(Clone, Debug)]
pub(super) struct Local {
    dir: PathBuf,
    bytes_max: u64,
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub files: u64,
    pub bytes: u64,
}

impl Usage {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

impl Local {
    pub(super) fn new(dir: &Path, bytes_max: u64) -> Local {
        Local { dir: dir.to_owned(), bytes_max }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn read(&self, path: &str) -> Option<Vec<u8>> {
        let file = File::open(self.dir.join(path)).ok()?;
        let metadata = file.metadata().ok()?;
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).ok()?.min(1 << 20));
        (&file).take(limits::CACHE_ENTRY_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        if metadata.modified().ok()?.elapsed().is_ok_and(|age| age > DAY) {
            let _may_belong_to_another = touch(&self.dir.join(path));
        }
        Some(bytes)
    }

    /// What cannot be written is not kept.
    pub(super) fn write(&self, path: &str, bytes: &[u8]) {
        let _no_place = write_aside(&self.dir.join(path), bytes);
    }

    fn files(&self) -> Vec<(PathBuf, Metadata)> {
        let mut out = Vec::new();
        for versioned in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = versioned.file_name();
            let ours = ["layers-v", "configs-v"].iter().any(|p| name.to_string_lossy().starts_with(p));
            for file in std::fs::read_dir(versioned.path()).into_iter().flatten().flatten().filter(|_| ours) {
                out.extend(file.metadata().ok().filter(Metadata::is_file).map(|m| (file.path(), m)));
            }
        }
        out
    }

    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        self.files().iter().for_each(|(_, metadata)| usage.add(metadata.len()));
        usage
    }

    pub(super) fn clear(&self) -> io::Result<Usage> {
        let mut removed = Usage::default();
        for (path, metadata) in self.files() {
            remove(&path, &metadata, &mut removed)?;
        }
        Ok(removed)
    }

    pub(super) fn prune(&self, days: u64, bytes_max: Option<u64>) -> io::Result<Usage> {
        let current = format!("layers-v{CACHE_SCHEMA}");
        let oldest = Duration::from_secs(days.saturating_mul(DAY.as_secs()));
        let mut removed = Usage::default();
        let mut left = Vec::new();
        for (path, metadata) in self.files() {
            let is_current =
                path.parent().is_some_and(|p| p.ends_with(&current) || p.ends_with("configs-v1"));
            let age = metadata.modified().ok().and_then(|t| t.elapsed().ok()).unwrap_or_default();
            if !is_current || age >= oldest {
                remove(&path, &metadata, &mut removed)?;
            } else {
                left.push((path, metadata));
            }
        }
        shrink(left, bytes_max.unwrap_or(self.bytes_max), &mut removed)?;
        Ok(removed)
    }

    /// Removes the longest unused where the directory has grown too large. To be called once after a scan that kept something.
    pub(super) fn keep_small(&self) {
        let _others_will = shrink(self.files(), self.bytes_max, &mut Usage::default());
    }
}

fn write_aside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("cache path without directory"))?;
    std::fs::create_dir_all(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

fn touch(path: &Path) -> io::Result<()> {
    File::options().append(true).open(path)?.set_modified(SystemTime::now())
}

fn shrink(mut files: Vec<(PathBuf, Metadata)>, bytes_max: u64, removed: &mut Usage) -> io::Result<()> {
    let mut bytes: u64 = files.iter().map(|(_, m)| m.len()).sum();
    if bytes <= bytes_max {
        return Ok(());
    }
    files.sort_by_key(|(_, m)| m.modified().ok());
    for (path, metadata) in files {
        if bytes <= bytes_max {
            break;
        }
        bytes = bytes.saturating_sub(metadata.len());
        remove(&path, &metadata, removed)?;
    }
    Ok(())
}

fn remove(path: &Path, metadata: &Metadata, removed: &mut Usage) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => removed.add(metadata.len()),
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_goes_first_when_the_directory_is_too_large() {
        let dir = tempfile::tempdir().unwrap();
        let local = Local::new(dir.path(), 250);
        let path = |name: &str| format!("layers-v{CACHE_SCHEMA}/{name}");
        for (age, name) in [(3, "old"), (2, "middle"), (1, "new")] {
            local.write(&path(name), &[0; 100]);
            let file = File::options().append(true).open(dir.path().join(path(name))).unwrap();
            file.set_modified(SystemTime::now() - DAY * age).unwrap();
        }
        assert!(local.read(&path("old")).is_some(), "a use counts");
        local.keep_small();
        assert!(local.read(&path("middle")).is_none());
        assert_eq!(local.usage(), Usage { files: 2, bytes: 200 });
        local.write("layers-v1/other", &[0; 10]);
        assert_eq!(local.prune(30, None).unwrap(), Usage { files: 1, bytes: 10 }, "of another schema");
        assert_eq!(local.prune(30, Some(100)).unwrap().files, 1);
        assert_eq!(local.clear().unwrap().files, 1);
    }
}
