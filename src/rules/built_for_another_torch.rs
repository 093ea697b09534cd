//! A package asks for, or was built with, another torch than the installed one.

use super::linking::{at_place, says};
use super::requirements::Requirement;
use super::{Case, Reads, Rule};
use crate::inventory::frameworks::{Framework, torch_of_xformers};
use crate::report::{Finding, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL405", name: "built-for-another-torch" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "an extension package is for another torch than the installed one",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some((torch, version)) =
        case.inventory.framework("torch").and_then(|t| Some((t, t.version.as_ref()?)))
    else {
        return Vec::new();
    };
    let others = case.inventory.frameworks.iter().filter(|f| f.name != "torch" && f.origin == "pip");
    others.filter_map(|f| one(case, f, torch, version)).collect()
}

fn one(case: &Case<'_>, package: &Framework, torch: &Framework, version: &Version) -> Option<Finding> {
    let name = &package.name;
    let platform = &case.inventory.facts.image.platform;
    let asked = package
        .requires
        .iter()
        .filter_map(|r| Requirement::parse(r))
        .find(|r| r.name == "torch" && r.applies(platform));
    // A range says that newer ones do, whatever it was built with.
    let pinned = asked.as_ref().is_none_or(|a| a.bounds.starts_with("=="));
    let built = xformers_torch(case, package).filter(|_| pinned);
    let evidence = |what: String| {
        vec![at_place(&package.place, what), at_place(&torch.place, format!("torch {}", torch.version_text))]
    };
    let (wanted, lines) = match (&built, &asked) {
        (Some(built), _) if !version.agrees_with(built) => {
            (built.to_string(), evidence(format!("built with torch {built}")))
        }
        (_, Some(asked)) if !asked.allows(version) => (
            asked.bounds.trim_start_matches('=').to_owned(),
            evidence(format!("asks for torch {}", asked.bounds)),
        ),
        (None, None) => return None,
        _ => {
            let message = format!("{name} {} fits torch {version}", package.version_text);
            let held =
                Finding::new(ID, Outcome::Holds, message, evidence("its requirement of torch".to_owned()));
            return Some(held.component(name.clone()));
        }
    };
    let text = match package.family.as_str() {
        "torchvision" => "RuntimeError: operator torchvision::nms does not exist".to_owned(),
        "xformers" => "WARNING[XFORMERS]: xFormers can't load C++/CUDA extensions.".to_owned(),
        _ => format!("ImportError: undefined symbol (an extension of {name} and torch do not fit)"),
    };
    let message =
        format!("{name} {} is for torch {wanted}; torch {version} is installed", package.version_text);
    Some(
        Finding::new(ID, Outcome::Degrades, message, lines)
            .headline(format!("{name} is for another torch"))
            .component(name.clone())
            .error(says(text))
            .remedy(format!("install torch {}", wanted))
            .remedy(format!("install the {name} that is made for torch {version}")),
    )
}

fn xformers_torch(case: &Case<'_>, package: &Framework) -> Option<Version> {
    let file = case.inventory.facts.files.iter().find(|f| f.place == package.place)?;
    let text = file.text.as_deref().filter(|_| package.family == "xformers")?;
    torch_of_xformers(text).and_then(|t| Version::leading(&t))
}
