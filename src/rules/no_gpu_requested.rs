//! The image does not ask for a GPU, asks for none, or hides the ones that it gets.

use super::linking::{cannot_open, says};
use super::reasoning::about_image;
use super::settings::{asks_for_gpu, clipped};
use super::{Case, Reads, Rule};
use crate::report::{Finding, How, Level, Outcome, RuleId};
use crate::target::profile::GpuRequest;

const ID: RuleId = RuleId { code: "CUL509", name: "no-gpu-requested" };
pub(super) const RULE: Rule =
    Rule { id: ID, summary: "the image's settings give its software no GPU", reads: Reads::HOST, judge };

fn judge(case: &Case<'_>) -> Vec<Finding> {
    if !case.inventory.uses_gpu() {
        return Vec::new();
    }
    let mut out: Vec<Finding> = hidden(case).into_iter().collect();
    if case.host.gpu_request == Some(GpuRequest::Nobody) {
        let evidence = about_image(case, "software that uses the GPU".to_owned());
        let message =
            "nobody asks for a GPU on this host: neither GPU nor driver are in the container".to_owned();
        let finding = Finding::new(ID, Outcome::Breaks, message, evidence)
            .headline("no GPU asked for")
            .component("nvidia_visible_devices")
            .error(cannot_open("libcuda.so.1"))
            .remedy("start the container with `--gpus all`, or by the NVIDIA runtime");
        out.push(finding);
        return out;
    }
    out.extend(request(case));
    out
}

/// `CUDA_VISIBLE_DEVICES` with nothing valid in front: the driver shows no GPU to the process.
fn hidden(case: &Case<'_>) -> Option<Finding> {
    const NAME: &str = "CUDA_VISIBLE_DEVICES";
    let value = case.inventory.facts.image.config.env(NAME)?;
    let first = value.split(',').next().unwrap_or_default().trim();
    let is_uuid = ["GPU-", "MIG-"].iter().any(|p| first.starts_with(p));
    if is_uuid || first.parse::<u32>().is_ok() {
        return None;
    }
    let message = format!("{NAME}={value} in the image hides every GPU from CUDA");
    let evidence = about_image(case, format!("it sets {NAME}={value}"));
    Some(
        Finding::new(ID, Outcome::Breaks, message, evidence)
            .headline("every GPU is hidden")
            .component("cuda_visible_devices")
            .error(case.error(100))
            .how(How::CpuFallback)
            .remedy(format!("remove {NAME} from the image, or give it to the container that needs it")),
    )
}

fn request(case: &Case<'_>) -> Option<Finding> {
    const NAME: &str = "NVIDIA_VISIBLE_DEVICES";
    let value = case.inventory.facts.image.config.env(NAME);
    let shown = value.map(clipped);
    let only_image = case.host.gpu_request == Some(GpuRequest::Image);
    let finding = |outcome, level, message: String| {
        let detail = shown
            .as_ref()
            .map_or_else(|| format!("it does not set {NAME}"), |v| format!("it sets {NAME}={v}"));
        Finding::new(ID, outcome, message, about_image(case, detail))
            .level(level)
            .headline("the image asks for no GPU")
            .component("nvidia_visible_devices")
    };
    let set = format!("ENV {NAME}=all");
    if value == Some("none") {
        let (outcome, level) =
            if only_image { (Outcome::Breaks, Level::Error) } else { (Outcome::Holds, Level::Warning) };
        let message =
            format!("{NAME}=none brings the driver's libraries and no GPU, unless the engine asks for one");
        return Some(finding(outcome, level, message).error(case.error(100)).remedy(set));
    }
    if asks_for_gpu(case) {
        return pinned(value?, finding);
    }
    let (outcome, level) = match (only_image, value) {
        (true, _) => (Outcome::Breaks, Level::Error),
        (false, Some("void")) => (Outcome::Holds, Level::Warning),
        (false, _) => (Outcome::Holds, Level::Note),
    };
    let how = match &shown {
        Some(value) => format!("{NAME}=`{value}` asks for no GPU"),
        None => format!("the image does not set {NAME}"),
    };
    let message = format!(
        "{how}: the NVIDIA runtime alone brings neither GPU nor driver; `docker --gpus` or a device plugin does"
    );
    Some(finding(outcome, level, message).error(cannot_open("libcuda.so.1")).remedy(set))
}

/// One GPU of one machine by its identifier.
fn pinned(value: &str, finding: impl Fn(Outcome, Level, String) -> Finding) -> Option<Finding> {
    let is_uuid = |part: &str| ["GPU-", "MIG-"].iter().any(|p| part.starts_with(p));
    value.split(',').any(is_uuid).then(|| {
        let message = format!(
            "NVIDIA_VISIBLE_DEVICES={} names a GPU of one machine; on others the container does not start",
            clipped(value)
        );
        finding(Outcome::Holds, Level::Warning, message)
            .headline("one machine's GPU is named")
            .error(says(format!("nvidia-container-cli: device error: {}: unknown device", clipped(value))))
            .remedy("ENV NVIDIA_VISIBLE_DEVICES=all, and choose the GPU when the container is started")
    })
}
