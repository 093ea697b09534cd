//! Bytes of a CUDA fat binary -> the GPU images inside it. Reads headers only; payloads are skipped, never unpacked
//! (the first 64 bytes of an LZ4 cubin excepted, where its toolkit version stands).
//!
//! Container header, 16 bytes, little-endian (observed in 16,598 containers of 88 libraries, CUDA 11.7 to 13.5):
//!
//! offset  size  field
//!      0     4  magic 0xBA55ED50
//!      4     2  version, 1
//!      6     2  header size, 16
//!      8     8  bytes of all entries that follow, a multiple of 8
//!
//! Entry header, 64 bytes and a variable tail:
//!
//! offset  size  field
//!   0x00     2  kind: 1 PTX, 2 cubin, 8 NVVM / LTO-IR, 0x80 Tile IR, 0x100 group of concatenated images
//!   0x02     2  version, 0x0101
//!   0x04     4  header size with tail: 64 to 184 seen
//!   0x08     8  payload size on disk, a multiple of 8
//!   0x10     4  compressed size before padding, 0 where not compressed
//!   0x14     4  offset of the options record (groups: of the sub-headers), 0 = none
//!   0x18     4  u16 minor, u16 major: the PTX ISA of PTX, 1.7 / 1.8 the layout of cubins
//!   0x1c     4  SM number, decimal
//!   0x20     8  u32 offset, u32 length of an identifier
//!   0x28     8  flags: 0x2000 LZ4 block, 0x8000 zstd, 0x100000 suffix `a`, 0x200000 suffix `f`
//!   0x38     8  uncompressed size, 0 where not compressed

use crate::facts::{CodeImage, CodeKind};
use crate::limits;
use crate::version::{Arch, Suffix, Version};

pub(crate) const CONTAINER_MAGIC: [u8; 8] = [0x50, 0xed, 0x55, 0xba, 0x01, 0x00, 0x10, 0x00];
pub(crate) const CONTAINER_HEADER: usize = 16;
pub(crate) const ENTRY_HEADER: usize = 64;
/// Bytes of payload that are looked at to find the toolkit of a cubin.
pub(crate) const PAYLOAD_PEEK: usize = 512;

const FLAG_LZ4: u64 = 0x2000;
const FLAG_ZSTD: u64 = 0x8000;
const FLAG_ARCH_SPECIFIC: u64 = 0x10_0000;
const FLAG_FAMILY_SPECIFIC: u64 = 0x20_0000;
const KIND_GROUP: u16 = 0x100;
const EM_CUDA: u16 = 190;

/// Little-endian integers at checked offsets.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let end = at.checked_add(2)?;
    bytes.get(at..end)?.try_into().ok().map(u16::from_le_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    bytes.get(at..end)?.try_into().ok().map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let end = at.checked_add(8)?;
    bytes.get(at..end)?.try_into().ok().map(u64::from_le_bytes)
}

/// Bytes of entries announced by a container header that is plausible where `available` bytes of the file are left
/// from its first byte on. The same test decides whether a magic number found in data is a container at all.
pub(crate) fn container_size(bytes: &[u8], available: u64) -> Option<u64> {
    if !bytes.starts_with(&CONTAINER_MAGIC) {
        return None;
    }
    let size = u64_at(bytes, 8)?;
    let fits = size.checked_add(CONTAINER_HEADER as u64)? <= available;
    if !size.is_multiple_of(8) || size < ENTRY_HEADER as u64 || !fits {
        return None;
    }
    let first = EntryHeader::parse(bytes.get(CONTAINER_HEADER..)?, size)?;
    matches!(first.kind, 1 | 2 | 4 | 8 | 0x40 | 0x80 | KIND_GROUP).then_some(size)
}

/// The fixed part of an entry header, checked against the bytes left in its container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryHeader {
    pub(crate) kind: u16,
    pub(crate) header_size: usize,
    pub(crate) payload_size: u64,
    flags: u64,
}

impl EntryHeader {
    /// `None` where no entry can stand here.
    pub(crate) fn parse(bytes: &[u8], left: u64) -> Option<EntryHeader> {
        let header_size = u32_at(bytes, 0x04)? as usize;
        let payload_size = u64_at(bytes, 0x08)?;
        let whole = (header_size as u64).checked_add(payload_size)?;
        let plausible = u16_at(bytes, 0x02)? == 0x0101
            && (ENTRY_HEADER..=limits::FATBIN_HEADER_BYTES_MAX).contains(&header_size)
            && header_size.is_multiple_of(8)
            && whole <= left;
        plausible.then_some(EntryHeader {
            kind: u16_at(bytes, 0)?,
            header_size,
            payload_size,
            flags: u64_at(bytes, 0x28)?,
        })
    }

