//! jax, jaxlib and the CUDA plugin are made for each other, release by release.

use super::linking::{at_place, says};
use super::{Case, Reads, Rule};
use crate::inventory::frameworks::Framework;
use crate::report::{Finding, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL409", name: "jax-versions-disagree" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "jax, jaxlib and the CUDA plugin are not of releases that work together",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(jaxlib) = case.inventory.framework("jaxlib") else { return Vec::new() };
    let mut out = Vec::new();
    if let Some(jax) = case.inventory.framework("jax") {
        out.extend(jax_and_jaxlib(case, jax, jaxlib));
    }
    for name in ["jax-cuda12-plugin", "jax-cuda13-plugin"] {
        if let Some(plugin) = case.inventory.framework(name) {
            out.extend(plugin_and_jaxlib(plugin, jaxlib));
        }
    }
    out
}

fn pair(a: &Framework, b: &Framework) -> Vec<crate::report::Evidence> {
    let line = |f: &Framework| at_place(&f.place, format!("{} {}", f.name, f.version_text));
    vec![line(a), line(b)]
}

fn jax_and_jaxlib(case: &Case<'_>, jax: &Framework, jaxlib: &Framework) -> Option<Finding> {
    let (have, version) = (jaxlib.version.as_ref()?, jax.version.as_ref()?);
    let minimum = minimum_jaxlib(case, jax);
    let text = match &minimum {
        Some(minimum) if have < minimum => {
            format!(
                "RuntimeError: jaxlib is version {have}, but this version of jax requires version >= {minimum}."
            )
        }
        _ if have > version => format!(
            "RuntimeError: jaxlib version {have} is newer than and incompatible with jax version {version}. Please update your jax and/or jaxlib packages."
        ),
        _ => {
            let message = format!("jax {version} and jaxlib {have} fit");
            return Some(Finding::new(ID, Outcome::Holds, message, pair(jax, jaxlib)).component("jax"));
        }
    };
    let message = format!("jax {version} and jaxlib {have} do not work together");
    Some(
        Finding::new(ID, Outcome::Breaks, message, pair(jax, jaxlib))
            .headline("jax and jaxlib of different releases")
            .component("jax")
            .error(says(text))
            .remedy(format!("pip install jaxlib=={version}")),
    )
}

/// `_minimum_jaxlib_version = '0.4.34'` of jax/version.py.
fn minimum_jaxlib(case: &Case<'_>, jax: &Framework) -> Option<Version> {
    let path = format!("{}jax/version.py", jax.site);
    let text = case.inventory.processes.loader.paths.file(&path)?.text.as_deref()?;
    let line =
        text.lines().find_map(|l| l.strip_prefix("_minimum_jaxlib_version")?.split(['\'', '"']).nth(1))?;
    Version::parse(line)
}

/// jaxlib takes solvers and other kernels from the plugin package, from 0.5 on only if the versions are equal; the device
/// itself is registered by a package that does not compare.
fn plugin_and_jaxlib(plugin: &Framework, jaxlib: &Framework) -> Option<Finding> {
    let (name, a, b) = (&plugin.name, &plugin.version_text, &jaxlib.version_text);
    if plugin.version == jaxlib.version {
        let message = format!("{name} and jaxlib are both {b}");
        return Some(Finding::new(ID, Outcome::Holds, message, pair(plugin, jaxlib)).component(name.clone()));
    }
    if jaxlib.version.as_ref()? < &Version::of(0, 5) {
        return None;
    }
    let message = format!("kernels and solvers of {name} {a} are not used by jaxlib {b}");
    let text = format!(
        "RuntimeWarning: JAX plugin {} version {a} is installed, but it is not compatible with the installed jaxlib version {b}, so it will not be used.",
        name.replace('-', "_")
    );
    Some(
        Finding::new(ID, Outcome::Degrades, message, pair(plugin, jaxlib))
            .headline("jax leaves out parts of its CUDA plugin")
            .component(name.clone())
            .error(says(text))
            .remedy(format!("pip install {name}=={b}")),
    )
}
