//! An image reference -> manifest, config and one reader of stored bytes per layer, whatever the source.
//!
//! | prefix | module | what it reads |
//! |---|---|---|
//! | none, `registry:`, `docker://` | `registry` | a registry over HTTP |
//! | `oci:` | `layout` | an OCI layout directory |
//! | `oci-archive:`, `docker-archive:` | `archive` | a tar file of either kind |
//! | `docker-daemon:`, `podman:`, `containers-storage:`, `containerd:`, `-` | `engine`, `archive` | such a file as a stream |
//! | `dir:`, `file:` | here | an unpacked root file system, a single file |

mod ahead;
pub mod archive;
pub mod auth;
pub mod decompress;
mod engine;
pub mod layout;
pub mod manifest;
pub mod reference;
pub mod registry;
pub mod source;
pub mod toc;
pub mod verify;

use crate::facts::{ImageIdentity, LayerIdentity};
use crate::limits;
use crate::names::{Digest, ImagePath, Platform};
use manifest::{Manifest, RawManifest};
use registry::{Connections, Registry, RegistryOptions};
use source::Source;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use toc::Toc;

/// Why an image could not be opened or read. Printed as one line, with `hint` below it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: ErrorKind,
    /// Lower case, no full stop: what, where, and the values that clash. Never a secret.
    pub message: String,
    /// What the person can do about it.
    pub hint: Option<String>,
}

/// What an error means for the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// What was typed is wrong: exit 2.
    Usage,
    /// The image exists but could not be looked at completely: exit 3.
    Look,
    /// A layer of it is being read for another image: later.
    Busy,
    /// The registry says that there is no such image: exit 3.
    NotFound,
    /// There is nothing for the platform that was asked for: exit 3.
    NoPlatform,
}

impl Error {
    pub fn usage(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::Usage, message: message.into(), hint: None }
    }

    pub fn look(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::Look, message: message.into(), hint: None }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// An IO error at `place`; an [`Error`] that travelled inside it keeps its own words.
    pub fn io(place: &str, error: &std::io::Error) -> Error {
        match error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
            Some(own) => Error { message: format!("{place}: {}", own.message), ..own.clone() },
            None => Error::look(format!("{place}: {error}")),
        }
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        std::io::Error::other(error)
    }
}

/// Small documents that are named by their digest, kept from an earlier look.
pub trait Documents: Send + Sync {
    /// Bytes that have this digest.
    fn get(&self, digest: &Digest) -> Option<Vec<u8>>;
    fn put(&self, digest: &Digest, bytes: &[u8]);
}

/// A readable blob of the image: what the manifest says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    /// Compressed size as stored, bytes.
    pub size: u64,
    /// Where else a non-distributable layer may be fetched from.
    pub urls: Vec<String>,
    pub annotations: BTreeMap<String, String>,
}

/// A place that holds manifests and blobs by digest.
pub trait BlobStore: Send + Sync {
    /// A manifest by digest.
    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, Error>;
    /// The stored bytes of a blob, unchecked.
    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, Error>;
    /// Some of the stored bytes of a blob, unchecked; `None` where this place gives whole blobs only.
    fn range(&self, _blob: &Descriptor, _start: u64, _len: u64) -> Option<Result<Vec<u8>, Error>> {
        None
    }
    /// Bytes that came over the network so far.
    fn bytes_downloaded(&self) -> u64 {
        0
    }
}

/// The archive of a source that gives one as a stream; `None` for sources that are opened.
pub fn stream(source: &Source, options: &OpenOptions) -> Result<Option<Box<dyn Read + Send>>, Error> {
    match source {
        Source::Stdin => Ok(Some(Box::new(io::stdin()))),
        Source::Engine { engine, name } => {
            let limits = engine::Limits { offline: options.offline, timeout: options.registry.timeout };
            engine::export(*engine, name, options.platform.as_ref(), limits).map(Some)
        }
        _ => Ok(None),
    }
}

