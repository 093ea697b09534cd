//! The driver is too old, the image brings a compat package, but this host cannot use it.

use super::compat::{CompatUse, Loaded, compat, lifts, loaded};
use super::reasoning::{Fit, fit, releases, runtime_evidence};
use super::{Case, Reads, Rule, breaks_if};
use crate::inventory::RuntimeVersion;
use crate::inventory::compat::CompatLibrary;
use crate::inventory::requirements::minimum;
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL105", name: "forward-compatibility-unusable" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the compat package in the image cannot be used on this host",
    reads: Reads::ALL,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(driver) = case.driver else { return Vec::new() };
    let Some((library, usable)) = compat(case) else { return Vec::new() };
    let mut out = Vec::new();
    let by = loaded(case, library);
    let always = matches!(by, Loaded::Yes(_));
    let mut judged = releases(case);
    if judged.is_empty() && case.inventory.uses_gpu() && always {
        // No runtime to lift, but the driver API goes through this library all the same.
        judged.push((RuntimeVersion::Unknown, Vec::new()));
    }
    let compat_cuda = library.cuda.as_ref().map_or_else(String::new, |c| format!(" of CUDA {c}"));
    for (release, runtimes) in judged {
        // In front of the host's own libcuda it is loaded even where that would do.
        let needed = fit(&release, driver) == Fit::TooOld;
        if needed && !(lifts(library, &release) || release == RuntimeVersion::Unknown) {
            continue;
        }
        let (outcome, why, code) = match &usable {
            CompatUse::Unusable { why, code, sure } if needed || always => {
                (breaks_if(*sure && case.driver_is_sure()), why.clone(), Some(*code))
            }
            CompatUse::Unusable { why, code: code @ (803 | 804), .. } => {
                (Outcome::Holds, why.clone(), Some(*code))
            }
            CompatUse::Unknown { missing } if needed || always => {
                (Outcome::Unknown, format!("not known: {missing}"), None)
            }
            _ => continue,
        };
        let why = match &by {
            Loaded::Yes(by) => format!("{why}; {by} loads it all the same"),
            Loaded::NotKnown(_) if outcome == Outcome::Holds => {
                format!("{why}; a container toolkit that puts it in front makes CUDA fail")
            }
            _ => why,
        };
        let needs = minimum(&release, case.catalog);
        let message = match outcome {
            Outcome::Unknown if code.is_none() => {
                format!("whether the compat package{compat_cuda} works on {} is {why}", driver.describe())
            }
            Outcome::Unknown => {
                format!(
                    "the compat package{compat_cuda} does not seem to work on {}: {why}",
                    driver.describe()
                )
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
            .host(driver.describe())
            .error(
                code.filter(|c| *c != 35 || fit(&release, driver) == Fit::TooOld).and_then(|c| case.error(c)),
            );
        finding = remedies(finding, library, needed, needs);
        // One note is enough for all releases that do not need it.
        if outcome == Outcome::Holds {
            out.push(finding.level(Level::Note));
            break;
        }
        out.push(finding);
    }
    out
}

/// `needed`: the driver is too old without the package; `minimum` is the one that is not.
fn remedies(finding: Finding, library: &CompatLibrary, needed: bool, minimum: Option<Version>) -> Finding {
    let finding = match library.forced() {
        Some(entry) => finding.remedy(format!("take `{entry}` out of the image's search path")),
        None if !needed => finding.remedy("remove the cuda-compat package from the image").remedy(
            "switch it off on the host: disable-cuda-compat-lib-hook in the container toolkit's features",
        ),
        None => finding,
    };
    match minimum.filter(|_| needed) {
        Some(version) => finding.remedy(format!("update the host to driver {version} or newer")),
        None => finding,
    }
}
