//! Extension modules that name libcuda among their needs cannot be imported without a driver.

use super::linking::{applications, at, cannot_open};
use super::reasoning::limited;
use super::{Case, Reads, Rule};
use crate::inventory::loader::Status;
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL317", name: "driver-needed-at-import" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "an extension cannot be imported where no driver is mounted: in builds, in tests, on CPU nodes",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut lines: Vec<Evidence> = Vec::new();
    let mut groups: Vec<&str> = Vec::new();
    for group in applications(case) {
        // A part that is opened at first use only (torch's libcaffe2_nvrtc) does not keep the package from being imported.
        for member in group.deciding() {
            let from_host = member.load("libcuda.so.1").is_some_and(|l| l.status == Status::Injected);
            if from_host {
                groups.push(&group.name);
                lines.push(at(member.file, "needs libcuda.so.1"));
            }
        }
    }
    groups.dedup();
    if lines.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
    let message = format!("{} can be loaded only where a driver is mounted", super::linking::and(&names));
    vec![
        Finding::new(ID, Outcome::Holds, message, limited(lines, "files"))
            .level(Level::Note)
            .error(cannot_open("libcuda.so.1"))
            .remedy("run it with the NVIDIA container runtime (docker run --gpus all)"),
    ]
}
