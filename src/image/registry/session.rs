//! A path below `/v2/NAME/` -> an answer worth reading: scheme found, login shown, failures waited out.
//!
//! One session serves all transfers of an image, so that one token and one pool of connections do.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use oci_client::secrets::RegistryAuth;
use reqwest::header::{ACCEPT, RANGE};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use super::RegistryOptions;
use super::client::Clients;
use super::patience::{self, Patience};
use super::refusal::{self, Cause, Wanted};
use super::token;
use crate::image::Error;
use crate::image::auth::{Credentials, Login};
use crate::image::reference::Reference;
use crate::limits;

/// Attempts at the very first connection: a name that is not found or a port that is closed is most often a
/// mistake of who typed it, who should not wait for it.
const FIRST_ATTEMPTS_MAX: u32 = 3;
/// 401s for one request: without token, with one that has expired, and then no more.
pub(super) const CHALLENGES_MAX: u32 = 3;

pub(super) struct Session {
    reference: Reference,
    clients: Clients,
    login: Login,
    may_plain_http: bool,
    confined: bool,
    limit: Option<(Instant, Duration)>,
    is_plain_http: OnceCell<bool>,
    access: Mutex<Access>,
    has_answered: AtomicBool,
    downloaded: AtomicU64,
}

/// What goes into `Authorization` at present. The number tells a request whether another has renewed it
/// since.
struct Access {
    auth: RegistryAuth,
    renewals: u64,
}

/// Access as one request used it.
pub(super) struct Signature {
    auth: RegistryAuth,
    renewals: u64,
}

impl Signature {
    pub(super) fn sign(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.auth {
            RegistryAuth::Anonymous => request,
            RegistryAuth::Basic(username, password) => request.basic_auth(username, Some(password)),
            RegistryAuth::Bearer(token) => request.bearer_auth(token),
        }
    }
}

/// One GET below `/v2/NAME/`.
pub(super) struct Ask<'a> {
    pub(super) wanted: Wanted<'a>,
    pub(super) accept: Option<&'a str>,
    /// Bytes that are here already.
    pub(super) offset: u64,
    /// Only bytes before this one.
    pub(super) end: Option<u64>,
}

impl Session {
    pub(super) fn new(
        reference: &Reference,
        clients: Clients,
        login: Login,
        may_plain_http: bool,
        options: &RegistryOptions,
    ) -> Session {
        let timeout = options.timeout;
        let auth = match &login.credentials {
            Credentials::Bearer(token) => RegistryAuth::Bearer(token.clone()),
            _ => RegistryAuth::Anonymous,
        };
        Session {
            reference: reference.clone(),
            clients,
            login,
            may_plain_http,
            confined: options.confined,
            limit: timeout.and_then(|timeout| Some((Instant::now().checked_add(timeout)?, timeout))),
            is_plain_http: OnceCell::new(),
            access: Mutex::new(Access { auth, renewals: 0 }),
            has_answered: AtomicBool::new(false),
            downloaded: AtomicU64::new(0),
        }
    }

    /// For another repository behind the same connections.
    pub(super) fn beside(
        other: &Session,
        reference: &Reference,
        login: Login,
        options: &RegistryOptions,
    ) -> Session {
        let session = Session::new(reference, other.clients.clone(), login, other.may_plain_http, options);
        if let Some(is_plain) = other.is_plain_http.get() {
            let _nobody_asked_yet = session.is_plain_http.set(*is_plain);
        }
        session
    }

    pub(super) fn reference(&self) -> &Reference {
        &self.reference
    }

    pub(super) fn login(&self) -> &Login {
        &self.login
    }

    pub(super) fn clients(&self) -> &Clients {
        &self.clients
    }

    /// What the registry says of other places is not believed.
    pub(super) fn is_confined(&self) -> bool {
        self.confined
    }

    pub(super) fn host(&self) -> &str {
        self.reference.api_host()
    }

    pub(super) fn is_plain_http(&self) -> bool {
        self.is_plain_http.get().copied().unwrap_or(false)
    }

    /// Whether `url` is the registry itself and not storage that it redirects to.
    pub(super) fn is_registry(&self, url: &Url) -> bool {
        self.url(self.is_plain_http(), "").is_ok_and(|own| own.origin() == url.origin())
    }

