//! A file could not be read as it should. Where it is one of the CUDA stack, what it would have said is missing.

use super::{Case, Reads, Rule};
use crate::facts::Problem;
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL901", name: "damaged-file" };
pub(super) const RULE: Rule =
    Rule { id: ID, summary: "a file of the image could not be read completely", reads: Reads::IMAGE, judge };

fn judge(case: &Case<'_>) -> Vec<Finding> {
    case.inventory.facts.problems.iter().map(|p| finding(case, p)).collect()
}

fn finding(case: &Case<'_>, problem: &Problem) -> Finding {
    let name = problem.place.path.file_name();
    let is_main = case.catalog.frameworks.iter().any(|f| f.main.iter().any(|m| m == name));
    let matters = is_main || case.catalog.component_of(name).is_some() || problem.detail.contains("fatbin");
    let outcome = if matters { Outcome::Unknown } else { Outcome::Holds };
    let message = match problem.place.path.is_root() {
        true => format!("the image is not as its manifest says: {}", problem.detail),
        false => format!("`{}` could not be read completely: {}", problem.place.path, problem.detail),
    };
    let evidence = vec![Evidence { place: problem.place.clone(), detail: problem.detail.clone() }];
    let finding = Finding::new(ID, outcome, message, evidence)
        .headline(format!("`{name}` is damaged"))
        .remedy("rebuild the layer that holds the file, then look again");
    if matters { finding } else { finding.level(Level::Note) }
}
