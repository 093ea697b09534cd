//! The image was looked at without its GPU code: which GPUs and drivers that runs on is open.

use super::reasoning::about_image;
use super::{Case, Reads, Rule, cpu_only_build, driver_capability_missing, jit_setting};
use crate::facts::Depth;
use crate::report::{Finding, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL903", name: "code-not-read" };
pub(super) const RULE: Rule =
    Rule { id: ID, summary: "GPU code was not read (--depth libraries)", reads: Reads::IMAGE, judge };

/// Whether a rule would take GPU code that was not read for code that is not there.
pub(super) fn silences(rule: RuleId) -> bool {
    let others = [cpu_only_build::RULE.id, driver_capability_missing::RULE.id, jit_setting::RULE.id];
    rule.code.starts_with("CUL2") || others.contains(&rule)
}

fn judge(case: &Case<'_>) -> Vec<Finding> {
    if case.inventory.facts.depth == Depth::Full {
        return Vec::new();
    }
    let message = "the GPU code of the image was not read: whether it covers a GPU is open".to_owned();
    let seen = "looked at with --depth libraries".to_owned();
    vec![
        Finding::new(ID, Outcome::Unknown, message, about_image(case, seen))
            .headline("its GPU code was not read")
            .remedy("look again without --depth libraries"),
    ]
}
