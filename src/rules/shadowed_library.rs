//! LD_LIBRARY_PATH leads to another copy of a library than the one that was installed with the program.

use super::linking::{applications, at, library_text};
use super::reasoning::limited;
use super::{Case, Reads, Rule};
use crate::facts::FileFacts;
use crate::inventory::loader::Via;
use crate::report::{Evidence, Finding, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL310", name: "shadowed-library" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "LD_LIBRARY_PATH puts another copy of a CUDA library in front of the installed one",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    let mut told: Vec<(&FileFacts, &FileFacts)> = Vec::new();
    // Frameworks first: what others load is mostly loaded by them. What cannot be loaded at all has its own finding.
    let mut groups: Vec<_> = applications(case).filter(|g| !g.fails(case.catalog)).collect();
    groups.sort_by_key(|g| !g.members.iter().any(|m| m.main));
    for group in groups {
        let mut pairs: Vec<(&FileFacts, &FileFacts)> = Vec::new();
        let objects = group.members.iter().flat_map(|m| &m.process.objects);
        for load in objects.flat_map(|o| &o.loads).filter(|l| l.via == Some(Via::LibraryPath)) {
            let Some(found) = load.file else { continue };
            for other in load.shadows.iter().filter(|f| f.place.path.as_str().contains("-packages/")) {
                let known =
                    told.iter().chain(&pairs).any(|(a, b)| a.place == found.place && b.place == other.place);
                if !known && differ(case, found, other) {
                    pairs.push((found, other));
                }
            }
        }
        out.extend(finding(case, &group.name, &pairs));
        told.extend(pairs);
    }
    out
}

fn differ(case: &Case<'_>, a: &FileFacts, b: &FileFacts) -> bool {
    match (case.inventory.version_at(a), case.inventory.version_at(b)) {
        (Some(a), Some(b)) => !a.agrees_with(&b),
        // Without versions the sizes tell.
        _ => a.size != b.size,
    }
}

fn finding(case: &Case<'_>, group: &str, pairs: &[(&FileFacts, &FileFacts)]) -> Option<Finding> {
    let (found, other) = pairs.first()?;
    let more = match pairs.len() {
        1 => String::new(),
        n => format!(" (and {} more libraries)", n - 1),
    };
    let message = format!(
        "{group} gets {} by LD_LIBRARY_PATH in place of {} that was installed with it{more}",
        library_text(case, found),
        library_text(case, other)
    );
    let lines: Vec<Evidence> = pairs
        .iter()
        .flat_map(|(f, o)| {
            [
                at(f, format!("{}, loaded", library_text(case, f))),
                at(o, format!("{}, hidden", library_text(case, o))),
            ]
        })
        .collect();
    Some(
        Finding::new(ID, Outcome::Degrades, message, limited(lines, "files"))
            .headline("LD_LIBRARY_PATH hides installed libraries")
            .component(group.to_owned())
            .remedy(format!(
                "take {} out of LD_LIBRARY_PATH",
                case.inventory.processes.loader.as_named(&found.place.path.parent())
            )),
    )
}
