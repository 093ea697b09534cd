//! A tar file that holds an image (`docker save`, `skopeo copy … oci-archive:`) -> manifests and blobs, read in place.
//!
//! The archive is listed once, by seeking from header to header; every blob is then a window of the file. A compressed
//! archive is first written uncompressed to an unlinked temporary file: it cannot be read in place. An archive that comes as a
//! stream is taken apart by `scan::stream`; here its documents say what the image consists of ([`Passed`]).

use super::layout::{index_of, manifest_from_blob, read_small, select_from};
use super::manifest::{self, RawManifest};
use super::reference::Reference;
use super::{BlobStore, Descriptor, Error, Image, LayerSource, decompress, read_full};
use crate::facts::LayerIdentity;
use crate::limits;
use crate::names::{Digest, ImagePath, Platform};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// What an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Oci,
    Docker,
}

/// Recognises an archive by what it holds; `None`: no archive of an image.
pub fn kind(path: &Path) -> Result<Option<Kind>, Error> {
    let mut file = File::open(path).map_err(|e| Error::usage(format!("`{}`: {e}", path.display())))?;
    let mut head = [0u8; 512];
    let got = read_full(&mut file, &mut head).map_err(|e| unreadable(path, &e))?;
    if got == 0 {
        return Err(Error::look(format!("`{}` is empty (0 bytes)", path.display())));
    }
    let is_tar = head.get(257..262) == Some(b"ustar");
    let is_compressed = head.starts_with(&[0x1f, 0x8b]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    if !is_tar && !is_compressed {
        return Ok(None);
    }
    let kind = Listing::open(path)?.kind();
    if kind.is_none() {
        return Err(Error::look(format!("`{}` is a tar file without an image in it", path.display()))
            .hint("expected `index.json` (OCI) or `manifest.json` (docker save); a root file system is given as `dir:DIR`"));
    }
    Ok(kind)
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::look(format!("archive `{}`: {error}", path.display()))
}

/// A range of the archive file.
#[derive(Clone)]
pub struct Window {
    file: Arc<File>,
    offset: u64,
    pub size: u64,
}

impl Window {
    /// A reader of the range, independent of all others.
    pub fn open(&self) -> Result<Box<dyn Read + Send>, Error> {
        Ok(Box::new(WindowReader { window: self.clone(), at: 0 }))
    }
}

struct WindowReader {
    window: Window,
    at: u64,
}

impl Read for WindowReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.window.size.saturating_sub(self.at);
        let take = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let Some(part) = buffer.get_mut(..take).filter(|p| !p.is_empty()) else { return Ok(0) };
        let got = read_at(&self.window.file, part, self.window.offset.saturating_add(self.at))?;
        if got == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive file is cut short"));
        }
        self.at = self.at.saturating_add(got as u64);
        Ok(got)
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

enum ListedMember {
    File(Window),
    LinkTo(ImagePath),
}

/// Members of an archive by normalised name.
struct Listing {
    members: BTreeMap<ImagePath, ListedMember>,
}

impl Listing {
    fn open(path: &Path) -> Result<Listing, Error> {
        let file = File::open(path).map_err(|e| Error::usage(format!("`{}`: {e}", path.display())))?;
        Listing::of(file).map_err(|e| unreadable(path, &e))
    }

    fn of(mut file: File) -> io::Result<Listing> {
        let mut magic = [0u8; 4];
        file.seek(SeekFrom::Start(0))?;
        if read_full(&mut file, &mut magic)? == 0 {
            return Err(io::Error::other("empty (0 bytes)"));
        }
        if magic.starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd] {
            file = uncompressed(file)?;
        }
        file.seek(SeekFrom::Start(0))?;
        Ok(Listing { members: list(file)? })
    }

    fn kind(&self) -> Option<Kind> {
        let oci = self.find("index.json").map(|_| Kind::Oci);
        oci.or_else(|| self.find("manifest.json").map(|_| Kind::Docker))
    }

    fn find(&self, name: &str) -> Option<&Window> {
        let mut path = ImagePath::new(name);
        for _ in 0..limits::SYMLINK_DEPTH_MAX {
            match self.members.get(&path)? {
                ListedMember::File(window) => return Some(window),
                ListedMember::LinkTo(target) => path = target.clone(),
            }
        }
        None
    }
}

/// What an archive consists of, by name, wherever the bytes are.
trait Members {
    fn document(&self, name: &str, place: &str) -> Result<Vec<u8>, Error>;
    /// A layer and its stored size, bytes.
    fn layer(&self, name: &str) -> Option<(LayerSource, u64)>;
}

impl Members for Listing {
    fn document(&self, name: &str, place: &str) -> Result<Vec<u8>, Error> {
        let window = self.find(name).ok_or_else(|| missing(name, place))?;
        read_small(window.open()?, limits::MANIFEST_BYTES_MAX, place)
    }

    fn layer(&self, name: &str) -> Option<(LayerSource, u64)> {
        self.find(name).map(|window| (LayerSource::Archived(window.clone()), window.size))
    }
}

