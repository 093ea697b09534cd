//! What hosts print, as it was reported or composed by the formats' rules -> the facts that `fixtures/hosts/expected.toml` states.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its files fails")]

use cudalint::target::nodes::{self, LeftOut};
use cudalint::target::outputs::{self, Platform, Said};
use cudalint::target::profile::KernelModule;
use std::fs;
use std::path::{Path, PathBuf};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/hosts")
}

fn samples() -> Vec<toml::Value> {
    let text = fs::read_to_string(dir().join("expected.toml")).unwrap();
    let table: toml::Table = text.parse().unwrap();
    table["sample"].as_array().unwrap().clone()
}

fn text<'t>(row: &'t toml::Value, key: &str) -> Option<&'t str> {
    row.get(key).and_then(toml::Value::as_str)
}

fn list<'t>(row: &'t toml::Value, key: &str) -> Option<Vec<&'t str>> {
    Some(row.get(key)?.as_array()?.iter().filter_map(toml::Value::as_str).collect())
}

/// `null` for what is not said.
fn compare(said: &Said, row: &toml::Value, name: &str) {
    assert_eq!(said.driver.as_deref(), text(row, "driver"), "{name}: driver");
    assert_eq!(said.cuda.as_deref(), text(row, "cuda_driver"), "{name}: CUDA version");
    let names: Vec<&str> = said.gpus.iter().map(|g| g.name.as_str()).collect();
    assert_eq!(names, list(row, "gpus").unwrap_or_default(), "{name}: GPUs");
    let cc: Vec<&str> = said.gpus.iter().filter_map(|g| g.cc.as_deref()).collect();
    assert_eq!(cc, list(row, "cc").unwrap_or_default(), "{name}: compute capability");
    let brands: Vec<&str> = said.gpus.iter().filter_map(|g| g.brand.as_deref()).collect();
    assert_eq!(brands, list(row, "brands").unwrap_or_default(), "{name}: brands");
    let known: Vec<&str> = said.gpus.iter().filter_map(|g| Some(g.known_brand?.name())).collect();
    assert_eq!(known, list(row, "lnc_brands").unwrap_or_default(), "{name}: brands of libnvidia-container");
    let mig: Vec<&str> = said.gpus.iter().flat_map(|g| g.mig.iter().map(String::as_str)).collect();
    assert_eq!(mig, list(row, "mig").unwrap_or_default(), "{name}: MIG");
    let open = said.kernel_module.map(|m| m == KernelModule::Open);
    assert_eq!(open, row.get("open_kernel_module").and_then(toml::Value::as_bool), "{name}: kernel module");
    let platform = said.platform.map(|p| match p {
        Platform::Windows => "windows",
        Platform::Wsl2 => "wsl2",
        Platform::Tegra => "tegra",
    });
    assert_eq!(platform, text(row, "platform"), "{name}: platform");
    let cut = said.gpus.iter().any(|g| g.cut);
    let cut_expected = row.get("gpu_name_truncated").and_then(toml::Value::as_bool).unwrap_or(false);
    assert_eq!(cut, cut_expected, "{name}: cut name");
    // The record names it where it is not the usual one.
    if let Some(arch) = text(row, "arch") {
        assert_eq!(said.arch.as_deref(), Some(arch), "{name}: architecture");
    }
}

#[test]
fn every_output_says_what_is_known_of_it_and_nothing_else() {
    let rows = samples();
    assert_eq!(rows.len(), 27);
    for row in rows.iter().filter(|r| text(r, "file") != Some("nodes.json")) {
        let name = text(row, "file").unwrap();
        let read = outputs::read(&fs::read_to_string(dir().join(name)).unwrap());
        match (text(row, "error"), read) {
            (Some(error), Err(said)) => {
                assert!(said.message.contains(error), "{name}: {}", said.message);
                assert!(said.hint.is_some(), "{name}: no way out");
            }
            (None, Ok(said)) => compare(&said, row, name),
            (expected, read) => panic!("{name}: expected {expected:?}, read {read:?}"),
        }
    }
}

#[test]
fn nodes_are_read_by_their_labels() {
    let nodes = nodes::read(&fs::read_to_string(dir().join("nodes.json")).unwrap(), false).unwrap();
    let rows = samples();
    let row = rows.iter().find(|r| text(r, "file") == Some("nodes.json")).unwrap();
    let profiles = row["profiles"].as_array().unwrap();
    for profile in profiles {
        let name = text(profile, "node").unwrap();
        let node = nodes.iter().find(|n| n.name == name).unwrap();
        let said = node.said.as_ref().unwrap();
        let [gpu] = said.gpus.as_slice() else { panic!("{name}: {:?}", said.gpus) };
        assert_eq!(said.driver.as_deref(), text(profile, "driver"), "{name}");
        assert_eq!(said.cuda.as_deref(), text(profile, "cuda_driver"), "{name}");
        assert_eq!(Some(gpu.name.as_str()), text(profile, "gpu"), "{name}");
        assert_eq!(gpu.cc.as_deref(), text(profile, "cc"), "{name}");
        assert_eq!(gpu.mig.first().map(String::as_str), text(profile, "mig"), "{name}");
        assert_eq!(said.arch.as_deref(), Some(text(profile, "arch").unwrap_or("amd64")), "{name}");
    }
    let left_out = |name: &str| nodes.iter().find(|n| n.name == name).unwrap().said.clone().unwrap_err();
    assert_eq!(left_out("no-gfd"), LeftOut::NoLabels);
    assert_eq!(left_out("cpu-0"), LeftOut::NoGpu);
    assert_eq!(left_out("h100-cordoned"), LeftOut::Cordoned);
    assert_eq!(nodes.len(), profiles.len() + 3);
}

#[test]
fn the_header_of_new_drivers_is_read() {
    let text =
        "| NVIDIA-SMI 615.71.09              KMD Version: 615.71.09     CUDA UMD Version: 13.4     |\n";
    let said = outputs::read(text).unwrap();
    assert_eq!((said.driver.as_deref(), said.cuda.as_deref()), (Some("615.71.09"), Some("13.4")));
    assert_eq!(said.platform, None);
}
