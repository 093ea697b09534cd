//! [`Report`] -> the JSON report, schema_version 1. These types are the schema; keys are stable, optional values null.

use super::{Context, Document};
use crate::facts::json::{
    CodeRowJson, ImageJson, ProblemJson, TimingJson, ToolJson, image_json, problem_json, rows_json,
};
use crate::facts::{DeviceCode, ImageFacts};
use crate::inventory::{Component, Linkage};
use crate::report::{Evidence, Level, Report, ReportedFinding, TargetVerdict};
use schemars::JsonSchema;
use serde::Serialize;

pub const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize, JsonSchema)]
pub struct ReportJson {
    pub schema_version: u32,
    pub complete: bool,
    pub as_of: String,
    pub tool: ToolJson,
    pub image: ImageJson,
    pub stack: Vec<ComponentJson>,
    pub device_code: Vec<FileCodeJson>,
    pub requirements: RequirementsJson,
    pub targets: Vec<TargetJson>,
    pub findings: Vec<FindingJson>,
    pub passed: Vec<PassedJson>,
    pub problems: Vec<ProblemJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<TimingJson>,
    /// `inspect` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<Vec<super::inspect::ObjectJson>>,
    /// `inspect --weight` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<super::weight::WeightJson>,
}

/// One report as it is, several under `reports`.
pub struct Reports {
    several: bool,
    reports: Vec<ReportJson>,
}

impl Reports {
    /// `several`: more than one image was asked for, whatever could be opened.
    pub fn new(several: bool) -> Reports {
        Reports { several, reports: Vec::new() }
    }
}

impl Document for Reports {
    fn add(&mut self, report: &Report, context: &Context) {
        self.reports.push(self::report(report, context));
    }

    fn finish(mut self: Box<Self>) -> String {
        match self.reports.pop() {
            Some(only) if !self.several => super::pretty(&only),
            last => {
                self.reports.extend(last);
                super::pretty(&ReportsJson { schema_version: SCHEMA_VERSION, reports: self.reports })
            }
        }
    }
}

/// Several images in one document.
#[derive(Serialize, JsonSchema)]
pub struct ReportsJson {
    pub schema_version: u32,
    pub reports: Vec<ReportJson>,
}

