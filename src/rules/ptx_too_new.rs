//! Only PTX fits the GPU, and it is newer than the loading driver compiles: error 222.

use super::reasoning::{
    Judgement, code_lines, driver_for_ptx, isa_text, judge_code, ptx_limit, runtimes_start,
};
use super::{Case, Reads, Rule, breaks_if};
use crate::facts::CodeKind;
use crate::inventory::gpu_code::{GroupRole, Reach};
use crate::report::{Evidence, Finding, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL203", name: "ptx-too-new" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the PTX that the GPU would need is newer than the driver compiles",
    reads: Reads::ALL,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    if !runtimes_start(case) {
        return Vec::new();
    }
    match case.gpu {
        Some(_) => {
            let parts = judge_code(case);
            parts.iter().filter(|p| p.reach == Reach::PtxTooNew).map(|p| too_new(case, p)).collect()
        }
        None => without_gpu(case),
    }
}

fn too_new(case: &Case<'_>, part: &Judgement<'_>) -> Finding {
    let outcome = part.weight.of_loss();
    finding(case, &part.group.name, part.best().isa, outcome, part.evidence())
}

/// Without GPU: code that is PTX only and too new fails on every GPU.
fn without_gpu(case: &Case<'_>) -> Vec<Finding> {
    let Some(limit) = ptx_limit(case) else { return Vec::new() };
    let mut out = Vec::new();
    for group in case.inventory.code.iter().filter(|g| g.role == GroupRole::Application) {
        let images = || group.files.iter().flat_map(|f| f.shapes.iter().flat_map(|s| &s.images));
        let only_ptx = images().all(|i| i.kind == CodeKind::Ptx);
        let lowest = images().filter_map(|i| i.ptx_isa).min();
        let newer = |(major, minor): (u16, u16)| Version::of(u64::from(major), u64::from(minor)) > limit.isa;
        if only_ptx && lowest.is_some_and(newer) {
            let evidence = code_lines(group.files.iter());
            out.push(finding(case, &group.name, lowest, Outcome::Breaks, evidence));
        }
    }
    out
}

fn finding(
    case: &Case<'_>,
    name: &str,
    isa: Option<(u16, u16)>,
    outcome: Outcome,
    evidence: Vec<Evidence>,
) -> Finding {
    let limit = ptx_limit(case);
    let sure = limit.as_ref().is_some_and(|l| l.sure);
    let outcome = if outcome == Outcome::Breaks { breaks_if(sure) } else { outcome };
    let who = limit.as_ref().map_or_else(|| "the driver".to_owned(), |l| l.who.clone());
    let stops = limit
        .as_ref()
        .map_or_else(String::new, |l| format!(", which stops at CUDA {} (PTX {})", l.cuda, l.isa));
    let need = driver_for_ptx(case, isa);
    let made_by = need.as_ref().map_or_else(String::new, |(_, cuda)| format!(" of CUDA {cuda}"));
    let message = format!("PTX {}{made_by} in {name} cannot be compiled by {who}{stops}", isa_text(isa));
    let machine =
        case.gpu.map_or_else(String::new, |g| format!(" and no machine code fits {}", g.describe()));
    let mut finding = Finding::new(ID, outcome, message, evidence)
        .headline("PTX too new for this driver")
        .component(name.to_owned())
        .host(format!(
            "{who} compiles PTX up to ISA {}{machine}",
            limit.map_or_else(String::new, |l| l.isa.to_string())
        ))
        .error(case.error(222));
    if let Some(gpu) = case.gpu {
        finding =
            finding.remedy(format!("use a build of {name} with machine code for sm_{}", gpu.cc.sm_number()));
    }
    if let Some((branch, _)) = need {
        finding = finding.remedy(format!("update the host to driver branch {branch} or newer"));
    }
    finding
}
