//! The image uses a part of the driver that its `NVIDIA_DRIVER_CAPABILITIES` does not ask for.

use super::linking::{cannot_open, is_toolkit_extra};
use super::reasoning::limited;
use super::settings::{capabilities, is_gpu_container};
use super::{Case, Rule};
use crate::catalog::{CapabilityRow, library_stem};
use crate::facts::FileFacts;
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};
use crate::target::profile::RuntimeMode;

const ID: RuleId = RuleId { code: "CUL508", name: "driver-capability-missing" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "NVIDIA_DRIVER_CAPABILITIES leaves out a part of the driver that the image uses",
    image_only: true,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mode = case.host.mode(false).map(|(mode, _)| mode);
    // CDI brings every library of the driver, whatever the variable says.
    if !case.inventory.uses_gpu() || !is_gpu_container(case) || mode == Some(RuntimeMode::Cdi) {
        return Vec::new();
    }
    let asked = capabilities(case);
    let has = |name: &str| {
        asked.iter().any(|a| a == name) || name == "graphics" && asked.iter().any(|a| a == "display")
    };
    let rows = case.catalog.capabilities.iter().filter(|c| !has(&c.id));
    let compute_too = |row: &CapabilityRow| row.id == "compute" && has("video");
    rows.filter(|row| !compute_too(row)).filter_map(|row| missing(case, row, mode)).collect()
}

fn missing(case: &Case<'_>, row: &CapabilityRow, mode: Option<RuntimeMode>) -> Option<Finding> {
    let (needed, opened) = users(case, row);
    let value = case.inventory.facts.image.config.env("NVIDIA_DRIVER_CAPABILITIES").unwrap_or_default();
    let uses = if needed.is_empty() { &opened } else { &needed };
    // Without libcuda nothing works; the runtime itself opens it.
    let all = row.id == "compute";
    let name = match uses.first() {
        Some((_, name)) => name.clone(),
        None if all => "libcuda.so.1".to_owned(),
        None => return None,
    };
    let lines: Vec<Evidence> = uses
        .iter()
        .map(|(file, name)| Evidence { place: file.place.clone(), detail: format!("uses {name}") })
        .collect();
    let evidence = match lines.is_empty() {
        true => {
            super::reasoning::about_image(case, format!("the image sets NVIDIA_DRIVER_CAPABILITIES={value}"))
        }
        false => limited(lines, "files"),
    };
    let message = format!(
        "NVIDIA_DRIVER_CAPABILITIES={value} leaves out `{}`: in legacy mode {name} is not in the container",
        row.id
    );
    let legacy = mode == Some(RuntimeMode::Legacy);
    let (outcome, level) = match (legacy, all) {
        (true, true) => (Outcome::Breaks, Level::Error),
        (false, true) => (Outcome::Holds, Level::Warning),
        (true, false) if !needed.is_empty() => (Outcome::Degrades, Level::Warning),
        _ => (Outcome::Holds, Level::Note),
    };
    let mut words = capabilities(case);
    words.push(row.id.clone());
    Some(
        Finding::new(ID, outcome, message, evidence)
            .level(level)
            .headline(format!("driver capability `{}` not asked for", row.id))
            .component(row.id.clone())
            .error(cannot_open(&name))
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
