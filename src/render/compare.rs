//! [`Comparison`] -> text and JSON: what differs, which hosts fare differently, what a job needs to agree in.

use super::style::{Style, bytes, safe, shorten};
use crate::compare::{Change, Comparison, Flip, Mismatch, code_bytes};
use crate::facts::json::{ImageJson, image_json};
use crate::matrix::Reason;
use crate::report::{Level, Verdict};
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::Write as _;

pub const SCHEMA_VERSION: u32 = 1;

/// Characters of one image's column.
const VALUE_MAX: usize = 30;

/// Hosts of one driver that are named.
const NAMES_SHOWN: usize = 6;

#[derive(Serialize, JsonSchema)]
pub struct ComparisonJson {
    pub schema_version: u32,
    pub images: Vec<ImageJson>,
    /// What is not the same in all images.
    pub differences: Vec<DifferenceJson>,
    pub architectures: ArchitecturesJson,
    /// Bytes of GPU code, image by image.
    pub device_code_bytes: Vec<u64>,
    /// How many targets were judged.
    pub targets: usize,
    /// Targets on which the images fare differently.
    pub flips: Vec<FlipJson>,
    /// With `--job` only.
    pub job: Option<Vec<MismatchJson>>,
}

#[derive(Serialize, JsonSchema)]
pub struct DifferenceJson {
    pub subject: String,
    pub values: Vec<Option<String>>,
    pub change: &'static str,
}

