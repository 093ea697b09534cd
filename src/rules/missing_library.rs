//! A library that a program or package needs is nowhere on its search path.

use super::linking::{
    and, anywhere, applications, at, best_member, cannot_open, is_toolkit_extra, pip_package,
};
use super::reasoning::{about_image, limited};
use super::{Case, Reads, Rule};
use crate::facts::FileFacts;
use crate::inventory::gpu_code::GroupRole;
use crate::inventory::loader::{Load, Status};
use crate::inventory::loading::{Group, Opened};
use crate::inventory::processes::in_site;
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL301", name: "missing-library" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a CUDA library that is needed is not in the image, or not where the loader searches",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    if case.inventory.processes.loader.gave_up() {
        let message = "what loads what was not looked up: the files name more libraries and directories than are followed";
        let evidence = about_image(case, "libraries may be missing or mixed".to_owned());
        let finding = Finding::new(ID, Outcome::Unknown, message.to_owned(), evidence);
        return vec![finding.headline("libraries were not looked up")];
    }
    let plug_ins =
        |g: &Group| g.members.iter().all(|m| m.file.place.path.as_str().contains("-packages/nvidia/"));
    // CuPy imports its modules one by one as they are used, from 13 on.
    let lazy_cupy =
        case.inventory.family("cupy").all(|c| c.version.as_ref().is_some_and(|v| v.major() >= 13));
    let own_rule = |name: &str| name == "onnxruntime" || name.starts_with("cupy") && lazy_cupy;
    for group in applications(case).filter(|g| !own_rule(&g.name) && !plug_ins(g)) {
        // The CPU build of torch has no such library: that is the finding.
        if super::cpu_only_build::lacks_torch_cuda(case, group) {
            continue;
        }
        if group.fails(case.catalog) {
            out.extend(broken(case, group));
        } else {
            out.extend(partly(case, group));
        }
    }
    let any_application = applications(case).next().is_some();
    for group in
        case.inventory.loading.iter().filter(|g| g.role != GroupRole::Application && !any_application)
    {
        out.extend(library_alone(case, group));
    }
    let complete = |m: &Opened| m.loaded_elsewhere || m.missing(case.catalog).next().is_none();
    let all_complete = case.inventory.loading.iter().flat_map(|g| &g.members).all(complete);
    if out.is_empty() && all_complete {
        out.extend(held(case));
    }
    out
}

fn held(case: &Case<'_>) -> Option<Finding> {
    let members = case.inventory.loading.iter().flat_map(|g| &g.members);
    let first = members.clone().next()?;
    let count = members.count();
    let files = if count == 1 {
        "1 file of the stack needs".to_owned()
    } else {
        format!("{count} files of the stack need")
    };
    let message = format!("every CUDA library that {files} is found");
    Some(Finding::new(ID, Outcome::Holds, message, vec![at(first.file, "looked up as its loader would")]))
}

fn broken(case: &Case<'_>, group: &Group<'_>) -> Option<Finding> {
    let member = best_member(case, group)?;
    let missing: Vec<(&FileFacts, &Load)> = member.missing(case.catalog).collect();
    // What is nowhere decides, and what is there but not searched for only where nothing is nowhere.
    let is_absent = |l: &Load| l.status == Status::Missing && anywhere(case, &l.name).is_none();
    let absent = missing.iter().any(|(_, l)| is_absent(l));
    let told: Vec<&(&FileFacts, &Load)> = missing.iter().filter(|(_, l)| !absent || is_absent(l)).collect();
    let (asks, first) = **told.first()?;
    let mut names: Vec<String> = told.iter().map(|(_, l)| l.name.clone()).collect();
    names.sort();
    names.dedup();
    let are = if names.len() == 1 { "is" } else { "are" };
    let somewhere = anywhere(case, &first.name).filter(|_| first.status == Status::Missing);
    let extra = is_toolkit_extra(&member.file.place.path);
    let place = match (first.status, somewhere) {
        (Status::Incompatible, _) => "for another CPU only".to_owned(),
        (_, Some(file)) if names.len() == 1 => {
            format!("in {}, where the loader does not search", file.place.path.parent())
        }
        (_, Some(_)) => "in the image, but where the loader does not search".to_owned(),
        _ => "nowhere in the image".to_owned(),
    };
    let message = format!("{} cannot be loaded: {} {are} {place}", group.name, and(&names));
    // A start script may lead the loader to a library that is there; nothing leads it to one that is not.
    let everywhere = missing.iter().all(|(_, l)| l.status == Status::Missing) && !absent;
    let helpless = case.catalog.search_only.iter().any(|d| d.id == group.name.replace('_', "-"));
    let may_be_led = !helpless || starts_by_script(case);
    let outcome = if everywhere && may_be_led { Outcome::Unknown } else { Outcome::Breaks };
    let mut finding = Finding::new(ID, outcome, message, evidence(&missing))
        .headline(format!("{} is missing", first.name))
        .component(group.name.clone())
        .error(cannot_open(&first.name));
    if asks.place.path != member.file.place.path {
        finding.evidence.insert(0, at(member.file, format!("is loaded by {}", group.name)));
    }
    // pip's directories are searched by what pip installed, not by other programs.
    let mut packages: Vec<String> = names.iter().filter_map(|n| pip_package(case, n, Some(asks))).collect();
    packages.sort();
    packages.dedup();
    let by_pip = in_site(member.file.place.path.as_str()).is_some() && !packages.is_empty();
    let package = by_pip.then(|| packages.join(" "));
    finding = match (first.status, somewhere, package) {
        (Status::Missing, Some(file), _) => finding.remedy(format!(
            "set LD_LIBRARY_PATH={} in the image{}",
            file.place.path.parent(),
            if outcome == Outcome::Unknown { ", unless a start script does" } else { "" }
        )),
        (_, _, Some(package)) => finding.remedy(format!("pip install {package}")),
        _ => finding
            .remedy(format!("install the system package that has {}", first.name))
            .remedy("use the runtime variant of the CUDA base image"),
    };
    if extra {
        finding.outcome = Outcome::Holds;
        finding.level = Level::Note;
    }
    Some(finding)
}

