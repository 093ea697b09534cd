//! Reported incidents and working setups (TOML) -> what cudalint says of each, beside what really happened.
//!
//! ```text
//! cargo run --release --example incidents -- FILE
//! ```
//!
//! Of a record only `id`, `image` and `host` are read before it has been judged; what happened is read afterwards, from the
//! same file, and may be missing. Prints per record `id expected got rule`, where the rule is the one that decides.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod code;
mod host;
mod image;
mod libraries;
mod words;

use cudalint::catalog::Catalog;
use cudalint::inventory;
use cudalint::report::{Level, Outcome, Report, Verdict};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// What a record says of image and host.
#[derive(Deserialize)]
struct Asked {
    id: String,
    #[serde(default)]
    image: image::Image,
    #[serde(default)]
    host: host::Host,
}

#[derive(Deserialize)]
struct Questions {
    #[serde(default)]
    incident: Vec<Asked>,
}

/// What really happened.
#[derive(Deserialize)]
struct Answer {
    id: String,
    kind: Option<String>,
    expect: Option<String>,
    /// `5xx`: the rules that should speak.
    family: Option<String>,
    /// Whether image and host decide at all.
    knowable: Option<bool>,
    missing: Option<String>,
}

#[derive(Deserialize)]
struct Answers {
    #[serde(default)]
    incident: Vec<Answer>,
}

/// What cudalint says.
struct Judged {
    id: String,
    verdict: Verdict,
    /// Code and name of the rule that decides; none where nothing is to be said.
    rule: Option<(&'static str, &'static str)>,
    message: String,
}

fn main() -> ExitCode {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("usage: incidents FILE");
        return ExitCode::from(2);
    };
    match run(&file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("incidents: {file}: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(file: &str) -> Result<(), Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(file)?;
    print!("{}", table(&text)?.text);
    Ok(())
}

/// What is printed, and the numbers of its closing line.
pub(crate) struct Table {
    pub(crate) text: String,
    pub(crate) right: usize,
    pub(crate) of: usize,
    pub(crate) false_alarms: usize,
}

/// Judges every record of a file, then compares.
pub(crate) fn table(text: &str) -> Result<Table, Box<dyn std::error::Error>> {
    let catalog = Catalog::built_in()?;
    let questions: Questions = toml::from_str(text)?;
    let judged: Vec<Judged> = questions.incident.iter().map(|asked| judge(asked, &catalog)).collect();
    let answers: Answers = toml::from_str(text)?;
    let answers: BTreeMap<String, Answer> = answers.incident.into_iter().map(|a| (a.id.clone(), a)).collect();
    Ok(compare(&judged, &answers))
}

fn judge(asked: &Asked, catalog: &Catalog) -> Judged {
    let facts = image::facts(&asked.image, &asked.host, catalog);
    let inventory = inventory::build(&facts, catalog);
    let targets: Vec<_> = host::target(&asked.host, catalog).into_iter().collect();
    let report = cudalint::check(&inventory, &targets, catalog, cudalint::rules::Policy::default());
    if std::env::var_os("INCIDENT").is_some_and(|id| id == asked.id.as_str()) {
        explain(&report);
    }
    let verdict = report.targets.first().map_or_else(|| alone(&report), |t| t.verdict);
    // The report is sorted by level and rule; what decides the verdict comes first.
    let loud = report.findings.iter().filter(|f| f.finding.level > Level::Pass);
    let decides =
        loud.enumerate().max_by_key(|(i, f)| (f.finding.outcome, f.finding.level, std::cmp::Reverse(*i)));
    let (rule, message) = decides.map_or((None, String::new()), |(_, f)| {
        (Some((f.finding.rule.code, f.finding.rule.name)), f.finding.message.clone())
    });
    Judged { id: asked.id.clone(), verdict, rule, message }
}

/// Without a target the findings about the image stand for a verdict.
fn alone(report: &Report) -> Verdict {
    match report.findings.iter().map(|f| f.finding.outcome).max() {
        Some(Outcome::Breaks) => Verdict::Fails,
        Some(Outcome::Unknown) => Verdict::Unknown,
        _ if !report.inventory.uses_gpu() => Verdict::NoGpuCode,
        Some(Outcome::Degrades) => Verdict::Degraded,
        _ => Verdict::Runs,
    }
}

/// `INCIDENT=inc-001`: everything that is said about one record.
fn explain(report: &Report) {
    for finding in &report.findings {
        let f = &finding.finding;
        eprintln!("{:?} {} {} {}", f.outcome, f.level.name(), f.rule.code, f.message);
        for line in &f.evidence {
            eprintln!("    {}  {}", line.place.path, line.detail);
        }
    }
}

fn compare(judged: &[Judged], answers: &BTreeMap<String, Answer>) -> Table {
    let mut table = Table { text: String::new(), right: 0, of: 0, false_alarms: 0 };
    let mut controls = 0usize;
    let mut misses = String::new();
    for row in judged {
        let answer = answers.get(&row.id);
        let expected = answer.and_then(|a| a.expect.as_deref());
        let rule = row.rule.map_or_else(|| "-".to_owned(), |(code, name)| format!("{code}:{name}"));
        let got = row.verdict.name();
        table.text += &format!("{:8} {:12} {:12} {rule}\n", row.id, expected.unwrap_or("?"), got);
        let Some((answer, expected)) = answer.zip(expected) else { continue };
        let is_control = answer.kind.as_deref() == Some("control");
        if is_control {
            controls += 1;
            table.false_alarms += usize::from(row.verdict == Verdict::Fails);
        }
        if answer.knowable == Some(false) {
            if got != expected {
                let missing = answer.missing.as_deref().unwrap_or("not said");
                misses += &format!("  {} cannot be known from image and host: {missing}\n", row.id);
            }
            continue;
        }
        table.of += 1;
        // The rules of the right family must speak, where something is wrong.
        let family = answer.family.as_deref().filter(|_| !is_control);
        let spoke = row.rule.and_then(|(code, _)| code.chars().nth(3));
        if got == expected && family.is_none_or(|f| spoke == f.chars().next()) {
            table.right += 1;
        } else {
            let wanted = family.map_or_else(String::new, |f| format!(" by {f}"));
            misses +=
                &format!("  {} wanted {expected}{wanted}, got {got} by {rule}: {}\n", row.id, row.message);
        }
    }
    if !misses.is_empty() {
        table.text += &format!("\nnot as expected:\n{misses}\n");
    }
    let Table { right, of, false_alarms, .. } = table;
    table.text += &format!("{right} right of {of}, {false_alarms} false alarms of {controls} controls\n");
    table
}
