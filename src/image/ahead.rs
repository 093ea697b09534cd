//! A reader -> the same bytes, read on a thread of its own: hashing, inflating and scanning of one layer overlap.
//!
//! Buffers of one size go back and forth between both threads, so memory is bounded and nothing is allocated twice. The end
//! and errors come in their place in the stream; who stops reading early ends the thread at its next buffer.

use super::read_full;
use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Large enough that waking the other thread costs little beside filling, small enough to stay in the processor's cache.
const BUFFER_BYTES: usize = 1 << 20;
/// Buffers on the way: both threads have one in hand and one waits.
const BUFFERS: usize = 3;

/// Memory pages: a read from a file into a buffer that starts within a page is several times slower on some processors.
const PAGE_BYTES: usize = 4096;

/// Memory that begins on a page.
pub(super) struct Pages {
    memory: Vec<u8>,
    origin: usize,
    bytes: usize,
}

impl Pages {
    pub(super) fn new(bytes: usize) -> Pages {
        let memory = vec![0u8; bytes + PAGE_BYTES];
        let origin = memory.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        Pages { memory, origin, bytes }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.get(self.origin..self.origin + self.bytes).unwrap_or_default()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.origin..self.origin + self.bytes).unwrap_or_default()
    }
}

/// A part of the stream, and how many bytes of the buffer it has.
type Part = io::Result<(Pages, usize)>;

/// The reading end.
pub struct Ahead {
    full: Receiver<Part>,
    empty: SyncSender<Pages>,
    buffer: Option<Pages>,
    at: usize,
    end: usize,
    ended: bool,
}

impl Ahead {
    /// Starts a thread called `what` that makes the reader (which need not be [`Send`]) and reads it to its end.
    pub fn start<R: Read>(
        what: &str,
        make: impl FnOnce() -> io::Result<R> + Send + 'static,
    ) -> io::Result<Ahead> {
        let (give_full, full) = sync_channel::<Part>(BUFFERS);
        let (empty, take_empty) = sync_channel::<Pages>(BUFFERS);
        for _ in 0..BUFFERS {
            let _reader_is_below = empty.send(Pages::new(BUFFER_BYTES));
        }
        std::thread::Builder::new().name(what.to_owned()).spawn(move || {
            let mut reader = match make() {
                Ok(reader) => reader,
                Err(error) => {
                    let _gone = give_full.send(Err(error));
                    return;
                }
            };
            while let Ok(mut buffer) = take_empty.recv() {
                let part = read_full(&mut reader, buffer.bytes_mut()).map(|count| (buffer, count));
                let last = !matches!(part, Ok((_, BUFFER_BYTES)));
                if give_full.send(part).is_err() || last {
                    return;
                }
            }
        })?;
        Ok(Ahead { full, empty, buffer: None, at: 0, end: 0, ended: false })
    }
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.end && !self.ended {
            if let Some(used) = self.buffer.take() {
                let _writer_has_ended = self.empty.send(used);
            }
            let part =
                self.full.recv().unwrap_or_else(|_| Err(io::Error::other("a reading thread was lost")));
            let (buffer, end) = part?;
            (self.buffer, self.at, self.end) = (Some(buffer), 0, end);
            self.ended = self.end < BUFFER_BYTES;
        }
        Ok(self.buffer.as_ref().and_then(|b| b.bytes().get(self.at..self.end)).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.at = self.at.saturating_add(count).min(self.end);
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut held = self.fill_buf()?;
        let got = held.read(buffer)?;
        self.consume(got);
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_their_end_arrive_whatever_the_length() {
        for length in [0usize, 1, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 5 * BUFFER_BYTES] {
            let bytes: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let sent = bytes.clone();
            let mut got = Vec::new();
            Ahead::start("test", move || Ok(io::Cursor::new(sent))).unwrap().read_to_end(&mut got).unwrap();
            assert!(got == bytes, "{length} bytes");
        }
    }

    /// Gives some bytes, then an error.
    struct Broken(usize);

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(self.0);
            self.0 -= count;
            if count == 0 { Err(io::Error::other("cut")) } else { Ok(count) }
        }
    }

    #[test]
    fn an_error_comes_through_and_stays_one() {
        let mut ahead = Ahead::start("test", || Ok(Broken(BUFFER_BYTES + 10))).unwrap();
        let error = io::copy(&mut ahead, &mut io::sink()).unwrap_err();
        assert_eq!(error.to_string(), "cut");
        assert!(
            ahead.read(&mut [0; 8]).is_err(),
            "whoever reads on after an error must not take it for the end"
        );
        assert!(
            Ahead::start("test", || Err::<Broken, _>(io::Error::other("no")))
                .unwrap()
                .read(&mut [0; 8])
                .is_err()
        );
    }

    #[test]
    fn the_thread_ends_when_nobody_reads_on() {
        let (tell, told) = std::sync::mpsc::channel();
        struct Endless(#[expect(dead_code, reason = "its drop tells")] std::sync::mpsc::Sender<()>);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                Ok(buffer.len())
            }
        }
        let mut ahead = Ahead::start("test", move || Ok(Endless(tell))).unwrap();
        ahead.read_exact(&mut [0; 100]).unwrap();
        drop(ahead);
        assert!(told.recv().is_err(), "the reader was dropped");
    }
}
