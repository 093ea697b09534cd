//! New-feature branches of the driver live shortly.

use super::driver_end_of_life::successor;
use super::reasoning::about_image;
use super::{Case, Reads, Rule};
use crate::report::{Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL608", name: "feature-branch-driver" };
pub(super) const RULE: Rule =
    Rule { id: ID, summary: "the host has a new-feature branch of the driver", reads: Reads::DRIVER, judge };

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let branch = case.driver.and_then(crate::target::Driver::branch).and_then(|b| case.catalog.branch(b));
    let (Some(branch), Some(_)) = (branch, case.policy.profile) else { return Vec::new() };
    if branch.kind != "NFB" || branch.status.is_inferred() {
        return Vec::new();
    }
    let message = format!(
        "driver branch {} is a new-feature branch: its support ends with the next branch, and compat packages may not list it",
        branch.branch
    );
    let evidence = about_image(case, "nothing; this is about the host".to_owned());
    let finding = Finding::new(ID, Outcome::Holds, message, evidence)
        .level(Level::Note)
        .headline("new-feature branch of the driver")
        .component("driver");
    vec![match successor(case, branch) {
        Some(remedy) => finding.remedy(remedy),
        None => finding.remedy("move the host to a production branch"),
    }]
}
