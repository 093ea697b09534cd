//! A library asks another for a symbol that the copy it gets does not have.

use super::linking::{applications, at, best_member, library_text, says};
use super::{Case, Reads, Rule, c_library_too_old};
use crate::inventory::gaps::{Gap, Missing};
use crate::inventory::loader::Via;
use crate::inventory::loading::{Group, Opened};
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL302", name: "undefined-symbol" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a library lacks a symbol that the program loaded with it asks for",
    reads: Reads::IMAGE,
    judge,
};

fn is_symbol(gap: &Gap<'_>) -> bool {
    !c_library_too_old::is_version(gap)
}

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    let mut checked = None;
    for group in applications(case) {
        let any = group.members.iter().any(|m| m.gaps.iter().any(is_symbol));
        if !any {
            checked = checked.or_else(|| group.members.iter().find(|m| !m.elf.imports.is_empty()));
            continue;
        }
        out.extend(if group.fails(case.catalog) { broken(case, group) } else { partly(group) });
    }
    let no_gaps = case.inventory.loading.iter().flat_map(|g| &g.members).all(|m| m.gaps.is_empty());
    if let Some(member) = checked.filter(|_| out.is_empty() && no_gaps) {
        let message = "every symbol asked of CUDA and torch libraries is there".to_owned();
        let evidence = vec![at(member.file, "its imports were compared with the exports of what it loads")];
        out.push(Finding::new(ID, Outcome::Holds, message, evidence));
    }
    out
}

fn broken(case: &Case<'_>, group: &Group<'_>) -> Option<Finding> {
    let member = best_member(case, group)?;
    let gap = member.gaps.iter().find(|g| is_symbol(g))?;
    Some(finding(case, group, member, gap))
}

fn finding(case: &Case<'_>, group: &Group<'_>, member: &Opened<'_>, gap: &Gap<'_>) -> Finding {
    let asks = library_text(case, gap.object);
    let (name, version) = match &gap.what {
        Missing::Symbol { name, version } => (name.as_str(), version.as_deref()),
        Missing::Version(version) => (version.as_str(), None),
    };
    let is_node = matches!(gap.what, Missing::Version(_));
    // Torch's own symbols may come from any of its libraries; all others from the one that they name.
    let of_library = version.is_some() || is_node || !name.starts_with("_Z");
    let message = match gap.provider.filter(|_| of_library) {
        Some(provider) => format!(
            "{} cannot be loaded: {asks} needs {name}, which {} does not have",
            group.name,
            library_text(case, provider)
        ),
        None => {
            format!("{} was built for another torch: no library of the installed one has {name}", group.name)
        }
    };
    let more = match gap.count {
        1 => String::new(),
        2 => " and 1 more symbol".to_owned(),
        n => format!(" and {} more symbols", n - 1),
    };
    let mut evidence = vec![at(gap.object, format!("asks for {name}{more}"))];
    evidence.extend(
        gap.provider.map(|p| at(p, format!("is loaded, and exports none of that name{}", shadow(member, p)))),
    );
    // A program may bind its symbols one by one as they are called; a library that is opened at run time binds all at once.
    let lazy = member.elf.interpreter.is_some() && !is_node && !gap_binds_now(gap);
    let (outcome, message) = match lazy {
        true => {
            let message = message.replacen(" cannot be loaded:", " may stop:", 1);
            (Outcome::Unknown, format!("{message}; whether it is called is not known"))
        }
        false => (Outcome::Breaks, message),
    };
    let finding = Finding::new(ID, outcome, message, evidence)
        .headline(format!("undefined symbol in {}", gap.object.place.path.file_name()))
        .component(group.name.clone())
        .error(says(gap.text()));
    match (gap.provider, of_library) {
        (Some(provider), true) => match better(member, provider, gap) {
            Some(other) => finding.remedy(format!(
                "let {} be found first: take {} out of LD_LIBRARY_PATH",
                other.place.path,
                case.inventory.processes.loader.as_named(&provider.place.path.parent())
            )),
            None => finding.remedy(format!(
                "install the {} that {asks} was built with",
                case.inventory.component_at(provider).map_or("library", |c| c.display.as_str())
            )),
        },
        _ => finding
            .remedy(format!("install a build of {} for the torch in the image, or rebuild it", group.name)),
    }
}

/// Whether the file with the gap was linked to look everything up when it is loaded.
fn gap_binds_now(gap: &Gap<'_>) -> bool {
    gap.object.elf.as_ref().is_some_and(|e| e.bind_now)
}

fn shadow(member: &Opened<'_>, provider: &crate::facts::FileFacts) -> String {
    let objects = member.process.objects.iter();
    let via = objects
        .filter(|o| o.file.place.path == provider.place.path)
        .find_map(|o| o.via)
        .filter(|v| *v == Via::LibraryPath);
    via.map(|v| format!("; found by {}", v.name())).unwrap_or_default()
}

/// Another copy of the library that has the symbol, further down the search.
fn better<'a>(
    member: &Opened<'a>,
    provider: &crate::facts::FileFacts,
    gap: &Gap<'_>,
) -> Option<&'a crate::facts::FileFacts> {
    let Missing::Symbol { name, .. } = &gap.what else { return None };
    let loads = member.process.objects.iter().flat_map(|o| &o.loads);
    let of_provider = loads.filter(|l| l.file.is_some_and(|f| f.place.path == provider.place.path));
    of_provider
        .flat_map(|l| l.shadows.iter().copied())
        .find(|f| f.elf.as_ref().and_then(|e| e.exports_symbol(name)) == Some(true))
}

fn partly(group: &Group<'_>) -> Option<Finding> {
    let lame: Vec<Evidence> = group
        .members
        .iter()
        .filter(|m| !m.loaded_elsewhere)
        .filter_map(|m| Some(at(m.file, m.gaps.iter().find(|g| is_symbol(g))?.text())))
        .collect();
    if lame.is_empty() {
        return None;
    }
    let (count, of) = (lame.len(), group.members.len());
    let message =
        format!("{count} of {of} files of {} have undefined symbols; the others have none", group.name);
    let lines = super::reasoning::limited(lame, "files");
    Some(Finding::new(ID, Outcome::Holds, message, lines).level(Level::Note).component(group.name.clone()))
}
