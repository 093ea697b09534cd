//! What all routes share: images, nodes, policies -> answers to pods.

use super::allow::Allowed;
use super::claims::Claims;
use super::clients::{Client, Clients};
use super::journal::Journal;
use super::looks::{Known, Look, Looks, Wanted, Why};
use super::metrics::Metrics;
use super::nodes::Snapshot;
use super::reader::Access;
use super::routes::{Scan, reports};
use super::shelf::{Missing, Question, Shelf};
use crate::admission::cluster::{Candidates, Profile};
use crate::admission::decision::{Answer, Asked, Decision, Elsewhere, Mode, Policy, State, decide};
use crate::admission::judgment::{Judgment, request};
use crate::admission::pods::{Ask, Container, Overrides, Pod};
use crate::admission::scheduling::Placement;
use crate::catalog::Catalog;
use crate::facts::json::ToolJson;
use crate::image::ErrorKind;
use crate::image::reference::Reference;
use crate::names::{Digest, Platform};
use crate::report::Verdict;
use crate::scan::cache::Cache;
use crate::target::profile::GpuRequest;
use crate::{limits, rules};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

/// Images that are judged anew when nodes change.
const REJUDGED_MAX: usize = 2000;
/// For one image, where others wait behind it.
const PATIENCE: Duration = Duration::from_secs(30);
/// After which nodes that are not kept up to date are spoken of.
const STALE: Duration = Duration::from_secs(60);

pub struct Parts {
    pub looks: Arc<Looks>,
    pub shelf: Arc<Shelf>,
    pub journal: Arc<Journal>,
    pub nodes: watch::Receiver<Arc<Snapshot>>,
    pub claims: Claims,
    pub policy: Policy,
    pub modes: Vec<(globset::GlobMatcher, Mode)>,
    pub allowed: Allowed,
    pub clients: Option<RwLock<Clients>>,
    /// Certificates of clients are asked for.
    pub needs_certificate: bool,
    /// Only this machine reaches the listener.
    pub is_open: bool,
    pub wait: Duration,
    pub platform: Platform,
    pub catalog: Arc<Catalog>,
    pub tool: ToolJson,
    pub judging: rules::Policy,
    pub cache: Cache,
    pub attach: bool,
    /// Images that are known anew, and whether that was promised.
    pub looked: mpsc::Sender<(Arc<Known>, bool)>,
    /// Registries without TLS may be asked.
    pub may_plain_http: bool,
    pub metrics: Arc<Metrics>,
}

pub struct App {
    parts: Parts,
    /// By the version of the nodes and the digest of a placement, which may be long.
    candidates: moka::sync::Cache<(u64, Digest), Arc<Candidates>>,
    requests: Arc<Semaphore>,
    /// One permit for each KiB of a body.
    pub bodies: Arc<Semaphore>,
    stopping: AtomicBool,
    /// Images, and whether some of the hosts ran them when they were last judged.
    ran: Mutex<HashMap<String, bool>>,
    /// Scans that the scanner adapter was asked for.
    pub reports: moka::sync::Cache<String, Arc<Scan>>,
}

/// Until when something may take.
#[derive(Clone, Copy)]
pub struct Times {
    /// The answer must be out.
    pub deadline: Instant,
    /// For images that nobody has looked at.
    pub wait: Instant,
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl App {
    pub fn new(parts: Parts) -> App {
        App {
            parts,
            candidates: moka::sync::Cache::builder()
                .max_capacity(limits::SERVE_PLACEMENT_BYTES_MAX)
                .weigher(|_, candidates: &Arc<Candidates>| candidates.bytes())
                .build(),
            requests: Arc::new(Semaphore::new(limits::SERVE_REQUESTS_MAX)),
            bodies: Arc::new(Semaphore::new(limits::SERVE_BODIES_BYTES_MAX >> 10)),
            stopping: AtomicBool::new(false),
            ran: Mutex::default(),
            reports: reports(),
        }
    }

    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The policy of a namespace.
    pub fn policy_of(&self, namespace: &str) -> Policy {
        let own = self.modes.iter().find(|(glob, _)| glob.is_match(namespace));
        Policy { mode: own.map_or(self.policy.mode, |(_, mode)| *mode), ..self.policy }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.nodes.borrow())
    }