#[derive(Serialize, JsonSchema)]
pub struct ArchitecturesJson {
    pub gained: Vec<String>,
    pub dropped: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct FlipJson {
    pub target: String,
    pub verdicts: Vec<&'static str>,
    pub rules: Vec<Vec<&'static str>>,
    pub reasons: Vec<Option<String>>,
}

#[derive(Serialize, JsonSchema)]
pub struct MismatchJson {
    pub subject: &'static str,
    pub values: Vec<Option<String>>,
    pub level: &'static str,
    pub message: String,
    pub runtime_error: Option<String>,
    pub remedies: Vec<String>,
}

/// The document.
pub fn json(comparison: &Comparison) -> ComparisonJson {
    let differences = comparison.rows.iter().filter(|r| r.change != Change::Same);
    let flip = |f: &Flip| FlipJson {
        target: f.target.clone(),
        verdicts: f.cells.iter().map(|c| c.verdict.name()).collect(),
        rules: f.cells.iter().map(|c| c.rules.iter().map(|r| r.code).collect()).collect(),
        reasons: f.cells.iter().map(|c| c.reason.as_ref().map(|r| r.headline.clone())).collect(),
    };
    let mismatch = |m: &Mismatch| MismatchJson {
        subject: m.subject,
        values: m.values.clone(),
        level: m.level.name(),
        message: m.message.clone(),
        runtime_error: m.error.clone(),
        remedies: vec![m.remedy.clone()],
    };
    ComparisonJson {
        schema_version: SCHEMA_VERSION,
        images: comparison.inventories.iter().map(|i| image_json(&i.facts.image)).collect(),
        differences: differences
            .map(|r| DifferenceJson {
                subject: r.subject.clone(),
                values: r.values.clone(),
                change: r.change.name(),
            })
            .collect(),
        architectures: ArchitecturesJson {
            gained: comparison.architectures.gained.clone(),
            dropped: comparison.architectures.dropped.clone(),
        },
        device_code_bytes: comparison.inventories.iter().map(|i| code_bytes(i)).collect(),
        targets: comparison.targets,
        flips: comparison.flips.iter().map(flip).collect(),
        job: comparison.job.as_ref().map(|j| j.iter().map(mismatch).collect()),
    }
}

/// What a person reads.
pub fn text(comparison: &Comparison, style: Style) -> String {
    let mut out = String::new();
    for (index, inventory) in comparison.inventories.iter().enumerate() {
        let image = &inventory.facts.image;
        let digest = image.digest.as_ref().map_or_else(String::new, |d| format!("   {}", d.short()));
        let _ = writeln!(out, "{}  {}{digest}", name(index), style.bold(&safe(&image.reference)));
    }
    out.push('\n');
    if let Some(job) = &comparison.job {
        out.push_str(&self::job(comparison, job, style));
    }
    out.push_str(&table(comparison, style));
    out.push_str(&flips(comparison, style));
    out
}

/// `A` for the first image.
fn name(index: usize) -> String {
    char::from_u32(u32::from(b'A') + u32::try_from(index).unwrap_or(0)).unwrap_or('?').to_string()
}

fn table(comparison: &Comparison, style: Style) -> String {
    let mut rows: Vec<(String, Vec<String>, String)> = Vec::new();
    let same = comparison.rows.iter().filter(|r| r.change == Change::Same).count();
    for row in comparison.rows.iter().filter(|r| r.change != Change::Same) {
        let value =
            |v: &Option<String>| v.as_deref().map_or("–".to_owned(), |v| shorten(&safe(v), VALUE_MAX));
        let remark = match (row.subject.as_str(), row.change) {
            ("machine code" | "PTX", _) => String::new(),
            (_, change) => change.name().to_owned(),
        };
        rows.push((row.subject.clone(), row.values.iter().map(value).collect(), remark));
    }
    let sizes: Vec<u64> = comparison.inventories.iter().map(|i| code_bytes(i)).collect();
    if sizes.windows(2).any(|p| p.first() != p.last()) {
        let grown = match (sizes.first(), sizes.last()) {
            (Some(a), Some(b)) if *a > 0 && b >= a => format!("+{} %", (b - a).saturating_mul(100) / a),
            (Some(a), Some(b)) if *a > 0 => format!("-{} %", (a - b).saturating_mul(100) / a),
            _ => String::new(),
        };
        rows.push(("size of GPU code".to_owned(), sizes.iter().map(|b| bytes(*b)).collect(), grown));
    }
    if rows.is_empty() {
        return format!("No difference in {same} parts of the stack.\n");
    }
    let count = comparison.inventories.len();
    let first = rows.iter().map(|(s, ..)| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|i| rows.iter().filter_map(|(_, v, _)| v.get(i)).map(|v| v.chars().count()).max().unwrap_or(1))
        .collect();
    let pad = |text: &str, width: usize| {
        format!("{text}{}", " ".repeat(width.saturating_sub(text.chars().count())))
    };
    let line = |subject: &str, values: Vec<String>, remark: &str| {
        let cells: Vec<String> = values.iter().zip(&widths).map(|(v, w)| pad(v, *w)).collect();
        format!("{}  {}  {remark}", pad(subject, first), cells.join("  ")).trim_end().to_owned()
    };
    let head = line("differs", (0..count).map(name).collect(), "");
    let mut out = format!("{}\n", style.bold(&head));
    for (subject, values, remark) in rows {
        let _ = writeln!(out, "{}", line(&safe(&subject), values, &remark));
    }
    let changed = &comparison.architectures;
    for (word, list) in [("gained", &changed.gained), ("dropped", &changed.dropped)] {
        if !list.is_empty() {
            let _ = writeln!(out, "GPU code {word}: {}", list.join(" "));
        }
    }
    let _ = writeln!(out, "{same} parts of the stack are the same.");
    out
}

fn flips(comparison: &Comparison, style: Style) -> String {
    if comparison.targets == 0 {
        return String::new();
    }
    if comparison.flips.is_empty() {
        return format!("\nThe same verdict on all {} hosts.\n", comparison.targets);
    }
    let mut out = format!("\n{}\n", style.bold("hosts that fare differently"));
    let mut groups: Vec<(Vec<Verdict>, Option<&Reason>, Vec<&str>)> = Vec::new();
    for flip in &comparison.flips {
        let verdicts: Vec<Verdict> = flip.cells.iter().map(|c| c.verdict).collect();
        let why = flip.cells.iter().max_by_key(|c| c.verdict).and_then(|c| c.reason.as_ref());
        let rule = why.map(|r| r.rule);
        match groups.iter_mut().find(|(v, w, _)| *v == verdicts && w.map(|r| r.rule) == rule) {
            Some((_, _, hosts)) => hosts.push(&flip.target),
            None => groups.push((verdicts, why, vec![&flip.target])),
        }
    }
    for (verdicts, why, hosts) in groups {
        let words: Vec<String> = verdicts.into_iter().map(|v| verdict(v, style)).collect();
        let why = why.map_or_else(String::new, |r| match hosts.as_slice() {
            [_] => format!("   {} {}", r.rule.code, safe(&r.headline)),
            _ => format!("   {} {}", r.rule.code, r.summary),
        });
        let _ = writeln!(out, "  {} on {} of {}{why}", words.join(" → "), hosts.len(), comparison.targets);
        for line in by_driver(&hosts) {
            let _ = writeln!(out, "      {}", safe(&line));
        }
    }
    out
}

/// `470 with a100, h100 and 12 more` for every driver, where the names are of that form.
fn by_driver(hosts: &[&str]) -> Vec<String> {
    let shown = |names: &[&str]| {
        let more = names.len().saturating_sub(NAMES_SHOWN);
        let list = names.iter().take(NAMES_SHOWN).copied().collect::<Vec<_>>().join(", ");
        if more > 0 { format!("{list} and {more} more") } else { list }
    };
    let mut drivers: Vec<(&str, Vec<&str>)> = Vec::new();
    for host in hosts {
        let Some((driver, gpu)) = host.split_once('/') else { return vec![shown(hosts)] };
        match drivers.iter_mut().find(|(known, _)| *known == driver) {
            Some((_, gpus)) => gpus.push(gpu),
            None => drivers.push((driver, vec![gpu])),
        }
    }
    drivers.into_iter().map(|(driver, gpus)| format!("{driver} with {}", shown(&gpus))).collect()
}

fn verdict(verdict: Verdict, style: Style) -> String {
    match verdict {
        Verdict::Runs => style.green("runs"),
        Verdict::Fails => style.red("fails"),
        other => style.yellow(other.name()),
    }
}

fn job(comparison: &Comparison, job: &[Mismatch], style: Style) -> String {
    let mut out = String::new();
    for mismatch in job {
        let label = match mismatch.level {
            Level::Error => style.red("error"),
            _ => style.yellow(mismatch.level.name()),
        };
        let values: Vec<String> = mismatch
            .values
            .iter()
            .enumerate()
            .map(|(i, v)| format!("{} {}", name(i), v.as_deref().map_or("none".to_owned(), safe)))
            .collect();
        let _ = writeln!(out, "{label}: {}: {}", mismatch.subject, values.join(", "));
        let _ = writeln!(out, "   = {:<15} {}", "why", mismatch.message);
        if let Some(error) = &mismatch.error {
            let _ = writeln!(out, "   = {:<15} {error} (ncclInvalidUsage)", "at run time");
        }
        let _ = writeln!(out, "   = {:<15} {}\n", "fix", safe(&mismatch.remedy));
    }
    if job.is_empty() {
        out.push_str("Nothing that the ranks of one job must agree in differs.\n");
    }
    let lowest = comparison.inventories.iter().filter_map(|i| i.requirements.min_driver.as_ref()).max();
    if let Some(driver) = lowest {
        let _ = writeln!(out, "All hosts of the job need driver {driver} or newer.\n");
    }
    out
}