fn missing(name: &str, place: &str) -> Error {
    Error::look(format!("{place}: `{name}` is missing in the archive"))
}

/// Members of an archive that passed by once: documents are kept, of layers only what they are called.
#[derive(Default)]
pub struct Passed {
    documents: BTreeMap<ImagePath, Vec<u8>>,
    links: BTreeMap<ImagePath, ImagePath>,
    /// Stored size, bytes.
    layers: BTreeMap<ImagePath, u64>,
    bytes: u64,
}

impl Passed {
    /// Keeps a manifest, an index or a config; refuses more of them than an archive of images has.
    pub fn document(&mut self, path: &ImagePath, bytes: Vec<u8>) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > limits::ARCHIVE_DOCUMENTS_BYTES_MAX {
            let limit = limits::ARCHIVE_DOCUMENTS_BYTES_MAX;
            return Err(io::Error::other(format!("more than {limit} bytes beside the layers")));
        }
        self.documents.insert(path.clone(), bytes);
        Ok(())
    }

    /// An earlier member of the same name no longer counts.
    pub fn forget(&mut self, path: &ImagePath) {
        self.documents.remove(path);
        self.links.remove(path);
        self.layers.remove(path);
    }

    pub fn link(&mut self, path: &ImagePath, target: ImagePath) {
        self.links.insert(path.clone(), target);
    }

    pub fn layer(&mut self, path: &ImagePath, size: u64) {
        self.layers.insert(path.clone(), size);
    }

    fn resolved(&self, name: &str) -> ImagePath {
        let mut path = ImagePath::new(name);
        for _ in 0..limits::SYMLINK_DEPTH_MAX {
            match self.links.get(&path) {
                Some(target) => path = target.clone(),
                None => break,
            }
        }
        path
    }
}

impl Members for Passed {
    fn document(&self, name: &str, place: &str) -> Result<Vec<u8>, Error> {
        self.documents.get(&self.resolved(name)).cloned().ok_or_else(|| missing(name, place))
    }

    fn layer(&self, name: &str) -> Option<(LayerSource, u64)> {
        let path = self.resolved(name);
        let size = *self.layers.get(&path)?;
        Some((LayerSource::Streamed(path), size))
    }
}

/// The documents of an archive that passed by, as blobs.
struct PassedBlobs<'a> {
    passed: &'a Passed,
    place: &'a str,
}

impl BlobStore for PassedBlobs<'_> {
    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, Error> {
        manifest_from_blob(descriptor, self.blob(descriptor)?)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        let bytes = self
            .passed
            .document(&blob_name(&descriptor.digest), self.place)
            .map_err(|_| self.absent(descriptor))?;
        Ok(Box::new(io::Cursor::new(bytes)))
    }
}

impl PassedBlobs<'_> {
    fn absent(&self, descriptor: &Descriptor) -> Error {
        missing_blob(descriptor, self.place)
    }
}

