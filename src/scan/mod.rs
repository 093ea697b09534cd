//! Bytes of layers -> [`LayerFacts`], one forward pass each, several layers at a time.
//!
//! For each layer: open, check the digest while reading, decompress, walk the tar, and for each regular file ask by
//! name and first bytes which analyzer wants it. After the end marker the stream is drained, so that the digest is
//! really checked: facts leave here only when the bytes behind them were right.

mod archive;
mod capture;
mod code;
mod elf;
mod fatbin;
mod file;
mod rpm;
mod seekable;
mod spool;
mod symbols;
mod tar;
mod texts;
mod tree;

pub mod cache;
pub mod stream;

use crate::facts::{Content, Depth, Entry, EntryKind, LayerFacts, LayerProblem};
use crate::image::{Body, Error, ErrorKind, Image, Seekable, decompress, verify};
use crate::limits;
use crate::names::{Digest, ImagePath};
use cache::{Key, Variant};
use file::{FileScan, Scratch};
pub use spool::Budget;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tar::{Member, MemberKind, TarReader};

/// How to scan.
#[derive(Clone, Default)]
pub struct Options {
    /// Layers at a time; 0 = as many as cores, at most [`limits::WORKERS_MAX`].
    pub jobs: usize,
    /// SHA-256 of every ELF file and fatbin.
    pub hash_files: bool,
    /// Check the digest of the uncompressed bytes too.
    pub verify_diff_ids: bool,
    /// Leave GPU code out, and read seekable layers by their tables of contents.
    pub depth: Depth,
    /// Read seekable layers whole, so that their digest is checked.
    pub verify_blobs: bool,
    /// Take what is kept, and neither read a layer nor wait for somebody who does.
    pub cached_only: bool,
    /// Where somebody else reads a layer at the moment, say so instead of waiting for it.
    pub impatient: bool,
    /// Take what was kept of images of this registry alone, and keep for them alone: who names a layer elsewhere must bring it.
    pub scope: Option<String>,
    pub progress: Option<Arc<dyn Progress>>,
    /// Memory that several scans at the same time share; `None`: one of its own.
    pub budget: Option<Budget>,
}

impl Options {
    fn key(&self, digest: &Digest) -> Key {
        let variant = match (self.depth, self.hash_files) {
            (Depth::Libraries, _) => Variant::Libraries,
            (Depth::Full, true) => Variant::Hashed,
            (Depth::Full, false) => Variant::Plain,
        };
        Key { digest: digest.clone(), variant, scope: self.scope.clone() }
    }
}

/// Hears how far a scan is. Called from several threads.
pub trait Progress: Send + Sync {
    /// Stored bytes of a layer that were just read.
    fn read(&self, layer: usize, bytes: u64);
    /// The layer is done; `from_cache`: without reading it.
    fn done(&self, layer: usize, from_cache: bool);
}

/// All layers of an image, in order. A layer that could not be read is an error in its place; the others are facts.
pub struct Scan {
    pub layers: Vec<Result<LayerFacts, Error>>,
    pub layers_cached: u64,
}

/// Scans every layer that the cache does not know.
pub fn layers(image: &Image, cache: &cache::Cache, options: &Options) -> Scan {
    let count = image.layer_count();
    let mut order: Vec<usize> = (0..count).collect();
    // The longest first: the last one to finish decides.
    order.sort_by_key(|&i| std::cmp::Reverse(image.layer_size(i).unwrap_or(0)));
    let next = AtomicUsize::new(0);
    let cached = AtomicU64::new(0);
    let slots: Vec<Mutex<Option<Result<LayerFacts, Error>>>> = (0..count).map(|_| Mutex::new(None)).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs =
        if options.jobs == 0 { cores } else { options.jobs }.clamp(1, limits::WORKERS_MAX).min(count.max(1));
    let budget = options.budget.clone().unwrap_or_default();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (next, cached, slots, order, budget) = (&next, &cached, &slots, &order, &budget);
            scope.spawn(move || {
                let mut scratch = Scratch::new(budget.clone(), options.hash_files, options.depth);
                while let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (facts, hit) = cached_layer(image, index, cache, options, &mut scratch);
                    if hit {
                        cached.fetch_add(1, Ordering::Relaxed);
                    }
                    if let Some(progress) = &options.progress {
                        progress.done(index, hit);
                    }
                    if let Some(mut slot) = slots.get(index).and_then(|s| s.lock().ok()) {
                        *slot = Some(facts);
                    }
                }
            });
        }
    });
    let lost = || Err(Error::look("a scan thread ended without result"));
    let layers = slots.into_iter().map(|s| s.into_inner().ok().flatten().unwrap_or_else(lost)).collect();
    Scan { layers, layers_cached: cached.into_inner() }
}

