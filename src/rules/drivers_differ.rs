//! The hosts that are judged have drivers of several branches.

use super::linking::and;
use super::reasoning::about_image;
use super::{Case, Reads, Rule};
use crate::report::{Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL610", name: "drivers-differ" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the hosts of the fleet have drivers of several branches",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let drivers = &case.policy.drivers;
    if case.policy.profile.is_none() || drivers.len() < 2 {
        return Vec::new();
    }
    let names: Vec<String> = drivers.iter().map(ToString::to_string).collect();
    let message = format!(
        "the hosts have driver branches {}: what starts on one may not start on another",
        and(&names)
    );
    let evidence = about_image(case, "nothing; this is about the hosts".to_owned());
    vec![
        Finding::new(ID, Outcome::Holds, message, evidence)
            .level(Level::Note)
            .headline("drivers differ in the fleet")
            .component("driver")
            .remedy("bring the hosts onto one branch; `cudalint plan` says which images ask for which"),
    ]
}
