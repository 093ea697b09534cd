//! The driver is too old for the runtime, and the image brings a compat package that may stand in for its libcuda.

use super::reasoning::{CompatUse, Fit, compat, fit, judge_code, lifts, releases};
use super::{Case, Rule};
use crate::inventory::compat::CompatLibrary;
use crate::inventory::gpu_code::Reach;
use crate::report::{Evidence, Finding, How, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL104", name: "forward-compatibility" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the image runs by its forward-compatibility package, with its limits",
    image_only: false,
    judge,
};

fn limits(case: &Case<'_>, library: &CompatLibrary) -> String {
    let reached = match &library.on_library_path {
        Some(entry) => format!("loaded through `{entry}` in LD_LIBRARY_PATH"),
        None => "the container runtime must put the compat directory on the loader path".to_owned(),
    };
    let gpus = if case.gpu.is_none() { "; on data center GPUs only" } else { "" };
    format!("{reached}; no graphics interoperability{gpus}")
}

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(driver) = case.driver else { return Vec::new() };
    let Some((library, CompatUse::Usable { sure })) = compat(case) else { return Vec::new() };
    let mut out = Vec::new();
    for (release, _) in releases(case) {
        let compiles = judge_code(case).iter().any(|p| p.reach == Reach::Jit);
        let used = fit(&release, driver) == Fit::TooOld || library.on_library_path.is_some() || compiles;
        if !used || !lifts(library, &release) {
            continue;
        }
        let cuda = library.cuda.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
        let message = format!(
            "CUDA {release} runs on {} through the compat package of CUDA {cuda} in the image",
            driver.describe()
        );
        let detail = match &library.note {
            Some(_) => format!("compat libcuda of CUDA {cuda}; its note accepts this host branch"),
            None => format!("compat libcuda of CUDA {cuda}; NVIDIA's matrix accepts this host branch"),
        };
        let evidence = vec![Evidence { place: library.place.clone(), detail }];
        let outcome = if sure { Outcome::Holds } else { Outcome::Unknown };
        let finding = Finding::new(ID, outcome, message, evidence)
            .headline("by forward compatibility")
            .component("libcuda")
            .host(limits(case, library))
            .how(How::ForwardCompatibility);
        out.push(if sure { finding.level(Level::Note) } else { finding });
    }
    out
}
