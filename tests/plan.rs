//! What a plan proposes for images and hosts, and that its drivers do what it says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use cudalint::catalog::Catalog;
use cudalint::facts::{self, ImageFacts};
use cudalint::inventory::{self, Inventory};
use cudalint::matrix;
use cudalint::plan::{Plan, Step, plan};
use cudalint::rules::Judge;
use cudalint::target::{Driver, Target, fleet};
use std::path::PathBuf;

const DAY: &str = "2026-11-20";

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)).unwrap()
}

fn documents(names: &[&str]) -> Vec<ImageFacts> {
    names.iter().map(|n| facts::json::read(&fixture(&format!("facts/{n}.json"))).unwrap()).collect()
}

fn hosts(text: &str, catalog: &Catalog) -> Vec<Target> {
    fleet::read(text, false, catalog).unwrap().targets
}

/// A targets file of (name, driver, GPU) and more lines.
fn file(rows: &[(&str, &str, &str, &str)]) -> String {
    let row = |(name, driver, gpu, more): &(&str, &str, &str, &str)| {
        format!("[[target]]\nname = \"{name}\"\ndriver = \"{driver}\"\ngpus = [\"{gpu}\"]\n{more}\n")
    };
    rows.iter().map(row).collect()
}

fn planned(images: &[&str], text: &str) -> Plan {
    let catalog = Catalog::built_in().unwrap();
    let documents = documents(images);
    let inventories: Vec<Inventory> = documents.iter().map(|d| inventory::build(d, &catalog)).collect();
    let judges: Vec<Judge> = inventories.iter().map(|i| Judge::new(i, &catalog)).collect();
    plan(&judges, &hosts(text, &catalog), DAY)
}

/// `driver 580 for 0`, `rebuild 0 for [1]`, one per step.
fn steps(plan: &Plan) -> Vec<String> {
    let text = |step: &Step| match step {
        Step::Driver { target, to, .. } => format!("driver {to} for {target}"),
        Step::Rebuild { image, targets, .. } => format!("rebuild {image} for {targets:?}"),
        Step::Setting { target, .. } => format!("setting for {target}"),
        Step::KeepOff { image, targets, .. } => format!("keep {image} off {targets:?}"),
    };
    plan.steps.iter().map(text).collect()
}

#[test]
fn a_gpu_that_the_driver_does_not_know_asks_for_a_driver_and_no_build() {
    let plan = planned(&["torch-2.5.1"], &file(&[("a", "470", "h100", ""), ("b", "470", "h200", "")]));
    assert_eq!(steps(&plan), ["driver 580 for 0", "driver 580 for 1"]);
}

#[test]
fn a_new_gpu_may_ask_for_driver_and_build() {
    let plan = planned(&["torch-2.5.1"], &file(&[("a", "565", "b200", "")]));
    assert_eq!(steps(&plan), ["rebuild 0 for [0]", "driver 580 for 0"]);
}

#[test]
fn a_build_for_a_new_gpu_is_no_build_for_an_old_driver() {
    let plan = planned(&["torch-2.5.1"], &file(&[("old", "455", "a100", ""), ("new", "580", "rtx5090", "")]));
    assert_eq!(steps(&plan), ["rebuild 0 for [1]", "driver 580 for 0"]);
}

#[test]
fn a_setting_of_the_host_is_no_reason_to_build() {
    let host = file(&[("a", "580", "h100", "gpu_request = \"nobody\"")]);
    assert_eq!(steps(&planned(&["torch-2.5.1"], &host)), ["setting for 0"]);
    let host = file(&[("a", "550", "v100", "kernel_module = \"open\"")]);
    assert_eq!(steps(&planned(&["torch-2.5.1"], &host)), ["setting for 0"]);
}

#[test]
fn one_image_on_many_hosts_is_built_anew_and_many_images_on_one_host_get_a_driver() {
    let many = file(&[("a", "470", "a100", ""), ("b", "470", "t4", "")]);
    assert_eq!(steps(&planned(&["torch-2.5.1"], &many)), ["rebuild 0 for [0, 1]"]);
    let one = file(&[("a", "470", "a100", "")]);
    assert_eq!(steps(&planned(&["torch-2.5.1", "cuda-12.4-plain"], &one)), ["driver 580 for 0"]);
}

#[test]
fn where_nothing_fails_nothing_is_planned() {
    let plan = planned(&["torch-2.5.1", "cpu-only"], &file(&[("a", "550", "h100", "")]));
    assert!(plan.steps.is_empty() && plan.undecided.is_empty());
}

#[test]
fn with_its_new_driver_a_host_runs_what_the_plan_says() {
    let catalog = Catalog::built_in().unwrap();
    let names =
        ["torch-2.5.1", "cuda-12.8-blackwell", "cuda-11.8-before-12.4", "compat-13.1-with-note", "sm80-only"];
    let documents = documents(&names);
    let inventories: Vec<Inventory> = documents.iter().map(|d| inventory::build(d, &catalog)).collect();
    let judges: Vec<Judge> = inventories.iter().map(|i| Judge::new(i, &catalog)).collect();
    let nodes = String::from_utf8(fixture("hosts/nodes.json")).unwrap();
    let mut hosts = hosts(&nodes, &catalog);
    hosts.extend(self::hosts(
        &file(&[("x", "470", "h100", ""), ("y", "590", "v100", ""), ("z", "550", "b200", "")]),
        &catalog,
    ));
    let plan = plan(&judges, &hosts, DAY);
    let rebuilt = |image: usize, host: usize| {
        plan.steps.iter().any(|s| matches!(s, Step::Rebuild { image: i, targets, .. } if *i == image && targets.contains(&host)))
    };
    let mut changed = 0;
    for step in &plan.steps {
        let Step::Driver { target, to, images, after, .. } = step else { continue };
        let with = Target { driver: Some(Driver::parse(to, &catalog).unwrap()), ..hosts[*target].clone() };
        assert!(!images.is_empty(), "a driver for nothing");
        for (image, judge) in judges.iter().enumerate() {
            let now = matrix::target(judge, &hosts[*target]);
            let then = matrix::target(judge, &with);
            if images.contains(&image) && !rebuilt(image, *target) {
                assert!(then.works(), "{} on {} with {to}: {:?}", names[image], with.name, then.reason);
            }
            assert_eq!(
                now.works() && !then.works(),
                after.contains(&image),
                "{} on {}",
                names[image],
                with.name
            );
        }
        changed += 1;
    }
    assert!(changed > 1, "{:?}", steps(&plan));
}
