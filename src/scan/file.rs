//! One regular file, read once front to back -> [`Content`]: ELF facts, GPU code, packages, configuration text.
//!
//! The name and the first bytes decide which analyzer reads it; everything else passes by unread.

use super::capture::Capture;
use super::code::CodeScan;
use super::fatbin::{CONTAINER_MAGIC, CubinHeader, ENTRY_HEADER, compat_says_arch_specific};
use super::spool::Budget;
use super::symbols::Numbers;
use super::tar::read_bounded;
use super::{archive, elf, texts};
use crate::facts::{
    CodeImage, CodeKind, CodePlace, CodeRow, Content, CudartCode, Depth, DeviceCode, FileKind, Shape,
};
use crate::image::read_full;
use crate::limits;
use crate::names::{Digest, ImagePath};
use crate::version::{Arch, Suffix};
use sha2::Digest as _;
use std::io::{self, Read};

/// Bytes that pass through memory at a time.
const WINDOW_BYTES: usize = 512 << 10;

/// First bytes of a serialized TensorRT engine.
const ENGINE_MAGIC: &[u8] = b"ftrt";

/// What a worker keeps from file to file.
pub(crate) struct Scratch {
    window: Vec<u8>,
    pub(crate) budget: Budget,
    /// Compute SHA-256 of files with GPU code facts (`--hash-files`).
    pub(crate) hash_files: bool,
    pub(crate) depth: Depth,
}

impl Scratch {
    pub(crate) fn new(budget: Budget, hash_files: bool, depth: Depth) -> Scratch {
        Scratch { window: vec![0u8; WINDOW_BYTES], budget, hash_files, depth }
    }
}

/// What a file says, and what is wrong with it.
#[derive(Default)]
pub(crate) struct FileScan {
    pub(crate) content: Option<Content>,
    pub(crate) problems: Vec<String>,
    pub(crate) is_elf: bool,
}

/// Reads a file of `size` bytes. `Err` only where the stream itself fails; a damaged file is a problem.
pub(crate) fn scan(
    path: &ImagePath,
    size: u64,
    reader: &mut dyn Read,
    scratch: &mut Scratch,
) -> io::Result<FileScan> {
    if scratch.depth == Depth::Libraries {
        return libraries(path, size, &mut Passing(reader), scratch);
    }
    let mut head = [0u8; 512];
    let got = read_full(reader, &mut head)?;
    let head = head.get(..got).unwrap_or_default();
    let mut whole = head.chain(reader);
    if head.starts_with(b"\x7fELF") {
        let is_cubin = CubinHeader::parse(head.get(..ENTRY_HEADER).unwrap_or_default()).is_some();
        return if is_cubin {
            cubin(size, &mut whole)
        } else {
            stream(path.file_name(), size, &mut whole, scratch, FileKind::Elf)
        };
    }
    if head.starts_with(&CONTAINER_MAGIC) {
        return stream("", size, &mut whole, scratch, FileKind::Fatbin);
    }
    if head.starts_with(ENGINE_MAGIC) {
        return engine(head.to_vec(), size, &mut whole, scratch);
    }
    if head.starts_with(b"!<arch>\n") {
        return archive::scan(size, &mut whole, scratch);
    }
    if path.file_name().ends_with(".ptx") {
        return ptx(&mut whole);
    }
    texts::scan(path, &mut whole)
}

/// A file whose bytes are read in order, with gaps.
pub(crate) trait Forward: Read {
    /// Leaves bytes out.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

/// A file that passes by whole.
pub(crate) struct Passing<'a>(pub(crate) &'a mut dyn Read);

impl Read for Passing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Forward for Passing<'_> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        io::copy(&mut (&mut self.0).take(bytes), &mut io::sink()).map(drop)
    }
}

/// The same without GPU code, and without what is found only by searching a whole file: loader tables of ELF files, packages
/// and configuration.
pub(crate) fn libraries(
    path: &ImagePath,
    size: u64,
    reader: &mut dyn Forward,
    scratch: &mut Scratch,
) -> io::Result<FileScan> {
    let mut head = [0u8; 512];
    let got = read_full(reader, &mut head)?;
    let head = head.get(..got).unwrap_or_default();
    if !head.starts_with(b"\x7fELF") {
        return texts::scan(path, &mut head.chain(reader));
    }
    if CubinHeader::parse(head.get(..ENTRY_HEADER).unwrap_or_default()).is_some() {
        return Ok(FileScan::default());
    }
    let mut capture = Capture::new(size, &scratch.budget);
    let mut problems = Vec::new();
    let mut at = 0u64;
    let mut feed = |capture: &mut Capture, at: u64, bytes: &[u8]| {
        if let Err(error) = capture.feed(at, bytes) {
            problems.push(format!("tables of the file could not be kept: {error}"));
        }
        at.saturating_add(bytes.len() as u64)
    };
    at = feed(&mut capture, at, head);
    while let Some((start, end)) = capture.wants(at) {
        reader.skip(start.saturating_sub(at))?;
        let wanted =
            usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX).min(scratch.window.len());
        let part = scratch.window.get_mut(..wanted).unwrap_or_default();
        let got = read_full(reader, part)?;
        at = feed(&mut capture, start, part.get(..got).unwrap_or_default());
        if got < wanted {
            break;
        }
    }
    let facts = elf::facts(&capture, &Numbers::default(), size, &mut problems);
    let content = Content { kind: Some(FileKind::Elf), elf: Some(facts), ..Content::default() };
    Ok(FileScan { content: Some(content), problems, is_elf: true })
}

