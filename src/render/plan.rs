//! [`Plan`] -> text and JSON: what runs where, and what to change in which order.

use super::style::{Style, safe};
use crate::facts::json::{ImageJson, image_json};
use crate::inventory::Inventory;
use crate::plan::{Plan, Step};
use crate::report::Verdict;
use crate::target::Target;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::Write as _;

pub const SCHEMA_VERSION: u32 = 1;

/// Reasons of one rebuild that are written out.
const REASONS_SHOWN: usize = 4;

#[derive(Serialize, JsonSchema)]
pub struct PlanJson {
    pub schema_version: u32,
    pub images: Vec<ImageJson>,
    pub targets: Vec<TargetJson>,
    /// As it is now.
    pub now: Vec<PairJson>,
    /// In the order in which it is safe.
    pub steps: Vec<StepJson>,
    /// Pairs whose verdict is unknown: nothing is planned for them.
    pub undecided: Vec<PairJson>,
}

#[derive(Serialize, JsonSchema)]
pub struct TargetJson {
    pub name: String,
    pub driver: Option<String>,
    pub count: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub struct PairJson {
    pub image: String,
    pub target: String,
    pub verdict: &'static str,
    pub rules: Vec<&'static str>,
    pub reason: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct StepJson {
    /// `rebuild-image`, `raise-driver`, `lower-driver`, `change-setting` or `keep-off`.
    pub action: &'static str,
    pub images: Vec<String>,
    pub targets: Vec<String>,
    /// The driver branch to bring onto the hosts, and the lowest that would do.
    pub driver: Option<String>,
    pub lowest_driver: Option<String>,
    /// Images that run now and not with that driver: they come first.
    pub breaks: Vec<String>,
    pub how: Vec<String>,
}

/// Images and hosts that a plan speaks of by number.
pub struct Named<'a> {
    pub inventories: &'a [Inventory<'a>],
    pub targets: &'a [Target],
}

impl Named<'_> {
    fn image(&self, index: usize) -> String {
        self.inventories.get(index).map(|i| i.facts.image.reference.clone()).unwrap_or_default()
    }

    fn target(&self, index: usize) -> String {
        self.targets.get(index).map(|t| t.name.clone()).unwrap_or_default()
    }

    fn images(&self, all: &[usize]) -> Vec<String> {
        all.iter().map(|i| self.image(*i)).collect()
    }

    fn names(&self, all: &[usize]) -> Vec<String> {
        all.iter().map(|t| self.target(*t)).collect()
    }

    /// `train-pool (12 nodes)`.
    fn pool(&self, index: usize) -> String {
        let count = self.targets.get(index).and_then(|t| t.host.count);
        match count {
            Some(1) => format!("{} (1 node)", self.target(index)),
            Some(n) => format!("{} ({n} nodes)", self.target(index)),
            None => self.target(index),
        }
    }
}

pub fn json(plan: &Plan, named: &Named) -> PlanJson {
    let pair = |image: usize, target: usize| {
        let cell = plan.cells.get(image).and_then(|r| r.get(target));
        PairJson {
            image: named.image(image),
            target: named.target(target),
            verdict: cell.map_or("unknown", |c| c.verdict.name()),
            rules: cell.map(|c| c.rules.iter().map(|r| r.code).collect()).unwrap_or_default(),
            reason: cell.and_then(|c| c.reason.as_ref()).map(|r| r.headline.clone()),
        }
    };
    let pairs = plan.cells.iter().enumerate().flat_map(|(i, row)| (0..row.len()).map(move |t| (i, t)));
    PlanJson {
        schema_version: SCHEMA_VERSION,
        images: named.inventories.iter().map(|i| image_json(&i.facts.image)).collect(),
        targets: named
            .targets
            .iter()
            .map(|t| TargetJson {
                name: t.name.clone(),
                driver: t.driver.as_ref().map(|d| d.text.clone()),
                count: t.host.count,
            })
            .collect(),
        now: pairs.map(|(i, t)| pair(i, t)).collect(),
        steps: plan.steps.iter().map(|s| step(s, named)).collect(),
        undecided: plan.undecided.iter().map(|(i, t)| pair(*i, *t)).collect(),
    }
}

fn step(step: &Step, named: &Named) -> StepJson {
    let empty = StepJson {
        action: "keep-off",
        images: Vec::new(),
        targets: Vec::new(),
        driver: None,
        lowest_driver: None,
        breaks: Vec::new(),
        how: Vec::new(),
    };
    match step {
        Step::Rebuild { image, targets, how } => StepJson {
            action: "rebuild-image",
            images: vec![named.image(*image)],
            targets: named.names(targets),
            how: how.clone(),
            ..empty
        },
        Step::Driver { target, to, lowest, older, images, after } => StepJson {
            action: if *older { "lower-driver" } else { "raise-driver" },
            images: named.images(images),
            targets: vec![named.target(*target)],
            driver: Some(to.clone()),
            lowest_driver: Some(lowest.clone()),
            breaks: named.images(after),
            ..empty
        },
        Step::Setting { target, images, how } => StepJson {
            action: "change-setting",
            images: named.images(images),
            targets: vec![named.target(*target)],
            how: how.clone(),
            ..empty
        },
        Step::KeepOff { image, targets, why } => StepJson {
            images: vec![named.image(*image)],
            targets: named.names(targets),
            how: vec![why.clone()],
            ..empty
        },
    }
}

