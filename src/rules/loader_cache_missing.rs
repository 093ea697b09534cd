//! An image without `ld.so.cache` on a container toolkit that does not make one: the injected driver is not found.

use super::compat::has_loader_cache;
use super::linking::cannot_open;
use super::reasoning::about_image;
use super::{Case, Reads, Rule};
use crate::inventory::loader::Libc;
use crate::report::{Finding, Level, Outcome, RuleId};
use crate::target::profile::RuntimeMode;
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL515", name: "loader-cache-missing" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the image has no ld.so.cache, by which containers in CDI mode find the driver",
    reads: Reads::HOST,
    judge,
};

/// From here on the toolkit makes the cache itself.
const MAKES_CACHE: &str = "1.18.0";

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let loader = &case.inventory.processes.loader;
    let cdi = matches!(case.mode(), Some((RuntimeMode::Cdi, _)));
    let old =
        case.host.container_toolkit.as_ref().filter(|v| Version::parse(MAKES_CACHE).is_some_and(|m| **v < m));
    let single = case.inventory.facts.is_single_file();
    let (true, Some(toolkit), false) = (cdi && case.inventory.uses_gpu(), old, single) else {
        return Vec::new();
    };
    if loader.libc == Libc::Musl {
        return Vec::new();
    }
    let evidence = |detail: &str| about_image(case, detail.to_owned());
    if has_loader_cache(case) {
        let message = format!("container toolkit {toolkit} adds the driver to the image's ld.so.cache");
        return vec![Finding::new(ID, Outcome::Holds, message, evidence("it has /etc/ld.so.cache"))];
    }
    let message = format!(
        "the image has no /etc/ld.so.cache, and container toolkit {toolkit} makes none in CDI mode: libcuda may not be found"
    );
    vec![
        Finding::new(ID, Outcome::Unknown, message, evidence("it has no /etc/ld.so.cache"))
            .level(Level::Warning)
            .headline("not known whether the driver is found")
            .component("libc")
            .host("the directory of the driver's libraries on the host is not known".to_owned())
            .error(cannot_open("libcuda.so.1"))
            .remedy(format!("update the container toolkit to {MAKES_CACHE} or newer"))
            .remedy("put an /etc/ld.so.cache into the image"),
    ]
}
