//! What must outlive a crash -> lines of a file, and back: images that were promised to be looked at, and which digests a
//! repository has shown to this server.
//!
//! ```text
//! {"want":{"id":7,"reference":"registry.example/ml/train@sha256:…"}}   before the promise is answered
//! {"done":7}
//! {"proven":{"repository":"registry.example/ml/train","digest":"sha256:…"}}
//! ```
//!
//! A line that was cut by a crash was never answered for, and is left out. The file is written anew when it has grown.

use crate::image::Error;
use crate::names::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines after which the file is written anew, at the least.
const LINES_MIN: usize = 10_000;
/// Digests that are remembered; the oldest go first and are shown again.
const PROVEN_MAX: usize = 200_000;
/// A journal that was written here is never longer.
const FILE_BYTES_MAX: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Want { id: u64, reference: String },
    Done(u64),
    Proven { repository: String, digest: String },
}

/// An image that was promised to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    pub id: u64,
    pub reference: String,
}

#[derive(Default)]
pub struct Journal {
    path: Option<PathBuf>,
    /// Held as long as the journal is.
    _lock: Option<File>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    file: Option<File>,
    /// Bytes of whole lines.
    length: u64,
    lines: usize,
    next: u64,
    open: BTreeMap<u64, String>,
    /// Digest and repository.
    proven: BTreeSet<(String, String)>,
    order: VecDeque<(String, String)>,
}

impl Journal {
    /// A journal that forgets.
    pub fn none() -> Journal {
        Journal::default()
    }

