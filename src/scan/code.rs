//! The bytes of a file as they pass by -> GPU code and the few strings and constants that say what the file uses.
//!
//! One cursor moves forward through a window of the file. Outside fatbin containers every byte is searched; inside
//! them only headers are read and the cursor jumps over payloads.

use super::fatbin::{
    self, CONTAINER_HEADER, CONTAINER_MAGIC, CubinHeader, ENTRY_HEADER, EntryHeader, PAYLOAD_PEEK,
};
use crate::facts::{CodeImage, CodeKind, CodePlace, CodeRow, DeviceCode, Shape};
use crate::limits;
use crate::scan::elf::Section;
use crate::scan::symbols::Numbers;
use crate::version::Version;
use memchr::memmem::Finder;
use std::collections::{BTreeMap, BTreeSet};

/// What a window must still hold before the cursor may pass: the longest entry header and the peek into its payload.
pub(crate) const LOOK_AHEAD: usize = limits::FATBIN_HEADER_BYTES_MAX + PAYLOAD_PEEK;
/// What must stay in the window behind the cursor: the front of a library name whose `.so` was just found.
pub(crate) const LOOK_BEHIND: usize = 128;
/// The longest pattern, with what follows it; a match that begins closer to the end of the window waits.
const PATTERN_TAIL: usize = 96;

/// A container or bare cubin at its offset in the file, with the images in it.
struct Found {
    offset: u64,
    place: CodePlace,
    /// Bytes with header.
    size: u64,
    images: Vec<fatbin::Image>,
}

enum Mode {
    Search,
    /// Inside a container that ends at `end`; the cursor stands at an entry.
    Entries {
        end: u64,
    },
}

/// The forward cursor over one file.
pub(crate) struct CodeScan {
    size: u64,
    cursor: u64,
    mode: Mode,
    /// Length counted in entries; `found` holds containers.
    entries: usize,
    found: Vec<Found>,
    pub(crate) problems: Vec<String>,
    /// Library names in strings.
    pub(crate) names: BTreeSet<String>,
    /// The string that every copy of the CUDA runtime holds.
    pub(crate) runtime_marker: bool,
    /// Candidates for the constant that `cudaRuntimeGetVersion` stores: value -> times seen.
    pub(crate) runtime_versions: BTreeMap<u32, u32>,
    /// Version texts: what they name -> the versions.
    pub(crate) version_texts: BTreeMap<&'static str, BTreeSet<String>>,
    /// Numbers that version functions may return; libraries of the CUDA stack only.
    pub(crate) numbers: Option<Numbers>,
    patterns: Patterns,
}

