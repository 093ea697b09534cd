//! `CUDA_VERSION` without `NVIDIA_REQUIRE_CUDA` makes the container runtime take the image for one of long ago.

use super::linking::{and, says};
use super::nvidia_require::{is_legacy_image, is_switched_off, semantic_version};
use super::reasoning::about_image;
use super::settings::{clipped, is_gpu_container};
use super::{Case, Reads, Rule};
use crate::report::{Finding, Level, Outcome, RuleId};
use crate::target::profile::RuntimeMode;

const ID: RuleId = RuleId { code: "CUL506", name: "cuda-version-variable" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "CUDA_VERSION alone makes the container runtime treat the image as one of nvidia-docker 1",
    reads: Reads::HOST,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let config = &case.inventory.facts.image.config;
    let (true, Some(value)) = (is_legacy_image(config) && is_gpu_container(case), config.env("CUDA_VERSION"))
    else {
        return Vec::new();
    };
    let checked = !is_switched_off(config);
    let clear = semantic_version(value);
    let value = clipped(value);
    let evidence = about_image(case, format!("it sets CUDA_VERSION={value} and no NVIDIA_REQUIRE_CUDA"));
    let finding = |outcome, message: String| {
        Finding::new(ID, outcome, message, evidence.clone()).component("cuda_version")
    };
    let mode = case.mode().map(|(mode, _)| mode);
    vec![match clear {
        None if !checked => return Vec::new(),
        None => {
            let message = format!(
                "CUDA_VERSION={value} is no version that the container runtime reads: in legacy mode the container does not start"
            );
            let (outcome, level) = match mode {
                Some(RuntimeMode::Legacy | RuntimeMode::Csv) => (Outcome::Breaks, Level::Error),
                Some(RuntimeMode::Cdi) => (Outcome::Holds, Level::Note),
                None => (Outcome::Holds, Level::Warning),
            };
            let front = match mode {
                Some(RuntimeMode::Csv) => "requirements not met: failed to get image requirements:",
                _ => "failed to get requirements",
            };
            let text = format!(
                "{front} failed to get version: invalid CUDA version {value}: invalid version string"
            );
            finding(outcome, message)
                .level(level)
                .headline("CUDA_VERSION is no version")
                .error(says(text))
                .remedy("write it with one to three numbers, such as 12.4.1, or remove it")
        }
        Some(version) => {
            let unset = |name: &str| config.env(name).is_none();
            let mut names = vec!["NVIDIA_REQUIRE_CUDA".to_owned()];
            let mut in_legacy = Vec::new();
            let all_gpus = unset("NVIDIA_VISIBLE_DEVICES");
            if all_gpus {
                names.push("NVIDIA_VISIBLE_DEVICES".to_owned());
            }
            if unset("NVIDIA_DRIVER_CAPABILITIES") {
                in_legacy.push("all capabilities".to_owned());
                names.push("NVIDIA_DRIVER_CAPABILITIES".to_owned());
            }
            if checked {
                in_legacy.push(format!("the requirement cuda>={}.{}", version.major(), version.minor()));
            }
            let gets = match (all_gpus, in_legacy.is_empty()) {
                (true, false) => {
                    format!("the container gets all GPUs, and in legacy mode {}", and(&in_legacy))
                }
                (true, true) => "the container gets all GPUs".to_owned(),
                (false, false) => format!("in legacy mode the container gets {}", and(&in_legacy)),
                (false, true) => return Vec::new(),
            };
            let message = format!("CUDA_VERSION={value} without NVIDIA_REQUIRE_CUDA: {gets}");
            finding(Outcome::Holds, message)
                .level(Level::Note)
                .headline("taken for an image of nvidia-docker 1")
                .remedy(format!("set {}, or remove CUDA_VERSION", and(&names)))
        }
    }]
}
