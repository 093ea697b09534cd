//! ONNX Runtime's CUDA provider cannot be loaded; sessions run on the CPU with a message that is easily missed.

use super::linking::{and, anywhere, applications, at, best_member, says};
use super::{Case, Reads, Rule};
use crate::inventory::loading::{Group, Opened};
use crate::inventory::processes::site_directory;
use crate::report::{Evidence, Finding, How, Level, Outcome, RuleId, RuntimeError};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL321", name: "onnxruntime-libraries-missing" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the CUDA provider of ONNX Runtime does not find its libraries, and sessions run on the CPU",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let groups =
        case.inventory.loading.iter().filter(|g| g.name == "onnxruntime" && g.members.iter().any(|m| m.main));
    groups.filter_map(|g| one(case, g)).collect()
}

fn one(case: &Case<'_>, group: &Group<'_>) -> Option<Finding> {
    let member = best_member(case, group)?;
    // In the order in which the loader meets them: its message names the first.
    let mut lost: Vec<String> = Vec::new();
    for (_, load) in member.missing(case.catalog) {
        if !lost.contains(&load.name) {
            lost.push(load.name.clone());
        }
    }
    let Some(first) = lost.first() else {
        let message = "the CUDA provider of ONNX Runtime finds its libraries".to_owned();
        let evidence = vec![at(member.file, "looked up as its loader would")];
        return Some(Finding::new(ID, Outcome::Holds, message, evidence).component("onnxruntime"));
    };
    let evidence = vec![at(member.file, format!("needs {}", and(&lost)))];
    let Some(how) = brought(case, member, &lost) else { return Some(missing(case, first, &lost, evidence)) };
    let message = format!("the CUDA provider of ONNX Runtime finds {} only after {how}", and(&lost));
    Some(
        Finding::new(ID, Outcome::Holds, message, evidence)
            .level(Level::Note)
            .component("onnxruntime")
            .error(error(first))
            .remedy(match can_preload(case) {
                true => "call onnxruntime.preload_dlls() before the first session, or import torch first",
                false => "import torch before onnxruntime",
            }),
    )
}

fn error(first: &str) -> Option<RuntimeError> {
    says(format!(
        "Failed to load library libonnxruntime_providers_cuda.so with error: {first}: cannot open shared object file: No such file or directory"
    ))
}

fn missing(case: &Case<'_>, first: &str, lost: &[String], evidence: Vec<Evidence>) -> Finding {
    let are = if lost.len() == 1 { "is" } else { "are" };
    let finding = |outcome, may: &str, headline: &str| {
        let message =
            format!("ONNX Runtime {may} on the CPU: {} {are} not found by its CUDA provider", and(lost));
        Finding::new(ID, outcome, message, evidence.clone())
            .headline(headline)
            .component("onnxruntime")
            .error(error(first))
    };
    // A start script may lead the loader to libraries that are there.
    let somewhere = anywhere(case, first).filter(|_| lost.iter().all(|n| anywhere(case, n).is_some()));
    if let Some(file) = somewhere {
        let dir = file.place.path.parent();
        return finding(Outcome::Unknown, "may compute", "ONNX Runtime may fall back to the CPU")
            .remedy(format!("set LD_LIBRARY_PATH={dir} in the image, unless a start script does"));
    }
    // Where another part of the image does its work on the GPU, this one alone is lost.
    let others = applications(case).any(|g| g.name != "onnxruntime" && uses_gpu(g) && !g.fails(case.catalog));
    let outcome = if others { Outcome::Degrades } else { Outcome::Breaks };
    let finding = finding(outcome, "computes", "ONNX Runtime falls back to the CPU").how(How::CpuFallback);
    if can_preload(case) {
        return finding
            .remedy("pip install onnxruntime-gpu[cuda,cudnn], and call onnxruntime.preload_dlls() first")
            .remedy("install the onnxruntime-gpu for the CUDA in the image");
    }
    finding.remedy("use a base image with the CUDA and cuDNN that this onnxruntime-gpu was built for")
}

fn uses_gpu(group: &Group<'_>) -> bool {
    let with_code =
        |m: &Opened| m.file.device_code.is_some() || m.elf.needed.iter().any(|n| n.starts_with("libcudart"));
    group.members.iter().any(with_code)
}

/// `preload_dlls()` came with 1.21.
fn can_preload(case: &Case<'_>) -> bool {
    let version = case.inventory.framework("onnxruntime-gpu").and_then(|f| f.version.as_ref());
    version.is_some_and(|v| *v >= Version::of(1, 21))
}

/// Who can load the libraries first: ONNX Runtime's own call, or torch.
fn brought(case: &Case<'_>, member: &Opened<'_>, lost: &[String]) -> Option<String> {
    let site = site_directory(member.file.place.path.as_str())?;
    let stem = |name: &str| name.split(".so").next().unwrap_or(name).to_owned();
    let in_wheels = |name: &String| {
        let file = case.inventory.processes.in_nvidia_directories(site, &stem(name));
        file.and_then(|f| f.elf.as_ref()?.soname.as_ref()).is_some_and(|s| s == name)
    };
    let in_torch = |name: &String| case.inventory.processes.torch().is_some_and(|p| p.object(name).is_some());
    match () {
        () if can_preload(case) && lost.iter().all(in_wheels) => {
            Some("onnxruntime.preload_dlls()".to_owned())
        }
        () if lost.iter().all(in_torch) => Some("`import torch`".to_owned()),
        () => None,
    }
}