    /// Header and payload, bytes.
    pub(crate) fn size(&self) -> u64 {
        (self.header_size as u64).saturating_add(self.payload_size)
    }
}

/// One GPU image as the fatbin header tells it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Image {
    pub(crate) image: CodeImage,
    pub(crate) toolkit: Option<Version>,
    /// Stored size, bytes; of a concatenated group each image counts with its plain size.
    pub(crate) bytes: u64,
}

/// The images of one entry: one, or several of a concatenated group. `bytes` holds the whole header and as much of
/// the payload as is at hand. `Err` says in words what cannot be right.
pub(crate) fn images(bytes: &[u8], header: &EntryHeader) -> Result<Vec<Image>, String> {
    if header.kind == KIND_GROUP {
        return group(bytes, header);
    }
    let image = code_image(bytes, 0).ok_or("entry header is cut short or names an impossible target")?;
    let payload = bytes.get(header.header_size..).unwrap_or_default();
    let toolkit = (image.kind == CodeKind::Sass).then(|| cubin_toolkit(payload, header.flags)).flatten();
    Ok(vec![Image { image, toolkit, bytes: header.payload_size }])
}

/// The sub-headers of a concatenated group (CUDA 13 `--concat`): the same 64 bytes, but the word at 0x04 is the
/// offset of the image in the decompressed blob, so the length of a sub-header comes from its own tail.
fn group(bytes: &[u8], header: &EntryHeader) -> Result<Vec<Image>, String> {
    let broken = || "sub-headers of a concatenated group do not fit its header".to_owned();
    let head = bytes.get(..header.header_size).ok_or_else(broken)?;
    let count = u32_at(head, 0x40).ok_or_else(broken)?;
    let mut at = 0x48usize;
    let mut out = Vec::new();
    for _ in 0..count {
        let sub = head.get(at..).filter(|s| s.len() >= ENTRY_HEADER).ok_or_else(broken)?;
        let image = code_image(sub, 0).ok_or_else(broken)?;
        let stored = u64_at(sub, 0x08).ok_or_else(broken)?;
        out.push(Image { image, toolkit: None, bytes: stored });
        at = at.checked_add(sub_header_size(sub).ok_or_else(broken)?).ok_or_else(broken)?;
    }
    Ok(out)
}

fn sub_header_size(sub: &[u8]) -> Option<usize> {
    let round_up = |n: usize| n.checked_add(7).map(|n| n / 8 * 8);
    let mut end = ENTRY_HEADER;
    let (name_at, name_len) = (u32_at(sub, 0x20)? as usize, u32_at(sub, 0x24)? as usize);
    if name_len > 0 {
        end = name_at.checked_add(round_up(name_len.checked_add(1)?)?)?;
    }
    let options = u32_at(sub, 0x14)? as usize;
    if options != 0 {
        let (text_at, text_len) =
            (u32_at(sub, options)? as usize, u32_at(sub, options.checked_add(4)?)? as usize);
        end = text_at.checked_add(round_up(text_len.checked_add(1)?)?)?;
    }
    (end >= ENTRY_HEADER && end.is_multiple_of(8)).then_some(end)
}

/// Kind, target and PTX ISA from an entry header at `at`.
fn code_image(bytes: &[u8], at: usize) -> Option<CodeImage> {
    let kind = match u16_at(bytes, at)? {
        1 => CodeKind::Ptx,
        2 | 4 => CodeKind::Sass,
        8 => CodeKind::LtoIr,
        0x80 => CodeKind::TileIr,
        other => CodeKind::Other(other),
    };
    let flags = u64_at(bytes, at.checked_add(0x28)?)?;
    let suffix = if flags & FLAG_FAMILY_SPECIFIC != 0 {
        Suffix::FamilySpecific
    } else if flags & FLAG_ARCH_SPECIFIC != 0 {
        Suffix::ArchSpecific
    } else {
        Suffix::None
    };
    let number = u32_at(bytes, at.checked_add(0x1c)?).filter(|n| Arch::is_plausible(*n))?;
    let isa = (u16_at(bytes, at.checked_add(0x1a)?)?, u16_at(bytes, at.checked_add(0x18)?)?);
    let ptx_isa = (kind == CodeKind::Ptx).then_some(isa);
    Some(CodeImage { kind, arch: Arch { number, suffix }, ptx_isa })
}

