//! Stored layer bytes -> uncompressed tar bytes. The first bytes decide, not the media type.

use crate::limits;
use std::io::{self, BufRead, BufReader, Read};

/// Compressed bytes handed to a decoder at a time.
const INPUT_BYTES: usize = 256 << 10;

/// Wraps `reader` in the decoder that its first bytes ask for.
pub fn decompress<'a>(reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut input = BufReader::with_capacity(INPUT_BYTES, reader);
    let head = input.fill_buf()?;
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(Draining {
            inner: flate2::bufread::MultiGzDecoder::new(input),
            what: "gzip",
            end: false,
        }));
    }
    let zstd_frame = head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let skippable =
        head.get(1..4) == Some(&[0x2a, 0x4d, 0x18][..]) && head.first().is_some_and(|b| b & 0xf0 == 0x50);
    if zstd_frame || skippable {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
        decoder.window_log_max(limits::ZSTD_WINDOW_LOG_MAX)?;
        return Ok(Box::new(Draining { inner: decoder, what: "zstd", end: false }));
    }
    for (magic, name) in [(&b"BZh"[..], "bzip2"), (&[0xfd, b'7', b'z', b'X', b'Z'][..], "xz")] {
        if head.starts_with(magic) {
            let message = format!("compressed with {name}, which no container engine writes into layers");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
    }
    Ok(Box::new(input))
}

/// Says in an error which decoder met it.
struct Draining<R> {
    inner: R,
    what: &'static str,
    end: bool,
}

impl<R: Read> Read for Draining<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.end {
            return Ok(0);
        }
        let got = self.inner.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(io::ErrorKind::UnexpectedEof, format!("the {} stream is cut short", self.what))
            }
            // The reader below (network, digest check) speaks for itself.
            _ if error.get_ref().is_some_and(|e| e.is::<super::Error>()) => error,
            kind => io::Error::new(kind, format!("{} stream: {error}", self.what)),
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

    #[test]
    fn gzip_members_zstd_frames_and_plain_bytes_are_read() {
        let gzip = |text: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        let members = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(all(&members).unwrap(), b"one two");
        let zstd = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9][..], &zstd::encode_all(&b"zz"[..], 1).unwrap()]
            .concat();
        assert_eq!(all(&zstd).unwrap(), b"zz");
        assert_eq!(all(b"plain").unwrap(), b"plain");
        assert_eq!(all(b"").unwrap(), b"");
    }

    #[test]
    fn a_cut_stream_says_so() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&[7u8; 100_000]).unwrap();
        let gzip = encoder.finish().unwrap();
        assert!(all(&gzip[..gzip.len() / 2]).unwrap_err().to_string().contains("cut short"));
        assert!(all(b"BZh9aaaa").unwrap_err().to_string().contains("bzip2"));
    }
}
