//! A tar file that holds an image (`docker save`, `skopeo copy … oci-archive:`) -> manifests and blobs, read in place.
//!
//! The archive is listed once, by seeking from header to header; every blob is then a window of the file. A compressed
//! archive is first written uncompressed to an unlinked temporary file: it cannot be read in place.

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
pub(super) struct Listing {
    members: BTreeMap<ImagePath, ListedMember>,
}

impl Listing {
    pub(super) fn open(path: &Path) -> Result<Listing, Error> {
        let file = File::open(path).map_err(|e| Error::usage(format!("`{}`: {e}", path.display())))?;
        Listing::of(file).map_err(|e| unreadable(path, &e))
    }

    /// An archive on standard input cannot be read in place: it goes to an unlinked temporary file first.
    pub(super) fn of_stdin() -> Result<Listing, Error> {
        let failed = |e: io::Error| Error::look(format!("archive on standard input: {e}"));
        let mut file = tempfile::tempfile().map_err(failed)?;
        let limit = limits::LAYER_BYTES_MAX;
        let copied = io::copy(&mut io::stdin().lock().take(limit), &mut file).map_err(failed)?;
        if copied >= limit {
            return Err(Error::look(format!("archive on standard input: more than {limit} bytes")));
        }
        let listing = Listing::of(file).map_err(failed)?;
        if listing.kind().is_none() {
            return Err(Error::look("archive on standard input: a tar file without an image in it")
                .hint("expected what `docker save` or `skopeo copy … oci-archive:` writes"));
        }
        Ok(listing)
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

    pub(super) fn kind(&self) -> Option<Kind> {
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

    fn read(&self, name: &str, place: &str) -> Result<Vec<u8>, Error> {
        let window = self
            .find(name)
            .ok_or_else(|| Error::look(format!("{place}: `{name}` is missing in the archive")))?;
        read_small(window.open()?, limits::MANIFEST_BYTES_MAX, place)
    }
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
        OciArchive::of(Listing::open(path)?, &path.display().to_string())
    }

    pub(super) fn of(listing: Listing, place: &str) -> Result<OciArchive, Error> {
        let index = index_of(listing.read("index.json", place)?);
        Ok(OciArchive { listing, place: place.to_owned(), index })
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
        let name = format!("blobs/{}/{}", descriptor.digest.algorithm(), descriptor.digest.hex());
        let window = self.listing.find(&name).ok_or_else(|| {
            Error::look(format!("{}: blob {} is missing in the archive", self.place, descriptor.digest))
                .hint("the archive holds another platform's image only, or was written incompletely")
        })?;
        window.open()
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
pub(super) fn open_docker(
    reference: &str,
    listing: &Listing,
    place: &str,
    select: Option<&str>,
) -> Result<Image, Error> {
    let images: Vec<DockerImage> = serde_json::from_slice(&listing.read("manifest.json", place)?)
        .map_err(|e| Error::look(format!("{place}: manifest.json is no list of images: {e}")))?;
    let image = select_docker(&images, select, place)?;
    let config = listing.read(&image.config, place)?;
    let mut windows = Vec::new();
    let mut identities = Vec::new();
    for name in &image.layers {
        let window = listing
            .find(name)
            .ok_or_else(|| Error::look(format!("{place}: layer `{name}` is missing in the archive")))?;
        let digest =
            name.strip_prefix("blobs/sha256/").and_then(|hex| Digest::parse(&format!("sha256:{hex}")));
        identities.push(LayerIdentity { digest, size: Some(window.size), ..LayerIdentity::default() });
        windows.push(window.clone());
    }
    let identity = manifest::identity(reference, None, &config, identities)?;
    let layers = windows.into_iter().map(LayerSource::Archived).collect();
    let repository =
        image.repo_tags.iter().flatten().next().and_then(|t| t.rsplit_once(':')).map(|(r, _)| r.to_owned());
    Ok(Image {
        identity,
        layers,
        store: None,
        repository: repository.unwrap_or_else(|| reference.to_owned()),
    })
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
