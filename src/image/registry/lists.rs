//! What a registry lists: repositories, tags, and the artifacts that refer to a manifest (OCI distribution specification, "Content
//! Discovery"), with their parts.
//!
//! Registries without that list keep one under the tag `sha256-HEX`; both are read alike, filtered here again, and bounded.

use super::Registry;
use super::patience::Patience;
use super::push::Send;
use super::session::{Session, read_body};
use crate::image::{Descriptor, Error, verify};
use crate::limits;
use crate::names::Digest;
use oci_client::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE as INDEX;
use reqwest::header::LINK;
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// Pages of the list that are read.
const PAGES_MAX: usize = 20;

/// An entry of an index, or a layer of an artifact.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    pub digest: String,
    pub size: u64,
    #[serde(default)]
    pub media_type: String,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    manifests: Vec<Part>,
}

#[derive(Deserialize)]
struct Layers {
    #[serde(default)]
    layers: Vec<Part>,
}

impl Registry {
    /// Artifacts of one type that refer to the manifest of that digest, in the registry's order.
    pub fn referrers(&self, subject: &str, artifact_type: &str) -> Result<Vec<Part>, Error> {
        self.pool.runtime().block_on(self.session.in_time(list(&self.session, subject, artifact_type)))
    }

    /// Repositories of the registry, as far as it tells.
    pub fn repositories(&self) -> Result<Vec<String>, Error> {
        let host = self.session.host();
        let work = names(&self.session, "/_catalog?n=1000", "repositories");
        let found = self.pool.runtime().block_on(self.session.in_time(work))?;
        found.map(|names| names.into_iter().collect()).ok_or_else(|| {
            Error::look(format!("`{host}` gives no list of its repositories"))
                .hint("make a list of images by the registry's own means, and name the file")
        })
    }

    /// Tags of the repository that may be images: not those that stand for signatures, attestations and lists of referrers.
    pub fn tags(&self) -> Result<Vec<String>, Error> {
        let work = names(&self.session, "tags/list?n=1000", "tags");
        let found = self.pool.runtime().block_on(self.session.in_time(work))?;
        Ok(found.unwrap_or_default().into_iter().filter(|tag| !is_of_another(tag)).collect())
    }

    /// The layers of an artifact.
    pub fn parts(&self, artifact: &Part) -> Result<Vec<Part>, Error> {
        let raw = self.manifest(&artifact.digest)?;
        let layers: Layers = serde_json::from_slice(&raw.bytes)
            .map_err(|e| Error::look(format!("artifact {}: {e}", artifact.digest)))?;
        if layers.layers.len() > limits::LAYERS_MAX {
            return Err(Error::look(format!("artifact {} has too many layers", artifact.digest)));
        }
        Ok(layers.layers)
    }

    /// The bytes of a part, checked against its digest.
    pub fn read_part(&self, part: &Part) -> Result<Vec<u8>, Error> {
        let place = || format!("artifact blob {}", part.digest);
        let digest =
            Digest::parse(&part.digest).ok_or_else(|| Error::look(format!("{}: no digest", place())))?;
        let descriptor = Descriptor {
            media_type: part.media_type.clone(),
            digest,
            size: part.size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
        };
        verify::read_all(self.blob(&descriptor)?, &descriptor, limits::CACHE_ENTRY_BYTES_MAX)
            .map_err(|e| Error::io(&place(), &e))
    }
}

/// `sha256-HEX`, `sha256-HEX.sig`: what belongs to the manifest of that digest.
pub fn is_of_another(tag: &str) -> bool {
    let hex = tag.strip_prefix("sha256-").or_else(|| tag.strip_prefix("sha512-"));
    let hex = hex.map(|rest| rest.split('.').next().unwrap_or_default());
    hex.is_some_and(|hex| hex.len() >= 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

async fn list(session: &Session, subject: &str, artifact_type: &str) -> Result<Vec<Part>, Error> {
    let patience = &mut Patience::default();
    let mut found = Vec::new();
    let query = artifact_type.replace('+', "%2B");
    let mut next = Some(format!("referrers/{subject}?artifactType={query}"));
    for page in 0..PAGES_MAX {
        let Some(at) = next.take() else { break };
        let answer = get(session, &at, patience).await?;
        if page == 0 && answer.status() == StatusCode::NOT_FOUND {
            let tagged = get(session, &format!("manifests/{}", subject.replace(':', "-")), patience).await?;
            return match tagged.status() {
                StatusCode::NOT_FOUND => Ok(found),
                _ => take(session, tagged, artifact_type, &mut found).await.map(|()| found),
            };
        }
        next = link(session, &answer);
        take(session, answer, artifact_type, &mut found).await?;
    }
    Ok(found)
}

/// All names of a list that comes in pages; `None` where the registry has no such list.
async fn names(session: &Session, at: &str, key: &str) -> Result<Option<BTreeSet<String>>, Error> {
    let patience = &mut Patience::default();
    let mut found: BTreeSet<String> = BTreeSet::new();
    let mut next = Some(at.to_owned());
    while let Some(at) = next.take() {
        let answer = get(session, &at, patience).await?;
        let status = answer.status();
        if found.is_empty() && matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
            return Ok(None);
        }
        let link = link(session, &answer);
        let page: serde_json::Value = page(session, answer, key).await?;
        let names = page.get(key).and_then(serde_json::Value::as_array).into_iter().flatten();
        let before = found.len();
        found.extend(names.filter_map(|n| n.as_str().map(str::to_owned)));
        if found.len() > limits::CATALOG_ENTRIES_MAX {
            return Err(Error::look(format!(
                "`{}` lists more than {} {key}",
                session.host(),
                limits::CATALOG_ENTRIES_MAX
            )));
        }
        // A page that brings nothing new leads nowhere.
        next = link.filter(|_| found.len() > before);
    }
    Ok(Some(found))
}

async fn get(session: &Session, at: &str, patience: &mut Patience) -> Result<Response, Error> {
    session.write(&Send { method: Method::GET, to: at, content_type: INDEX, body: b"" }, patience).await
}

async fn take(
    session: &Session,
    answer: Response,
    artifact_type: &str,
    found: &mut Vec<Part>,
) -> Result<(), Error> {
    let list: List = page(session, answer, "referrers").await?;
    // The registry may not have filtered.
    found.extend(list.manifests.into_iter().filter(|m| m.artifact_type.as_deref() == Some(artifact_type)));
    Ok(())
}

/// One page of a list of `what`.
async fn page<T: DeserializeOwned>(session: &Session, answer: Response, what: &str) -> Result<T, Error> {
    let status = answer.status();
    let unreadable =
        || Error::look(format!("`{}` gives no readable list of {what} ({status})", session.host()));
    if !status.is_success() {
        return Err(unreadable());
    }
    let body = read_body(answer, limits::MANIFEST_BYTES_MAX).await.map_err(|_| unreadable())?;
    session.count(body.len());
    serde_json::from_slice(&body).map_err(|_| unreadable())
}

/// The next page, on the same registry only.
fn link(session: &Session, answer: &Response) -> Option<String> {
    let text = answer.headers().get(LINK)?.to_str().ok()?;
    let (target, rest) = text.trim().strip_prefix('<')?.split_once('>')?;
    if !rest.contains("rel=\"next\"") && !rest.contains("rel=next") {
        return None;
    }
    let url: Url = answer.url().join(target).ok()?;
    session.is_registry(&url).then(|| url.to_string())
}
