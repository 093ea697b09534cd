//! What is known of the images of a pod on each host it may land on -> the answer: let in or not, and why, in words.

use super::affinity;
use super::cluster::{Candidate, Candidates, Cluster};
use super::judgment::Judgment;
use super::pods::Container;
use super::scheduling::Requirement;
use crate::report::Verdict;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// What happens with a pod that nothing runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is let in; only audit annotations tell.
    Audit,
    /// It is let in, and whoever sent it is warned.
    Warn,
    /// It is refused.
    Enforce,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Audit => "audit",
            Mode::Warn => "warn",
            Mode::Enforce => "enforce",
        }
    }
}

/// What happens with a pod of which too little is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    Allow,
    Warn,
    Deny,
}

/// What the operator decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub mode: Mode,
    /// The facts do not decide.
    pub unknown: Doubt,
    /// The image is not looked at yet.
    pub cold: Doubt,
    /// The image could not be looked at.
    pub failed: Doubt,
}

/// What is known of one container.
#[derive(Clone, Debug)]
pub enum Answer {
    Judged {
        /// Of the platform's manifest; of several, the first.
        digest: String,
        /// One for each candidate, in their order; `None` where the image has nothing for that architecture.
        here: Vec<Option<Arc<Judgment>>>,
    },
    /// It is being looked at.
    Cold,
    /// Nobody has looked at it, and a dry run is no reason to.
    Unseen,
    /// It could not be looked at.
    Failed(String),
    /// It is not to be looked at.
    NotAllowed(String),
}

/// One container with what is known of it.
pub struct Asked<'a> {
    pub container: &'a Container,
    pub answer: Answer,
}

/// How it stands with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No container asks for a GPU.
    NotAsked,
    Runs,
    Degraded,
    NoGpuCode,
    /// Some of the nodes it may land on run it, others do not or nobody knows.
    Partly,
    Fails,
    Unknown,
    Cold,
    Failed,
    /// The server has too much to do to look.
    Overloaded,
}

impl State {
    /// As audit annotations, metrics and other systems spell it.
    pub fn name(self) -> &'static str {
        match self {
            State::NotAsked => "not-asked",
            State::Runs => "runs",
            State::Degraded => "degraded",
            State::NoGpuCode => "no-gpu-code",
            State::Partly => "partly",
            State::Fails => "fails",
            State::Unknown => "unknown",
            State::Cold => "cold",
            State::Failed => "failed",
            State::Overloaded => "overloaded",
        }
    }

    /// As the contract spells verdicts.
    pub fn verdict(self) -> &'static str {
        match self {
            State::NotAsked | State::NoGpuCode => "no-gpu-code",
            State::Runs => "runs",
            State::Degraded | State::Partly => "degraded",
            State::Fails => "fails",
            State::Unknown | State::Cold | State::Failed | State::Overloaded => "unknown",
        }
    }
}

/// The answer to a pod.
#[derive(Clone, Debug)]
pub struct Decision {
    pub state: State,
    pub allowed: bool,
    /// Why; empty where nothing is to be said.
    pub message: String,
    /// Lines for whoever sent the pod.
    pub warnings: Vec<String>,
    /// For the audit log; keys without slash.
    pub annotations: BTreeMap<String, String>,
    /// What keeps the pod on nodes that run it.
    pub affinity: Vec<Requirement>,
}

/// Hosts that would run a pod that may not land on them: how many, and what they are called.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    pub count: usize,
    pub names: Vec<String>,
}

/// Longest warning, characters: the API server may cut longer ones.
const WARNING_CHARS_MAX: usize = 120;
/// Characters of all warnings together: the API server drops the rest beyond 4096.
const WARNINGS_CHARS_MAX: usize = 4000;
/// Reasons told in one message.
const REASONS_MAX: usize = 6;
/// Longest message, characters: events and error lines carry it.
const MESSAGE_CHARS_MAX: usize = 4000;
const ANNOTATION_CHARS_MAX: usize = 1000;

impl Decision {
    /// Nothing to judge.
    pub fn nothing() -> Decision {
        Decision {
            state: State::NotAsked,
            allowed: true,
            message: String::new(),
            warnings: Vec::new(),
            annotations: BTreeMap::new(),
            affinity: Vec::new(),
        }
    }

    /// What the policy says where nothing could be looked at.
    pub fn doubtful(state: State, why: &str, policy: Policy, is_pod: bool) -> Decision {
        let mut decision = Decision { state, message: why.to_owned(), ..Decision::nothing() };
        decision.warnings.push(why.to_owned());
        decision.apply(policy, is_pod);
        decision
    }

