//! What the image declares (`NVIDIA_REQUIRE_CUDA`, `CUDA_VERSION`, label, tag) against what its files need.

use super::compat::lifts;
use super::nvidia_require::{
    Answer, DriverVersion, Properties, Property, evaluate, is_switched_off, mentions_brand, semantic_version,
};
use super::reasoning::{Fit, about_image, fit};
use super::settings::shortened;
use super::{Case, Reads, Rule};
use crate::inventory::compat::Reach;
use crate::inventory::requirements::payload;
use crate::inventory::{Runtime, RuntimeVersion};
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};
use crate::target::Driver;
use crate::target::profile::Brand;
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL505", name: "requirement-disagrees" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "what the image declares about CUDA is not what its files need",
    reads: Reads::IMAGE,
    judge,
};

const NAME: &str = "NVIDIA_REQUIRE_CUDA";

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let config = &case.inventory.facts.image.config;
    // NVIDIA's framework images declare next to nothing on purpose: their entry point decides.
    let by_entry_point = config.env("_CUDA_COMPAT_PATH").is_some()
        || case.inventory.compat.iter().any(|c| c.reach == Reach::EntryPoint);
    let payload = payload(case.inventory);
    let mut out = Vec::new();
    if let Some(expression) = config.env(NAME).filter(|v| !v.is_empty() && !is_switched_off(config)) {
        let branches = branches(case, expression);
        if branches.iter().all(|b| b.answer == Answer::Unsatisfied) {
            out.push(unsatisfiable(case, expression, payload.as_ref().map(|(_, needs)| needs)));
        } else if let Some((runtime, needs)) = payload.as_ref().filter(|_| !by_entry_point) {
            out.extend(loose(case, expression, runtime, needs, &branches));
            out.extend(strict(case, expression, runtime, needs, &branches));
        }
    }
    if !by_entry_point {
        out.extend(payload.as_ref().and_then(|(runtime, _)| words(case, runtime)));
    }
    out
}

/// A driver branch, and what the requirement says on it.
struct OnBranch {
    driver: Driver,
    answer: Answer,
}

fn branches(case: &Case<'_>, expression: &str) -> Vec<OnBranch> {
    let brands = if mentions_brand(expression) { &Brand::ALL[..] } else { &[Brand::Unknown] };
    let mut out = Vec::new();
    for branch in &case.catalog.branches {
        let Ok(driver) = Driver::parse(&branch.branch.to_string(), case.catalog) else { continue };
        let of_brand = |brand: &Brand| evaluate(expression, &properties(&driver, *brand));
        let answer = brands.iter().map(of_brand).min().unwrap_or(Answer::NotKnown);
        out.push(OnBranch { driver, answer });
    }
    out
}

/// Of a host with some build of a driver branch.
fn properties(driver: &Driver, brand: Brand) -> Properties {
    let known = |version| Property::Is(DriverVersion { version, exact: false });
    Properties {
        cuda: driver.known.cuda.clone().map_or(Property::NotKnown, Property::Is),
        driver: driver.version.clone().map_or(Property::NotKnown, known),
        arch: Property::NotKnown,
        brand: Property::Is(brand),
    }
}

fn declared(case: &Case<'_>, expression: &str) -> Vec<Evidence> {
    about_image(case, format!("it sets {NAME}={}", shortened(expression)))
}

fn unsatisfiable(case: &Case<'_>, expression: &str, needs: Option<&Version>) -> Finding {
    let message = format!("{NAME}={} holds on no driver that is known", shortened(expression));
    let mut finding = Finding::new(ID, Outcome::Holds, message, declared(case, expression))
        .level(Level::Warning)
        .headline("a requirement that never holds")
        .component(NAME.to_ascii_lowercase());
    if let Some(needs) = needs {
        finding = finding.remedy(line(needs));
    }
    match expression.contains(',') {
        true => finding
            .remedy("a comma means and, a blank means or: write what excludes each other as alternatives"),
        false => finding,
    }
}

/// The line that says what the files need.
fn line(needs: &Version) -> String {
    format!("ENV {NAME}=\"cuda>={needs}\"")
}

/// `12.4`, without the build of the library.
fn release_of(runtime: &Runtime) -> String {
    match &runtime.version {
        RuntimeVersion::Exactly(version) => version.major_minor().to_string(),
        other => other.to_string(),
    }
}

/// It lets drivers pass on which the runtime in the image stops with error 35.
fn loose(
    case: &Case<'_>,
    expression: &str,
    runtime: &Runtime,
    needs: &Version,
    branches: &[OnBranch],
) -> Option<Finding> {
    let dead = |reach: &Reach| matches!(reach, Reach::Nothing | Reach::LostEntryPoint);
    let lifted = case.inventory.compat.iter().any(|c| !dead(&c.reach) && lifts(c, &runtime.version))
        || case.inventory.facts.packages.iter().any(|p| is_compat_package(&p.fact.name, runtime));
    let too_old = |b: &&OnBranch| {
        b.answer == Answer::Satisfied && fit(&runtime.version, &b.driver) == Fit::TooOld && !lifted
    };
    let newest = branches.iter().rfind(too_old)?;
    // An alternative for one branch (`driver>=470,driver<471`) counts on a compat package, which is not there; any other is
    // just wrong.
    let any_driver = |a: &&str| !a.split(',').any(|t| t.starts_with("driver<"));
    let unbounded: Vec<&str> = expression.split(' ').filter(any_driver).collect();
    let by_plain = !unbounded.is_empty()
        && Brand::ALL.iter().any(|brand| {
            evaluate(&unbounded.join(" "), &properties(&newest.driver, *brand)) == Answer::Satisfied
        });
    let release = release_of(runtime);
    let message = match by_plain {
        true => format!(
            "{NAME} lets hosts with drivers up to branch {} start the image, whose CUDA {release} does not run there",
            newest.driver.text
        ),
        false => format!(
            "{NAME} counts on forward compatibility on driver branch {}, and no compat package for CUDA {release} is in the image",
            newest.driver.text
        ),
    };
    let mut evidence = declared(case, expression);
    evidence
        .push(Evidence { place: runtime.place.clone(), detail: format!("CUDA runtime {}", runtime.version) });
    let finding = Finding::new(ID, Outcome::Holds, message, evidence)
        .level(if by_plain { Level::Warning } else { Level::Note })
        .headline("requirement too loose")
        .component(NAME.to_ascii_lowercase())
        .error(case.error(35))
        .remedy(line(needs));
    Some(match (by_plain, &runtime.version) {
        (false, RuntimeVersion::Exactly(v)) => {
            finding.remedy(format!("install cuda-compat-{}-{} in the image", v.major(), v.minor()))
        }
        _ => finding,
    })
}

