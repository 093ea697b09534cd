//! Inventories of several images -> what differs in their stacks, which hosts fare differently, and what must agree where the
//! images run in one distributed job.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::inventory::components::nccl_inside;
use crate::inventory::{Component, ComponentKind, Inventory, Linkage};
use crate::matrix::Cell;
use crate::report::Level;
use crate::rules::Judge;
use crate::target::Target;
use crate::version::Version;
use std::collections::BTreeSet;

/// One line of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// `cuDNN`, `lowest driver`, `GPU code`.
    pub subject: String,
    /// As each image has it, in their order; `None` where it has none.
    pub values: Vec<Option<String>>,
    /// How the last image differs from the first.
    pub change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Same,
    Added,
    Removed,
    Newer,
    Older,
    Changed,
}

impl Change {
    pub fn name(self) -> &'static str {
        match self {
            Change::Same => "same",
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Newer => "newer",
            Change::Older => "older",
            Change::Changed => "changed",
        }
    }
}

/// Machine code and PTX that one image has and another lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Architectures {
    pub gained: Vec<String>,
    pub dropped: Vec<String>,
}

/// A host on which the images fare differently.
#[derive(Clone, Debug)]
pub struct Flip {
    pub target: String,
    /// Of each image.
    pub cells: Vec<Cell>,
}

/// Something that the images of one job do not agree in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub subject: &'static str,
    pub values: Vec<Option<String>>,
    pub level: Level,
    pub message: String,
    /// What a rank prints.
    pub error: Option<String>,
    pub remedy: String,
}

/// What is said of several images.
pub struct Comparison<'a> {
    pub inventories: Vec<&'a Inventory<'a>>,
    /// All rows, those without difference too.
    pub rows: Vec<Row>,
    /// Between the first and the last image.
    pub architectures: Architectures,
    pub targets: usize,
    pub flips: Vec<Flip>,
    /// Only where the images are to run in one job.
    pub job: Option<Vec<Mismatch>>,
}

/// Compares the images of the judges on the targets.
pub fn compare<'a>(judges: &[Judge<'a>], targets: &[Target], job: bool) -> Comparison<'a> {
    let inventories: Vec<&Inventory> = judges.iter().map(Judge::inventory).collect();
    let mut rows = components(&inventories);
    rows.extend(whole(&inventories));
    let flips = targets.iter().filter_map(|t| flip(judges, t)).collect();
    let job = job.then(|| mismatches(&inventories));
    let architectures = architectures(&inventories);
    Comparison { inventories, rows, architectures, targets: targets.len(), flips, job }
}

fn components(inventories: &[&Inventory]) -> Vec<Row> {
    let mut names: BTreeSet<(ComponentKind, &str)> = BTreeSet::new();
    for inventory in inventories {
        names.extend(inventory.components.iter().map(|c| (c.kind, c.display.as_str())));
    }
    let row = |(kind, name): (ComponentKind, &str)| {
        let of =
            |i: &&Inventory| versions(i.components.iter().filter(|c| c.kind == kind && c.display == name));
        row_of(name, inventories.iter().map(of).collect())
    };
    names.into_iter().map(row).collect()
}

/// The versions of one component: what programs load, where that is known.
fn versions<'c>(components: impl Iterator<Item = &'c Component>) -> Option<String> {
    let all: Vec<&Component> = components.collect();
    let loaded: Vec<&&Component> = all.iter().filter(|c| c.reachable == Some(true)).collect();
    let counted: Vec<&Component> =
        if loaded.is_empty() { all } else { loaded.into_iter().copied().collect() };
    let text = |c: &&Component| {
        let version = c.version.clone().unwrap_or_else(|| "of unknown version".to_owned());
        if c.linkage == Some(Linkage::Static) { format!("{version} (static)") } else { version }
    };
    let versions: BTreeSet<(Option<Version>, String)> =
        counted.iter().map(|c| (c.version.as_deref().and_then(Version::leading), text(c))).collect();
    // Newest first: that one is compared.
    (!versions.is_empty()).then(|| versions.into_iter().rev().map(|(_, t)| t).collect::<Vec<_>>().join(", "))
}

fn row_of(subject: &str, values: Vec<Option<String>>) -> Row {
    let leading = |v: &str| Version::leading(v);
    let change = match (values.first().and_then(Option::as_ref), values.last().and_then(Option::as_ref)) {
        _ if values.iter().all(|v| Some(v) == values.first()) => Change::Same,
        (None, Some(_)) => Change::Added,
        (Some(_), None) => Change::Removed,
        (Some(a), Some(b)) => match (leading(a), leading(b)) {
            (Some(a), Some(b)) if a < b => Change::Newer,
            (Some(a), Some(b)) if a > b => Change::Older,
            _ => Change::Changed,
        },
        (None, None) => Change::Changed,
    };
    Row { subject: subject.to_owned(), values, change }
}