fn cached_layer(
    image: &Image,
    index: usize,
    cache: &cache::Cache,
    options: &Options,
    scratch: &mut Scratch,
) -> (Result<LayerFacts, Error>, bool) {
    let seekable =
        match options.depth == Depth::Libraries && !options.verify_blobs && !options.verify_diff_ids {
            true => image.seekable(index),
            false => None,
        };
    let own = seekable.as_ref().map(Seekable::key);
    let digest = own.as_ref().or(image.layer_key(index)).filter(|_| !options.verify_diff_ids);
    let Some(key) = digest.map(|digest| options.key(digest)) else {
        return (layer(image, index, options, scratch), false);
    };
    if options.cached_only {
        let missing = || Error::look(format!("layer {index}: nothing is kept of it"));
        return (cache.get(&key).ok_or_else(missing), true);
    }
    // Who waits for another thread to scan the same layer finds its facts kept.
    let Ok(_claim) = cache.claim(&key, !options.impatient) else {
        let error = Error::look(format!("layer {index} is being read for another image"));
        return (Err(Error { kind: ErrorKind::Busy, ..error }), false);
    };
    if let Some(facts) = cache.get(&key) {
        return (Ok(facts), true);
    }
    let Some(seekable) = seekable.filter(Seekable::is_possible) else {
        let facts = layer(image, index, options, scratch);
        if let Ok(facts) = &facts {
            cache.put(&key, facts);
        }
        return (facts, false);
    };
    let why = match seekable::layer(&seekable, scratch) {
        Ok(facts) => {
            cache.put(&key, &facts);
            return (Ok(facts), false);
        }
        Err(error) => Error::io(&format!("layer {index}"), &error).message,
    };
    let mut facts = layer(image, index, options, scratch);
    let why = format!("{why}; the layer was read whole");
    match &mut facts {
        // What the layer is does not depend on how it came: not a fact.
        _ if seekable.is_lost() => cache.remark(&why, format!("{}: {why}", image.identity.reference)),
        Ok(facts) => {
            facts.problems.push(LayerProblem { path: ImagePath::new("/"), detail: why });
            cache.put(&key, facts);
        }
        Err(_) => {}
    }
    (facts, false)
}

/// Layers that are stored in fewer bytes are read on one thread: starting others would cost more than it saves.
const OVERLAP_BYTES_MIN: u64 = 4 << 20;

/// Scans one layer.
fn layer(image: &Image, index: usize, options: &Options, scratch: &mut Scratch) -> Result<LayerFacts, Error> {
    let identity = image.identity.layers.get(index);
    let name =
        identity.and_then(|l| l.digest.as_ref().or(l.diff_id.as_ref())).map(|d| format!(" {}", d.short()));
    let place = format!("{}: layer {}{}", image.identity.reference, index, name.unwrap_or_default());
    let spills_before = scratch.budget.spills.load(Ordering::Relaxed);
    let mut read = |fast: bool| match image.layer(index)? {
        Body::Directory(dir) => Ok(tree::directory(&dir, scratch)),
        Body::SingleFile(file) => Ok(tree::single_file(&file, scratch)),
        Body::Tar { stored, digest_checked } => {
            let wanted = identity
                .and_then(|l| l.diff_id.clone())
                .filter(|_| options.verify_diff_ids || !digest_checked);
            let stored = Counted { inner: stored, layer: index, progress: options.progress.clone() };
            let large = image.layer_size(index).is_none_or(|size| size >= OVERLAP_BYTES_MIN);
            Ok(match large {
                true => decompress::overlapped(stored, fast)
                    .and_then(|plain| tar_layer(plain, wanted.as_ref(), scratch)),
                false => decompress::decompress(stored)
                    .and_then(|plain| tar_layer(plain, wanted.as_ref(), scratch)),
            })
        }
    };
    let facts = match read(true)? {
        // Rare: what only the patient decoder reads, and damage, which it has words for.
        Err(error) if decompress::gave_up(&error) => read(false)?,
        facts => facts,
    };
    let mut facts = facts.map_err(|e| Error::io(&place, &e))?;
    facts.counts.spills = scratch.budget.spills.load(Ordering::Relaxed).saturating_sub(spills_before);
    Ok(facts)
}

/// Tells the progress how many stored bytes passed.
struct Counted {
    inner: Box<dyn Read + Send>,
    layer: usize,
    progress: Option<Arc<dyn Progress>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        if let Some(progress) = &self.progress {
            progress.read(self.layer, got as u64);
        }
        Ok(got)
    }
}

