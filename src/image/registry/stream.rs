//! A descriptor -> one stream of the blob's bytes, each exactly once, across cut connections and expired
//! tokens.
//!
//! A task fetches and hands chunks through a short channel to a blocking reader. After a cut it asks for the
//! rest with `Range`; where the server sends everything, or the wrong part, what is known is read again and
//! dropped.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING};
use reqwest::{Response, StatusCode, Url, Version};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::Pool;
use super::patience::Patience;
use super::refusal::Wanted;
use super::session::{Ask, Session};
use crate::image::{Descriptor, Error};
use crate::names::Digest;

/// Chunks of up to some 400 kB that wait for a reader: enough that neither side waits for every single one.
const CHUNKS_MAX: usize = 4;
/// Other places named for one layer.
const URLS_MAX: usize = 8;

/// What the task says to the reader. A channel that closes without `End` is a transfer that broke.
enum Part {
    Chunk(Bytes),
    End,
    Failed(Error),
}

/// Where a blob comes from.
enum Source {
    Registry,
    /// A place outside the registry, for layers that may not be distributed by it.
    Elsewhere(Url),
}

/// A blob on its way.
struct Transfer {
    session: Arc<Session>,
    source: Source,
    descriptor: Descriptor,
    /// Bytes handed over so far.
    offset: u64,
    patience: Patience,
    /// Not any more once the server has answered a range with something else.
    may_ask_range: bool,
}

/// An answer with (a part of) the blob.
struct Body {
    response: Response,
    /// Bytes at its start that were handed over before.
    skip: u64,
    /// Whether a body that ends without error is known to be whole.
    ends_clearly: bool,
}

/// A transfer whose first answer is here.
pub(super) struct Opened {
    transfer: Transfer,
    body: Body,
}

/// Asks for the blob: at the registry first, then where else a non-distributable layer may be.
pub(super) async fn open(session: Arc<Session>, descriptor: &Descriptor) -> Result<Opened, Error> {
    let transfer = |source| Transfer {
        session: Arc::clone(&session),
        source,
        descriptor: descriptor.clone(),
        offset: 0,
        patience: Patience::default(),
        may_ask_range: true,
    };
    let mut first = transfer(Source::Registry);
    let refused = match first.open().await {
        Ok(body) => return Ok(Opened { transfer: first, body }),
        Err(error) => error,
    };
    let elsewhere = if session.is_confined() { Vec::new() } else { other_places(descriptor) };
    for url in elsewhere {
        let mut next = transfer(Source::Elsewhere(url));
        if let Ok(body) = next.open().await {
            return Ok(Opened { transfer: next, body });
        }
    }
    Err(refused)
}

/// A part of a blob; after a cut the rest is asked for.
pub(super) async fn range(
    session: &Session,
    digest: &Digest,
    start: u64,
    len: u64,
) -> Result<Vec<u8>, Error> {
    let patience = &mut Patience::default();
    let mut bytes = Vec::new();
    loop {
        let offset = start.saturating_add(bytes.len() as u64);
        let end = Some(start.saturating_add(len));
        let ask = Ask { wanted: Wanted::Blob(digest), accept: None, offset, end };
        let mut response = session.get(&ask, patience).await?;
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
        if !is_part || range_start(response.headers()) != Some(offset) {
            return Err(Error::look(format!(
                "`{}` sends no part of a blob, only the whole",
                session.reference().repository_name()
            )));
        }
        let lost = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    session.count(chunk.len());
                    bytes.extend_from_slice(&chunk);
                    patience.progress();
                }
                Ok(None) => return Ok(bytes),
                Err(error) => break error,
            }
            if bytes.len() as u64 > len {
                return Err(Error::look(format!("blob {digest}: more bytes came than were asked for")));
            }
        };
        if bytes.len() as u64 == len {
            return Ok(bytes);
        }
        session.wait_after(&lost, session.host(), patience).await?;
    }
}

/// URLs of the descriptor that may be asked. Only layers of the foreign kinds: a manifest must not make this
/// program fetch whatever it likes instead of a layer that every registry has.
fn other_places(descriptor: &Descriptor) -> Vec<Url> {
    let is_foreign =
        descriptor.media_type.contains("nondistributable") || descriptor.media_type.contains("foreign");
    let urls = if is_foreign { descriptor.urls.as_slice() } else { &[] };
    let parsed = urls.iter().take(URLS_MAX).filter_map(|url| Url::parse(url).ok());
    let mut usable: Vec<Url> = parsed.filter(|url| matches!(url.scheme(), "http" | "https")).collect();
    for url in &mut usable {
        // `http://user:password@…` would become a login; there is none for these places.
        if url.set_username("").and(url.set_password(None)).is_err() {
            return Vec::new();
        }
    }
    usable
}

impl Opened {
    /// Starts the transfer and gives the end it is read from.
    pub(super) fn start(self, pool: Arc<Pool>) -> BlobReader {
        let (sender, parts) = mpsc::channel(CHUNKS_MAX);
        let Opened { mut transfer, body } = self;
        let session = Arc::clone(&transfer.session);
        let task = pool.runtime().spawn(async move {
            let last = match session.in_time(transfer.run(body, &sender)).await {
                Ok(()) => Part::End,
                Err(error) => Part::Failed(error),
            };
            // Nobody there to read it: then nobody misses it.
            let _unread = sender.send(last).await;
        });
        BlobReader {
            parts,
            current: Bytes::new(),
            state: State::Flowing,
            task: task.abort_handle(),
            _pool: pool,
        }
    }
}