/// What is true of the image as a whole.
fn whole(inventories: &[&Inventory]) -> Vec<Row> {
    type Of = fn(&Inventory) -> Option<String>;
    let subjects: [(&str, Of); 6] = [
        ("platform", |i| Some(i.facts.image.platform.to_string()).filter(|p| p != "/")),
        ("lowest driver", |i| i.requirements.min_driver.as_ref().map(ToString::to_string)),
        ("driver for every feature", |i| i.requirements.full_driver.as_ref().map(ToString::to_string)),
        ("machine code", |i| listed(&i.requirements.native)),
        ("PTX", |i| listed(&i.requirements.jit_from)),
        ("NVIDIA_REQUIRE_CUDA", |i| i.facts.image.config.env("NVIDIA_REQUIRE_CUDA").map(str::to_owned)),
    ];
    subjects.iter().map(|(name, of)| row_of(name, inventories.iter().map(|i| of(i)).collect())).collect()
}

fn listed(names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| names.join(" "))
}

/// Bytes of GPU code in the image.
pub fn code_bytes(inventory: &Inventory) -> u64 {
    let files = inventory.facts.files.iter().filter_map(|f| f.device_code.as_ref());
    files.fold(0, |sum, c| sum.saturating_add(c.bytes))
}

fn architectures(inventories: &[&Inventory]) -> Architectures {
    let of = |i: &&Inventory| -> Vec<String> {
        i.requirements.native.iter().chain(&i.requirements.jit_from).cloned().collect()
    };
    let (first, last) =
        (inventories.first().map(of).unwrap_or_default(), inventories.last().map(of).unwrap_or_default());
    let without = |a: &[String], b: &[String]| a.iter().filter(|x| !b.contains(x)).cloned().collect();
    Architectures { gained: without(&last, &first), dropped: without(&first, &last) }
}

/// The worst cell of each image over the GPUs of a target, where the images differ.
fn flip(judges: &[Judge], target: &Target) -> Option<Flip> {
    let cells: Vec<Cell> = judges.iter().map(|j| crate::matrix::target(j, target)).collect();
    let same = cells.windows(2).all(|pair| matches!(pair, [a, b] if a.verdict == b.verdict));
    (!same).then(|| Flip { target: target.name.clone(), cells })
}

/// From this release on every rank tells the others its version, and a difference ends the job.
const NCCL_COMPARES: [u64; 3] = [2, 23, 4];

/// What must agree among the ranks of one job, worst first.
fn mismatches(inventories: &[&Inventory]) -> Vec<Mismatch> {
    let mut out = Vec::new();
    let nccl: Vec<Option<Version>> = inventories.iter().map(|i| loaded_nccl(i)).collect();
    out.extend(nccl_mismatch(&nccl));
    let of_family = |name: &str| -> Vec<Option<String>> {
        inventories.iter().map(|i| i.family(name).next().map(|f| f.version_text.clone())).collect()
    };
    for (subject, what) in [
        (
            "torch",
            "ranks of different releases disagree in what they send: collectives may differ, checkpoints and pickled objects may not load",
        ),
        (
            "jax",
            "JAX compiles the same program on every host and compares it: different releases make different programs",
        ),
        ("tensorflow", "workers of different releases may not understand each other's graphs"),
    ] {
        out.extend(should_agree(subject, of_family(subject), what));
    }
    let by_name = |name: &str| -> Vec<Option<String>> {
        inventories.iter().map(|i| versions(i.components.iter().filter(|c| c.component == name))).collect()
    };
    out.extend(should_agree(
        "NVSHMEM",
        by_name("nvshmem"),
        "its host and device parts must be of one release on all ranks",
    ));
    let cuda: Vec<Option<String>> = inventories
        .iter()
        .map(|i| i.runtimes.iter().filter_map(|r| r.version.major()).max().map(|m| format!("CUDA {m}")))
        .collect();
    out.extend(should_agree("CUDA major", cuda, "hosts of one job then need different drivers"));
    let platforms = inventories.iter().map(|i| Some(i.facts.image.platform.to_string())).collect();
    out.extend(should_agree(
        "platform",
        platforms,
        "results may differ between processors, and objects pickled on one may not load on the other",
    ));
    out.sort_by_key(|m| std::cmp::Reverse(m.level));
    out
}

