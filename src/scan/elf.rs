//! Headers and tables of an ELF file -> [`ElfFacts`]. Knows nothing of where the bytes came from.
//!
//! `goblin` reads headers, segments, sections, dynamic entries and symbols; version tables and notes, whose layout is
//! the same for both word sizes, are read here. Every offset comes from outside and is checked before use.

use super::capture::Capture;
use super::symbols;
use crate::facts::{ElfFacts, ForwardCompatNote};
use crate::limits;
use crate::names::hex;
use goblin::container::{Container, Ctx};
use goblin::elf::dynamic::{self, Dynamic};
use goblin::elf::program_header::{PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_NOTE, ProgramHeader};
use goblin::elf::{Elf, Header, SectionHeader};
use std::collections::BTreeMap;

/// A segment that is mapped: file range, address, and whether it holds code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) start: u64,
    pub(crate) end: u64,
    address: u64,
    pub(crate) executable: bool,
}

/// ELF header and program headers.
pub(crate) struct Layout {
    header: Header,
    ctx: Ctx,
    segments: Vec<ProgramHeader>,
}

impl Layout {
    /// `Err` where `head` does not hold them (yet).
    pub(crate) fn parse(head: &[u8]) -> Result<Layout, ()> {
        let header = head.get(..64).and_then(|h| Elf::parse_header(h).ok()).ok_or(())?;
        let container = header.container().map_err(|_| ())?;
        let endianness = header.endianness().map_err(|_| ())?;
        let ctx = Ctx::new(container, endianness);
        let count = usize::from(header.e_phnum).min(limits::PROGRAM_HEADERS_MAX);
        let offset = usize::try_from(header.e_phoff).map_err(|_| ())?;
        let segments = if count == 0 {
            Vec::new()
        } else {
            ProgramHeader::parse(head, offset, count, ctx).map_err(|_| ())?
        };
        Ok(Layout { header, ctx, segments })
    }