    /// A place among the requests in work; `None` where there are too many.
    pub fn enter(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        Arc::clone(&self.requests).try_acquire_owned().ok()
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Why the server should not be asked now.
    pub fn unready(&self) -> Option<&'static str> {
        if self.stopping.load(Ordering::Relaxed) {
            Some("stopping")
        } else if !self.snapshot().is_known {
            Some("the nodes are not known yet")
        } else {
            None
        }
    }

    /// Who asks, by the token shown; `None` where nobody may.
    pub fn client(&self, authorization: Option<&str>, api_key: Option<&str>) -> Option<Client> {
        match &self.clients {
            Some(clients) => {
                clients.read().unwrap_or_else(PoisonError::into_inner).of(authorization, api_key)
            }
            None => self.is_open.then(Client::of_this_machine),
        }
    }

    pub fn times(&self, timeout: Duration) -> Times {
        let now = Instant::now();
        // The way back takes time, too.
        let deadline = now + timeout.mul_f64(0.8);
        Times { deadline, wait: deadline.min(now + self.wait) }
    }

    /// Platforms to look at an image for.
    pub fn platforms(&self, candidates: &Candidates) -> BTreeMap<String, Platform> {
        let of =
            |arch: &str| Platform { architecture: arch.to_owned(), os: "linux".to_owned(), variant: None };
        let archs: BTreeSet<&str> = candidates.rows.iter().map(|row| self.arch_of(&row.profile)).collect();
        let mut out: BTreeMap<String, Platform> = archs.into_iter().map(|a| (a.to_owned(), of(a))).collect();
        if out.is_empty() {
            out.insert(self.platform.architecture.clone(), self.platform.clone());
        }
        out
    }

    fn arch_of<'p>(&'p self, profile: &'p Profile) -> &'p str {
        profile.arch().unwrap_or(&self.platform.architecture)
    }

    /// Decides over a pod.
    pub async fn decide(
        &self,
        mut pod: Pod,
        namespace: &str,
        is_pod: bool,
        why: Why,
        times: Times,
    ) -> Decision {
        let policy = self.policy_of(namespace);
        let snapshot = self.snapshot();
        if !snapshot.is_known {
            return Decision::doubtful(
                State::Unknown,
                "the nodes of the cluster are not known yet",
                policy,
                is_pod,
            );
        }
        self.settle_claims(&mut pod, namespace, times).await;
        let containers: Vec<&Container> = pod.containers.iter().filter(|c| c.asks.is_some()).collect();
        if containers.is_empty() {
            return Decision::nothing();
        }
        let candidates = self.candidates(&snapshot, &pod.placement);
        let answers = containers.iter().map(|c| self.answer(c, &candidates, why, times));
        let answers = futures_util::future::join_all(answers).await;
        if answers.iter().any(|(_, overloaded)| *overloaded) {
            self.metrics.overloaded();
            let text = "cudalint has too much to do to look at the pod";
            return Decision::doubtful(State::Overloaded, text, policy, is_pod);
        }
        let asked: Vec<Asked<'_>> = containers
            .into_iter()
            .zip(answers)
            .map(|(container, (answer, _))| Asked { container, answer })
            .collect();
        let mut decision = decide(&asked, &candidates, &snapshot.cluster, policy, is_pod);
        if decision.state == State::Fails && policy.mode != Mode::Audit {
            decision.add_elsewhere(&self.elsewhere(&asked, &candidates, &snapshot, times).await);
        }
        if let Some(since) = snapshot.stale_since.filter(|since| since.elapsed() > STALE) {
            let minutes = since.elapsed().as_secs() / 60;
            decision.annotations.insert("nodes".to_owned(), format!("not heard of for {minutes} min"));
        }
        decision.annotations.insert("facts".to_owned(), self.tool.facts.clone());
        decision
    }

