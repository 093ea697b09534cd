//! Facts of real Python stacks -> the same answers as their own loader and interpreter gave, and no false alarm.
//! What the files are: `fixtures/stacks/README.md`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use cudalint::catalog::Catalog;
use cudalint::facts::ImageFacts;
use cudalint::facts::links::Paths;
use cudalint::inventory::loader::Via;
use cudalint::inventory::{self, Inventory};
use cudalint::report::{Level, Report};
use cudalint::target::{Driver, Host, Target, gpu};
use cudalint::version::Version;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn unpacked(name: &str) -> Option<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stacks").join(format!("{name}.json.zst"));
    let packed = std::fs::read(path).ok()?;
    Some(zstd::stream::decode_all(packed.as_slice()).unwrap())
}

fn facts(stack: &str) -> ImageFacts {
    cudalint::facts::json::read(&unpacked(&format!("{stack}.facts")).unwrap()).unwrap()
}

fn truth(stack: &str) -> serde_json::Value {
    serde_json::from_slice(&unpacked(&format!("{stack}.truth")).unwrap()).unwrap()
}

const MEASURED: [&str; 9] = [
    "jax-cuda12-0.10.2",
    "onnxruntime-gpu-1.31.1",
    "tensorflow-2.21.0",
    "torch-1.13.1",
    "torch-2.15.0",
    "torch-2.5.1",
    "torch-2.5.1-old-nvjitlink-first",
    "torch-2.5.1-second-cudnn-first",
    "vllm-0.7.3",
];

#[test]
fn every_library_is_found_where_the_images_own_loader_finds_it() {
    let catalog = Catalog::built_in().unwrap();
    let mut compared = 0usize;
    for stack in MEASURED {
        let (facts, truth) = (facts(stack), truth(stack));
        let inventory = inventory::build(&facts, &catalog);
        let paths = Paths::of(&facts);
        for (path, libraries) in truth["loader"].as_object().unwrap() {
            let Some(file) = paths.file(path) else { continue };
            let Some(process) = inventory.processes.open(file) else { continue };
            let object = process.objects.iter().find(|o| o.file.place == file.place).unwrap();
            for load in &object.loads {
                let Some(want) = libraries.get(&load.name).and_then(|l| l.as_str()) else { continue };
                let want = (want != "not found").then(|| paths.real(want));
                let have = load.file.map(|f| f.place.path.clone());
                // The measurement opens each file alone. Where the package that imports it has loaded a library before,
                // that one is used: what was not found alone, and torch's own copy of libgomp instead of the system's.
                let by_importer =
                    load.via == Some(Via::Importer) && (want.is_none() || load.name == "libgomp.so.1");
                if have != want && by_importer {
                    continue;
                }
                assert_eq!(have, want, "{stack}: {} of {path}", load.name);
                compared += 1;
            }
        }
    }
    assert!(compared > 2500, "only {compared} libraries were compared");
}

#[test]
fn importing_torch_loads_what_the_interpreter_had_mapped() {
    let catalog = Catalog::built_in().unwrap();
    for stack in ["torch-1.13.1", "torch-2.5.1", "torch-2.15.0", "vllm-0.7.3"] {
        let (facts, truth) = (facts(stack), truth(stack));
        let inventory = inventory::build(&facts, &catalog);
        let process = inventory.processes.torch().unwrap();
        let of_stack = |path: &str| {
            const STEMS: [&str; 5] = ["libcu", "libnv", "libnccl", "libtorch", "libc10"];
            let name = path.rsplit('/').next().unwrap();
            path.contains("-packages/") && STEMS.iter().any(|s| name.starts_with(s))
        };
        let have: BTreeSet<String> = process.objects.iter().map(|o| o.file.place.path.to_string()).collect();
        let imports = truth["imports"].as_object().unwrap();
        let mapped = imports["import torch"]["mapped"].as_array().unwrap();
        let want: BTreeSet<String> =
            mapped.iter().map(|m| m.as_str().unwrap().to_owned()).filter(|m| of_stack(m)).collect();
        assert!(!want.is_empty());
        let missing: Vec<&String> = want.difference(&have).collect();
        assert!(missing.is_empty(), "{stack}: mapped, but not expected: {missing:?}");
        let extra: Vec<&String> = have.iter().filter(|p| of_stack(p) && !want.contains(*p)).collect();
        assert!(extra.is_empty(), "{stack}: expected, but not mapped: {extra:?}");
    }
}

fn judged<'a>(inventory: &'a Inventory<'a>, driver: &str, name: &str, catalog: &Catalog) -> Report<'a> {
    let target = Target {
        name: "host".to_owned(),
        driver: Some(Driver::parse(driver, catalog).unwrap()),
        gpus: vec![gpu::resolve(name, catalog).unwrap()],
        host: Host::default(),
    };
    cudalint::check(inventory, &[target], catalog, cudalint::rules::Policy::default())
}