/// An ELF file called `name`, or a fatbin: device code, strings and constants, loader tables.
pub(crate) fn stream(
    name: &str,
    size: u64,
    reader: &mut dyn Read,
    scratch: &mut Scratch,
    kind: FileKind,
) -> io::Result<FileScan> {
    let mut capture = Capture::new(if kind == FileKind::Elf { size } else { 0 }, &scratch.budget);
    let mut code = CodeScan::new(size, name);
    let mut hash = scratch.hash_files.then(sha2::Sha256::new);
    let window = &mut scratch.window;
    let (mut base, mut held, mut problems) = (0u64, 0usize, Vec::new());
    loop {
        let got = read_full(reader, window.get_mut(held..).unwrap_or_default())?;
        let fresh_at = base.saturating_add(held as u64);
        let fresh = window.get(held..held.saturating_add(got)).unwrap_or_default();
        if let Some(hash) = &mut hash {
            hash.update(fresh);
        }
        if let Err(error) = capture.feed(fresh_at, fresh) {
            problems.push(format!("tables of the file could not be kept: {error}"));
        }
        held = held.saturating_add(got);
        let end = base.saturating_add(held as u64);
        let last = end >= size || held < window.len();
        let layout = capture.layout();
        let is_code = |offset: u64| layout.is_none_or(|l| l.is_code(offset));
        code.advance(window.get(..held).unwrap_or_default(), base, last, &is_code);
        if last {
            if end < size {
                problems.push(format!("the file ends after {end} of {size} bytes"));
            }
            break;
        }
        let keep = code.keep_from().clamp(base, end);
        let drop = usize::try_from(keep.saturating_sub(base)).unwrap_or(held).min(held);
        window.copy_within(drop..held, 0);
        held = held.saturating_sub(drop);
        base = keep;
    }
    let mut content = finish(size, kind, &capture, code, &mut problems);
    content.sha256 = hash.map(|h| Digest::sha256(&h.finalize()));
    Ok(FileScan { content: Some(content), problems, is_elf: kind == FileKind::Elf })
}

fn finish(
    size: u64,
    kind: FileKind,
    capture: &Capture,
    mut code: CodeScan,
    problems: &mut Vec<String>,
) -> Content {
    let mut content = Content { kind: Some(kind), ..Content::default() };
    if kind == FileKind::Elf {
        let numbers = code.numbers.take().unwrap_or_default();
        let mut facts = elf::facts(capture, &numbers, size, problems);
        let is_own =
            |name: &str| facts.soname.as_deref() == Some(name) || facts.needed.iter().any(|n| n == name);
        facts.dlopens = code.names.iter().filter(|n| !is_own(n)).cloned().collect();
        facts.version_texts = code
            .version_texts
            .iter()
            .map(|(what, versions)| ((*what).to_owned(), versions.iter().cloned().collect()))
            .filter(|(_, versions): &(String, Vec<String>)| !versions.is_empty())
            .collect();
        // Error name tables hold the marker too (libtorch_cuda_linalg); who loads libcudart has no copy of it inside.
        let loads_it = facts.needed.iter().any(|n| n.starts_with("libcudart"));
        let version = runtime_version(&code);
        facts.cudart =
            (code.runtime_marker && (version.is_some() || !loads_it)).then_some(CudartCode { version });
        content.elf = Some(facts);
    }
    problems.extend(code.problems.iter().cloned());
    let sections = elf::sections(capture);
    content.device_code = code.device_code(sections.as_deref());
    content
}

/// The constant stands exactly twice in every libcudart, static or shared, measured from 11.8 to 13.5.
fn runtime_version(code: &CodeScan) -> Option<u32> {
    let twice: Vec<u32> = code.runtime_versions.iter().filter(|(_, n)| **n == 2).map(|(v, _)| *v).collect();
    match twice.as_slice() {
        [version] => Some(*version),
        _ => None,
    }
}

/// A bare cubin in a file of its own.
fn cubin(size: u64, reader: &mut dyn Read) -> io::Result<FileScan> {
    let Some(bytes) = read_bounded(reader, limits::TEXT_BYTES_MAX)? else {
        return Ok(FileScan {
            problems: vec!["cubin is larger than is read".to_owned()],
            ..FileScan::default()
        });
    };
    let Some(header) = CubinHeader::parse(bytes.get(..ENTRY_HEADER).unwrap_or_default()) else {
        return Ok(FileScan::default());
    };
    let specific =
        header.new_layout && header.arch.suffix == Suffix::None && compat_says_arch_specific(&bytes);
    let suffix = if specific { Suffix::ArchSpecific } else { header.arch.suffix };
    let image =
        CodeImage { kind: CodeKind::Sass, arch: Arch { number: header.arch.number, suffix }, ptx_isa: None };
    let mut problems = Vec::new();
    if header.size.is_some_and(|s| s > size) {
        problems.push("the cubin is cut short".to_owned());
    }
    let row = CodeRow {
        place: CodePlace::Cubin,
        section: None,
        image,
        toolkit: header.toolkit,
        count: 1,
        bytes: size,
    };
    Ok(FileScan { content: Some(single_image(FileKind::Cubin, row)), problems, is_elf: false })
}

