//! Cache entries as an artifact beside the image in its own registry (OCI referrers): one layer of the artifact per entry.
//!
//! Who may push to the repository may write them, who may only pull may not. Several artifacts may stand there, written by
//! machines that met the image at the same time; they say the same, and the first that has an entry is taken.

use super::{CACHE_SCHEMA, Place};
use crate::image::Error;
use crate::image::registry::Registry;
use crate::image::registry::lists::Part;
use crate::image::registry::push::{Artifact, Blob};
use crate::limits;
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// What the artifact is.
pub const ARTIFACT_TYPE: &str = "application/vnd.cudalint.layers.v1";
const ENTRY_TYPE: &str = "application/vnd.cudalint.layer-facts.v1";
const TITLE: &str = "org.opencontainers.image.title";
/// Artifacts that are looked into; more than one is already rare.
const ARTIFACTS_MAX: usize = 4;

/// The artifacts of one image.
pub struct Referrers {
    registry: Registry,
    /// Digest of the image's manifest.
    subject: String,
    /// Path of an entry -> where its bytes are.
    known: OnceLock<Result<BTreeMap<String, Part>, Error>>,
    fresh: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Referrers {
    pub fn new(registry: Registry, subject: &str) -> Referrers {
        Referrers {
            registry,
            subject: subject.to_owned(),
            known: OnceLock::new(),
            fresh: Mutex::new(BTreeMap::new()),
        }
    }

    fn known(&self) -> Result<&BTreeMap<String, Part>, Error> {
        let list = || {
            let mut known = BTreeMap::new();
            let artifacts = self.registry.referrers(&self.subject, ARTIFACT_TYPE)?;
            // The newest stands last.
            for artifact in artifacts.iter().rev().take(ARTIFACTS_MAX) {
                for part in self.registry.parts(artifact)? {
                    let title =
                        part.annotations.get(TITLE).filter(|_| part.size <= limits::CACHE_ENTRY_BYTES_MAX);
                    if let Some(title) = title {
                        known.entry(title.clone()).or_insert(part);
                    }
                }
            }
            Ok(known)
        };
        self.known.get_or_init(list).as_ref().map_err(Clone::clone)
    }

    /// Attaches what was written, if anything was. To be called when the image is done.
    pub fn push(&self) -> Result<(), Error> {
        let fresh = std::mem::take(&mut *self.fresh.lock().unwrap_or_else(PoisonError::into_inner));
        if fresh.is_empty() {
            return Ok(());
        }
        let blobs: Vec<Blob<'_>> = fresh
            .iter()
            .map(|(path, bytes)| Blob {
                media_type: ENTRY_TYPE,
                bytes,
                annotations: vec![(TITLE.to_owned(), path.clone())],
            })
            .collect();
        let schema = ("io.github.cudalint.schema".to_owned(), CACHE_SCHEMA.to_string());
        let artifact = Artifact { artifact_type: ARTIFACT_TYPE, blobs: &blobs, annotations: vec![schema] };
        self.registry.attach(&self.subject, &artifact).map(drop)
    }
}

impl Place for Referrers {
    fn name(&self) -> String {
        "shared cache in the registry".to_owned()
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        match self.known()?.get(path) {
            Some(part) => self.registry.read_part(part).map(Some),
            None => Ok(None),
        }
    }

    /// Who may push an image may write there, and could name the layers of others.
    fn speaks_for_all(&self) -> bool {
        false
    }

    /// The artifact is to speak for the whole image.
    fn lacks(&self, path: &str) -> Result<bool, Error> {
        Ok(!self.known()?.contains_key(path))
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        // The config stands in the registry already.
        if path.starts_with("layers-") {
            self.fresh.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), bytes.to_vec());
        }
        Ok(())
    }
}
