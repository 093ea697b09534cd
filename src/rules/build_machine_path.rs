//! Search paths written into libraries lead to directories of the machine that built them.

use super::linking::{applications, at};
use super::reasoning::limited;
use super::{Case, Reads, Rule};
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL313", name: "build-machine-path" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a search path inside a library names a directory of its build machine, or the working directory",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let exists = |dir: &str| {
        let real = case.inventory.processes.loader.paths.real(dir);
        case.inventory.facts.files.iter().any(|f| f.place.path.is_below(&real))
    };
    let mut lines: Vec<Evidence> = Vec::new();
    for member in applications(case).flat_map(|g| &g.members) {
        let elements = member.elf.rpath.iter().chain(&member.elf.runpath).map(String::as_str);
        let odd = elements.into_iter().find(|e| e.is_empty() || is_foreign(e) && !exists(e));
        lines.extend(odd.map(|e| match e {
            "" => at(member.file, "an empty element: the working directory is searched"),
            dir => at(member.file, format!("{dir}, where the image has no library")),
        }));
    }
    if lines.is_empty() {
        return Vec::new();
    }
    let files = if lines.len() == 1 { "1 file".to_owned() } else { format!("{} files", lines.len()) };
    let message = format!(
        "search paths in {files} name directories without libraries in the image, or the working directory"
    );
    vec![Finding::new(ID, Outcome::Holds, message, limited(lines, "files")).level(Level::Note)]
}

/// An absolute directory that is no place of the system.
fn is_foreign(element: &str) -> bool {
    element.starts_with('/') && !element.starts_with("/usr/lib") && !element.starts_with("/lib")
}
