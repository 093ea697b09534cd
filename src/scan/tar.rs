//! A stream of uncompressed tar bytes -> members with their content, one after the other, nothing unpacked.
//!
//! `tar::Header` reads the fields of a header block. The walk is ours: names and PAX records have bounds, sparse
//! content is read at its real offsets, sizes on links are ignored, and skipping copies nothing.

use crate::image::read_full;
use crate::limits;
use std::collections::VecDeque;
use std::io::{self, Read};
use tar::{EntryType, Header};

const BLOCK: usize = 512;
/// A GNU long name or a PAX header, bytes.
const LONG_NAME_BYTES_MAX: u64 = 64 << 10;
const PAX_BYTES_MAX: u64 = 1 << 20;
/// Data regions of one sparse file.
const SPARSE_REGIONS_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberKind {
    File,
    Dir,
    Symlink,
    Hardlink,
    /// Character device 0:0, the whiteout of an overlay file system that some exporters leave.
    OverlayWhiteout,
    Other,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: MemberKind,
    /// Length of the content as a program would read it, bytes.
    pub(crate) size: u64,
    /// `trusted.overlay.opaque=y`.
    pub(crate) overlay_opaque: bool,
}

/// Walks one archive.
pub(crate) struct TarReader<R> {
    inner: R,
    /// Bytes read from `inner` so far.
    position: u64,
    /// Stored bytes of the current member that were not read yet, and the padding behind them.
    left: u64,
    padding: u64,
    /// What the current member reads as: stored bytes and holes.
    regions: VecDeque<Region>,
}

#[derive(Clone, Copy, Debug)]
enum Region {
    Data(u64),
    Hole(u64),
}

