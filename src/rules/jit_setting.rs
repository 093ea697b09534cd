//! Variables of the image that change how the driver takes GPU code: compile everything, compile nothing, load all at once.

use super::reasoning::{Weight, about_image, judge_code, ptx_limit};
use super::{Case, Reads, Rule};
use crate::facts::CodeKind;
use crate::inventory::gpu_code::{CodeFile, Reach, coverage};
use crate::report::{Evidence, Finding, How, Level, Outcome, RuleId};
use crate::version::ComputeCapability;

const ID: RuleId = RuleId { code: "CUL511", name: "jit-setting" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a variable of the image changes how the driver loads or compiles GPU code",
    reads: Reads::ALL,
    judge,
};

/// Whether a switch of the driver is on: any number but zero.
pub(super) fn is_on(case: &Case<'_>, name: &str) -> bool {
    let value = case.inventory.facts.image.config.env(name);
    value.and_then(|v| v.trim().parse::<i64>().ok()).is_some_and(|n| n != 0)
}

fn judge(case: &Case<'_>) -> Vec<Finding> {
    if case.inventory.code.is_empty() {
        return Vec::new();
    }
    [forced(case), forbidden(case), eager(case), uncached(case)].into_iter().flatten().collect()
}

fn set(case: &Case<'_>, name: &str) -> Vec<Evidence> {
    let value = case.inventory.facts.image.config.env(name).unwrap_or_default();
    about_image(case, format!("it sets {name}={value}"))
}

/// Machine code is left aside: what has no PTX that the driver compiles does not work.
fn forced(case: &Case<'_>) -> Option<Finding> {
    const NAME: &str = "CUDA_FORCE_PTX_JIT";
    if !is_on(case, NAME) {
        return None;
    }
    let mut evidence = set(case, NAME);
    let worst = judge_code(case).into_iter().filter_map(|part| {
        let reach = part.files().map(|(file, _)| by_ptx(case, file)).min()?;
        Some((reach, part))
    });
    let worst = worst.filter(|(_, p)| p.weight == Weight::Decides).max_by_key(|(reach, _)| *reach);
    let (outcome, code, message) = match worst {
        Some((reach, part)) if reach > Reach::Jit => {
            evidence.extend(part.evidence());
            let gpu = case.gpu.map_or_else(|| "this GPU".to_owned(), crate::target::Gpu::describe);
            let name = &part.group.name;
            let (code, lacks) = match reach {
                Reach::PtxTooNew => (222, "PTX that the driver compiles"),
                _ => (209, "PTX that fits"),
            };
            let message =
                format!("{NAME} makes the driver ignore machine code, and {name} has no {lacks} for {gpu}");
            (Outcome::Breaks, Some(code), message)
        }
        _ => {
            let message =
                format!("{NAME} makes the driver ignore machine code and compile PTX at every first use");
            (Outcome::Degrades, None, message)
        }
    };
    let mut finding = Finding::new(ID, outcome, message, evidence)
        .headline("machine code is ignored")
        .component(NAME.to_ascii_lowercase())
        .error(code.and_then(|c| case.error(c)))
        .remedy(format!("remove {NAME} from the image; it is for testing"));
    if outcome == Outcome::Degrades {
        finding = finding.how(How::Jit);
    }
    Some(finding)
}

/// How far the PTX of a file alone reaches.
fn by_ptx(case: &Case<'_>, file: &CodeFile) -> Reach {
    let mut file = file.clone();
    for shape in &mut file.shapes {
        shape.images.retain(|i| i.kind != CodeKind::Sass);
    }
    let limit = ptx_limit(case);
    let gpu = case.gpu.map_or(ComputeCapability { major: 0, minor: 0 }, |g| g.cc);
    coverage(&file, gpu, limit.as_ref().map(|l| &l.isa), case.catalog).reach()
}

fn forbidden(case: &Case<'_>) -> Option<Finding> {
    const NAME: &str = "CUDA_DISABLE_PTX_JIT";
    if !is_on(case, NAME) {
        return None;
    }
    let compiled: Vec<_> = judge_code(case).into_iter().filter(|j| j.reach == Reach::Jit).collect();
    let decides = compiled.iter().any(|j| j.weight == Weight::Decides);
    let outcome = match (compiled.is_empty(), decides) {
        (true, _) => Outcome::Holds,
        (false, false) => Outcome::Degrades,
        (false, true) => Outcome::Breaks,
    };
    let mut evidence = set(case, NAME);
    let message = match compiled.first() {
        Some(first) => {
            evidence.extend(first.evidence());
            let gpu = case.gpu.map_or_else(|| "this GPU".to_owned(), crate::target::Gpu::describe);
            format!("{NAME} forbids what {} needs on {gpu}: it has PTX only there", first.group.name)
        }
        None => {
            format!("{NAME} forbids the driver to compile PTX: GPUs without machine code in the image fail")
        }
    };
    let finding = Finding::new(ID, outcome, message, evidence)
        .headline("compiling PTX is forbidden")
        .component(NAME.to_ascii_lowercase())
        .error(case.error(223))
        .remedy(format!("remove {NAME} from the image"));
    Some(if outcome == Outcome::Holds { finding.level(Level::Note) } else { finding })
}

fn eager(case: &Case<'_>) -> Option<Finding> {
    const NAME: &str = "CUDA_MODULE_LOADING";
    let value = case.inventory.facts.image.config.env(NAME)?;
    let message = match value {
        "EAGER" => format!("{NAME}=EAGER loads every kernel at start: longer start, more GPU memory"),
        "LAZY" | "DEFAULT" | "" => return None,
        other => format!("{NAME}={other} is no value that the driver knows: LAZY, EAGER or DEFAULT"),
    };
    Some(
        Finding::new(ID, Outcome::Holds, message, set(case, NAME))
            .level(Level::Note)
            .component(NAME.to_ascii_lowercase())
            .remedy(format!("remove {NAME}, or set it to LAZY")),
    )
}

fn uncached(case: &Case<'_>) -> Option<Finding> {
    const NAME: &str = "CUDA_CACHE_DISABLE";
    let compiles = judge_code(case).iter().any(|j| j.reach == Reach::Jit);
    (is_on(case, NAME) && compiles).then(|| {
        let message = format!("{NAME} keeps no compiled kernel: PTX is compiled again at every start");
        Finding::new(ID, Outcome::Holds, message, set(case, NAME))
            .level(Level::Warning)
            .component(NAME.to_ascii_lowercase())
            .remedy(format!("remove {NAME}, and keep CUDA_CACHE_PATH on a volume"))
    })
}
