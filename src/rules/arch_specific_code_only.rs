//! All code is for `a` or `f` targets of other GPUs: it runs there and nowhere else, and its PTX leads nowhere.

use super::reasoning::judge_code;
use super::{Case, Reads, Rule};
use crate::inventory::gpu_code::Reach;
use crate::report::{Finding, RuleId};

const ID: RuleId = RuleId { code: "CUL205", name: "arch-specific-code-only" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "all code is architecture- or family-specific (`a`, `f`) for other GPUs",
    reads: Reads::ALL,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(gpu) = case.gpu else { return Vec::new() };
    let mut out = Vec::new();
    for part in judge_code(case).into_iter().filter(|p| p.reach == Reach::SpecificOnly) {
        let name = &part.group.name;
        let outcome = part.weight.of_loss();
        let message = format!(
            "{name} holds only code with an `a` or `f` suffix for other GPUs; {} cannot run or compile it",
            gpu.describe()
        );
        out.push(
            Finding::new(ID, outcome, message, part.evidence())
                .headline(format!("only specific code for other GPUs in {name}"))
                .component(name.clone())
                .host(format!("{} is none of the GPUs that these targets name", gpu.describe()))
                .error(case.error(209))
                .remedy(format!(
                    "use a build of {name} that adds a plain target, such as sm_{}",
                    gpu.cc.sm_number()
                )),
        );
    }
    out
}