/// Records that describe the next member.
#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    link_path: Option<Vec<u8>>,
    size: Option<u64>,
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
    /// (offset, length) from versions 0.0 and 0.1 of the PAX form.
    sparse_map: Vec<(u64, u64)>,
    sparse_offset: Option<u64>,
    sparse_map_in_data: bool,
    overlay_opaque: bool,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> TarReader<R> {
        TarReader { inner, position: 0, left: 0, padding: 0, regions: VecDeque::new() }
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// Bytes of the archive read so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    fn damaged(&self, what: &str) -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{what} at byte {} of the uncompressed tar", self.position),
        )
    }

    /// The next member, or `None` at the end marker or the end of the bytes.
    pub(crate) fn next(&mut self) -> io::Result<Option<Member>> {
        let mut extensions = Extensions::default();
        loop {
            self.finish_member()?;
            let Some(header) = self.read_header()? else { return Ok(None) };
            let size = header.entry_size().map_err(|_| self.damaged("tar header with an unreadable size"))?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.long_name = Some(self.read_name(size)?),
                EntryType::GNULongLink => extensions.long_link = Some(self.read_name(size)?),
                EntryType::XHeader => self.read_pax(size, &mut extensions)?,
                EntryType::XGlobalHeader => self.set_data(size),
                _ => return self.member(&header, size, extensions).map(Some),
            }
        }
    }

    fn finish_member(&mut self) -> io::Result<()> {
        self.regions.clear();
        let skip = self.left.saturating_add(self.padding);
        self.left = 0;
        self.padding = 0;
        let skipped = io::copy(&mut (&mut self.inner).take(skip), &mut io::sink())?;
        self.position = self.position.saturating_add(skipped);
        if skipped < skip {
            return Err(self.damaged("the archive ends inside a member,"));
        }
        Ok(())
    }

    fn read_header(&mut self) -> io::Result<Option<Header>> {
        let mut block = [0u8; BLOCK];
        let got = read_full(&mut self.inner, &mut block)?;
        self.position = self.position.saturating_add(got as u64);
        if got == 0 || block.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        if got < BLOCK {
            return Err(self.damaged("the archive ends inside a tar header,"));
        }
        let header = Header::from_byte_slice(&block).clone();
        let field = block.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { b' ' } else { b });
        let unsigned: u32 = field.clone().map(u32::from).sum();
        let signed: i64 = field.map(|b| i64::from(i8::from_ne_bytes([b]))).sum();
        let stated =
            header.cksum().map_err(|_| self.damaged("this is no tar archive: unreadable header checksum"))?;
        if stated != unsigned && i64::from(stated) != signed {
            return Err(self.damaged("tar header checksum does not match"));
        }
        Ok(Some(header))
    }

    fn set_data(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64).saturating_sub(size);
    }

    fn read_stored(&mut self, size: u64, max: u64, what: &str) -> io::Result<Vec<u8>> {
        if size > max {
            return Err(self.damaged(&format!("{what} of {size} bytes (at most {max} are read)")));
        }
        self.set_data(size);
        let mut bytes = vec![0u8; usize::try_from(size).unwrap_or(0)];
        let got = read_full(&mut self.inner, &mut bytes)?;
        self.position = self.position.saturating_add(got as u64);
        if got < bytes.len() {
            return Err(self.damaged(&format!("the archive ends inside a {what},")));
        }
        self.left = 0;
        Ok(bytes)
    }

    fn read_name(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut name = self.read_stored(size, LONG_NAME_BYTES_MAX, "GNU long name")?;
        let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn read_pax(&mut self, size: u64, out: &mut Extensions) -> io::Result<()> {
        let bytes = self.read_stored(size, PAX_BYTES_MAX, "PAX header")?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let record = pax_record(rest).ok_or_else(|| self.damaged("malformed PAX record"))?;
            rest = rest.get(record.len..).unwrap_or_default();
            if out.take(record.key, record.value).is_none() {
                return Err(self.damaged("PAX record with an unreadable number"));
            }
        }
        Ok(())
    }

    fn member(&mut self, header: &Header, size: u64, extensions: Extensions) -> io::Result<Member> {
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => MemberKind::File,
            EntryType::Directory => MemberKind::Dir,
            EntryType::Symlink => MemberKind::Symlink,
            EntryType::Link => MemberKind::Hardlink,
            EntryType::Char if device(header) == (0, 0) => MemberKind::OverlayWhiteout,
            _ => MemberKind::Other,
        };
        let name = extensions.sparse_name.or(extensions.path).or(extensions.long_name);
        let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extensions.link_path.or(extensions.long_link);
        let link =
            link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned)).unwrap_or_default();
        let stored = match kind {
            MemberKind::Dir | MemberKind::Symlink | MemberKind::Hardlink | MemberKind::OverlayWhiteout => 0,
            MemberKind::File | MemberKind::Other => extensions.size.unwrap_or(size),
        };
        let kind = if kind == MemberKind::File && name.ends_with(b"/") { MemberKind::Dir } else { kind };
        let mut real_size = stored;
        let mut map = extensions.sparse_map;
        if header.entry_type() == EntryType::GNUSparse {
            map = self.gnu_sparse_map(header)?;
            real_size = header.as_gnu().and_then(|g| g.real_size().ok()).unwrap_or(stored);
        }
        self.set_data(stored);
        if extensions.sparse_map_in_data {
            map = self.sparse_map_from_data()?;
        }
        if let Some(size) = extensions.sparse_size {
            real_size = size;
        }
        if real_size != stored && real_size > limits::SPARSE_BYTES_MAX {
            return Err(self.damaged(&format!("a sparse file of {real_size} bytes, more than is examined,")));
        }
        self.regions = match map.is_empty() && real_size == stored {
            true => VecDeque::from([Region::Data(stored)]),
            false => self.sparse_regions(&map, real_size)?,
        };
        Ok(Member { name, link, kind, size: real_size, overlay_opaque: extensions.overlay_opaque })
    }

    /// Old GNU form: four regions in the header, 21 in each extension block, (offset, length) in 12 octal digits each.
    fn gnu_sparse_map(&mut self, header: &Header) -> io::Result<Vec<(u64, u64)>> {
        let bytes = header.as_bytes();
        let mut map = Vec::new();
        let mut more = bytes.get(482) == Some(&1);
        sparse_numbers(bytes.get(386..482).unwrap_or_default(), &mut map);
        while more {
            let mut block = [0u8; BLOCK];
            let got = read_full(&mut self.inner, &mut block)?;
            self.position = self.position.saturating_add(got as u64);
            if got < BLOCK || map.len() > SPARSE_REGIONS_MAX {
                return Err(self.damaged("damaged sparse file header"));
            }
            sparse_numbers(block.get(..504).unwrap_or_default(), &mut map);
            more = block.get(504) == Some(&1);
        }
        Ok(map)
    }

    /// PAX form 1.0: the content begins with decimal lines (count, then offset and length of each region), padded to
    /// a whole block.
    fn sparse_map_from_data(&mut self) -> io::Result<Vec<(u64, u64)>> {
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted = 1usize;
        let mut digits = Vec::new();
        while numbers.len() < wanted {
            let mut block = [0u8; BLOCK];
            let full = self.left >= BLOCK as u64 && read_full(&mut self.inner, &mut block)? == BLOCK;
            if !full || wanted > SPARSE_REGIONS_MAX {
                return Err(self.damaged("damaged sparse map"));
            }
            self.left = self.left.saturating_sub(BLOCK as u64);
            self.position = self.position.saturating_add(BLOCK as u64);
            for byte in block {
                if byte != b'\n' {
                    if digits.len() > 20 {
                        return Err(self.damaged("damaged sparse map"));
                    }
                    digits.push(byte);
                    continue;
                }
                let number = std::str::from_utf8(&digits).ok().and_then(|d| d.parse::<u64>().ok());
                numbers.push(number.ok_or_else(|| self.damaged("damaged sparse map"))?);
                digits.clear();
                if let [count] = numbers.as_slice() {
                    wanted =
                        usize::try_from(*count).unwrap_or(usize::MAX).saturating_mul(2).saturating_add(1);
                }
                if numbers.len() == wanted {
                    break;
                }
            }
        }
        Ok(numbers
            .get(1..)
            .unwrap_or_default()
            .chunks_exact(2)
            .filter_map(|p| Some((*p.first()?, *p.get(1)?)))
            .collect())
    }

    fn sparse_regions(&self, map: &[(u64, u64)], real_size: u64) -> io::Result<VecDeque<Region>> {
        let mut regions = VecDeque::new();
        let mut at = 0u64;
        let mut stored = 0u64;
        for &(offset, length) in map.iter().filter(|(_, length)| *length > 0) {
            let end = offset.checked_add(length).filter(|&e| offset >= at && e <= real_size);
            let end = end.ok_or_else(|| self.damaged("sparse regions out of order"))?;
            regions.push_back(Region::Hole(offset.saturating_sub(at)));
            regions.push_back(Region::Data(length));
            stored = stored.saturating_add(length);
            at = end;
        }
        regions.push_back(Region::Hole(real_size.saturating_sub(at)));
        if stored > self.left {
            return Err(self.damaged("sparse regions hold more than the member"));
        }
        Ok(regions)
    }

    /// Reads what is behind the end marker, so that the digest covers the whole blob. At most `max` bytes.
    pub(crate) fn drain(&mut self, max: u64) -> io::Result<()> {
        let drained = io::copy(&mut (&mut self.inner).take(max.saturating_add(1)), &mut io::sink())?;
        self.position = self.position.saturating_add(drained);
        if drained > max {
            return Err(self.damaged("the layer is larger than is examined,"));
        }
        Ok(())
    }
}