/// What a person reads.
pub fn text(plan: &Plan, named: &Named, style: Style) -> String {
    let all: Vec<&crate::matrix::Cell> = plan.cells.iter().flatten().collect();
    let runs = all.iter().filter(|c| c.works()).count();
    let fails = all.iter().filter(|c| c.verdict == Verdict::Fails).count();
    let without = all.iter().filter(|c| c.verdict == Verdict::NoGpuCode).count();
    let nodes: u64 = named.targets.iter().map(|t| t.host.count.unwrap_or(1)).fold(0, u64::saturating_add);
    let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let mut out = format!(
        "{} on {} ({nodes} {}): {runs} of {} run, {fails} fail",
        count(named.inventories.len(), "image", "images"),
        count(named.targets.len(), "kind of host", "kinds of host"),
        if nodes == 1 { "host" } else { "hosts" },
        count(all.len(), "pair", "pairs"),
    );
    if !plan.undecided.is_empty() {
        let _ = write!(out, ", {} unknown", plan.undecided.len());
    }
    if without > 0 {
        let _ = write!(out, ", {without} without GPU code");
    }
    out.push_str(".\n");
    for (index, step) in plan.steps.iter().enumerate() {
        let _ = write!(out, "\n{}. {}", index + 1, text_of(step, named, style));
    }
    if !plan.undecided.is_empty() {
        let _ = writeln!(out, "\n{}", style.bold("not decided: a fact is missing"));
        for (image, target) in &plan.undecided {
            let cell = plan.cells.get(*image).and_then(|r| r.get(*target));
            let reason = cell.and_then(|c| c.reason.as_ref());
            let why = reason.map_or_else(String::new, |r| format!(": {} {}", r.rule.code, r.headline));
            let _ = writeln!(
                out,
                "  {} on {}{}",
                safe(&named.image(*image)),
                safe(&named.target(*target)),
                safe(&why)
            );
        }
    }
    if plan.steps.is_empty() && fails == 0 && plan.undecided.is_empty() {
        out.push_str("Nothing to change.\n");
    }
    out
}

fn text_of(step: &Step, named: &Named, style: Style) -> String {
    let list = |names: Vec<String>| safe(&names.join(", "));
    let mut out = String::new();
    match step {
        Step::Driver { target, to, lowest, older, images, after } => {
            let from = named.targets.get(*target).and_then(|t| t.driver.as_ref()).map(|d| d.text.clone());
            let word = if *older { "lower" } else { "raise" };
            let claim = format!(
                "{word} the driver of {} from {} to {to}",
                named.pool(*target),
                from.unwrap_or_default()
            );
            let _ = writeln!(out, "{}", style.bold(&safe(&claim)));
            if lowest != to {
                let _ = writeln!(out, "     {lowest} would do too, but is no branch under support");
            }
            let _ = writeln!(out, "     for {}", list(named.images(images)));
            if !after.is_empty() {
                let _ = writeln!(
                    out,
                    "     first replace, as it stops running there: {}",
                    list(named.images(after))
                );
            }
        }
        Step::Rebuild { image, targets, how } => {
            let _ = writeln!(out, "{}", style.bold(&safe(&format!("rebuild {}", named.image(*image)))));
            let pools: Vec<String> = targets.iter().map(|t| named.pool(*t)).collect();
            let _ = writeln!(out, "     for {}", list(pools));
            for reason in how.iter().take(REASONS_SHOWN) {
                let _ = writeln!(out, "     {}", safe(reason));
            }
            if how.len() > REASONS_SHOWN {
                let _ = writeln!(out, "     and {} more reasons (-f json)", how.len() - REASONS_SHOWN);
            }
            let _ = writeln!(out, "     or keep it off these hosts");
        }
        Step::Setting { target, images, how } => {
            let _ = writeln!(out, "{}", style.bold(&safe(&format!("change {}", named.pool(*target)))));
            for reason in how {
                let _ = writeln!(out, "     {}", safe(reason));
            }
            let _ = writeln!(out, "     for {}", list(named.images(images)));
        }
        Step::KeepOff { image, targets, why } => {
            let claim = format!("keep {} off {}", named.image(*image), named.names(targets).join(", "));
            let _ = writeln!(out, "{}", style.bold(&safe(&claim)));
            let _ = writeln!(out, "     neither another driver nor another build mends it: {}", safe(why));
        }
    }
    out
}
