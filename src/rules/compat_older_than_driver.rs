//! The image puts its compat directory on the loader's path, and the host driver is newer: the old libcuda is loaded.

use super::{Case, Rule, breaks_if};
use crate::inventory::compat::Reach;
use crate::report::{Evidence, Finding, Outcome, RuleId};
use std::cmp::Ordering;

const ID: RuleId = RuleId { code: "CUL501", name: "compat-older-than-driver" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the image's search path makes a compat libcuda win that is older than the host driver",
    image_only: false,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let uses_gpu = case.inventory.uses_gpu();
    let Some(driver) = case.driver.filter(|d| !d.known.tegra && uses_gpu) else { return Vec::new() };
    let Some(host) = driver.branch() else { return Vec::new() };
    let mut out = Vec::new();
    for library in &case.inventory.compat {
        let Some(branch) = library.branch else { continue };
        let (entry, where_, remedy) = match &library.reach {
            Reach::LibraryPath(entry) => (
                entry,
                "LD_LIBRARY_PATH",
                format!(
                    "remove `{entry}` from LD_LIBRARY_PATH; the container runtime adds it where it helps"
                ),
            ),
            Reach::LdConf(entry) => (
                entry,
                "/etc/ld.so.conf.d",
                format!("delete the file in /etc/ld.so.conf.d that names {entry}, and run ldconfig"),
            ),
            _ => continue,
        };
        let detail = format!("found through `{entry}` in {where_} before the host's own libcuda");
        let evidence = vec![Evidence { place: library.place.clone(), detail }];
        let message =
            format!("{where_} loads the compat libcuda of branch {branch} on a host with {}", driver.text);
        match host.cmp(&branch) {
            Ordering::Greater => out.push(
                Finding::new(ID, breaks_if(case.driver_is_sure()), message, evidence)
                    .headline("compat libcuda older than the driver")
                    .component("libcuda")
                    .host(format!("{} brings a newer kernel module than branch {branch}", driver.describe()))
                    .error(case.error(803))
                    .remedy(remedy),
            ),
            Ordering::Equal if driver.is_exact() && driver.version == library.driver => {}
            Ordering::Equal => out.push(
                Finding::new(ID, Outcome::Unknown, message, evidence)
                    .headline("compat libcuda of the host's own branch")
                    .component("libcuda")
                    .host("within one branch it works only where its build fits the kernel module".to_owned())
                    .remedy(remedy),
            ),
            Ordering::Less => {}
        }
    }
    out
}
