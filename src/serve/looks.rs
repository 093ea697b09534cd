//! Images that somebody asked for -> what is known of them; who is not known yet waits in a bounded queue.
//!
//! Two kinds of threads work on it: quick ones read manifests and what is kept (milliseconds), slow ones read layers (minutes).
//! No registry gets all threads of a kind, so that one that hangs holds up nobody else's images.

use super::journal::Journal;
use super::metrics::Metrics;
use super::reader::{Access, Reader};
use crate::facts::ImageFacts;
use crate::image::reference::Reference;
use crate::image::registry::Registry;
use crate::image::source::Source;
use crate::image::{Error, ErrorKind};
use crate::limits::{
    SERVE_IMAGES_MAX, SERVE_QUICK_THREADS, SERVE_RETRIES_PER_PLACE, SERVE_RETRY_SECONDS, SERVE_TRIES_MAX,
};
use crate::names::{Digest, Platform};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// An image for one platform, read with somebody's rights.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub name: Reference,
    /// `None`: the one there is, or that of this machine.
    pub platform: Option<Platform>,
    pub access: Access,
}

impl Wanted {
    fn key(&self) -> String {
        let Reference { digest, .. } = &self.name;
        let which = match digest {
            Some(digest) => format!("@{digest}"),
            None => format!(":{}", self.name.tag_or_digest()),
        };
        let platform = self.platform.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("{}{which} {platform} {}", self.name.repository_name(), self.access.id())
    }
}

/// An image that was looked at.
#[derive(Clone, Debug)]
pub struct Known {
    /// By the digest of the platform's manifest.
    pub name: Reference,
    pub digest: Digest,
    pub platform: Option<Platform>,
    pub access: Access,
}

impl Known {
    /// The facts under the name that they were asked for by: those of one digest are shared by all its names.
    pub fn named(facts: &ImageFacts, name: &Reference) -> ImageFacts {
        let mut facts = facts.clone();
        facts.image.reference = name.to_string();
        facts.image.repository = Source::Registry(name.clone()).repository();
        facts
    }
}

/// What is known of an image at a moment.
#[derive(Clone, Debug)]
pub enum Look {
    Known(Arc<Known>),
    /// It is being looked at; the receiver hears of the end.
    Coming(watch::Receiver<()>),
    Failed(Error),
    /// Nobody has looked, and nobody will: the queue is full, or looking was not asked for.
    Cold {
        full: bool,
    },
}

/// Before an image is taken up again whose layer is being read for another one.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// Why an image is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing is to happen for it.
    Peek,
    /// A pod, or a question.
    Asked,
    /// It was promised; the number of the promise.
    Promised(u64),
}

/// Times by which answers grow old.
#[derive(Clone, Copy, Debug)]
pub struct Ages {
    /// After which a tag is asked for again while the old answer still stands.
    pub tag_soft: Duration,
    /// After which it does not stand any more.
    pub tag_hard: Duration,
    /// After which an image that could not be read is tried again.
    pub failure: Duration,
}

impl Default for Ages {
    fn default() -> Ages {
        let seconds = Duration::from_secs;
        Ages { tag_soft: seconds(20), tag_hard: seconds(60), failure: seconds(30) }
    }
}

/// How old answers may be, how many images may wait, and how many are read at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub ages: Ages,
    pub queue: usize,
    pub slow: usize,
}

/// Whether asking again would give the same answer.
fn is_final(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::NoPlatform | ErrorKind::NotFound)
}

/// What hears of images that were looked at: facts where they are new, and whether it was promised. Called from threads that may
/// wait.
pub type Listener = Box<dyn Fn(&Arc<Known>, Option<Arc<ImageFacts>>, bool) + Send + Sync>;

pub struct Looks {
    reader: Arc<Reader>,
    journal: Arc<Journal>,
    metrics: Arc<Metrics>,
    ages: Ages,
    queue_max: usize,
    listener: Listener,
    inner: Mutex<Inner>,
    work: Condvar,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<String, Entry>,
    quick: Lane,
    slow: Lane,
    later: Vec<(Instant, Job)>,
    /// Promises for images that are being read.
    joined: BTreeMap<String, Vec<u64>>,
    closing: bool,
}

