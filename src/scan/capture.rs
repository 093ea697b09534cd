//! An ELF file that passes by once -> the few byte ranges that its headers, loader tables and notes stand in.
//!
//! The tables may stand anywhere: `.dynamic` comes after the code, `.dynstr` at the front or (patched wheels) at the
//! very end, the section table last. So the head is kept until the code begins, the ranges that the program headers
//! name are kept when they come, and what the dynamic section names is kept if it is still ahead.

use super::elf::{Layout, Tables};
use super::spool::{Budget, Kept};
use crate::limits;
use std::borrow::Cow;
use std::io;

/// Files up to this size are kept whole: no table can be missed.
const SMALL_FILE_BYTES: u64 = 1 << 20;
/// Kept before the section headers: their names stand there in files that no one patched.
const BEFORE_SECTIONS_BYTES: u64 = 64 << 10;

pub(crate) struct Capture {
    size: u64,
    head: Kept,
    ranges: Vec<Kept>,
    budget: Budget,
    layout: Option<Layout>,
    tables: Option<Tables>,
    section_names_asked: bool,
    gave_up: bool,
}

impl Capture {
    /// For a file of `size` bytes.
    pub(crate) fn new(size: u64, budget: &Budget) -> Capture {
        Capture {
            size,
            head: Kept::new(0, size, budget),
            ranges: Vec::new(),
            budget: budget.clone(),
            layout: None,
            tables: None,
            section_names_asked: false,
            gave_up: false,
        }
    }

    pub(crate) fn layout(&self) -> Option<&Layout> {
        self.layout.as_ref()
    }

    pub(crate) fn tables(&self) -> Option<&Tables> {
        self.tables.as_ref()
    }

    /// The bytes `offset..offset + len` of the file, where they were kept.
    pub(crate) fn read(&self, offset: u64, len: u64) -> Option<Cow<'_, [u8]>> {
        self.head.read(offset, len).or_else(|| self.ranges.iter().find_map(|r| r.read(offset, len)))
    }

    /// As many bytes as were kept from `offset` on, at most `len`.
    pub(crate) fn read_up_to(&self, offset: u64, len: u64) -> Option<Cow<'_, [u8]>> {
        let kept = |r: &Kept| r.next().checked_sub(offset).filter(|&n| n > 0).map(|n| n.min(len));
        self.read(offset, len)
            .or_else(|| self.head.read(offset, kept(&self.head)?))
            .or_else(|| self.ranges.iter().find_map(|r| r.read(offset, kept(r)?)))
    }

    /// Takes the bytes at `offset`; they must arrive in order and without gap.
    pub(crate) fn feed(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.head.feed(offset, bytes)?;
        for range in &mut self.ranges {
            range.feed(offset, bytes)?;
        }
        if self.layout.is_none() && !self.gave_up {
            self.read_layout();
            self.feed_new(0, offset, bytes)?;
        }
        if self.tables.is_none() && self.layout.is_some() {
            let known = self.ranges.len();
            self.read_tables();
            self.feed_new(known, offset, bytes)?;
        }
        if !self.section_names_asked && self.layout.is_some() {
            let known = self.ranges.len();
            self.ask_section_names();
            self.feed_new(known, offset, bytes)?;
        }
        Ok(())
    }

    /// The next bytes at or behind `at` that are wanted. Before the headers are known a little at a time.
    pub(crate) fn wants(&self, at: u64) -> Option<(u64, u64)> {
        const STEP: u64 = 64 << 10;
        let wanted = std::iter::once(&self.head).chain(&self.ranges).filter_map(|r| r.wants(at));
        let (start, end) = wanted.min()?;
        let end = if self.layout.is_none() { end.min(start.saturating_add(STEP)) } else { end };
        (start < self.size).then_some((start, end.min(self.size)))
    }

    fn feed_new(&mut self, from: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        for range in self.ranges.iter_mut().skip(from) {
            range.feed(offset, bytes)?;
        }
        Ok(())
    }

    fn keep(&mut self, start: u64, end: u64) {
        let end = end.min(self.size);
        if start < end && end > self.head.next() {
            self.ranges.push(Kept::new(start, end, &self.budget));
        }
    }

    fn read_layout(&mut self) {
        let arrived = self.head.next();
        let Some(head) = self.head.read(0, arrived.min(SMALL_FILE_BYTES)) else { return };
        match Layout::parse(&head) {
            Ok(layout) => {
                drop(head);
                self.head.limit(head_end(&layout).max(SMALL_FILE_BYTES.min(self.size)));
                for (start, len) in layout.wanted() {
                    self.keep(start, start.saturating_add(len));
                }
                let sections = layout.section_table();
                if let Some((start, len)) = sections {
                    self.keep(start.saturating_sub(BEFORE_SECTIONS_BYTES), start.saturating_add(len));
                }
                self.layout = Some(layout);
            }
            Err(()) if arrived >= SMALL_FILE_BYTES.min(self.size) => {
                drop(head);
                self.head.limit(arrived);
                self.gave_up = true;
            }
            Err(()) => {}
        }
    }

    /// Once the dynamic section has passed: keep the tables that it names and that are still ahead.
    fn read_tables(&mut self) {
        let Some(layout) = &self.layout else { return };
        let Some((start, len)) = layout.dynamic() else { return };
        let Some(bytes) = self.read(start, len) else { return };
        let tables = Tables::parse(&bytes, layout);
        drop(bytes);
        for (start, len) in tables.ranges(self.size) {
            self.keep(start, start.saturating_add(len));
        }
        self.tables = Some(tables);
    }

    /// Once the section table has passed: keep the section names if they are still ahead.
    fn ask_section_names(&mut self) {
        let Some(layout) = &self.layout else { return };
        let Some((start, len)) = layout.section_table() else {
            self.section_names_asked = true;
            return;
        };
        let Some(table) = self.read(start, len) else { return };
        let names = layout.section_names_range(&table);
        drop(table);
        self.section_names_asked = true;
        if let Some((start, len)) = names.filter(|&(s, l)| self.read(s, l).is_none()) {
            self.keep(start, start.saturating_add(len));
        }
    }
}

/// Where the tables at the front must have ended: with the first segment where it holds no code, else where its
/// code begins (the entry address of a shared library is the start of `.text`), else at the bound for one file.
fn head_end(layout: &Layout) -> u64 {
    let Some(first) = layout.first_load() else { return SMALL_FILE_BYTES };
    if !first.executable {
        return first.end;
    }
    match layout.entry_offset().filter(|&e| e > 0 && e < first.end) {
        Some(entry) => entry,
        None => first.end.min(limits::KEPT_BYTES_PER_FILE_MAX as u64),
    }
}
