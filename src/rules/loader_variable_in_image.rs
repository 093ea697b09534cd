//! `LD_PRELOAD` or `LD_AUDIT` in the image: old container toolkits run their hooks on the host with it.

use super::linking::at;
use super::reasoning::about_image;
use super::{Case, Reads, Rule};
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};
use crate::target::profile::RuntimeMode;
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL601", name: "loader-variable-in-image" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the image sets LD_PRELOAD or LD_AUDIT, the trigger of CVE-2025-23266",
    reads: Reads::HOST,
    judge,
};

/// The first container toolkit whose hooks no longer take over the image's environment.
const FIXED: &str = "1.17.8";

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let config = &case.inventory.facts.image.config;
    let set = ["LD_PRELOAD", "LD_AUDIT"]
        .into_iter()
        .filter_map(|n| Some((n, config.env(n).filter(|v| !v.is_empty())?)));
    set.map(|(name, value)| finding(case, name, value)).collect()
}

fn finding(case: &Case<'_>, name: &str, value: &str) -> Finding {
    // The hook starts in the container's root: a relative path, or one through /proc, leads into the image.
    let leads_in = |path: &str| {
        !path.is_empty() && (path.contains('/') && !path.starts_with('/') || path.starts_with("/proc/"))
    };
    let inside = value.split([':', ' ']).any(leads_in);
    let suspicious = inside || name == "LD_AUDIT";
    let toolkit = case.host.container_toolkit.as_ref();
    let below = |v: &Version, text: &str| Version::parse(text).is_some_and(|limit| *v < limit);
    // Before 1.17.5 only the hooks of CDI mode take over the image's environment.
    let legacy = matches!(case.mode(), Some((RuntimeMode::Legacy, _)));
    let exposed = toolkit.map(|v| below(v, FIXED) && !(legacy && below(v, "1.17.5")));
    let level = match (exposed, suspicious) {
        (Some(true), _) | (None, true) => Level::Warning,
        _ => Level::Note,
    };
    let first = value.split([':', ' ']).next().unwrap_or_default();
    let evidence: Vec<Evidence> = match case.inventory.processes.loader.paths.file(first) {
        Some(file) => vec![at(file, format!("{name}={value}"))],
        None => about_image(case, format!("it sets {name}={value}")),
    };
    let leads = if inside { ", which leads into the image," } else { "" };
    let message = match toolkit.filter(|_| exposed == Some(true)) {
        Some(toolkit) => format!(
            "{name}={value}{leads} reaches the host: hooks of container toolkit {toolkit} run with it (CVE-2025-23266)"
        ),
        None => format!(
            "{name}={value}{leads} is set for every process; hooks of container toolkits before {FIXED} run on the host with it (CVE-2025-23266)"
        ),
    };
    let mut finding = Finding::new(ID, Outcome::Holds, message, evidence)
        .level(level)
        .headline(format!("{name} in the image"))
        .component(name.to_ascii_lowercase());
    if exposed != Some(false) {
        finding = finding.remedy(format!("update the container toolkit to {FIXED} or newer"));
    }
    finding
        .remedy(format!("set {name} in the start script, for the one program that needs it"))
        .remedy("read https://nvidia.custhelp.com/app/answers/detail/a_id/5659")
}