    pub(super) fn downloaded(&self) -> u64 {
        self.downloaded.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, bytes: usize) {
        self.downloaded.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Ends `work` when the time for the whole operation is over.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let Some((deadline, timeout)) = self.limit else { return work.await };
        tokio::time::timeout_at(deadline, work).await.unwrap_or_else(|_| {
            let seconds = timeout.as_secs_f64();
            Err(Error::look(format!("`{}` was not read within --timeout ({seconds} s)", self.reference))
                .hint("give more time with --timeout"))
        })
    }

    /// Asks the registry; the answer is a success, or 416 to a range.
    pub(super) async fn get(&self, ask: &Ask<'_>, patience: &mut Patience) -> Result<Response, Error> {
        let is_plain = self.find_scheme(patience).await?;
        let path = match ask.wanted {
            Wanted::Manifest(tag_or_digest) => format!("manifests/{tag_or_digest}"),
            Wanted::Blob(digest) => format!("blobs/{digest}"),
        };
        let url = self.url(is_plain, &format!("{}/{path}", self.reference.repository))?;
        let mut challenged = 0;
        loop {
            let access = self.access().await;
            let request = || {
                let mut request = self.clients.registry.get(url.clone());
                if let Some(accept) = ask.accept {
                    request = request.header(ACCEPT, accept);
                }
                access.sign(with_range(request, ask.offset, ask.end))
            };
            let response = self.send(request, self.host(), patience).await?;
            let status = response.status();
            if is_usable(status, ask.offset) {
                return Ok(response);
            }
            challenged += 1;
            let is_challenge = status == StatusCode::UNAUTHORIZED && self.is_registry(response.url());
            if !is_challenge || challenged >= CHALLENGES_MAX {
                return Err(refusal::response(self, ask.wanted, response).await);
            }
            if !self.log_in_again(&response, &access, patience).await? {
                return Err(refusal::response(self, ask.wanted, response).await);
            }
        }
    }

