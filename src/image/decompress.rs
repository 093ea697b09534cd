//! Stored layer bytes -> uncompressed tar bytes. The first bytes decide, not the media type.
//!
//! Gzip is taken apart here (RFC 1952: header, deflate stream, CRC-32 and length, any number of members) and inflated
//! by flate2. The CRC is not computed: the SHA-256 of the blob, or of what comes out, is checked in any case.

use super::ahead::{Ahead, Pages};
use super::read_full;
use crate::limits;
use flate2::{Decompress, FlushDecompress, Status};
use std::io::{self, BufRead, Read};

/// Compressed bytes handed to a decoder at a time.
const INPUT_BYTES: usize = 256 << 10;

/// Wraps `reader` in the decoder that its first bytes ask for.
pub fn decompress<'a>(reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut input = Input::new(reader);
    let format = Format::of(input.fill_buf()?)?;
    Ok(match format {
        Format::Gzip => Box::new(Gzip::new(input)),
        Format::Zstd => Box::new(zstd(input)?),
        Format::Plain => Box::new(input),
    })
}

/// The same on threads: one reads `reader` (which hashes, or waits for the network), one decodes, the caller takes what comes
/// out. `fast` allows the decoder that this program was built with for speed; where that gives up ([`gave_up`]) the
/// layer is to be read again without it.
pub fn overlapped(
    reader: impl Read + Send + 'static,
    #[cfg_attr(not(feature = "isal"), expect(unused_variables, reason = "there is one decoder"))] fast: bool,
) -> io::Result<Ahead> {
    let mut input = Ahead::start("read", move || Ok(reader))?;
    match Format::of(input.fill_buf()?)? {
        #[cfg(feature = "isal")]
        Format::Gzip if fast => Ahead::start("inflate", move || Ok(isal::Inflate::new(input))),
        Format::Gzip => Ahead::start("inflate", move || Ok(Gzip::new(input))),
        Format::Zstd => Ahead::start("inflate", move || zstd(input)),
        Format::Plain => Ok(input),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Gzip,
    Zstd,
    Plain,
}

impl Format {
    fn of(head: &[u8]) -> io::Result<Format> {
        if head.starts_with(&[0x1f, 0x8b]) {
            return Ok(Format::Gzip);
        }
        let skippable =
            head.get(1..4) == Some(&[0x2a, 0x4d, 0x18][..]) && head.first().is_some_and(|b| b & 0xf0 == 0x50);
        if skippable || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return Ok(Format::Zstd);
        }
        for (magic, name) in [(&b"BZh"[..], "bzip2"), (&[0xfd, b'7', b'z', b'X', b'Z'][..], "xz")] {
            if head.starts_with(magic) {
                return Err(damaged(format!(
                    "compressed with {name}, which no container engine writes into layers"
                )));
            }
        }
        Ok(Format::Plain)
    }
}

fn zstd<R: BufRead>(input: R) -> io::Result<Named<zstd::stream::read::Decoder<'static, R>>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
    decoder.window_log_max(limits::ZSTD_WINDOW_LOG_MAX)?;
    Ok(Named { inner: decoder, end: false })
}

/// Whether the fast decoder could not go on with bytes that the other one may read, or has better words for.
pub fn gave_up(error: &io::Error) -> bool {
    error.get_ref().and_then(|e| e.downcast_ref::<GaveUp>()).is_some()
}

#[derive(Debug, thiserror::Error)]
#[error("gzip stream: {0}")]
struct GaveUp(String);

/// ISA-L, in the released binaries: a third faster than zlib-rs, but strict about what stands between and behind members.
#[cfg(feature = "isal")]
mod isal {
    use super::GaveUp;
    use std::io::{self, Read};

    /// All members of a gzip stream.
    pub(super) struct Inflate<R: Read> {
        // In a box: the decoder keeps addresses of its own buffer from one read to the next.
        decoder: Box<isal::read::GzipDecoder<Source<R>>>,
        ended: bool,
    }

    struct Source<R> {
        inner: R,
        failed: bool,
    }

    impl<R: Read> Inflate<R> {
        pub(super) fn new(inner: R) -> Inflate<R> {
            let source = Source { inner, failed: false };
            Inflate { decoder: Box::new(isal::read::GzipDecoder::new(source)), ended: false }
        }
    }

    impl<R: Read> Read for Source<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let got = self.inner.read(buffer);
            self.failed = got.is_err();
            got
        }
    }

    impl<R: Read> Read for Inflate<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.ended {
                return Ok(0);
            }
            match self.decoder.read(buffer) {
                Ok(got) => {
                    // It fills the buffer unless the stream ends.
                    self.ended = got < buffer.len();
                    Ok(got)
                }
                Err(error) if self.decoder.get_ref().failed => Err(error),
                Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, GaveUp(error.to_string()))),
            }
        }
    }
}

