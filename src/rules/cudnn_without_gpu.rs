//! cuDNN has no kernels for the GPU: too old a GPU for it, or too new a one.

use super::cudnn::telling;
use super::linking::{at, says};
use super::{Case, Reads, Rule, breaks_if};
use crate::facts::FileFacts;
use crate::report::{Finding, Outcome, RuleId};
use crate::target::Gpu;
use crate::version::ComputeCapability;

const ID: RuleId = RuleId { code: "CUL315", name: "cudnn-without-gpu" };
pub(super) const RULE: Rule =
    Rule { id: ID, summary: "the cuDNN release has no kernels for the GPU", reads: Reads::GPU, judge };

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(gpu) = case.gpu else { return Vec::new() };
    telling(case).into_iter().filter_map(|(group, file)| one(case, group, file, gpu)).collect()
}

fn one(case: &Case<'_>, group: &str, file: &FileFacts, gpu: &Gpu) -> Option<Finding> {
    let version = case.inventory.version_at(file)?;
    let dropped = case.catalog.cudnn_gpus.iter().find(|r| version >= r.from && gpu.cc < r.cc_min);
    let newest = file.elf.as_ref().and_then(|e| e.version_numbers.get("cudnnGetMaxDeviceVersion"));
    // 900 is compute capability 9.0, 1200 is 12.0.
    let newest = newest.map(|n| ComputeCapability { major: n / 100, minor: n / 10 % 10 });
    let too_new = newest.filter(|n| n.major < gpu.cc.major);
    let (message, detail, outcome, fix) = match (dropped, too_new) {
        (Some(row), _) => (
            format!(
                "cuDNN {version} of {group} has no kernels for {}: it begins at compute capability {}",
                gpu.describe(),
                row.cc_min
            ),
            format!("cuDNN {version}"),
            breaks_if(!row.status.is_inferred()),
            "install cuDNN 9.10.2, the last release for it (pip install nvidia-cudnn-cu12==9.10.2.21)"
                .to_owned(),
        ),
        (None, Some(newest)) => (
            format!(
                "cuDNN {version} of {group} knows GPUs up to compute capability {newest}; {} is newer",
                gpu.describe()
            ),
            format!("cudnnGetMaxDeviceVersion of cuDNN {version} is {newest}"),
            Outcome::Degrades,
            format!("use a build of {group} with a newer cuDNN"),
        ),
        (None, None) => {
            newest?;
            let message = format!("cuDNN {version} of {group} is made for {}", gpu.describe());
            return Some(Finding::new(
                ID,
                Outcome::Holds,
                message,
                vec![at(file, format!("cuDNN {version}"))],
            ));
        }
    };
    Some(
        Finding::new(ID, outcome, message, vec![at(file, detail)])
            .headline(format!("cuDNN {version} without code for the GPU"))
            .component(group)
            .error(says("CUDNN_STATUS_ARCH_MISMATCH"))
            .remedy(fix),
    )
}
