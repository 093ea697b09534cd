//! Only LTO-IR: it becomes machine code when a linker of the right release runs, and what links it is not known.

use super::reasoning::{Weight, code_lines, judge_code};
use super::{Case, Reads, Rule};
use crate::facts::CodeKind;
use crate::inventory::gpu_code::{CodeGroup, GroupRole, Reach};
use crate::report::{Finding, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL207", name: "lto-ir-only" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "only LTO-IR: whether it runs depends on what links it at run time",
    reads: Reads::ALL,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let of_gpu =
        judge_code(case).into_iter().filter(|p| p.reach == Reach::LtoOnly && p.weight == Weight::Decides);
    let mut groups: Vec<&CodeGroup> = of_gpu.map(|p| p.group).collect();
    if case.gpu.is_none() {
        let only_lto = |g: &&CodeGroup| {
            let mut images = g.files.iter().flat_map(|f| f.shapes.iter().flat_map(|s| &s.images));
            g.role == GroupRole::Application && images.all(|i| i.kind == CodeKind::LtoIr)
        };
        groups.extend(case.inventory.code.iter().filter(only_lto));
    }
    groups.into_iter().map(finding).collect()
}

fn finding(group: &CodeGroup) -> Finding {
    let name = &group.name;
    let evidence = code_lines(group.files.iter());
    let message = format!("{name} holds LTO-IR only; which linker makes machine code of it is not known");
    Finding::new(ID, Outcome::Unknown, message, evidence)
        .headline(format!("only LTO-IR in {name}"))
        .component(name.clone())
        .host("LTO-IR is linked by an nvJitLink of the same CUDA major and an equal or newer minor")
        .remedy("check that libnvJitLink of that release is in the image, or ship machine code")
}