struct Entry {
    answer: Option<Result<Arc<Known>, Error>>,
    answered: Instant,
    /// A registry that did not answer is not asked again before.
    rests_until: Option<Instant>,
    used: Instant,
    /// A thread has it, or a queue.
    busy: bool,
    ended: watch::Sender<()>,
}

#[derive(Default)]
struct Lane {
    jobs: VecDeque<Job>,
    by_host: BTreeMap<String, usize>,
}

#[derive(Clone)]
struct Job {
    key: String,
    wanted: Wanted,
    promises: Vec<u64>,
    tries: u32,
}

impl Lane {
    /// The first job whose registry has threads left.
    fn take(&mut self, per_host: usize) -> Option<Job> {
        let free = |job: &Job| self.by_host.get(job.wanted.name.api_host()).is_none_or(|n| *n < per_host);
        let at = self.jobs.iter().position(free)?;
        let job = self.jobs.remove(at)?;
        *self.by_host.entry(job.wanted.name.api_host().to_owned()).or_default() += 1;
        Some(job)
    }

    fn ended(&mut self, job: &Job) {
        let host = job.wanted.name.api_host();
        if let Some(count) = self.by_host.get_mut(host) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_host.remove(host);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Quick,
    Slow,
}

enum Outcome {
    /// Its facts were looked at before, under this name or another.
    Same(Arc<Known>),
    Facts(Arc<Known>, Arc<ImageFacts>),
    /// Layers have to be read.
    Missing,
    Failed(Error),
}

impl Looks {
    /// Starts the threads. Promises of an earlier run are taken up by the caller.
    pub fn start(
        reader: Arc<Reader>,
        journal: Arc<Journal>,
        metrics: Arc<Metrics>,
        limits: Limits,
        listener: Listener,
    ) -> Result<Arc<Looks>, Error> {
        let Limits { ages, queue: queue_max, slow } = limits;
        let inner = Mutex::default();
        let work = Condvar::new();
        let looks = Arc::new(Looks { reader, journal, metrics, ages, queue_max, listener, inner, work });
        let quick = (0..SERVE_QUICK_THREADS).map(|_| (Pace::Quick, SERVE_QUICK_THREADS / 4));
        let slow = (0..slow.max(1)).map(|_| (Pace::Slow, (slow / 2).max(1)));
        for (number, (pace, per_host)) in quick.chain(slow).enumerate() {
            let looks = Arc::clone(&looks);
            std::thread::Builder::new()
                .name(format!("look-{number}"))
                .spawn(move || looks.work(pace, per_host))
                .map_err(|e| Error::look(format!("threads cannot be started: {e}")))?;
        }
        Ok(looks)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known; what is not is queued, unless it is only peeked at.
    pub fn look(&self, wanted: &Wanted, why: Why) -> Look {
        let key = wanted.key();
        let now = Instant::now();
        let mut inner = self.inner();
        let waiting = inner.quick.jobs.len() + inner.slow.jobs.len();
        let is_tag = wanted.name.digest.is_none();
        if let Some(entry) = inner.entries.get_mut(&key) {
            entry.used = now;
            let age = now.saturating_duration_since(entry.answered);
            let rests = entry.rests_until.is_some_and(|until| now < until);
            let (stands, fresh) = match &entry.answer {
                None => (false, false),
                Some(Ok(_)) if !is_tag => (true, true),
                Some(Ok(_)) => {
                    (age < self.ages.tag_hard, age < self.ages.tag_soft || rests && age < self.ages.tag_hard)
                }
                Some(Err(_)) => (age < self.ages.failure, age < self.ages.failure),
            };
            let is_promise = matches!(why, Why::Promised(_));
            // Somebody says that it changed.
            let anew = is_promise && (is_tag || matches!(entry.answer, Some(Err(_))));
            if fresh && !anew || entry.busy || why == Why::Peek {
                let answer = match (&entry.answer, stands) {
                    (Some(Ok(known)), true) => Look::Known(Arc::clone(known)),
                    (Some(Err(error)), true) if !entry.busy => Look::Failed(error.clone()),
                    _ if entry.busy => Look::Coming(entry.ended.subscribe()),
                    _ => Look::Cold { full: false },
                };
                if let Why::Promised(id) = why
                    && inner.join(&key, id)
                {
                    drop(inner);
                    self.journal.done(id);
                }
                return answer;
            }
            if waiting >= self.queue_max && !is_promise {
                return match (&entry.answer, stands) {
                    (Some(Ok(known)), true) => Look::Known(Arc::clone(known)),
                    _ => Look::Cold { full: true },
                };
            }
            entry.busy = true;
            let answer = match (&entry.answer, stands) {
                (Some(Ok(known)), true) => Look::Known(Arc::clone(known)),
                _ => Look::Coming(entry.ended.subscribe()),
            };
            self.queue(&mut inner, key, wanted, why);
            return answer;
        }
        if why == Why::Peek || waiting >= self.queue_max && !matches!(why, Why::Promised(_)) {
            return Look::Cold { full: why != Why::Peek };
        }
        inner.make_room();
        let (ended, receiver) = watch::channel(());
        let entry = Entry { answer: None, answered: now, rests_until: None, used: now, busy: true, ended };
        inner.entries.insert(key.clone(), entry);
        self.queue(&mut inner, key, wanted, why);
        Look::Coming(receiver)
    }

    fn queue(&self, inner: &mut Inner, key: String, wanted: &Wanted, why: Why) {
        let promises = match why {
            Why::Promised(id) => vec![id],
            _ => Vec::new(),
        };
        inner.quick.jobs.push_back(Job { key, wanted: wanted.clone(), promises, tries: 0 });
        self.work.notify_all();
    }

    /// Waits for what is coming, at most until `until`.
    pub async fn wait(&self, wanted: &Wanted, why: Why, until: tokio::time::Instant) -> Look {
        loop {
            let look = self.look(wanted, why);
            let Look::Coming(mut ended) = look.clone() else { return look };
            if tokio::time::timeout_at(until, ended.changed()).await.is_err() {
                return look;
            }
            // The end of one look may be the answer to another question: it is asked for anew.
        }
    }

    /// Facts of an image that was looked at; `None` where they are no longer kept. Blocks.
    pub fn facts(&self, known: &Known) -> Result<Option<ImageFacts>, Error> {
        let opened = self.reader.open(&known.name, known.platform.as_ref(), &known.access)?;
        Ok(self.reader.kept(&opened))
    }

    /// The registry of an image, with the rights it was read with.
    pub fn registry(&self, known: &Known) -> Result<Registry, Error> {
        self.reader.open.connections.registry(&known.name, &self.reader.open.registry)
    }

    /// What was known is kept no longer: the next question looks again.
    pub fn forget(&self, wanted: &Wanted) {
        let mut inner = self.inner();
        let key = wanted.key();
        if inner.entries.get(&key).is_some_and(|entry| !entry.busy) {
            inner.entries.remove(&key);
        }
    }

    /// Images that were looked at with the server's own rights, the last used first.
    pub fn known(&self, max: usize) -> Vec<Arc<Known>> {
        let inner = self.inner();
        let mut all: Vec<(Instant, Arc<Known>)> = Vec::new();
        for entry in inner.entries.values() {
            if let Some(Ok(known)) = &entry.answer
                && matches!(known.access, Access::Server)
            {
                all.push((entry.used, Arc::clone(known)));
            }
        }
        drop(inner);
        all.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        all.into_iter().take(max).map(|(_, known)| known).collect()
    }

    /// Jobs that wait: for a quick thread, for a slow one, for another attempt.
    pub fn waiting(&self) -> [usize; 3] {
        let inner = self.inner();
        [inner.quick.jobs.len(), inner.slow.jobs.len(), inner.later.len()]
    }

    /// Whether another promise may be made.
    pub fn has_room(&self, more: usize) -> bool {
        let [quick, slow, later] = self.waiting();
        quick + slow + more <= self.queue_max && later + more <= self.queue_max * SERVE_RETRIES_PER_PLACE
    }

    /// Whether there could ever be room for so many at once.
    pub fn is_too_many(&self, images: usize) -> bool {
        images > self.queue_max
    }

    /// Takes nothing new up. What is being read is given up with the process, and promised.
    pub fn close(&self) {
        self.inner().closing = true;
        self.work.notify_all();
    }

    fn work(&self, pace: Pace, per_host: usize) {
        while let Some(job) = self.next(pace, per_host) {
            let started = Instant::now();
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.attempt(pace, &job)));
            let outcome = caught.unwrap_or_else(|_| {
                Outcome::Failed(Error::look(format!(
                    "{}: looking at it ended in a fault of cudalint",
                    job.wanted.name
                )))
            });
            self.end(pace, job, outcome, started.elapsed());
        }
    }

