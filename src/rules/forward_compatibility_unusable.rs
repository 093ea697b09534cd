//! The driver is too old, the image brings a compat package, but this host cannot use it.

use super::reasoning::{CompatUse, Fit, compat, fit, lifts, releases, runtime_evidence};
use super::{Case, Rule, breaks_if};
use crate::inventory::RuntimeVersion;
use crate::inventory::requirements::minimum;
use crate::report::{Evidence, Finding, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL105", name: "forward-compatibility-unusable" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the compat package in the image cannot be used on this host",
    image_only: false,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(driver) = case.driver else { return Vec::new() };
    let Some((library, usable)) = compat(case) else { return Vec::new() };
    let mut out = Vec::new();
    let mut judged = releases(case);
    if judged.is_empty() && case.inventory.uses_gpu() && library.on_library_path.is_some() {
        // No runtime to lift, but the driver API goes through this library all the same.
        judged.push((RuntimeVersion::Unknown, Vec::new()));
    }
    let compat_cuda = library.cuda.as_ref().map_or_else(String::new, |c| format!(" of CUDA {c}"));
    for (release, runtimes) in judged {
        // On LD_LIBRARY_PATH it is loaded even where the host's own libcuda would do.
        let used = fit(&release, driver) == Fit::TooOld || library.on_library_path.is_some();
        if !used || !(lifts(library, &release) || release == RuntimeVersion::Unknown) {
            continue;
        }
        let (outcome, why, code) = match &usable {
            CompatUse::Unusable { why, code, sure } => {
                (breaks_if(*sure && case.driver_is_sure()), why.clone(), Some(*code))
            }
            CompatUse::Unknown { missing } => (Outcome::Unknown, format!("not known: {missing}"), None),
            CompatUse::Usable { .. } | CompatUse::NotNeeded => continue,
        };
        let needs = minimum(&release, case.catalog);
        let message = match outcome {
            Outcome::Unknown => {
                format!("whether the compat package{compat_cuda} works on {} is {why}", driver.describe())
            }
            _ => {
                format!("the compat package{compat_cuda} does not work on {}: {why}", driver.describe())
            }
        };
        let detail = format!(
            "compat libcuda {}",
            library.driver.as_ref().map_or_else(String::new, ToString::to_string)
        );
        let mut evidence = vec![Evidence { place: library.place.clone(), detail: detail.trim().to_owned() }];
        evidence.extend(runtime_evidence(&runtimes));
        let mut finding = Finding::new(ID, outcome, message, evidence)
            .headline(match outcome {
                Outcome::Unknown => "not known whether the compat package works here",
                _ => "compat package not usable here",
            })
            .component("libcuda")
            .host(why)
            .error(
                code.filter(|c| *c != 35 || fit(&release, driver) == Fit::TooOld).and_then(|c| case.error(c)),
            );
        if let Some(version) = needs {
            finding = finding.remedy(format!("update the host to driver {version} or newer"));
        }
        out.push(finding);
    }
    out
}