    /// Reads the journal in `dir`, and keeps others off it.
    pub fn open(dir: &Path) -> Result<Journal, Error> {
        let failed = |e: io::Error| {
            Error::usage(format!("--state-dir `{}`: {e}", dir.display()))
                .hint("name a directory that this user may write")
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("lock"))
            .map_err(failed)?;
        if lock.try_lock().is_err() {
            return Err(Error::usage(format!("--state-dir `{}` is used by another server", dir.display()))
                .hint("give each replica its own"));
        }
        let path = dir.join("journal.ndjson");
        let mut inner = Inner { next: 1, ..Inner::default() };
        match std::fs::metadata(&path) {
            Ok(found) if found.len() > FILE_BYTES_MAX => {
                return Err(failed(io::Error::other("its journal is larger than any that was written here")));
            }
            Ok(_) => inner.read(&std::fs::read(&path).map_err(failed)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
        inner.rewrite(&path).map_err(failed)?;
        Ok(Journal { path: Some(path), _lock: Some(lock), inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes promises down, for good when this returns.
    pub fn promise(&self, references: &[String]) -> io::Result<Vec<Promise>> {
        let mut inner = self.inner();
        let mut out = Vec::new();
        for reference in references {
            let id = inner.next;
            inner.next += 1;
            inner.write(&Line::Want { id, reference: reference.clone() })?;
            inner.open.insert(id, reference.clone());
            out.push(Promise { id, reference: reference.clone() });
        }
        if let Some(file) = &inner.file {
            file.sync_data()?;
        }
        Ok(out)
    }

    /// A promise is kept, or given up.
    pub fn done(&self, id: u64) {
        let mut inner = self.inner();
        if inner.open.remove(&id).is_some() {
            // Lost, it is looked at once more after a crash.
            let _repeated = inner.write(&Line::Done(id));
            self.tidy(&mut inner);
        }
    }

    /// The promises that are not kept yet.
    pub fn promises(&self) -> Vec<Promise> {
        let inner = self.inner();
        inner.open.iter().map(|(id, reference)| Promise { id: *id, reference: reference.clone() }).collect()
    }

    /// A repository has shown everything of a manifest to this server.
    pub fn proven(&self, repository: &str, digest: &Digest) {
        let mut inner = self.inner();
        if inner.prove(repository, digest.as_str()) {
            let line = Line::Proven { repository: repository.to_owned(), digest: digest.to_string() };
            let _shown_again = inner.write(&line);
            self.tidy(&mut inner);
        }
    }

    pub fn is_proven(&self, repository: &str, digest: &Digest) -> bool {
        self.inner().proven.contains(&(digest.to_string(), repository.to_owned()))
    }

    /// Repositories that have shown a digest.
    pub fn repositories_of(&self, digest: &Digest) -> Vec<String> {
        let inner = self.inner();
        let from = (digest.to_string(), String::new());
        let of_digest = inner.proven.range(from..).take_while(|(known, _)| known == digest.as_str());
        of_digest.map(|(_, repository)| repository.clone()).collect()
    }

    fn tidy(&self, inner: &mut Inner) {
        let live = inner.open.len() + inner.proven.len();
        if let Some(path) = self.path.as_ref().filter(|_| inner.lines > LINES_MIN + 2 * live) {
            // Where it fails, the old file goes on.
            let _longer = inner.rewrite(path);
        }
    }
}

impl Inner {
    fn read(&mut self, bytes: &[u8]) {
        for line in bytes.split(|&b| b == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Line::Want { id, reference }) => {
                    self.next = self.next.max(id + 1);
                    self.open.insert(id, reference);
                }
                Ok(Line::Done(id)) => {
                    self.open.remove(&id);
                }
                Ok(Line::Proven { repository, digest }) => {
                    self.prove(&repository, &digest);
                }
                Err(_) => {}
            }
        }
    }

    fn prove(&mut self, repository: &str, digest: &str) -> bool {
        let key = (digest.to_owned(), repository.to_owned());
        if !self.proven.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > PROVEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.proven.remove(&oldest);
        }
        true
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        // Where an earlier line stayed unfinished, this one takes its place.
        if file.stream_position()? != self.length {
            file.set_len(self.length)?;
            file.seek(SeekFrom::Start(self.length))?;
        }
        file.write_all(&text)?;
        self.length += text.len() as u64;
        self.lines += 1;
        Ok(())
    }

    /// What still counts, into a new file that takes the place of the old one.
    fn rewrite(&mut self, path: &Path) -> io::Result<()> {
        let aside = path.with_extension("new");
        let mut text = Vec::new();
        let wants =
            self.open.iter().map(|(id, reference)| Line::Want { id: *id, reference: reference.clone() });
        let proven = self.order.iter().map(|(digest, repository)| Line::Proven {
            repository: repository.clone(),
            digest: digest.clone(),
        });
        let mut lines = 0;
        for line in wants.chain(proven) {
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
            lines += 1;
        }
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&aside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)?;
        self.file = Some(file);
        self.length = text.len() as u64;
        self.lines = lines;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_outlives_a_crash_and_a_kept_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let made = journal.promise(&["a:1".into(), "b:1".into()]).unwrap();
        journal.done(made[0].id);
        let digest = Digest::of(b"x");
        journal.proven("r/a", &digest);
        drop(journal);
        let file = dir.path().join("journal.ndjson");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes.extend(b"{\"want\":{\"id\":9,\"refer");
        std::fs::write(&file, bytes).unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.promises(), [made[1].clone()]);
        assert!(journal.is_proven("r/a", &digest) && !journal.is_proven("r/b", &digest));
        assert_eq!(journal.repositories_of(&digest), ["r/a"]);
        assert!(journal.promise(&["c:1".into()]).unwrap()[0].id > made[1].id);
    }

    #[test]
    fn a_directory_serves_one_server() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Journal::open(dir.path()).unwrap();
        let second = Journal::open(dir.path()).map(|_| ()).unwrap_err();
        assert!(second.message.contains("another server"), "{second}");
    }

    #[test]
    fn a_long_journal_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        for _ in 0..LINES_MIN {
            let made = journal.promise(&["a:1".into()]).unwrap();
            journal.done(made[0].id);
        }
        let kept = journal.promise(&["b:1".into()]).unwrap();
        assert!(std::fs::read(dir.path().join("journal.ndjson")).unwrap().len() < 1_000_000);
        drop(journal);
        assert_eq!(Journal::open(dir.path()).unwrap().promises(), kept);
    }
}
