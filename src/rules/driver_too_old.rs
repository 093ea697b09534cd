//! The host driver reports an older CUDA version than the runtime in the image accepts: error 35 at the first call.

use super::compat::{CompatUse, compat, lifts};
use super::reasoning::{Fit, fit, releases, runtime_evidence};
use super::{Case, Reads, Rule, breaks_if};
use crate::inventory::RuntimeVersion;
use crate::inventory::requirements::minimum;
use crate::report::{Evidence, Finding, Outcome, RuleId};
use crate::target::Driver;
use crate::version::Version;

pub(super) const ID: RuleId = RuleId { code: "CUL101", name: "driver-too-old" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the host driver is older than the CUDA runtime in the image accepts",
    reads: Reads::ALL,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(driver) = case.driver else { return Vec::new() };
    let mut out = Vec::new();
    for (release, runtimes) in releases(case) {
        let evidence = runtime_evidence(&runtimes);
        match fit(&release, driver) {
            Fit::TooOld if compat_speaks(case, &release) => {}
            Fit::TooOld => out.push(too_old(case, driver, &release, evidence)),
            Fit::Unknown => out.push(version_unknown(driver, evidence)),
            Fit::Backward | Fit::Minor => {
                let message = format!("CUDA {release} runtime starts on {}", driver.describe());
                out.push(Finding::new(ID, Outcome::Holds, message, evidence).component("cudart"));
            }
        }
    }
    out
}

/// A compat package is there: the rules about it say whether it helps.
fn compat_speaks(case: &Case<'_>, release: &RuntimeVersion) -> bool {
    match compat(case) {
        Some((_, CompatUse::NotNeeded | CompatUse::Unused { .. })) | None => false,
        Some((library, _)) => lifts(library, release),
    }
}

fn too_old(case: &Case<'_>, driver: &Driver, release: &RuntimeVersion, evidence: Vec<Evidence>) -> Finding {
    let reports = match &driver.known.cuda {
        Some(cuda) => format!("{} stops at CUDA {cuda}", driver.describe()),
        None => format!("{} is older than every branch known", driver.describe()),
    };
    let need = minimum(release, case.catalog);
    let evidence = match compat(case) {
        Some((library, CompatUse::Unused { why })) => {
            let detail = format!("the compat package does not help: {why}");
            let place = library.place.clone();
            evidence.into_iter().chain([Evidence { place, detail }]).collect()
        }
        _ => evidence,
    };
    let asks = need.as_ref().map_or_else(String::new, |v| format!("driver {v} or newer; "));
    let message = format!("CUDA {release} runtime needs {asks}{reports}");
    let outcome = breaks_if(case.driver_is_sure() || driver.known.cuda.is_none());
    let mut finding = Finding::new(ID, outcome, message, evidence)
        .headline(format!("driver too old for CUDA {release}"))
        .component("cudart")
        .host(reports)
        .error(case.error(35));
    if let Some(version) = need {
        finding = finding.remedy(format!("update the host to driver {version} or newer"));
    }
    let older = driver.known.cuda.as_ref().map(|c| {
        format!("CUDA {}", if c.major() >= 11 { format!("{}.x", c.major()) } else { c.to_string() })
    });
    if let Some(older) = older {
        finding = finding.remedy(format!("use an image built for {older}"));
    }
    if let RuntimeVersion::Exactly(version) = release
        && compat_would_help(case, driver, version)
        && !case.inventory.compat.iter().any(|c| lifts(c, release))
    {
        let package = format!("cuda-compat-{}-{}", version.major(), version.minor());
        let where_ = if case.gpu.is_some() { "" } else { "on data center GPUs: " };
        finding = finding.remedy(format!("{where_}install {package} in the image (forward compatibility)"));
    }
    finding
}

/// Whether a compat package of this release is supported on the host: GPU, branch and matrix agree.
fn compat_would_help(case: &Case<'_>, driver: &Driver, release: &Version) -> bool {
    let Some(host) = driver.branch().filter(|_| case.driver_is_sure()) else { return false };
    let gpu_fits = case.gpu.is_none_or(|gpu| {
        let known = case.catalog.branch(host).is_some_and(|b| b.cc.contains(&gpu.cc));
        known && gpu.forward_compat == Some(true)
    });
    let cuda = release.major_minor();
    let cell = case.catalog.compat_matrix.iter().find(|c| c.base_branch == host && c.cuda == cuda);
    let base = case.catalog.historic_bases.iter().find(|h| h.base_branch == host);
    gpu_fits
        && (cell.is_some_and(|c| c.result == "compatible")
            || base.is_some_and(|b| cuda <= b.cuda_max_with_compat))
}

fn version_unknown(driver: &Driver, evidence: Vec<Evidence>) -> Finding {
    let message = format!(
        "the version of a CUDA runtime in the image is not known; {} may or may not do",
        driver.describe()
    );
    Finding::new(ID, Outcome::Unknown, message, evidence)
        .headline("version of a CUDA runtime not known")
        .component("cudart")
        .remedy("find out which CUDA release the file was built with")
}

#[cfg(test)]
mod tests {
    use super::Version;
    use crate::inventory::RuntimeVersion::{Exactly, Major, Unknown};
    use crate::rules::reasoning::{Fit, fit_cuda};

    fn answer(runtime: &str, reported: &str) -> Fit {
        fit_cuda(&Exactly(Version::parse(runtime).unwrap()), &Version::parse(reported).unwrap())
    }

    #[test]
    fn from_11_on_the_major_decides() {
        assert_eq!(answer("12.4", "11.8"), Fit::TooOld);
        assert_eq!(answer("12.4", "12.0"), Fit::Minor);
        assert_eq!(answer("12.4", "12.4"), Fit::Backward);
        assert_eq!(answer("12.4.127", "12.4"), Fit::Backward);
        assert_eq!(answer("11.8", "13.0"), Fit::Backward);
    }

    #[test]
    fn before_11_the_minor_decides_too() {
        assert_eq!(answer("10.2", "10.1"), Fit::TooOld);
        assert_eq!(answer("10.2", "10.2"), Fit::Backward);
    }

    #[test]
    fn a_major_alone_is_enough_for_its_family_and_nothing_is_not() {
        let cuda = Version::parse("12.2").unwrap();
        assert_eq!(fit_cuda(&Major(12), &cuda), Fit::Backward);
        assert_eq!(fit_cuda(&Major(13), &cuda), Fit::TooOld);
        assert_eq!(fit_cuda(&Unknown, &cuda), Fit::Unknown);
    }
}
