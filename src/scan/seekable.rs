//! A layer with a table of contents -> [`LayerFacts`] from few of its bytes: the table, and of each file what is looked at.
//!
//! Every piece is checked against its digest in the table, the table against its digest in the manifest. The digest of the layer
//! as a whole is not checked, nor whether its tar says the same as its table.

use super::file::{Forward, Scratch, libraries};
use super::take_member;
use super::tar::{Member, MemberKind};
use crate::facts::LayerFacts;
use crate::image::toc::{self, Entry, Packing, Piece};
use crate::image::{Error, Seekable};
use crate::limits;
use std::io::{self, Read};

/// Bytes between two wanted pieces that are fetched too: another request costs more.
const GAP_BYTES: u64 = 64 << 10;
/// Stored bytes of one request.
const REQUEST_BYTES: u64 = 4 << 20;

pub(super) fn layer(seekable: &Seekable<'_>, scratch: &mut Scratch) -> io::Result<LayerFacts> {
    let entries = seekable.entries()?;
    let mut facts = LayerFacts::default();
    // The beginning of every file is looked at.
    let mut wanted: Vec<(u64, u64)> = entries.iter().filter_map(|e| e.pieces.first()?.stored).collect();
    wanted.sort_unstable();
    let mut stored = Stored { seekable, wanted, held: Vec::new(), held_at: 0, unpacked: 0 };
    for entry in &entries {
        let Some(member) = member(entry) else { continue };
        take_member(member, &mut facts, |path, size| {
            let mut file = File { entry, at: 0, stored: &mut stored, piece: None };
            libraries(path, size, &mut file, scratch)
        })?;
    }
    facts.counts.bytes_decompressed = stored.unpacked;
    facts.counts.by_table = 1;
    Ok(facts)
}

fn member(entry: &Entry) -> Option<Member> {
    let kind = match entry.kind.as_str() {
        "reg" => MemberKind::File,
        "dir" => MemberKind::Dir,
        "symlink" => MemberKind::Symlink,
        "hardlink" => MemberKind::Hardlink,
        "char" if entry.device_is_zero => MemberKind::OverlayWhiteout,
        "char" | "block" | "fifo" => MemberKind::Other,
        _ => return None,
    };
    let size = if kind == MemberKind::File { entry.size } else { 0 };
    let (name, link) = (entry.name.as_bytes().to_vec(), entry.link.as_bytes().to_vec());
    Some(Member { name, link, kind, size, overlay_opaque: entry.overlay_opaque })
}

/// The stored bytes, a request at a time.
struct Stored<'a> {
    seekable: &'a Seekable<'a>,
    /// Ranges that will be asked for, sorted.
    wanted: Vec<(u64, u64)>,
    held: Vec<u8>,
    held_at: u64,
    unpacked: u64,
}

impl Stored<'_> {
    /// The bytes `start..end`; what stands close behind and will be wanted is fetched with them.
    fn get(&mut self, start: u64, end: u64) -> io::Result<&[u8]> {
        let held_end = self.held_at.saturating_add(self.held.len() as u64);
        if start < self.held_at || end > held_end {
            let mut until = end;
            let behind = self.wanted.partition_point(|(s, _)| *s < start);
            for &(next, next_end) in self.wanted.get(behind..).unwrap_or_default() {
                if next > until.saturating_add(GAP_BYTES) || next_end.saturating_sub(start) > REQUEST_BYTES {
                    break;
                }
                until = until.max(next_end);
            }
            self.held = self.seekable.fetch(start, until.saturating_sub(start))?;
            self.held_at = start;
        }
        let from = usize::try_from(start.saturating_sub(self.held_at)).unwrap_or(usize::MAX);
        let len = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        let part = self.held.get(from..).and_then(|rest| rest.get(..len));
        part.ok_or_else(|| Error::look("a piece of a file ends before it begins").into())
    }

    fn packing(&self) -> Packing {
        self.seekable.toc.packing()
    }
}

/// One file, whose pieces come when they are read.
struct File<'a, 's> {
    entry: &'a Entry,
    at: u64,
    stored: &'a mut Stored<'s>,
    /// The piece at hand, unpacked.
    piece: Option<(&'a Piece, Vec<u8>)>,
}

impl File<'_, '_> {
    /// Unpacks the piece that holds the byte at `at`; false at the end.
    fn turn(&mut self, wanted: u64) -> io::Result<bool> {
        let holds = |p: &Piece, at: u64| p.at <= at && at < p.at.saturating_add(p.len);
        if self.piece.as_ref().is_some_and(|(p, _)| holds(p, self.at)) {
            return Ok(true);
        }
        let pieces = &self.entry.pieces;
        let index = pieces.partition_point(|p| p.at.saturating_add(p.len) <= self.at);
        let Some(piece) = pieces.get(index) else { return Ok(false) };
        let packing = self.stored.packing();
        let bytes = match piece.stored {
            Some((start, end)) => {
                // The pieces of one read come in one request.
                let until = self.at.saturating_add(wanted);
                let last = pieces.get(index..).into_iter().flatten().take_while(|p| p.at < until);
                let ends = last.filter_map(|p| p.stored).map(|(_, e)| e);
                let far = ends
                    .filter(|e| *e >= end && e.saturating_sub(start) <= REQUEST_BYTES)
                    .max()
                    .unwrap_or(end);
                let stored = self.stored.get(start, far)?;
                let len = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
                toc::unpack(piece, stored.get(..len).unwrap_or(stored), packing)?
            }
            None => toc::unpack(piece, &[], packing)?,
        };
        self.stored.unpacked =
            self.stored.unpacked.saturating_add(bytes.len() as u64).saturating_add(piece.skip);
        if self.stored.unpacked > limits::BY_TABLE_BYTES_MAX {
            return Err(
                Error::look(format!("more than {} bytes to unpack", limits::BY_TABLE_BYTES_MAX)).into()
            );
        }
        self.piece = Some((piece, bytes));
        Ok(true)
    }
}

impl Read for File<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || !self.turn(buffer.len() as u64)? {
            return Ok(0);
        }
        let Some((piece, bytes)) = &self.piece else { return Ok(0) };
        let from = usize::try_from(self.at.saturating_sub(piece.at)).unwrap_or(usize::MAX);
        let mut rest = bytes.get(from..).unwrap_or_default();
        let got = rest.read(buffer)?;
        self.at = self.at.saturating_add(got as u64);
        Ok(got)
    }
}

impl Forward for File<'_, '_> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.at = self.at.saturating_add(bytes);
        Ok(())
    }
}
