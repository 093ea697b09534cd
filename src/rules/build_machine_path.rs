//! Search paths written into libraries lead to directories of the machine that built them.

use super::linking::{applications, at};
use super::reasoning::limited;
use super::{Case, Rule};
use crate::facts::ElfFacts;
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL313", name: "build-machine-path" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a search path inside a library names a directory of its build machine, or the working directory",
    image_only: true,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut lines: Vec<Evidence> = Vec::new();
    for member in applications(case).flat_map(|g| &g.members) {
        if let Some(entry) = odd(member.elf) {
            let what = if entry.is_empty() {
                "an empty element: the working directory is searched".to_owned()
            } else {
                format!("{entry}, which is not in the image")
            };
            let exists = |dir: &str| {
                let below = format!("{}/", dir.trim_end_matches('/'));
                case.inventory.facts.files.iter().any(|f| f.place.path.as_str().starts_with(&below))
            };
            if entry.is_empty() || !exists(entry) {
                lines.push(at(member.file, what));
            }
        }
    }
    if lines.is_empty() {
        return Vec::new();
    }
    let files = if lines.len() == 1 { "1 file".to_owned() } else { format!("{} files", lines.len()) };
    let message = format!("search paths in {files} lead to directories of the machine that built them");
    vec![Finding::new(ID, Outcome::Holds, message, limited(lines, "files")).level(Level::Note)]
}

/// The first element that is empty, or absolute.
fn odd(elf: &ElfFacts) -> Option<&str> {
    let all = elf.rpath.iter().chain(&elf.runpath).map(String::as_str);
    all.into_iter()
        .find(|e| e.is_empty() || e.starts_with('/') && !e.starts_with("/usr/lib") && !e.starts_with("/lib"))
}
