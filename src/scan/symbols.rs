//! The dynamic symbol table of an ELF file -> imports from the CUDA stack, hashes of its exports, and the numbers that
//! version functions return. Knows the names of such functions, nothing of what follows from a version.

use super::code::is_cuda_library;
use super::elf::Layout;
use super::fatbin::u32_at;
use crate::facts::{ElfFacts, gnu_hash, is_torch_library};
use crate::limits;
use goblin::container::{Container, Ctx};
use goblin::elf::sym::{STB_WEAK, STT_FUNC, STT_OBJECT};
use goblin::elf::{Sym, Symtab};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Functions that return (or store) their library's version as one number, with the range of numbers that make sense.
const VERSION_FUNCTIONS: &[(&str, RangeInclusive<u32>)] = &[
    ("cublasLtGetCudartVersion", 9000..=20_000),
    ("cublasLtGetVersion", 9000..=400_000),
    ("cudnnGetCudartVersion", 9000..=20_000),
    ("cudnnGetMaxDeviceVersion", 300..=2000),
    ("cudnnGetVersion", 5000..=400_000),
    ("cufftGetVersion", 9000..=40_000),
    ("cuptiGetVersion", 10..=999),
    ("curandGetVersion", 9000..=40_000),
    ("cusolverGetVersion", 9000..=40_000),
    ("cusparseGetVersion", 9000..=40_000),
    ("cusparseLtGetVersion", 100..=20_000),
    ("cutensorGetCudartVersion", 9000..=20_000),
    ("cutensorGetVersion", 10_000..=99_999),
    ("getInferLibVersion", 5000..=400_000),
    ("ncclGetVersion", 2000..=99_999),
];
/// Exported words that hold `major << 16 | minor << 8 | patch`.
const VERSION_WORDS: &[&str] = &[
    "cudnn_adv_infer_version",
    "cudnn_adv_train_version",
    "cudnn_cnn_infer_version",
    "cudnn_cnn_train_version",
    "cudnn_graph_version",
    "cudnn_ops_infer_version",
    "cudnn_ops_train_version",
];
/// Longest function body that is searched for its number, bytes (cuDNN's `cudnnGetVersion` has 1064).
const BODY_BYTES_MAX: u64 = 2048;

/// Numbers in a file that may be versions, with their offsets. Which of them are is known only when the symbol table
/// has come, and that may be the last thing in the file.
#[derive(Default)]
pub(crate) struct Numbers {
    /// Immediates of instructions.
    code: Vec<(u64, u32)>,
    /// Words of cuDNN's form among the data.
    words: Vec<(u64, u32)>,
    /// Whether such words are wanted: other libraries have none, but many that look so.
    wants_words: bool,
}

impl Numbers {
    /// For a library of the CUDA stack; `None` for other files.
    pub(crate) fn wanted_of(name: &str) -> Option<Numbers> {
        let wants_words = name.starts_with("libcudnn");
        is_cuda_library(name).then(|| Numbers { wants_words, ..Numbers::default() })
    }

    /// Looks through the bytes at `offset`, of which those from `until` on only complete what began before.
    pub(crate) fn collect(&mut self, bytes: &[u8], until: usize, offset: u64, is_code: &dyn Fn(u64) -> bool) {
        for at in memchr::memchr2_iter(0xb8, 0xc7, bytes.get(..until).unwrap_or(bytes)) {
            let Some(value) = immediate_x86(bytes, at).filter(|v| IMMEDIATES.contains(v)) else { continue };
            let offset = offset.saturating_add(at as u64);
            if self.code.len() < limits::VERSION_NUMBERS_MAX && is_code(offset) {
                self.code.push((offset, value));
            }
        }
        let misaligned = usize::try_from(offset % 4).unwrap_or(0);
        let first = (4 - misaligned) % 4;
        let words = bytes.get(first..).unwrap_or_default().chunks_exact(4);
        for (index, word) in words.enumerate() {
            let at = first.saturating_add(index.saturating_mul(4));
            let Some(word) = u32_at(word, 0).filter(|_| at < until) else { break };
            let offset = offset.saturating_add(at as u64);
            // Constants may stand in the segment of the code.
            if self.wants_words && is_version_word(word) && self.words.len() < limits::VERSION_NUMBERS_MAX {
                self.words.push((offset, word));
            } else if word & 0xffe0_0000 == MOVZ && self.code.len() < limits::VERSION_NUMBERS_MAX {
                let value = immediate_arm64(bytes.get(at..).unwrap_or_default());
                if let Some(value) = value.filter(|v| IMMEDIATES.contains(v) && is_code(offset)) {
                    self.code.push((offset, value));
                }
            }
        }
    }

