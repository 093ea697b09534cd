//! A symbolic link where the container runtime mounts a file of the driver: in legacy mode the container does not start.

use super::linking::{and, at_place, says};
use super::reasoning::limited;
use super::settings::{capabilities, is_gpu_container};
use super::{Case, Reads, Rule};
use crate::facts::Link;
use crate::inventory::loader::Libc;
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};
use crate::target::profile::{Kind, RuntimeMode};

const ID: RuleId = RuleId { code: "CUL512", name: "mount-target-is-link" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a symbolic link stands where the container runtime mounts a file of the driver",
    reads: Reads::DRIVER.and(Reads::HOST),
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    if !is_gpu_container(case) {
        return Vec::new();
    }
    let facts = case.inventory.facts;
    let links = facts.links.iter().filter(|l| !l.hard);
    let hit: Vec<&Link> = links.filter(|l| is_target(case, l.place.path.as_str())).collect();
    let Some(first) = hit.first() else { return Vec::new() };
    let mode = case.mode().map(|(mode, _)| mode);
    // The runtime follows a link to look whether the file is there already; only one that leads nowhere is sure to fail.
    let paths = &case.inventory.processes.loader.paths;
    let dangling = hit.iter().any(|l| paths.file(l.place.path.as_str()).is_none());
    let (outcome, level) = match mode {
        Some(RuntimeMode::Legacy) if dangling => (Outcome::Breaks, Level::Error),
        Some(RuntimeMode::Legacy) => (Outcome::Unknown, Level::Warning),
        Some(RuntimeMode::Cdi | RuntimeMode::Csv) => (Outcome::Holds, Level::Note),
        None => (Outcome::Holds, Level::Warning),
    };
    let path = &first.place.path;
    let follows = if dangling { "does not start" } else { "may not start" };
    let message = format!(
        "{path} is a symbolic link, and the container runtime mounts the host's file there: in legacy mode the container {follows}"
    );
    let names: Vec<String> = hit.iter().take(3).map(|l| l.place.path.to_string()).collect();
    let lines: Vec<Evidence> =
        hit.iter().map(|l| at_place(&l.place, format!("a symbolic link to {}", l.target))).collect();
    let text =
        format!("nvidia-container-cli: mount error: file creation failed: <rootfs>{path}: file exists");
    vec![
        Finding::new(ID, outcome, message, limited(lines, "links"))
            .level(level)
            .headline("a link where the driver is mounted")
            .component("driver")
            .error(says(text))
            .remedy(format!("delete {} in the image, and the driver packages that brought it", and(&names))),
    ]
}

/// Programs go to /usr/bin. Libraries are mounted under the host driver's own file names; on WSL under those names that every
/// driver has.
fn is_target(case: &Case<'_>, path: &str) -> bool {
    let asked = capabilities(case);
    let rows = || case.catalog.capabilities.iter().filter(|c| asked.contains(&c.id));
    if let Some(program) = path.strip_prefix("/usr/bin/") {
        return rows().any(|c| c.programs.iter().any(|p| p == program));
    }
    let Some(name) = library_dirs(case).iter().find_map(|d| path.strip_prefix(d)?.strip_prefix('/')) else {
        return false;
    };
    let Some((stem, version)) = name.split_once(".so.") else { return false };
    let of_driver = rows().any(|c| c.libraries.iter().any(|l| l == stem));
    let host = case.driver.filter(|d| d.is_exact()).and_then(|d| d.version.as_ref());
    let mounted = match case.host.kind {
        Some(Kind::Wsl) => matches!(name, "libcuda.so.1" | "libnvidia-ml.so.1"),
        _ => host.is_some_and(|h| h.as_str() == version),
    };
    of_driver && mounted
}

/// Where libnvidia-container puts libraries: Debian's directory where the image is one of Debian's family.
fn library_dirs(case: &Case<'_>) -> Vec<&'static str> {
    let arm = case.inventory.facts.image.platform.architecture == "arm64";
    let debian = if arm { "/usr/lib/aarch64-linux-gnu" } else { "/usr/lib/x86_64-linux-gnu" };
    match case.inventory.processes.loader.libc {
        Libc::Glibc | Libc::None => vec![debian, "/usr/lib64"],
        Libc::Musl => vec!["/usr/lib64"],
    }
}
