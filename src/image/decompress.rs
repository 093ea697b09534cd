//! Stored layer bytes -> uncompressed tar bytes. The first bytes decide, not the media type.
//!
//! Gzip is taken apart here (RFC 1952: header, deflate stream, CRC-32 and length, any number of members) and inflated
//! by flate2. The CRC is not computed: the SHA-256 of the blob, or of what comes out, is checked in any case.

use crate::limits;
use flate2::{Decompress, FlushDecompress, Status};
use std::io::{self, BufRead, Read};

/// Compressed bytes handed to a decoder at a time.
const INPUT_BYTES: usize = 256 << 10;
/// Memory pages: a read into a buffer that starts within a page is several times slower on some processors.
const PAGE_BYTES: usize = 4096;
/// A gzip header with name, comment and extra field is never longer.
const GZIP_HEADER_BYTES_MAX: usize = 128 << 10;

/// Wraps `reader` in the decoder that its first bytes ask for.
pub fn decompress<'a>(reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut input = Input::new(reader);
    let head = input.fill_at_least(6)?;
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(Gzip {
            input,
            inflate: Decompress::new(false),
            state: State::Header,
            written: 0,
        }));
    }
    let zstd_frame = head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let skippable =
        head.get(1..4) == Some(&[0x2a, 0x4d, 0x18][..]) && head.first().is_some_and(|b| b & 0xf0 == 0x50);
    if zstd_frame || skippable {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
        decoder.window_log_max(limits::ZSTD_WINDOW_LOG_MAX)?;
        return Ok(Box::new(Named { inner: decoder, end: false }));
    }
    for (magic, name) in [(&b"BZh"[..], "bzip2"), (&[0xfd, b'7', b'z', b'X', b'Z'][..], "xz")] {
        if head.starts_with(magic) {
            return Err(damaged(format!(
                "compressed with {name}, which no container engine writes into layers"
            )));
        }
    }
    Ok(Box::new(input))
}

fn damaged(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// A buffer over a reader that begins on a memory page.
struct Input<R> {
    inner: R,
    memory: Vec<u8>,
    /// Where the page begins in `memory`.
    origin: usize,
    start: usize,
    end: usize,
}

impl<R: Read> Input<R> {
    fn new(inner: R) -> Input<R> {
        let memory = vec![0u8; INPUT_BYTES + PAGE_BYTES];
        let origin = memory.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        Input { inner, memory, origin, start: origin, end: origin }
    }

    /// What is at hand, read on until `count` bytes are or the input ends.
    fn fill_at_least(&mut self, count: usize) -> io::Result<&[u8]> {
        if self.end - self.start < count && self.start > self.origin {
            self.memory.copy_within(self.start..self.end, self.origin);
            self.end = self.origin + (self.end - self.start);
            self.start = self.origin;
        }
        while self.end - self.start < count {
            let limit = self.origin + INPUT_BYTES;
            let Some(free) = self.memory.get_mut(self.end..limit).filter(|f| !f.is_empty()) else { break };
            match self.inner.read(free) {
                Ok(0) => break,
                Ok(got) => self.end += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.memory.get(self.start..self.end).unwrap_or_default())
    }
}

impl<R: Read> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.start = self.origin;
            self.end = self.origin;
        }
        self.fill_at_least(1)
    }

    fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end && buffer.len() >= INPUT_BYTES {
            return self.inner.read(buffer);
        }
        let mut held = self.fill_buf()?;
        let got = held.read(buffer)?;
        self.consume(got);
        Ok(got)
    }
}

enum State {
    Header,
    Body,
    Trailer,
    End,
}

/// All members of a gzip stream, one after the other.
struct Gzip<R> {
    input: Input<R>,
    inflate: Decompress,
    state: State,
    /// Bytes of the current member, modulo 2^32 as its trailer counts them.
    written: u32,
}

impl<R: Read> Gzip<R> {
    /// The next member's header; the end where nothing, or only zero padding, follows.
    fn header(&mut self, first: bool) -> io::Result<State> {
        let mut wanted = 10;
        loop {
            let held = self.input.fill_at_least(wanted)?;
            if held.is_empty() && !first {
                return Ok(State::End);
            }
            if !first && held.iter().all(|&b| b == 0) {
                let count = held.len();
                self.input.consume(count);
                wanted = 1;
                continue;
            }
            if held.len() >= 2 && !held.starts_with(&[0x1f, 0x8b]) {
                return Err(damaged(
                    "gzip stream: bytes behind its end that are no further member".to_owned(),
                ));
            }
            if let Some(length) = header_length(held)? {
                self.input.consume(length);
                self.inflate.reset(false);
                self.written = 0;
                return Ok(State::Body);
            }
            if held.len() < wanted {
                return Err(cut_short("gzip"));
            }
            if held.len() >= GZIP_HEADER_BYTES_MAX {
                return Err(damaged("gzip stream: endless header".to_owned()));
            }
            wanted = held.len() + 1;
        }
    }