/// A TensorRT engine: the kernels in it are cubins, and the release that built it stands in its head from 8.6 on.
///
/// ```text
/// offset  size  field                  known from
///      0     4  magic `ftrt`           torch_tensorrt's test for it
///      8     4  serialization number   https://github.com/NVIDIA/TensorRT/issues/3073; 236 belongs to 8.6
///     24     4  major, minor, patch,   the same, answered by its maker, for 8.6 and newer
///               build, a byte each
/// ```
fn engine(head: Vec<u8>, size: u64, reader: &mut dyn Read, scratch: &mut Scratch) -> io::Result<FileScan> {
    const WITH_RELEASE_FROM: u32 = 236;
    let mut found = stream("", size, reader, scratch, FileKind::Engine)?;
    let bytes = |at: usize| head.get(at..at.saturating_add(4)).and_then(|b| <[u8; 4]>::try_from(b).ok());
    let number = bytes(8).map(u32::from_le_bytes).filter(|n| *n >= WITH_RELEASE_FROM);
    if let (Some(content), Some(number), Some(release)) = (&mut found.content, number, bytes(24)) {
        let release: Vec<String> = release.iter().map(u8::to_string).collect();
        content.text = Some(format!("tensorrt {}\nserialization {number}\n", release.join(".")));
    }
    Ok(found)
}

/// PTX source: `.version 8.4` and `.target sm_90` near its top.
fn ptx(reader: &mut dyn Read) -> io::Result<FileScan> {
    let mut bytes = vec![0u8; 64 << 10];
    let got = read_full(reader, &mut bytes)?;
    let text = String::from_utf8_lossy(bytes.get(..got).unwrap_or_default()).into_owned();
    let word = |directive: &str| {
        let line = text.lines().find_map(|l| l.trim().strip_prefix(directive))?;
        line.split([' ', '\t', ',']).find(|w| !w.is_empty()).map(str::to_owned)
    };
    let isa = word(".version").and_then(|v| {
        let (major, minor) = v.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    let arch = word(".target").and_then(|t| Arch::parse(&t));
    let (Some(ptx_isa), Some(arch)) = (isa, arch) else { return Ok(FileScan::default()) };
    let image = CodeImage { kind: CodeKind::Ptx, arch, ptx_isa: Some(ptx_isa) };
    let row = CodeRow {
        place: CodePlace::Embedded,
        section: None,
        image,
        toolkit: None,
        count: 1,
        bytes: got as u64,
    };
    Ok(FileScan { content: Some(single_image(FileKind::Ptx, row)), ..FileScan::default() })
}

fn single_image(kind: FileKind, row: CodeRow) -> Content {
    let shape = Shape { place: row.place, section: None, images: vec![row.image], count: 1 };
    let device_code =
        DeviceCode { bytes: row.bytes, rows: vec![row], shapes: vec![shape], ..DeviceCode::default() };
    Content { kind: Some(kind), device_code: Some(device_code), ..Content::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(bytes: &[u8]) -> FileScan {
        let mut scratch = Scratch::new(Budget::default(), false, Depth::Full);
        scan(&ImagePath::new("/models/model.plan"), bytes.len() as u64, &mut &*bytes, &mut scratch).unwrap()
    }

    #[test]
    fn a_tensorrt_engine_says_who_built_it_and_for_which_gpu() {
        let cubin = include_bytes!("../../fixtures/code/demo.cubin");
        let mut engine = b"ftrt\0\0\0\0".to_vec();
        engine.extend(239u32.to_le_bytes());
        engine.extend([0; 12]);
        engine.extend([10, 3, 0, 26]);
        engine.resize(4096, 0);
        engine.extend(cubin);
        let content = scanned(&engine).content.unwrap();
        assert_eq!(content.kind, Some(FileKind::Engine));
        assert_eq!(content.text.as_deref(), Some("tensorrt 10.3.0.26\nserialization 239\n"));
        let rows = content.device_code.unwrap().rows;
        assert_eq!(
            rows.iter().map(|r| (r.place, r.image.kind)).collect::<Vec<_>>(),
            [(CodePlace::Cubin, CodeKind::Sass)]
        );
    }

    #[test]
    fn an_old_engine_tells_no_release_and_a_short_one_is_no_panic() {
        let mut old = b"ftrt\0\0\0\0".to_vec();
        old.extend(232u32.to_le_bytes());
        old.resize(64, 7);
        assert_eq!(scanned(&old).content.unwrap().text, None);
        assert_eq!(scanned(b"ftrt").content.unwrap().text, None);
    }
}