#[test]
fn stacks_that_work_give_no_alarm_and_stacks_that_do_not_say_the_error() {
    let catalog = Catalog::built_in().unwrap();
    for (stack, driver, gpu, verdict, rules) in [
        ("torch-1.13.1", "470.82.01", "a100", "runs", &[][..]),
        ("torch-2.5.1", "535.183.01", "h100", "runs", &[]),
        ("torch-2.5.1", "550.54.15", "l4", "runs", &[]),
        ("torch-2.15.0", "580.65.06", "h100", "runs", &[]),
        ("vllm-0.7.3", "550.54.15", "a100", "runs", &[]),
        ("vllm-0.7.3", "580.65.06", "h100", "runs", &[]),
        ("jax-cuda12-0.10.2", "580.65.06", "h100", "runs", &[]),
        ("onnxruntime-gpu-1.31.1", "580.65.06", "h100", "runs", &[]),
        ("tensorflow-2.20.0", "580.65.06", "l4", "runs", &[]),
        ("tensorflow-2.21.0", "580.65.06", "l4", "fails", &["tensorflow-libraries-missing"]),
        ("torch-2.5.1-old-nvjitlink-first", "550.54.15", "l4", "fails", &["undefined-symbol"]),
        ("torch-2.5.1-second-cudnn-first", "550.54.15", "l4", "degraded", &["cudnn-mixed"]),
    ] {
        let facts = facts(stack);
        let inventory = inventory::build(&facts, &catalog);
        let report = judged(&inventory, driver, gpu, &catalog);
        let loud = report.findings.iter().filter(|f| f.finding.level > Level::Note);
        let mut names: Vec<&str> = loud.map(|f| f.finding.rule.name).collect();
        names.dedup();
        assert_eq!(names, rules, "{stack} on {driver} with {gpu}");
        assert_eq!(report.targets[0].verdict.name(), verdict, "{stack} on {driver} with {gpu}");
    }
}

#[test]
fn the_predicted_import_error_is_the_one_that_was_raised() {
    let stack = "torch-2.5.1-old-nvjitlink-first";
    let catalog = Catalog::built_in().unwrap();
    let facts = facts(stack);
    let inventory = inventory::build(&facts, &catalog);
    let report = judged(&inventory, "550.54.15", "l4", &catalog);
    let error = report.findings[0].finding.runtime_error.as_ref().unwrap();
    let raised = truth(stack);
    let raised = raised["imports"]["import torch"]["error"].as_str().unwrap().to_owned();
    // The loader prints the path as it was put together from the search path.
    let text = raised.split_once("/torch/lib/../../").map(|(front, back)| format!("{front}/{back}")).unwrap();
    assert_eq!(error.text, text);
    assert!(error.text.ends_with("undefined symbol: __nvJitLinkComplete_12_4, version libnvJitLink.so.12"));
}

#[test]
fn versions_from_bytes_are_what_the_libraries_answer() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stacks/versions.json");
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let catalog = Catalog::built_in().unwrap();
    let mut compared: BTreeMap<String, usize> = BTreeMap::new();
    for row in &rows {
        let elf = cudalint::facts::ElfFacts {
            version_numbers: serde_json::from_value(row["version_numbers"].clone()).unwrap(),
            version_texts: serde_json::from_value(row["version_texts"].clone()).unwrap(),
            ..cudalint::facts::ElfFacts::default()
        };
        let file = row["file"].as_str().unwrap();
        let Some(component) = catalog.component_of(file) else { continue };
        let stated = match row["cudart"].as_u64().filter(|_| component.component == "cudart") {
            Some(code) => Some(Version::from_cuda_code(u32::try_from(code).unwrap())),
            None => inventory::versions::stated(&component.component, &elf).map(|s| s.version),
        };
        let Some(stated) = stated else { continue };
        let asked = row["asked"].as_object().unwrap();
        let own =
            asked.iter().filter(|(name, _)| !name.contains("Cudart") || component.component == "cudart");
        for (function, said) in own {
            let Some(said) = said["version"].as_str().and_then(Version::leading) else { continue };
            assert!(
                said.agrees_with(&stated),
                "{file} of {}: {function} says {said}, its bytes {stated}",
                row["wheel"]
            );
            *compared.entry(component.component.clone()).or_default() += 1;
        }
    }
    for component in [
        "cudart",
        "cublaslt",
        "cudnn",
        "nccl",
        "cufft",
        "curand",
        "cusolver",
        "cusparse",
        "cusparselt",
        "cutensor",
        "nvrtc",
        "nvjitlink",
        "nvshmem",
    ] {
        assert!(
            compared.get(component).is_some_and(|n| *n >= 2),
            "{component} was not compared twice: {compared:?}"
        );
    }
}
