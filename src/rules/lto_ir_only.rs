//! Only LTO-IR: it becomes machine code when a linker of the right release runs, and what links it is not known.

use super::reasoning::{Weight, judge_code};
use super::{Case, Rule};
use crate::inventory::gpu_code::Reach;
use crate::report::{Finding, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL207", name: "lto-ir-only" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "only LTO-IR: whether it runs depends on what links it at run time",
    image_only: false,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    for part in
        judge_code(case).into_iter().filter(|p| p.reach == Reach::LtoOnly && p.weight == Weight::Decides)
    {
        let name = &part.group.name;
        let message = format!("{name} holds LTO-IR only; which linker makes machine code of it is not known");
        out.push(
            Finding::new(ID, Outcome::Unknown, message, part.evidence())
                .headline(format!("only LTO-IR in {name}"))
                .component(name.clone())
                .host("LTO-IR is linked by an nvJitLink of the same CUDA major and an equal or newer minor")
                .remedy("check that libnvJitLink of that release is in the image, or ship machine code"),
        );
    }
    out
}