    /// Where the pod would run, if it were let there.
    pub fn add_elsewhere(&mut self, elsewhere: &Elsewhere) {
        if elsewhere.count == 0 {
            return;
        }
        let names: Vec<&str> = elsewhere.names.iter().take(REASONS_MAX).map(String::as_str).collect();
        let text = format!(
            "it would run on {} elsewhere ({}), which selector, affinity, taints or requests keep it off",
            nodes(elsewhere.count),
            names.join(", ")
        );
        self.message = cut(&clean(&format!("{}\n  {text}", self.message)), MESSAGE_CHARS_MAX);
        self.annotations
            .insert("elsewhere".to_owned(), cut(&one_line(&names.join(", ")), ANNOTATION_CHARS_MAX));
    }

    fn apply(&mut self, policy: Policy, is_pod: bool) {
        let doubt = |doubt: Doubt| match doubt {
            Doubt::Allow => (true, false),
            Doubt::Warn => (true, true),
            Doubt::Deny => (false, true),
        };
        let (allowed, speaks) = match self.state {
            State::Fails => (false, true),
            State::Unknown => doubt(policy.unknown),
            State::Cold | State::Overloaded => doubt(policy.cold),
            State::Failed => doubt(policy.failed),
            _ => (true, true),
        };
        // Objects that make pods are let in with a warning: what counts is where the pods go.
        self.allowed = allowed || policy.mode != Mode::Enforce || !is_pod;
        if policy.mode == Mode::Audit || !speaks {
            self.warnings.clear();
        }
        let mut left = WARNINGS_CHARS_MAX;
        self.warnings = std::mem::take(&mut self.warnings)
            .into_iter()
            .map(|text| cut(&one_line(&format!("cudalint: {text}")), WARNING_CHARS_MAX))
            .take_while(|text| {
                let fits = text.len() <= left;
                left = left.saturating_sub(text.len());
                fits
            })
            .collect();
        self.message = cut(&clean(&self.message), MESSAGE_CHARS_MAX);
        self.annotations.insert("verdict".to_owned(), self.state.name().to_owned());
        self.annotations.insert("mode".to_owned(), policy.mode.name().to_owned());
        for value in self.annotations.values_mut() {
            *value = cut(&one_line(value), ANNOTATION_CHARS_MAX);
        }
    }
}

/// Characters of images and pods never steer a terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

fn one_line(text: &str) -> String {
    clean(text).replace('\n', " ")
}

fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(max.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// An image as people read it: of a digest the beginning, the whole of it stands in the annotations.
fn shown(image: &str) -> String {
    const DIGITS: usize = 12;
    match image.split_once("@sha256:") {
        Some((name, hex)) if hex.len() > DIGITS && hex.is_ascii() => {
            format!("{name}@sha256:{}…", &hex[..DIGITS])
        }
        _ => image.to_owned(),
    }
}

/// `2 nodes`, `1 node`.
fn nodes(count: usize) -> String {
    format!("{count} node{}", if count == 1 { "" } else { "s" })
}

/// `none of the 3 nodes it may land on`.
fn none_of(count: usize) -> String {
    match count {
        1 => "does not run on the one node it may land on".to_owned(),
        _ => format!("runs on none of the {} it may land on", nodes(count)),
    }
}

/// Decides over a pod whose containers that ask for a GPU are `asked`, in `candidates` of `cluster`.
pub fn decide(
    asked: &[Asked<'_>],
    candidates: &Candidates,
    cluster: &Cluster,
    policy: Policy,
    is_pod: bool,
) -> Decision {
    if asked.is_empty() {
        return Decision::nothing();
    }
    let told = Told { asked, candidates, cluster };
    let (state, rows) = told.state();
    let mut decision = Decision { state, ..Decision::nothing() };
    told.annotate(&mut decision, &rows);
    match state {
        State::Fails => told.fails(&mut decision),
        State::Partly => told.partly(&mut decision, &rows),
        State::Degraded => {
            for (container, _, reason) in told.reasons(|v| v == Verdict::Degraded) {
                decision.warnings.push(format!("{container}: {reason}"));
            }
        }
        State::NoGpuCode => {
            for one in asked {
                let text = format!(
                    "{}: it asks for {}, and nothing in {} uses a GPU",
                    one.container.name,
                    one.container.asks.as_ref().map(super::pods::Ask::describe).unwrap_or_default(),
                    shown(&one.container.image)
                );
                decision.warnings.push(text);
            }
        }
        State::Unknown | State::Cold | State::Failed => {
            let why = told.doubts();
            decision.message = why.join("; ");
            decision.warnings.extend(why);
        }
        State::NotAsked | State::Runs | State::Overloaded => {}
    }
    decision.apply(policy, is_pod);
    decision
}

struct Told<'a> {
    asked: &'a [Asked<'a>],
    candidates: &'a Candidates,
    cluster: &'a Cluster,
}

