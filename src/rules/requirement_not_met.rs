//! `NVIDIA_REQUIRE_*` of the image, evaluated for the host as its container runtime does: the container does not start.

use super::compat::{CompatUse, compat};
use super::linking::says;
use super::nvidia_require::{
    Answer, DriverVersion, Properties, Property, Requirement, collect, evaluate, evaluate_csv,
    legacy_message, mentions_brand,
};
use super::reasoning::{about_image, runtimes_start};
use super::settings::{clipped, is_gpu_container, shortened};
use super::{Case, Reads, Rule, breaks_if};
use crate::report::{Finding, Level, Outcome, RuleId};
use crate::target::profile::{Brand, GpuRequest, RuntimeMode};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL504", name: "requirement-not-met" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the container runtime refuses to start the image on this host (NVIDIA_REQUIRE_*)",
    reads: Reads::ALL,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let config = &case.inventory.facts.image.config;
    if case.driver.is_none() && case.gpu.is_none() || !is_gpu_container(case) {
        return Vec::new();
    }
    let Ok(requirements) = collect(config) else { return Vec::new() };
    let mode = case.mode();
    requirements.iter().filter_map(|r| of_requirement(case, r, mode)).collect()
}

fn of_requirement(
    case: &Case<'_>,
    requirement: &Requirement,
    mode: Option<(RuntimeMode, bool)>,
) -> Option<Finding> {
    let (answer, text) = if let Some((RuntimeMode::Csv, _)) = mode {
        let properties = properties(case, Brand::Unknown);
        evaluate_csv(&requirement.expression, &properties.cuda, &properties.arch)
    } else {
        let answer = of_all_brands(case, &requirement.expression);
        let message = legacy_message(&requirement.expression, answer);
        (answer, format!("nvidia-container-cli: requirement error: {message}"))
    };
    let name = &requirement.variable;
    let host = describe(case);
    // A version alone is made into a requirement by the runtime.
    let what = match name.as_str() {
        "CUDA_VERSION" => format!("the requirement {} that CUDA_VERSION stands for", requirement.expression),
        _ => format!("{name} of the image"),
    };
    let value = case.inventory.facts.image.config.env(name).unwrap_or_default();
    let shown = if answer == Answer::Invalid { clipped(value) } else { shortened(value) };
    let evidence = about_image(case, format!("it sets {name}={shown}"));
    let finding = |outcome, message: String| {
        Finding::new(ID, outcome, message, evidence.clone()).component(name.to_ascii_lowercase())
    };
    let refused = |outcome, headline: &str, message: String| {
        let found = finding(outcome, message).headline(headline).host(host.clone()).error(says(text.clone()));
        remedies(case, requirement, answer, found)
    };
    let why = match answer {
        Answer::Invalid => "cannot be read by the container runtime".to_owned(),
        _ => format!("does not hold on {host}"),
    };
    let may = "legacy mode would refuse to start it";
    Some(match (answer, mode) {
        (Answer::Satisfied, _) => finding(Outcome::Holds, format!("{what} holds on {host}")),
        (Answer::NotKnown, Some((RuntimeMode::Legacy | RuntimeMode::Csv, _))) => {
            not_known(case, requirement, &what, finding)
        }
        (Answer::NotKnown, _) => return None,
        (_, Some((RuntimeMode::Legacy | RuntimeMode::Csv, _))) => {
            let outcome = breaks_if(case.driver.is_none() || case.driver_is_sure());
            if outcome == Outcome::Unknown {
                let message = format!(
                    "{what} {why}, as far as this driver is known: then the container does not start"
                );
                return Some(refused(outcome, &format!("perhaps refused at start by {name}"), message));
            }
            let headline = format!("refused at start by {name}");
            refused(outcome, &headline, format!("{what} {why}: the container does not start"))
        }
        (_, Some((RuntimeMode::Cdi, derived))) => {
            let message = format!(
                "{what} {why}; CDI mode does not look, legacy mode (`docker --gpus` without the NVIDIA runtime) refuses"
            );
            refused(Outcome::Holds, may, message).level(if derived { Level::Warning } else { Level::Note })
        }
        (_, None) => {
            let message = format!("{what} {why}: a container runtime in legacy mode refuses to start it");
            refused(Outcome::Holds, may, message).level(Level::Warning).remedy(
                "say how the host's runtime works: --runtime-mode legacy|cdi, or --container-toolkit VERSION",
            )
        }
    })
}

