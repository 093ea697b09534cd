//! NVRTC opens `libnvrtc-builtins.so.MAJOR.MINOR` by exact name; without it nothing is compiled at run time.

use super::linking::{applications, at, object_of, says};
use super::{Case, Reads, Rule};
use crate::facts::FileFacts;
use crate::report::{Finding, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL307", name: "nvrtc-builtins-missing" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "NVRTC does not find the builtins library of its own release",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut seen: Vec<&FileFacts> = Vec::new();
    let mut out = Vec::new();
    for group in applications(case) {
        for member in &group.members {
            let Some((index, nvrtc)) = object_of(&member.process, "libnvrtc") else { continue };
            if seen.iter().any(|f| f.place == nvrtc.file.place) {
                continue;
            }
            seen.push(nvrtc.file);
            let Some(release) =
                case.inventory.version_at(nvrtc.file).map(|v| v.major_minor()).filter(|v| v.major() >= 11)
            else {
                continue;
            };
            let name = format!("libnvrtc-builtins.so.{release}");
            let mut process = member.process.clone();
            let load = case.inventory.processes.loader.open_name(&mut process, index, &name);
            let beside = nvrtc.file.place.path.parent().join(&name);
            let is_beside = case.inventory.processes.loader.paths.file(beside.as_str()).is_some();
            if !load.is_lost() || is_beside {
                let message = format!("NVRTC {release} finds {name}");
                out.push(Finding::new(
                    ID,
                    Outcome::Holds,
                    message,
                    vec![at(nvrtc.file, "looked up as it would")],
                ));
                continue;
            }
            let message = format!("{} loads NVRTC {release}, which does not find {name}", group.name);
            out.push(
                Finding::new(
                    ID,
                    Outcome::Degrades,
                    message,
                    vec![at(nvrtc.file, format!("opens {name} by that name"))],
                )
                .headline("NVRTC without its builtins")
                .component(group.name.clone())
                .error(says(format!("nvrtc: error: failed to open {name}.")))
                .remedy(format!("install libnvrtc and {name} from one package")),
            );
        }
    }
    out
}