/// How to open images.
#[derive(Clone, Default)]
pub struct OpenOptions {
    pub platform: Option<Platform>,
    pub registry: RegistryOptions,
    /// Nothing over the network.
    pub offline: bool,
    /// Configs of images in registries that were met before.
    pub documents: Option<Arc<dyn Documents>>,
    /// What of manifests is kept among the documents.
    pub manifests: Manifests,
    /// Connections that images opened with the same options share.
    pub connections: Connections,
}

/// Whether manifests are kept among the documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manifests {
    /// The registry is asked each time, and nothing is kept.
    #[default]
    Asked,
    /// The registry is asked, and what it says is kept.
    Kept,
    /// Those that are kept are not asked for. Only for who has shown before that the repository gives them to him.
    Known,
}

/// An opened image: what it is, and where its layers' bytes are.
pub struct Image {
    pub identity: ImageIdentity,
    layers: Vec<LayerSource>,
    store: Option<Box<dyn BlobStore>>,
    registry: Option<Registry>,
}

enum LayerSource {
    Blob(Descriptor),
    /// A member of a docker archive, named by nothing but its diff_id.
    Archived(archive::Window),
    /// A member of an archive that passed by.
    Streamed(ImagePath),
    Directory(PathBuf),
    SingleFile(PathBuf),
}

/// A layer with a table of contents.
pub struct Seekable<'a> {
    pub toc: Toc,
    layer: &'a Descriptor,
    store: &'a dyn BlobStore,
    is_lost: AtomicBool,
}

impl Seekable<'_> {
    /// Whether bytes could not be had: then what went wrong is not a property of the layer.
    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    /// What facts read this way depend on: the layer, and the table that names the digest of every piece.
    pub fn key(&self) -> Digest {
        Digest::of(format!("{} {:?}", self.layer.digest, self.toc).as_bytes())
    }

    /// Whether the place gives parts of blobs: registries may send whole ones whatever they are asked for.
    pub fn is_possible(&self) -> bool {
        self.store.range(self.layer, 0, 1).is_some_and(|part| part.is_ok())
    }

    pub fn entries(&self) -> Result<Vec<toc::Entry>, Error> {
        self.toc.read(self.layer, |start, len| self.fetch(start, len))
    }

    /// Stored bytes of the layer.
    pub fn fetch(&self, start: u64, len: u64) -> Result<Vec<u8>, Error> {
        let whole_only =
            || Error::look(format!("layer {}: no part of it can be had", self.layer.digest.short()));
        match self.store.range(self.layer, start, len).ok_or_else(whole_only)? {
            Ok(bytes) if bytes.len() as u64 == len => Ok(bytes),
            Ok(bytes) => Err(Error::look(format!(
                "layer {}: {} bytes came where {len} from offset {start} on were asked for",
                self.layer.digest.short(),
                bytes.len()
            ))),
            Err(error) => {
                self.is_lost.store(true, Ordering::Relaxed);
                Err(error)
            }
        }
    }
}

/// The bytes of one layer.
pub enum Body {
    /// Stored bytes, checked against digest and size at their end where `digest` is known.
    Tar {
        stored: Box<dyn Read + Send>,
        digest_checked: bool,
    },
    Directory(PathBuf),
    SingleFile(PathBuf),
}

