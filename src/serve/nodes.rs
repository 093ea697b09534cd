//! Where pods may land, kept up to date: nodes from the Kubernetes API by a watch or from a file that is read again when it
//! changes, and pools from a targets file.

use super::metrics::Metrics;
use crate::admission::cluster::{Cluster, Node};
use crate::catalog::Catalog;
use crate::image::Error;
use crate::limits::SERVE_FILES_EVERY as FILES_EVERY;
use crate::target::{Host, Target, fleet, nodes};
use futures_util::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Where nodes come from.
#[derive(Clone, Debug)]
pub enum Source {
    Kubernetes,
    File(PathBuf),
    /// Declared pools alone.
    Nowhere,
}

/// The nodes at one moment.
pub struct Snapshot {
    pub cluster: Arc<Cluster>,
    /// Grows with every change.
    pub version: u64,
    /// Before the first list of nodes has come there is nothing to judge for.
    pub is_known: bool,
    /// Since when the watch is down.
    pub stale_since: Option<Instant>,
}

pub struct Nodes {
    source: Source,
    targets: Option<PathBuf>,
    stack: Host,
    catalog: Arc<Catalog>,
    metrics: Arc<Metrics>,
    sender: watch::Sender<Arc<Snapshot>>,
    /// What the files held at the start.
    initial: Mutex<Read>,
}

/// Changes of nodes come in bursts; they are taken together.
const SETTLE: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Read {
    nodes: BTreeMap<String, Node>,
    pools: Vec<Target>,
    files: Vec<Option<Vec<u8>>>,
}

impl Nodes {
    /// Reads the files once: what is wrong with them is said at the start.
    pub fn start(
        source: Source,
        targets: Option<PathBuf>,
        stack: Host,
        catalog: Arc<Catalog>,
        metrics: Arc<Metrics>,
    ) -> Result<(Arc<Nodes>, watch::Receiver<Arc<Snapshot>>), Error> {
        let empty = Snapshot { cluster: Arc::default(), version: 0, is_known: false, stale_since: None };
        let (sender, receiver) = watch::channel(Arc::new(empty));
        let nodes = Nodes { source, targets, stack, catalog, metrics, sender, initial: Mutex::default() };
        let read = nodes.read(nodes.files())?;
        let is_known = !matches!(nodes.source, Source::Kubernetes);
        nodes.publish(&read, is_known, None);
        Ok((Arc::new(Nodes { initial: Mutex::new(read), ..nodes }), receiver))
    }

    /// Keeps them up to date for as long as it is polled.
    pub async fn follow(self: Arc<Self>, client: Option<kube::Client>) {
        match (&self.source, client) {
            (Source::Kubernetes, Some(client)) => self.watch(client).await,
            _ => self.poll().await,
        }
    }

