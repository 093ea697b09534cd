//! A serialized TensorRT engine holds the kernels of the GPU that it was built on, and runs on no other.

use super::linking::{at, says};
use super::{Case, Reads, Rule};
use crate::facts::{CodeKind, FileFacts, FileKind};
use crate::report::{Finding, Outcome, RuleId};
use crate::version::ComputeCapability;

const ID: RuleId = RuleId { code: "CUL208", name: "engine-for-another-gpu" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a TensorRT engine was built on a GPU of another compute capability",
    reads: Reads::GPU,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let engines = case.inventory.facts.files.iter().filter(|f| f.kind == FileKind::Engine);
    let mut found: Vec<Finding> = engines.filter_map(|f| one(case, f)).collect();
    // An image may bring an engine per GPU: the one that fits is enough.
    if found.iter().any(|f| f.outcome == Outcome::Holds) {
        found.retain(|f| f.outcome == Outcome::Holds);
    }
    found
}

fn one(case: &Case<'_>, engine: &FileFacts) -> Option<Finding> {
    let gpu = case.gpu?;
    let images = engine.device_code.as_ref()?.rows.iter().map(|r| r.image);
    let mut made_for: Vec<ComputeCapability> =
        images.filter(|i| i.kind == CodeKind::Sass).map(|i| i.arch.compute_capability()).collect();
    made_for.sort_unstable();
    made_for.dedup();
    let newest = *made_for.last()?;
    let evidence = vec![at(engine, format!("kernels for compute capability {newest}"))];
    let path = &engine.place.path;
    if newest == gpu.cc {
        let message = format!("the engine {path} was built for {}", gpu.describe());
        return Some(Finding::new(ID, Outcome::Holds, message, evidence).component("tensorrt"));
    }
    // Engines built as hardware compatible hold Ampere code and run on what is newer.
    let ampere = ComputeCapability { major: 8, minor: 0 };
    let may_run = newest == ampere && gpu.cc > ampere;
    let message = match may_run {
        true => format!(
            "the engine {path} holds kernels for {newest} only: on {} it runs only if it was built hardware compatible",
            gpu.describe()
        ),
        false => {
            format!("the engine {path} was built for compute capability {newest}, not for {}", gpu.describe())
        }
    };
    let text = format!(
        "The engine plan file is generated on an incompatible device, expecting compute {} got compute {newest}, please rebuild.",
        gpu.cc
    );
    Some(
        Finding::new(ID, if may_run { Outcome::Unknown } else { Outcome::Breaks }, message, evidence)
            .headline("engine of another GPU")
            .component("tensorrt")
            .error(says(text))
            .remedy(format!("build the engine on {}", gpu.describe())),
    )
}
