//! The runtime is newer than the driver's CUDA version, of the same major: it runs, within documented limits.

use super::reasoning::{Fit, fit, releases, runtime_evidence};
use super::{Case, Reads, Rule};
use crate::report::{Finding, How, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL103", name: "minor-version-compatibility" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the image runs by minor-version compatibility, with its limits",
    reads: Reads::ALL,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(driver) = case.driver else { return Vec::new() };
    let Some(cuda) = &driver.known.cuda else { return Vec::new() };
    let mut out = Vec::new();
    for (release, runtimes) in releases(case) {
        if fit(&release, driver) != Fit::Minor {
            continue;
        }
        let reports = driver.version.as_ref().map_or_else(String::new, |_| format!(" (CUDA {cuda})"));
        let message =
            format!("CUDA {release} runs on {}{reports} by minor-version compatibility", driver.describe());
        out.push(
            Finding::new(ID, Outcome::Holds, message, runtime_evidence(&runtimes))
                .level(Level::Note)
                .headline("by minor-version compatibility")
                .component("cudart")
                .host(format!(
                    "PTX made by CUDA {release} is not compiled, and calls that need a newer driver return error 36"
                ))
                .how(How::MinorVersionCompatibility),
        );
    }
    out
}
