//! A registry and what it may be asked -> manifests as bytes and blobs as streams.
//!
//! What goes through which crate: `oci-client` gives the protocol's words (the grammar of references, media
//! types, `RegistryAuth`, the token answer, the error envelope); every request goes through `reqwest`, on one
//! path for manifests and blobs. `oci_client::Client` is not used for them: it hides headers and errors of
//! logins, so that `Retry-After`, ranges that are checked, client certificates, refresh tokens and a second
//! challenge have no place in it, and two paths would mean two sets of connections, tokens and messages.
//!
//! Async ends here: callers block. Digest and size of blobs are checked by the reader above; this module
//! never hands over a byte twice or leaves one out, whatever the connection does.

mod client;
pub mod lists;
mod patience;
pub mod push;
mod refusal;
mod session;
mod stream;
mod token;

pub(super) use refusal::innermost;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;
use tokio::runtime::Runtime;

use super::auth::{self, Environment};
pub use super::manifest::RawManifest;
use super::reference::Reference;
use super::{Descriptor, Error};
use crate::limits;
use crate::names::Digest;
use patience::Patience;
use refusal::Wanted;
use session::{Ask, BodyError, Session, read_body};

/// Docker's first manifest, signed and unsigned: no sizes, no layer types, checksums of another kind.
const SCHEMA1_PREFIX: &str = "application/vnd.docker.distribution.manifest.v1+";

/// What was typed about registries.
#[derive(Clone, Default)]
pub struct RegistryOptions {
    pub username: Option<String>,
    pub password: Option<String>,
    /// Goes to the registry as `Bearer`.
    pub token: Option<String>,
    pub authfile: Option<PathBuf>,
    /// TLS certificates are not checked, and plain HTTP is used where there is no TLS.
    pub insecure: bool,
    /// PEM; adds to the system's authorities.
    pub ca_file: Option<PathBuf>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// For everything from [`Registry::connect`] on.
    pub timeout: Option<Duration>,
    /// Only a login given here counts: files and helpers of this process are for others.
    pub lent: bool,
    /// Strangers name the images: what a registry says of other places leads nowhere into this network ([`client::may_go`]),
    /// and layers come from the registry alone.
    pub confined: bool,
}

impl fmt::Debug for RegistryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "…");
        f.debug_struct("RegistryOptions")
            .field("username", &self.username)
            .field("password", &hidden(&self.password))
            .field("token", &hidden(&self.token))
            .field("authfile", &self.authfile)
            .field("insecure", &self.insecure)
            .field("ca_file", &self.ca_file)
            .field("tls_cert", &self.tls_cert)
            .field("tls_key", &self.tls_key)
            .field("timeout", &self.timeout)
            .field("lent", &self.lent)
            .field("confined", &self.confined)
            .finish()
    }
}

/// Whether strangers may make this program ask that host: see [`client::may_go`].
pub fn may_go_to(host: &str) -> bool {
    reqwest::Url::parse(&format!("https://{host}/")).is_ok_and(|url| client::may_go(&url))
}

/// One repository of a registry, with login, connections and token. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    session: Arc<Session>,
    pool: Arc<Pool>,
}

/// The threads that move bytes. A plain `Runtime` waits for its threads when it is dropped, and panics where
/// that happens inside another one; transfers that nobody reads any more are not worth either.
struct Pool(Option<Runtime>);

impl Pool {
    fn start() -> Result<Pool, Error> {
        let built = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("registry")
            .enable_all()
            .build()
            .map_err(|error| Error::look(format!("threads for the network cannot be started: {error}")))?;
        Ok(Pool(Some(built)))
    }

