//! The image uses a part of the driver that its `NVIDIA_DRIVER_CAPABILITIES` does not ask for.

use super::linking::{cannot_open, is_toolkit_extra};
use super::reasoning::limited;
use super::settings::{capabilities, clipped, is_gpu_container};
use super::{Case, Reads, Rule};
use crate::catalog::{CapabilityRow, library_stem};
use crate::facts::FileFacts;
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};
use crate::target::profile::RuntimeMode;

const ID: RuleId = RuleId { code: "CUL508", name: "driver-capability-missing" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "NVIDIA_DRIVER_CAPABILITIES leaves out a part of the driver that the image uses",
    reads: Reads::HOST,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mode = case.mode().map(|(mode, _)| mode);
    // CDI brings every library of the driver, whatever the variable says.
    if !case.inventory.uses_gpu() || !is_gpu_container(case) || mode == Some(RuntimeMode::Cdi) {
        return Vec::new();
    }
    all_missing(case).filter_map(|row| missing(case, row, mode)).collect()
}

/// Capabilities that the image uses and does not ask for. `video` brings the libraries of `compute`, `display` those of
/// `graphics`.
fn all_missing<'c>(case: &'c Case<'_>) -> impl Iterator<Item = &'c CapabilityRow> {
    let asked = capabilities(case);
    let has = move |name: &str| asked.iter().any(|a| a == name);
    case.catalog.capabilities.iter().filter(move |row| {
        let through = match row.id.as_str() {
            "graphics" => has("display"),
            "compute" => has("video"),
            _ => false,
        };
        let (needed, opened) = users(case, row);
        let used = row.id == "compute" || !needed.is_empty() || !opened.is_empty();
        used && !through && !has(&row.id)
    })
}

fn missing(case: &Case<'_>, row: &CapabilityRow, mode: Option<RuntimeMode>) -> Option<Finding> {
    let (needed, opened) = users(case, row);
    let value = case.inventory.facts.image.config.env("NVIDIA_DRIVER_CAPABILITIES").filter(|v| !v.is_empty());
    let said = value.map_or_else(
        || format!("the default of NVIDIA_DRIVER_CAPABILITIES ({})", capabilities(case).join(",")),
        |v| format!("NVIDIA_DRIVER_CAPABILITIES={}", clipped(v)),
    );
    let uses = if needed.is_empty() { &opened } else { &needed };
    // Without libcuda nothing works; the runtime itself opens it.
    let all = row.id == "compute";
    let name = match uses.first() {
        Some((_, name)) => name.clone(),
        None if all => "libcuda.so.1".to_owned(),
        None => return None,
    };
    let verb = if needed.is_empty() { "may open" } else { "needs" };
    let lines: Vec<Evidence> = uses
        .iter()
        .map(|(file, name)| Evidence { place: file.place.clone(), detail: format!("{verb} {name}") })
        .collect();
    let evidence = match lines.is_empty() {
        true => super::reasoning::about_image(case, said.clone()),
        false => limited(lines, "files"),
    };
    let message = format!("{said} leaves out `{}`: in legacy mode {name} is not in the container", row.id);
    let legacy = mode == Some(RuntimeMode::Legacy);
    // Where nothing computes on the GPU, this is all that it is for.
    let only_use = case.inventory.runtimes.is_empty() && case.inventory.code.is_empty() && !needed.is_empty();
    let (outcome, level) = match (legacy, all || only_use) {
        (true, true) => (Outcome::Breaks, Level::Error),
        (false, true) => (Outcome::Holds, Level::Warning),
        (true, false) if !needed.is_empty() => (Outcome::Degrades, Level::Warning),
        _ => (Outcome::Holds, Level::Note),
    };
    // One line for all that is missing, so that two findings do not contradict each other.
    let known = |w: &String| case.catalog.capabilities.iter().any(|c| c.id == *w);
    let mut words: Vec<String> = capabilities(case).into_iter().filter(known).collect();
    words.extend(all_missing(case).map(|c| c.id.clone()));
    let error = match all && !case.inventory.runtimes.is_empty() {
        true => case.error(35),
        false => cannot_open(&name),
    };
    Some(
        Finding::new(ID, outcome, message, evidence)
            .level(level)
            .headline(format!("driver capability `{}` not asked for", row.id))
            .component(row.id.clone())
            .error(error)
            .remedy(format!("ENV NVIDIA_DRIVER_CAPABILITIES={}", words.join(","))),
    )
}

type Use<'a> = (&'a FileFacts, String);

/// Files that need a library of the capability, and files that may open one at run time. Libraries of the CUDA stack are left
/// out: most of what they could open they never do.
fn users<'a>(case: &Case<'a>, row: &CapabilityRow) -> (Vec<Use<'a>>, Vec<Use<'a>>) {
    let brings = |name: &&String| library_stem(name).is_some_and(|stem| row.libraries.contains(&stem));
    let through = |name: &&String| library_stem(name).is_some_and(|stem| row.loaders.contains(&stem));
    let mut needed = Vec::new();
    let mut opened = Vec::new();
    for file in &case.inventory.facts.files {
        let Some(elf) = &file.elf else { continue };
        let name = file.place.path.file_name();
        let of_stack = case.catalog.component_of(name).is_some_and(|c| c.component != "nccl");
        if of_stack || crate::inventory::loader::is_injected(name) || is_toolkit_extra(&file.place.path) {
            continue;
        }
        if let Some(name) = elf.needed.iter().find(brings) {
            needed.push((file, name.clone()));
        } else if let Some(name) = elf.dlopens.iter().find(brings).or_else(|| elf.needed.iter().find(through))
        {
            opened.push((file, name.clone()));
        }
    }
    (needed, opened)
}
