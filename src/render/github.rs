//! [`Report`] -> annotations of a GitHub workflow, one command per line, within what a step may show.
//!
//! Ten annotations of each level are shown per step
//! (<https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands>): nine, and one that counts the rest.

use super::style::safe;
use super::{Context, Document};
use crate::report::{Level, Report, ReportedFinding};
use std::fmt::Write as _;

const PER_LEVEL: usize = 9;

/// Commands by level.
#[derive(Default)]
pub struct Annotations {
    of_level: [(Vec<String>, usize); 3],
}

const LEVELS: [(Level, &str); 3] =
    [(Level::Error, "error"), (Level::Warning, "warning"), (Level::Note, "notice")];

impl Document for Annotations {
    fn add(&mut self, report: &Report, _: &Context) {
        for ((level, command), (lines, left_out)) in LEVELS.iter().zip(&mut self.of_level) {
            for finding in report.counted().filter(|f| f.finding.level == *level) {
                match lines.len() < PER_LEVEL {
                    true => lines.push(annotation(command, finding, report)),
                    false => *left_out += 1,
                }
            }
        }
    }

    fn finish(self: Box<Self>) -> String {
        let mut out = String::new();
        for ((_, command), (lines, left_out)) in LEVELS.iter().zip(&self.of_level) {
            for line in lines {
                let _ = writeln!(out, "{line}");
            }
            if *left_out > 0 {
                let _ = writeln!(
                    out,
                    "::{command} title=cudalint::{left_out} more of this level; the report has them all"
                );
            }
        }
        out
    }
}

fn annotation(command: &str, reported: &ReportedFinding, report: &Report) -> String {
    let finding = &reported.finding;
    let mut properties = Vec::new();
    if let Some(line) = &reported.line {
        properties.push(format!("file={}", property(&line.file)));
        properties.push(format!("line={},endLine={}", line.start, line.end));
    }
    let title = format!("{} {}", finding.rule.code, finding.rule.name);
    properties.push(format!("title={}", property(&title)));
    let mut lines = vec![finding.message.clone()];
    let image = &report.inventory.facts.image.reference;
    let on = if reported.targets.is_empty() {
        String::new()
    } else {
        format!(" on {}", reported.targets.join(", "))
    };
    lines.push(format!("image: {image}{on}"));
    if let Some(evidence) = finding.evidence.first().filter(|e| !e.place.path.is_root()) {
        lines.push(format!("file: {}", evidence.place.path));
    }
    lines.extend(finding.runtime_error.as_ref().map(|e| format!("at run time: {}", super::error_words(e))));
    lines.extend(finding.remedies.iter().map(|r| format!("fix: {r}")));
    let lines: Vec<String> = lines.iter().map(|l| data(l)).collect();
    format!("::{command} {}::{}", properties.join(","), lines.join("%0A"))
}

fn data(text: &str) -> String {
    safe(text).replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