/// The image of an archive that passed by. Its layers cannot be opened any more: [`Image::streamed_layer`] says what they
/// were called.
pub(super) fn open_passed(
    reference: &str,
    passed: &Passed,
    place: &str,
    platform: Option<&Platform>,
) -> Result<Image, Error> {
    let has = |name: &str| passed.documents.contains_key(&passed.resolved(name));
    if has("manifest.json") && !has("index.json") {
        return open_docker(reference, passed, place, None);
    }
    if !has("index.json") {
        return Err(Error::look(format!("{place}: no archive of an image"))
            .hint("expected what `docker save` or `skopeo copy … oci-archive:` writes"));
    }
    let store = PassedBlobs { passed, place };
    let index = index_of(passed.document("index.json", place)?);
    let top = select_from(&index, &store, place, None, platform)?;
    let mut image = Image::of_manifest(reference, top, &store, platform, None)?;
    for layer in &mut image.layers {
        if let LayerSource::Blob(descriptor) = layer {
            *layer = LayerSource::Streamed(ImagePath::new(&blob_name(&descriptor.digest)));
        }
    }
    Ok(image)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn missing_blob(descriptor: &Descriptor, place: &str) -> Error {
    Error::look(format!("{place}: blob {} is missing in the archive", descriptor.digest))
        .hint("the archive holds another platform's image only, or was written incompletely")
}

fn uncompressed(mut file: File) -> io::Result<File> {
    file.seek(SeekFrom::Start(0))?;
    let mut out = tempfile::tempfile()?;
    let limit = limits::LAYER_BYTES_MAX;
    let copied = io::copy(&mut decompress::decompress(file)?.take(limit), &mut out)?;
    if copied >= limit {
        return Err(io::Error::other(format!("more than {limit} bytes uncompressed")));
    }
    Ok(out)
}

fn list(file: File) -> io::Result<BTreeMap<ImagePath, ListedMember>> {
    let shared = Arc::new(file.try_clone()?);
    let length = file.metadata()?.len();
    let mut members = BTreeMap::new();
    for entry in tar::Archive::new(file).entries_with_seek()? {
        let entry = entry?;
        let path = ImagePath::from_bytes(&entry.path_bytes());
        let kind = entry.header().entry_type();
        let link = entry.link_name_bytes().map(|l| String::from_utf8_lossy(&l).into_owned());
        let member = match (kind, link) {
            (tar::EntryType::Symlink, Some(link)) => ListedMember::LinkTo(path.parent().join(&link)),
            (tar::EntryType::Link, Some(link)) => ListedMember::LinkTo(ImagePath::new(&link)),
            _ => {
                let (offset, size) = (entry.raw_file_position(), entry.size());
                if offset.saturating_add(size) > length {
                    let message = format!("cut short: `{path}` should have {size} bytes");
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
                }
                ListedMember::File(Window { file: Arc::clone(&shared), offset, size })
            }
        };
        members.insert(path, member);
        if members.len() > limits::ARCHIVE_MEMBERS_MAX {
            return Err(io::Error::other("more members than are read"));
        }
    }
    Ok(members)
}

/// An OCI layout in a tar file.
pub struct OciArchive {
    listing: Listing,
    place: String,
    index: RawManifest,
}

impl OciArchive {
    pub fn open(path: &Path) -> Result<OciArchive, Error> {
        let (listing, place) = (Listing::open(path)?, path.display().to_string());
        let index = index_of(listing.document("index.json", &place)?);
        Ok(OciArchive { listing, place, index })
    }

    /// As [`super::layout::Layout::select`].
    pub fn select(&self, select: Option<&str>, platform: Option<&Platform>) -> Result<RawManifest, Error> {
        select_from(&self.index, self, &self.place, select, platform)
    }
}

impl BlobStore for OciArchive {
    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, Error> {
        manifest_from_blob(descriptor, self.blob(descriptor)?)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        let window = self.listing.find(&blob_name(&descriptor.digest));
        window.ok_or_else(|| missing_blob(descriptor, &self.place))?.open()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Opens an image of a `docker save` archive.
pub(super) fn open_docker_archive(
    file: &Path,
    reference: &str,
    select: Option<&str>,
) -> Result<Image, Error> {
    open_docker(reference, &Listing::open(file)?, &file.display().to_string(), select)
}

fn open_docker(
    reference: &str,
    members: &dyn Members,
    place: &str,
    select: Option<&str>,
) -> Result<Image, Error> {
    let images: Vec<DockerImage> = serde_json::from_slice(&members.document("manifest.json", place)?)
        .map_err(|e| Error::look(format!("{place}: manifest.json is no list of images: {e}")))?;
    let image = select_docker(&images, select, place)?;
    if image.layers.len() > limits::LAYERS_MAX {
        return Err(Error::look(format!(
            "{place}: {} layers, at most {} are read",
            image.layers.len(),
            limits::LAYERS_MAX
        )));
    }
    let config = members.document(&image.config, place)?;
    let mut layers = Vec::new();
    let mut identities = Vec::new();
    for name in &image.layers {
        let (layer, size) = members
            .layer(name)
            .ok_or_else(|| Error::look(format!("{place}: layer `{name}` is missing in the archive")))?;
        let digest =
            name.strip_prefix("blobs/sha256/").and_then(|hex| Digest::parse(&format!("sha256:{hex}")));
        identities.push(LayerIdentity { digest, size: Some(size), ..LayerIdentity::default() });
        layers.push(layer);
    }
    let identity = manifest::identity(reference, None, &config, identities)?;
    Ok(Image { identity, layers, store: None, registry: None })
}

fn select_docker<'a>(
    images: &'a [DockerImage],
    select: Option<&str>,
    place: &str,
) -> Result<&'a DockerImage, Error> {
    let tags: Vec<&str> =
        images.iter().flat_map(|i| i.repo_tags.iter().flatten()).map(String::as_str).collect();
    let known = if tags.is_empty() { "no tags".to_owned() } else { tags.join(", ") };
    let found = match select {
        None if images.len() > 1 => {
            return Err(Error::usage(format!("{place}: several images; there is {known}"))
                .hint("choose one: `docker-archive:FILE:TAG` or `docker-archive:FILE@0`"));
        }
        None => images.first(),
        Some(position) if position.starts_with('@') => {
            position.get(1..).and_then(|n| n.parse::<usize>().ok()).and_then(|n| images.get(n))
        }
        Some(wanted) => images.iter().find(|i| {
            let same = |t: &String| {
                Reference::parse(t).ok().zip(Reference::parse(wanted).ok()).is_some_and(|(a, b)| a == b)
            };
            i.repo_tags.iter().flatten().any(same)
                || i.repo_tags
                    .iter()
                    .flatten()
                    .any(|t| t == wanted || t.rsplit_once(':').is_some_and(|(_, tag)| tag == wanted))
        }),
    };
    found.ok_or_else(|| {
        Error::look(format!("{place}: no image `{}`; there is {known}", select.unwrap_or_default()))
    })
}