    fn runtime(&self) -> &Runtime {
        let Some(runtime) = &self.0 else { unreachable!("the runtime is taken out only by drop") };
        runtime
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Registry {
    /// Reads options and credentials. The first connection is made by the first request.
    pub fn connect(reference: &Reference, options: &RegistryOptions) -> Result<Registry, Error> {
        Registry::connect_from(reference, options, &Environment::of_process())
    }

    /// As [`Registry::connect`], with logins looked up in `environment`.
    pub fn connect_from(
        reference: &Reference,
        options: &RegistryOptions,
        environment: &Environment,
    ) -> Result<Registry, Error> {
        let is_loopback = reference.is_loopback();
        let clients = client::build(options, is_loopback)?;
        let pool = Arc::new(Pool::start()?);
        let login = pool.runtime().block_on(find_login(reference, options, environment))?;
        let may_plain_http = is_loopback || options.insecure;
        let session = Arc::new(Session::new(reference, clients, login, may_plain_http, options));
        Ok(Registry { session, pool })
    }

    /// Another repository of the same registry: connections are shared, the login is its own.
    fn beside(&self, reference: &Reference, options: &RegistryOptions) -> Result<Registry, Error> {
        let login =
            self.pool.runtime().block_on(find_login(reference, options, &Environment::of_process()))?;
        let session = Arc::new(Session::beside(&self.session, reference, login, options));
        Ok(Registry { session, pool: Arc::clone(&self.pool) })
    }

    /// Fetches a manifest or an index. Where it was asked for by digest, its bytes have that digest.
    pub fn manifest(&self, tag_or_digest: &str) -> Result<RawManifest, Error> {
        self.pool.runtime().block_on(self.session.in_time(fetch_manifest(&self.session, tag_or_digest)))
    }

    /// Opens a blob: an error before its first byte comes from here. Later ones are `io::Error`s that hold an
    /// [`Error`]. The stream ends after at most `size` + 1 bytes; dropping it ends the transfer.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        let open = stream::open(Arc::clone(&self.session), descriptor);
        let opened = self.pool.runtime().block_on(self.session.in_time(open))?;
        Ok(Box::new(opened.start(Arc::clone(&self.pool))))
    }

    /// Whether the repository gives a blob to whoever asks.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        self.pool.runtime().block_on(self.session.in_time(push::has_blob(&self.session, digest)))
    }

    /// `len` bytes of a blob from `start` on, unchecked. An error where the registry sends whole blobs only.
    pub fn range(&self, blob: &Descriptor, start: u64, len: u64) -> Result<Vec<u8>, Error> {
        if len == 0 {
            return Ok(Vec::new());
        }
        let work = stream::range(&self.session, &blob.digest, start, len);
        self.pool.runtime().block_on(self.session.in_time(work))
    }

    /// Bytes of manifests, configs and blobs that came over the network, those read twice included.
    pub fn bytes_downloaded(&self) -> u64 {
        self.session.downloaded()
    }
}

async fn find_login(
    reference: &Reference,
    options: &RegistryOptions,
    environment: &Environment,
) -> Result<auth::Login, Error> {
    let typed = auth::Typed {
        username: options.username.as_deref(),
        password: options.password.as_deref(),
        token: options.token.as_deref(),
        authfile: options.authfile.as_deref(),
    };
    let nothing = Environment::default();
    let mut login = auth::find(reference, &typed, if options.lent { &nothing } else { environment }).await?;
    // Messages reach strangers, who have no business with files of this machine.
    if options.confined {
        let of =
            if options.lent { "the login that came with the request" } else { "the login of this server" };
        of.clone_into(&mut login.source);
    }
    Ok(login)
}

/// Registries that images opened one after the other have in common.
#[derive(Clone, Default)]
pub struct Connections(Arc<Mutex<BTreeMap<String, Registry>>>);

impl Connections {
    /// The repository of `reference`, over connections that are there already.
    pub fn registry(&self, reference: &Reference, options: &RegistryOptions) -> Result<Registry, Error> {
        let host = reference.api_host().to_owned();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&host).cloned();
        if let Some(known) = known {
            return known.beside(reference, options);
        }
        let registry = Registry::connect(reference, options)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(host, registry.clone());
        Ok(registry)
    }
}

/// The little of a manifest that says what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Peek {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
}