/// The NCCL that ranks load: torch's own where it is linked in, else the library.
fn loaded_nccl(inventory: &Inventory) -> Option<Version> {
    if let Some(text) = inventory.facts.files.iter().find_map(nccl_inside) {
        return Version::leading(text);
    }
    let libraries = || inventory.components.iter().filter(|c| c.component == "nccl");
    let loaded = libraries().find(|c| c.reachable == Some(true)).or_else(|| libraries().next())?;
    Version::leading(loaded.version.as_deref()?)
}

fn nccl_mismatch(versions: &[Option<Version>]) -> Option<Mismatch> {
    let known: Vec<&Version> = versions.iter().flatten().collect();
    let first = known.first()?;
    let part = |v: &Version| [v.part(0), v.part(1), v.part(2)];
    let other = known.iter().find(|v| part(v) != part(first));
    let values = versions.iter().map(|v| v.as_ref().map(ToString::to_string)).collect();
    if other.is_none() && known.len() < versions.len() {
        return Some(Mismatch {
            subject: "NCCL",
            values,
            level: Level::Error,
            message: "not every image has NCCL: its ranks cannot join".to_owned(),
            error: None,
            remedy: format!("install NCCL {first} in the images without it"),
        });
    }
    let other = other?;
    // NCCL numbers 2.9 and newer as major × 10000 + minor × 100 + patch.
    let number = |v: &Version| v.part(0) * 10_000 + v.part(1) * 100 + v.part(2);
    let compares = known.iter().all(|v| part(v) >= NCCL_COMPARES);
    let newest = known.iter().max().unwrap_or(first);
    Some(Mismatch {
        subject: "NCCL",
        values,
        level: if compares { Level::Error } else { Level::Warning },
        message: match compares {
            true => "ranks compare their NCCL versions and stop where they differ".to_owned(),
            false => "ranks of different NCCL versions may run, hang or fail later: before 2.23.4 nothing compares them"
                .to_owned(),
        },
        error: compares.then(|| {
            format!("Mismatched NCCL version detected : rank 0 version {} rank 1 version {}", number(first), number(other))
        }),
        remedy: format!("install one NCCL in all images, such as {newest}"),
    })
}

fn should_agree(subject: &'static str, values: Vec<Option<String>>, what: &str) -> Option<Mismatch> {
    let known: BTreeSet<&String> = values.iter().flatten().collect();
    let differ = known.len() > 1;
    let newest =
        known.iter().max_by_key(|v| Version::leading(v.trim_start_matches("CUDA "))).map(|v| (*v).clone())?;
    differ.then(|| Mismatch {
        subject,
        message: what.to_owned(),
        level: Level::Warning,
        error: None,
        remedy: format!("use one {subject} in all images, such as {newest}"),
        values,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nccl(versions: &[&str]) -> Option<Mismatch> {
        nccl_mismatch(&versions.iter().map(|v| Version::parse(v)).collect::<Vec<_>>())
    }

    #[test]
    fn ranks_with_different_nccl_are_refused_from_the_release_that_compares() {
        assert_eq!(nccl(&["2.26.2", "2.26.2"]), None);
        let refused = nccl(&["2.26.2", "2.27.5"]).unwrap();
        let text = "Mismatched NCCL version detected : rank 0 version 22602 rank 1 version 22705";
        assert_eq!((refused.level, refused.error.as_deref()), (Level::Error, Some(text)));
        let silent = nccl(&["2.21.5", "2.26.2"]).unwrap();
        assert_eq!((silent.level, silent.error), (Level::Warning, None));
        assert_eq!(nccl(&["2.26.2", ""]).unwrap().level, Level::Error);
    }

    #[test]
    fn a_row_says_which_way_it_changed() {
        let change = |a: Option<&str>, b: Option<&str>| {
            row_of("x", vec![a.map(str::to_owned), b.map(str::to_owned)]).change
        };
        assert_eq!(change(Some("9.1.0"), Some("9.10.2")), Change::Newer);
        assert_eq!(change(Some("12.4"), Some("11.8")), Change::Older);
        assert_eq!(change(None, Some("1")), Change::Added);
        assert_eq!(change(Some("1"), None), Change::Removed);
        assert_eq!(change(Some("1"), Some("1")), Change::Same);
        assert_eq!(change(Some("sm_80"), Some("sm_90")), Change::Changed);
    }
}
