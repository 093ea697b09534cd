//! Soname, needed list, machine -> a small ELF64 little-endian shared object, written byte by byte; no compiler.
//!
//! | offset | what |
//! |---|---|
//! | 0 | file header, 64 bytes |
//! | 64 | program headers: LOAD (everything), DYNAMIC, NOTE where a compat note is asked for, GNU_STACK |
//! | then | .hash, .dynsym (the null symbol alone), .dynstr, .gnu.version_d and note where asked for, .dynamic |
//! | then | .shstrtab, section headers |
//!
//! It has no code. What ELF wants of a shared object is there, so `readelf -d`, goblin and ld.so read it like any other;
//! addresses equal offsets.

use serde::Deserialize;

/// What the object says about itself.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Stub {
    pub(crate) soname: Option<String>,
    pub(crate) needed: Vec<String>,
    pub(crate) rpath: Option<String>,
    pub(crate) runpath: Option<String>,
    /// `amd64` (also the default) or `arm64`.
    pub(crate) machine: String,
    /// Symbol versions that it defines, such as `GLIBC_2.36`.
    pub(crate) versions: Vec<String>,
    /// Text of a `.note.cuda.fwd_compatibility`, as newer compat libraries carry it.
    pub(crate) compat_note: Option<String>,
}

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const NOTE: u32 = 4;
const GNU_STACK: u32 = 0x6474_e551;
const READ_WRITE: u32 = 6;

/// The bytes of the object.
pub(crate) fn stub(stub: &Stub) -> Vec<u8> {
    let mut strings = Strings::new();
    let needed = stub.needed.iter().map(|name| (1, Some(name)));
    let own = [(14, stub.soname.as_ref()), (15, stub.rpath.as_ref()), (29, stub.runpath.as_ref())];
    let mut dynamic: Vec<(u64, u64)> =
        needed.chain(own).filter_map(|(tag, text)| Some((tag, strings.add(text?)))).collect();
    let versions = version_definitions(stub, &mut strings);
    let note = stub.compat_note.as_ref().map(|json| note("NVIDIA Corporation", json.as_bytes()));

    let segments = if note.is_some() { 4 } else { 3 };
    let mut file = Layout { bytes: vec![0; 64 + 56 * segments], sections: Vec::new(), names: Strings::new() };
    let hash = [1u32, 1, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let hash =
        file.section(".hash", &hash, Kind { number: 5, link: 2, entry: 4, align: 4, ..Kind::default() });
    let symbols =
        file.section(".dynsym", &[0; 24], Kind { number: 11, link: 3, info: 1, entry: 24, align: 8 });
    let text = file.section(".dynstr", &strings.0, Kind { number: 3, align: 1, ..Kind::default() });
    dynamic.extend([(4, hash.0), (5, text.0), (6, symbols.0), (10, text.1), (11, 24)]);
    if !versions.is_empty() {
        let count = versions.len() as u64 / 28;
        let info = u32::try_from(count).unwrap();
        let kind = Kind { number: 0x6fff_fffd, link: 3, info, align: 4, ..Kind::default() };
        let place = file.section(".gnu.version_d", &versions, kind);
        dynamic.extend([(0x6fff_fffc, place.0), (0x6fff_fffd, count)]);
    }
    let kind = Kind { number: 7, align: 4, ..Kind::default() };
    let note = note.map(|bytes| file.section(".note.cuda.fwd_compatibility", &bytes, kind));
    dynamic.push((0, 0));
    let entries: Vec<u8> =
        dynamic.iter().flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()].concat()).collect();
    let dynamic = file.section(
        ".dynamic",
        &entries,
        Kind { number: 6, link: 3, entry: 16, align: 8, ..Kind::default() },
    );

    let mut programs = vec![(LOAD, (0, file.bytes.len() as u64), 0x1000), (DYNAMIC, dynamic, 8)];
    programs.extend(note.map(|place| (NOTE, place, 4)));
    programs.push((GNU_STACK, (0, 0), 16));
    file.finish(&stub.machine, &programs)
}

/// Where something stands: offset (which is its address too) and length.
type Range = (u64, u64);

/// Fields of a section header.
#[derive(Clone, Copy, Default)]
struct Kind {
    number: u32,
    link: u32,
    info: u32,
    entry: u64,
    align: usize,
}

/// A file that grows by sections.
struct Layout {
    bytes: Vec<u8>,
    sections: Vec<(u64, Kind, Range)>,
    names: Strings,
}