    fn initial(&self) -> Read {
        std::mem::take(&mut self.initial.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn files(&self) -> Vec<Option<Vec<u8>>> {
        let file = match &self.source {
            Source::File(path) => Some(path.as_path()),
            _ => None,
        };
        let read = |path: &Path| std::fs::read(path).ok();
        vec![file.and_then(read), self.targets.as_deref().and_then(read)]
    }

    fn read(&self, files: Vec<Option<Vec<u8>>>) -> Result<Read, Error> {
        let text = |path: &Path, option: &str, bytes: Option<&Vec<u8>>| {
            let bytes = bytes.ok_or_else(|| {
                let why =
                    std::fs::metadata(path).err().map_or("it cannot be read".to_owned(), |e| e.to_string());
                Error::usage(format!("{option} `{}`: {why}", path.display()))
            })?;
            String::from_utf8(bytes.clone())
                .map_err(|_| Error::usage(format!("{option} `{}` is no text", path.display())))
        };
        let mut read = Read::default();
        if let Source::File(path) = &self.source {
            let text = text(path, "--nodes", files.first().and_then(Option::as_ref))?;
            let wrong = |why: String| Error::usage(format!("--nodes `{}`: {why}", path.display()));
            for value in nodes::items(&text).map_err(|e| wrong(e.message))? {
                let node = Node::read(&value).map_err(wrong)?;
                read.nodes.insert(node.info.name.clone(), node);
            }
        }
        if let Some(path) = &self.targets {
            let text = text(path, "--targets", files.get(1).and_then(Option::as_ref))?;
            let found = fleet::read(&text, true, &self.catalog).map_err(|e| {
                let error = Error::usage(format!("--targets `{}`: {}", path.display(), e.message));
                match e.hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                }
            })?;
            read.pools = found.targets;
        }
        read.files = files;
        Ok(read)
    }

    fn publish(&self, read: &Read, is_known: bool, stale_since: Option<Instant>) {
        let nodes: Vec<Node> = read.nodes.values().cloned().collect();
        let cluster = Cluster::new(nodes, &read.pools, &self.stack, &self.catalog);
        self.metrics.nodes.set(i64::try_from(cluster.nodes.len()).unwrap_or(i64::MAX));
        self.metrics.profiles.set(i64::try_from(cluster.profiles.len()).unwrap_or(i64::MAX));
        self.metrics.nodes_current.set(i64::from(is_known && stale_since.is_none()));
        let before = self.sender.borrow().clone();
        for text in cluster.remarks.iter().filter(|r| !before.cluster.remarks.contains(r)) {
            tracing::warn!(remark = %text, "node");
        }
        if is_known {
            tracing::info!(nodes = cluster.nodes.len(), profiles = cluster.profiles.len(), "nodes are known");
        }
        let version = before.version + 1;
        let cluster = Arc::new(cluster);
        self.sender.send_replace(Arc::new(Snapshot { cluster, version, is_known, stale_since }));
    }

    /// The same nodes, of which nothing more is heard.
    fn publish_stale(&self) {
        self.metrics.nodes_current.set(0);
        self.sender.send_modify(|now| {
            let since = now.stale_since.unwrap_or_else(Instant::now);
            let Snapshot { cluster, version, is_known, .. } = now.as_ref();
            let (cluster, version, is_known) = (Arc::clone(cluster), *version, *is_known);
            *now = Arc::new(Snapshot { cluster, version, is_known, stale_since: Some(since) });
        });
    }

    async fn poll(&self) {
        let mut last = self.initial().files;
        loop {
            tokio::time::sleep(FILES_EVERY).await;
            let files = self.files();
            if files == last {
                continue;
            }
            last.clone_from(&files);
            match self.read(files) {
                Ok(read) => self.publish(&read, true, None),
                Err(error) => {
                    tracing::error!(error = %error.message, "hosts are kept as they were");
                    self.publish_stale();
                }
            }
        }
    }

    async fn watch(&self, client: kube::Client) {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Node"));
        let api: Api<DynamicObject> = Api::all_with(client, &kind);
        let mut events = std::pin::pin!(watcher::watcher(api, watcher::Config::default()).default_backoff());
        let mut watched = Watched { read: self.initial(), ..Watched::default() };
        let mut files_at = tokio::time::Instant::now() + FILES_EVERY;
        let mut publish_at = files_at;
        loop {
            // Heartbeats of many nodes never leave a pause: what is due is done first.
            let now = tokio::time::Instant::now();
            if watched.changed && now >= publish_at {
                self.publish(&watched.read, watched.is_known, watched.stale_since);
                watched.changed = false;
            }
            if now >= files_at {
                self.look_at_pools(&mut watched);
                files_at = now + FILES_EVERY;
                publish_at = publish_at.min(now + SETTLE);
            }
            let until = if watched.changed { publish_at.min(files_at) } else { files_at };
            let Ok(event) = tokio::time::timeout_at(until, events.next()).await else { continue };
            let had_changed = watched.changed;
            match event {
                Some(Ok(event)) => watched.take(event),
                Some(Err(error)) => self.cut(&mut watched, &error),
                None => return,
            }
            if watched.changed && !had_changed {
                publish_at = tokio::time::Instant::now() + SETTLE;
            }
        }
    }

    fn cut(&self, watched: &mut Watched, error: &watcher::Error) {
        if watched.stale_since.is_some() {
            return;
        }
        watched.stale_since = Some(Instant::now());
        if watched.is_known {
            tracing::warn!(error = %said(error), "the watch of the nodes is cut; they are kept as they were");
            self.publish_stale();
        } else {
            tracing::warn!(error = %said(error), "the nodes cannot be listed");
        }
    }

    fn look_at_pools(&self, watched: &mut Watched) {
        let files = self.files();
        if files == watched.read.files {
            return;
        }
        watched.read.files.clone_from(&files);
        match self.read(files) {
            Ok(new) => {
                watched.read.pools = new.pools;
                watched.changed = true;
            }
            Err(error) => tracing::error!(error = %error.message, "pools are kept as they were"),
        }
    }
}

/// What the watch has told so far.
#[derive(Default)]
struct Watched {
    read: Read,
    /// A list that is not whole yet.
    listed: BTreeMap<String, Node>,
    is_known: bool,
    stale_since: Option<Instant>,
    changed: bool,
}

impl Watched {
    fn take(&mut self, event: Event<DynamicObject>) {
        // A list that has begun may fail like the one before.
        if !matches!(event, Event::Init | Event::InitApply(_)) {
            self.changed |= self.stale_since.take().is_some();
        }
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(node) => {
                if let Some(node) = node_of(&node) {
                    self.listed.insert(node.info.name.clone(), node);
                }
            }
            Event::InitDone => {
                let new = std::mem::take(&mut self.listed);
                self.changed |= !self.is_known || new != self.read.nodes;
                self.read.nodes = new;
                self.is_known = true;
            }
            Event::Apply(node) => {
                if let Some(node) = node_of(&node) {
                    let name = node.info.name.clone();
                    // Heartbeats change nothing that counts.
                    self.changed |= self.read.nodes.get(&name) != Some(&node);
                    self.read.nodes.insert(name, node);
                }
            }
            Event::Delete(node) => {
                let name = node.metadata.name.unwrap_or_default();
                self.changed |= self.read.nodes.remove(&name).is_some();
            }
        }
    }
}

/// An error of the Kubernetes client in one line. Its own text may hold whole answers.
pub(super) fn said(error: &dyn std::error::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(inner) = last.source() {
        last = inner;
    }
    last.to_string().chars().filter(|c| !c.is_control()).take(300).collect()
}

fn node_of(object: &DynamicObject) -> Option<Node> {
    let value = serde_json::to_value(object).ok()?;
    let read = Node::read(&value);
    if let Err(error) = &read {
        tracing::warn!(node = ?object.metadata.name, error = %error, "a node cannot be read");
    }
    read.ok()
}
