//! ONNX Runtime's CUDA provider cannot be loaded; sessions run on the CPU with a message that is easily missed.

use super::linking::{and, at, best_member, pip_package, says};
use super::{Case, Rule};
use crate::inventory::loading::{Group, Opened};
use crate::report::{Evidence, Finding, How, Level, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL407", name: "onnxruntime-libraries-missing" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the CUDA provider of ONNX Runtime does not find its libraries, and sessions run on the CPU",
    image_only: true,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let groups =
        case.inventory.loading.iter().filter(|g| g.name == "onnxruntime" && g.members.iter().any(|m| m.main));
    groups.filter_map(|g| one(case, g)).collect()
}

fn one(case: &Case<'_>, group: &Group<'_>) -> Option<Finding> {
    let member = best_member(case, group)?;
    let mut lost: Vec<String> = member.missing(case.catalog).map(|(_, l)| l.name.clone()).collect();
    lost.sort();
    lost.dedup();
    let Some(first) = lost.first() else {
        let message = "the CUDA provider of ONNX Runtime finds its libraries".to_owned();
        return Some(Finding::new(
            ID,
            Outcome::Holds,
            message,
            vec![at(member.file, "looked up as its loader would")],
        ));
    };
    let evidence = vec![at(member.file, format!("needs {}", and(&lost)))];
    if let Some(how) = brought(case, member, &lost) {
        let message = format!("the CUDA provider of ONNX Runtime finds {} only after {how}", and(&lost));
        return Some(
            Finding::new(ID, Outcome::Holds, message, evidence)
                .level(Level::Note)
                .component("onnxruntime")
                .error(error(first))
                .remedy("call onnxruntime.preload_dlls() before the first session, or import torch first"),
        );
    }
    let are = if lost.len() == 1 { "is" } else { "are" };
    let message =
        format!("ONNX Runtime computes on the CPU: {} {are} not found by its CUDA provider", and(&lost));
    Some(missing(case, first, message, evidence))
}

fn error(first: &str) -> Option<crate::report::RuntimeError> {
    says(format!(
        "Failed to load library libonnxruntime_providers_cuda.so with error: {first}: cannot open shared object file: No such file or directory"
    ))
}

fn missing(case: &Case<'_>, first: &str, message: String, evidence: Vec<Evidence>) -> Finding {
    let finding = Finding::new(ID, Outcome::Breaks, message, evidence)
        .headline("ONNX Runtime falls back to the CPU")
        .component("onnxruntime")
        .error(error(first))
        .how(How::CpuFallback)
        .remedy("pip install onnxruntime-gpu[cuda,cudnn] and call onnxruntime.preload_dlls()");
    match pip_package(case, first) {
        Some(package) => {
            finding.remedy(format!("install {package}, or the onnxruntime-gpu for the CUDA in the image"))
        }
        None => finding.remedy("install the onnxruntime-gpu for the CUDA in the image"),
    }
}

/// Who can load the libraries first: ONNX Runtime's own call (from 1.21 on), or torch.
fn brought(case: &Case<'_>, member: &Opened<'_>, lost: &[String]) -> Option<String> {
    let site = crate::inventory::processes::site_directory(member.file.place.path.as_str())?;
    let version = case.inventory.framework("onnxruntime-gpu").and_then(|f| f.version.clone());
    let can_preload = version.is_some_and(|v| v >= Version::of(1, 21));
    let stem = |name: &str| name.split(".so").next().unwrap_or(name).to_owned();
    let in_wheels = |name: &String| {
        let file = case.inventory.processes.in_nvidia_directories(site, &stem(name), None);
        file.and_then(|f| f.elf.as_ref()?.soname.as_ref()).is_some_and(|s| s == name)
    };
    let in_torch = |name: &String| case.inventory.processes.torch().is_some_and(|p| p.object(name).is_some());
    match () {
        () if can_preload && lost.iter().all(in_wheels) => Some("onnxruntime.preload_dlls()".to_owned()),
        () if lost.iter().all(in_torch) => Some("`import torch`".to_owned()),
        () => None,
    }
}
