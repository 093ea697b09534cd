//! What an image asks of hosts -> an in-toto statement (v1), ready for signing. Requirements depend on the image alone; a verdict
//! would go stale with every driver update.

use crate::facts::CodeKind;
use crate::facts::json::ToolJson;
use crate::inventory::{Inventory, Linkage};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub const MEDIA_TYPE: &str = "application/vnd.in-toto+json";
pub const PREDICATE_TYPE: &str = "urn:cudalint:attestation:cuda-requirements:v1";

/// The statement. `None` where the image has no digest to speak of, as a directory has none.
pub fn statement(inventory: &Inventory, tool: &ToolJson) -> Option<Value> {
    let image = &inventory.facts.image;
    let digest = image.digest.as_ref()?;
    let requirements = &inventory.requirements;
    let majors: BTreeSet<u64> = inventory.runtimes.iter().filter_map(|r| r.version.major()).collect();
    let newest = inventory.runtimes.iter().map(|r| &r.version).max().map(ToString::to_string);
    let mut ptx: BTreeMap<String, BTreeSet<(u16, u16)>> = BTreeMap::new();
    let shapes = inventory.code.iter().flat_map(|g| &g.files).flat_map(|f| &f.shapes);
    for found in shapes.flat_map(|s| &s.images).filter(|i| i.kind == CodeKind::Ptx) {
        let of_arch = ptx.entry(crate::facts::json::arch_name(found)).or_default();
        of_arch.extend(found.ptx_isa);
    }
    let ptx: Vec<Value> = ptx
        .into_iter()
        .map(|(target, isa)| {
            let isa: Vec<String> = isa.into_iter().map(|(major, minor)| format!("{major}.{minor}")).collect();
            json!({ "target": target, "isa": isa })
        })
        .collect();
    let compat: Vec<Value> = inventory
        .compat
        .iter()
        .map(|c| {
            let version = c.driver.as_ref().map(ToString::to_string);
            json!({ "path": c.place.path.to_string(), "driver": version, "cuda": c.cuda.as_ref().map(ToString::to_string) })
        })
        .collect();
    let components: Vec<Value> = inventory
        .components
        .iter()
        .map(|c| {
            json!({
                "component": c.component, "version": c.version, "path": c.place.path.to_string(),
                "linkage": c.linkage.map(Linkage::name),
            })
        })
        .collect();
    Some(json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": image.repository, "digest": { digest.algorithm(): digest.hex() } }],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "scanner": { "name": tool.name, "version": tool.version, "facts": tool.facts },
            "platform": image.platform.to_string(),
            "complete": inventory.facts.complete,
            "usesGpu": inventory.uses_gpu(),
            "cuda": {
                "runtimeMajors": majors,
                "newestRuntime": newest,
                "minDriver": requirements.min_driver.as_ref().map(ToString::to_string),
                "fullDriver": requirements.full_driver.as_ref().map(ToString::to_string),
            },
            "gpuCode": { "sass": requirements.native, "ptxTargets": requirements.jit_from, "ptx": ptx },
            "compat": compat,
            "config": {
                "nvidiaRequireCuda": image.config.env("NVIDIA_REQUIRE_CUDA"),
                "driverCapabilities": image.config.env("NVIDIA_DRIVER_CAPABILITIES"),
            },
            "components": components,
        },
    }))
}
