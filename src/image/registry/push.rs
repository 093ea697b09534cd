//! A document about an image -> a referrer of it in its registry (OCI distribution specification, "Pushing manifests with
//! subject"), with the tag that stands in where the registry keeps no list of referrers.

use super::Registry;
use super::patience::Patience;
use super::refusal;
use super::session::{BodyError, Session, read_body};
use crate::image::Error;
use crate::limits;
use crate::names::Digest;
use oci_client::manifest::{OCI_IMAGE_INDEX_MEDIA_TYPE as INDEX, OCI_IMAGE_MEDIA_TYPE as MANIFEST};
use reqwest::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// What is pushed.
pub struct Artifact<'a> {
    pub artifact_type: &'a str,
    pub blobs: &'a [Blob<'a>],
    /// Annotations of the manifest, among them the time of making.
    pub annotations: Vec<(String, String)>,
}

/// One part of it.
pub struct Blob<'a> {
    pub media_type: &'a str,
    pub bytes: &'a [u8],
    pub annotations: Vec<(String, String)>,
}

/// What came of it.
pub struct Attached {
    pub digest: Digest,
    /// The tag that lists the referrers, where the registry does not.
    pub fallback_tag: Option<String>,
}

/// A request that writes.
pub(super) struct Send<'a> {
    pub(super) method: Method,
    /// Below `/v2/NAME/`, or a whole URL that the registry gave.
    pub(super) to: &'a str,
    pub(super) content_type: &'a str,
    pub(super) body: &'a [u8],
}

impl Registry {
    /// Pushes an artifact whose subject is the manifest of that digest.
    pub fn attach(&self, subject: &str, artifact: &Artifact<'_>) -> Result<Attached, Error> {
        let work = attach(&self.session, subject, artifact);
        self.pool.runtime().block_on(self.session.in_time(work))
    }
}

async fn attach(session: &Session, subject: &str, artifact: &Artifact<'_>) -> Result<Attached, Error> {
    let patience = &mut Patience::default();
    let manifest = super::fetch_manifest(session, subject).await?;
    push_blob(session, b"{}", patience).await?;
    let mut layers = Vec::new();
    for blob in artifact.blobs {
        push_blob(session, blob.bytes, patience).await?;
        let mut layer = json!({
            "mediaType": blob.media_type,
            "digest": Digest::of(blob.bytes).to_string(),
            "size": blob.bytes.len(),
        });
        if !blob.annotations.is_empty() {
            layer["annotations"] = object(&blob.annotations);
        }
        layers.push(layer);
    }
    let annotations = object(&artifact.annotations);
    let document = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact.artifact_type,
        "config": { "mediaType": EMPTY, "digest": Digest::of(b"{}").to_string(), "size": 2, "data": "e30=" },
        "layers": layers,
        "subject": {
            "mediaType": manifest.media_type,
            "digest": manifest.digest.to_string(),
            "size": manifest.bytes.len(),
        },
        "annotations": annotations,
    });
    let bytes = document.to_string().into_bytes();
    let digest = Digest::of(&bytes);
    let answer = put_manifest(session, &digest.to_string(), MANIFEST, &bytes, patience).await?;
    // Without this header nobody would find the artifact: the client keeps the list.
    if answer.headers().contains_key("oci-subject") {
        return Ok(Attached { digest, fallback_tag: None });
    }
    let tag = manifest.digest.to_string().replace(':', "-");
    let entry = json!({
        "mediaType": MANIFEST,
        "digest": digest.to_string(),
        "size": bytes.len(),
        "artifactType": artifact.artifact_type,
        "annotations": annotations,
    });
    list(session, &tag, entry, patience).await?;
    Ok(Attached { digest, fallback_tag: Some(tag) })
}

fn object(annotations: &[(String, String)]) -> Value {
    annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect()
}

/// Whether the repository has a blob and shows it.
pub(super) async fn has_blob(session: &Session, digest: &Digest) -> Result<bool, Error> {
    let path = format!("blobs/{digest}");
    let head = Send { method: Method::HEAD, to: &path, content_type: "", body: b"" };
    let answer = session.write(&head, &mut Patience::default()).await?;
    match answer.status() {
        StatusCode::NOT_FOUND => Ok(false),
        status if status.is_success() => Ok(true),
        _ => Err(refusal::response(session, refusal::Wanted::Blob(digest), answer).await),
    }
}

