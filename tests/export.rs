//! Exports select what the judgment selects: the labels of nodes against the verdicts of the same nodes as targets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use cudalint::catalog::Catalog;
use cudalint::export::selection::{DRIVER_MAJOR, Operator, PRODUCT, Term, select};
use cudalint::facts::{self, ImageFacts};
use cudalint::inventory;
use cudalint::matrix;
use cudalint::report::Verdict;
use cudalint::rules::Judge;
use cudalint::target::profile::{RuntimeMode, toolkit_version};
use cudalint::target::{Host, Target, fleet};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<(String, ImageFacts)> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(root().join("fixtures/facts")).unwrap() {
        let path = entry.unwrap().path();
        let facts = facts::json::read(&std::fs::read(&path).unwrap()).unwrap();
        out.push((path.file_stem().unwrap().to_string_lossy().into_owned(), facts));
    }
    out
}

/// Each node of the sample by itself, and the same nodes with other drivers and products.
fn nodes() -> Vec<Value> {
    let text = std::fs::read_to_string(root().join("fixtures/hosts/nodes.json")).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    let mut out: Vec<Value> = list["items"].as_array().unwrap().clone();
    let sample = out[0].clone();
    let drivers =
        ["450.80.02", "470.57.02", "525.60.13", "525.147.05", "530.30.02", "535.54.03", "545.23.08"];
    let drivers = drivers.iter().chain(&[
        "550.54.14",
        "570.26",
        "575.51.03",
        "580.65.06",
        "595.45.04",
        "610.43.02",
        "700.10.01",
    ]);
    let products = [
        ("NVIDIA-H100-80GB-HBM3", "9", "0"),
        ("NVIDIA-GeForce-RTX-4090", "8", "9"),
        ("NVIDIA-L4-SHARED", "8", "9"),
        ("Tesla-V100-SXM2-16GB", "7", "0"),
        ("NVIDIA-B200", "10", "0"),
        ("NVIDIA-GeForce-RTX-5090", "12", "0"),
    ];
    for driver in drivers {
        for (product, major, minor) in products {
            let mut node = sample.clone();
            let mut parts = driver.split('.');
            let labels = node["metadata"]["labels"].as_object_mut().unwrap();
            let mut set = |name: &str, value: &str| {
                labels.insert(format!("nvidia.com/{name}"), value.into());
            };
            set("gpu.product", product);
            set("gpu.compute.major", major);
            set("gpu.compute.minor", minor);
            set("cuda.driver-version.full", driver);
            set("cuda.driver-version.major", parts.next().unwrap());
            set("cuda.driver-version.minor", parts.next().unwrap());
            set("cuda.driver-version.revision", parts.next().unwrap_or(""));
            node["metadata"]["name"] = format!("{driver}/{product}").into();
            out.push(node);
        }
    }
    out
}

/// As the scheduler reads a term: every condition holds, and a label that is absent fits none.
fn fits(term: &Term, labels: &BTreeMap<String, String>) -> bool {
    term.iter().all(|condition| {
        let Some(value) = labels.get(condition.label) else { return false };
        match condition.operator {
            Operator::In => condition.values.contains(value),
            Operator::Gt | Operator::Lt => {
                let [bound] = condition.values.as_slice() else { panic!("Gt and Lt take one value") };
                let bound: i64 = bound.parse().unwrap();
                let above = condition.operator == Operator::Gt;
                value.parse::<i64>().is_ok_and(|v| if above { v > bound } else { v < bound })
            }
        }
    })
}

#[test]
fn the_terms_select_the_nodes_on_which_the_image_runs() {
    let catalog = Catalog::built_in().unwrap();
    let mut compared = 0;
    let mut selected = 0;
    let nodes = nodes();
    let legacy = Host {
        container_toolkit: Some(toolkit_version("1.17.8").unwrap()),
        runtime_mode: Some(RuntimeMode::Legacy),
        ..Host::default()
    };
    // Those about the container stack and compat packages are the hard ones; of the others some.
    let hard = |name: &str| name.contains("compat") || name.contains("require");
    let documents = documents().into_iter().enumerate().filter(|(n, (name, _))| hard(name) || n % 16 == 0);
    for (number, (name, facts)) in documents {
        let inventory = inventory::build(&facts, &catalog);
        let judge = Judge::new(&inventory, &catalog);
        let host = if number % 2 == 0 { Host::default() } else { legacy.clone() };
        let terms = select(&judge, &host, Verdict::works);
        for node in &nodes {
            let Ok(labels) =
                serde_json::from_value::<BTreeMap<String, String>>(node["metadata"]["labels"].clone())
            else {
                continue;
            };
            let Ok(fleet) = fleet::read(&node.to_string(), true, &catalog) else { continue };
            let target = fleet.targets[0].clone();
            // The container stack is no label: it is given with the export as with the check.
            let with = Host { arch: target.host.arch.clone(), ..target.host.clone() };
            let with = Host {
                container_toolkit: host.container_toolkit.clone(),
                runtime_mode: host.runtime_mode,
                ..with
            };
            let cell = matrix::target(&judge, &Target { host: with, ..target });
            let chosen = terms.iter().any(|t| fits(t, &labels));
            let at = format!("{name} on {}: {:?} {:?}", node["metadata"]["name"], cell.verdict, cell.reason);
            // Releases of GPU Feature Discovery before 0.17 have other labels for the driver.
            if !labels.contains_key(DRIVER_MAJOR) {
                assert!(!chosen, "{at}");
                continue;
            }
            // Where products of one compute capability fare differently they are named, and MIG slices have names without end.
            let named = terms.iter().flatten().any(|c| c.label == PRODUCT);
            if labels.get(PRODUCT).is_some_and(|p| named && p.contains("-MIG-")) {
                assert!(cell.works() || !chosen, "{at}");
                continue;
            }
            assert_eq!(chosen, cell.works(), "{at}");
            compared += 1;
            selected += usize::from(chosen);
        }
    }
    assert!(compared > 1_000 && selected > 200, "{selected} of {compared} selected");
}