    fn loads(&self) -> impl Iterator<Item = Load> + '_ {
        self.segments.iter().filter(|s| s.p_type == PT_LOAD).map(|s| Load {
            start: s.p_offset,
            end: s.p_offset.saturating_add(s.p_filesz),
            address: s.p_vaddr,
            executable: s.p_flags & PF_X != 0,
        })
    }

    pub(crate) fn first_load(&self) -> Option<Load> {
        self.loads().min_by_key(|l| l.start)
    }

    /// Whether the byte at `offset` of the file is mapped as code.
    pub(crate) fn is_code(&self, offset: u64) -> bool {
        self.loads().any(|l| l.executable && (l.start..l.end).contains(&offset))
    }

    /// File offset of an address.
    pub(crate) fn offset_of(&self, address: u64) -> Option<u64> {
        self.loads().find_map(|l| {
            let into = address.checked_sub(l.address)?;
            let offset = l.start.checked_add(into)?;
            (offset < l.end).then_some(offset)
        })
    }

    pub(crate) fn entry_offset(&self) -> Option<u64> {
        self.offset_of(self.header.e_entry)
    }

    pub(crate) fn dynamic(&self) -> Option<(u64, u64)> {
        let segment = self.segments.iter().find(|s| s.p_type == PT_DYNAMIC)?;
        Some((segment.p_offset, segment.p_filesz.min(limits::DYNAMIC_SECTION_BYTES_MAX)))
    }

    /// File ranges (start, length) that the program headers name: dynamic section, notes, interpreter.
    pub(crate) fn wanted(&self) -> Vec<(u64, u64)> {
        let bound = |s: &ProgramHeader| match s.p_type {
            PT_INTERP => limits::PATH_BYTES_MAX as u64,
            PT_NOTE => limits::NOTE_BYTES_MAX,
            _ => limits::DYNAMIC_SECTION_BYTES_MAX,
        };
        let is_wanted = |s: &&ProgramHeader| matches!(s.p_type, PT_DYNAMIC | PT_NOTE | PT_INTERP);
        const RANGES_MAX: usize = 32;
        let mut wanted: Vec<(u64, u64)> =
            self.segments.iter().filter(is_wanted).map(|s| (s.p_offset, s.p_filesz.min(bound(s)))).collect();
        wanted.extend(self.data_segments());
        wanted.truncate(RANGES_MAX);
        wanted
    }

    /// Segments in which a patched file may have its string table in front of the dynamic section: the one that holds
    /// the dynamic section, and small ones without code.
    fn data_segments(&self) -> Vec<(u64, u64)> {
        const SMALL: u64 = 4 << 20;
        let dynamic = self.dynamic().map_or(0, |(start, _)| start);
        let len = |l: &Load| l.end.saturating_sub(l.start);
        let wanted = |l: &Load| {
            let to_dynamic =
                (l.start..l.end).contains(&dynamic) && len(l) <= limits::KEPT_BYTES_PER_FILE_MAX as u64;
            l.start > 0 && !l.executable && (to_dynamic || len(l) <= SMALL)
        };
        self.loads().filter(wanted).map(|l| (l.start, len(&l))).collect()
    }

    pub(crate) fn section_table(&self) -> Option<(u64, u64)> {
        let len = u64::from(self.header.e_shnum).saturating_mul(u64::from(self.header.e_shentsize));
        let usable = self.header.e_shoff > 0 && len > 0;
        usable.then_some((self.header.e_shoff, len.min(limits::SECTION_HEADERS_BYTES_MAX)))
    }

    fn sections_of(&self, table: &[u8]) -> Vec<SectionHeader> {
        let size = SectionHeader::size(self.ctx);
        if usize::from(self.header.e_shentsize) != size {
            return Vec::new();
        }
        let count = table.len() / size.max(1);
        if count == 0 {
            return Vec::new();
        }
        SectionHeader::parse_from(table, 0, count, self.ctx).unwrap_or_default()
    }

    pub(crate) fn section_names_range(&self, table: &[u8]) -> Option<(u64, u64)> {
        let sections = self.sections_of(table);
        let names = sections.get(usize::from(self.header.e_shstrndx))?;
        Some((names.sh_offset, names.sh_size.min(limits::SECTION_NAMES_BYTES_MAX)))
    }
}

/// A section by name and file range.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Sections that occupy bytes of the file; `None` where table or names are absent or were not kept.
pub(crate) fn sections(capture: &Capture) -> Option<Vec<Section>> {
    const SHT_NOBITS: u32 = 8;
    let layout = capture.layout()?;
    let (start, len) = layout.section_table()?;
    let table = capture.read(start, len)?;
    let (names_at, names_len) = layout.section_names_range(&table)?;
    let names = capture.read(names_at, names_len)?;
    let found = layout.sections_of(&table).into_iter().filter(|s| s.sh_type != SHT_NOBITS && s.sh_size > 0);
    Some(
        found
            .map(|s| Section {
                name: text_at(&names, s.sh_name as u64).unwrap_or_default(),
                start: s.sh_offset,
                end: s.sh_offset.saturating_add(s.sh_size),
            })
            .collect(),
    )
}

/// What the dynamic section says and where its tables stand in the file.
pub(crate) struct Tables {
    entries: Vec<(u64, u64)>,
    strings: Option<(u64, u64)>,
    symbols: Option<u64>,
    symbol_versions: Option<u64>,
    needed_versions: Option<u64>,
    defined_versions: Option<u64>,
    /// Starts of all tables, sorted: a table without a size ends where the next begins.
    starts: Vec<u64>,
}