/// Toolkit of the ptxas that made a cubin of the old layout (ABI version 7): `e_version` is major * 10 + minor.
fn cubin_toolkit(payload: &[u8], flags: u64) -> Option<Version> {
    let head = if flags & FLAG_LZ4 != 0 {
        lz4_prefix(payload, ENTRY_HEADER)?
    } else if flags & FLAG_ZSTD != 0 {
        return None;
    } else {
        payload.get(..ENTRY_HEADER)?.to_vec()
    };
    CubinHeader::parse(&head)?.toolkit
}

/// What the ELF header of a bare cubin says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CubinHeader {
    pub(crate) arch: Arch,
    pub(crate) toolkit: Option<Version>,
    /// From its first byte to the end of its section table, bytes; `None` where the header gives none.
    pub(crate) size: Option<u64>,
    /// ABI version 8, in which the header alone does not always tell the `a` suffix.
    pub(crate) new_layout: bool,
}

impl CubinHeader {
    /// `None` where the 64 bytes are no header of a CUDA ELF file.
    ///
    /// Layouts (measured on 60,045 cubins): ABI 7 has the SM in bits 0-7 of e_flags, `a` as 0x800 (set by mistake on
    /// some sm_5x/6x, hence ignored below 90) and the toolkit in e_version; ABI 8 has the SM in bits 8-15 and `a` as 8.
    pub(crate) fn parse(head: &[u8]) -> Option<CubinHeader> {
        let is_elf64_le = head.starts_with(b"\x7fELF\x02\x01\x01");
        if !is_elf64_le || u16_at(head, 0x12)? != EM_CUDA {
            return None;
        }
        let flags = u32_at(head, 0x30)?;
        let (number, specific, new_layout) = match (*head.get(7)?, *head.get(8)?) {
            (0x33, 7) => (flags & 0xff, flags & 0x800 != 0, false),
            (0x41, 8) => (flags >> 8 & 0xff, flags & 0x8 != 0, true),
            _ => return None,
        };
        let suffix = if specific && number >= 90 { Suffix::ArchSpecific } else { Suffix::None };
        let made_by = u32_at(head, 0x14)?;
        let toolkit = (!new_layout && (50..1000).contains(&made_by))
            .then(|| Version::of(u64::from(made_by / 10), u64::from(made_by % 10)));
        let table = u64::from(u16_at(head, 0x3a)?).saturating_mul(u64::from(u16_at(head, 0x3c)?));
        let size = u64_at(head, 0x28)?.checked_add(table).filter(|_| table > 0);
        Some(CubinHeader { arch: Arch { number, suffix }, toolkit, size, new_layout })
    }
}

/// Whether the `.nv.compat` attributes of a new-layout cubin say `a` (attribute 9, format 2, value 1).
/// The section stands uncompressed in a bare cubin; 13.x sets no header flag for it.
pub(crate) fn compat_says_arch_specific(cubin: &[u8]) -> bool {
    memchr::memmem::find(cubin, &[0x02, 0x09, 0x01, 0x00]).is_some()
}

/// The first `wanted` bytes of a raw LZ4 block.
///
/// Block: token (literal length high nibble, match length - 4 low nibble; 15 = more bytes follow), literals,
/// u16 offset back, and so on. Matches may overlap what they write.
fn lz4_prefix(block: &[u8], wanted: usize) -> Option<Vec<u8>> {
    let mut out: Vec<u8> = Vec::with_capacity(wanted);
    let mut at = 0usize;
    while out.len() < wanted {
        let token = *block.get(at)?;
        at = at.checked_add(1)?;
        let literals = lz4_length(block, &mut at, token >> 4)?;
        let end = at.checked_add(literals)?;
        let take = literals.min(wanted.saturating_sub(out.len()));
        out.extend_from_slice(block.get(at..at.checked_add(take)?)?);
        if out.len() >= wanted {
            break;
        }
        at = end;
        let back = usize::from(u16_at(block, at)?);
        at = at.checked_add(2)?;
        let length = lz4_length(block, &mut at, token & 15)?.checked_add(4)?;
        for _ in 0..length.min(wanted.saturating_sub(out.len())) {
            let from = out.len().checked_sub(back).filter(|_| back > 0)?;
            out.push(*out.get(from)?);
        }
    }
    Some(out)
}

