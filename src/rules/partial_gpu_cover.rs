//! A part of the code covers the GPU, a part does not, and no sibling file of the package does better.

use super::reasoning::judge_code;
use super::{Case, Rule};
use crate::inventory::gpu_code::{GroupRole, Reach};
use crate::report::{Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL204", name: "partial-gpu-cover" };
pub(super) const RULE: Rule =
    Rule { id: ID, summary: "only a part of a library's code covers the GPU", image_only: false, judge };

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(gpu) = case.gpu else { return Vec::new() };
    let mut out = Vec::new();
    for part in judge_code(case) {
        let best = part.best();
        let reaches = matches!(part.reach, Reach::Native | Reach::Jit);
        if !reaches || best.covered() >= best.counted || part.group.role != GroupRole::Application {
            continue;
        }
        let name = &part.group.name;
        let message =
            format!("{} of {} containers in {name} cover {}", best.covered(), best.counted, gpu.describe());
        // Libraries keep kernels for single architectures beside each other; a loss to speak of begins at the half.
        let half = best.covered() * 2 <= best.counted;
        let outcome = if half { Outcome::Degrades } else { Outcome::Holds };
        let finding = Finding::new(ID, outcome, message, part.evidence())
            .headline(format!("{name} covers the GPU in part"))
            .component(name.clone())
            .host(format!(
                "kernels of the other {} containers return error 209 here",
                best.counted - best.covered()
            ));
        let finding = match half {
            true => finding
                .error(case.error(209))
                .remedy(format!("use a build of {name} for sm_{}", gpu.cc.sm_number())),
            false => finding.level(Level::Note),
        };
        out.push(finding);
    }
    out
}
