//! [`Weight`] -> text and JSON: what the GPU code of an image weighs, and for whom.

use super::style::{Style, bytes, safe, shorten};
use crate::inventory::weight::{Bytes, Library, Weight};
use crate::target::Gpu;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Libraries below this share of the whole are summed up, in parts of a thousand.
const SMALL: u64 = 5;

/// Architectures of one library that are named.
const ARCHS_SHOWN: usize = 3;

#[derive(Serialize, JsonSchema)]
pub struct WeightJson {
    /// That `unused` and `saved_by_rebuild` are about; empty where none was named, and then both are 0.
    pub gpus: Vec<String>,
    pub total: BytesJson,
    pub libraries: Vec<LibraryJson>,
}

#[derive(Serialize, JsonSchema)]
pub struct LibraryJson {
    pub name: String,
    pub files: u64,
    pub bytes: BytesJson,
}

/// Stored bytes.
#[derive(Serialize, JsonSchema)]
pub struct BytesJson {
    pub all: u64,
    pub by_arch: BTreeMap<String, u64>,
    /// That none of the GPUs asked for can use.
    pub unused: u64,
    /// That a build for just these GPUs would not have, at least.
    pub saved_by_rebuild: u64,
}

pub fn json(weight: &Weight, gpus: &[Gpu]) -> WeightJson {
    let bytes = |b: &Bytes| BytesJson {
        all: b.all,
        by_arch: b.by_arch.clone(),
        unused: b.unused,
        saved_by_rebuild: b.saved,
    };
    let library = |l: &Library| LibraryJson { name: l.name.clone(), files: l.files, bytes: bytes(&l.bytes) };
    WeightJson {
        gpus: gpus.iter().map(|g| g.typed.clone()).collect(),
        total: bytes(&weight.total),
        libraries: weight.libraries.iter().map(library).collect(),
    }
}

/// What a person reads. `gpus`: those of the fleet, perhaps none.
pub fn text(weight: &Weight, gpus: &[Gpu], style: Style) -> String {
    let total = &weight.total;
    if total.all == 0 {
        return "no GPU code\n".to_owned();
    }
    let heavy = |l: &&Library| l.bytes.all.saturating_mul(1000) / total.all >= SMALL;
    let (shown, small): (Vec<&Library>, Vec<&Library>) = weight.libraries.iter().partition(heavy);
    let width = shown.iter().map(|l| shorten(&l.name, 40).chars().count()).max().unwrap_or(0).max(10);
    let mut out = format!("{}\n", style.bold("GPU code by weight"));
    let fleet = !gpus.is_empty();
    for library in &shown {
        line(&mut out, &shorten(&safe(&library.name), 40), width, &library.bytes, fleet);
    }
    if !small.is_empty() {
        let sum = small.iter().fold(0u64, |s, l| s.saturating_add(l.bytes.all));
        let _ = writeln!(out, "  {:<width$}  {:>8}", format!("{} others", small.len()), bytes(sum));
    }
    line(&mut out, "all", width, total, false);
    if fleet {
        let mut names: Vec<String> = gpus.iter().map(Gpu::describe).collect();
        names.sort();
        let share = |part: u64| format!("{} ({} %)", bytes(part), part.saturating_mul(100) / total.all);
        let _ = writeln!(out, "\nOn {}:", safe(&names.join(", ")));
        let _ = writeln!(out, "  {} can never be used", share(total.unused));
        let _ =
            writeln!(out, "  a build for just these GPUs would be at least {} smaller", share(total.saved));
    }
    out
}

fn line(out: &mut String, name: &str, width: usize, of: &Bytes, fleet: bool) {
    let mut archs: Vec<(&String, &u64)> = of.by_arch.iter().collect();
    archs.sort_by(|a, b| b.1.cmp(a.1));
    let more = archs.len().saturating_sub(ARCHS_SHOWN);
    let list: Vec<String> =
        archs.iter().take(ARCHS_SHOWN).map(|(arch, count)| format!("{arch} {}", bytes(**count))).collect();
    let more = if more > 0 { format!(", {more} more") } else { String::new() };
    let unused = match of.unused {
        n if fleet && n > 0 => format!("; {} never used", bytes(n)),
        _ => String::new(),
    };
    let _ = writeln!(out, "  {name:<width$}  {:>8}  {}{more}{unused}", bytes(of.all), list.join(", "));
}