    /// Hosts that would run the pod, beside those it may land on; what takes too long to know is left out.
    async fn elsewhere(
        &self,
        asked: &[Asked<'_>],
        candidates: &Candidates,
        snapshot: &Snapshot,
        times: Times,
    ) -> Elsewhere {
        let everywhere = snapshot.cluster.everywhere();
        // Of other architectures nothing may be known.
        let archs: BTreeSet<&str> = candidates.rows.iter().map(|row| self.arch_of(&row.profile)).collect();
        let is_other = |profile: &Profile| {
            archs.contains(self.arch_of(profile))
                && !candidates.rows.iter().any(|row| row.profile.key == profile.key)
        };
        let others = Candidates {
            rows: everywhere.rows.into_iter().filter(|row| is_other(&row.profile)).collect(),
            ..Candidates::default()
        };
        let mut runs = vec![!others.rows.is_empty(); others.rows.len()];
        for one in asked {
            let (answer, _) = self.answer(one.container, &others, Why::Peek, times).await;
            let Answer::Judged { here, .. } = answer else { return Elsewhere::default() };
            for (runs, judgment) in runs.iter_mut().zip(here) {
                *runs &= judgment.is_some_and(|j| j.verdict.works());
            }
        }
        let good = others.rows.iter().zip(runs).filter(|(_, runs)| *runs).map(|(row, _)| row);
        let mut out = Elsewhere::default();
        for row in good {
            out.count += row.count;
            out.names.push(row.profile.name().to_owned());
        }
        out
    }

    fn candidates(&self, snapshot: &Snapshot, placement: &Placement) -> Arc<Candidates> {
        let key = (snapshot.version, Digest::of(format!("{placement:?}").as_bytes()));
        self.candidates.get_with(key, || Arc::new(snapshot.cluster.candidates(placement)))
    }

    /// Claims that are all for something else ask for no GPU.
    async fn settle_claims(&self, pod: &mut Pod, namespace: &str, times: Times) {
        for container in &mut pod.containers {
            if !matches!(container.asks, Some(Ask::Claim(_))) {
                continue;
            }
            let mut asks = None;
            let mut unseen = Vec::new();
            for name in &container.claims {
                let claim = pod.claims.iter().find(|c| c.name == *name);
                let is_gpu = match claim {
                    Some(claim) => {
                        tokio::time::timeout_at(times.wait, self.claims.is_gpu(namespace, claim)).await
                    }
                    None => Ok(None),
                };
                match is_gpu.unwrap_or(None) {
                    Some(true) => asks = Some(Ask::Claim(name.clone())),
                    Some(false) => {}
                    None => unseen.push(name.clone()),
                }
            }
            // What cannot be seen is taken for a GPU, and it is said.
            if asks.is_none() {
                container.unseen.extend(unseen.iter().map(|name| format!("claim {name}")));
                asks = unseen.into_iter().next().map(Ask::Claim);
            }
            container.asks = asks;
        }
    }

    /// What is known of a container on each candidate; the second is whether there was too much to do to know.
    pub async fn answer(
        &self,
        container: &Container,
        candidates: &Candidates,
        why: Why,
        times: Times,
    ) -> (Answer, bool) {
        let name = match Reference::parse(&container.image) {
            Ok(name) => name,
            Err(error) => return (Answer::Failed(error.message), false),
        };
        if let Some(why) = self.allowed.refuses(&name) {
            return (Answer::NotAllowed(why), false);
        }
        match self.judged(&name, container, candidates, why, times).await {
            Ok((digests, here)) => (Answer::Judged { digest: digests.join(" "), here }, false),
            Err(Missing::Cold) if why == Why::Peek => (Answer::Unseen, false),
            Err(Missing::Cold) => (Answer::Cold, false),
            Err(Missing::Overloaded) => (Answer::Cold, true),
            Err(Missing::Failed(why)) => (Answer::Failed(why), false),
        }
    }

    /// The digests of an image for the architectures of the candidates, and the judgment on each candidate.
    async fn judged(
        &self,
        name: &Reference,
        container: &Container,
        candidates: &Candidates,
        why: Why,
        times: Times,
    ) -> Result<(Vec<String>, Vec<Option<Arc<Judgment>>>), Missing> {
        let overrides = &container.overrides;
        let request = container.asks.as_ref().map_or(GpuRequest::Engine, request);
        let profiles: Vec<Arc<Profile>> = candidates.rows.iter().map(|r| Arc::clone(&r.profile)).collect();
        let (mut digests, mut verdicts) = (Vec::new(), vec![None; profiles.len()]);
        let mut failed = None;
        let mut absent: Vec<String> = Vec::new();
        for (arch, platform) in &self.platforms(candidates) {
            let wanted =
                Wanted { name: name.clone(), platform: Some(platform.clone()), access: Access::Server };
            let known = match self.looks.wait(&wanted, why, times.wait).await {
                Look::Known(known) => known,
                Look::Coming(_) | Look::Cold { full: false } => return Err(Missing::Cold),
                Look::Cold { full: true } => return Err(Missing::Overloaded),
                // What is not there for an architecture cannot run on it.
                Look::Failed(error) if error.kind == ErrorKind::NoPlatform => {
                    absent.push(arch.clone());
                    continue;
                }
                Look::Failed(error) => {
                    failed = Some(error.message);
                    continue;
                }
            };
            let digest = known.digest.to_string();
            if !digests.contains(&digest) {
                digests.push(digest);
            }
            let here: Vec<usize> = profiles
                .iter()
                .enumerate()
                .filter(|(_, profile)| self.arch_of(profile) == arch)
                .map(|(at, _)| at)
                .collect();
            let of: Vec<Arc<Profile>> = here.iter().filter_map(|&at| profiles.get(at).cloned()).collect();
            let question = Question { overrides, request, profiles: &of, why };
            let judging = self.shelf.judgments(&self.looks, &known, question);
            let judgments =
                tokio::time::timeout_at(times.deadline, judging).await.unwrap_or(Err(Missing::Cold))?;
            for (at, judgment) in here.into_iter().zip(judgments) {
                if let Some(slot) = verdicts.get_mut(at) {
                    *slot = Some(judgment);
                }
            }
        }
        for (profile, verdict) in profiles.iter().zip(&mut verdicts) {
            let arch = self.arch_of(profile);
            if absent.iter().any(|a| a == arch) {
                *verdict = Some(Arc::new(Judgment::no_variant(arch)));
            }
        }
        // Where one of several architectures could not be read, that is what stands in the way.
        failed.map_or(Ok((digests, verdicts)), |why| Err(Missing::Failed(why)))
    }

    /// What an earlier run of the server promised and did not live to do.
    pub fn take_up_promises(&self) {
        let promises = self.journal.promises();
        if !promises.is_empty() {
            tracing::info!(images = promises.len(), "taking up what an earlier run promised");
        }
        for promise in promises {
            match wanted_of(&promise.reference) {
                Some(wanted) if self.allowed.refuses(&wanted.name).is_none() => {
                    self.looks.look(&wanted, Why::Promised(promise.id));
                }
                _ => self.journal.done(promise.id),
            }
        }
    }

    /// When nodes change, images are judged for what is new before a pod asks, and those that nothing runs any more are told.
    pub async fn follow_nodes(self: Arc<Self>) {
        let mut nodes = self.nodes.clone();
        while nodes.changed().await.is_ok() {
            let snapshot = Arc::clone(&nodes.borrow_and_update());
            if !snapshot.is_known {
                continue;
            }
            let known = self.looks.known(REJUDGED_MAX);
            let is_known: BTreeSet<&str> = known.iter().map(|k| k.digest.as_str()).collect();
            self.ran().retain(|digest, _| is_known.contains(digest.as_str()));
            for image in known {
                if nodes.has_changed().unwrap_or(true) {
                    break;
                }
                self.prejudge(&image, &snapshot).await;
            }
        }
    }

    fn ran(&self) -> std::sync::MutexGuard<'_, HashMap<String, bool>> {
        self.ran.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up the file of clients when it changes; where that cannot be used, those who were known stay.
    pub async fn follow_clients(self: Arc<Self>, path: std::path::PathBuf) {
        let mut last = std::fs::read(&path).ok();
        loop {
            tokio::time::sleep(limits::SERVE_FILES_EVERY).await;
            let bytes = std::fs::read(&path).ok();
            if bytes == last {
                continue;
            }
            last = bytes;
            match (Clients::read(&path), &self.clients) {
                (Ok(new), Some(clients)) => {
                    *clients.write().unwrap_or_else(PoisonError::into_inner) = new;
                    tracing::info!("clients taken up");
                }
                (Err(error), _) => tracing::error!(error = %error.message, "clients stay as they were"),
                (Ok(_), None) => return,
            }
        }
    }

    /// Judges an image as it is for all hosts, and tells if none of them runs it any more.
    async fn prejudge(&self, known: &Arc<Known>, snapshot: &Snapshot) {
        let Some(arch) = known.platform.as_ref().map(|p| p.architecture.clone()) else { return };
        let of_arch = |p: &&Arc<Profile>| self.arch_of(p) == arch;
        let profiles: Vec<Arc<Profile>> = snapshot.cluster.profiles.iter().filter(of_arch).cloned().collect();
        if profiles.is_empty() {
            return;
        }
        let overrides = Overrides::default();
        let question = Question {
            overrides: &overrides,
            request: GpuRequest::Engine,
            profiles: &profiles,
            why: Why::Peek,
        };
        let judging = self.shelf.judgments(&self.looks, known, question);
        let Ok(Ok(judgments)) = tokio::time::timeout(PATIENCE, judging).await else { return };
        let runs = judgments.iter().any(|j| j.verdict != Verdict::Fails);
        let mut ran = self.ran();
        if ran.len() > REJUDGED_MAX * 4 {
            ran.clear();
        }
        let before = ran.insert(known.digest.to_string(), runs);
        drop(ran);
        if before == Some(true) && !runs {
            tracing::warn!(image = %known.name, "after a change of the nodes it runs on none of them");
        }
    }

    /// What follows when an image was looked at.
    pub async fn follow_looks(self: Arc<Self>, mut looked: mpsc::Receiver<(Arc<Known>, bool)>) {
        while let Some((known, promised)) = looked.recv().await {
            if !matches!(known.access, Access::Server) {
                continue;
            }
            let snapshot = self.snapshot();
            self.prejudge(&known, &snapshot).await;
            if self.attach && promised {
                let attaching = super::attach::attach(&self, &known);
                if tokio::time::timeout(PATIENCE, attaching).await.is_err() {
                    tracing::warn!(image = %known.name, "attaching takes long: others come first");
                }
            }
        }
    }

    /// Numbers and remarks that nobody asks for.
    pub async fn tell(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let waiting: usize = self.looks.waiting().iter().sum();
            self.metrics.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
            for text in self.cache.take_remarks() {
                tracing::warn!(remark = %text, "cache");
            }
        }
    }
}

/// A promise in words: reference and platform.
pub fn promise_of(name: &Reference, platform: &Platform) -> String {
    format!("{name} {platform}")
}

fn wanted_of(promise: &str) -> Option<Wanted> {
    let (name, platform) = promise.split_once(' ')?;
    let name = Reference::parse(name).ok()?;
    Some(Wanted { name, platform: Some(Platform::parse(platform)?), access: Access::Server })
}
