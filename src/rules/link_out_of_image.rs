//! Symbolic links of the image at places that the container runtime writes to or mounts from, leading out of its root.

use super::linking::at_place;
use super::reasoning::limited;
use super::{Case, Reads, Rule};
use crate::facts::Link;
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL602", name: "link-out-of-image" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a link of the image has the shape of an attack on the container toolkit",
    reads: Reads::HOST,
    judge,
};

/// The first container toolkit that follows none of them.
const FIXED: &str = "1.17.8";

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let links = case.inventory.facts.links.iter().filter(|l| !l.hard);
    let hit: Vec<&Link> = links.filter(|l| is_place(l.place.path.as_str()) && leaves(l)).collect();
    let Some(first) = hit.first() else { return Vec::new() };
    let fixed = Version::parse(FIXED);
    let safe = matches!((&case.host.container_toolkit, &fixed), (Some(have), Some(fixed)) if have >= fixed);
    let message = format!(
        "{} leads out of the image to {}: container toolkits before {FIXED} follow such links on the host",
        first.place.path, first.target
    );
    let lines: Vec<Evidence> =
        hit.iter().map(|l| at_place(&l.place, format!("a symbolic link to {}", l.target))).collect();
    let finding = Finding::new(ID, Outcome::Holds, message, limited(lines, "links"))
        .level(if safe { Level::Note } else { Level::Warning })
        .headline("a link leads out of the image")
        .component("links")
        .remedy("find out who put the link there; no CUDA package does");
    let finding = match safe {
        true => finding,
        false => finding.remedy(format!("update the container toolkit to {FIXED} or newer")),
    };
    vec![finding.remedy("read https://nvidia.custhelp.com/app/answers/detail/a_id/5616")]
}

/// Where the toolkit looks for compat libraries, driver libraries, and the loader's configuration.
fn is_place(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let library = ["libcuda.so", "libnvidia-"].iter().any(|p| name.starts_with(p));
    let in_compat = path.starts_with("/usr/local/cuda") && path.split('/').any(|p| p == "compat");
    let of_loader =
        path == "/etc/ld.so.cache" || path == "/etc/ld.so.conf" || path.starts_with("/etc/ld.so.conf.d");
    in_compat || of_loader || library && path.starts_with("/usr/lib")
}

/// More `..` than there are directories above it, or the host's view of a process.
fn leaves(link: &Link) -> bool {
    let target = link.target.as_str();
    if target.starts_with("/proc/") || target.starts_with("/dev/fd/") {
        return true;
    }
    if target.starts_with('/') {
        return false;
    }
    let mut depth = link.place.path.as_str().split('/').filter(|p| !p.is_empty()).count().saturating_sub(1);
    for part in target.split('/') {
        match part {
            ".." if depth == 0 => return true,
            ".." => depth -= 1,
            "" | "." => {}
            _ => depth += 1,
        }
    }
    false
}
