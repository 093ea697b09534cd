//! A library's bytes state another version than its file name or its package.

use super::linking::at_place;
use super::reasoning::limited;
use super::{Case, Reads, Rule};
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL318", name: "version-disagrees" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a library is not of the version that its file name or package says",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut lines: Vec<Evidence> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for component in &case.inventory.components {
        let (Some(other), Some(version)) = (&component.disagreement, &component.version) else { continue };
        names.push(component.display.clone());
        lines.push(at_place(&component.place, format!("{version} by {}; {other}", component.how)));
    }
    names.sort();
    names.dedup();
    if lines.is_empty() {
        return Vec::new();
    }
    let (are, which) = match names.len() {
        1 => ("is", "its name or package says"),
        _ => ("are", "their names or packages say"),
    };
    let message = format!("{} {are} not of the version that {which}", super::linking::and(&names));
    vec![Finding::new(ID, Outcome::Holds, message, limited(lines, "files")).level(Level::Note)]
}