    fn of_function(&self, start: u64, size: u64) -> impl Iterator<Item = u32> + '_ {
        let end = start.saturating_add(size.min(BODY_BYTES_MAX));
        let from = self.code.partition_point(|(at, _)| *at < start);
        self.code.iter().skip(from).take_while(move |(at, _)| *at < end).map(|(_, v)| *v)
    }

    fn word_at(&self, offset: u64) -> Option<u32> {
        let at = self.words.binary_search_by_key(&offset, |(at, _)| *at).ok()?;
        self.words.get(at).map(|(_, v)| *v)
    }
}

/// No version number is smaller (CUPTI's is 22 for CUDA 12.4) or larger (cuBLASLt 13.5 is 130500).
const IMMEDIATES: RangeInclusive<u32> = 10..=400_000;
/// `movz w, #imm16`.
const MOVZ: u32 = 0x5280_0000;

/// `major << 16 | minor << 8 | patch` of a cuDNN from 5 to 20.
fn is_version_word(word: u32) -> bool {
    (5..=20).contains(&(word >> 16)) && word >> 8 & 0xff < 100 && word & 0xff < 100
}

/// Whether a number may be the version of the library: its major is that of the soname. CUDA versions, CUPTI's interface
/// numbers and compute capabilities have a major of their own.
fn fits_soname(name: &str, value: u32, soname: Option<&str>) -> bool {
    if name.ends_with("CudartVersion") || name == "cuptiGetVersion" || name == "cudnnGetMaxDeviceVersion" {
        return true;
    }
    let major =
        soname.and_then(|s| s.split_once(".so.")).and_then(|(_, v)| v.split('.').next()?.parse().ok());
    major.is_none_or(|major: u32| value / 1000 == major || value / 10_000 == major)
}

fn range_of(name: &str) -> Option<RangeInclusive<u32>> {
    let word = || VERSION_WORDS.contains(&name).then_some(1..=u32::MAX);
    VERSION_FUNCTIONS.iter().find(|(n, _)| *n == name).map(|(_, r)| r.clone()).or_else(word)
}

/// The tables that symbols are read from.
pub(crate) struct Table<'a> {
    pub(crate) symbols: &'a [u8],
    pub(crate) strings: &'a [u8],
    /// DT_VERSYM: one u16 per symbol.
    pub(crate) versions: &'a [u8],
    /// Version index -> (version, library asked for it).
    pub(crate) names: &'a BTreeMap<u16, (String, String)>,
    pub(crate) ctx: Ctx,
}

impl Table<'_> {
    fn name(&self, symbol: &Sym) -> &[u8] {
        let rest = self.strings.get(symbol.st_name..).unwrap_or_default();
        let rest = rest.get(..rest.len().min(limits::PATH_BYTES_MAX)).unwrap_or_default();
        memchr::memchr(0, rest).and_then(|end| rest.get(..end)).unwrap_or_default()
    }

    fn version(&self, index: usize) -> Option<&(String, String)> {
        let raw = self.versions.get(index.checked_mul(2)?..)?.get(..2)?.try_into().ok()?;
        let number =
            if self.ctx.is_little_endian() { u16::from_le_bytes(raw) } else { u16::from_be_bytes(raw) };
        self.names.get(&(number & 0x7fff))
    }
}

