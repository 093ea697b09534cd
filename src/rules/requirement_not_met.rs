//! `NVIDIA_REQUIRE_*` of the image, evaluated for the host as its container runtime does: the container does not start.

use super::compat::{CompatUse, compat};
use super::linking::says;
use super::nvidia_require::{
    Answer, DriverVersion, Properties, Property, Requirement, collect, evaluate, evaluate_csv, legacy_message,
};
use super::reasoning::{about_image, runtimes_start};
use super::settings::{is_gpu_container, shortened};
use super::{Case, Rule, breaks_if};
use crate::report::{Finding, Level, Outcome, RuleId};
use crate::target::profile::{Brand, RuntimeMode};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL504", name: "requirement-not-met" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the container runtime refuses to start the image on this host (NVIDIA_REQUIRE_*)",
    image_only: false,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let config = &case.inventory.facts.image.config;
    if case.driver.is_none() && case.gpu.is_none() || !is_gpu_container(case) {
        return Vec::new();
    }
    let Ok(requirements) = collect(config) else { return Vec::new() };
    let jetson = case.gpu.is_some_and(|g| g.tegra) || case.driver.is_some_and(|d| d.known.tegra);
    let mode = case.host.mode(jetson);
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
    let detail = format!("the image sets {name}={}", shortened(&requirement.expression));
    let evidence = about_image(case, detail);
    let finding = |outcome, message: String| {
        Finding::new(ID, outcome, message, evidence.clone()).component(name.to_ascii_lowercase())
    };
    let refused = |message: String, outcome| {
        let found = finding(outcome, message)
            .headline(format!("refused at start by {name}"))
            .host(host.clone())
            .error(says(text.clone()));
        remedies(case, requirement, found)
    };
    let bad = matches!(answer, Answer::Unsatisfied | Answer::Invalid);
    let why = match answer {
        Answer::Invalid => "cannot be read by the container runtime",
        _ => "does not hold",
    };
    Some(match mode {
        Some((RuntimeMode::Legacy | RuntimeMode::Csv, _)) if bad => {
            let message = format!("{name} of the image {why} on {host}: the container does not start");
            refused(message, breaks_if(case.driver.is_none() || case.driver_is_sure()))
        }
        Some((RuntimeMode::Cdi, derived)) if bad => {
            let by = if derived { ", which `docker --gpus` still is" } else { "" };
            let message = format!(
                "{name} of the image {why} on {host}; CDI mode does not read it, legacy mode{by} would refuse"
            );
            refused(message, Outcome::Holds).level(if derived { Level::Warning } else { Level::Note })
        }
        None if bad => {
            let message = format!(
                "{name} of the image {why} on {host}: a container runtime in legacy mode (`docker --gpus`, container toolkit before 1.18) refuses to start it"
            );
            refused(message, Outcome::Holds).level(Level::Warning).remedy(
                "say how the host's runtime works: --runtime-mode legacy|cdi, or --container-toolkit VERSION",
            )
        }
        Some((RuntimeMode::Legacy | RuntimeMode::Csv, _)) if answer == Answer::NotKnown => {
            not_known(case, name, finding)
        }
        _ if answer == Answer::NotKnown => return None,
        _ => finding(Outcome::Holds, format!("{name} of the image holds on {host}")),
    })
}

/// Which fact decides. What the target does not state is not judged; what it states too vaguely is unknown.
fn not_known(case: &Case<'_>, name: &str, finding: impl Fn(Outcome, String) -> Finding) -> Finding {
    let of_gpu = case.gpu.is_none() && case.host.brand.is_none();
    let missing = match case.driver {
        None => "the driver",
        Some(_) if of_gpu => "the GPU, whose brand it names",
        Some(d) if d.version.is_none() => "the driver version",
        Some(d) if !d.is_exact() && case.host.brands(case.gpu).len() == 1 => "the build of the driver",
        Some(_) => "the brand of the GPU as `nvidia-smi -q` prints it (--brand)",
    };
    let asked = case.driver.is_some() && !of_gpu;
    let outcome = if asked { Outcome::Unknown } else { Outcome::Holds };
    let message = format!("whether {name} of the image lets it start depends on {missing}");
    let finding = finding(outcome, message).headline(format!("{name} depends on {missing}"));
    if asked { finding } else { finding.level(Level::Note) }
}

/// Every brand that the GPU may have must give the same answer.
fn of_all_brands(case: &Case<'_>, expression: &str) -> Answer {
    let brands = case.host.brands(case.gpu);
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
    // With `none` the driver's files come without a device: arch and brand cannot be found out.
    let no_device = case.inventory.facts.image.config.env("NVIDIA_VISIBLE_DEVICES") == Some("none");
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

fn remedies(case: &Case<'_>, requirement: &Requirement, mut finding: Finding) -> Finding {
    // Where the software itself starts on the driver, the requirement alone stands in the way.
    let helped = matches!(compat(case), Some((_, CompatUse::Usable { .. })));
    if case.driver.is_some() && runtimes_start(case) {
        let what = if helped {
            "the image runs by its compat package"
        } else {
            "the software starts on this driver"
        };
        finding = finding
            .remedy(format!("set NVIDIA_DISABLE_REQUIRE=1 in the image or with `docker run -e`: {what}"));
    }
    let wanted = requirement.expression.split([' ', ',']).find_map(|t| t.strip_prefix("cuda>="));
    let toolkit =
        wanted.and_then(Version::parse).and_then(|v| case.catalog.full_driver(&v.major_minor()).cloned());
    match toolkit.and_then(|t| t.linux_driver_min) {
        Some(driver) => finding.remedy(format!("update the host to driver {driver} or newer")),
        None => finding,
    }
}
