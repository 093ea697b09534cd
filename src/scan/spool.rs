//! Byte ranges of a file that passes by once, kept for later: in memory up to the bounds of `limits.rs`, then in an
//! unlinked temporary file.

use crate::limits;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Memory that all workers share, and the count of files that had to go to disk.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    used: Arc<AtomicUsize>,
    pub(crate) spills: Arc<AtomicU64>,
}

impl Budget {
    fn take(&self, bytes: usize) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= limits::KEPT_BYTES_TOTAL_MAX;
        if !fits {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

/// One contiguous range of the file, filled front to back.
pub(crate) struct Kept {
    start: u64,
    end: u64,
    memory: Vec<u8>,
    disk: Option<(File, u64)>,
    budget: Budget,
}

impl Kept {
    /// Will keep the bytes `start..end` of the file.
    pub(crate) fn new(start: u64, end: u64, budget: &Budget) -> Kept {
        Kept { start, end: end.max(start), memory: Vec::new(), disk: None, budget: budget.clone() }
    }

    /// First offset that has not arrived yet.
    pub(crate) fn next(&self) -> u64 {
        let disk = self.disk.as_ref().map_or(0, |(_, len)| *len);
        self.start.saturating_add(self.memory.len() as u64).saturating_add(disk)
    }

    /// No more than what has arrived so far, and what is below `end`, is wanted.
    pub(crate) fn limit(&mut self, end: u64) {
        self.end = self.end.min(end).max(self.next());
    }

    /// What is still wanted, if it begins at or behind `at`: what was missed is not had any more.
    pub(crate) fn wants(&self, at: u64) -> Option<(u64, u64)> {
        let next = self.next();
        (next >= at && next < self.end).then_some((next, self.end))
    }

    /// Takes its share of the bytes that stand at `offset` of the file. `Err`: no room on disk either.
    pub(crate) fn feed(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let next = self.next();
        let stop = offset.saturating_add(bytes.len() as u64).min(self.end);
        if next < offset || next >= stop {
            return Ok(());
        }
        let from = usize::try_from(next.saturating_sub(offset)).unwrap_or(usize::MAX);
        let to = usize::try_from(stop.saturating_sub(offset)).unwrap_or(usize::MAX);
        let share = bytes.get(from..to).unwrap_or_default();
        let in_memory = self.disk.is_none()
            && self.memory.len().saturating_add(share.len()) <= limits::KEPT_BYTES_PER_FILE_MAX
            && self.budget.take(share.len());
        if in_memory {
            self.memory.extend_from_slice(share);
            return Ok(());
        }
        if self.disk.is_none() {
            self.budget.spills.fetch_add(1, Ordering::Relaxed);
            self.disk = Some((tempfile::tempfile()?, 0));
        }
        if let Some((file, len)) = &mut self.disk {
            if len.saturating_add(share.len() as u64) > limits::SPILLED_BYTES_PER_FILE_MAX {
                return Err(io::Error::other("more of one file would have to be kept than is allowed"));
            }
            file.write_all(share)?;
            *len = len.saturating_add(share.len() as u64);
        }
        Ok(())
    }

    /// The bytes `offset..offset + len`, where all of them were kept.
    pub(crate) fn read(&self, offset: u64, len: u64) -> Option<Cow<'_, [u8]>> {
        let end = offset.checked_add(len)?;
        if offset < self.start || end > self.next() {
            return None;
        }
        let from = usize::try_from(offset - self.start).ok()?;
        let to = from.checked_add(usize::try_from(len).ok()?)?;
        if let Some(bytes) = self.memory.get(from..to) {
            return Some(Cow::Borrowed(bytes));
        }
        let mut out = self.memory.get(from.min(self.memory.len())..).unwrap_or_default().to_vec();
        let (file, _) = self.disk.as_ref()?;
        let mut file = file.try_clone().ok()?;
        let on_disk = (from.max(self.memory.len()) - self.memory.len()) as u64;
        file.seek(SeekFrom::Start(on_disk)).ok()?;
        let missing = usize::try_from(len).ok()?.checked_sub(out.len())?;
        let held = out.len();
        out.resize(held.checked_add(missing)?, 0);
        file.read_exact(out.get_mut(held..)?).ok()?;
        Some(Cow::Owned(out))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.memory.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_collects_its_share_of_every_chunk() {
        let budget = Budget::default();
        let mut kept = Kept::new(5, 12, &budget);
        for (at, chunk) in [(0u64, &b"0123"[..]), (4, b"4567"), (8, b"89abcdef")] {
            kept.feed(at, chunk).unwrap();
        }
        assert_eq!(kept.read(5, 7).unwrap().as_ref(), b"56789ab");
        assert!(kept.read(4, 2).is_none() && kept.read(11, 2).is_none());
        drop(kept);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn beyond_the_budget_bytes_go_to_disk_and_read_the_same() {
        let budget = Budget::default();
        let hog = limits::KEPT_BYTES_TOTAL_MAX - 6;
        assert!(budget.take(hog));
        let mut kept = Kept::new(0, 10, &budget);
        kept.feed(0, b"01234").unwrap();
        kept.feed(5, b"56789").unwrap();
        assert_eq!(budget.spills.load(Ordering::Relaxed), 1);
        assert_eq!(kept.read(3, 6).unwrap().as_ref(), b"345678");
        assert_eq!(kept.read(6, 3).unwrap().as_ref(), b"678");
    }
}
