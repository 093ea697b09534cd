//! cuDNN without one of the sub-libraries that it opens by name.

use super::cudnn::sets;
use super::linking::{and, at, pip_package, says};
use super::{Case, Reads, Rule};
use crate::facts::{Package, PackageOrigin};
use crate::report::{Finding, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL306", name: "cudnn-incomplete" };
pub(super) const RULE: Rule =
    Rule { id: ID, summary: "cuDNN does not find one of its sub-libraries", reads: Reads::IMAGE, judge };

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    for set in sets(case) {
        let soname = set.dispatcher.elf.as_ref().and_then(|e| e.soname.as_deref()).unwrap_or_default();
        let major: u64 = soname.rsplit('.').next().and_then(|n| n.parse().ok()).unwrap_or(9);
        let lost: Vec<String> = set
            .parts
            .iter()
            .filter(|(_, l)| l.is_lost())
            .map(|(name, _)| format!("{name}.so.{major}"))
            .collect();
        let Some(first) = lost.first() else {
            let message = format!("cuDNN of {} finds all its sub-libraries", set.group);
            out.push(Finding::new(
                ID,
                Outcome::Holds,
                message,
                vec![at(set.dispatcher, "looked up as it would")],
            ));
            continue;
        };
        let version = set.version.as_ref().map(|v| format!(" {v}")).unwrap_or_default();
        let message = format!("cuDNN{version} of {} does not find {}", set.group, and(&lost));
        let stem = first.split(".so").next().unwrap_or_default();
        let text = match &set.version {
            Some(v) if v.major() >= 9 => format!(
                "Unable to load any of {{{stem}.so.{}.{}.{}, {stem}.so.{}.{}, {stem}.so.{}, {stem}.so}}",
                v.major(),
                v.minor(),
                v.part(2),
                v.major(),
                v.minor(),
                v.major()
            ),
            _ => format!(
                "Could not load library {first}. Error: {first}: cannot open shared object file: No such file or directory"
            ),
        };
        let finding = Finding::new(
            ID,
            Outcome::Breaks,
            message,
            vec![at(set.dispatcher, "opens them by name at first use")],
        )
        .headline("cuDNN is not complete")
        .component(set.group.clone())
        .error(says(text));
        let installed = set.version.as_ref().and_then(|v| installed(case, v));
        out.push(match (installed, pip_package(case, first, None)) {
            (Some(package), _) => {
                finding.remedy(format!("pip install --force-reinstall --no-deps {package}"))
            }
            (None, Some(package)) if major >= 9 => {
                finding.remedy(format!("install cuDNN whole: pip install {package}"))
            }
            _ => finding.remedy(format!("install cuDNN {major} whole")),
        });
    }
    out
}

/// The pip package that brought this cuDNN, as one would ask for it.
fn installed(case: &Case<'_>, version: &Version) -> Option<String> {
    let packages = case.inventory.facts.packages.iter().filter(|p| p.fact.origin == PackageOrigin::Pip);
    let mut cudnn = packages.filter(|p| p.fact.name.starts_with("nvidia-cudnn"));
    let is_it = |p: &&Package| Version::leading(&p.fact.version).is_some_and(|v| v.agrees_with(version));
    cudnn.find(is_it).map(|p| format!("{}=={}", p.fact.name, p.fact.version))
}
