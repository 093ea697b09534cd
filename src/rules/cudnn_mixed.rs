//! Parts of several cuDNN releases meet in one process.

use super::cudnn::{Set, sets};
use super::linking::{and, at, says};
use super::{Case, Reads, Rule};
use crate::facts::FileFacts;
use crate::inventory::loader::Via;
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL305", name: "cudnn-mixed" };
pub(super) const RULE: Rule =
    Rule { id: ID, summary: "cuDNN would load sub-libraries of another release", reads: Reads::IMAGE, judge };

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    for set in sets(case) {
        out.extend(foreign_engine(case, &set));
        let parts: Vec<(&FileFacts, Version)> = set
            .parts
            .iter()
            .filter_map(|(_, load)| Some((load.file?, case.inventory.version_at(load.file?)?)))
            .collect();
        let mut versions: Vec<Version> = parts.iter().map(|(_, v)| triple(v)).collect();
        versions.sort();
        versions.dedup();
        let own = set.version.as_ref().map(triple);
        out.extend(match versions.as_slice() {
            [] => None,
            [one] if own.as_ref().is_none_or(|o| o == one) => Some(held(&set, one)),
            [one] => Some(displaced(case, &set, &parts, one)),
            _ => Some(mixed(&set, &parts, &versions)),
        });
    }
    out
}

/// cuDNN compares major, minor and patch; the build number of the package is not in the bytes.
fn triple(version: &Version) -> Version {
    Version::triple(version.major(), version.minor(), version.part(2))
}

fn held(set: &Set<'_>, version: &Version) -> Finding {
    let message = format!("all parts of cuDNN that {} loads are of release {version}", set.group);
    Finding::new(ID, Outcome::Holds, message, vec![at(set.dispatcher, "its sub-libraries were looked up")])
}

fn lines(parts: &[(&FileFacts, Version)]) -> Vec<Evidence> {
    super::reasoning::limited(parts.iter().map(|(f, v)| at(f, format!("cuDNN {v}"))).collect(), "parts")
}

/// The dispatcher is of one release and everything that it opens of another: it works, with that other one.
fn displaced(case: &Case<'_>, set: &Set<'_>, parts: &[(&FileFacts, Version)], other: &Version) -> Finding {
    let own = set.version.as_ref().map(ToString::to_string).unwrap_or_default();
    let message = format!("{} loads cuDNN {own}, which then opens the parts of cuDNN {other}", set.group);
    let mut evidence = vec![at(set.dispatcher, format!("cuDNN {own}"))];
    evidence.extend(lines(parts).into_iter().take(2));
    let by_path = set.parts.iter().any(|(_, l)| l.via == Some(Via::LibraryPath));
    let dir = parts
        .first()
        .filter(|_| by_path)
        .map(|(f, _)| case.inventory.processes.loader.as_named(&f.place.path.parent()));
    let finding = Finding::new(ID, Outcome::Degrades, message, evidence)
        .headline("cuDNN of another release is found first")
        .component(set.group.clone());
    match dir {
        Some(dir) => finding.remedy(format!("take {dir} out of LD_LIBRARY_PATH")),
        None => finding,
    }
    .remedy("keep one cuDNN in the image")
}

fn mixed(set: &Set<'_>, parts: &[(&FileFacts, Version)], versions: &[Version]) -> Finding {
    let names: Vec<String> = versions.iter().map(ToString::to_string).collect();
    let message = format!("{} would load parts of cuDNN {} into one process", set.group, and(&names));
    Finding::new(ID, Outcome::Breaks, message, lines(parts))
        .headline("parts of several cuDNN releases")
        .component(set.group.clone())
        // The word of cuDNN 9; what 8 says was not seen.
        .error(
            says("CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH")
                .filter(|_| versions.iter().any(|v| v.major() >= 9)),
        )
        .remedy("keep one cuDNN in the image")
}

/// cuDNN 9.20 opens an engine that its own package does not ship; a copy of another release is then pulled in.
fn foreign_engine(case: &Case<'_>, set: &Set<'_>) -> Option<Finding> {
    const ENGINE: &str = "libcudnn_engines_tensor_ir";
    let graph = set.parts.iter().find(|(name, _)| *name == "libcudnn_graph").and_then(|(_, l)| l.file)?;
    let names_it = graph.elf.as_ref()?.dlopens.iter().any(|d| d.starts_with(ENGINE));
    let beside = graph.place.path.parent().join(&format!("{ENGINE}.so.9"));
    if !names_it || case.inventory.processes.loader.paths.file(beside.as_str()).is_some() {
        return None;
    }
    let mut process = set.process.clone();
    let index = process.objects.iter().position(|o| o.file.place == graph.place)?;
    let foreign =
        case.inventory.processes.loader.open_name(&mut process, index, &format!("{ENGINE}.so.9")).file?;
    let (own, other) = (set.version.clone()?, case.inventory.version_at(foreign)?);
    if triple(&own) == triple(&other) {
        return None;
    }
    let message = format!("cuDNN {own} of {} may open the engine of cuDNN {other}", set.group);
    let evidence = vec![
        at(graph, format!("opens {ENGINE}.so, which its package does not have")),
        at(foreign, format!("cuDNN {other}")),
    ];
    Some(
        Finding::new(ID, Outcome::Degrades, message, evidence)
            .level(Level::Warning)
            .headline("cuDNN engine of another release")
            .component(set.group.clone())
            .error(says("CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH"))
            .remedy("update cuDNN to 9.21 or newer, or remove the second cuDNN"),
    )
}