impl Tables {
    pub(crate) fn parse(bytes: &[u8], layout: &Layout) -> Tables {
        let fake = ProgramHeader {
            p_type: PT_DYNAMIC,
            p_offset: 0,
            p_filesz: bytes.len() as u64,
            ..ProgramHeader::default()
        };
        let parsed = Dynamic::parse(bytes, &[fake], layout.ctx).ok().flatten();
        let entries: Vec<(u64, u64)> =
            parsed.map_or_else(Vec::new, |d| d.dyns).iter().map(|d| (d.d_tag, d.d_val)).collect();
        let value = |tag| entries.iter().find(|(t, _)| *t == tag).map(|(_, v)| *v);
        let at = |tag| value(tag).and_then(|v| layout.offset_of(v));
        let strings_len = value(dynamic::DT_STRSZ).unwrap_or(0).min(limits::DYNAMIC_STRINGS_BYTES_MAX);
        let tags = [
            dynamic::DT_STRTAB,
            dynamic::DT_SYMTAB,
            dynamic::DT_VERSYM,
            dynamic::DT_VERNEED,
            dynamic::DT_VERDEF,
            dynamic::DT_HASH,
            dynamic::DT_GNU_HASH,
            dynamic::DT_RELA,
            dynamic::DT_REL,
            dynamic::DT_JMPREL,
        ];
        let mut starts: Vec<u64> = tags.into_iter().filter_map(at).collect();
        starts.sort_unstable();
        Tables {
            strings: at(dynamic::DT_STRTAB).map(|s| (s, strings_len)),
            symbols: at(dynamic::DT_SYMTAB),
            symbol_versions: at(dynamic::DT_VERSYM),
            needed_versions: at(dynamic::DT_VERNEED),
            defined_versions: at(dynamic::DT_VERDEF),
            entries,
            starts,
        }
    }

    /// How far a table can reach that begins at `start`: to the next table, `bound` bytes or the end of the file.
    fn reach(&self, start: u64, bound: u64, file_size: u64) -> u64 {
        let next = self.starts.iter().copied().find(|&s| s > start).unwrap_or(file_size);
        next.saturating_sub(start).min(bound).min(file_size.saturating_sub(start))
    }

    /// File ranges (start, length) of the tables that facts are read from.
    pub(crate) fn ranges(&self, file_size: u64) -> Vec<(u64, u64)> {
        let symbols = self.symbols.map(|s| (s, self.reach(s, limits::DYNAMIC_SYMBOLS_BYTES_MAX, file_size)));
        let small = |start: Option<u64>| {
            start.map(|s| (s, self.reach(s, limits::DYNAMIC_SECTION_BYTES_MAX, file_size)))
        };
        let rest = [self.symbol_versions, self.needed_versions, self.defined_versions].map(small);
        [self.strings, symbols].into_iter().chain(rest).flatten().collect()
    }

    fn values(&self, tag: u64) -> impl Iterator<Item = u64> + '_ {
        self.entries.iter().filter(move |(t, _)| *t == tag).map(|(_, v)| *v)
    }
}

/// Everything the loader tables say. Problems are pushed in words.
pub(crate) fn facts(
    capture: &Capture,
    numbers: &symbols::Numbers,
    file_size: u64,
    problems: &mut Vec<String>,
) -> ElfFacts {
    let Some(layout) = capture.layout() else {
        problems.push("the ELF header or its program headers are damaged or cut short".to_owned());
        return ElfFacts::default();
    };
    let mut facts = ElfFacts {
        bits: if layout.ctx.container == Container::Big { 64 } else { 32 },
        machine: machine_name(layout.header.e_machine),
        kind: kind_name(layout.header.e_type),
        ..ElfFacts::default()
    };
    if layout
        .segments
        .iter()
        .any(|s| s.p_type == PT_LOAD && s.p_offset.saturating_add(s.p_filesz) > file_size)
    {
        problems.push("a segment reaches beyond the end of the file: the file was cut".to_owned());
    }
    facts.interpreter = interpreter(layout, capture);
    notes(layout, capture, &mut facts);
    match (capture.tables(), layout.dynamic()) {
        (Some(tables), _) => {
            let source = Source { layout, capture, numbers, file_size };
            dynamic_facts(&source, tables, &mut facts, problems);
        }
        (None, Some(_)) => problems.push("the dynamic section could not be read".to_owned()),
        (None, None) => {}
    }
    facts
}

fn interpreter(layout: &Layout, capture: &Capture) -> Option<String> {
    let segment = layout.segments.iter().find(|s| s.p_type == PT_INTERP)?;
    let bytes = capture.read(segment.p_offset, segment.p_filesz.min(limits::PATH_BYTES_MAX as u64))?;
    text_at(&bytes, 0)
}