async fn fetch_manifest(session: &Session, tag_or_digest: &str) -> Result<RawManifest, Error> {
    let accept = [
        OCI_IMAGE_MEDIA_TYPE,
        OCI_IMAGE_INDEX_MEDIA_TYPE,
        IMAGE_MANIFEST_MEDIA_TYPE,
        IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    ]
    .join(", ");
    let asked = Digest::parse(tag_or_digest);
    if let Some(digest) = asked.as_ref().filter(|digest| digest.algorithm() != "sha256") {
        return Err(Error::look(format!("`{digest}` cannot be checked: only sha256 digests can")));
    }
    let ask = Ask { wanted: Wanted::Manifest(tag_or_digest), accept: Some(&accept), offset: 0, end: None };
    let mut patience = Patience::default();
    let shown = format!("manifest `{tag_or_digest}` of `{}`", session.reference().repository_name());
    let (headers, bytes) = loop {
        let response = session.get(&ask, &mut patience).await?;
        // Redirected out of TLS, only a digest would show that nobody changed it on the way.
        if asked.is_none() && !session.is_plain_http() && response.url().scheme() == "http" {
            return Err(Error::look(format!("{shown} is redirected to plain HTTP; ask for it by digest")));
        }
        let headers = response.headers().clone();
        match read_body(response, limits::MANIFEST_BYTES_MAX).await {
            Ok(bytes) => break (headers, bytes),
            Err(BodyError::TooLong) => {
                let limit = limits::MANIFEST_BYTES_MAX;
                return Err(Error::look(format!("{shown} is longer than {limit} bytes")));
            }
            Err(BodyError::Cut(error)) => session.wait_after(&error, session.host(), &mut patience).await?,
        }
    };
    session.count(bytes.len());
    checked_manifest(&shown, asked.as_ref(), &headers, bytes)
}

/// Refuses what is no manifest that can be read, or not the one that was asked for.
fn checked_manifest(
    shown: &str,
    asked: Option<&Digest>,
    headers: &HeaderMap,
    bytes: Vec<u8>,
) -> Result<RawManifest, Error> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let sent_type =
        header(CONTENT_TYPE.as_str()).and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    if stream::is_web_page(headers) || bytes.trim_ascii_start().starts_with(b"<") {
        return Err(stream::web_page(shown));
    }
    let peek: Option<Peek> = serde_json::from_slice(&bytes).ok();
    // Before the digest: what the registry gives for schema 1 is taken over other bytes, without signatures.
    if sent_type.starts_with(SCHEMA1_PREFIX) || peek.as_ref().is_some_and(|p| p.schema_version == Some(1)) {
        return Err(Error::look(format!("{shown} has Docker's old schema 1, which is not supported"))
            .hint("pull it and push it again with a current docker, podman or skopeo"));
    }
    let digest = Digest::of(&bytes);
    let promised = header("docker-content-digest").and_then(Digest::parse);
    let promised = promised.as_ref().filter(|promised| promised.algorithm() == "sha256");
    for wanted in asked.into_iter().chain(promised) {
        if *wanted != digest {
            return Err(Error::look(format!(
                "{shown} is damaged: its digest should be {wanted} and is {digest}"
            ))
            .hint("try again; if it stays, the registry or a proxy changes what it sends"));
        }
    }
    let Some(peek) = peek else {
        return Err(Error::look(format!(
            "{shown} is not a JSON object, but `{}`",
            refusal::shown(sent_type)
        )));
    };
    let is_vague = matches!(sent_type, "" | "application/json" | "text/plain" | "application/octet-stream");
    let own = peek.media_type.filter(|own| !own.is_empty());
    let media_type = match own {
        Some(own) if is_vague => own,
        None if is_vague && peek.manifests.is_some() => OCI_IMAGE_INDEX_MEDIA_TYPE.to_owned(),
        None if is_vague => OCI_IMAGE_MEDIA_TYPE.to_owned(),
        _ => sent_type.to_owned(),
    };
    Ok(RawManifest { bytes, media_type, digest })
}

#[cfg(test)]
mod tests;
