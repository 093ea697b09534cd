//! One report -> one row of NDJSON, and the first row, which says what the others were judged against. Rows are read again
//! when a sweep goes on and when results are summed up.

use crate::facts::json::{FactsJson, ToolJson};
use crate::image::ErrorKind;
use crate::report::{Report, Verdict};
use crate::rules::Judge;
use crate::sweep::list::Wanted;
use crate::target::Target;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Grows with every change that a reader could trip over.
pub const SWEEP_SCHEMA: u32 = 1;

/// A line of the results.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Row {
    Start(StartJson),
    Image(Box<ImageRowJson>),
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartJson {
    pub sweep_schema: u32,
    pub tool: ToolJson,
    /// The day as of which is judged, also when the sweep goes on later.
    pub as_of: String,
    pub targets: Vec<String>,
    /// Digest of everything else that rows depend on: hosts in full, catalog, platform, depth.
    pub settings: String,
    pub shard: Option<String>,
}

/// One image.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ImageRowJson {
    /// As it stands in the list.
    pub reference: String,
    pub wanted_by: Vec<String>,
    pub digest: Option<String>,
    pub platform: Option<String>,
    pub status: Status,
    /// Why it could not be read, or not completely.
    pub error: Option<ErrorJson>,
    /// The worst over the targets.
    pub verdict: Option<String>,
    pub targets: Vec<TargetRowJson>,
    pub min_driver: Option<String>,
    pub full_driver: Option<String>,
    /// Architectures with machine code, and those from which it is compiled at run time.
    pub native: Vec<String>,
    pub jit_from: Vec<String>,
    pub stack: Vec<StackRowJson>,
    pub findings: Vec<FindingRowJson>,
    /// The whole facts document, with `--with-facts`.
    pub facts: Option<serde_json::Value>,
    pub total_ms: u64,
    pub bytes_downloaded: u64,
    pub layers: u64,
    pub layers_cached: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Read whole.
    Judged,
    /// A layer could not be read: no verdict is better than `unknown`. Tried again when the sweep goes on.
    Incomplete,
    /// Not opened. Tried again when the sweep goes on.
    Unreadable,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ErrorJson {
    pub message: String,
    pub hint: Option<String>,
    /// The reference itself is wrong: exit status 2, else 3.
    pub usage: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TargetRowJson {
    pub name: String,
    pub verdict: String,
    pub how: Vec<String>,
    /// Rules whose findings hold for this target, notes aside.
    pub rules: Vec<String>,
    /// Where it fails: the lowest driver with which it would, all else being equal.
    pub runs_from_driver: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct StackRowJson {
    pub component: String,
    pub version: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FindingRowJson {
    pub rule: String,
    pub name: String,
    pub level: String,
    pub message: String,
    pub component: Option<String>,
    pub path: Option<String>,
    pub created_by: Option<String>,
    pub targets: Vec<String>,
    pub remedies: Vec<String>,
    pub fingerprint: String,
    pub suppressed: bool,
}

/// What an image cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub total_ms: u64,
    pub bytes_downloaded: u64,
    pub layers_cached: u64,
}

/// An image that could not be opened.
pub fn unreadable(wanted: &Wanted, error: &crate::image::Error, total_ms: u64) -> ImageRowJson {
    ImageRowJson { error: Some(error_json(error)), total_ms, ..empty(wanted, Status::Unreadable) }
}

fn error_json(error: &crate::image::Error) -> ErrorJson {
    ErrorJson {
        message: error.message.clone(),
        hint: error.hint.clone(),
        usage: error.kind == ErrorKind::Usage,
    }
}

fn empty(wanted: &Wanted, status: Status) -> ImageRowJson {
    ImageRowJson {
        reference: wanted.reference.clone(),
        wanted_by: wanted.wanted_by.clone(),
        digest: None,
        platform: None,
        status,
        error: None,
        verdict: None,
        targets: Vec::new(),
        min_driver: None,
        full_driver: None,
        native: Vec::new(),
        jit_from: Vec::new(),
        stack: Vec::new(),
        findings: Vec::new(),
        facts: None,
        total_ms: 0,
        bytes_downloaded: 0,
        layers: 0,
        layers_cached: 0,
    }
}

/// The row of a judged image.
pub fn judged(
    wanted: &Wanted,
    report: &Report,
    judge: &Judge<'_>,
    targets: &[Target],
    errors: &[crate::image::Error],
    facts: Option<&FactsJson>,
    cost: Cost,
) -> ImageRowJson {
    let inventory = report.inventory;
    let image = &inventory.facts.image;
    let requirements = &inventory.requirements;
    let status = if report.complete { Status::Judged } else { Status::Incomplete };
    let mut stack: Vec<StackRowJson> = inventory
        .components
        .iter()
        .map(|c| StackRowJson { component: c.component.clone(), version: c.version.clone() })
        .collect();
    stack.sort();
    stack.dedup();
    ImageRowJson {
        digest: image.digest.as_ref().map(ToString::to_string),
        platform: Some(image.platform.to_string()),
        error: errors.first().map(error_json),
        verdict: report.targets.iter().map(|t| t.verdict).max().map(|v| v.name().to_owned()),
        targets: report
            .targets
            .iter()
            .zip(targets)
            .map(|(row, target)| target_row(row, target, report, judge))
            .collect(),
        min_driver: requirements.min_driver.as_ref().map(ToString::to_string),
        full_driver: requirements.full_driver.as_ref().map(ToString::to_string),
        native: requirements.native.clone(),
        jit_from: requirements.jit_from.clone(),
        stack,
        findings: report.findings.iter().map(|f| finding_row(f, image)).collect(),
        facts: facts.and_then(|f| serde_json::to_value(f).ok()),
        total_ms: cost.total_ms,
        bytes_downloaded: cost.bytes_downloaded,
        layers: image.layers.len() as u64,
        layers_cached: cost.layers_cached,
        ..empty(wanted, status)
    }
}

fn target_row(
    row: &crate::report::TargetVerdict,
    target: &Target,
    report: &Report,
    judge: &Judge<'_>,
) -> TargetRowJson {
    let mut rules: Vec<String> = row
        .findings
        .iter()
        .filter_map(|&i| report.findings.get(i))
        .filter(|f| f.finding.level > crate::report::Level::Note)
        .map(|f| f.finding.rule.code.to_owned())
        .collect();
    rules.dedup();
    let fails = row.verdict == Verdict::Fails && target.driver.is_some();
    TargetRowJson {
        name: row.name.clone(),
        verdict: row.verdict.name().to_owned(),
        how: row.how.iter().map(|h| h.name().to_owned()).collect(),
        rules,
        // A branch of which any release will do comes as `branch 570`.
        runs_from_driver: fails
            .then(|| judge.lowest_driver(std::slice::from_ref(target)))
            .flatten()
            .map(|text| text.trim_start_matches("branch ").to_owned()),
    }
}

fn finding_row(
    reported: &crate::report::ReportedFinding,
    image: &crate::facts::ImageIdentity,
) -> FindingRowJson {
    let finding = &reported.finding;
    let place = finding.evidence.first().map(|e| &e.place);
    let layer = place.and_then(|p| image.layers.get(p.layer.0 as usize));
    FindingRowJson {
        rule: finding.rule.code.to_owned(),
        name: finding.rule.name.to_owned(),
        level: finding.level.name().to_owned(),
        message: finding.message.clone(),
        component: finding.component.clone(),
        path: place.map(|p| p.path.to_string()),
        created_by: layer.and_then(|l| l.created_by.clone()),
        targets: reported.targets.clone(),
        remedies: finding.remedies.clone(),
        fingerprint: reported.fingerprint.clone(),
        suppressed: reported.suppressed.is_some(),
    }
}
