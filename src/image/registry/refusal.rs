//! A failed connection or an answer that is no success -> the one line a person reads, with what can be done.
//!
//! URLs are never quoted: those of storage carry signatures. What a registry says is shortened and cleaned.

use std::error::Error as _;

use oci_client::errors::{OciEnvelope, OciErrorCode};
use reqwest::{Response, StatusCode};

use super::session::Session;
use crate::image::auth::Credentials;
use crate::image::{Error, ErrorKind};
use crate::names::Digest;

/// Of an error's body so much is read.
const BODY_BYTES_MAX: usize = 16 << 10;
/// Of a registry's own words so many characters are shown.
const WORDS_MAX: usize = 200;
pub(super) const CLIENT_CERTIFICATE_HINT: &str =
    "a registry that asks for a client certificate needs --tls-cert and --tls-key";

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    Manifest(&'a str),
    Blob(&'a Digest),
}

/// Why nothing came of a request, as far as the error tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    HostNotFound,
    Refused,
    /// The other side speaks TLS, and the two do not trust each other.
    Certificate,
    /// What came back is not TLS, or the handshake broke.
    Handshake,
    Timeout,
    Redirect,
    Other,
}

impl Cause {
    pub(super) fn of(error: &reqwest::Error) -> Cause {
        let text = chain(error);
        if error.is_redirect() {
            Cause::Redirect
        } else if error.is_timeout() {
            Cause::Timeout
        } else if text.contains("peer certificate") || text.contains("fatal alert") {
            Cause::Certificate
        } else if text.contains("corrupt message") || text.contains("handshake") {
            Cause::Handshake
        } else if text.contains("dns error") || text.contains("failed to lookup") {
            Cause::HostNotFound
        } else if io_kind(error) == Some(std::io::ErrorKind::ConnectionRefused) {
            Cause::Refused
        } else {
            Cause::Other
        }
    }

    /// Whether the same request may go through a moment later.
    pub(super) fn is_passing(self) -> bool {
        !matches!(self, Cause::Certificate | Cause::Handshake | Cause::Redirect)
    }
}

/// The message for a request that got no answer, or lost it. `host` is meant where the error names none.
pub(super) fn network(error: &reqwest::Error, host: &str, attempts: u32) -> Error {
    let at = error.url().and_then(authority);
    let host = at.as_deref().unwrap_or(host);
    let tries = if attempts > 1 { format!(" after {attempts} attempts") } else { String::new() };
    let why = innermost(error);
    match Cause::of(error) {
        Cause::HostNotFound => Error::look(format!("host `{host}` is not found{tries}"))
            .hint("check the name of the registry, the network, and HTTPS_PROXY and NO_PROXY"),
        Cause::Refused => Error::look(format!("`{host}` refuses connections{tries}"))
            .hint("check the port, whether the registry runs, and HTTPS_PROXY and NO_PROXY"),
        Cause::Timeout => Error::look(format!("`{host}` does not answer{tries}: timed out"))
            .hint("check the network and HTTPS_PROXY and NO_PROXY, or try again later"),
        Cause::Certificate if chain(error).contains("fatal alert") => {
            Error::look(format!("`{host}` ended the TLS handshake: {why}")).hint(CLIENT_CERTIFICATE_HINT)
        }
        Cause::Certificate => Error::look(format!("the certificate of `{host}` is not trusted: {why}"))
            .hint("give the certificate of its authority with --ca-file, or --insecure to check none"),
        Cause::Handshake => Error::look(format!("`{host}` does not speak TLS: {why}"))
            .hint("a registry without TLS needs --insecure"),
        Cause::Redirect => Error::look(format!("`{host}` redirects without end"))
            .hint("check the name of the registry; it, or a proxy before it, is set up wrongly"),
        Cause::Other => Error::look(format!("no connection to `{host}`{tries}: {why}"))
            .hint("check the network and HTTPS_PROXY and NO_PROXY, or try again later"),
    }
}

/// The message for an answer that is no success. Reads the start of its body for the registry's own words.
pub(super) async fn response(session: &Session, wanted: Wanted<'_>, response: Response) -> Error {
    let status = response.status();
    let host = authority(response.url()).unwrap_or_else(|| session.host().to_owned());
    let is_registry = session.is_registry(response.url());
    let envelope = envelope(response).await;
    let words = envelope.as_ref().map(words).filter(|words| !words.is_empty());
    let said = words.map(|words| format!(": {words}")).unwrap_or_default();
    let repository = session.reference().repository_name();
    let has = |code: &OciErrorCode| envelope.iter().any(|e| e.errors.iter().any(|error| error.code == *code));
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if is_registry => refused(session, &said),
        StatusCode::NOT_FOUND if has(&OciErrorCode::NameUnknown) => {
            absent(format!("no such repository `{repository}`")).hint("check the name and its spelling")
        }
        StatusCode::NOT_FOUND => match wanted {
            Wanted::Manifest(digest) if digest.contains(':') => {
                absent(format!("no such manifest {digest} in `{repository}`"))
                    .hint("it may have been deleted, or pushed to another repository")
            }
            Wanted::Manifest(tag) => absent(format!("no such tag `{tag}` in `{repository}`"))
                .hint("check the tag and the name of the repository"),
            Wanted::Blob(digest) => Error::look(format!("blob {digest} is missing in `{repository}`"))
                .hint("the image is incomplete there; push it again"),
        },
        status if status.is_redirection() => {
            Error::look(format!("`{host}` redirects with {} to no usable place", status.as_u16()))
                .hint("check the name of the registry; it, or a proxy before it, is set up wrongly")
        }
        status => Error::look(format!("`{host}` answers {}{said}", status_text(status)))
            .hint("check the name; this may be no registry, or a proxy answers in its place"),
    }
}