impl Image {
    /// Opens what `source` names: manifests and config are read, layers are not.
    pub fn open(source: &Source, options: &OpenOptions) -> Result<Image, Error> {
        let reference = source.to_string();
        let opened = match source {
            Source::Registry(name) => {
                let registry = options.connections.registry(name, &options.registry)?;
                let wanted = name.tag.clone();
                let documents = options.documents.as_deref();
                let platform = options.platform.as_ref();
                let store = Keeping { registry: &registry, documents, manifests: options.manifests };
                let top = match &name.digest {
                    Some(digest) => store.by_digest(digest)?,
                    None => store.kept(registry.manifest(&wanted.unwrap_or_else(|| "latest".to_owned()))?),
                };
                let image = Image::of_manifest(&reference, top, &store, platform, Some(&store))?;
                Ok(Image { store: Some(Box::new(registry.clone())), registry: Some(registry), ..image })
            }
            Source::OciLayout { dir, select } => {
                let store = layout::Layout::open(dir)?;
                let top = store.select(select.as_deref(), options.platform.as_ref())?;
                Image::from_store(&reference, top, Box::new(store), options)
            }
            Source::OciArchive { file, select } => {
                let store = archive::OciArchive::open(file)?;
                let top = store.select(select.as_deref(), options.platform.as_ref())?;
                Image::from_store(&reference, top, Box::new(store), options)
            }
            Source::DockerArchive { file, select } => {
                archive::open_docker_archive(file, &reference, select.as_deref())
            }
            Source::Stdin | Source::Engine { .. } => {
                Err(Error::look(format!("{reference}: it comes as a stream and is not opened twice")))
            }
            Source::Directory(dir) => Ok(Image::local(&reference, LayerSource::Directory(dir.clone()))),
            Source::SingleFile(file) => Ok(Image::local(&reference, LayerSource::SingleFile(file.clone()))),
        };
        opened.map(|image| image.of(source))
    }

    /// Its name without tag follows from what was typed, never from what an archive calls itself: ignores and baselines go by it.
    fn of(mut self, source: &Source) -> Image {
        self.identity.repository = source.repository();
        self
    }

    fn local(reference: &str, layer: LayerSource) -> Image {
        let identity = ImageIdentity {
            reference: reference.to_owned(),
            layers: vec![LayerIdentity::default()],
            ..ImageIdentity::default()
        };
        Image { identity, layers: vec![layer], store: None, registry: None }
    }

    fn from_store(
        reference: &str,
        top: RawManifest,
        store: Box<dyn BlobStore>,
        options: &OpenOptions,
    ) -> Result<Image, Error> {
        let image = Image::of_manifest(reference, top, store.as_ref(), options.platform.as_ref(), None)?;
        Ok(Image { store: Some(store), ..image })
    }

    fn of_manifest(
        reference: &str,
        top: RawManifest,
        store: &dyn BlobStore,
        platform: Option<&Platform>,
        documents: Option<&Keeping<'_>>,
    ) -> Result<Image, Error> {
        let (raw, config, layers) = resolve(reference, top, store, platform)?;
        let bytes = if let Some(known) = documents.and_then(|d| d.config(&config.digest)) {
            known
        } else {
            let place = format!("{reference}: image config {}", config.digest.short());
            let bytes = verify::read_all(store.blob(&config)?, &config, limits::CONFIG_BYTES_MAX)
                .map_err(|e| Error::io(&place, &e))?;
            if let Some(documents) = documents.and_then(|d| d.documents) {
                documents.put(&config.digest, &bytes);
            }
            bytes
        };
        let identities = layers
            .iter()
            .map(|l| LayerIdentity {
                digest: Some(l.digest.clone()),
                media_type: Some(l.media_type.clone()),
                size: Some(l.size),
                ..LayerIdentity::default()
            })
            .collect();
        let identity = manifest::identity(reference, Some(raw.digest), &bytes, identities)?;
        if let Some(wanted) = platform.filter(|w| !identity.platform.satisfies(w)) {
            let message = format!("{reference}: the image is for {}, not {wanted}", identity.platform);
            return Err(Error { kind: ErrorKind::NoPlatform, ..Error::look(message) });
        }
        let layers = layers.into_iter().map(LayerSource::Blob).collect();
        Ok(Image { identity, layers, store: None, registry: None })
    }

