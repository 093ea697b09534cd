//! A distribution pins the version of a CUDA package, and another version is installed.

use super::linking::at_place;
use super::reasoning::limited;
use super::requirements::Requirement;
use super::{Case, Reads, Rule};
use crate::facts::{Package, PackageOrigin};
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL402", name: "pins-not-met" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a CUDA package is not of the version that a framework pins",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let pip = |p: &&Package| p.fact.origin == PackageOrigin::Pip;
    let packages: Vec<&Package> = case.inventory.facts.packages.iter().filter(pip).collect();
    let mut out = Vec::new();
    for package in &packages {
        let mut lines: Vec<Evidence> = Vec::new();
        let mut held = 0usize;
        for requirement in package.fact.requires.iter().filter_map(|r| Requirement::parse(r)) {
            let applies = requirement.applies(&case.inventory.facts.image.platform);
            let stack = requirement.name.starts_with("nvidia-") || requirement.name == "triton";
            if !applies || !stack || requirement.bounds.is_empty() {
                continue;
            }
            let same_site = |p: &&&Package| {
                p.fact.name == requirement.name
                    && p.place.path.parent().parent() == package.place.path.parent().parent()
            };
            let Some(installed) = packages.iter().find(same_site) else { continue };
            let Some(version) = Version::leading(&installed.fact.version) else { continue };
            if requirement.allows(&version) {
                held += 1;
            } else {
                lines.push(at_place(
                    &installed.place,
                    format!("{} {version}; asked for: {}", installed.fact.name, requirement.bounds),
                ));
            }
        }
        let name = &package.fact.name;
        let evidence = vec![at_place(&package.place, "its requirements")];
        if !lines.is_empty() {
            let packages = match lines.len() {
                1 => "1 CUDA package is".to_owned(),
                n => format!("{n} CUDA packages are"),
            };
            let message =
                format!("{packages} not of the version that {name} {} asks for", package.fact.version);
            out.push(
                Finding::new(ID, Outcome::Holds, message, limited(lines, "packages"))
                    .level(Level::Note)
                    .component(name.clone()),
            );
        } else if held > 0 {
            let message = format!("CUDA packages are as {name} pins them ({held})");
            out.push(Finding::new(ID, Outcome::Holds, message, evidence).component(name.clone()));
        }
    }
    out
}
