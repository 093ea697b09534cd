//! The image puts its compat directory on the loader's path, and the host driver is newer: the old libcuda is loaded.

use super::{Case, Rule, Scope, breaks_if};
use crate::inventory::compat::{CompatLibrary, Reach};
use crate::report::{Evidence, Finding, Outcome, RuleId};
use crate::target::profile::RuntimeMode;
use std::cmp::Ordering;

const ID: RuleId = RuleId { code: "CUL501", name: "compat-older-than-driver" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the image's search path makes a compat libcuda win that is older than the host driver",
    scope: Scope::Target,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let uses_gpu = case.inventory.uses_gpu();
    let Some(driver) = case.driver.filter(|d| !d.known.tegra && uses_gpu) else { return Vec::new() };
    let Some(host) = driver.branch() else { return Vec::new() };
    let mut out = Vec::new();
    let older_build = |library: &CompatLibrary, driver: &crate::target::Driver| {
        driver.is_exact() && library.driver.is_some() && driver.version > library.driver
    };
    let no_data_center = case.gpu.is_some_and(|g| g.forward_compat == Some(false)) || case.host.is_geforce();
    let legacy = matches!(case.mode(), Some((RuntimeMode::Legacy, _)));
    let stack = "/usr/local/cuda/compat".to_owned();
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
            Reach::Stack if case.host.cuda_compat == Some(true) => {
                (&stack, "the container stack", "remove the cuda-compat package from the image".to_owned())
            }
            _ => continue,
        };
        if matches!(library.reach, Reach::LdConf(_)) && case.host.cuda_compat == Some(false) {
            continue;
        }
        let detail = format!("found through `{entry}` in {where_} before the host's own libcuda");
        let evidence = vec![Evidence { place: library.place.clone(), detail }];
        let message =
            format!("{where_} loads the compat libcuda of branch {branch} on a host with {}", driver.text);
        match host.cmp(&branch) {
            // In legacy mode ldconfig is given the directory of the host's libraries on its command line, before the configured
            // ones; that the host's libcuda wins by that was reported once, not measured.
            Ordering::Greater if legacy && matches!(library.reach, Reach::LdConf(_)) => out.push(
                Finding::new(ID, Outcome::Unknown, message, evidence)
                    .headline("compat libcuda may win over the host's")
                    .component("libcuda")
                    .host(
                        "which directory the loader's cache names first in legacy mode is not known"
                            .to_owned(),
                    )
                    .error(case.error(803))
                    .remedy(remedy),
            ),
            Ordering::Greater => out.push(
                Finding::new(ID, breaks_if(case.driver_is_sure()), message, evidence)
                    .headline("compat libcuda older than the driver")
                    .component("libcuda")
                    .host(format!("{} brings a newer kernel module than branch {branch}", driver.describe()))
                    .error(case.error(803))
                    .remedy(remedy),
            ),
            Ordering::Equal if driver.is_exact() && driver.version == library.driver => {}
            // Within a branch other builds work on data center GPUs only (NVIDIA's compatibility FAQ).
            Ordering::Equal if older_build(library, driver) && no_data_center => {
                out.push(
                    Finding::new(ID, breaks_if(case.driver_is_sure()), message, evidence)
                        .headline("compat libcuda older than the driver")
                        .component("libcuda")
                        .host(format!("{} is a newer build of the same branch", driver.describe()))
                        .error(case.error(803))
                        .remedy(remedy),
                );
            }
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