    /// Whether the registry gives every layer that the manifest names to whoever asks: a manifest may name layers of others, whose
    /// facts are kept here.
    pub fn is_present(&self) -> Result<(), Error> {
        let Some(registry) = &self.registry else { return Ok(()) };
        let layers = self.layers.iter().filter_map(|layer| match layer {
            LayerSource::Blob(descriptor) => Some(&descriptor.digest),
            _ => None,
        });
        for digest in layers {
            if !registry.has_blob(digest)? {
                let reference = &self.identity.reference;
                return Err(Error::look(format!("{reference}: the registry has no blob {}", digest.short())));
            }
        }
        Ok(())
    }

    /// The registry that the image is in.
    pub fn registry(&self) -> Option<&Registry> {
        self.registry.as_ref()
    }

    /// The image of an archive that came as a stream and has passed by.
    pub fn of_passed(
        source: &Source,
        passed: &archive::Passed,
        options: &OpenOptions,
    ) -> Result<Image, Error> {
        let image =
            archive::open_passed(&source.to_string(), passed, &source.place(), options.platform.as_ref())?;
        Ok(image.of(source))
    }

    /// The name that a layer had in an archive that has passed by.
    pub fn streamed_layer(&self, index: usize) -> Option<&ImagePath> {
        match self.layers.get(index)? {
            LayerSource::Streamed(path) => Some(path),
            _ => None,
        }
    }

    pub fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// Stored size of a layer, bytes, where it is known beforehand.
    pub fn layer_size(&self, index: usize) -> Option<u64> {
        self.identity.layers.get(index).and_then(|l| l.size)
    }

    /// Under which digest facts of a layer may be kept: only one that is checked while the bytes are read.
    pub fn layer_key(&self, index: usize) -> Option<&Digest> {
        match self.layers.get(index)? {
            LayerSource::Blob(descriptor) => Some(&descriptor.digest),
            _ => None,
        }
    }

    /// Opens the bytes of a layer.
    pub fn layer(&self, index: usize) -> Result<Body, Error> {
        let source =
            self.layers.get(index).ok_or_else(|| Error::look(format!("there is no layer {index}")))?;
        match (source, &self.store) {
            (LayerSource::Blob(descriptor), Some(store)) => {
                let stored = verify::Verified::new(store.blob(descriptor)?, descriptor.clone());
                Ok(Body::Tar { stored: Box::new(stored), digest_checked: true })
            }
            (LayerSource::Streamed(path), _) => {
                Err(Error::look(format!("layer {index} (`{path}`) has passed by in a stream")))
            }
            (LayerSource::Blob(_), None) => {
                Err(Error::look(format!("layer {index} has no place to be read from")))
            }
            (LayerSource::Archived(window), _) => {
                Ok(Body::Tar { stored: window.open()?, digest_checked: false })
            }
            (LayerSource::Directory(dir), _) => Ok(Body::Directory(dir.clone())),
            (LayerSource::SingleFile(file), _) => Ok(Body::SingleFile(file.clone())),
        }
    }

    /// A layer that can be read by its table of contents, where it stands in a place that gives parts of blobs.
    pub fn seekable(&self, index: usize) -> Option<Seekable<'_>> {
        let LayerSource::Blob(layer) = self.layers.get(index)? else { return None };
        let store = self.store.as_deref()?;
        let toc = Toc::of(&layer.annotations)?;
        store.range(layer, 0, 0)?.ok()?;
        Some(Seekable { toc, layer, store, is_lost: AtomicBool::new(false) })
    }

    /// Bytes of manifests, configs and blobs that came over the network so far.
    pub fn bytes_downloaded(&self) -> u64 {
        self.store.as_ref().map_or(0, |s| s.bytes_downloaded())
    }
}

/// A registry whose manifests are kept.
struct Keeping<'a> {
    registry: &'a Registry,
    documents: Option<&'a dyn Documents>,
    manifests: Manifests,
}

