//! Runtimes or libraries of several CUDA majors stand in one image.

use super::linking::{and, at_place};
use super::{Case, Reads, Rule};
use crate::inventory::Linkage;
use crate::report::{Finding, Level, Outcome, RuleId};
use std::collections::BTreeMap;

const ID: RuleId = RuleId { code: "CUL309", name: "several-cuda-majors" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the image has shared libraries of several CUDA majors",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut majors: BTreeMap<u64, Vec<&crate::inventory::Runtime>> = BTreeMap::new();
    let dynamic = case.inventory.runtimes.iter().filter(|r| r.linkage == Linkage::Dynamic);
    // Renamed copies inside a package (`libcudart.41118559.so.12`) satisfy nobody else.
    let plain = dynamic.filter(|r| r.place.path.file_name().starts_with("libcudart.so"));
    for runtime in plain {
        if let Some(major) = runtime.version.major() {
            majors.entry(major).or_default().push(runtime);
        }
    }
    if majors.len() < 2 {
        return Vec::new();
    }
    let names: Vec<String> = majors.keys().map(|m| format!("CUDA {m}")).collect();
    let message = format!("shared libraries of {} stand side by side", and(&names));
    let first = majors.values().filter_map(|r| r.first());
    let evidence = first.map(|r| at_place(&r.place, format!("CUDA runtime {}", r.version))).collect();
    vec![Finding::new(ID, Outcome::Holds, message, evidence).level(Level::Note)]
}
