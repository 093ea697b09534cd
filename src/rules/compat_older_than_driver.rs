//! The image puts its compat directory on LD_LIBRARY_PATH, and the host driver is newer: the old libcuda is loaded.

use super::{Case, Rule, breaks_if};
use crate::report::{Evidence, Finding, RuleId};

const ID: RuleId = RuleId { code: "CUL108", name: "compat-older-than-driver" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "LD_LIBRARY_PATH makes a compat libcuda win that is older than the host driver",
    image_only: false,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(driver) = case.driver.filter(|d| !d.known.tegra) else { return Vec::new() };
    let Some(host) = driver.branch() else { return Vec::new() };
    let facts = case.inventory.facts;
    let path = facts.image.config.env("LD_LIBRARY_PATH").unwrap_or_default();
    let mut out = Vec::new();
    for library in &case.inventory.compat {
        let dir = library.place.path.parent();
        let names_it = |entry: &str| {
            let entry = crate::names::ImagePath::new(entry);
            entry == dir || entry.file_name() == dir.file_name() && is_link_of(facts, &entry, &dir)
        };
        let Some(branch) = library.branch.filter(|b| host > *b && path.split(':').any(names_it)) else {
            continue;
        };
        let message = format!(
            "LD_LIBRARY_PATH loads the compat libcuda of branch {branch} on a host with {}",
            driver.text
        );
        let evidence = vec![Evidence {
            place: library.place.clone(),
            detail: format!("found through LD_LIBRARY_PATH={path} before the host's own libcuda"),
        }];
        out.push(
            Finding::new(ID, breaks_if(driver.known.sure), message, evidence)
                .headline("compat libcuda older than the driver")
                .component("libcuda")
                .host(format!("{} brings a newer kernel module than branch {branch}", driver.describe()))
                .error(case.error(803))
                .remedy(format!(
                    "remove `{dir}` from LD_LIBRARY_PATH; the container runtime adds it where it helps"
                )),
        );
    }
    out
}

/// `/usr/local/cuda/compat` is `/usr/local/cuda-12.2/compat` where `/usr/local/cuda` links to it.
fn is_link_of(
    facts: &crate::facts::ImageFacts,
    entry: &crate::names::ImagePath,
    dir: &crate::names::ImagePath,
) -> bool {
    let parent = entry.parent();
    facts.links.iter().any(|l| {
        l.place.path == parent && l.place.path.parent().join(&l.target).join(dir.file_name()) == *dir
    })
}