    /// The URL of a path below `/v2/NAME/`, or with `/` in front below `/v2/`; a whole URL stays.
    pub(super) async fn address(&self, to: &str, patience: &mut Patience) -> Result<Url, Error> {
        let is_plain = self.find_scheme(patience).await?;
        match Url::parse(to) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
            _ => match to.strip_prefix('/') {
                Some(path) => self.url(is_plain, path),
                None => self.url(is_plain, &format!("{}/{to}", self.reference.repository)),
            },
        }
    }

    /// What goes into `Authorization` at present.
    pub(super) async fn access(&self) -> Signature {
        let access = self.access.lock().await;
        Signature { auth: access.auth.clone(), renewals: access.renewals }
    }

    /// Answers a refusal: of several transfers that are refused at once, one gets the new token for all. `false` where another
    /// login cannot help: a token that was typed cannot be renewed, and the same password again would be refused again.
    pub(super) async fn log_in_again(
        &self,
        answer: &Response,
        refused: &Signature,
        patience: &mut Patience,
    ) -> Result<bool, Error> {
        let challenges = token::challenges(answer.headers());
        let mut access = self.access.lock().await;
        if access.renewals != refused.renewals {
            return Ok(true);
        }
        let is_final = matches!(self.login.credentials, Credentials::Bearer(_));
        if is_final || matches!(refused.auth, RegistryAuth::Basic(..)) {
            return Ok(false);
        }
        access.auth = token::authorize(self, &challenges, patience).await?;
        access.renewals += 1;
        Ok(true)
    }

    /// Asks another server for a blob, without credentials.
    pub(super) async fn get_elsewhere(
        &self,
        url: &Url,
        wanted: Wanted<'_>,
        offset: u64,
        patience: &mut Patience,
    ) -> Result<Response, Error> {
        let host = refusal::authority(url).unwrap_or_default();
        let request = || with_range(self.clients.registry.get(url.clone()), offset, None);
        let response = self.send(request, &host, patience).await?;
        if is_usable(response.status(), offset) {
            return Ok(response);
        }
        Err(refusal::response(self, wanted, response).await)
    }

    /// Sends until there is an answer other than "later". `host` is for messages.
    pub(super) async fn send(
        &self,
        request: impl Fn() -> RequestBuilder,
        host: &str,
        patience: &mut Patience,
    ) -> Result<Response, Error> {
        loop {
            match request().send().await {
                Ok(response) if patience::is_passing(response.status()) => {
                    self.has_answered.store(true, Ordering::Relaxed);
                    let asked = patience::retry_after(response.headers(), SystemTime::now());
                    let too_long = asked.filter(|asked| patience::is_too_long(*asked));
                    let at = refusal::authority(response.url());
                    let at = at.as_deref().unwrap_or(host);
                    let status = response.status();
                    // The connection is of no use while it waits.
                    drop(response);
                    if let Some(asked) = too_long {
                        return Err(refusal::busy(
                            status,
                            at,
                            patience.failures() + 1,
                            Some(asked.as_secs()),
                        ));
                    }
                    if !patience.wait(asked, limits::REQUEST_ATTEMPTS_MAX).await {
                        return Err(refusal::busy(status, at, patience.failures(), None));
                    }
                }
                Ok(response) => {
                    self.has_answered.store(true, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(error) => self.wait_after(&error, host, patience).await?,
            }
        }
    }

    /// Waits before another attempt, or hands the failure on.
    pub(super) async fn wait_after(
        &self,
        error: &reqwest::Error,
        host: &str,
        patience: &mut Patience,
    ) -> Result<(), Error> {
        let attempts_max = match Cause::of(error) {
            _ if self.has_answered.load(Ordering::Relaxed) => limits::REQUEST_ATTEMPTS_MAX,
            // Half a minute of silence has been patience enough.
            Cause::Timeout => 1,
            _ => FIRST_ATTEMPTS_MAX,
        };
        let may_pass = Cause::of(error).is_passing() && !error.is_builder();
        if may_pass && patience.wait(None, attempts_max).await {
            return Ok(());
        }
        Err(refusal::network(error, host, patience.failures()))
    }

    /// Finds out, once, whether the registry speaks HTTPS. Plain HTTP is tried only where it is allowed: on
    /// this machine, as docker does, or with `--insecure`.
    async fn find_scheme(&self, patience: &mut Patience) -> Result<bool, Error> {
        if !self.may_plain_http {
            return Ok(false);
        }
        self.is_plain_http.get_or_try_init(|| self.probe(patience)).await.copied()
    }

    async fn probe(&self, patience: &mut Patience) -> Result<bool, Error> {
        let client = &self.clients.registry;
        loop {
            let Err(over_tls) = client.get(self.url(false, "")?).send().await else { return Ok(false) };
            // A certificate that is not trusted is no reason to send everything in the clear.
            if Cause::of(&over_tls) == Cause::Certificate {
                return Err(refusal::network(&over_tls, self.host(), 1));
            }
            match client.get(self.url(true, "")?).send().await {
                // What Go's servers answer to plain HTTP on a port with TLS.
                Ok(response) if response.status() == StatusCode::BAD_REQUEST => {
                    // The alert that says why often loses the race against the end of the connection.
                    return Err(
                        refusal::network(&over_tls, self.host(), 1).hint(refusal::CLIENT_CERTIFICATE_HINT)
                    );
                }
                Ok(_) => return Ok(true),
                Err(error) => self.wait_after(&error, self.host(), patience).await?,
            }
        }
    }

    /// The URL of `path` below `/v2/`.
    fn url(&self, is_plain: bool, path: &str) -> Result<Url, Error> {
        let scheme = if is_plain { "http" } else { "https" };
        let host = self.host();
        Url::parse(&format!("{scheme}://{host}/v2/{path}"))
            .map_err(|error| Error::usage(format!("`{host}` is no host of a registry: {error}")))
    }
}

fn is_usable(status: StatusCode, offset: u64) -> bool {
    status.is_success() || offset > 0 && status == StatusCode::RANGE_NOT_SATISFIABLE
}

fn with_range(request: RequestBuilder, offset: u64, end: Option<u64>) -> RequestBuilder {
    match (offset, end) {
        (0, None) => request,
        (_, None) => request.header(RANGE, format!("bytes={offset}-")),
        (_, Some(end)) => request.header(RANGE, format!("bytes={offset}-{}", end.saturating_sub(1))),
    }
}

/// Why a body was not read to its end.
pub(super) enum BodyError {
    TooLong,
    Cut(reqwest::Error),
}

/// Reads a whole body of at most `bytes_max`.
pub(super) async fn read_body(mut response: Response, bytes_max: u64) -> Result<Vec<u8>, BodyError> {
    if response.content_length().is_some_and(|length| length > bytes_max) {
        return Err(BodyError::TooLong);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Cut)? {
        if (body.len() + chunk.len()) as u64 > bytes_max {
            return Err(BodyError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