impl Layout {
    fn section(&mut self, name: &str, content: &[u8], kind: Kind) -> Range {
        pad(&mut self.bytes, kind.align);
        let range = (self.bytes.len() as u64, content.len() as u64);
        self.bytes.extend(content);
        self.sections.push((self.names.add(name), kind, range));
        range
    }

    /// Adds the section names and headers, and fills in the headers at the front.
    fn finish(mut self, machine: &str, programs: &[(u32, Range, u64)]) -> Vec<u8> {
        let loaded = self.sections.len();
        let name = self.names.add(".shstrtab");
        let range = (self.bytes.len() as u64, self.names.0.len() as u64);
        self.sections.push((name, Kind { number: 3, align: 1, ..Kind::default() }, range));
        let mut out = self.bytes;
        out.extend(&self.names.0);
        pad(&mut out, 8);
        let table_at = out.len() as u64;
        out.extend([0; 64]);
        for (index, (name, kind, (start, len))) in self.sections.iter().enumerate() {
            let (flags, address) = if index < loaded { (2, *start) } else { (0, 0) };
            out.extend(u32::try_from(*name).unwrap().to_le_bytes());
            out.extend(kind.number.to_le_bytes());
            out.extend([flags, address, *start, *len].iter().flat_map(|v| v.to_le_bytes()));
            out.extend([kind.link, kind.info].iter().flat_map(|v| v.to_le_bytes()));
            out.extend([kind.align as u64, kind.entry].iter().flat_map(|v| v.to_le_bytes()));
        }
        let mut front = file_header(machine, programs.len() as u64, table_at, self.sections.len() as u64 + 1);
        for (kind, (start, len), align) in programs {
            front.extend([*kind, READ_WRITE].iter().flat_map(|v| v.to_le_bytes()));
            front.extend([start, start, start, len, len, align].iter().flat_map(|v| v.to_le_bytes()));
        }
        out[..front.len()].copy_from_slice(&front);
        out
    }
}

fn file_header(machine: &str, segments: u64, table_at: u64, sections: u64) -> Vec<u8> {
    let machine: u16 = match machine {
        "" | "amd64" => 62,
        "arm64" => 183,
        other => panic!("stub for `{other}`: amd64 or arm64"),
    };
    let short = |n: u64| u16::try_from(n).unwrap().to_le_bytes();
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend(3u16.to_le_bytes()); // shared object
    out.extend(machine.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    for value in [0, 64, table_at] {
        out.extend(u64::to_le_bytes(value)); // entry point, program headers, section headers
    }
    out.extend(0u32.to_le_bytes());
    for value in [64, 56, segments, 64, sections, sections - 1] {
        out.extend(short(value));
    }
    out
}

/// A string table: NUL first, then texts with NUL behind.
struct Strings(Vec<u8>);

impl Strings {
    fn new() -> Strings {
        Strings(vec![0])
    }

    fn add(&mut self, text: &str) -> u64 {
        let at = self.0.len() as u64;
        self.0.extend(text.as_bytes());
        self.0.push(0);
        at
    }
}

/// Elf_Verdef (u16 version, flags, index, count; u32 hash, offset of the name record, offset of the next one) and
/// Elf_Verdaux (u32 name, u32 next) in turn; the first one, with flag 1, is the file's own name.
fn version_definitions(stub: &Stub, strings: &mut Strings) -> Vec<u8> {
    if stub.versions.is_empty() {
        return Vec::new();
    }
    let own = stub.soname.clone().unwrap_or_default();
    let mut out = Vec::new();
    for (index, name) in std::iter::once(&own).chain(&stub.versions).enumerate() {
        let is_last = index == stub.versions.len();
        for value in [1, u16::from(index == 0), u16::try_from(index + 1).unwrap(), 1] {
            out.extend(value.to_le_bytes());
        }
        let at = u32::try_from(strings.add(name)).unwrap();
        for value in [elf_hash(name), 20, if is_last { 0 } else { 28 }, at, 0] {
            out.extend(value.to_le_bytes());
        }
    }
    out
}

/// The System V hash of a name.
fn elf_hash(name: &str) -> u32 {
    name.bytes().fold(0, |hash: u32, byte| {
        let sum = (hash << 4).wrapping_add(u32::from(byte));
        let top = sum & 0xf000_0000;
        (sum ^ (top >> 24)) & !top
    })
}

fn note(name: &str, description: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(u32::try_from(name.len() + 1).unwrap().to_le_bytes());
    out.extend(u32::try_from(description.len()).unwrap().to_le_bytes());
    out.extend(0u32.to_le_bytes());
    out.extend(name.as_bytes());
    out.push(0);
    pad(&mut out, 4);
    out.extend(description);
    pad(&mut out, 4);
    out
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}