/// Uncompressed bytes of a layer -> facts; `diff_id` is checked where given.
fn tar_layer(plain: impl Read, diff_id: Option<&Digest>, scratch: &mut Scratch) -> io::Result<LayerFacts> {
    let Some(wanted) = diff_id else { return walk(plain, scratch).map(|(facts, _)| facts) };
    let (mut facts, reader) = walk(verify::Hashed::new(plain), scratch)?;
    let got = reader.digest();
    if &got != wanted {
        let message = format!("the uncompressed bytes have digest {got}, the config says {wanted}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    facts.diff_id = Some(got);
    Ok(facts)
}

fn walk<R: Read>(reader: R, scratch: &mut Scratch) -> io::Result<(LayerFacts, R)> {
    let mut tar = TarReader::new(reader);
    let mut facts = LayerFacts::default();
    while let Some(member) = tar.next()? {
        if facts.entries.len() >= limits::LAYER_ENTRIES_MAX {
            let message = format!("more than {} entries", limits::LAYER_ENTRIES_MAX);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        if tar.position() > limits::LAYER_BYTES_MAX {
            let message = format!("more than {} bytes uncompressed", limits::LAYER_BYTES_MAX);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        take_member(member, &mut facts, |path, size| file::scan(path, size, &mut tar, scratch))?;
    }
    tar.drain(limits::LAYER_BYTES_MAX)?;
    facts.counts.bytes_decompressed = tar.position();
    Ok((facts, tar.into_inner()))
}

fn take_member(
    member: Member,
    facts: &mut LayerFacts,
    scan: impl FnOnce(&ImagePath, u64) -> io::Result<FileScan>,
) -> io::Result<()> {
    let path = ImagePath::from_bytes(&member.name);
    let problem = |detail: &str| LayerProblem { path: path.clone(), detail: detail.to_owned() };
    if !tar::name_fits(&member.name) {
        facts.problems.push(LayerProblem {
            path: ImagePath::new(path.as_str().get(..200).unwrap_or_default()),
            detail: format!("a name of {} bytes: entry left out", member.name.len()),
        });
        return Ok(());
    }
    if climbs_above_root(&member.name) {
        facts.problems.push(problem("the name climbs above the root with `..`; taken as a path within it"));
    }
    if let Some(entry) = whiteout(&path, &member) {
        facts.entries.push(entry);
        return Ok(());
    }
    let mut content = None;
    let kind = match member.kind {
        MemberKind::Dir => EntryKind::Dir,
        MemberKind::Symlink => EntryKind::Symlink(String::from_utf8_lossy(&member.link).into_owned()),
        MemberKind::Hardlink => EntryKind::Hardlink(ImagePath::from_bytes(&member.link)),
        MemberKind::OverlayWhiteout | MemberKind::Other => EntryKind::Other,
        MemberKind::File => {
            let scanned = scan(&path, member.size)?;
            content = take_scan(&path, scanned, facts);
            EntryKind::File { size: member.size }
        }
    };
    if member.overlay_opaque && kind == EntryKind::Dir {
        facts.entries.push(Entry { path: path.clone(), kind: EntryKind::Opaque, content: None });
    }
    facts.entries.push(Entry { path, kind, content });
    Ok(())
}

/// Files the result of one file scan under the layer's counts and problems.
fn take_scan(path: &ImagePath, scanned: FileScan, facts: &mut LayerFacts) -> Option<Box<Content>> {
    facts.counts.files += 1;
    facts.counts.elf_files += u64::from(scanned.is_elf);
    facts
        .problems
        .extend(scanned.problems.into_iter().map(|detail| LayerProblem { path: path.clone(), detail }));
    scanned.content.map(Box::new)
}

fn climbs_above_root(name: &[u8]) -> bool {
    let mut depth = 0i64;
    for part in name.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

/// `.wh.NAME` and `.wh..wh..opq`; other `.wh..wh.` names are aufs bookkeeping and mean nothing.
fn whiteout(path: &ImagePath, member: &Member) -> Option<Entry> {
    let entry = |path, kind| Some(Entry { path, kind, content: None });
    if member.kind == MemberKind::OverlayWhiteout {
        return entry(path.clone(), EntryKind::Whiteout);
    }
    let name = path.file_name().strip_prefix(".wh.")?;
    if name == ".wh..opq" {
        return entry(path.parent(), EntryKind::Opaque);
    }
    if name.starts_with(".wh.") {
        return entry(path.clone(), EntryKind::Other);
    }
    entry(path.parent().join(name), EntryKind::Whiteout)
}