async fn push_blob(session: &Session, bytes: &[u8], patience: &mut Patience) -> Result<(), Error> {
    let digest = Digest::of(bytes).to_string();
    let path = format!("blobs/{digest}");
    let head = Send { method: Method::HEAD, to: &path, content_type: "", body: b"" };
    if session.write(&head, patience).await?.status().is_success() {
        return Ok(());
    }
    let start = Send { method: Method::POST, to: "blobs/uploads/", content_type: "", body: b"" };
    let started = accepted(session, session.write(&start, patience).await?).await?;
    let location = started.headers().get(LOCATION).and_then(|l| l.to_str().ok()).unwrap_or_default();
    // Relative locations are allowed, and a query may stand in them already.
    let Ok(mut url) = started.url().join(location) else {
        return Err(Error::look(format!("`{}` starts an upload at no usable place", session.host())));
    };
    url.query_pairs_mut().append_pair("digest", &digest);
    let put =
        Send { method: Method::PUT, to: url.as_str(), content_type: "application/octet-stream", body: bytes };
    accepted(session, session.write(&put, patience).await?).await.map(drop)
}

async fn put_manifest(
    session: &Session,
    name: &str,
    media_type: &str,
    bytes: &[u8],
    patience: &mut Patience,
) -> Result<Response, Error> {
    let path = format!("manifests/{name}");
    let put = Send { method: Method::PUT, to: &path, content_type: media_type, body: bytes };
    accepted(session, session.write(&put, patience).await?).await
}

/// Adds an entry to the index under the tag; what other clients wrote there stays.
async fn list(session: &Session, tag: &str, entry: Value, patience: &mut Patience) -> Result<(), Error> {
    let path = format!("manifests/{tag}");
    let get = Send { method: Method::GET, to: &path, content_type: INDEX, body: b"" };
    let answer = session.write(&get, patience).await?;
    let mut entries: Vec<Value> = Vec::new();
    if answer.status() != StatusCode::NOT_FOUND {
        let answer = accepted(session, answer).await?;
        let unreadable = || Error::look(format!("the list of referrers under tag `{tag}` cannot be read"));
        let body = read_body(answer, limits::MANIFEST_BYTES_MAX).await.map_err(|e| match e {
            BodyError::TooLong | BodyError::Cut(_) => unreadable(),
        })?;
        let known: Value = serde_json::from_slice(&body).map_err(|_| unreadable())?;
        entries = known.get("manifests").and_then(Value::as_array).cloned().ok_or_else(unreadable)?;
    }
    entries.retain(|known| known.get("digest") != entry.get("digest"));
    entries.push(entry);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    put_manifest(session, tag, INDEX, index.to_string().as_bytes(), patience).await.map(drop)
}

async fn accepted(session: &Session, answer: Response) -> Result<Response, Error> {
    if answer.status().is_success() { Ok(answer) } else { Err(refusal::not_written(session, answer).await) }
}

impl Session {
    /// Sends until there is an answer other than "later" or "log in"; what it says is the caller's to read.
    pub(super) async fn write(&self, send: &Send<'_>, patience: &mut Patience) -> Result<Response, Error> {
        let url = self.address(send.to, patience).await?;
        // An upload may go to other storage, which has nothing to do with the login.
        let own = self.is_registry(&url);
        for _ in 0..super::session::CHALLENGES_MAX {
            let access = self.access().await;
            let request = || {
                let mut request = self.clients().registry.request(send.method.clone(), url.clone());
                if send.method == Method::GET {
                    request = request.header(ACCEPT, send.content_type);
                } else if !send.content_type.is_empty() {
                    request = request.header(CONTENT_TYPE, send.content_type);
                }
                let request = request.body(send.body.to_vec());
                if own { access.sign(request) } else { request }
            };
            let answer = self.send(request, self.host(), patience).await?;
            // A token for pulling alone is refused with 401 or 403 and a challenge that names the scope for pushing.
            let refused = matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            let challenged = refused && answer.headers().contains_key("www-authenticate");
            if !challenged || !own || !self.log_in_again(&answer, &access, patience).await? {
                return Ok(answer);
            }
        }
        Err(refusal::refused(self, ": the registry asks for the login again and again"))
    }
}