    fn next(&self, pace: Pace, per_host: usize) -> Option<Job> {
        let mut inner = self.inner();
        loop {
            if inner.closing {
                return None;
            }
            let now = Instant::now();
            while let Some(at) = inner.later.iter().position(|(due, _)| *due <= now) {
                let (_, job) = inner.later.remove(at);
                inner.quick.jobs.push_back(job);
            }
            let lane = if pace == Pace::Quick { &mut inner.quick } else { &mut inner.slow };
            if let Some(job) = lane.take(per_host) {
                return Some(job);
            }
            let due = inner.later.iter().map(|(due, _)| due.saturating_duration_since(now)).min();
            let pause = due.unwrap_or(Duration::from_secs(3600)).max(Duration::from_millis(10));
            inner = self.work.wait_timeout(inner, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn attempt(&self, pace: Pace, job: &Job) -> Outcome {
        let Wanted { name, platform, access } = &job.wanted;
        let opened = match self.reader.open(name, platform.as_ref(), access) {
            Ok(opened) => opened,
            Err(error) => return Outcome::Failed(error),
        };
        if let Some(known) = self.known_already(job, &opened.digest) {
            return Outcome::Same(known);
        }
        let facts = match pace {
            Pace::Quick => match self.reader.kept(&opened) {
                Some(facts) => facts,
                None => return Outcome::Missing,
            },
            Pace::Slow => match self.reader.look(&opened) {
                Ok(facts) => facts,
                Err(error) => return Outcome::Failed(error),
            },
        };
        let pinned = Reference { tag: None, digest: Some(opened.digest.clone()), ..name.clone() };
        let known =
            Known { name: pinned, digest: opened.digest, platform: platform.clone(), access: access.clone() };
        Outcome::Facts(Arc::new(known), Arc::new(facts))
    }

    /// The same manifest, known by the tag that was asked for again or by its digest.
    fn known_already(&self, job: &Job, digest: &Digest) -> Option<Arc<Known>> {
        let name = Reference { tag: None, digest: Some(digest.clone()), ..job.wanted.name.clone() };
        let pinned = Wanted { name, ..job.wanted.clone() }.key();
        let inner = self.inner();
        [&job.key, &pinned].into_iter().find_map(|key| match &inner.entries.get(key)?.answer {
            Some(Ok(known)) if known.digest == *digest => Some(Arc::clone(known)),
            _ => None,
        })
    }

    fn end(&self, pace: Pace, mut job: Job, outcome: Outcome, took: Duration) {
        let answer = match outcome {
            Outcome::Failed(error) if error.kind == ErrorKind::Busy => {
                let mut inner = self.inner();
                let lane = if pace == Pace::Quick { &mut inner.quick } else { &mut inner.slow };
                lane.ended(&job);
                inner.later.push((Instant::now() + BUSY_PAUSE, job));
                self.work.notify_all();
                return;
            }
            Outcome::Missing => {
                let mut inner = self.inner();
                inner.quick.ended(&job);
                inner.slow.jobs.push_back(job);
                self.work.notify_all();
                return;
            }
            Outcome::Same(known) => {
                self.metrics.looked(false, true, took);
                (self.listener)(&known, None, self.is_promised(&job));
                Ok(known)
            }
            Outcome::Facts(known, facts) => {
                self.metrics.looked(pace == Pace::Slow, true, took);
                if pace == Pace::Slow {
                    tracing::info!(image = %job.wanted.name, digest = %known.digest, seconds = took.as_secs_f64(), "image looked at");
                }
                (self.listener)(&known, Some(facts), self.is_promised(&job));
                Ok(known)
            }
            // An answer like any other: nothing went wrong.
            Outcome::Failed(error) if is_final(&error) => {
                self.metrics.looked(false, true, took);
                Err(error)
            }
            Outcome::Failed(error) => {
                self.metrics.looked(pace == Pace::Slow, false, took);
                tracing::warn!(image = %job.wanted.name, error = %error.message, "image could not be looked at");
                Err(error)
            }
        };
        let may_pass = answer.as_ref().err().is_some_and(|e| !is_final(e));
        let now = Instant::now();
        let mut inner = self.inner();
        if let Some(entry) = inner.entries.get_mut(&job.key) {
            entry.busy = false;
            let age = now.saturating_duration_since(entry.answered);
            // A registry that does not answer has not said that the tag moved.
            if may_pass && matches!(&entry.answer, Some(Ok(_))) && age < self.ages.tag_hard {
                entry.rests_until = Some(now + self.ages.failure);
            } else {
                entry.answered = now;
                entry.rests_until = None;
                entry.answer = Some(answer);
            }
            entry.ended.send_replace(());
        }
        let lane = if pace == Pace::Quick { &mut inner.quick } else { &mut inner.slow };
        lane.ended(&job);
        // Others may have joined while it was read.
        let mut promises = inner.promises(&job);
        if may_pass && !promises.is_empty() && job.tries < SERVE_TRIES_MAX {
            let pause = SERVE_RETRY_SECONDS << job.tries.min(6);
            job.tries += 1;
            let promises = std::mem::take(&mut promises);
            inner.later.push((now + Duration::from_secs(pause), Job { promises, ..job }));
        } else if may_pass && !promises.is_empty() {
            tracing::error!(image = %job.wanted.name, "given up: it could not be looked at for a day");
        }
        self.work.notify_all();
        // The journal may wait for the disk; nobody waits for it here.
        drop(inner);
        for id in promises {
            self.journal.done(id);
        }
    }

    fn is_promised(&self, job: &Job) -> bool {
        !job.promises.is_empty() || self.inner().joined.contains_key(&job.key)
    }
}

impl Inner {
    /// Another promise for an image that waits already, or is known: `true` where it is kept already.
    fn join(&mut self, key: &str, id: u64) -> bool {
        let later = self.later.iter_mut().map(|(_, job)| job);
        let waiting = self.quick.jobs.iter_mut().chain(&mut self.slow.jobs).chain(later);
        if let Some(job) = waiting.into_iter().find(|job| job.key == key) {
            job.promises.push(id);
        } else if self.entries.get(key).is_some_and(|e| !e.busy) {
            return true;
        } else {
            // It is being read at this moment; its end keeps this promise too.
            self.joined.entry(key.to_owned()).or_default().push(id);
        }
        false
    }

    fn promises(&mut self, job: &Job) -> Vec<u64> {
        let mut all = job.promises.clone();
        all.extend(self.joined.remove(&job.key).unwrap_or_default());
        all
    }

    /// Forgets the longest unused where there are too many.
    fn make_room(&mut self) {
        if self.entries.len() < SERVE_IMAGES_MAX {
            return;
        }
        let mut idle: Vec<(Instant, String)> =
            self.entries.iter().filter(|(_, e)| !e.busy).map(|(k, e)| (e.used, k.clone())).collect();
        idle.sort();
        for (_, key) in idle.into_iter().take(SERVE_IMAGES_MAX / 10) {
            self.entries.remove(&key);
        }
    }
}