/// The content of the current member.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(region) = self.regions.front_mut() else { return Ok(0) };
            let (Region::Data(length) | Region::Hole(length)) = region;
            if *length == 0 {
                self.regions.pop_front();
                continue;
            }
            let take = buffer.len().min(usize::try_from(*length).unwrap_or(usize::MAX));
            let Some(part) = buffer.get_mut(..take) else { return Ok(0) };
            let got = match region {
                Region::Hole(_) => {
                    part.fill(0);
                    take
                }
                Region::Data(_) => self.inner.read(part)?,
            };
            if got == 0 {
                return if take == 0 {
                    Ok(0)
                } else {
                    Err(self.damaged("the archive ends inside a member,"))
                };
            }
            match region {
                Region::Hole(left) => *left = left.saturating_sub(got as u64),
                Region::Data(left) => {
                    *left = left.saturating_sub(got as u64);
                    self.left = self.left.saturating_sub(got as u64);
                    self.position = self.position.saturating_add(got as u64);
                }
            }
            return Ok(got);
        }
    }
}

impl Extensions {
    /// `None` where a number cannot be read.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let number = || std::str::from_utf8(value).ok()?.trim().parse::<u64>().ok();
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link_path = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse_size = Some(number()?),
            b"GNU.sparse.major" => self.sparse_map_in_data = number()? == 1,
            b"GNU.sparse.offset" => self.sparse_offset = Some(number()?),
            b"GNU.sparse.numbytes" if self.sparse_map.len() < SPARSE_REGIONS_MAX => {
                self.sparse_map.push((self.sparse_offset?, number()?));
            }
            b"GNU.sparse.map" => {
                let numbers: Option<Vec<u64>> =
                    std::str::from_utf8(value).ok()?.split(',').map(|n| n.parse().ok()).collect();
                self.sparse_map =
                    numbers?.chunks_exact(2).filter_map(|p| Some((*p.first()?, *p.get(1)?))).collect();
            }
            b"SCHILY.xattr.trusted.overlay.opaque" => self.overlay_opaque = value == b"y",
            _ => {}
        }
        Some(())
    }
}

