//! [`Report`] -> GitLab's code quality report: one array, fingerprints without repetition.
//!
//! <https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format>

use super::style::safe;
use super::{Context, Document, Ordinals};
use crate::names::Digest;
use crate::report::{Level, Report, ReportedFinding};
use serde_json::{Value, json};

/// The rows of all images.
#[derive(Default)]
pub struct CodeQuality {
    rows: Vec<Value>,
    ordinals: Ordinals,
}

impl Document for CodeQuality {
    fn add(&mut self, report: &Report, _: &Context) {
        for finding in report.counted() {
            let ordinal = self.ordinals.next(finding);
            self.rows.push(row(finding, ordinal, report));
        }
    }

    fn finish(self: Box<Self>) -> String {
        super::pretty(&self.rows)
    }
}

fn row(reported: &ReportedFinding, ordinal: usize, report: &Report) -> Value {
    let finding = &reported.finding;
    let severity = match finding.level {
        Level::Error => "critical",
        Level::Warning => "major",
        Level::Note | Level::Pass => "info",
    };
    let (path, begin) = match &reported.line {
        Some(line) => (line.file.clone(), line.start),
        None => (in_image(reported, report), 1),
    };
    let fingerprint = match ordinal {
        1 => reported.fingerprint.clone(),
        n => Digest::of(format!("{}\n{n}", reported.fingerprint).as_bytes())
            .hex()
            .get(..32)
            .unwrap_or_default()
            .to_owned(),
    };
    let image = &report.inventory.facts.image.reference;
    let on = if reported.targets.is_empty() {
        String::new()
    } else {
        format!(" ({})", reported.targets.join(", "))
    };
    json!({
        "description": safe(&format!("{image}{on}: {}", finding.message)),
        "check_name": format!("{} {}", finding.rule.code, finding.rule.name),
        "fingerprint": fingerprint,
        "severity": severity,
        "location": { "path": path, "lines": { "begin": begin } },
    })
}

fn in_image(reported: &ReportedFinding, report: &Report) -> String {
    let image = &report.inventory.facts.image;
    let first = reported.finding.evidence.first();
    safe(&first.map_or_else(String::new, |e| super::path_in_image(&e.place.path, image)))
}
