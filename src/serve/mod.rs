//! `cudalint serve`: requests over HTTP -> the same judgment as at a prompt.
//!
//! ```text
//! listen ─► routes ─► App ─┬─ nodes   where pods may land, kept up to date
//!                          ├─ looks   images: known, coming, failed (threads: reader)
//!                          └─ shelf   judgments, each made once
//! ```
//!
//! Only this module waits for sockets; what is judged, and how, stands in `admission` and `rules`.

pub mod allow;
pub mod app;
pub mod attach;
pub mod claims;
pub mod clients;
pub mod journal;
pub mod listen;
pub mod looks;
pub mod metrics;
pub mod nodes;
pub mod reader;
pub mod routes;
pub mod shelf;
pub mod tls;

use crate::admission::decision::{Mode, Policy};
use crate::catalog::Catalog;
use crate::facts::json::ToolJson;
use crate::image::{Error, OpenOptions};
use crate::names::Platform;
use crate::scan::cache::Cache;
use crate::target::Host;
use crate::{limits, rules, scan};
use allow::Allowed;
use app::App;
use clients::Clients;
use journal::Journal;
use looks::{Ages, Looks};
use metrics::Metrics;
use nodes::Nodes;
use reader::Reader;
use shelf::Shelf;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// What the operator decided.
pub struct Settings {
    pub listen: SocketAddr,
    pub tls: Option<tls::Files>,
    pub nodes: nodes::Source,
    pub targets: Option<PathBuf>,
    /// What is known of the container stack of all nodes.
    pub stack: Host,
    pub policy: Policy,
    /// Namespaces with a mode of their own; the first that fits counts.
    pub modes: Vec<(globset::GlobMatcher, Mode)>,
    pub allowed: Allowed,
    pub clients: Option<PathBuf>,
    /// Longest wait for an image that nobody has looked at.
    pub wait: Duration,
    pub state_dir: Option<PathBuf>,
    pub queue: usize,
    pub scans: usize,
    pub ages: Ages,
    /// For requests that still come after the end was asked for.
    pub drain: Duration,
    pub attach: bool,
    /// See [`reader::Reader::shares`].
    pub shares: bool,
    pub open: OpenOptions,
    pub cache: Cache,
    pub scan: scan::Options,
    pub catalog: Catalog,
    pub tool: ToolJson,
    pub as_of: String,
    /// For images where no node says it.
    pub platform: Platform,
}

/// Serves until a signal comes.
pub fn run(settings: Settings) -> Result<(), Error> {
    // Two implementations are linked; which one serves is said once.
    let _chosen_before = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(limits::SERVE_BLOCKING_THREADS)
        .build()
        .map_err(|e| Error::look(format!("threads cannot be started: {e}")))?;
    let done = runtime.block_on(serve(settings));
    // Images that are being read are given up: they were promised, or will be asked for again.
    runtime.shutdown_background();
    done
}

async fn serve(settings: Settings) -> Result<(), Error> {
    let address = settings.listen;
    if !address.ip().is_loopback() && settings.tls.is_none() {
        return Err(Error::usage(format!("plain HTTP is for loopback, and --listen is {address}"))
            .hint("give --tls-cert and --tls-key"));
    }
    let tls = settings.tls.clone().map(tls::Tls::load).transpose()?.map(Arc::new);
    let metrics = Arc::new(Metrics::default());
    let catalog = Arc::new(settings.catalog.clone());
    let (nodes, snapshots) = Nodes::start(
        settings.nodes.clone(),
        settings.targets.clone(),
        settings.stack.clone(),
        Arc::clone(&catalog),
        Arc::clone(&metrics),
    )?;
    let client = match settings.nodes {
        nodes::Source::Kubernetes => Some(kubernetes().await?),
        _ => None,
    };
    let journal = match &settings.state_dir {
        Some(dir) => Arc::new(Journal::open(dir)?),
        None => Arc::new(Journal::none()),
    };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(|e| {
        Error::usage(format!("--listen {address}: {e}")).hint("choose another port, or stop what uses it")
    })?;
    let clients = settings.clients.clone();
    let (stop, stopping) = watch::channel(false);
    let (drain, mode) = (settings.drain, settings.policy.mode);
    let (app, hears) = assemble(
        settings,
        Ground { catalog, metrics: Arc::clone(&metrics), journal, snapshots, client: client.clone() },
    )?;
    app.take_up_promises();
    tokio::spawn(nodes.follow(client));
    tokio::spawn(Arc::clone(&app).follow_nodes());
    tokio::spawn(Arc::clone(&app).follow_looks(hears));
    tokio::spawn(Arc::clone(&app).tell());
    if let Some(path) = clients {
        tokio::spawn(Arc::clone(&app).follow_clients(path));
    }
    if let Some(tls) = tls.clone() {
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move { tls.follow(&metrics).await });
    }
    let ending = Arc::clone(&app);
    tokio::spawn(async move {
        asked_to_stop().await;
        tracing::info!("stopping");
        ending.stop();
        tokio::time::sleep(drain).await;
        let _nobody_listens = stop.send(true);
    });
    let place = listener.local_addr().unwrap_or(address);
    tracing::info!(address = %place, tls = tls.is_some(), mode = mode.name(), "listening");
    listen::serve(listener, tls, routes::router(Arc::clone(&app)), metrics, stopping).await;
    app.looks.close();
    tracing::info!("stopped");
    Ok(())
}