/// Reads the symbol table into `facts`. `soname`, `needed` must be there already.
pub(crate) fn read(table: &Table, layout: &Layout, numbers: &Numbers, facts: &mut ElfFacts) {
    let size = if table.ctx.container == Container::Big { 24 } else { 16 };
    let Ok(symbols) = Symtab::parse(table.symbols, 0, table.symbols.len() / size, table.ctx) else { return };
    let is_torch = facts.soname.as_deref().is_some_and(is_torch_library);
    let is_stack = facts.soname.as_deref().is_some_and(is_cuda_library);
    let uses_torch = !is_torch && facts.needs_torch();
    let mut exports = Vec::new();
    let mut imports = 0usize;
    for (index, symbol) in symbols.iter().enumerate() {
        if symbol.st_name == 0 {
            continue;
        }
        let name = table.name(&symbol);
        if symbol.st_shndx == 0 {
            driver_api(name, facts);
            if symbol.st_bind() != STB_WEAK && imports < limits::IMPORTS_PER_FILE_MAX {
                imports += usize::from(import(name, table.version(index), uses_torch, facts));
            }
        } else {
            if is_stack || is_torch && is_torch_symbol(name) {
                exports.push(gnu_hash(name));
            }
            let soname = facts.soname.as_deref().filter(|_| is_stack);
            if let Some(value) = soname.and_then(|s| number(name, &symbol, layout, numbers, s)) {
                facts.version_numbers.insert(String::from_utf8_lossy(name).into_owned(), value);
            }
        }
    }
    facts.driver_api.sort();
    exports.sort_unstable();
    exports.dedup();
    // A library without a single symbol was stripped of its table or is a stand-in: what it has is not known.
    facts.exports = Some(exports).filter(|e| !e.is_empty());
}

/// Imported driver API functions, at most eight: `cu` and an upper case letter (`cuInit`), undefined here.
fn driver_api(name: &[u8], facts: &mut ElfFacts) {
    const NAMES_KEPT: usize = 8;
    let fits = name.starts_with(b"cu") && name.get(2).is_some_and(u8::is_ascii_uppercase);
    if fits && facts.driver_api.len() < NAMES_KEPT {
        facts.driver_api.push(String::from_utf8_lossy(name).into_owned());
    }
}

/// Keeps an import with a version of a CUDA library, one of NCCL, or one of torch's C++ symbols.
fn import(name: &[u8], version: Option<&(String, String)>, uses_torch: bool, facts: &mut ElfFacts) -> bool {
    let text = || String::from_utf8_lossy(name).into_owned();
    let (library, entry) = match version {
        Some((version, library)) if is_cuda_library(library) => {
            (library.clone(), format!("{}@{version}", text()))
        }
        None if uses_torch && is_torch_symbol(name) => (String::new(), text()),
        // NCCL has no symbol versions; its functions are told by their names.
        None if is_nccl_function(name) => match facts.needed.iter().find(|n| n.starts_with("libnccl.so")) {
            Some(library) => (library.clone(), text()),
            None => return false,
        },
        _ => return false,
    };
    facts.imports.entry(library).or_default().push(entry);
    true
}

fn is_nccl_function(name: &[u8]) -> bool {
    name.strip_prefix(b"nccl").and_then(|rest| rest.first()).is_some_and(u8::is_ascii_uppercase)
}

/// Itanium-mangled names of the namespaces c10, at and torch.
fn is_torch_symbol(name: &[u8]) -> bool {
    const NAMESPACES: [&[u8]; 6] =
        [b"_ZN3c10", b"_ZNK3c10", b"_ZN2at", b"_ZNK2at", b"_ZN5torch", b"_ZNK5torch"];
    NAMESPACES.iter().any(|n| name.starts_with(n))
}

/// The number that a version function or word holds.
fn number(name: &[u8], symbol: &Sym, layout: &Layout, numbers: &Numbers, soname: &str) -> Option<u32> {
    let name = std::str::from_utf8(name).ok()?;
    let range = range_of(name)?;
    let offset = layout.offset_of(symbol.st_value)?;
    match symbol.st_type() {
        STT_OBJECT if symbol.st_size == 4 => numbers.word_at(offset),
        STT_FUNC => {
            let fits = |v: &u32| range.contains(v) && fits_soname(name, *v, Some(soname));
            most_frequent(numbers.of_function(offset, symbol.st_size).filter(fits))
        }
        _ => None,
    }
}

fn most_frequent(values: impl Iterator<Item = u32>) -> Option<u32> {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let most = counts.values().copied().max()?;
    let mut best = counts.into_iter().filter(|(_, n)| *n == most).map(|(v, _)| v);
    let value = best.next()?;
    // Two candidates are no answer.
    best.next().is_none().then_some(value)
}

