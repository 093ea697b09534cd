//! What follows from an inventory for each target: findings, verdicts, requirements.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod build;

use crate::facts::Place;
use crate::version::ComputeCapability;

/// A rule by its two names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleId {
    /// `CUL101`, never reused.
    pub code: &'static str,
    /// `driver-too-old`.
    pub name: &'static str,
}

/// What a finding means for the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The check held.
    Holds,
    /// It works, with a loss.
    Degrades,
    /// The facts do not decide.
    Unknown,
    /// It cannot work.
    Breaks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A check that held: listed under `passed`, not a finding.
    Pass,
    Note,
    Warning,
    Error,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Pass => "pass",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }

    /// The level of a name, as documents spell it.
    pub fn of_name(name: &str) -> Option<Level> {
        [Level::Pass, Level::Note, Level::Warning, Level::Error]
            .into_iter()
            .find(|level| level.name() == name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    NoGpuCode,
    Runs,
    Degraded,
    Unknown,
    Fails,
}

impl Verdict {
    /// The work gets done, perhaps with a loss.
    pub fn works(self) -> bool {
        matches!(self, Verdict::Runs | Verdict::Degraded)
    }

    pub fn name(self) -> &'static str {
        match self {
            Verdict::Runs => "runs",
            Verdict::Degraded => "degraded",
            Verdict::Fails => "fails",
            Verdict::Unknown => "unknown",
            Verdict::NoGpuCode => "no-gpu-code",
        }
    }
}

/// By which mechanism the GPU work gets done (or not).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    Native,
    MinorVersionCompatibility,
    ForwardCompatibility,
    Jit,
    CpuFallback,
}

impl How {
    pub fn name(self) -> &'static str {
        match self {
            How::Native => "native",
            How::MinorVersionCompatibility => "minor-version-compatibility",
            How::ForwardCompatibility => "forward-compatibility",
            How::Jit => "jit",
            How::CpuFallback => "cpu-fallback",
        }
    }
}

/// Where a finding's facts stand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Evidence {
    pub place: Place,
    pub detail: String,
}

/// The error a user would meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeError {
    pub code: Option<i64>,
    pub name: Option<String>,
    pub text: String,
}

/// One judgment of one rule for one target.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub rule: RuleId,
    pub outcome: Outcome,
    pub level: Level,
    /// The claim, with both numbers.
    pub message: String,
    /// Three to six words for the verdict line.
    pub headline: String,
    /// What the finding is about: `torch`, `cudart`; `None` for the image as a whole.
    pub component: Option<String>,
    pub evidence: Vec<Evidence>,
    /// What the host side says, for the second half of the evidence.
    pub host: Option<String>,
    pub runtime_error: Option<RuntimeError>,
    pub remedies: Vec<String>,
    pub how: Vec<How>,
}

impl Finding {
    /// A finding needs a claim and at least one piece of evidence; the level follows from the outcome unless set.
    pub fn new(rule: RuleId, outcome: Outcome, message: String, evidence: Vec<Evidence>) -> Finding {
        let level = match outcome {
            Outcome::Holds => Level::Pass,
            Outcome::Degrades | Outcome::Unknown => Level::Warning,
            Outcome::Breaks => Level::Error,
        };
        Finding {
            rule,
            outcome,
            level,
            headline: rule.name.replace('-', " "),
            message,
            component: None,
            evidence,
            host: None,
            runtime_error: None,
            remedies: Vec::new(),
            how: Vec::new(),
        }
    }

    #[must_use]
    pub fn level(mut self, level: Level) -> Finding {
        self.level = level;
        self
    }

    #[must_use]
    pub fn outcome(mut self, outcome: Outcome) -> Finding {
        self.outcome = outcome;
        self
    }

    #[must_use]
    pub fn headline(mut self, text: impl Into<String>) -> Finding {
        self.headline = text.into();
        self
    }

    #[must_use]
    pub fn component(mut self, name: impl Into<String>) -> Finding {
        self.component = Some(name.into());
        self
    }

    #[must_use]
    pub fn host(mut self, text: impl Into<String>) -> Finding {
        self.host = Some(text.into());
        self
    }