    fn body(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let held = self.input.fill_buf()?;
            let at_end = held.is_empty();
            let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(held, buffer, FlushDecompress::None)
                .map_err(|_| damaged("gzip stream: damaged deflate data".to_owned()))?;
            let taken = usize::try_from(self.inflate.total_in() - in_before).unwrap_or(0);
            let made = usize::try_from(self.inflate.total_out() - out_before).unwrap_or(0);
            self.input.consume(taken);
            self.written = self.written.wrapping_add(u32::try_from(made).unwrap_or(0));
            if status == Status::StreamEnd {
                self.state = State::Trailer;
                return Ok(made);
            }
            if made > 0 {
                return Ok(made);
            }
            if at_end {
                return Err(cut_short("gzip"));
            }
            if taken == 0 {
                return Err(damaged("gzip stream: damaged deflate data".to_owned()));
            }
        }
    }

    fn trailer(&mut self) -> io::Result<()> {
        let held = self.input.fill_at_least(8)?;
        let length = held.get(4..8).and_then(|l| l.try_into().ok()).map(u32::from_le_bytes);
        match length {
            None => Err(cut_short("gzip")),
            Some(length) if length != self.written => Err(damaged(format!(
                "gzip stream: {} bytes came out, its trailer says {length}",
                self.written
            ))),
            Some(_) => {
                self.input.consume(8);
                Ok(())
            }
        }
    }
}

impl<R: Read> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let mut first = self.inflate.total_in() == 0;
        loop {
            match self.state {
                State::Header => self.state = self.header(first)?,
                State::Body => match self.body(buffer)? {
                    0 => {}
                    made => return Ok(made),
                },
                State::Trailer => {
                    self.trailer()?;
                    self.state = State::Header;
                    first = false;
                }
                State::End => return Ok(0),
            }
        }
    }
}

fn cut_short(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the {what} stream is cut short"))
}

/// Length of a gzip header: ten bytes, then by flag an extra field (4), a name (8), a comment (16), a checksum (2).
/// `None` where more bytes are needed.
fn header_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(fixed) = bytes.get(..10) else { return Ok(None) };
    if fixed.get(2) != Some(&8) {
        return Err(damaged("gzip stream: unknown compression method".to_owned()));
    }
    let flags = fixed.get(3).copied().unwrap_or(0);
    let mut at = 10usize;
    if flags & 4 != 0 {
        let Some(length) = bytes.get(at..at + 2).and_then(|l| l.try_into().ok()).map(u16::from_le_bytes)
        else {
            return Ok(None);
        };
        at += 2 + usize::from(length);
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            let Some(end) = bytes.get(at..).and_then(|rest| memchr::memchr(0, rest)) else { return Ok(None) };
            at += end + 1;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    Ok((bytes.len() >= at).then_some(at))
}

/// Says in an error that it was zstd that met it.
struct Named<R> {
    inner: R,
    end: bool,
}

impl<R: Read> Read for Named<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.end {
            return Ok(0);
        }
        let got = self.inner.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => cut_short("zstd"),
            // The reader below (network, digest check) speaks for itself.
            _ if error.get_ref().and_then(|e| e.downcast_ref::<super::Error>()).is_some() => error,
            kind => io::Error::new(kind, format!("zstd stream: {error}")),
        })?;
        self.end = got == 0 && !buffer.is_empty();
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn all(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let builder =
            flate2::GzBuilder::new().filename("layer.tar").comment("made for a test").extra(vec![1, 2, 3]);
        let mut encoder = builder.write(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// Hands out one byte at a time.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let take = buffer.len().min(1);
            self.0.read(&mut buffer[..take])
        }
    }

    #[test]
    fn gzip_members_zstd_frames_and_plain_bytes_are_read() {
        let members = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
        assert_eq!(all(&members).unwrap(), b"one two");
        let mut dripped = Vec::new();
        decompress(Drip(&members)).unwrap().read_to_end(&mut dripped).unwrap();
        assert_eq!(dripped, b"one two");
        assert_eq!(all(&[members, vec![0; 3000]].concat()).unwrap(), b"one two", "zero padding is no member");
        let zstd = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9][..], &zstd::encode_all(&b"zz"[..], 1).unwrap()]
            .concat();
        assert_eq!(all(&zstd).unwrap(), b"zz");
        assert_eq!(all(b"plain").unwrap(), b"plain");
        assert_eq!(all(b"").unwrap(), b"");
    }

    #[test]
    fn large_content_comes_out_whole() {
        let content: Vec<u8> =
            (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        assert!(all(&gzip(&content)).unwrap() == content);
    }

    #[test]
    fn damage_says_what_it_is() {
        let whole = gzip(&vec![7u8; 100_000]);
        assert!(all(&whole[..whole.len() / 2]).unwrap_err().to_string().contains("cut short"));
        assert!(all(&whole[..whole.len() - 4]).unwrap_err().to_string().contains("cut short"));
        let mut wrong_length = whole.clone();
        *wrong_length.last_mut().unwrap() ^= 1;
        assert!(all(&wrong_length).unwrap_err().to_string().contains("trailer says"));
        assert!(
            all(&[whole, b"garbage".to_vec()].concat())
                .unwrap_err()
                .to_string()
                .contains("no further member")
        );
        assert!(all(b"BZh9aaaa").unwrap_err().to_string().contains("bzip2"));
    }
}
