//! A CUDA development toolkit stands in the image.

use super::linking::at;
use super::reasoning::limited;
use super::{Case, Reads, Rule};
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL606", name: "development-toolkit" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the image holds the CUDA compiler, which running programs do not need",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    if case.policy.profile.is_none() {
        return Vec::new();
    }
    let compilers: Vec<Evidence> = case
        .inventory
        .facts
        .files
        .iter()
        .filter(|f| f.elf.is_some() && f.place.path.as_str().ends_with("/bin/nvcc"))
        .map(|f| at(f, "the CUDA compiler".to_owned()))
        .collect();
    if compilers.is_empty() {
        return Vec::new();
    }
    let message =
        "the image holds a CUDA development toolkit: gigabytes that running programs do not need".to_owned();
    vec![
        Finding::new(ID, Outcome::Holds, message, limited(compilers, "compilers"))
            .level(Level::Note)
            .headline("development toolkit inside")
            .component("toolkit")
            .remedy("build in a `devel` image and copy the result into a `runtime` or `base` one")
            .remedy("keep it where programs compile kernels at run time with nvcc (some extensions do)"),
    ]
}