struct Patterns {
    container: Finder<'static>,
    cubin: Finder<'static>,
    library: Finder<'static>,
    marker: Finder<'static>,
    mov_x86: Finder<'static>,
    mov_arm: Finder<'static>,
    texts: [(VersionText, Finder<'static>); 3],
}

/// A text that states a version, in front of which `before` stands.
struct VersionText {
    what: &'static str,
    /// What stands between the text's beginning and the version, and ends with this.
    skip_to: &'static [u8],
    /// Bytes of a version: digits and dots, and for NCCL `+cuda`.
    letters: &'static [u8],
}

/// A name that every CUDA runtime holds. Put together here: this program, which holds it too, is no CUDA runtime.
fn marker() -> Vec<u8> {
    let halves: [&[u8]; 2] = [b"cudaErrorCudart", b"Unloading\0"];
    halves.concat()
}

impl Patterns {
    fn new() -> Patterns {
        Patterns {
            container: Finder::new(&CONTAINER_MAGIC),
            cubin: Finder::new(b"\x7fELF\x02\x01\x01"),
            library: Finder::new(b".so"),
            marker: Finder::new(&marker()).into_owned(),
            // mov dword [rdi], imm32
            mov_x86: Finder::new(b"\xc7\x07"),
            // movz w0,#0; str w2,[x1]; ret: behind movz w2,#VERSION
            mov_arm: Finder::new(b"\x00\x00\x80\x52\x22\x00\x00\xb9\xc0\x03\x5f\xd6"),
            texts: [
                // NCCL version 2.21.5+cuda12.4
                (
                    VersionText { what: "nccl", skip_to: b"", letters: b"+cuda" },
                    Finder::new(b"NCCL version "),
                ),
                // Cuda compilation tools, release 12.4, V12.4.127
                (
                    VersionText { what: "toolkit", skip_to: b", V", letters: b"" },
                    Finder::new(b"Cuda compilation tools, release "),
                ),
                // NVSHMEM v3.4.5
                (VersionText { what: "nvshmem", skip_to: b"", letters: b"" }, Finder::new(b"NVSHMEM v")),
            ],
        }
    }
}

impl CodeScan {
    /// For a file of `size` bytes called `name`.
    pub(crate) fn new(size: u64, name: &str) -> CodeScan {
        CodeScan {
            size,
            cursor: 0,
            mode: Mode::Search,
            entries: 0,
            found: Vec::new(),
            problems: Vec::new(),
            names: BTreeSet::new(),
            runtime_marker: false,
            runtime_versions: BTreeMap::new(),
            version_texts: BTreeMap::new(),
            numbers: Numbers::wanted_of(name),
            patterns: Patterns::new(),
        }
    }

    fn problem(&mut self, what: String) {
        if self.problems.len() < limits::PROBLEMS_PER_FILE_MAX {
            self.problems.push(what);
        }
    }

    /// First offset that the next window must still hold.
    pub(crate) fn keep_from(&self) -> u64 {
        match self.mode {
            Mode::Search => self.cursor.saturating_sub(LOOK_BEHIND as u64),
            Mode::Entries { .. } => self.cursor,
        }
    }

    /// Moves the cursor as far as the window allows. `window` stands at `base` of the file; `last` says that the file
    /// ends with it; `is_code` tells where instructions are.
    pub(crate) fn advance(&mut self, window: &[u8], base: u64, last: bool, is_code: &dyn Fn(u64) -> bool) {
        let end = base.saturating_add(window.len() as u64);
        loop {
            if self.cursor >= end {
                return;
            }
            let at = usize::try_from(self.cursor.saturating_sub(base)).unwrap_or(usize::MAX);
            let rest = window.get(at..).unwrap_or_default();
            let moved = match self.mode {
                Mode::Search => self.search(window, at, base, last, is_code),
                Mode::Entries { end: container_end } => self.entry(rest, container_end, last),
            };
            if !moved {
                return;
            }
        }
    }

    /// Searches from `at` of the window. Returns whether the cursor found something to go on with.
    fn search(
        &mut self,
        window: &[u8],
        at: usize,
        base: u64,
        last: bool,
        is_code: &dyn Fn(u64) -> bool,
    ) -> bool {
        let safe_end = if last { window.len() } else { window.len().saturating_sub(LOOK_AHEAD).max(at) };
        let container = self.next_container(window, at, base, safe_end);
        let stop = container.unwrap_or(safe_end);
        self.patterns_between(window, at, stop, base, is_code);
        self.cursor = base.saturating_add(stop as u64);
        let Some(at) = container else { return false };
        let rest = window.get(at..).unwrap_or_default();
        let Some(size) = fatbin::container_size(rest, self.size.saturating_sub(self.cursor)) else {
            return false;
        };
        self.entries = self.entries.saturating_add(1);
        if self.entries > limits::FATBIN_ENTRIES_PER_FILE_MAX {
            self.problem("more fatbin containers than are read".to_owned());
            self.cursor = self.size;
            return false;
        }
        self.found.push(Found {
            offset: self.cursor,
            place: CodePlace::Embedded,
            size: size.saturating_add(CONTAINER_HEADER as u64),
            images: Vec::new(),
        });
        self.cursor = self.cursor.saturating_add(CONTAINER_HEADER as u64);
        self.mode = Mode::Entries { end: self.cursor.saturating_add(size) };
        true
    }

    /// The next plausible container header that begins before `safe_end`, at an 8-aligned offset of the file.
    fn next_container(&self, window: &[u8], from: usize, base: u64, safe_end: usize) -> Option<usize> {
        let mut from = from;
        loop {
            let at = from.checked_add(self.patterns.container.find(window.get(from..)?)?)?;
            if at >= safe_end {
                return None;
            }
            let offset = base.saturating_add(at as u64);
            let available = self.size.saturating_sub(offset);
            if offset.is_multiple_of(8) && fatbin::container_size(window.get(at..)?, available).is_some() {
                return Some(at);
            }
            from = at.checked_add(1)?;
        }
    }

    /// Reads the entry at the cursor. Returns false where the window must grow first.
    fn entry(&mut self, rest: &[u8], container_end: u64, last: bool) -> bool {
        let left = container_end.saturating_sub(self.cursor);
        if left == 0 {
            self.mode = Mode::Search;
            return true;
        }
        let whole = left.min(LOOK_AHEAD as u64).min(self.size.saturating_sub(self.cursor));
        if (rest.len() as u64) < whole && !last {
            return false;
        }
        let parsed = EntryHeader::parse(rest, left);
        let Some(header) = parsed.filter(|_| self.entries < limits::FATBIN_ENTRIES_PER_FILE_MAX) else {
            let why = if parsed.is_some() { "more entries than are read" } else { "no entry header" };
            self.problem(format!("fatbin container is damaged at offset {:#x}: {why}", self.cursor));
            self.mode = Mode::Search;
            self.cursor = self.cursor.saturating_add(8);
            return true;
        };
        match fatbin::images(rest, &header) {
            Ok(images) => {
                self.entries = self.entries.saturating_add(images.len());
                if let Some(found) = self.found.last_mut() {
                    found.images.extend(images);
                }
            }
            Err(why) => self.problem(format!("fatbin entry at offset {:#x}: {why}", self.cursor)),
        }
        self.cursor = self.cursor.saturating_add(header.size());
        true
    }

    fn patterns_between(
        &mut self,
        window: &[u8],
        from: usize,
        to: usize,
        base: u64,
        is_code: &dyn Fn(u64) -> bool,
    ) {
        let region_end = to.saturating_add(PATTERN_TAIL).min(window.len());
        let Some(region) = window.get(from..region_end) else { return };
        let until = to.saturating_sub(from);
        for at in self.patterns.library.find_iter(region).take_while(|&at| at < until) {
            let names = &mut self.names;
            if names.len() < limits::NAMES_PER_FILE_MAX {
                names.extend(library_name(window, from.saturating_add(at)));
            }
        }
        if !self.runtime_marker {
            self.runtime_marker = self.patterns.marker.find(region).is_some_and(|at| at < until);
        }
        for at in self.patterns.mov_x86.find_iter(region).take_while(|&at| at < until) {
            let offset = base.saturating_add(from as u64).saturating_add(at as u64);
            let value = fatbin::u32_at(region, at.saturating_add(2)).filter(|v| is_runtime_version(*v));
            if let Some(value) = value.filter(|_| is_code(offset)) {
                *self.runtime_versions.entry(value).or_default() += 1;
            }
        }
        for at in self.patterns.mov_arm.find_iter(region).take_while(|&at| at < until) {
            let before = from.saturating_add(at).checked_sub(4).and_then(|b| fatbin::u32_at(window, b));
            let value = before.filter(|w| w & 0xffe0_001f == 0x5280_0002).map(|w| w >> 5 & 0xffff);
            if let Some(value) = value.filter(|v| is_runtime_version(*v)) {
                *self.runtime_versions.entry(value).or_default() += 1;
            }
        }
        if let Some(numbers) = &mut self.numbers {
            numbers.collect(region, until, base.saturating_add(from as u64), is_code);
        }
        for (text, finder) in &self.patterns.texts {
            for at in finder.find_iter(region).take_while(|&at| at < until) {
                let version =
                    version_text(region.get(at + finder.needle().len()..).unwrap_or_default(), text);
                let known = self.version_texts.entry(text.what).or_default();
                if known.len() < limits::VERSION_TEXTS_MAX {
                    known.extend(version);
                }
            }
        }
        let cubins: Vec<usize> = self.patterns.cubin.find_iter(region).take_while(|&at| at < until).collect();
        for at in cubins {
            self.bare_cubin(
                region.get(at..).unwrap_or_default(),
                base.saturating_add(from as u64).saturating_add(at as u64),
            );
        }
    }

    fn bare_cubin(&mut self, bytes: &[u8], offset: u64) {
        let full = self.entries >= limits::FATBIN_ENTRIES_PER_FILE_MAX;
        let Some(header) = bytes
            .get(..ENTRY_HEADER)
            .and_then(CubinHeader::parse)
            .filter(|_| offset.is_multiple_of(8) && !full)
        else {
            return;
        };
        let left = self.size.saturating_sub(offset);
        let size = header.size.filter(|&s| s <= left).unwrap_or(ENTRY_HEADER as u64);
        let image = CodeImage { kind: CodeKind::Sass, arch: header.arch, ptx_isa: None };
        self.entries = self.entries.saturating_add(1);
        self.found.push(Found {
            offset,
            place: CodePlace::Cubin,
            size,
            images: vec![fatbin::Image { image, toolkit: header.toolkit, bytes: size }],
        });
    }

    /// What was found, with the section that each container stands in.
    pub(crate) fn device_code(self, sections: Option<&[Section]>) -> Option<DeviceCode> {
        if self.found.is_empty() {
            return None;
        }
        let mut code = DeviceCode::default();
        let mut rows: BTreeMap<RowKey, (u64, u64)> = BTreeMap::new();
        let mut shapes: BTreeMap<(CodePlace, Option<String>, Vec<CodeImage>), u64> = BTreeMap::new();
        for found in self.found {
            let section =
                sections.and_then(|all| all.iter().find(|s| (s.start..s.end).contains(&found.offset)));
            let listed = section.is_some_and(|s| s.name == ".nv_fatbin" || s.name == "__nv_relfatbin");
            let place =
                if listed && found.place == CodePlace::Embedded { CodePlace::Section } else { found.place };
            let section = section.map(|s| s.name.clone());
            match place {
                CodePlace::Section => code.containers += 1,
                CodePlace::Embedded => code.embedded_containers += 1,
                CodePlace::Cubin => {}
            }
            code.bytes = code.bytes.saturating_add(found.size);
            let mut images: Vec<CodeImage> = Vec::with_capacity(found.images.len());
            for image in found.images {
                images.push(image.image);
                let toolkit = image.toolkit.map(|t| (t.major(), t.minor()));
                let row = rows.entry((place, section.clone(), image.image, toolkit)).or_default();
                row.0 += 1;
                row.1 = row.1.saturating_add(image.bytes);
            }
            images.sort_unstable();
            images.dedup();
            *shapes.entry((place, section, images)).or_default() += 1;
        }
        code.rows = rows.into_iter().map(code_row).collect();
        code.shapes = shapes
            .into_iter()
            .map(|((place, section, images), count)| Shape { place, section, images, count })
            .collect();
        Some(code)
    }
}

type RowKey = (CodePlace, Option<String>, CodeImage, Option<(u64, u64)>);

fn code_row(((place, section, image, toolkit), (count, bytes)): (RowKey, (u64, u64))) -> CodeRow {
    let toolkit = toolkit.map(|(major, minor)| Version::of(major, minor));
    CodeRow { place, section, image, toolkit, count, bytes }
}

/// The version at the front of `rest`; at least two numbers, ended by a byte that is no part of one.
fn version_text(rest: &[u8], text: &VersionText) -> Option<String> {
    const REACH: usize = 40;
    let rest = rest.get(..rest.len().min(REACH)).unwrap_or(rest);
    let start = memchr::memmem::find(rest, text.skip_to)?.checked_add(text.skip_to.len())?;
    let rest = rest.get(start..)?;
    let fits = |b: &&u8| b.is_ascii_digit() || **b == b'.' || text.letters.contains(*b);
    let len = rest.iter().take_while(fits).count();
    let version = std::str::from_utf8(rest.get(..len)?).ok()?;
    let sensible = version.starts_with(|c: char| c.is_ascii_digit()) && version.contains('.');
    (sensible && len < rest.len()).then(|| version.trim_end_matches('.').to_owned())
}

/// major * 1000 + minor * 10 of CUDA 9.0 to 20.0.
fn is_runtime_version(value: u32) -> bool {
    (9000..=20000).contains(&value) && value.is_multiple_of(10) && value % 1000 <= 200
}

/// The NUL-terminated name around a `.so` at `at` of the window, if it is that of a CUDA library.
fn library_name(window: &[u8], at: usize) -> Option<String> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'+');
    let front = window.get(at.saturating_sub(LOOK_BEHIND)..at)?;
    let length = front.iter().rev().take_while(|&&b| is_name(b)).count();
    let start = at.checked_sub(length)?;
    let tail = window.get(at..window.len().min(at.saturating_add(PATTERN_TAIL)))?;
    let tail_len = tail.iter().take_while(|&&b| is_name(b)).count();
    let before = start.checked_sub(1).and_then(|b| window.get(b));
    let terminated = tail.get(tail_len) == Some(&0) && matches!(before, None | Some(0 | b'/'));
    let name = std::str::from_utf8(window.get(start..at.checked_add(tail_len)?)?).ok()?;
    let version = name.get(length..)?.strip_prefix(".so")?;
    let plain = version.is_empty()
        || version.starts_with('.') && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (terminated && plain && is_cuda_library(name)).then(|| name.to_owned())
}

