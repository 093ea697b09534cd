//! NCCL is part of torch's own library; an NCCL package beside it is not used.

use super::linking::{applications, at};
use super::{Case, Reads, Rule};
use crate::inventory::components::nccl_inside;
use crate::report::{Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL316", name: "nccl-linked-statically" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "torch has NCCL inside, so an installed or preloaded NCCL is not the one it uses",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let members = applications(case).flat_map(|g| &g.members);
    let mut inside = members.filter_map(|m| Some((m, nccl_inside(m.file)?)));
    let Some((member, version)) = inside.next() else { return Vec::new() };
    let Some(other) = case.inventory.components.iter().find(|c| c.component == "nccl") else {
        return Vec::new();
    };
    let plain = version.split('+').next().unwrap_or(version);
    let other_version = other.version.clone().unwrap_or_default();
    let message =
        format!("torch has NCCL {plain} inside and does not use the installed NCCL {other_version}");
    let evidence =
        vec![at(member.file, format!("holds the text `NCCL version {version}`, and needs no libnccl"))];
    vec![Finding::new(ID, Outcome::Holds, message, evidence).level(Level::Note).component("nccl")]
}
