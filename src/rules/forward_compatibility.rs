//! The driver is too old for the runtime, and the image brings a compat package that may stand in for its libcuda.

use super::compat::{CompatUse, Loaded, compat, lifts, loaded};
use super::reasoning::{Fit, fit, judge_code, releases};
use super::{Case, Reads, Rule};
use crate::inventory::compat::CompatLibrary;
use crate::inventory::gpu_code::Reach;
use crate::report::{Evidence, Finding, How, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL104", name: "forward-compatibility" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the image runs by its forward-compatibility package, with its limits",
    reads: Reads::ALL,
    judge,
};

fn limits(case: &Case<'_>, library: &CompatLibrary) -> String {
    let reached = match loaded(case, library) {
        Loaded::Yes(by) => format!("loaded by {by}"),
        Loaded::IfItWorks => "loaded by the entry point of the image: keep it".to_owned(),
        Loaded::No(why) => why,
        Loaded::NotKnown(_) => {
            "the container runtime must put the compat directory on the loader path".to_owned()
        }
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
        let used = fit(&release, driver) == Fit::TooOld
            || matches!(loaded(case, library), Loaded::Yes(_))
            || compiles;
        if !used || !lifts(library, &release) {
            continue;
        }
        let cuda = library.cuda.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
        let (runs, headline) = match sure {
            true => ("runs", "by forward compatibility"),
            false => ("may run", "perhaps by forward compatibility"),
        };
        let message = format!(
            "CUDA {release} {runs} on {} through the compat package of CUDA {cuda} in the image",
            driver.describe()
        );
        let own_branch = library.branch.is_some() && library.branch == driver.branch();
        let detail = match &library.note {
            _ if own_branch => format!(
                "compat libcuda of CUDA {cuda}, a newer build of the host's own branch: NVIDIA supports that on some branches and GPUs"
            ),
            Some(_) => format!("compat libcuda of CUDA {cuda}; its note accepts this host branch"),
            None => format!("compat libcuda of CUDA {cuda}; NVIDIA's matrix accepts this host branch"),
        };
        let evidence = vec![Evidence { place: library.place.clone(), detail }];
        let outcome = if sure { Outcome::Holds } else { Outcome::Unknown };
        let finding = Finding::new(ID, outcome, message, evidence)
            .headline(headline)
            .component("libcuda")
            .host(limits(case, library))
            .how(How::ForwardCompatibility);
        out.push(if sure { finding.level(Level::Note) } else { finding });
    }
    out
}