fn damaged(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// A buffer over a reader.
struct Input<R> {
    inner: R,
    memory: Pages,
    start: usize,
    end: usize,
}

impl<R: Read> Input<R> {
    fn new(inner: R) -> Input<R> {
        Input { inner, memory: Pages::new(INPUT_BYTES), start: 0, end: 0 }
    }
}

impl<R: Read> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.end = read_full(&mut self.inner, self.memory.bytes_mut())?;
            self.start = 0;
        }
        Ok(self.memory.bytes().get(self.start..self.end).unwrap_or_default())
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
    input: R,
    inflate: Decompress,
    state: State,
    /// Bytes of the current member, modulo 2^32 as its trailer counts them.
    written: u32,
    first: bool,
}

impl<R: BufRead> Gzip<R> {
    fn new(input: R) -> Gzip<R> {
        Gzip { input, inflate: Decompress::new(false), state: State::Header, written: 0, first: true }
    }

    /// The next member's header; the end where nothing, or only zero padding, follows.
    fn header(&mut self) -> io::Result<State> {
        if !self.first {
            loop {
                let held = self.input.fill_buf()?;
                let zeros = held.iter().take_while(|&&b| b == 0).count();
                match (held.len(), zeros) {
                    (0, _) => return Ok(State::End),
                    (_, 0) => break,
                    (_, zeros) => self.input.consume(zeros),
                }
            }
        }
        let is_behind = !self.first;
        self.first = false;
        let mut fixed = [0u8; 10];
        let got = read_full(&mut self.input, &mut fixed)?;
        let start = fixed.get(..got.min(2)).unwrap_or_default();
        if is_behind && start != [0x1f, 0x8b] {
            return Err(damaged("gzip stream: bytes behind its end that are no further member".to_owned()));
        }
        if got < fixed.len() {
            return Err(cut_short("gzip"));
        }
        let [_, _, method, flags, ..] = fixed;
        if method != 8 {
            return Err(damaged("gzip stream: unknown compression method".to_owned()));
        }
        // An extra field (4), a name (8), a comment (16), a checksum (2).
        if flags & 4 != 0 {
            let [low, high] = self.two_bytes()?;
            let length = u64::from(u16::from_le_bytes([low, high]));
            if io::copy(&mut (&mut self.input).take(length), &mut io::sink())? < length {
                return Err(cut_short("gzip"));
            }
        }
        for flag in [8, 16] {
            if flags & flag != 0 {
                self.input.skip_until(0)?;
            }
        }
        if flags & 2 != 0 {
            self.two_bytes()?;
        }
        self.inflate.reset(false);
        self.written = 0;
        Ok(State::Body)
    }

    fn two_bytes(&mut self) -> io::Result<[u8; 2]> {
        let mut bytes = [0u8; 2];
        match read_full(&mut self.input, &mut bytes)? {
            2 => Ok(bytes),
            _ => Err(cut_short("gzip")),
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
        let mut trailer = [0u8; 8];
        if read_full(&mut self.input, &mut trailer)? < trailer.len() {
            return Err(cut_short("gzip"));
        }
        let [.., a, b, c, d] = trailer;
        let length = u32::from_le_bytes([a, b, c, d]);
        if length != self.written {
            return Err(damaged(format!(
                "gzip stream: {} bytes came out, its trailer says {length}",
                self.written
            )));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state {
                State::Header => self.state = self.header()?,
                State::Body => match self.body(buffer)? {
                    0 => {}
                    made => return Ok(made),
                },
                State::Trailer => {
                    self.trailer()?;
                    self.state = State::Header;
                }
                State::End => return Ok(0),
            }
        }
    }
}

fn cut_short(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the {what} stream is cut short"))
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

    /// On one thread and on several the same comes out, or the same complaint.
    fn all(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let read = |mut reader: Box<dyn Read>| {
            let mut out = Vec::new();
            reader.read_to_end(&mut out).map(|_| out)
        };
        let one = decompress(bytes).and_then(|r| read(Box::new(r)));
        let copy = io::Cursor::new(bytes.to_vec());
        let several = |fast| overlapped(copy.clone(), fast).and_then(|r| read(Box::new(r)));
        let patient = several(false);
        let texts = |r: &io::Result<Vec<u8>>| match r {
            Ok(bytes) => Ok(bytes.clone()),
            Err(error) => Err(error.to_string()),
        };
        assert!(texts(&one) == texts(&patient), "{:?}", texts(&patient).err());
        match several(true) {
            Err(error) if gave_up(&error) => {}
            fast => assert!(texts(&one) == texts(&fast), "{:?}", texts(&fast).err()),
        }
        one
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
    fn the_fast_decoder_reads_what_builders_write() {
        let members = [gzip(&vec![1; 700_000]), gzip(b"two")].concat();
        for bytes in [gzip(b"one"), gzip(&vec![7; 3_000_000]), members] {
            let mut out = Vec::new();
            overlapped(io::Cursor::new(bytes), true).unwrap().read_to_end(&mut out).unwrap();
            assert!(!out.is_empty());
        }
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
