//! Settings of the image switch off checks that would have said what is wrong.

use super::reasoning::about_image;
use super::{Case, Reads, Rule};
use crate::report::{Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL414", name: "checks-disabled" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "an environment variable of the image switches off a version check",
    reads: Reads::IMAGE,
    judge,
};

/// Variable, the values that switch off (none: any), and what is no longer checked.
const SWITCHES: [(&str, &[&str], &str); 5] = [
    ("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", &[], "JAX's check of CUDA library versions"),
    (
        "NVIDIA_DISABLE_REQUIRE",
        &["1", "t", "T", "TRUE", "true", "True"],
        "the container runtime's check of NVIDIA_REQUIRE_*",
    ),
    ("NCCL_ENABLE_VERSION_CHECK", &["0"], "NCCL's check of programs built for a newer NCCL"),
    ("BNB_CUDA_VERSION", &[], "the choice of the bitsandbytes library by torch's CUDA"),
    ("DS_SKIP_CUDA_CHECK", &["1"], "DeepSpeed's check of nvcc against torch's CUDA"),
];

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let config = &case.inventory.facts.image.config;
    let mut out = Vec::new();
    for (name, off, what) in SWITCHES {
        let Some(value) = config.env(name).filter(|v| !v.is_empty() && (off.is_empty() || off.contains(v)))
        else {
            continue;
        };
        let message = format!("{name}={value} switches off {what}");
        let finding = Finding::new(
            ID,
            Outcome::Holds,
            message,
            about_image(case, "a setting of the image config".to_owned()),
        );
        out.push(
            finding.level(Level::Note).component(name.to_ascii_lowercase()).remedy(format!("remove {name}")),
        );
    }
    out
}
