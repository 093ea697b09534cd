//! A library of a release with a known fault.

use super::linking::{applications, at, library_text, object_of};
use super::{Case, Reads, Rule, breaks_if};
use crate::catalog::BugRow;
use crate::facts::FileFacts;
use crate::report::{Finding, Level, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL314", name: "known-library-bug" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a library is of a release with a documented fault that these programs and GPUs meet",
    reads: Reads::GPU,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    case.catalog.bugs.iter().filter_map(|bug| one(case, bug)).collect()
}

fn one(case: &Case<'_>, bug: &BugRow) -> Option<Finding> {
    if !bug.cc_majors.is_empty() && !case.gpu.is_some_and(|g| bug.cc_majors.contains(&g.cc.major)) {
        return None;
    }
    let (file, version) = used(case, &bug.component, &bug.from, &bug.below)?;
    let mut evidence = vec![at(file, library_text(case, file))];
    if let (Some(other), Some(from), Some(below)) = (&bug.with, &bug.with_from, &bug.with_below) {
        let (second, _) = used(case, other, from, below)?;
        evidence.push(at(second, library_text(case, second)));
    }
    let display = case.inventory.component_at(file).map_or(bug.component.clone(), |c| c.display.clone());
    let message = format!("{display} {version}: {}", bug.effect);
    if bug.several_gpus {
        // How many GPUs a process will use is not known: said, not judged.
        let finding = Finding::new(ID, Outcome::Holds, message, evidence).level(Level::Note);
        return Some(
            finding
                .component(bug.component.clone())
                .error(super::linking::says(bug.text.clone()))
                .remedy(bug.fix.clone()),
        );
    }
    let outcome = if breaks_if(!bug.status.is_inferred()) == Outcome::Breaks {
        Outcome::Degrades
    } else {
        Outcome::Unknown
    };
    Some(
        Finding::new(ID, outcome, message, evidence)
            .headline(format!("known fault of {display} {version}"))
            .component(bug.component.clone())
            .error(super::linking::says(bug.text.clone()))
            .remedy(bug.fix.clone()),
    )
}

/// A library of the component and of a release in the range that some application loads.
fn used<'c>(
    case: &Case<'c>,
    component: &str,
    from: &Version,
    below: &Version,
) -> Option<(&'c FileFacts, Version)> {
    let stems = match component {
        "cudnn" => ["libcudnn", "libcudnn_graph"],
        _ => ["libcublasLt", "libcublasLt"],
    };
    let members = applications(case).flat_map(|g| &g.members);
    let loaded = members.filter_map(|m| stems.iter().find_map(|s| object_of(&m.process, s)));
    let mut files = loaded.map(|(_, o)| o.file);
    files.find_map(|f| Some((f, case.inventory.version_at(f).filter(|v| from <= v && v < below)?)))
}