/// Whether a file name belongs to the CUDA stack, by the prefixes of NVIDIA's libraries.
pub(crate) fn is_cuda_library(name: &str) -> bool {
    const PREFIXES: [&str; 33] = [
        "cuda",
        "cublas",
        "cudnn",
        "cufft",
        "cufile",
        "cupti",
        "curand",
        "cusolver",
        "cusparse",
        "cutensor",
        "cudss",
        "cudla",
        "cuinj64",
        "nccl",
        "ncclprofiler",
        "nppc",
        "nppi",
        "npps",
        "nvblas",
        "nvcuvid",
        "nvidia-",
        "nvinfer",
        "nvJitLink",
        "nvjpeg",
        "nvonnxparser",
        "nvparsers",
        "nvperf",
        "nvrtc",
        "nvshmem",
        "nvToolsExt",
        "nvtx",
        "nvvm",
        "nvcomp",
    ];
    name.strip_prefix("lib").is_some_and(|bare| PREFIXES.iter().any(|p| bare.starts_with(p)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(bytes: &[u8], step: usize) -> CodeScan {
        let mut scan = CodeScan::new(bytes.len() as u64, "");
        let mut start = 0usize;
        let mut end = 0usize;
        while end < bytes.len() {
            end = (end + step).min(bytes.len());
            scan.advance(&bytes[start..end], start as u64, end == bytes.len(), &|_| true);
            start = usize::try_from(scan.keep_from()).unwrap().min(end);
        }
        scan
    }

    fn container(entries: &[(u16, u32, u64, usize)]) -> Vec<u8> {
        let mut body = Vec::new();
        for &(kind, sm, flags, payload) in entries {
            let mut header = vec![0u8; 64];
            header[0..2].copy_from_slice(&kind.to_le_bytes());
            header[2..4].copy_from_slice(&[1, 1]);
            header[4] = 64;
            header[8..16].copy_from_slice(&(payload as u64).to_le_bytes());
            header[0x18] = 4;
            header[0x1a] = 8;
            header[0x1c..0x20].copy_from_slice(&sm.to_le_bytes());
            header[0x28..0x30].copy_from_slice(&flags.to_le_bytes());
            body.extend(header);
            body.extend(std::iter::repeat_n(0xAA, payload));
        }
        let mut out = CONTAINER_MAGIC.to_vec();
        out.extend((body.len() as u64).to_le_bytes());
        out.extend(body);
        out
    }

    #[test]
    fn containers_are_found_whatever_the_size_of_the_chunks() {
        let mut bytes = vec![0u8; 4096];
        bytes.extend(container(&[(2, 90, 0x10_0011, 600_000), (1, 80, 0x2011, 64)]));
        bytes.extend(container(&[(2, 80, 0x11, 8)]));
        bytes.extend(vec![0u8; 8]);
        bytes.extend(b"xx\0libcudnn.so.9\0/opt/libnccl.so.2\0libm.so.6\0");
        for step in [70_000, 262_144, 10_000_000] {
            let scan = scan(&bytes, step);
            assert_eq!(scan.names.iter().collect::<Vec<_>>(), ["libcudnn.so.9", "libnccl.so.2"]);
            let code = scan.device_code(None).unwrap();
            assert_eq!(
                (code.containers, code.embedded_containers, code.shapes.len()),
                (0, 2, 2),
                "step {step}"
            );
            let rows: Vec<String> = code
                .rows
                .iter()
                .map(|r| format!("{:?} {} {:?}", r.image.kind, r.image.arch, r.image.ptx_isa))
                .collect();
            assert_eq!(rows, ["Sass 80 None", "Sass 90a None", "Ptx 80 Some((8, 4))"]);
        }
    }

    #[test]
    fn a_constant_that_only_looks_like_a_container_is_no_container() {
        let mut bytes = vec![0u8; 64];
        bytes.extend(CONTAINER_MAGIC);
        bytes.extend(u64::MAX.to_le_bytes());
        bytes.extend(vec![0u8; 64]);
        assert!(scan(&bytes, 1 << 20).device_code(None).is_none());
        let mut shifted = vec![0u8; 4];
        shifted.extend(container(&[(2, 80, 0x11, 8)]));
        assert!(scan(&shifted, 1 << 20).device_code(None).is_none(), "containers are 8-aligned in a file");
    }

    #[test]
    fn a_damaged_entry_is_a_problem_and_the_rest_is_still_read() {
        let mut bytes = container(&[(2, 80, 0x11, 8), (2, 86, 0x11, 8)]);
        bytes[16 + 72 + 2] = 9;
        bytes.extend(container(&[(2, 90, 0x11, 8)]));
        let scan = scan(&bytes, 1 << 20);
        assert_eq!(scan.problems.len(), 1);
        let code = scan.device_code(None).unwrap();
        assert_eq!(code.rows.iter().map(|r| r.image.arch.number).collect::<Vec<_>>(), [80, 90]);
    }

    #[test]
    fn the_runtime_version_is_the_stored_constant() {
        let mut bytes = marker();
        for value in [12040u32, 12040, 12041, 99] {
            bytes.extend([0x90, 0xc7, 0x07]);
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend(0x5280_0002u32.wrapping_add(12080 << 5).to_le_bytes());
        bytes.extend(b"\x00\x00\x80\x52\x22\x00\x00\xb9\xc0\x03\x5f\xd6");
        let scan = scan(&bytes, 1 << 20);
        assert!(scan.runtime_marker);
        assert_eq!(scan.runtime_versions, BTreeMap::from([(12040, 2), (12080, 1)]));
    }
}
