//! Neither machine code nor usable PTX for the GPU: error 209 at the first kernel.

use super::reasoning::{Judgement, judge_code};
use super::tegra_code_mismatch::is_tegra_mismatch;
use super::{Case, Reads, Rule};
use crate::inventory::gpu_code::Reach;
use crate::report::{Finding, How, Outcome, RuleId};
use crate::target::Gpu;

const ID: RuleId = RuleId { code: "CUL201", name: "no-code-for-gpu" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a part of the image has no code that the GPU can run",
    reads: Reads::ALL,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(gpu) = case.gpu else { return Vec::new() };
    let mut out = Vec::new();
    for part in judge_code(case) {
        match part.reach {
            Reach::Native => out.push(held(&part, gpu)),
            Reach::None if !is_tegra_mismatch(case, &part, gpu) => out.push(missing(case, &part, gpu)),
            _ => {}
        }
    }
    out
}

fn held(part: &Judgement<'_>, gpu: &Gpu) -> Finding {
    let best = part.best();
    let message = format!(
        "{} has machine code for {} in {} of {} containers",
        part.group.name,
        gpu.describe(),
        best.native,
        best.counted
    );
    let evidence = part.evidence();
    Finding::new(ID, Outcome::Holds, message, evidence).component(part.group.name.clone()).how(How::Native)
}

fn missing(case: &Case<'_>, part: &Judgement<'_>, gpu: &Gpu) -> Finding {
    let name = &part.group.name;
    let outcome = part.weight.of_loss();
    let message = format!("{name} has no code for {}: neither machine code nor PTX fits", gpu.describe());
    Finding::new(ID, outcome, message, part.evidence())
        .headline(format!("no code for {} in {name}", gpu.describe()))
        .component(name.clone())
        .host(format!("{} runs {}", gpu.describe(), wanted(case, gpu)))
        .error(case.error(209))
        .remedy(format!(
            "use a build of {name} for sm_{} (or with PTX for an older target)",
            gpu.cc.sm_number()
        ))
}

/// `machine code for sm_80, sm_86 or sm_89, and PTX up to compute_89`.
pub(super) fn wanted(case: &Case<'_>, gpu: &Gpu) -> String {
    let arch = |a: &&crate::catalog::ArchRow| {
        let code = crate::version::Arch { number: a.cc.sm_number(), suffix: crate::version::Suffix::None };
        crate::inventory::gpu_code::sass_fits(code, gpu.cc, case.catalog)
    };
    let names: Vec<String> =
        case.catalog.archs.iter().filter(arch).map(|a| format!("sm_{}", a.cc.sm_number())).collect();
    format!("machine code for {}, and PTX up to compute_{}", names.join(", "), gpu.cc.sm_number())
}