struct PaxRecord<'a> {
    len: usize,
    key: &'a [u8],
    value: &'a [u8],
}

/// `LEN KEY=VALUE\n`, where LEN counts the whole record.
fn pax_record(bytes: &[u8]) -> Option<PaxRecord<'_>> {
    let space = bytes.iter().take(20).position(|&b| b == b' ')?;
    let len: usize = std::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
    let record = bytes.get(space.checked_add(1)?..len.checked_sub(1)?)?;
    (bytes.get(len.checked_sub(1)?)? == &b'\n').then_some(())?;
    let equals = record.iter().position(|&b| b == b'=')?;
    Some(PaxRecord { len, key: record.get(..equals)?, value: record.get(equals.checked_add(1)?..)? })
}

fn sparse_numbers(bytes: &[u8], map: &mut Vec<(u64, u64)>) {
    let octal = |field: &[u8]| -> Option<u64> {
        let text = std::str::from_utf8(field).ok()?.trim_matches(|c: char| c == '\0' || c == ' ');
        u64::from_str_radix(text, 8).ok()
    };
    for pair in bytes.chunks_exact(24) {
        let (offset, length) = pair.split_at(12);
        if let (Some(offset), Some(length)) = (octal(offset), octal(length)) {
            map.push((offset, length));
        }
    }
}

fn device(header: &Header) -> (u32, u32) {
    let number = |r: io::Result<Option<u32>>| r.ok().flatten().unwrap_or(u32::MAX);
    (number(header.device_major()), number(header.device_minor()))
}

/// Reads to the end, at most `max` bytes; `None` where there are more.
pub(crate) fn read_bounded(reader: &mut (impl Read + ?Sized), max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0u8; 64 << 10];
    loop {
        let got = read_full(reader, &mut chunk)?;
        bytes.extend_from_slice(chunk.get(..got).unwrap_or_default());
        if bytes.len() as u64 > max {
            return Ok(None);
        }
        if got < chunk.len() {
            return Ok(Some(bytes));
        }
    }
}