/// Whether a script may set variables before the program starts: anything that is not known to be a program.
fn starts_by_script(case: &Case<'_>) -> bool {
    let config = &case.inventory.facts.image.config;
    let Some(first) = config.entrypoint.first().or(config.cmd.first()) else { return false };
    let name = first.rsplit('/').next().unwrap_or(first);
    let program = case.inventory.processes.loader.paths.file(first).is_some_and(|f| f.elf.is_some());
    !(program || name.starts_with("python"))
}

fn evidence(missing: &[(&FileFacts, &Load)]) -> Vec<Evidence> {
    let mut files: Vec<(&FileFacts, Vec<String>, &Load)> = Vec::new();
    for (file, load) in missing {
        match files.iter_mut().find(|(f, _, _)| f.place == file.place) {
            Some((_, names, _)) if names.contains(&load.name) => {}
            Some((_, names, _)) => names.push(load.name.clone()),
            None => files.push((*file, vec![load.name.clone()], *load)),
        }
    }
    let line = |(file, names, load): (&FileFacts, Vec<String>, &Load)| {
        let searched = match load.tried.as_slice() {
            [] => "no directory is searched".to_owned(),
            dirs if load.tried_count <= dirs.len() => format!("searched {}", dirs.join(", ")),
            dirs => {
                let shown = dirs.get(..3).unwrap_or(dirs);
                format!(
                    "searched {} and {} more directories",
                    shown.join(", "),
                    load.tried_count - shown.len()
                )
            }
        };
        at(file, format!("needs {}; {searched}", and(&names)))
    };
    limited(files.into_iter().map(line).collect(), "files")
}

/// Some files of a package cannot be loaded, others can: it may select among them.
fn partly(case: &Case<'_>, group: &Group<'_>) -> Option<Finding> {
    let lame: Vec<&Opened> = group
        .members
        .iter()
        .filter(|m| !m.works(case.catalog) && m.missing(case.catalog).next().is_some())
        .collect();
    let lines = lame.iter().filter_map(|m| {
        let (_, load) = m.missing(case.catalog).next()?;
        Some(at(m.file, format!("{} is not found", load.name)))
    });
    let lines: Vec<Evidence> = lines.collect();
    if lines.is_empty() {
        return None;
    }
    let message = format!(
        "{} of {} files of {} cannot be loaded; the others can",
        lame.len(),
        group.members.len(),
        group.name
    );
    let finding = Finding::new(ID, Outcome::Holds, message, limited(lines, "files"));
    Some(finding.level(Level::Note).component(group.name.clone()))
}

/// A library that programs load, no tool and no plug-in.
fn is_library(case: &Case<'_>, member: &Opened<'_>) -> bool {
    let known = case.inventory.component_at(member.file).is_some();
    known
        && (member.file.place.path.as_str().contains("-packages/")
            || !is_toolkit_extra(&member.file.place.path))
}

/// A library of the stack in an image without any program that uses it: whoever loads it will meet the gap.
fn library_alone(case: &Case<'_>, group: &Group<'_>) -> Option<Finding> {
    let lame = group
        .members
        .iter()
        .find(|m| m.missing(case.catalog).next().is_some() && !m.loaded_elsewhere && is_library(case, m))?;
    let missing: Vec<(&FileFacts, &Load)> = lame.missing(case.catalog).collect();
    let (_, first) = *missing.first()?;
    let message = format!("{} cannot be loaded: {} is not found", group.name, first.name);
    Some(
        Finding::new(ID, Outcome::Degrades, message, evidence(&missing))
            .headline(format!("{} is missing", first.name))
            .component(group.name.clone())
            .error(cannot_open(&first.name))
            .remedy(match pip_package(case, &first.name, Some(lame.file)) {
                Some(package) => format!("pip install {package}"),
                None => format!("install the package that has {}", first.name),
            }),
    )
}