    #[must_use]
    pub fn error(mut self, error: Option<RuntimeError>) -> Finding {
        self.runtime_error = error;
        self
    }

    #[must_use]
    pub fn remedy(mut self, text: impl Into<String>) -> Finding {
        self.remedies.push(text.into());
        self
    }

    #[must_use]
    pub fn how(mut self, how: How) -> Finding {
        self.how.push(how);
        self
    }
}

/// The judgment of one GPU of a target.
#[derive(Clone, Debug)]
pub struct GpuVerdict {
    pub name: String,
    pub describe: String,
    pub cc: ComputeCapability,
    pub verdict: Verdict,
}

/// The judgment of one target.
#[derive(Clone, Debug)]
pub struct TargetVerdict {
    pub name: String,
    /// As typed; `None` where no driver was given.
    pub driver: Option<String>,
    pub gpus: Vec<GpuVerdict>,
    pub verdict: Verdict,
    pub how: Vec<How>,
    pub not_asked: Vec<&'static str>,
    /// Indices into the report's findings, worst first.
    pub findings: Vec<usize>,
}

/// A finding with the targets it stands for.
#[derive(Clone, Debug)]
pub struct ReportedFinding {
    pub finding: Finding,
    pub targets: Vec<String>,
    pub fingerprint: String,
    /// Somebody decided to live with it: it does not count for the exit status.
    pub suppressed: Option<Suppression>,
    /// The line of the Dockerfile that brought it in, where that is known.
    pub line: Option<SourceLine>,
}

/// Why a finding does not count, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    pub reason: String,
    /// The last day, as `2026-12-31`.
    pub until: Option<String>,
}

/// An instruction of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLine {
    /// As typed.
    pub file: String,
    /// 1-based, both included.
    pub start: u32,
    pub end: u32,
    pub instruction: String,
    /// The image that the instruction begins with brought it in.
    pub base: bool,
}

/// Everything that is said about one image.
pub struct Report<'a> {
    pub inventory: &'a crate::inventory::Inventory<'a>,
    pub complete: bool,
    pub targets: Vec<TargetVerdict>,
    /// Worst first, then by rule.
    pub findings: Vec<ReportedFinding>,
    pub passed: Vec<ReportedFinding>,
    /// Lowest driver on which all GPUs in question get their work done; `None` where there is none, or nothing asks.
    pub lowest_driver: Option<String>,
}

impl<'a> Report<'a> {
    /// What is in an image, judged against nothing.
    pub fn unjudged(inventory: &'a crate::inventory::Inventory<'a>) -> Report<'a> {
        Report {
            inventory,
            complete: inventory.facts.complete,
            targets: Vec::new(),
            findings: Vec::new(),
            passed: Vec::new(),
            lowest_driver: None,
        }
    }

    /// The worst level among the findings that count.
    pub fn worst(&self) -> Option<Level> {
        self.counted().map(|f| f.finding.level).max()
    }

    /// The findings that nobody suppressed.
    pub fn counted(&self) -> impl Iterator<Item = &ReportedFinding> {
        self.findings.iter().filter(|f| f.suppressed.is_none())
    }

    /// How many findings of a level count.
    pub fn count(&self, level: Level) -> usize {
        self.counted().filter(|f| f.finding.level == level).count()
    }

    /// Puts the findings into their order (worst first, then by rule) and tells every target which are its own.
    pub fn arrange(&mut self) {
        sort(&mut self.findings);
        for target in &mut self.targets {
            let stands = |f: &ReportedFinding| f.targets.contains(&target.name);
            target.findings =
                self.findings.iter().enumerate().filter(|(_, f)| stands(f)).map(|(i, _)| i).collect();
        }
    }
}

/// Worst first, then by rule.
fn sort(findings: &mut [ReportedFinding]) {
    findings.sort_by_key(|f| {
        let first = f.finding.evidence.first().cloned();
        let level = std::cmp::Reverse(f.finding.level);
        (level, f.finding.rule, f.finding.component.clone(), first, f.targets.clone())
    });
}
