//! JAX checks the versions of the CUDA libraries that it loads, and refuses older ones than its plugin asks for.

use super::linking::{at_place, says};
use super::requirements::Requirement;
use super::{Case, Reads, Rule};
use crate::facts::{Package, PackageOrigin};
use crate::inventory::frameworks::Framework;
use crate::report::{Finding, How, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL323", name: "jax-library-too-old" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a CUDA library is older than the JAX plugin accepts",
    reads: Reads::IMAGE,
    judge,
};

/// What JAX itself compares at start, by wheel: name in its message, lowest version (jax_plugins/xla_cuda12, 0.6.1 to
/// 0.12). Its comparison for cuDNN and cuFFT never fails, so they are not here.
const CHECKED: [(&str, &str, &str); 2] =
    [("nvidia-cublas-cu12", "cuBLAS", "12.1"), ("nvidia-cusparse-cu12", "cuSPARSE", "12.1")];

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let plugins = case
        .inventory
        .frameworks
        .iter()
        .filter(|f| f.name.starts_with("jax-cuda") && f.name.ends_with("-plugin"));
    plugins.flat_map(|p| one(case, p)).collect()
}

fn one(case: &Case<'_>, plugin: &Framework) -> Vec<Finding> {
    let skipped = case
        .inventory
        .facts
        .image
        .config
        .env("JAX_SKIP_CUDA_CONSTRAINTS_CHECK")
        .is_some_and(|v| !v.is_empty());
    let installed = |name: &str| -> Option<(&Package, Version)> {
        let is_it = |p: &&Package| {
            p.fact.origin == PackageOrigin::Pip
                && p.fact.name == name
                && p.place.path.as_str().starts_with(&plugin.site)
        };
        let package = case.inventory.facts.packages.iter().find(is_it)?;
        Some((package, Version::leading(&package.fact.version)?))
    };
    let mut out = Vec::new();
    let mut held = 0usize;
    for requirement in plugin.requires.iter().filter_map(|r| Requirement::parse(r)) {
        let Some((package, version)) = installed(&requirement.name) else { continue };
        if requirement.allows(&version) {
            held += 1;
            continue;
        }
        let checked = CHECKED.iter().find(|(name, _, lowest)| {
            *name == requirement.name && Version::parse(lowest).is_some_and(|l| version < l)
        });
        let outcome = if checked.is_some() && !skipped { Outcome::Breaks } else { Outcome::Degrades };
        let display = checked.map_or(requirement.name.as_str(), |(_, display, _)| display);
        let message = format!(
            "{} {version} is not what {} {} asks for ({})",
            requirement.name, plugin.name, plugin.version_text, requirement.bounds
        );
        let evidence = vec![
            at_place(&package.place, format!("{} {version}", requirement.name)),
            at_place(&plugin.place, format!("asks for {} {}", requirement.name, requirement.bounds)),
        ];
        let mut finding = Finding::new(ID, outcome, message, evidence)
            .headline(format!("{display} is not what JAX asks for"))
            .component(plugin.name.clone())
            .error(
                checked
                    .filter(|_| !skipped)
                    .and_then(|_| says(format!("Outdated {display} installation found."))),
            )
            .remedy(format!("pip install \"{}{}\"", requirement.name, requirement.bounds));
        if outcome == Outcome::Breaks {
            finding = finding.how(How::CpuFallback);
        }
        out.push(finding);
    }
    if out.is_empty() && held > 0 {
        let message = format!("the {held} CUDA packages of {} are as it asks for", plugin.name);
        let evidence = vec![at_place(&plugin.place, "its requirements")];
        out.push(Finding::new(ID, Outcome::Holds, message, evidence).component(plugin.name.clone()));
    }
    out
}