#[derive(Serialize, JsonSchema)]
pub struct ComponentJson {
    pub component: String,
    pub version: Option<String>,
    pub cuda: Option<String>,
    pub kind: &'static str,
    pub linkage: Option<&'static str>,
    pub path: String,
    pub layer: u32,
    pub how: String,
    pub origin: &'static str,
    pub reachable: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub struct FileCodeJson {
    pub path: String,
    pub layer: u32,
    pub sha256: Option<String>,
    pub containers: u64,
    pub embedded_containers: u64,
    pub bytes: u64,
    pub entries: Vec<CodeRowJson>,
}

#[derive(Serialize, JsonSchema)]
pub struct RequirementsJson {
    pub min_driver: Option<String>,
    pub full_driver: Option<String>,
    pub architectures: ArchitecturesJson,
}

#[derive(Serialize, JsonSchema)]
pub struct ArchitecturesJson {
    pub native: Vec<String>,
    pub jit_from: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct TargetJson {
    pub name: String,
    pub driver: Option<String>,
    pub gpus: Vec<GpuJson>,
    pub verdict: &'static str,
    pub how: Vec<&'static str>,
    pub not_asked: Vec<&'static str>,
    pub findings: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct GpuJson {
    pub name: String,
    pub compute_capability: String,
    pub verdict: &'static str,
}

#[derive(Serialize, JsonSchema)]
pub struct FindingJson {
    pub rule: &'static str,
    pub name: &'static str,
    pub level: &'static str,
    pub message: String,
    pub component: Option<String>,
    pub targets: Vec<String>,
    pub evidence: Vec<EvidenceJson>,
    pub runtime_error: Option<RuntimeErrorJson>,
    pub remedies: Vec<String>,
    pub fingerprint: String,
    pub suppressed: Option<SuppressedJson>,
    /// The instruction that brought it in, with `--dockerfile`.
    pub dockerfile: Option<DockerfileJson>,
}

#[derive(Serialize, JsonSchema)]
pub struct DockerfileJson {
    pub file: String,
    pub start_line: u32,
    pub end_line: u32,
    pub instruction: String,
    /// It came with the image that this FROM names.
    pub base: bool,
}

#[derive(Serialize, JsonSchema)]
pub struct EvidenceJson {
    pub path: String,
    pub layer: u32,
    pub created_by: Option<String>,
    pub detail: String,
}

#[derive(Serialize, JsonSchema)]
pub struct RuntimeErrorJson {
    pub code: Option<i64>,
    pub name: Option<String>,
    pub text: String,
}

/// Why and until when a finding is suppressed.
#[derive(Serialize, JsonSchema)]
pub struct SuppressedJson {
    pub reason: String,
    pub until: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct PassedJson {
    pub rule: &'static str,
    pub name: &'static str,
    pub targets: Vec<String>,
    pub evidence: Vec<EvidenceJson>,
}

/// The whole document.
pub fn report(report: &Report, context: &Context) -> ReportJson {
    let facts = report.inventory.facts;
    let requirements = &report.inventory.requirements;
    ReportJson {
        schema_version: SCHEMA_VERSION,
        complete: report.complete,
        as_of: context.as_of.clone(),
        tool: context.tool.clone(),
        image: image_json(&facts.image),
        stack: report.inventory.components.iter().map(component).collect(),
        device_code: device_code(facts),
        requirements: RequirementsJson {
            min_driver: requirements.min_driver.as_ref().map(ToString::to_string),
            full_driver: requirements.full_driver.as_ref().map(ToString::to_string),
            architectures: ArchitecturesJson {
                native: requirements.native.clone(),
                jit_from: requirements.jit_from.clone(),
            },
        },
        targets: report.targets.iter().map(|t| target(t, report)).collect(),
        findings: report.findings.iter().map(|f| finding(f, facts)).collect(),
        passed: report.passed.iter().map(|f| passed(f, facts)).collect(),
        problems: facts.problems.iter().map(problem_json).collect(),
        timing: context.timing.clone(),
        objects: None,
        weight: None,
    }
}

fn component(component: &Component) -> ComponentJson {
    ComponentJson {
        component: component.component.clone(),
        version: component.version.clone(),
        cuda: component.cuda.as_ref().map(ToString::to_string),
        kind: component.kind.name(),
        linkage: component.linkage.map(Linkage::name),
        path: component.place.path.to_string(),
        layer: component.place.layer.0,
        how: component.how.clone(),
        origin: component.origin,
        reachable: component.reachable,
    }
}

fn device_code(facts: &ImageFacts) -> Vec<FileCodeJson> {
    let with_code = facts.files.iter().filter_map(|f| Some((f, f.device_code.as_ref()?)));
    with_code
        .map(|(file, code): (_, &DeviceCode)| FileCodeJson {
            path: file.place.path.to_string(),
            layer: file.place.layer.0,
            sha256: file.sha256.as_ref().map(|d| d.hex().to_owned()),
            containers: code.containers,
            embedded_containers: code.embedded_containers,
            bytes: code.bytes,
            entries: rows_json(code),
        })
        .collect()
}

fn target(target: &TargetVerdict, report: &Report) -> TargetJson {
    let mut findings: Vec<String> = target
        .findings
        .iter()
        .filter_map(|&i| report.findings.get(i))
        .map(|f| f.fingerprint.clone())
        .collect();
    findings.dedup();
    TargetJson {
        name: target.name.clone(),
        driver: target.driver.clone(),
        gpus: target
            .gpus
            .iter()
            .map(|g| GpuJson {
                name: g.name.clone(),
                compute_capability: g.cc.to_string(),
                verdict: g.verdict.name(),
            })
            .collect(),
        verdict: target.verdict.name(),
        how: target.how.iter().map(|h| h.name()).collect(),
        not_asked: target.not_asked.clone(),
        findings,
    }
}

fn evidence(evidence: &Evidence, facts: &ImageFacts) -> EvidenceJson {
    let index = evidence.place.layer.0;
    let layer = facts.image.layers.get(index as usize);
    EvidenceJson {
        path: evidence.place.path.to_string(),
        layer: index,
        created_by: layer.and_then(|l| l.created_by.clone()),
        detail: evidence.detail.clone(),
    }
}

fn finding(reported: &ReportedFinding, facts: &ImageFacts) -> FindingJson {
    let finding = &reported.finding;
    debug_assert!(finding.level > Level::Pass, "checks that held are listed under `passed`");
    FindingJson {
        rule: finding.rule.code,
        name: finding.rule.name,
        level: finding.level.name(),
        message: finding.message.clone(),
        component: finding.component.clone(),
        targets: reported.targets.clone(),
        evidence: finding.evidence.iter().map(|e| evidence(e, facts)).collect(),
        runtime_error: finding.runtime_error.as_ref().map(|e| RuntimeErrorJson {
            code: e.code,
            name: e.name.clone(),
            text: e.text.clone(),
        }),
        remedies: finding.remedies.clone(),
        fingerprint: reported.fingerprint.clone(),
        suppressed: reported
            .suppressed
            .as_ref()
            .map(|s| SuppressedJson { reason: s.reason.clone(), until: s.until.clone() }),
        dockerfile: reported.line.as_ref().map(|l| DockerfileJson {
            file: l.file.clone(),
            start_line: l.start,
            end_line: l.end,
            instruction: l.instruction.clone(),
            base: l.base,
        }),
    }
}

fn passed(reported: &ReportedFinding, facts: &ImageFacts) -> PassedJson {
    PassedJson {
        rule: reported.finding.rule.code,
        name: reported.finding.rule.name,
        targets: reported.targets.clone(),
        evidence: reported.finding.evidence.iter().map(|e| evidence(e, facts)).collect(),
    }
}