/// The message for a document that was not taken.
pub(super) async fn not_written(session: &Session, response: Response) -> Error {
    let status = response.status();
    let envelope = envelope(response).await;
    let words = envelope.as_ref().map(words).filter(|words| !words.is_empty());
    let said = words.map(|words| format!(": {words}")).unwrap_or_default();
    let (repository, login) = (session.reference().repository_name(), session.login());
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let who = match login.credentials {
                Credentials::Anonymous => "without credentials".to_owned(),
                _ => format!("with {}", login.source),
            };
            Error::look(format!("`{repository}` may not be written to {who}{said}")).hint(
                "attaching needs a login that may push: `docker login`, or --username and --password-stdin",
            )
        }
        StatusCode::METHOD_NOT_ALLOWED => Error::look(format!("`{}` is read-only{said}", session.host()))
            .hint("attach where the image is pushed, not to a mirror"),
        status => Error::look(format!(
            "`{}` does not take the document: {}{said}",
            session.host(),
            status_text(status)
        ))
        .hint(
            "see whether the registry takes OCI artifacts; `cudalint export` writes the document to a file",
        ),
    }
}

fn absent(message: String) -> Error {
    Error { kind: ErrorKind::NotFound, ..Error::look(message) }
}

/// The registry, or its token service, does not accept who asks.
pub(super) fn refused(session: &Session, said: &str) -> Error {
    let (repository, login) = (session.reference().repository_name(), session.login());
    let name = &session.reference().registry;
    if login.credentials == Credentials::Anonymous {
        return Error::look(format!(
            "`{repository}` is not open to everybody, and no credentials were found{said}"
        ))
        .hint(format!(
            "check the name; for a private image log in with `docker login {name}`, or give --username and \
                 --password-stdin"
        ));
    }
    Error::look(format!("access to `{repository}` was refused with {}{said}", login.source))
        .hint("check that they are right, have not expired, and allow to pull this repository")
}

/// An answer that would have passed with time, after the last attempt or with a wait beyond all patience.
pub(super) fn busy(status: StatusCode, host: &str, attempts: u32, asked: Option<u64>) -> Error {
    let tries = if attempts > 1 { format!(" after {attempts} attempts") } else { String::new() };
    let wait = asked.map(|seconds| format!(" and asks to wait {seconds} s")).unwrap_or_default();
    let error = Error::look(format!("`{host}` answers {}{tries}{wait}", status_text(status)));
    if status == StatusCode::TOO_MANY_REQUESTS {
        return error.hint("its limit on requests is reached: wait, or log in for a higher limit");
    }
    error.hint("the registry is in trouble: try again later")
}

fn status_text(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} ({})", status.as_u16(), reason.to_ascii_lowercase()),
        None => status.as_u16().to_string(),
    }
}

async fn envelope(mut response: Response) -> Option<OciEnvelope> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > BODY_BYTES_MAX {
            return None;
        }
    }
    serde_json::from_slice(&body).ok()
}

fn words(envelope: &OciEnvelope) -> String {
    let messages: Vec<&str> = envelope.errors.iter().map(|error| error.message.as_str()).take(3).collect();
    shown(&messages.join("; "))
}

/// Foreign text on its way to a terminal.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX).collect()
}

/// `host[:port]` of a URL.
pub(super) fn authority(url: &reqwest::Url) -> Option<String> {
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

/// The last cause of an error: reqwest's own text says only that there is one, and quotes the URL.
pub(in crate::image) fn innermost(error: &reqwest::Error) -> String {
    let mut last = None;
    let mut next = error.source();
    while let Some(cause) = next {
        last = Some(cause.to_string());
        next = cause.source();
    }
    shown(&last.unwrap_or_else(|| "the request could not be sent".to_owned()))
}

/// All causes of an error in one text, for looking words up.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&cause.to_string());
        text.push('\n');
        next = cause.source();
    }
    text
}

fn io_kind(error: &reqwest::Error) -> Option<std::io::ErrorKind> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        next = cause.source();
    }
    None
}
