//! Machine code for a discrete GPU on a Jetson module, or the reverse: same major, still not interchangeable.

use super::no_code_for_gpu::wanted;
use super::reasoning::{Judgement, judge_code};
use super::{Case, Reads, Rule};
use crate::facts::CodeKind;
use crate::inventory::gpu_code::Reach;
use crate::report::{Finding, RuleId};
use crate::target::Gpu;
use crate::version::Suffix;

const ID: RuleId = RuleId { code: "CUL206", name: "tegra-code-mismatch" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "machine code for desktop GPUs does not run on Jetson modules, nor the reverse",
    reads: Reads::ALL,
    judge,
};

/// Nothing fits, but code of the GPU's major is there and only the Tegra border keeps it out.
pub(super) fn is_tegra_mismatch(case: &Case<'_>, part: &Judgement<'_>, gpu: &Gpu) -> bool {
    let images = part.files().flat_map(|(f, _)| f.shapes.iter().flat_map(|s| &s.images));
    part.reach == Reach::None
        && images.filter(|i| i.kind == CodeKind::Sass && i.arch.suffix == Suffix::None).any(|i| {
            let made_for = i.arch.compute_capability();
            made_for.major == gpu.cc.major
                && made_for.minor <= gpu.cc.minor
                && case.catalog.is_tegra(made_for) != case.catalog.is_tegra(gpu.cc)
        })
}

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(gpu) = case.gpu else { return Vec::new() };
    let mut out = Vec::new();
    for part in judge_code(case).into_iter().filter(|p| is_tegra_mismatch(case, p, gpu)) {
        let name = &part.group.name;
        let outcome = part.weight.of_loss();
        let (there, here) = if gpu.tegra {
            ("discrete GPUs", "a Jetson module")
        } else {
            ("Jetson modules", "a discrete GPU")
        };
        let message = format!("{name} has machine code for {there} only; {} is {here}", gpu.describe());
        out.push(
            Finding::new(ID, outcome, message, part.evidence())
                .headline(format!("code for {there} only in {name}"))
                .component(name.clone())
                .host(format!("{} runs {}", gpu.describe(), wanted(case, gpu)))
                .error(case.error(209))
                .remedy(match gpu.tegra {
                    true => format!("use a JetPack build of {name} for sm_{}", gpu.cc.sm_number()),
                    false => {
                        format!("use a build of {name} for discrete GPUs, with sm_{}", gpu.cc.sm_number())
                    }
                }),
        );
    }
    out
}