/// The immediate of `mov eax, imm32` (b8) or `mov dword [...], imm32` (c7 /0 without, with 8-bit and with 32-bit
/// displacement) at `at`.
fn immediate_x86(bytes: &[u8], at: usize) -> Option<u32> {
    let rest = bytes.get(at..)?;
    let mode = *rest.get(1)?;
    let skip = match rest.first()? {
        0xb8 => 1,
        0xc7 if mode & 0x38 == 0 => {
            let sib = usize::from(mode & 7 == 4 && mode >> 6 != 3);
            match mode >> 6 {
                0 if mode & 7 != 5 => 2 + sib,
                1 => 3 + sib,
                2 => 6 + sib,
                _ => return None,
            }
        }
        _ => return None,
    };
    u32_at(rest, skip)
}

/// The immediate of `movz w, #imm16`, with a `movk w, #imm16, lsl 16` of the same register shortly behind it.
fn immediate_arm64(code: &[u8]) -> Option<u32> {
    let mut words = code.chunks_exact(4).filter_map(|c| u32_at(c, 0));
    let word = words.next()?;
    let is_high = |w: &u32| w & 0xffe0_001f == 0x72a0_0000 | word & 0x1f;
    let high = words.take(4).find(is_high).map_or(0, |w| w >> 5 & 0xffff);
    Some(high << 16 | word >> 5 & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(bytes: &[u8]) -> Numbers {
        let mut numbers = Numbers::default();
        numbers.collect(bytes, bytes.len(), 0x1000, &|_| true);
        numbers
    }

    #[test]
    fn the_number_of_a_version_function_is_its_immediate() {
        let number = |body: &[u8], range: RangeInclusive<u32>| {
            let numbers = collected(body);
            most_frequent(numbers.of_function(0x1000, body.len() as u64).filter(|v| range.contains(v)))
        };
        // movl $0x2841,(%rdi); xor %eax,%eax; ret    (cuRAND 10.3.5)
        assert_eq!(number(&[0xc7, 0x07, 0x41, 0x28, 0, 0, 0x31, 0xc0, 0xc3], 9000..=40_000), Some(10_305));
        // movl $0x1d655,-0x34(%rbp)                   (cuBLASLt 12.4.5)
        assert_eq!(number(&[0xc7, 0x45, 0xcc, 0x55, 0xd6, 1, 0, 0xc3], 9000..=400_000), Some(120_405));
        // add $0x10148,%rsp; mov $0x15ff4,%eax; ret   (cuDNN 9.1.0)
        let returned = [0x48, 0x81, 0xc4, 0x48, 1, 1, 0, 0xb8, 0xf4, 0x5f, 1, 0, 0xc3];
        assert_eq!(number(&returned, 5000..=400_000), Some(90_100));
        let two = [0xb8, 0x10, 0x27, 0, 0, 0xb8, 0x20, 0x4e, 0, 0];
        assert_eq!(number(&two, 9000..=400_000), None, "two candidates are no answer");
    }

    #[test]
    fn arm64_numbers_above_16_bits_take_two_instructions() {
        let (movz, movk) = (MOVZ | 0xd655 << 5 | 3, 0x72a0_0000u32 | 1 << 5 | 3);
        let body: Vec<u8> = [movz, movk].iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(immediate_arm64(&body), Some(120_405));
        assert_eq!(immediate_arm64(&(MOVZ | 10_305 << 5).to_le_bytes()), Some(10_305));
    }

    #[test]
    fn a_version_word_stands_among_the_data() {
        let mut numbers = Numbers::wanted_of("libcudnn_graph.so.9").unwrap();
        let bytes = [1u8, 0, 0, 0, 2, 10, 9, 0, 7, 0, 0, 0];
        numbers.collect(&bytes, bytes.len(), 0x2000, &|_| false);
        assert_eq!((numbers.word_at(0x2004), numbers.word_at(0x2000)), (Some(0x0009_0a02), None));
    }

    #[test]
    fn majors_must_agree_with_the_soname() {
        assert!(fits_soname("cudnnGetVersion", 90_100, Some("libcudnn_graph.so.9")));
        assert!(!fits_soname("cudnnGetVersion", 65_534, Some("libcudnn_graph.so.9")));
        assert!(fits_soname("cusparseLtGetVersion", 701, Some("libcusparseLt.so.0")));
        assert!(fits_soname("cuptiGetVersion", 22, Some("libcupti.so.12")));
    }
}
