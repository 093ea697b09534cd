//! A serialized TensorRT engine of another TensorRT than the one in the image.

use super::linking::{at, says};
use super::{Case, Reads, Rule};
use crate::facts::{FileFacts, FileKind};
use crate::inventory::Component;
use crate::report::{Evidence, Finding, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL324", name: "engine-for-another-tensorrt" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a TensorRT engine was built by another release than the TensorRT in the image",
    reads: Reads::IMAGE,
    judge,
};

/// The release that an engine file states.
pub(super) fn built_by(file: &FileFacts) -> Option<Version> {
    Version::parse(file.text.as_deref()?.lines().find_map(|l| l.strip_prefix("tensorrt "))?)
}

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let is_runtime = |c: &&Component| {
        let name = c.place.path.file_name();
        c.version.is_some() && name.starts_with("libnvinfer.so")
    };
    let runtimes: Vec<&Component> = case.inventory.components.iter().filter(is_runtime).collect();
    let [runtime] = runtimes.as_slice() else { return Vec::new() };
    let Some(have) = runtime.version.as_deref().and_then(Version::leading) else { return Vec::new() };
    let engines = case.inventory.facts.files.iter().filter(|f| f.kind == FileKind::Engine);
    engines.filter_map(|f| Some(one(f, &built_by(f)?, runtime, &have))).collect()
}

fn one(engine: &FileFacts, built: &Version, runtime: &Component, have: &Version) -> Finding {
    let evidence = vec![
        at(engine, format!("built by TensorRT {built}")),
        Evidence { place: runtime.place.clone(), detail: format!("TensorRT {have}") },
    ];
    let path = &engine.place.path;
    // The library may state fewer parts than the engine.
    if built.agrees_with(have) {
        let message = format!("the engine {path} and the TensorRT of the image are both {have}");
        return Finding::new(ID, Outcome::Holds, message, evidence).component("tensorrt");
    }
    // From 8.6 on an engine may have been built to load in later releases; never in earlier ones.
    let may_load = *built >= Version::of(8, 6) && built < have;
    let message = match may_load {
        true => format!(
            "the engine {path} was built by TensorRT {built}, and the image has {have}: it loads only if it was built version-compatible"
        ),
        false => format!("the engine {path} was built by TensorRT {built}; the image has {have}"),
    };
    Finding::new(ID, if may_load { Outcome::Unknown } else { Outcome::Breaks }, message, evidence)
        .headline("engine of another TensorRT")
        .component("tensorrt")
        .error(says(format!(
            "The engine plan file is not compatible with this version of TensorRT, expecting library version {have} got {built}, please rebuild."
        )))
        .remedy(format!("build the engine with TensorRT {have}"))
        .remedy(format!("use TensorRT {built} in the image"))
}
