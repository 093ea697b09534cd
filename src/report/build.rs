//! Findings per target -> one report: findings that say the same merged, verdicts drawn, everything in a fixed order.

use super::{
    Finding, GpuVerdict, How, Level, Outcome, Report, ReportedFinding, RuleId, TargetVerdict, Verdict,
};
use crate::inventory::Inventory;
use crate::names::Digest;
use crate::target::{Gpu, Target};
use std::collections::BTreeMap;

/// The findings for one GPU of a target (or for a target without GPU).
pub struct Judged {
    pub gpu: Option<Gpu>,
    pub findings: Vec<Finding>,
}

/// Puts a report together.
pub fn report<'a>(
    inventory: &'a Inventory<'a>,
    judged: Vec<(Target, Vec<Judged>)>,
    on_its_own: Vec<Finding>,
    lowest_driver: Option<String>,
) -> Report<'a> {
    let mut collected = Collected::default();
    let image = &inventory.facts.image;
    let identity = Identity { repository: &image.repository, platform: image.platform.to_string() };
    let mut targets = Vec::new();
    for finding in on_its_own {
        collect(&mut collected, finding, None, &identity);
    }
    for (target, parts) in judged {
        targets.push(judge_target(inventory, &target, parts, &mut collected, &identity));
    }
    let (findings, mut passed): (Vec<_>, Vec<_>) =
        collected.rows.into_iter().partition(|f| f.finding.level > Level::Pass);
    super::sort(&mut passed);
    let complete = inventory.facts.complete;
    let mut report = Report { inventory, complete, targets, findings, passed, lowest_driver };
    report.arrange();
    report
}

/// Findings without repetition, found again by rule and message.
#[derive(Default)]
struct Collected {
    rows: Vec<ReportedFinding>,
    index: BTreeMap<(RuleId, String), Vec<usize>>,
}

struct Identity<'a> {
    repository: &'a str,
    platform: String,
}

fn judge_target(
    inventory: &Inventory,
    target: &Target,
    parts: Vec<Judged>,
    collected: &mut Collected,
    identity: &Identity,
) -> TargetVerdict {
    let mut worst = None;
    let mut how: Vec<How> = Vec::new();
    let mut gpus = Vec::new();
    for part in parts {
        let verdict = verdict(inventory, part.findings.iter());
        worst = worst.max(Some(verdict));
        how.extend(self::how(verdict, part.findings.iter()));
        if let Some(gpu) = part.gpu {
            gpus.push(GpuVerdict { name: gpu.typed.clone(), describe: gpu.describe(), cc: gpu.cc, verdict });
        }
        for finding in part.findings {
            collect(collected, finding, Some(&target.name), identity);
        }
    }
    how.sort_unstable();
    how.dedup();
    TargetVerdict {
        name: target.name.clone(),
        driver: target.driver.as_ref().map(|d| d.text.clone()),
        gpus,
        verdict: worst.unwrap_or(Verdict::Unknown),
        how,
        not_asked: target.not_asked(),
        findings: Vec::new(),
    }
}

/// Fails outranks unknown, unknown degraded, degraded runs. A pass needs something that uses the GPU; an image that was
/// not seen whole is never better than unknown.
pub fn verdict<'f>(inventory: &Inventory, findings: impl Iterator<Item = &'f Finding>) -> Verdict {
    match findings.map(|f| f.outcome).max() {
        Some(Outcome::Breaks) => Verdict::Fails,
        Some(Outcome::Unknown) => Verdict::Unknown,
        _ if !inventory.facts.complete => Verdict::Unknown,
        _ if !inventory.uses_gpu() => Verdict::NoGpuCode,
        Some(Outcome::Degrades) => Verdict::Degraded,
        _ => Verdict::Runs,
    }
}

/// The mechanisms of one GPU's findings. What fails gets nothing done, except on the CPU.
pub fn how<'f>(verdict: Verdict, findings: impl Iterator<Item = &'f Finding>) -> Vec<How> {
    let counts = |how: &How| verdict != Verdict::Fails || *how == How::CpuFallback;
    let mut out: Vec<How> = findings.flat_map(|f| f.how.iter().copied()).filter(counts).collect();
    out.sort_unstable();
    out.dedup();
    out
}

fn collect(all: &mut Collected, finding: Finding, target: Option<&str>, identity: &Identity) {
    let target = target.map(str::to_owned);
    let same = all.index.entry((finding.rule, finding.message.clone())).or_default();
    let known = same.iter().copied().find(|&i| all.rows.get(i).is_some_and(|f| f.finding == finding));
    if let Some(known) = known.and_then(|i| all.rows.get_mut(i)) {
        known.targets.extend(target.filter(|t| !known.targets.contains(t)));
        return;
    }
    same.push(all.rows.len());
    let fingerprint = fingerprint(&finding, identity);
    all.rows.push(ReportedFinding {
        finding,
        targets: target.into_iter().collect(),
        fingerprint,
        suppressed: None,
        line: None,
    });
}

/// Of rule, repository without tag, platform, and component or path; never of target, digest or layer.
fn fingerprint(finding: &Finding, identity: &Identity) -> String {
    let path = || finding.evidence.first().map(|e| e.place.path.to_string());
    // Several runtimes are one component: there the file tells them apart.
    let component = finding.component.clone().filter(|c| c != "cudart");
    let about = component.or_else(path).unwrap_or_default();
    let text = format!("{}\n{}\n{}\n{about}", finding.rule.code, identity.repository, identity.platform);
    Digest::of(text.as_bytes()).hex().get(..32).unwrap_or_default().to_owned()
}
