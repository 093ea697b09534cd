//! The stack of an image -> a CycloneDX 1.6 bill of materials (JSON) with the CUDA libraries that package managers do not list.

use crate::facts::json::ToolJson;
use crate::inventory::{Component, ComponentKind, Inventory, Linkage};
use crate::names::percent_encoded;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The document: no serial number and no date, so that the same image gives the same bytes.
pub fn bom(inventory: &Inventory, tool: &ToolJson) -> Value {
    let image = &inventory.facts.image;
    let version = image.digest.as_ref().map(ToString::to_string);
    let repository = image.repository.as_str();
    let name = repository.rsplit('/').next().unwrap_or(repository);
    let mut subject = json!({ "type": "container", "name": repository, "bom-ref": "image" });
    if let Some(digest) = &version {
        subject["version"] = json!(digest);
        subject["purl"] = json!(format!("pkg:oci/{}@{}", encoded(&name.to_lowercase()), encoded(digest)));
    }
    let requirements = &inventory.requirements;
    let mut properties = vec![property("cudalint:complete", &inventory.facts.complete.to_string())];
    properties.extend(requirements.min_driver.as_ref().map(|d| property("cudalint:min_driver", d.as_str())));
    properties
        .extend(requirements.full_driver.as_ref().map(|d| property("cudalint:full_driver", d.as_str())));
    let listed = |name: &str, all: &[String]| (!all.is_empty()).then(|| property(name, &all.join(" ")));
    properties.extend(listed("cudalint:machine_code", &requirements.native));
    properties.extend(listed("cudalint:ptx", &requirements.jit_from));
    let components = components(inventory);
    let refs: Vec<&Value> = components.iter().filter_map(|c| c.get("bom-ref")).collect();
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": { "components": [{ "type": "application", "name": tool.name, "version": tool.version }] },
            "component": subject,
            "properties": properties,
        },
        "components": components,
        "dependencies": [{ "ref": "image", "dependsOn": refs }],
    })
}

/// One component per name, version, linkage and origin, with every place where it stands.
fn components(inventory: &Inventory) -> Vec<Value> {
    type Key<'c> = (ComponentKind, &'c str, Option<&'c str>, bool, &'static str);
    let mut groups: BTreeMap<Key, Vec<&Component>> = BTreeMap::new();
    for component in &inventory.components {
        let fixed = component.linkage == Some(Linkage::Static);
        let key = (
            component.kind,
            component.display.as_str(),
            component.version.as_deref(),
            fixed,
            component.origin,
        );
        groups.entry(key).or_default().push(component);
    }
    groups.into_iter().map(|(key, all)| component(inventory, key, &all)).collect()
}

fn component(
    inventory: &Inventory,
    (kind, display, version, fixed, origin): (ComponentKind, &str, Option<&str>, bool, &'static str),
    all: &[&Component],
) -> Value {
    let identifier = all.first().map_or(display, |c| c.component.as_str());
    let linkage = if fixed { Linkage::Static } else { Linkage::Dynamic }.name();
    let places: Vec<Value> = all.iter().map(|c| json!({ "location": c.place.path.to_string() })).collect();
    let mut properties = vec![property("cudalint:origin", origin)];
    let how = all.first().map_or("", |c| c.how.as_str());
    properties.push(property("cudalint:version_from", how));
    if all.iter().any(|c| c.linkage.is_some()) {
        properties.push(property("cudalint:linkage", linkage));
    }
    properties
        .extend(all.iter().find_map(|c| c.cuda.as_ref()).map(|c| property("cudalint:cuda", c.as_str())));
    if all.iter().any(|c| c.reachable == Some(true)) {
        properties.push(property("cudalint:loaded", "true"));
    }
    let mut layers: Vec<String> = all
        .iter()
        .filter_map(|c| inventory.facts.image.layers.get(c.place.layer.0 as usize))
        .filter_map(|l| l.digest.as_ref().map(ToString::to_string))
        .collect();
    layers.sort_unstable();
    layers.dedup();
    properties.extend(layers.iter().map(|l| property("cudalint:layer", l)));
    let of_kind = match kind {
        ComponentKind::Framework => "framework",
        ComponentKind::Toolkit => "platform",
        _ => "library",
    };
    let reference =
        format!("{}/{identifier}@{}/{origin}/{linkage}/{display}", kind.name(), version.unwrap_or("?"));
    let mut out = json!({
        "type": of_kind,
        "bom-ref": reference,
        "name": display,
        "properties": properties,
        "evidence": { "occurrences": places },
    });
    if kind != ComponentKind::Framework {
        out["supplier"] = json!({ "name": "NVIDIA Corporation" });
    }
    if let Some(version) = version {
        out["version"] = json!(version);
        if kind == ComponentKind::Framework && origin == "pip" {
            out["purl"] =
                json!(format!("pkg:pypi/{}@{}", encoded(&display.to_lowercase()), encoded(version)));
        }
    }
    out
}

fn property(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

/// As package URLs escape names and versions.
fn encoded(text: &str) -> String {
    percent_encoded(text, b"")
}