/// What was kept of a file.
struct Source<'a> {
    layout: &'a Layout,
    capture: &'a Capture,
    numbers: &'a symbols::Numbers,
    file_size: u64,
}

fn dynamic_facts(source: &Source, tables: &Tables, facts: &mut ElfFacts, problems: &mut Vec<String>) {
    let Source { layout, capture, numbers, file_size } = *source;
    let Some((start, len)) = tables.strings else { return };
    let Some(strings) = capture.read(start, len.min(file_size.saturating_sub(start))) else {
        problems.push(
            "the dynamic string table was out of reach: names of needed libraries are missing".to_owned(),
        );
        return;
    };
    let text = |at: u64| text_at(&strings, at);
    let list = |at: u64| long_text_at(&strings, at).map(|t| search_path(&t));
    facts.soname = tables.values(dynamic::DT_SONAME).next().and_then(text);
    facts.needed =
        tables.values(dynamic::DT_NEEDED).take(limits::NAMES_PER_FILE_MAX).filter_map(text).collect();
    facts.rpath = tables.values(dynamic::DT_RPATH).next().and_then(list).unwrap_or_default();
    let flag = |tag, bit: u64| tables.values(tag).any(|flags| flags & bit != 0);
    facts.bind_now = tables.values(dynamic::DT_BIND_NOW).next().is_some()
        || flag(dynamic::DT_FLAGS, dynamic::DF_BIND_NOW)
        || flag(dynamic::DT_FLAGS_1, dynamic::DF_1_NOW);
    facts.runpath = tables.values(dynamic::DT_RUNPATH).next().and_then(list).unwrap_or_default();
    let bound = |at| tables.reach(at, limits::DYNAMIC_SECTION_BYTES_MAX, file_size);
    let mut version_names = BTreeMap::new();
    if let Some(at) = tables.needed_versions {
        let count = tables.values(dynamic::DT_VERNEEDNUM).next().unwrap_or(0);
        if let Some(bytes) = capture.read_up_to(at, bound(at)) {
            (facts.versions_needed, version_names) = needed_versions(&bytes, count, layout.ctx, &strings);
        }
    }
    if let Some(at) = tables.defined_versions {
        let count = tables.values(dynamic::DT_VERDEFNUM).next().unwrap_or(0);
        if let Some(bytes) = capture.read_up_to(at, bound(at)) {
            facts.versions_provided = defined_versions(&bytes, count, layout.ctx, &strings);
        }
    }
    if let Some(at) = tables.symbols {
        let reach = tables.reach(at, limits::DYNAMIC_SYMBOLS_BYTES_MAX, file_size);
        if let Some(bytes) = capture.read_up_to(at, reach) {
            let versions = tables.symbol_versions.and_then(|at| capture.read_up_to(at, bound(at)));
            let table = symbols::Table {
                symbols: &bytes,
                strings: &strings,
                versions: versions.as_deref().unwrap_or_default(),
                names: &version_names,
                ctx: layout.ctx,
            };
            symbols::read(&table, layout, numbers, facts);
        }
    }
}

struct Words<'a> {
    bytes: &'a [u8],
    little: bool,
}

impl Words<'_> {
    fn u16(&self, at: usize) -> Option<u16> {
        let raw = self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.little { u16::from_le_bytes(raw) } else { u16::from_be_bytes(raw) })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let raw = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.little { u32::from_le_bytes(raw) } else { u32::from_be_bytes(raw) })
    }
}

fn words(bytes: &[u8], ctx: Ctx) -> Words<'_> {
    Words { bytes, little: ctx.is_little_endian() }
}

type VersionsOfFile = BTreeMap<String, Vec<String>>;
/// Version index of a symbol -> (version, library asked for it).
type VersionNames = BTreeMap<u16, (String, String)>;