/// `cuda-compat-12-4` of this release or a newer one.
fn is_compat_package(name: &str, runtime: &Runtime) -> bool {
    let release = name.strip_prefix("cuda-compat-").and_then(|r| Version::parse(&r.replace('-', ".")));
    match (&runtime.version, release) {
        (RuntimeVersion::Exactly(wanted), Some(have)) => have >= wanted.major_minor(),
        _ => false,
    }
}

/// It refuses hosts on which everything that the image loads would start.
fn strict(
    case: &Case<'_>,
    expression: &str,
    runtime: &Runtime,
    needs: &Version,
    branches: &[OnBranch],
) -> Option<Finding> {
    let RuntimeVersion::Exactly(release) = &runtime.version else { return None };
    let asked = expression.split(' ').filter_map(|a| Version::parse(a.strip_prefix("cuda>=")?)).min()?;
    let needless =
        |b: &OnBranch| b.answer == Answer::Unsatisfied && fit(&runtime.version, &b.driver) != Fit::TooOld;
    // The base image asks for its own release; only a payload of an older one makes that needless.
    if asked <= release.major_minor() || !branches.iter().any(needless) {
        return None;
    }
    let message = format!(
        "{NAME} asks for CUDA {asked}, and what the image loads is CUDA {}: hosts are refused on which it would run",
        release.major_minor()
    );
    let mut evidence = declared(case, expression);
    evidence.push(Evidence {
        place: runtime.place.clone(),
        detail: format!("CUDA runtime {release}, the one in use"),
    });
    Some(
        Finding::new(ID, Outcome::Holds, message, evidence)
            .level(Level::Note)
            .headline("requirement too strict")
            .component(NAME.to_ascii_lowercase())
            .remedy(line(needs))
            .remedy("use a base image of the CUDA release that the software was built for"),
    )
}

/// Label and tag against the runtime in use.
fn words(case: &Case<'_>, runtime: &Runtime) -> Option<Finding> {
    let RuntimeVersion::Exactly(release) = &runtime.version else { return None };
    let image = &case.inventory.facts.image;
    let label = image.config.labels.get("com.nvidia.cuda.version");
    let of_label = label
        .and_then(|l| Some((format!("the label com.nvidia.cuda.version says {l}"), semantic_version(l)?)));
    let of_tag = || tag_cuda(&image.reference).map(|v| (format!("the tag says CUDA {v}"), v));
    let (who, said) = of_label.or_else(of_tag)?;
    if said.major_minor() == release.major_minor() {
        return None;
    }
    let message = format!("{who}, and what the image loads is CUDA {}", release.major_minor());
    let mut evidence =
        vec![Evidence { place: runtime.place.clone(), detail: format!("CUDA runtime {release}") }];
    evidence.extend(about_image(case, who));
    Some(
        Finding::new(ID, Outcome::Holds, message, evidence)
            .level(Level::Note)
            .headline("label or tag of another CUDA")
            .component("cuda")
            .remedy("name the CUDA release that the software was built for"),
    )
}

/// `12.4` of `…:2.5.1-cuda12.4-cudnn9` and `…:0.9-cu124`.
fn tag_cuda(reference: &str) -> Option<Version> {
    let (front, tag) = reference.rsplit_once(':')?;
    if front.ends_with("sha256") || tag.contains('/') {
        return None;
    }
    let lower = tag.to_ascii_lowercase();
    if let Some((_, rest)) = lower.split_once("cuda") {
        let rest = rest.trim_start_matches(['-', '_']);
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        return Version::parse(rest[..end].trim_end_matches('.')).filter(|v| v.len() >= 2);
    }
    let part = lower.split(['-', '_', '+', '.']).find_map(|p| p.strip_prefix("cu"))?;
    let (major, minor) = part.split_at_checked(part.len().checked_sub(1)?)?;
    let digits = part.len() == 3 && part.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| Some(Version::of(major.parse().ok()?, minor.parse().ok()?)))?
}

#[cfg(test)]
mod tests {
    use super::tag_cuda;

    #[test]
    fn cuda_releases_are_read_out_of_tags() {
        let read = |t: &str| tag_cuda(t).map(|v| v.to_string());
        assert_eq!(read("pytorch/pytorch:2.5.1-cuda12.4-cudnn9-runtime").as_deref(), Some("12.4"));
        assert_eq!(read("acme/train:1.0-cu118").as_deref(), Some("11.8"));
        assert_eq!(read("acme/train:cuda12"), None);
        assert_eq!(read("acme/train:1.2"), None);
        assert_eq!(read("localhost:5000/acme/cuda"), None);
    }
}
