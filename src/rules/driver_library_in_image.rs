//! Files of a driver stand in the image, outside the places of compat packages.

use super::linking::{and, at, is_toolkit_extra, says};
use super::reasoning::limited;
use super::{Case, Reads, Rule, breaks_if};
use crate::facts::FileFacts;
use crate::inventory::compat::is_compat_path;
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};
use crate::target::profile::{Kind, RuntimeMode};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL503", name: "driver-library-in-image" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "libraries of a driver are baked into the image",
    reads: Reads::DRIVER.and(Reads::HOST),
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let baked: Vec<&FileFacts> = case.inventory.facts.files.iter().filter(|f| is_baked(f)).collect();
    if baked.is_empty() {
        return Vec::new();
    }
    let version = baked.iter().find_map(|f| version_of(f));
    let lines: Vec<Evidence> = baked.iter().map(|f| at(f, "a driver file")).collect();
    let host = case.driver.and_then(|d| Some((d.describe(), d.version.clone()?)));
    let newer_host = matches!((&host, &version), (Some((_, host)), Some(baked)) if host > baked);
    let what = version
        .as_ref()
        .map_or_else(|| "driver libraries".to_owned(), |v| format!("libraries of driver {v}"));
    let finding = |outcome, message: String| {
        let names: Vec<String> = baked.iter().take(3).map(|f| f.place.path.to_string()).collect();
        Finding::new(ID, outcome, message, limited(lines.clone(), "files"))
            .headline("driver files in the image")
            .component("driver")
            .error(
                says("Failed to initialize NVML: Driver/library version mismatch")
                    .filter(|_| outcome != Outcome::Holds),
            )
            .remedy(format!("delete {} from the image; the container runtime mounts the host's", and(&names)))
    };
    vec![match host {
        // ldconfig, which the runtime runs, leads libcuda.so.1 to the highest number of a directory.
        Some((host, _)) if wins(case, &baked) => {
            let outcome = match case.mode() {
                // In CDI mode the host's files may stand in another directory, which is searched first.
                Some((RuntimeMode::Cdi, _)) => Outcome::Unknown,
                _ => breaks_if(case.driver_is_sure()),
            };
            let win = if outcome == Outcome::Unknown { "may win" } else { "win" };
            finding(outcome, format!("{what} are part of the image and {win} over those of {host}"))
                .error(case.error(803))
        }
        // ldconfig prefers the higher number, which is the host's.
        Some((host, _)) if newer_host => finding(
            Outcome::Holds,
            format!("{what} are part of the image; those of {host} are newer and win"),
        )
        .level(Level::Warning),
        Some((host, _)) => finding(
            Outcome::Degrades,
            format!("{what} are part of the image and may be loaded in place of those of {host}"),
        ),
        None => finding(Outcome::Degrades, format!("{what} are part of the image; they belong to the host")),
    }]
}

/// Whether a libcuda of a newer driver stands where the runtime puts the host's.
fn wins(case: &Case<'_>, baked: &[&FileFacts]) -> bool {
    const DIRECTORIES: [&str; 4] =
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/lib/x86_64-linux-gnu"];
    let host = case.driver.filter(|d| !d.known.tegra).and_then(|d| d.version.as_ref());
    let newer = |f: &FileFacts| {
        let both = host.zip(version_of(f));
        // A branch alone says nothing of builds of the same branch.
        let exact = case.driver.is_some_and(crate::target::Driver::is_exact);
        both.is_some_and(|(h, v)| if exact { v > *h } else { v.major() > h.major() })
    };
    let in_place = |f: &&&FileFacts| DIRECTORIES.contains(&f.place.path.parent().as_str());
    let mut libcuda = baked.iter().filter(|f| f.place.path.file_name().starts_with("libcuda.so."));
    // A directory of LD_LIBRARY_PATH comes before all others, whatever stands there.
    let loader = &case.inventory.processes.loader;
    let on_path = |f: &FileFacts| {
        let dir = f.place.path.parent();
        let other = host.zip(version_of(f)).is_some_and(|(h, v)| !h.agrees_with(&v));
        other && loader.library_path().iter().any(|d| loader.paths.real(d) == dir)
    };
    case.host.kind != Some(Kind::Wsl) && libcuda.any(|f| in_place(&f) && newer(f) || on_path(f))
}

fn is_baked(file: &FileFacts) -> bool {
    const STEMS: [&str; 3] = ["libcuda.so", "libnvidia-ml.so", "libnvidia-ptxjitcompiler.so"];
    let path = &file.place.path;
    file.elf.is_some()
        && STEMS.iter().any(|s| path.file_name().starts_with(s))
        && !is_compat_path(path)
        && path.parent().file_name() != "stubs"
        && !is_toolkit_extra(path)
}

fn version_of(file: &FileFacts) -> Option<Version> {
    let (_, rest) = file.place.path.file_name().split_once(".so.")?;
    Version::parse(rest).filter(|v| v.major() >= 100)
}