/// Images that were looked at and are not judged yet.
const NEWS_MAX: usize = 1024;

/// What is there before images can be asked for.
struct Ground {
    catalog: Arc<Catalog>,
    metrics: Arc<Metrics>,
    journal: Arc<Journal>,
    snapshots: watch::Receiver<Arc<nodes::Snapshot>>,
    client: Option<kube::Client>,
}

/// Images that were looked at, and whether it was promised.
type Hears = mpsc::Receiver<(Arc<looks::Known>, bool)>;

/// Starts the threads that look at images, and puts together what routes share.
fn assemble(settings: Settings, ground: Ground) -> Result<(Arc<App>, Hears), Error> {
    let Ground { catalog, metrics, journal, snapshots, client } = ground;
    let may_plain_http = settings.open.registry.insecure;
    let reader = Reader {
        open: settings.open,
        cache: settings.cache.clone(),
        scan: settings.scan,
        journal: Arc::clone(&journal),
        shares: settings.shares,
    };
    let judging = rules::Policy { as_of: settings.as_of, ..rules::Policy::default() };
    let shelf = Arc::new(Shelf::new(Arc::clone(&catalog), judging.clone(), Arc::clone(&metrics)));
    let (looked, hears) = mpsc::channel(NEWS_MAX);
    let (on_shelf, told) = (Arc::clone(&shelf), looked.clone());
    let listener: looks::Listener = Box::new(move |known, facts, promised| {
        if let Some(facts) = facts {
            on_shelf.hold(known, facts);
        } else if !promised {
            return;
        }
        // Looking never waits for what follows: where there is too much of it, the first pod does it.
        if told.try_send((Arc::clone(known), promised)).is_err() && promised {
            tracing::warn!(image = %known.name, "too much to do: it is not judged before a pod asks, and nothing is attached");
        }
    });
    let looks = Looks::start(
        Arc::new(reader),
        Arc::clone(&journal),
        Arc::clone(&metrics),
        looks::Limits { ages: settings.ages, queue: settings.queue, slow: settings.scans },
        listener,
    )?;
    let app = App::new(app::Parts {
        looks,
        shelf,
        journal,
        nodes: snapshots,
        claims: claims::Claims::new(client),
        policy: settings.policy,
        modes: settings.modes,
        allowed: settings.allowed,
        clients: settings.clients.as_deref().map(Clients::read).transpose()?.map(RwLock::new),
        needs_certificate: settings.tls.is_some_and(|files| files.client_ca.is_some()),
        is_open: settings.listen.ip().is_loopback(),
        wait: settings.wait,
        platform: settings.platform,
        catalog,
        tool: settings.tool,
        judging,
        cache: settings.cache,
        attach: settings.attach,
        looked,
        may_plain_http,
        metrics,
    });
    Ok((Arc::new(app), hears))
}

async fn kubernetes() -> Result<kube::Client, Error> {
    kube::Client::try_default().await.map_err(|e| {
        Error::usage(format!("--nodes kubernetes: {}", nodes::said(&e)))
            .hint("run it in a pod with a service account, or set KUBECONFIG")
    })
}

async fn asked_to_stop() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(_) => {
            let _interrupted = tokio::signal::ctrl_c().await;
        }
    }
}
