//! The image puts its compat directory on the loader's path, and the host driver is newer: the old libcuda is loaded.

use super::compat::{first_of_search_path, is_consumer};
use super::{Case, Reads, Rule, breaks_if};
use crate::inventory::compat::{CompatLibrary, Reach};
use crate::report::{Evidence, Finding, Outcome, RuleId};
use crate::target::profile::{Kind, RuntimeMode};
use std::cmp::Ordering;

const ID: RuleId = RuleId { code: "CUL501", name: "compat-older-than-driver" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the image's search path makes a compat libcuda win that is older than the host driver",
    reads: Reads::ALL,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let uses_gpu = case.inventory.uses_gpu();
    // Under WSL no compat library fits, older or newer: another rule says so.
    let wsl = case.host.kind == Some(Kind::Wsl);
    let Some(driver) = case.driver.filter(|d| !d.known.tegra && uses_gpu && !wsl) else {
        return Vec::new();
    };
    let Some(host) = driver.branch() else { return Vec::new() };
    let mut out = Vec::new();
    let older_build = |library: &CompatLibrary, driver: &crate::target::Driver| {
        driver.is_exact() && library.driver.is_some() && driver.version > library.driver
    };
    let no_data_center = is_consumer(case);
    let legacy = matches!(case.mode(), Some((RuntimeMode::Legacy, _)));
    // Behind the first that a search path names nothing is looked at; else the container stack may put one in front.
    let first = first_of_search_path(case);
    let by_stack = || case.inventory.compat.iter().filter(|c| c.reach == Reach::Stack);
    let libraries: Vec<&CompatLibrary> = first.map_or_else(|| by_stack().collect(), |l| vec![l]);
    for library in libraries {
        let Some(branch) = library.branch else { continue };
        let Some((entry, where_, remedy)) = source(case, library) else { continue };
        if matches!(library.reach, Reach::LdConf(_)) && case.host.cuda_compat == Some(false) {
            continue;
        }
        let detail = format!("found through `{entry}` in {where_} before the host's own libcuda");
        let evidence = vec![Evidence { place: library.place.clone(), detail }];
        let message = format!(
            "{where_} loads the compat libcuda of branch {branch} on a host with {}",
            driver.describe()
        );
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
            // A newer build is a matter of forward compatibility, which another rule judges.
            Ordering::Equal if driver.is_exact() && driver.version < library.driver => {}
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

/// The entry that leads to the library, what has it, and how to take it out.
fn source<'l>(case: &Case<'_>, library: &'l CompatLibrary) -> Option<(&'l str, String, String)> {
    Some(match &library.reach {
        Reach::RunPath { entry, program } => (
            entry,
            format!("the RPATH of {program}"),
            format!("link {program} without `{entry}` in its RPATH (`patchelf --remove-rpath`)"),
        ),
        Reach::LibraryPath(entry) => (
            entry,
            "LD_LIBRARY_PATH".to_owned(),
            format!("remove `{entry}` from LD_LIBRARY_PATH; the container runtime adds it where it helps"),
        ),
        Reach::LdConf(entry) => (
            entry,
            "/etc/ld.so.conf.d".to_owned(),
            format!("delete the file in /etc/ld.so.conf.d that names {entry}, and run ldconfig"),
        ),
        Reach::Stack if case.host.cuda_compat == Some(true) => (
            "/usr/local/cuda/compat",
            "the container stack".to_owned(),
            "remove the cuda-compat package from the image".to_owned(),
        ),
        _ => return None,
    })
}