/// Which fact decides. What the target does not state is not judged; what it states too vaguely is unknown.
fn not_known(
    case: &Case<'_>,
    requirement: &Requirement,
    what: &str,
    finding: impl Fn(Outcome, String) -> Finding,
) -> Finding {
    let expression = &requirement.expression;
    let csv = matches!(case.mode(), Some((RuntimeMode::Csv, _)));
    let of_one = |brand: &Brand| evaluate(expression, &properties(case, *brand));
    // Where even one brand leaves it open, it is not the brand that is missing. Jetson modules have none to ask for.
    let by_brand = !csv && case.host.brands(case.gpu).iter().all(|b| of_one(b) != Answer::NotKnown);
    let keys = expression.to_ascii_lowercase();
    let by_arch = case.gpu.is_none() && keys.contains("arch");
    let (asked, missing) = match case.driver {
        None => (false, "the driver"),
        Some(_) if csv => (case.gpu.is_some(), "the GPU, or the CUDA version of the driver"),
        Some(d) if d.version.is_none() && keys.contains("driver") => (true, "the driver version"),
        Some(_) if by_arch => (false, "the GPU"),
        Some(d) if !by_brand && !d.is_exact() => (true, "the build of the driver"),
        Some(_) if case.gpu.is_none() && case.host.brand.is_none() => (false, "the brand of the GPU"),
        Some(_) => (true, "the brand of the GPU as `nvidia-smi -q` prints it (--brand)"),
    };
    let outcome = if asked { Outcome::Unknown } else { Outcome::Holds };
    let found = finding(outcome, format!("whether {what} holds depends on {missing}"))
        .headline(format!("{} is not decided", requirement.variable));
    if asked { found } else { found.level(Level::Note) }
}

/// Every brand that the GPU may have must give the same answer.
fn of_all_brands(case: &Case<'_>, expression: &str) -> Answer {
    let mut brands = case.host.brands(case.gpu);
    if !mentions_brand(expression) {
        brands.truncate(1);
    }
    let mut answers: Vec<Answer> =
        brands.iter().map(|b| evaluate(expression, &properties(case, *b))).collect();
    answers.sort_unstable();
    answers.dedup();
    match answers.as_slice() {
        [one] => *one,
        [Answer::Unsatisfied, Answer::Invalid] => Answer::Unsatisfied,
        _ => Answer::NotKnown,
    }
}

fn properties(case: &Case<'_>, brand: Brand) -> Properties {
    // With `none` and nobody else who asks, the driver's files come without a device: arch and brand cannot be found out.
    let visible = case.inventory.facts.image.config.env("NVIDIA_VISIBLE_DEVICES");
    let no_device = visible == Some("none") && case.host.gpu_request == Some(GpuRequest::Image);
    let of_device = |known: Option<Version>| match known {
        _ if no_device => Property::Absent,
        Some(version) => Property::Is(version),
        None => Property::NotKnown,
    };
    let driver = case.driver.and_then(|d| Some((d.version.clone()?, d.is_exact())));
    Properties {
        cuda: case.driver.and_then(|d| d.known.cuda.clone()).map_or(Property::NotKnown, Property::Is),
        driver: driver
            .map_or(Property::NotKnown, |(version, exact)| Property::Is(DriverVersion { version, exact })),
        arch: of_device(case.gpu.map(|g| Version::of(u64::from(g.cc.major), u64::from(g.cc.minor)))),
        brand: if no_device { Property::Absent } else { Property::Is(brand) },
    }
}

/// `driver 530 (CUDA 12.1) with V100 (sm_70)`.
fn describe(case: &Case<'_>) -> String {
    let driver = case.driver.map(|d| match (&d.version, &d.known.cuda) {
        (Some(_), Some(cuda)) => format!("{} (CUDA {cuda})", d.describe()),
        _ => d.describe(),
    });
    let gpu = case.gpu.map(crate::target::Gpu::describe);
    match (driver, gpu) {
        (Some(driver), Some(gpu)) => format!("{driver} with {gpu}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => "this host".to_owned(),
    }
}

fn remedies(case: &Case<'_>, requirement: &Requirement, answer: Answer, mut finding: Finding) -> Finding {
    if answer == Answer::Invalid {
        finding = finding.remedy("write it without blanks inside a condition, such as `cuda>=12.4`");
    }
    // Where the software itself starts on the driver, the requirement alone stands in the way.
    if case.driver.is_some() && runtimes_start(case) {
        let helped = matches!(compat(case), Some((_, CompatUse::Usable { .. })));
        let what = match helped {
            true => "the image runs by its compat package",
            false => "the software starts on this driver",
        };
        finding = finding
            .remedy(format!("set NVIDIA_DISABLE_REQUIRE=1 in the image or with `docker run -e`: {what}"));
    }
    let wanted =
        requirement.expression.split([' ', ',']).find_map(|t| Version::parse(t.strip_prefix("cuda>=")?));
    let reported = case.driver.and_then(|d| d.known.cuda.as_ref());
    // A host that reports enough is refused by something else.
    let Some(wanted) = wanted.filter(|w| reported.is_none_or(|have| have < w)) else { return finding };
    if case.jetson {
        return finding.remedy(format!("update JetPack to a release with CUDA {wanted}"));
    }
    let toolkit = case.catalog.full_driver(&wanted.major_minor());
    match toolkit.and_then(|t| t.linux_driver_min.as_ref()) {
        Some(driver) => finding.remedy(format!("update the host to driver {driver} or newer")),
        None => finding,
    }
}