impl Keeping<'_> {
    /// A config that is kept; to whom the registry has not shown the image yet, it has to show the config too.
    fn config(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.documents.filter(|_| self.manifests != Manifests::Kept)?.get(digest)
    }

    fn by_digest(&self, digest: &Digest) -> Result<RawManifest, Error> {
        if self.manifests == Manifests::Known
            && let Some(bytes) = self.documents.and_then(|d| d.get(digest))
        {
            return Ok(RawManifest { bytes, media_type: String::new(), digest: digest.clone() });
        }
        Ok(self.kept(self.registry.manifest(digest.as_str())?))
    }

    fn kept(&self, manifest: RawManifest) -> RawManifest {
        if self.manifests != Manifests::Asked
            && let Some(documents) = self.documents
        {
            documents.put(&manifest.digest, &manifest.bytes);
        }
        manifest
    }
}

impl BlobStore for Keeping<'_> {
    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, Error> {
        self.by_digest(&descriptor.digest)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        self.registry.blob(descriptor)
    }
}

impl BlobStore for Registry {
    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, Error> {
        Registry::manifest(self, descriptor.digest.as_str())
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        Registry::blob(self, descriptor)
    }

    fn range(&self, blob: &Descriptor, start: u64, len: u64) -> Option<Result<Vec<u8>, Error>> {
        Some(Registry::range(self, blob, start, len))
    }

    fn bytes_downloaded(&self) -> u64 {
        Registry::bytes_downloaded(self)
    }
}

/// Fills `buffer` as far as the bytes reach.
pub(crate) fn read_full(reader: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0usize;
    while let Some(rest) = buffer.get_mut(done..).filter(|r| !r.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(n) => done = done.saturating_add(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Follows indexes (nested ones too) down to one image manifest.
fn resolve(
    reference: &str,
    top: RawManifest,
    store: &dyn BlobStore,
    wanted: Option<&Platform>,
) -> Result<(RawManifest, Descriptor, Vec<Descriptor>), Error> {
    let mut raw = top;
    let mut wanted = wanted;
    for _ in 0..limits::INDEX_DEPTH_MAX {
        match manifest::parse(&raw, reference)? {
            Manifest::Image { config, layers } => return Ok((raw, config, layers)),
            Manifest::Index(entries) => {
                let mut runnable = Vec::new();
                flatten(reference, entries, store, 1, &mut runnable)?;
                raw = store.manifest(&manifest::choose(&runnable, wanted, reference)?)?;
                wanted = None;
            }
        }
    }
    Err(Error::look(format!(
        "{reference}: indexes within indexes, more than {} deep",
        limits::INDEX_DEPTH_MAX
    )))
}

/// All images of an index and of the indexes within it, each with its platform; where an entry does not say it, its
/// config does.
fn flatten(
    reference: &str,
    entries: Vec<manifest::IndexEntry>,
    store: &dyn BlobStore,
    depth: usize,
    out: &mut Vec<(Platform, Descriptor)>,
) -> Result<(), Error> {
    for entry in entries {
        if let (Some(platform), false) = (&entry.platform, entry.is_index) {
            out.push((platform.clone(), entry.descriptor));
            continue;
        }
        if depth >= limits::INDEX_DEPTH_MAX {
            return Err(Error::look(format!("{reference}: indexes within indexes, more than {depth} deep")));
        }
        match manifest::parse(&store.manifest(&entry.descriptor)?, reference)? {
            Manifest::Index(inner) => flatten(reference, inner, store, depth + 1, out)?,
            Manifest::Image { config, .. } => {
                let place = format!("{reference}: image config {}", config.digest.short());
                let bytes = verify::read_all(store.blob(&config)?, &config, limits::CONFIG_BYTES_MAX)
                    .map_err(|e| Error::io(&place, &e))?;
                let platform = manifest::platform_of_config(&bytes).unwrap_or_default();
                out.push((platform, entry.descriptor));
            }
        }
    }
    Ok(())
}