impl Told<'_> {
    /// The state, and the verdict of the pod on each candidate: the worst over its containers.
    fn state(&self) -> (State, Vec<Verdict>) {
        let of_row = |row: usize| {
            let verdicts = self.asked.iter().map(|one| match &one.answer {
                Answer::Judged { here, .. } => {
                    here.get(row).and_then(Option::as_ref).map_or(Verdict::Unknown, |j| j.verdict)
                }
                _ => Verdict::Unknown,
            });
            verdicts.max().unwrap_or(Verdict::Unknown)
        };
        let rows: Vec<Verdict> = (0..self.candidates.rows.len()).map(of_row).collect();
        let any = |wanted: fn(&Answer) -> bool| self.asked.iter().any(|one| wanted(&one.answer));
        let doubt = if any(|a| matches!(a, Answer::Cold | Answer::Unseen)) {
            State::Cold
        } else if any(|a| matches!(a, Answer::Failed(_))) {
            State::Failed
        } else {
            State::Unknown
        };
        let has_doubt = !self.candidates.unlabelled.is_empty();
        let good = |v: &Verdict| v.works() || *v == Verdict::NoGpuCode;
        let state = if rows.is_empty() {
            doubt
        } else if rows.iter().all(|v| *v == Verdict::Fails) && !has_doubt {
            State::Fails
        } else if !rows.iter().any(good) {
            doubt
        } else if has_doubt || !rows.iter().all(good) {
            State::Partly
        } else {
            match rows.iter().max() {
                Some(Verdict::Degraded) => State::Degraded,
                Some(Verdict::NoGpuCode) => State::NoGpuCode,
                _ => State::Runs,
            }
        };
        (state, rows)
    }

    fn annotate(&self, decision: &mut Decision, rows: &[Verdict]) {
        let mut images: Vec<String> = Vec::new();
        let mut rules: Vec<&str> = Vec::new();
        let mut unseen: Vec<String> = Vec::new();
        for one in self.asked {
            let container = one.container;
            if let Answer::Judged { digest, here } = &one.answer {
                images.push(format!("{}={digest}", container.name));
                rules.extend(here.iter().flatten().flat_map(|j| j.rules.iter().copied()));
            }
            unseen.extend(container.unseen.iter().map(|name| format!("{}/{name}", container.name)));
        }
        rules.sort_unstable();
        rules.dedup();
        let profiles = self.candidates.rows.iter().zip(rows);
        let profiles = profiles.map(|(row, verdict)| format!("{}={}", row.profile.name(), verdict.name()));
        for (key, value) in [
            ("images", images.join(", ")),
            ("rules", rules.join(",")),
            ("profiles", profiles.collect::<Vec<_>>().join(", ")),
            // Values that the pod takes from elsewhere were not seen.
            ("not-seen", unseen.join(",")),
        ] {
            if !value.is_empty() {
                decision.annotations.insert(key.to_owned(), value);
            }
        }
    }

    /// Container, number of hosts and text of everything that stands in the way, each once.
    fn reasons(&self, wanted: impl Fn(Verdict) -> bool) -> Vec<(String, usize, String)> {
        let mut out: Vec<(String, usize, String)> = Vec::new();
        for one in self.asked {
            let mut said: Vec<(&Judgment, Vec<&Candidate>)> = Vec::new();
            let Answer::Judged { here, .. } = &one.answer else { continue };
            for (row, judgment) in self.candidates.rows.iter().zip(here) {
                let Some(judgment) = judgment.as_deref().filter(|j| wanted(j.verdict)) else { continue };
                let same = |known: &&mut (&Judgment, Vec<&Candidate>)| {
                    let text = |j: &Judgment| j.reason.as_ref().map(|r| (r.code, r.message.clone()));
                    text(known.0) == text(judgment)
                };
                match said.iter_mut().find(same) {
                    Some((_, rows)) => rows.push(row),
                    None => said.push((judgment, vec![row])),
                }
            }
            for (judgment, rows) in said {
                let count: usize = rows.iter().map(|r| r.count).sum();
                let names: Vec<&str> = rows.iter().map(|r| r.profile.name()).collect();
                let on = format!("on {} ({})", nodes(count), names.join(", "));
                let text = match &judgment.reason {
                    Some(reason) => format!("{} {on}: {}", reason.code, reason.message),
                    None => format!("{} {on}", judgment.verdict.name()),
                };
                out.push((one.container.name.clone(), count, text));
            }
        }
        out
    }

    fn fails(&self, decision: &mut Decision) {
        let broken: Vec<&Asked> = self.asked.iter().filter(|one| {
            matches!(&one.answer, Answer::Judged { here, .. } if here.iter().flatten().any(|j| j.verdict == Verdict::Fails))
        }).collect();
        // Several containers may each fail on other nodes.
        let who = match broken.as_slice() {
            [one] => format!("container {} ({})", one.container.name, shown(&one.container.image)),
            _ => "the pod".to_owned(),
        };
        let mut text = format!("{who} {}", none_of(self.candidates.count()));
        let reasons = self.reasons(|v| v == Verdict::Fails);
        for (container, _, reason) in reasons.iter().take(REASONS_MAX) {
            let of = if broken.len() > 1 { format!("{container}: ") } else { String::new() };
            let _ = write!(text, "\n  {of}{reason}");
            decision.warnings.push(format!("{container}: {reason}"));
        }
        if reasons.len() > REASONS_MAX {
            let _ = write!(text, "\n  and {} more reasons", reasons.len() - REASONS_MAX);
        }
        let decisive = broken.iter().find_map(|one| match &one.answer {
            Answer::Judged { here, .. } => {
                here.iter().flatten().filter(|j| j.verdict == Verdict::Fails).find_map(|j| j.reason.as_ref())
            }
            _ => None,
        });
        if let Some(reason) = decisive {
            if let Some(error) = &reason.error {
                let _ = write!(text, "\n  at run time: {error}");
            }
            if let Some(remedy) = &reason.remedy {
                let _ = write!(text, "\n  fix: {remedy}");
                decision.warnings.push(format!("fix: {remedy}"));
            }
        }
        decision.message = text;
    }

    fn partly(&self, decision: &mut Decision, rows: &[Verdict]) {
        let good = |v: &Verdict| v.works() || *v == Verdict::NoGpuCode;
        let total = nodes(self.candidates.count());
        let running: usize =
            self.candidates.rows.iter().zip(rows).filter(|(_, v)| good(v)).map(|(r, _)| r.count).sum();
        let mut text = format!("the pod runs on {running} of the {total} it may land on");
        decision.warnings.push(text.clone());
        for (container, _, reason) in self.reasons(|v| !good(&v)) {
            let _ = write!(text, "\n  {container}: {reason}");
            decision.warnings.push(format!("{container}: {reason}"));
        }
        if !self.candidates.unlabelled.is_empty() {
            let doubt = self.unlabelled();
            let _ = write!(text, "\n  {doubt}");
            decision.warnings.push(doubt);
        }
        let of = |wanted: bool| -> Vec<_> {
            let rows = self.candidates.rows.iter().zip(rows).filter(|(_, v)| good(v) == wanted);
            rows.flat_map(|(row, _)| &row.nodes)
                .filter_map(|&n| Some(&self.cluster.nodes.get(n)?.info))
                .collect()
        };
        let unlabelled =
            self.cluster.nodes.iter().filter(|n| self.candidates.unlabelled.contains(&n.info.name));
        let mut others = of(false);
        others.extend(unlabelled.map(|n| &n.info));
        if let Some(found) = affinity::between(&of(true), &others) {
            let said: Vec<String> = found.iter().map(ToString::to_string).collect();
            let _ = write!(text, "\n  fix: nodeAffinity {}", said.join(" and "));
            // One warning each: together they may be too long for one.
            for one in said.iter().rev() {
                let fix = format!("fix: nodeAffinity {one}");
                decision.warnings.insert(1.min(decision.warnings.len()), fix);
            }
            decision.annotations.insert("affinity".to_owned(), said.join(" and "));
            decision.affinity = found;
        }
        decision.message = text;
    }

    fn unlabelled(&self) -> String {
        let names = &self.candidates.unlabelled;
        let first = names.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
        format!("no label tells driver and GPU of {first}{more}: install GPU Feature Discovery")
    }

    fn doubts(&self) -> Vec<String> {
        let mut out = Vec::new();
        for one in self.asked {
            let Container { name, .. } = one.container;
            let image = shown(&one.container.image);
            match &one.answer {
                Answer::Cold => {
                    out.push(format!("{name}: {image} is being looked at; try again in a moment"));
                }
                Answer::Unseen => {
                    out.push(format!(
                        "{name}: {image} was not looked at yet, and a dry run looks at nothing"
                    ));
                }
                Answer::Failed(why) => out.push(format!("{name}: {image} could not be looked at: {why}")),
                Answer::NotAllowed(why) => out.push(format!("{name}: {why}")),
                Answer::Judged { .. } => {}
            }
        }
        if self.candidates.is_empty() {
            out.push(
                "no node with a GPU fits the pod: nothing to judge it for (declare pools with --targets)"
                    .to_owned(),
            );
        } else if !self.candidates.unlabelled.is_empty() && out.is_empty() {
            out.push(self.unlabelled());
        }
        for (container, _, reason) in self.reasons(|v| v == Verdict::Unknown || v == Verdict::Fails) {
            out.push(format!("{container}: {reason}"));
        }
        if out.is_empty() {
            let images: Vec<String> = self.asked.iter().map(|one| shown(&one.container.image)).collect();
            out.push(format!("{}: not built for the architecture of the nodes", images.join(", ")));
        }
        out
    }
}