/// Elf_Verneed: u16 version, u16 count, u32 file name, u32 offset of the first Elf_Vernaux, u32 offset of the next.
/// Elf_Vernaux: u32 hash, u16 flags, u16 index, u32 name, u32 offset of the next.
fn needed_versions(bytes: &[u8], count: u64, ctx: Ctx, strings: &[u8]) -> (VersionsOfFile, VersionNames) {
    let words = words(bytes, ctx);
    let mut out: VersionsOfFile = BTreeMap::new();
    let mut by_index = BTreeMap::new();
    let mut at = 0usize;
    let mut names = 0usize;
    for _ in 0..count.min(limits::NAMES_PER_FILE_MAX as u64) {
        let step = (|| {
            let file = text_at(strings, u64::from(words.u32(at.checked_add(4)?)?))?;
            let mut aux = at.checked_add(words.u32(at.checked_add(8)?)? as usize)?;
            for _ in 0..words.u16(at.checked_add(2)?)? {
                if let Some(version) = text_at(strings, u64::from(words.u32(aux.checked_add(8)?)?)) {
                    by_index.insert(words.u16(aux.checked_add(6)?)?, (version.clone(), file.clone()));
                    out.entry(file.clone()).or_default().push(version);
                }
                let next = words.u32(aux.checked_add(12)?)? as usize;
                names += 1;
                if next == 0 || names >= limits::NAMES_PER_FILE_MAX {
                    break;
                }
                aux = aux.checked_add(next)?;
            }
            let next = words.u32(at.checked_add(12)?).map(|n| n as usize).filter(|&n| n > 0)?;
            (names < limits::NAMES_PER_FILE_MAX).then_some(next)
        })();
        let Some(next) = step.and_then(|n| at.checked_add(n)) else { break };
        at = next;
    }
    for versions in out.values_mut() {
        versions.sort();
        versions.dedup();
    }
    (out, by_index)
}

/// Elf_Verdef: u16 version, u16 flags, u16 index, u16 count, u32 hash, u32 offset of the first Elf_Verdaux, u32 offset
/// of the next. Elf_Verdaux: u32 name, u32 offset of the next. Flag 1 marks the file's own name.
fn defined_versions(bytes: &[u8], count: u64, ctx: Ctx, strings: &[u8]) -> Vec<String> {
    let words = words(bytes, ctx);
    let mut out = Vec::new();
    let mut at = 0usize;
    for _ in 0..count.min(limits::NAMES_PER_FILE_MAX as u64) {
        let step = (|| {
            let flags = words.u16(at.checked_add(2)?)?;
            let aux = at.checked_add(words.u32(at.checked_add(12)?)? as usize)?;
            if flags & 1 == 0 {
                out.extend(text_at(strings, u64::from(words.u32(aux)?)));
            }
            words.u32(at.checked_add(16)?).map(|n| n as usize).filter(|&n| n > 0)
        })();
        let Some(next) = step.and_then(|n| at.checked_add(n)) else { break };
        at = next;
    }
    out.sort();
    out
}

/// Notes: u32 name length, u32 description length, u32 type, name padded to 4, description padded to 4.
fn notes(layout: &Layout, capture: &Capture, facts: &mut ElfFacts) {
    const NT_GNU_BUILD_ID: u32 = 3;
    for segment in layout.segments.iter().filter(|s| s.p_type == PT_NOTE) {
        let Some(bytes) = capture.read(segment.p_offset, segment.p_filesz.min(limits::NOTE_BYTES_MAX)) else {
            continue;
        };
        each_note(&bytes, layout.ctx, |name, kind, description| {
            if name == b"GNU" && kind == NT_GNU_BUILD_ID {
                facts.build_id = Some(hex(description));
            } else if name == b"NVIDIA Corporation" && kind == 0 {
                facts.forward_compat = facts.forward_compat.take().or_else(|| forward_compat(description));
            }
        });
    }
    // The compat note may stand in a section that no PT_NOTE segment covers.
    if facts.forward_compat.is_none() {
        facts.forward_compat = forward_compat_section(layout, capture);
    }
}

