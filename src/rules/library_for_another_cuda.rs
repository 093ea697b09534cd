//! A soname that several CUDA releases share leads to the library of the wrong one.

use super::linking::{applications, at, cuda_major, cuda_major_of_needs, library_text};
use super::{Case, Reads, Rule};
use crate::facts::FileFacts;
use crate::report::{Finding, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL308", name: "library-for-another-cuda" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a library whose name several CUDA releases share is the one of another release",
    reads: Reads::IMAGE,
    judge,
};

/// Sonames that say nothing about CUDA, though the library behind them is for one major only.
const SHARED: [&str; 4] = ["libcusolver.so.11", "libcusparse.so.12", "libcudnn.so.8", "libcudnn.so.9"];

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut out: Vec<Finding> = Vec::new();
    let mut seen: Vec<(&FileFacts, &FileFacts)> = Vec::new();
    for group in applications(case) {
        for member in &group.members {
            let Some(own) = cuda_major_of_needs(member.elf) else { continue };
            for load in member.loads().iter().filter(|l| SHARED.contains(&l.name.as_str())) {
                let Some(file) = load.file else { continue };
                let Some(other) = major_of(case, file) else { continue };
                if seen.iter().any(|(a, b)| a.place == member.file.place && b.place == file.place) {
                    continue;
                }
                seen.push((member.file, file));
                let text = library_text(case, file);
                if own == other {
                    let message =
                        format!("{} gets {text}, which is for CUDA {own} as it is itself", group.name);
                    out.push(Finding::new(
                        ID,
                        Outcome::Holds,
                        message,
                        vec![at(file, format!("for CUDA {other}"))],
                    ));
                    continue;
                }
                let message = format!(
                    "{} is built for CUDA {own} and gets {text}, which is for CUDA {other}",
                    group.name
                );
                let evidence = vec![
                    at(member.file, format!("needs {}", load.name)),
                    at(file, format!("is for CUDA {other}")),
                ];
                out.push(
                    Finding::new(ID, Outcome::Degrades, message, evidence)
                        .headline(format!("{} is for CUDA {other}", load.name))
                        .component(group.name.clone())
                        .remedy(format!(
                            "install {} for CUDA {own}, and take the other off the search path",
                            name_of(case, file)
                        )),
                );
            }
        }
    }
    out.dedup_by(|a, b| a == b);
    out
}

fn name_of(case: &Case<'_>, file: &FileFacts) -> String {
    case.inventory
        .component_at(file)
        .map_or_else(|| file.place.path.file_name().to_owned(), |c| c.display.clone())
}

/// cuDNN says what it was built with; the others need libraries of their own major.
fn major_of(case: &Case<'_>, file: &FileFacts) -> Option<u64> {
    let is_cudnn = case.inventory.component_at(file).is_some_and(|c| c.component == "cudnn");
    if !is_cudnn {
        return cuda_major(case, file);
    }
    let dir = file.place.path.parent();
    let of_cudnn =
        case.inventory.components.iter().filter(|c| c.component == "cudnn" && c.place.path.parent() == dir);
    of_cudnn.filter_map(|c| c.cuda.as_ref()).map(crate::version::Version::major).next()
}