fn lz4_length(block: &[u8], at: &mut usize, nibble: u8) -> Option<usize> {
    let mut length = usize::from(nibble);
    if nibble == 15 {
        loop {
            let more = *block.get(*at)?;
            *at = at.checked_add(1)?;
            length = length.checked_add(usize::from(more))?;
            if more != 255 {
                break;
            }
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(words: &[(usize, u64, usize)], len: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; len];
        for &(at, value, size) in words {
            bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        }
        bytes
    }

    /// cuBLAS 11.11.3.6, the sm_35 cubin of its container at 0x903200, with the start of its LZ4 payload.
    #[test]
    fn an_lz4_cubin_of_cublas_11_tells_target_and_toolkit() {
        let mut bytes = entry(
            &[
                (0, 2, 2),
                (2, 0x101, 2),
                (4, 64, 4),
                (8, 0x4a500, 8),
                (0x10, 0x4a4f9, 4),
                (0x18, 7, 2),
                (0x1a, 1, 2),
            ],
            64,
        );
        bytes[0x1c] = 35;
        bytes[0x28..0x2c].copy_from_slice(&[0x11, 0x20, 0, 0]);
        // Token a2: 10 literals; then a match; the rest of an ELF header follows as literals (token f0 + 39).
        let mut header = [0u8; 64];
        header[..10].copy_from_slice(&[0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0x33, 7, 0]);
        header[0x10] = 2;
        header[0x12] = 190;
        header[0x14] = 118;
        header[0x30..0x34].copy_from_slice(&[35, 5, 35, 0]);
        bytes.push(0xa2);
        bytes.extend(&header[..10]);
        bytes.extend([1, 0]); // six bytes copied from one byte back: the zero padding of e_ident
        bytes.extend([0xf0, 33]);
        bytes.extend(&header[16..64]);
        bytes.extend([0; 8]);
        let parsed = EntryHeader::parse(&bytes, u64::MAX).unwrap();
        let images = images(&bytes, &parsed).unwrap();
        assert_eq!(images[0].image.arch.to_string(), "35");
        assert_eq!(images[0].toolkit.as_ref().unwrap().as_str(), "11.8");
    }

    /// cuDNN 9.28 (CUDA 13): PTX for compute_120f, zstd, ISA 9.5.
    #[test]
    fn family_ptx_keeps_its_suffix_and_isa() {
        let mut bytes =
            entry(&[(0, 1, 2), (2, 0x101, 2), (4, 64, 4), (8, 8, 8), (0x18, 5, 2), (0x1a, 9, 2)], 72);
        bytes[0x1c] = 120;
        bytes[0x28..0x2c].copy_from_slice(&[0x11, 0x80, 0x20, 0]);
        let header = EntryHeader::parse(&bytes, 72).unwrap();
        let image = images(&bytes, &header).unwrap().remove(0).image;
        assert_eq!(
            (image.kind, image.arch.to_string(), image.ptx_isa),
            (CodeKind::Ptx, "120f".into(), Some((9, 5)))
        );
        assert!(EntryHeader::parse(&bytes, 71).is_none(), "a payload beyond the container is refused");
    }

    #[test]
    fn the_suffix_of_old_cubins_counts_from_sm_90_on() {
        let header = |flags: u32, osabi: u8, abi: u8| {
            let mut h = entry(&[(0x12, 190, 2), (0x14, 124, 4), (0x30, u64::from(flags), 4)], 64);
            h[..9].copy_from_slice(&[0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, osabi, abi]);
            CubinHeader::parse(&h).unwrap()
        };
        assert_eq!(header(0x005a_0d5a, 0x33, 7).arch.to_string(), "90a");
        assert_eq!(header(0x0032_0d32, 0x33, 7).arch.to_string(), "50");
        assert_eq!(header(0x0600_7802, 0x41, 8).arch.to_string(), "120");
        assert_eq!(header(0x0600_640a, 0x41, 8).arch.to_string(), "100a");
        assert_eq!(header(0x005a_055a, 0x33, 7).toolkit.unwrap().as_str(), "12.4");
    }
}