fn forward_compat_section(layout: &Layout, capture: &Capture) -> Option<ForwardCompatNote> {
    let all = sections(capture)?;
    let section = all.iter().find(|s| s.name == ".note.cuda.fwd_compatibility")?;
    let len = section.end.saturating_sub(section.start).min(limits::NOTE_BYTES_MAX);
    let bytes = capture.read(section.start, len)?;
    let mut found = None;
    each_note(&bytes, layout.ctx, |name, _, description| {
        if name == b"NVIDIA Corporation" {
            found = forward_compat(description);
        }
    });
    found
}

fn each_note(bytes: &[u8], ctx: Ctx, mut visit: impl FnMut(&[u8], u32, &[u8])) {
    let words = words(bytes, ctx);
    let round_up = |n: usize| n.checked_add(3).map(|n| n / 4 * 4);
    let mut at = 0usize;
    loop {
        let next = (|| {
            let name_len = words.u32(at)? as usize;
            let description_len = words.u32(at.checked_add(4)?)? as usize;
            let kind = words.u32(at.checked_add(8)?)?;
            let name_at = at.checked_add(12)?;
            let name = bytes.get(name_at..name_at.checked_add(name_len)?)?;
            let description_at = name_at.checked_add(round_up(name_len)?)?;
            let description = bytes.get(description_at..description_at.checked_add(description_len)?)?;
            visit(name.strip_suffix(b"\0").unwrap_or(name), kind, description);
            description_at.checked_add(round_up(description_len)?)
        })();
        match next {
            Some(next) => at = next,
            None => return,
        }
    }
}

/// JSON, padded with NUL: `{"format": 1, "CUDA version": "12.9", "driver": [535, …], "device": […]}`.
fn forward_compat(description: &[u8]) -> Option<ForwardCompatNote> {
    let json = description.split(|&b| b == 0).next()?;
    let value: serde_json::Value = serde_json::from_slice(json).ok()?;
    let cuda = value.get("CUDA version").and_then(|v| v.as_str()).map(str::to_owned);
    let drivers = value.get("driver").and_then(|v| v.as_array()).map(|list| {
        list.iter().filter_map(|v| v.as_u64().and_then(|n| u32::try_from(n).ok())).collect::<Vec<u32>>()
    });
    (cuda.is_some() || drivers.is_some()).then_some(ForwardCompatNote { cuda, drivers })
}

/// The elements of a search path, the first of each: TensorFlow's has 1,200 elements, 20 of them different.
fn search_path(text: &str) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let first = text.split(':').filter(|e| seen.insert(*e));
    first.take(limits::NAMES_PER_FILE_MAX).map(str::to_owned).collect()
}

/// NUL-terminated text in a string table, at most a path long.
fn text_at(strings: &[u8], at: u64) -> Option<String> {
    bounded_text_at(strings, at, limits::PATH_BYTES_MAX)
}

/// The same for search paths, which name many directories (20 kB seen in TensorFlow).
fn long_text_at(strings: &[u8], at: u64) -> Option<String> {
    bounded_text_at(strings, at, limits::SEARCH_PATH_BYTES_MAX)
}

fn bounded_text_at(strings: &[u8], at: u64, bound: usize) -> Option<String> {
    let rest = strings.get(usize::try_from(at).ok()?..)?;
    let rest = rest.get(..rest.len().min(bound)).unwrap_or(rest);
    let end = memchr::memchr(0, rest)?;
    Some(String::from_utf8_lossy(rest.get(..end)?).into_owned())
}

fn machine_name(machine: u16) -> String {
    match machine {
        3 => "386".to_owned(),
        21 => "ppc64le".to_owned(),
        40 => "arm".to_owned(),
        62 => "amd64".to_owned(),
        183 => "arm64".to_owned(),
        190 => "cuda".to_owned(),
        243 => "riscv64".to_owned(),
        other => format!("machine-{other}"),
    }
}

fn kind_name(kind: u16) -> String {
    match kind {
        1 => "REL".to_owned(),
        2 => "EXEC".to_owned(),
        3 => "DYN".to_owned(),
        4 => "CORE".to_owned(),
        other => format!("type-{other}"),
    }
}
