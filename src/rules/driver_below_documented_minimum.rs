//! A driver build of the right branch below the documented minimum of the CUDA family: untested by NVIDIA, not refused.

use super::reasoning::{Fit, fit, releases, runtime_evidence};
use super::{Case, Reads, Rule};
use crate::inventory::requirements::minimum;
use crate::report::{Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL102", name: "driver-below-documented-minimum" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the driver build is below the minimum that NVIDIA documents, though of the right branch",
    reads: Reads::ALL,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let jetson = case.gpu.is_some_and(|g| g.tegra);
    let Some(driver) = case.driver.filter(|d| !d.known.tegra && !jetson) else { return Vec::new() };
    let Some(host) = &driver.version else { return Vec::new() };
    let mut out = Vec::new();
    for (release, runtimes) in releases(case) {
        if fit(&release, driver) == Fit::TooOld {
            continue;
        }
        let Some(minimum) = minimum(&release, case.catalog) else { continue };
        let same_branch = u64::from(driver.branch().unwrap_or(0)) == minimum.major();
        let evidence = runtime_evidence(&runtimes);
        // `525.60` names no build: it is below 525.60.13 or not.
        let open = host.len() < minimum.len() && (0..host.len()).all(|i| host.part(i) == minimum.part(i));
        if driver.is_exact() && *host < minimum && !open {
            let message =
                format!("CUDA {release} is documented for driver {minimum} and newer; the host has {host}");
            out.push(
                Finding::new(ID, Outcome::Holds, message, evidence)
                    .level(Level::Warning)
                    .headline(format!("below the documented minimum {minimum}"))
                    .component("cudart")
                    .host(format!("{} is of the right branch, but an earlier build", driver.describe()))
                    .remedy(format!("update the host to driver {minimum} or newer")),
            );
        } else if (!driver.is_exact() && same_branch) || open {
            let message = format!(
                "builds of branch {host} below {minimum} are outside the documented range of CUDA {release}"
            );
            out.push(
                Finding::new(ID, Outcome::Holds, message, evidence).level(Level::Note).component("cudart"),
            );
        }
    }
    out
}