impl Transfer {
    /// Asks for what is missing.
    async fn open(&mut self) -> Result<Body, Error> {
        loop {
            let offset = if self.may_ask_range { self.offset } else { 0 };
            let wanted = Wanted::Blob(&self.descriptor.digest);
            let answer = match &self.source {
                Source::Registry => {
                    let ask = Ask { wanted, accept: None, offset, end: None };
                    self.session.get(&ask, &mut self.patience).await
                }
                Source::Elsewhere(url) => {
                    self.session.get_elsewhere(url, wanted, offset, &mut self.patience).await
                }
            };
            let response = answer?;
            if offset > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                // The whole may still be had, and shows whether the blob is too short.
                self.may_ask_range = false;
                continue;
            }
            if is_web_page(response.headers()) {
                let repository = self.session.reference().repository_name();
                return Err(web_page(&format!("blob {} of `{repository}`", self.descriptor.digest)));
            }
            let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
            if is_part && (offset == 0 || range_start(response.headers()) != Some(offset)) {
                if offset == 0 {
                    return Err(Error::look(format!("blob {} is sent in parts", self.descriptor.digest)));
                }
                self.may_ask_range = false;
                continue;
            }
            let skip = if is_part { 0 } else { self.offset };
            let ends_clearly = response.headers().contains_key(CONTENT_LENGTH)
                || response.headers().contains_key(TRANSFER_ENCODING)
                || response.version() >= Version::HTTP_2;
            return Ok(Body { response, skip, ends_clearly });
        }
    }

    /// Hands everything over; ends early where nobody reads any more.
    async fn run(&mut self, mut body: Body, sender: &mpsc::Sender<Part>) -> Result<(), Error> {
        // One byte more than promised, so that the reader can tell a blob that is too long from a whole one.
        let end = self.descriptor.size.saturating_add(1);
        while self.offset < end {
            let lost = match body.response.chunk().await {
                Ok(Some(mut chunk)) => {
                    self.session.count(chunk.len());
                    let known = usize::try_from(body.skip).unwrap_or(usize::MAX).min(chunk.len());
                    body.skip -= known as u64;
                    let mut fresh = chunk.split_off(known);
                    fresh.truncate(usize::try_from(end - self.offset).unwrap_or(usize::MAX));
                    if fresh.is_empty() {
                        continue;
                    }
                    self.offset += fresh.len() as u64;
                    self.patience.progress();
                    if sender.send(Part::Chunk(fresh)).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                Ok(None) if body.ends_clearly || self.offset >= self.descriptor.size => return Ok(()),
                Ok(None) => None,
                Err(error) => Some(error),
            };
            match lost {
                // All of it was here before the connection broke.
                Some(_) if self.offset == self.descriptor.size => return Ok(()),
                Some(error) => {
                    let host = self.session.host();
                    self.session
                        .wait_after(&error, host, &mut self.patience)
                        .await
                        .map_err(|e| self.cut(e))?;
                }
                None => self.wait_after_silence().await?,
            }
            body = self.open().await?;
        }
        Ok(())
    }

    /// The connection was closed before the blob was whole, and nothing says why.
    async fn wait_after_silence(&mut self) -> Result<(), Error> {
        if self.patience.wait(None, crate::limits::REQUEST_ATTEMPTS_MAX).await {
            return Ok(());
        }
        Err(self.cut(Error::look(format!("`{}` closes the connection", self.session.host()))))
    }

    /// Says how far the transfer came.
    fn cut(&self, mut error: Error) -> Error {
        let Descriptor { digest, size, .. } = &self.descriptor;
        error.message =
            format!("blob {digest} ends after {} of {size} bytes: {}", self.offset, error.message);
        error
    }
}

/// Where a partial answer begins: `bytes 100-199/200`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim();
    let (start, _) = text.strip_prefix("bytes")?.trim_start().split_once('-')?;
    start.parse().ok()
}

/// Whether the answer is a page for people: the login of a network or a proxy, most often.
pub(super) fn is_web_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("text/html")
}

pub(super) fn web_page(shown: &str) -> Error {
    Error::look(format!("{shown} came as a web page"))
        .hint("this is no registry, or a proxy or a login page of the network answers in its place")
}

#[derive(Debug)]
enum State {
    Flowing,
    Ended,
    Failed(Error),
}

/// The blocking end of a transfer. Dropping it ends the transfer.
pub(super) struct BlobReader {
    parts: mpsc::Receiver<Part>,
    current: Bytes,
    state: State,
    task: AbortHandle,
    /// Keeps the task's threads alive after the [`super::Registry`] is gone.
    _pool: Arc<Pool>,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.current.is_empty() {
            match &self.state {
                State::Flowing => {}
                State::Ended => return Ok(0),
                // Whoever reads on after an error must not take it for the end.
                State::Failed(error) => return Err(io::Error::other(error.clone())),
            }
            match self.parts.blocking_recv() {
                Some(Part::Chunk(chunk)) => self.current = chunk,
                Some(Part::End) => self.state = State::Ended,
                Some(Part::Failed(error)) => self.state = State::Failed(error),
                None => self.state = State::Failed(Error::look("the transfer ended without a word")),
            }
        }
        let count = buffer.len().min(self.current.len());
        let part = self.current.split_to(count);
        buffer[..count].copy_from_slice(&part);
        Ok(count)
    }
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}