/// Whether a name is within the bound for paths.
pub(crate) fn name_fits(name: &[u8]) -> bool {
    name.len() <= limits::PATH_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, kind: EntryType, size: u64) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn padded(content: &[u8]) -> Vec<u8> {
        let mut out = content.to_vec();
        out.resize(content.len().next_multiple_of(BLOCK), 0);
        out
    }

    fn members(bytes: &[u8]) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut reader = TarReader::new(bytes);
        let mut out = Vec::new();
        while let Some(member) = reader.next()? {
            let mut content = Vec::new();
            reader.read_to_end(&mut content)?;
            out.push((String::from_utf8_lossy(&member.name).into_owned(), content));
        }
        Ok(out)
    }

    #[test]
    fn pax_path_and_size_win_over_the_header() {
        let pax = b"21 path=long/name.so\n10 size=3\n";
        let mut bytes = header("x", EntryType::XHeader, pax.len() as u64);
        bytes.extend(padded(pax));
        bytes.extend(header("short", EntryType::Regular, 0));
        bytes.extend(padded(b"abc"));
        bytes.extend(header("next", EntryType::Regular, 1));
        bytes.extend(padded(b"z"));
        let got = members(&bytes).unwrap();
        assert_eq!(got, [("long/name.so".into(), b"abc".to_vec()), ("next".into(), b"z".to_vec())]);
    }

    #[test]
    fn sparse_content_is_read_at_its_real_offsets() {
        let map = b"2\n2\n3\n8\n2\n";
        let pax = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n27 GNU.sparse.name=real.so\n26 GNU.sparse.realsize=12\n";
        let mut bytes = header("x", EntryType::XHeader, pax.len() as u64);
        bytes.extend(padded(pax));
        bytes.extend(header("GNUSparseFile.0/real.so", EntryType::Regular, 512 + 5));
        bytes.extend(padded(map));
        bytes.extend(padded(b"abcde"));
        let got = members(&bytes).unwrap();
        assert_eq!(got, [("real.so".into(), b"\0\0abc\0\0\0de\0\0".to_vec())]);
    }

    #[test]
    fn old_gnu_sparse_files_are_read_too() {
        let mut block = header("s.so", EntryType::GNUSparse, 4);
        block[386..398].copy_from_slice(b"00000000003\0");
        block[398..410].copy_from_slice(b"00000000004\0");
        block[483..495].copy_from_slice(b"00000000011\0");
        let mut fixed = Header::from_byte_slice(&block).clone();
        fixed.set_cksum();
        let mut bytes = fixed.as_bytes().to_vec();
        bytes.extend(padded(b"wxyz"));
        assert_eq!(members(&bytes).unwrap(), [("s.so".into(), b"\0\0\0wxyz\0\0".to_vec())]);
    }

    #[test]
    fn a_size_on_a_link_is_no_content() {
        let mut bytes = header("link", EntryType::Link, 5000);
        bytes.extend(header("file", EntryType::Regular, 1));
        bytes.extend(padded(b"q"));
        let got = members(&bytes).unwrap();
        assert_eq!(got.last().unwrap(), &("file".into(), b"q".to_vec()));
    }

    #[test]
    fn damage_says_where() {
        let mut bytes = header("file", EntryType::Regular, 600);
        bytes.extend(vec![1u8; 100]);
        assert!(members(&bytes).unwrap_err().to_string().contains("ends inside a member"));
        let mut bad = header("file", EntryType::Regular, 0);
        bad[0] = b'X';
        assert!(members(&bad).unwrap_err().to_string().contains("checksum"));
        let huge = header("././@LongLink", EntryType::GNULongName, 1 << 40);
        assert!(members(&huge).unwrap_err().to_string().contains("GNU long name"));
        assert!(members(b"not a tar").unwrap_err().to_string().contains("ends inside a tar header"));
    }
}
