//! Facts of layers kept: what was read once is not read again, here or on another machine.
//!
//! An entry is named by the digest that was checked while the layer was read, below a directory of the schema, and is read
//! only if it says the same of itself ([`entry`]). The catalog is not part of the name: new drivers need no new scan.
//!
//! | place | module | who else sees it |
//! |---|---|---|
//! | a directory | `local` | who may read it |
//! | an object store | `shared` | every machine that is given its URL |
//! | the image's registry | `referrers` | who may pull the image |
//!
//! A place that cannot be read or written costs time, never an answer: it is told once and left alone from then on.

mod entry;
mod form;
mod local;
mod shared;

pub mod referrers;

pub use entry::Secret;
pub(crate) use entry::{Key, Variant};
pub use local::Usage;
pub use shared::ObjectStore;

use crate::facts::LayerFacts;
use crate::image::{Documents, Error};
use crate::names::Digest;
use entry::Refused;
use local::Local;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Grows with every change of what a scan sees or how it is stored.
pub const CACHE_SCHEMA: u32 = 7;

/// A place of entries that other machines see. Names are relative paths.
pub trait Place: Send + Sync {
    /// What it is called in messages.
    fn name(&self) -> String;
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error>;
    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Error>;
    /// Whether everybody who may write here may be believed about every layer. Else its entries, unless they are signed, are
    /// used for the image at hand and kept nowhere.
    fn speaks_for_all(&self) -> bool {
        true
    }
    /// Whether an entry that was found nearer should be written here too.
    fn lacks(&self, _path: &str) -> Result<bool, Error> {
        Ok(false)
    }
}

struct Shared {
    place: Arc<dyn Place>,
    may_write: bool,
    secret: Option<Secret>,
    /// It failed: it is not asked again, or not before some time has passed. Who may only read is refused when writing.
    reads: Outage,
    writes: Outage,
}

/// Since when a place does not answer.
#[derive(Default)]
struct Outage(Mutex<Option<Instant>>);

impl Outage {
    fn begins(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether it is over; `true` for one caller.
    fn ends(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }

    /// `pause`: after which the place is tried again.
    fn lasts(&self, pause: Option<Duration>) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| pause.is_none_or(|pause| since.elapsed() < pause))
    }
}

/// Where facts of layers are kept; nowhere with `--no-cache`. Clones are the same cache.
#[derive(Clone, Default)]
pub struct Cache {
    local: Option<Local>,
    /// With which entries of the directory are signed, too: what came in without a signature is not believed later.
    secret: Option<Secret>,
    shared: Vec<Arc<Shared>>,
    has_grown: Arc<AtomicBool>,
    /// After which a place that failed is tried again; `None`: never.
    pause: Option<Duration>,
    flights: Arc<Flights>,
    remarks: Arc<Mutex<Remarks>>,
}

/// What the user should know, each thing once.
#[derive(Default)]
struct Remarks {
    told: BTreeSet<String>,
    untold: Vec<String>,
}

impl Cache {
    /// A cache in `dir`, which is made when the first layer is stored. It is kept below `bytes_max`.
    pub fn at(dir: &Path, bytes_max: u64) -> Cache {
        Cache { local: Some(Local::new(dir, bytes_max)), ..Cache::default() }
    }

    /// No cache.
    pub fn none() -> Cache {
        Cache::default()
    }

    /// The same with another place behind it. With a secret only entries that were signed with it are read, and those
    /// written are signed.
    #[must_use]
    pub fn with(&self, place: Arc<dyn Place>, may_write: bool, secret: Option<Secret>) -> Cache {
        let mut cache = self.clone();
        cache.secret.clone_from(&secret);
        let (reads, writes) = Default::default();
        cache.shared.push(Arc::new(Shared { place, may_write, secret, reads, writes }));
        cache
    }

    /// The same for a program that runs for long: a place that failed is tried again after `pause`.
    #[must_use]
    pub fn that_recovers(mut self, pause: Duration) -> Cache {
        self.pause = Some(pause);
        self
    }

    pub fn dir(&self) -> Option<&Path> {
        self.local.as_ref().map(Local::dir)
    }

    /// What the user should know of places that failed; each is told once.
    pub fn take_remarks(&self) -> Vec<String> {
        std::mem::take(&mut self.remarks.lock().unwrap_or_else(PoisonError::into_inner).untold)
    }

    /// Something that the user should know: one text about each thing.
    pub fn remark(&self, about: &str, text: String) {
        let mut remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        if remarks.told.insert(about.to_owned()) {
            remarks.untold.push(text);
        }
    }

    /// Facts of a layer, from the nearest place that has them.
    pub(crate) fn get(&self, key: &Key) -> Option<LayerFacts> {
        let path = key.path();
        if let Some(bytes) = self.local.as_ref().and_then(|l| l.read(&path))
            && let Ok(packed) = entry::open(key, &bytes, self.secret.as_ref())
            && let Some(facts) = entry::unpack(packed)
        {
            for shared in self.shared.iter().filter(|s| s.may_write) {
                if self.read(shared, |place| place.lacks(&path)) == Some(true) {
                    self.write(shared, &path, &entry::seal(key, packed, shared.secret.as_ref()));
                }
            }
            return Some(facts);
        }
        for shared in &self.shared {
            let Some(bytes) = self.read(shared, |place| place.read(&path)).flatten() else { continue };
            match entry::open(key, &bytes, shared.secret.as_ref()) {
                Ok(packed) => {
                    let Some(facts) = entry::unpack(packed) else { continue };
                    let is_trusted = shared.secret.is_some() || shared.place.speaks_for_all();
                    if let Some(local) = self.local.as_ref().filter(|_| is_trusted) {
                        local.write(&path, &entry::seal(key, packed, self.secret.as_ref()));
                        self.has_grown.store(true, Ordering::Relaxed);
                    }
                    return Some(facts);
                }
                Err(Refused::Untrusted) => {
                    let name = shared.place.name();
                    let text = format!("{name}: entries without a signature of the cache key are not used");
                    self.remark(&format!("{name} signature"), text);
                }
                Err(Refused::Damaged) => {}
            }
        }
        None
    }

