//! What the server did -> numbers in the text format of OpenMetrics, which Prometheus reads.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicI64;
use std::time::Duration;

type Number = Gauge<i64, AtomicI64>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Decided {
    verdict: &'static str,
    allowed: &'static str,
    mode: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    route: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Looked {
    depth: &'static str,
    result: &'static str,
}

pub struct Metrics {
    registry: Registry,
    decisions: Family<Decided, Counter>,
    decision_seconds: Histogram,
    requests: Family<Answered, Counter>,
    looks: Family<Looked, Counter>,
    look_seconds: Histogram,
    judgments: Counter,
    overloads: Counter,
    reloads: Counter,
    pub connections: Number,
    pub waiting: Number,
    pub nodes: Number,
    pub profiles: Number,
    /// 1 while the watch of the nodes is up.
    pub nodes_current: Number,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("cudalint"),
            decisions: Family::default(),
            decision_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 18)),
            requests: Family::default(),
            looks: Family::default(),
            look_seconds: Histogram::new(exponential_buckets(0.01, 2.5, 14)),
            judgments: Counter::default(),
            overloads: Counter::default(),
            reloads: Counter::default(),
            connections: Number::default(),
            waiting: Number::default(),
            nodes: Number::default(),
            profiles: Number::default(),
            nodes_current: Number::default(),
        };
        let r = &mut metrics.registry;
        r.register("admission_decisions", "Answers to admission reviews", metrics.decisions.clone());
        r.register_with_unit(
            "admission_decision",
            "Time from request to answer of admission reviews",
            Unit::Seconds,
            metrics.decision_seconds.clone(),
        );
        r.register("http_requests", "Requests by route and status", metrics.requests.clone());
        r.register("looks", "Images looked at, by whether layers were read", metrics.looks.clone());
        r.register_with_unit(
            "look",
            "Time for reading layers of an image",
            Unit::Seconds,
            metrics.look_seconds.clone(),
        );
        r.register("judgments", "Images judged for a set of profiles", metrics.judgments.clone());
        r.register(
            "overloads",
            "Requests answered by policy for want of capacity",
            metrics.overloads.clone(),
        );
        r.register("tls_reloads", "Certificates taken up anew", metrics.reloads.clone());
        r.register("connections", "Open connections", metrics.connections.clone());
        r.register("queue_length", "Images that wait to be looked at", metrics.waiting.clone());
        r.register("nodes", "Nodes that are known", metrics.nodes.clone());
        r.register("profiles", "Kinds of hosts among them", metrics.profiles.clone());
        r.register(
            "nodes_current",
            "1 while the nodes are known as they are now",
            metrics.nodes_current.clone(),
        );
        metrics
    }
}

impl Metrics {
    pub fn decided(&self, verdict: &'static str, allowed: bool, mode: &'static str, took: Duration) {
        let allowed = if allowed { "true" } else { "false" };
        self.decisions.get_or_create(&Decided { verdict, allowed, mode }).inc();
        self.decision_seconds.observe(took.as_secs_f64());
    }

    pub fn answered(&self, route: &'static str, code: u16) {
        self.requests.get_or_create(&Answered { route, code }).inc();
    }

    pub fn looked(&self, layers: bool, ok: bool, took: Duration) {
        let depth = if layers { "layers" } else { "kept" };
        let result = if ok { "ok" } else { "failed" };
        self.looks.get_or_create(&Looked { depth, result }).inc();
        if layers {
            self.look_seconds.observe(took.as_secs_f64());
        }
    }

    pub fn judged(&self) {
        self.judgments.inc();
    }

    pub fn overloaded(&self) {
        self.overloads.inc();
    }

    pub fn reloaded(&self) {
        self.reloads.inc();
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // A String takes everything.
        let _whole = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
