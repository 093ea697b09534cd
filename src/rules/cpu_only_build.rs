//! A framework without any GPU support in an image that is meant for GPUs.

use super::linking::{applications, at_place, says};
use super::{Case, Reads, Rule};
use crate::inventory::frameworks::{Backend, Framework};
use crate::report::{Finding, How, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL401", name: "cpu-only-build" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a framework is the CPU build, in an image that presents itself as one for GPUs",
    reads: Reads::GPU,
    judge,
};

const FAMILIES: [&str; 3] = ["torch", "tensorflow", "paddle"];

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    for framework in case.inventory.frameworks.iter().filter(|f| FAMILIES.contains(&f.family.as_str())) {
        match framework.backend {
            Backend::Cpu => out.extend(cpu_only(case, framework)),
            Backend::Cuda => {
                let cuda = framework.cuda.as_ref().map(|c| format!(" for CUDA {c}")).unwrap_or_default();
                let message = format!("{} {} is a GPU build{cuda}", framework.name, framework.version_text);
                let evidence = vec![at_place(&framework.place, format!("from {}", framework.how))];
                out.push(
                    Finding::new(ID, Outcome::Holds, message, evidence).component(framework.name.clone()),
                );
            }
            Backend::Other | Backend::Unknown => {}
        }
    }
    out
}

fn cpu_only(case: &Case<'_>, framework: &Framework) -> Option<Finding> {
    let asked = || case.gpu.map(|g| format!("the target has {}", g.describe()));
    let code_of = |g: &&crate::inventory::loading::Group| {
        g.name != framework.name && g.members.iter().any(|m| m.file.device_code.is_some())
    };
    let beside =
        || applications(case).find(code_of).map(|g| format!("{} in the same image is one for GPUs", g.name));
    let presents = presents_itself(case).or_else(beside);
    let by_image = presents.is_some();
    let why = presents.or_else(asked)?;
    let name = &framework.name;
    let others = applications(case).any(|g| code_of(&g) && !lacks_torch_cuda(case, g));
    let user = applications(case).find(|g| lacks_torch_cuda(case, g));
    let why = user.map_or(why, |g| format!("{} needs its CUDA libraries", g.name));
    let (outcome, level) = match (case.inventory.uses_gpu(), others) {
        // Nothing uses the GPU at all: the verdict says so, this says that it may not be meant.
        (false, _) if by_image => (Outcome::Holds, Level::Warning),
        (false, _) => (Outcome::Holds, Level::Note),
        (true, true) => (Outcome::Degrades, Level::Warning),
        (true, false) => (Outcome::Breaks, Level::Error),
    };
    let (outcome, level) = if user.is_some() { (Outcome::Breaks, Level::Error) } else { (outcome, level) };
    let message = format!("{name} {} is a CPU build; {why}", framework.version_text);
    let evidence = vec![at_place(&framework.place, format!("built without CUDA (from {})", framework.how))];
    let text = match framework.family.as_str() {
        "torch" if user.is_some() => {
            "libtorch_cuda.so: cannot open shared object file: No such file or directory"
        }
        "torch" => "AssertionError: Torch not compiled with CUDA enabled",
        "tensorflow" => "(no message: tf.config.list_physical_devices('GPU') returns an empty list)",
        _ => "(no message: it computes on the CPU)",
    };
    let mut finding = Finding::new(ID, outcome, message, evidence)
        .level(level)
        .headline(format!("{name} is the CPU build"))
        .component(name.clone())
        .error(says(text))
        .remedy(format!("install the CUDA build of {name}"));
    if outcome == Outcome::Breaks {
        finding = finding.how(How::CpuFallback);
    }
    Some(finding)
}

/// Whether a package was built for the CUDA build of torch, and torch is the CPU build.
pub(super) fn lacks_torch_cuda(case: &Case<'_>, group: &crate::inventory::loading::Group<'_>) -> bool {
    const OF_TORCH: [&str; 3] = ["libtorch_cuda", "libc10_cuda", "libtorch_cuda_linalg"];
    let cpu = case.inventory.framework("torch").is_some_and(|t| t.backend == Backend::Cpu);
    let lacks = |m: &crate::inventory::loading::Opened| {
        m.missing(case.catalog).any(|(_, load)| OF_TORCH.iter().any(|l| load.name.starts_with(l)))
    };
    cpu && group.name != "torch" && group.fails(case.catalog) && group.deciding().any(lacks)
}

/// What makes an image one for GPUs.
fn presents_itself(case: &Case<'_>) -> Option<String> {
    let config = &case.inventory.facts.image.config;
    let set = ["NVIDIA_VISIBLE_DEVICES", "NVIDIA_REQUIRE_CUDA", "CUDA_VERSION"]
        .into_iter()
        .find(|n| config.env(n).is_some());
    let runtime =
        || case.inventory.runtimes.first().map(|r| format!("the image has CUDA runtime {}", r.version));
    set.map(|name| format!("the image sets {name}")).or_else(runtime)
}
