//! The matrix says of every host what a single check says of it, and a newer driver never breaks what an older one runs, but
//! for the exceptions that are named here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use cudalint::catalog::Catalog;
use cudalint::facts::{self, ImageFacts};
use cudalint::inventory;
use cudalint::matrix::{self, Axes, Cell};
use cudalint::report::{Level, Verdict};
use cudalint::rules::Judge;
use cudalint::target::profile::{RuntimeMode, toolkit_version};
use cudalint::target::{Driver, Gpu, Host, cross, resolve_gpu};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Every facts document of the repository, with its name.
fn documents() -> Vec<(String, ImageFacts)> {
    let mut out = Vec::new();
    for dir in ["fixtures/facts", "fixtures/stacks"] {
        for entry in std::fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(dir)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let bytes = std::fs::read(&path).unwrap();
            let bytes = match name.ends_with(".facts.json.zst") {
                true => zstd::decode_all(bytes.as_slice()).unwrap(),
                false if dir == "fixtures/facts" => bytes,
                false => continue,
            };
            let name =
                name.trim_end_matches(".zst").trim_end_matches(".json").trim_end_matches(".facts").to_owned();
            out.push((name, facts::json::read(&bytes).unwrap()));
        }
    }
    assert!(out.len() > 100, "only {} documents", out.len());
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

fn gpus(names: &[&str], catalog: &Catalog) -> Vec<Gpu> {
    names.iter().map(|n| resolve_gpu(n, catalog).unwrap()).collect()
}

fn drivers(names: &[&str], catalog: &Catalog) -> Vec<Driver> {
    names.iter().map(|n| Driver::parse(n, catalog).unwrap()).collect()
}

fn hosts() -> Vec<Host> {
    let legacy = Host {
        container_toolkit: Some(toolkit_version("1.17.8").unwrap()),
        runtime_mode: Some(RuntimeMode::Legacy),
        ..Host::default()
    };
    vec![Host::default(), legacy]
}

#[test]
fn a_cell_equals_the_single_check() {
    let catalog = Catalog::built_in().unwrap();
    let drivers =
        drivers(&["390", "470", "525.60.13", "535", "550.54.14", "540.4.0", "580", "615", "700.1"], &catalog);
    let gpus =
        gpus(&["k80", "v100", "t4", "a100", "rtx4090", "h100", "gh200", "orin", "thor", "b200"], &catalog);
    let mut compared = 0;
    for (number, (name, facts)) in documents().into_iter().enumerate() {
        let inventory = inventory::build(&facts, &catalog);
        // A check by itself costs a hundred times what it costs in a matrix: each document has its turn of some hosts.
        let drivers: Vec<Driver> = drivers.iter().cloned().cycle().skip(number).step_by(2).take(2).collect();
        let gpus: Vec<Gpu> = gpus.iter().cloned().cycle().skip(number).take(4).collect();
        for host in hosts().into_iter().skip(number % 2).take(1) {
            let axes = Axes { drivers: drivers.clone(), gpus: gpus.clone(), host: host.clone() };
            let matrix = matrix::matrix(&Judge::new(&inventory, &catalog), &axes);
            for (gpu, row) in gpus.iter().zip(&matrix.rows) {
                for (driver, cell) in drivers.iter().zip(row) {
                    // Each check alone: nothing of it is known from the one before.
                    let target = cross(vec![driver.clone()], vec![gpu.clone()], &host);
                    let report =
                        cudalint::check(&inventory, &target, &catalog, cudalint::rules::Policy::default());
                    let verdict = &report.targets[0];
                    let at = format!("{name}, {} on {}", gpu.typed, driver.text);
                    assert_eq!((cell.verdict, &cell.how), (verdict.verdict, &verdict.how), "{at}");
                    let mut rules: Vec<&str> = Vec::new();
                    for finding in &report.findings {
                        let code = finding.finding.rule.code;
                        assert!(finding.finding.level > Level::Pass);
                        if !rules.contains(&code) {
                            rules.push(code);
                        }
                    }
                    assert_eq!(cell.rules.iter().map(|r| r.code).collect::<Vec<_>>(), rules, "{at}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 1_000, "only {compared} compared");
}

/// Why a newer driver may break what an older one runs: the rule, and a document that shows it on an H100 or V100 with the
/// driver that runs it and the newer one that does not. All on hosts with container toolkit 1.17.8 in legacy mode.
const EXCEPTIONS: &[(&str, &str, &str, &str, &str)] = &[
    // The branch no longer supports the GPU.
    ("gpu-dropped-by-driver", "torch-2.5.1", "v100", "580", "590"),
    // The image puts a compat library of an older branch before the host's own.
    ("compat-older-than-driver", "compat-on-ld-library-path", "h100", "525", "545"),
    // A compat package lists the host branches that it works on; the new-feature branches between them are not listed.
    ("forward-compatibility-unusable", "compat-13.1-with-note", "h100", "535", "545"),
    // The same, where NVIDIA's entry point tries it and leaves it.
    ("driver-too-old", "compat-by-entry-point", "h100", "535", "545"),
    // NVIDIA_REQUIRE_CUDA names old branches one by one.
    ("requirement-not-met", "require-counts-on-compat", "h100", "525", "530"),
];

#[test]
fn a_newer_driver_breaks_nothing_but_by_the_named_exceptions() {
    let catalog = Catalog::built_in().unwrap();
    let all = matrix::drivers(&["all".to_owned()], "2026-11-20", &catalog).unwrap();
    let gpus = gpus(&["k80", "v100", "t4", "a100", "rtx4090", "l4", "h100", "b200", "rtx5090"], &catalog);
    let mut seen: BTreeSet<(&str, String)> = BTreeSet::new();
    let mut shown: BTreeSet<&str> = BTreeSet::new();
    for (name, facts) in documents() {
        let inventory = inventory::build(&facts, &catalog);
        let axes = Axes { drivers: all.clone(), gpus: gpus.clone(), host: hosts().remove(1) };
        let matrix = matrix::matrix(&Judge::new(&inventory, &catalog), &axes);
        for (gpu, row) in gpus.iter().zip(&matrix.rows) {
            let of = |driver: &str| all.iter().zip(row).find(|(d, _)| d.text == driver).map(|(_, c)| c);
            for (rule, document, product, runs, fails) in EXCEPTIONS {
                if *document == name && *product == gpu.typed {
                    assert_eq!(of(runs).unwrap().verdict, Verdict::Runs, "{document} on {runs}");
                    let broken = of(fails).unwrap();
                    assert_eq!(broken.verdict, Verdict::Fails, "{document} on {fails}");
                    assert_eq!(broken.reason.as_ref().unwrap().rule.name, *rule, "{document} on {fails}");
                    shown.insert(rule);
                }
            }
            for (index, cell) in row.iter().enumerate() {
                let ran = row[..index].iter().any(|c: &Cell| c.verdict == Verdict::Runs);
                if cell.verdict == Verdict::Fails && ran {
                    seen.insert((cell.reason.as_ref().unwrap().rule.name, name.clone()));
                }
            }
        }
    }
    let named: BTreeSet<&str> = EXCEPTIONS.iter().map(|(rule, ..)| *rule).collect();
    assert_eq!(shown, named, "an exception without its document");
    let rules: BTreeSet<&str> = seen.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(rules, named, "{seen:#?}");
}