    /// Keeps facts of a layer in every place; a cache that cannot be written is as good as none.
    pub(crate) fn put(&self, key: &Key, facts: &LayerFacts) {
        if self.local.is_none() && self.shared.is_empty() {
            return;
        }
        let Ok(packed) = entry::pack(facts) else { return };
        let path = key.path();
        if let Some(local) = &self.local {
            local.write(&path, &entry::seal(key, &packed, self.secret.as_ref()));
            self.has_grown.store(true, Ordering::Relaxed);
        }
        for shared in self.shared.iter().filter(|s| s.may_write) {
            self.write(shared, &path, &entry::seal(key, &packed, shared.secret.as_ref()));
        }
    }

    fn read<T>(&self, shared: &Shared, ask: impl Fn(&dyn Place) -> Result<T, Error>) -> Option<T> {
        if shared.reads.lasts(self.pause) {
            return None;
        }
        match ask(shared.place.as_ref()) {
            Ok(answer) => {
                if shared.reads.ends() {
                    self.is_back(shared);
                }
                Some(answer)
            }
            Err(error) => {
                shared.reads.begins();
                self.lost(shared, &format!("read: {}; going on without it", error.message));
                None
            }
        }
    }

    fn write(&self, shared: &Shared, path: &str, bytes: &[u8]) {
        if shared.reads.lasts(self.pause) || shared.writes.lasts(self.pause) {
            return;
        }
        match shared.place.write(path, bytes) {
            Ok(()) if shared.writes.ends() => self.is_back(shared),
            Ok(()) => {}
            Err(error) => {
                shared.writes.begins();
                self.lost(shared, &format!("written: {}; nothing more is kept there", error.message));
            }
        }
    }

    /// The next outage is told again.
    fn is_back(&self, shared: &Shared) {
        let name = shared.place.name();
        let mut remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        if remarks.told.remove(&name) {
            remarks.untold.push(format!("{name} answers again"));
        }
    }

    fn lost(&self, shared: &Shared, how: &str) {
        let name = shared.place.name();
        self.remark(&name, format!("{name} cannot be {how}"));
    }

    /// Waits until nobody else in this process scans that layer, unless `waits` is off. Then it is either kept, or the caller's
    /// to scan.
    pub(crate) fn claim(&self, key: &Key, waits: bool) -> Result<Option<Claim<'_>>, Busy> {
        if self.local.is_none() && self.shared.is_empty() {
            return Ok(None);
        }
        let mut busy = self.flights.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while !busy.insert(key.clone()) {
            if !waits {
                return Err(Busy);
            }
            busy = self.flights.landed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(Some(Claim { flights: &self.flights, key: key.clone() }))
    }

    /// Removes the longest unused entries where the directory has grown too large since the last call.
    pub fn keep_small(&self) {
        if let Some(local) = &self.local
            && self.has_grown.swap(false, Ordering::Relaxed)
        {
            local.keep_small();
        }
    }

    /// How much the directory holds.
    pub fn usage(&self) -> Usage {
        self.local.as_ref().map(Local::usage).unwrap_or_default()
    }

    /// Removes everything from the directory.
    pub fn clear(&self) -> io::Result<Usage> {
        self.local.as_ref().map_or(Ok(Usage::default()), Local::clear)
    }

    /// Removes entries of other schemas and those not used for `days` days from the directory, then the longest unused
    /// until at most `bytes_max` are left.
    pub fn prune(&self, days: u64, bytes_max: Option<u64>) -> io::Result<Usage> {
        self.local.as_ref().map_or(Ok(Usage::default()), |local| local.prune(days, bytes_max))
    }
}

/// Configs of images, which manifests name by digest: with them kept, an image that is known costs its registry manifests only.
impl Documents for Cache {
    fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        let path = document_path(digest);
        let is_it = |bytes: &Vec<u8>| digest.algorithm() == "sha256" && Digest::of(bytes) == *digest;
        if let Some(bytes) = self.local.as_ref().and_then(|l| l.read(&path)).filter(is_it) {
            return Some(bytes);
        }
        let mut shared = self.shared.iter().filter_map(|s| self.read(s, |place| place.read(&path)).flatten());
        let bytes = shared.find(is_it)?;
        if let Some(local) = &self.local {
            local.write(&path, &bytes);
        }
        Some(bytes)
    }

    fn put(&self, digest: &Digest, bytes: &[u8]) {
        let path = document_path(digest);
        if let Some(local) = &self.local {
            local.write(&path, bytes);
        }
        for shared in self.shared.iter().filter(|s| s.may_write) {
            self.write(shared, &path, bytes);
        }
    }
}

fn document_path(digest: &Digest) -> String {
    format!("configs-v1/{}-{}.json", digest.algorithm(), digest.hex())
}

/// Layers that are being scanned in this process.
#[derive(Default)]
struct Flights {
    busy: Mutex<BTreeSet<Key>>,
    landed: Condvar,
}

/// Somebody else scans the layer.
#[derive(Debug)]
pub(crate) struct Busy;

/// The right to scan a layer, until it is dropped.
pub(crate) struct Claim<'a> {
    flights: &'a Flights,
    key: Key,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.flights.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.flights.landed.notify_all();
    }
}
