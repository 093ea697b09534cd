//! An OCI layout directory (`oci-layout`, `index.json`, `blobs/ALGORITHM/HEX`) -> manifests and blobs.

use super::manifest::{self, IndexEntry, Manifest, RawManifest};
use super::{BlobStore, Descriptor, Error};
use crate::limits;
use crate::names::{Digest, Platform};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// An opened layout.
pub struct Layout {
    dir: PathBuf,
    index: RawManifest,
}

impl Layout {
    pub fn open(dir: &Path) -> Result<Layout, Error> {
        let path = dir.join("index.json");
        let file = File::open(&path).map_err(|e| {
            Error::look(format!("`{}` is no OCI layout: index.json: {e}", dir.display()))
                .hint("an unpacked root file system is given as `dir:DIR`")
        })?;
        let bytes = read_small(file, limits::MANIFEST_BYTES_MAX, &path.display().to_string())?;
        Ok(Layout { dir: dir.to_owned(), index: index_of(bytes) })
    }

    /// The image that `select` (a tag or `@N`) names; without it the only one there is.
    pub fn select(&self, select: Option<&str>, platform: Option<&Platform>) -> Result<RawManifest, Error> {
        select_from(&self.index, self, &self.dir.display().to_string(), select, platform)
    }

    fn path_of(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.algorithm()).join(digest.hex())
    }
}

impl BlobStore for Layout {
    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, Error> {
        manifest_from_blob(descriptor, self.blob(descriptor)?)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        let path = self.path_of(&descriptor.digest);
        let file =
            File::open(&path).map_err(|e| missing_blob(descriptor, &path.display().to_string(), &e))?;
        Ok(Box::new(file))
    }

    fn range(&self, blob: &Descriptor, start: u64, len: u64) -> Option<Result<Vec<u8>, Error>> {
        let path = self.path_of(&blob.digest);
        let read = || {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.take(len).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        Some(read().map_err(|e: std::io::Error| missing_blob(blob, &path.display().to_string(), &e)))
    }
}

fn missing_blob(descriptor: &Descriptor, place: &str, error: &dyn std::fmt::Display) -> Error {
    Error::look(format!("blob {} is missing: {place}: {error}", descriptor.digest))
        .hint("the layout holds another platform's image only, or was copied incompletely")
}

/// The digest of an index.json is nobody's promise: it is computed for the report only.
pub(super) fn index_of(bytes: Vec<u8>) -> RawManifest {
    RawManifest { digest: Digest::of(&bytes), media_type: String::new(), bytes }
}

pub(super) fn read_small(mut reader: impl Read, max: u64, place: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let limited = &mut (&mut reader).take(max.saturating_add(1));
    std::io::copy(limited, &mut bytes).map_err(|e| Error::look(format!("{place}: {e}")))?;
    match bytes.len() as u64 > max {
        true => Err(Error::look(format!("{place}: more than the {max} bytes that are read"))),
        false => Ok(bytes),
    }
}

pub(super) fn manifest_from_blob(descriptor: &Descriptor, reader: impl Read) -> Result<RawManifest, Error> {
    let place = format!("manifest {}", descriptor.digest.short());
    let bytes = super::verify::read_all(reader, descriptor, limits::MANIFEST_BYTES_MAX)
        .map_err(|e| Error::io(&place, &e))?;
    Ok(RawManifest { digest: descriptor.digest.clone(), media_type: descriptor.media_type.clone(), bytes })
}

/// Chooses from an `index.json`.
pub(super) fn select_from(
    index: &RawManifest,
    store: &dyn BlobStore,
    place: &str,
    select: Option<&str>,
    platform: Option<&Platform>,
) -> Result<RawManifest, Error> {
    let Manifest::Index(entries) = manifest::parse(index, place)? else {
        return Err(Error::look(format!("{place}: index.json is no image index")));
    };
    let names: Vec<String> = entries.iter().filter_map(|e| e.ref_name.clone()).collect();
    let known = if names.is_empty() { "no tags".to_owned() } else { names.join(", ") };
    let chosen: Vec<&IndexEntry> = match select {
        None => entries.iter().collect(),
        Some(position) if position.starts_with('@') => {
            let number = position.get(1..).and_then(|n| n.parse::<usize>().ok());
            number.and_then(|n| entries.get(n)).into_iter().collect()
        }
        Some(tag) => {
            entries.iter().filter(|e| e.ref_name.as_deref().is_some_and(|n| names_tag(n, tag))).collect()
        }
    };
    match chosen.as_slice() {
        [] if entries.is_empty() => Err(Error::look(format!("{place}: the layout holds no image"))),
        [] => {
            Err(Error::look(format!("{place}: no image `{}`; there is {known}", select.unwrap_or_default())))
        }
        [one] => store.manifest(&one.descriptor),
        // Without tag: one image in several platforms, as some writers lay it out.
        many => {
            let same_name = many.iter().all(|e| e.ref_name == many.first().and_then(|m| m.ref_name.clone()));
            if !same_name {
                return Err(Error::usage(format!("{place}: several images; there is {known}"))
                    .hint("choose one: `oci:DIR:TAG` or `oci:DIR@0`"));
            }
            let mut listed = Vec::new();
            super::flatten(place, many.iter().map(|e| (*e).clone()).collect(), store, 1, &mut listed)?;
            store.manifest(&manifest::choose(&listed, platform, place)?)
        }
    }
}

/// Some writers store the tag, some the whole reference.
fn names_tag(ref_name: &str, tag: &str) -> bool {
    ref_name == tag || ref_name.rsplit_once(':').is_some_and(|(_, t)| t == tag)
}
