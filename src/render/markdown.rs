//! [`Report`] -> Markdown for job summaries and pull requests, within the size that GitHub takes.
//!
//! A step's summary may have 1 MiB; over that nothing of it is shown
//! (<https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands>).

use super::style::{markup, safe, shorten};
use super::{Context, Document};
use crate::report::{Level, Report, ReportedFinding, TargetVerdict, Verdict};
use std::fmt::Write as _;

/// Bytes of the whole document.
const BUDGET: usize = 900_000;
/// Files of one finding that are listed.
const EVIDENCE_MAX: usize = 20;

/// Sections of all images.
#[derive(Default)]
pub struct Summary {
    out: String,
    left_out: usize,
}

impl Document for Summary {
    fn add(&mut self, report: &Report, context: &Context) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.push(&head(report, context));
        for finding in
            report.findings.iter().filter(|f| f.suppressed.is_none() && f.finding.level > Level::Note)
        {
            self.push_finding(finding, report);
        }
        let quiet: Vec<&ReportedFinding> = report
            .findings
            .iter()
            .filter(|f| f.suppressed.is_some() || f.finding.level == Level::Note)
            .collect();
        if !quiet.is_empty() {
            let mut list = String::from("<details><summary>Notes and suppressed findings</summary>\n\n");
            for finding in quiet {
                let why = finding.suppressed.as_ref().map_or_else(String::new, |s| {
                    format!(" (suppressed: {})", text(&super::suppression_words(s)))
                });
                let rule = finding.finding.rule.code;
                let _ = writeln!(
                    list,
                    "- {rule} {}: {}{why}",
                    finding.finding.level.name(),
                    text(&finding.finding.message)
                );
            }
            list.push_str("\n</details>\n\n");
            self.push(&list);
        }
        self.push(&format!("{}\n", super::closing_words(report)));
    }

    fn finish(mut self: Box<Self>) -> String {
        if self.left_out > 0 {
            let _ = writeln!(
                self.out,
                "\n{} parts are left out for their size; the JSON report has them all.",
                self.left_out
            );
        }
        self.out
    }
}

impl Summary {
    /// Room is kept for the line that says what is left out.
    fn push(&mut self, part: &str) {
        match self.out.len() + part.len() + 200 <= BUDGET {
            true => self.out.push_str(part),
            false => self.left_out += 1,
        }
    }

    fn push_finding(&mut self, reported: &ReportedFinding, report: &Report) {
        let finding = &reported.finding;
        let mut part = format!(
            "<details><summary><b>{} {}</b> {}</summary>\n\n",
            finding.level.name(),
            finding.rule.code,
            inline(&finding.message)
        );
        if let Some(line) = &reported.line {
            let lines = if line.start == line.end {
                line.start.to_string()
            } else {
                format!("{}-{}", line.start, line.end)
            };
            let _ = writeln!(
                part,
                "- {} line {lines}: {}",
                text(&line.file),
                text(&shorten(&line.instruction, 200))
            );
        }
        for evidence in finding.evidence.iter().take(EVIDENCE_MAX) {
            let layer = report.inventory.facts.image.layers.get(evidence.place.layer.0 as usize);
            let made = layer.and_then(|l| l.created_by.as_deref()).map(|made| {
                let made = text(&shorten(&super::text::plain_instruction(made), 120));
                format!(" (layer {}: {made})", evidence.place.layer.0 + 1)
            });
            let place = match evidence.place.path.is_root() {
                true => "image settings".to_owned(),
                false => format!("{}{}", text(evidence.place.path.as_str()), made.unwrap_or_default()),
            };
            let _ = writeln!(part, "- {place}: {}", text(&evidence.detail));
        }
        if finding.evidence.len() > EVIDENCE_MAX {
            let _ = writeln!(part, "- and {} more files", finding.evidence.len() - EVIDENCE_MAX);
        }
        if let Some(host) = &finding.host {
            let _ = writeln!(part, "- on the host: {}", text(host));
        }
        if let Some(error) = &finding.runtime_error {
            let _ = writeln!(part, "- at run time: {}", text(&super::error_words(error)));
        }
        for remedy in &finding.remedies {
            let _ = writeln!(part, "- **fix:** {}", text(remedy));
        }
        if !reported.targets.is_empty() && reported.targets.len() < report.targets.len() {
            let _ = writeln!(part, "- for {}", text(&reported.targets.join(", ")));
        }
        part.push_str("\n</details>\n\n");
        self.push(&part);
    }
}

fn head(report: &Report, context: &Context) -> String {
    let image = &report.inventory.facts.image;
    let mut out = format!("### {}\n\n", text(&image.reference));
    let digest = image.digest.as_ref().map_or_else(String::new, |d| format!(" · {}", d.short()));
    let _ = writeln!(
        out,
        "{}{digest} · {} · cudalint {}, facts of {}\n",
        text(&image.platform.to_string()),
        super::layers_words(image),
        context.tool.version,
        text(&context.tool.facts)
    );
    if !report.complete {
        out.push_str("**A part of the image could not be read; what it holds is not judged.**\n\n");
    }
    if !report.targets.is_empty() {
        out.push_str("| | driver | GPU | why |\n|---|---|---|---|\n");
        for target in &report.targets {
            let _ = writeln!(out, "{}", row(target, report));
        }
        out.push('\n');
    }
    out
}

fn row(target: &TargetVerdict, report: &Report) -> String {
    let word = match target.verdict {
        Verdict::Runs => "✅ runs",
        Verdict::Degraded => "⚠️ degraded",
        Verdict::Unknown => "❔ unknown",
        Verdict::Fails => "❌ fails",
        Verdict::NoGpuCode => "no GPU code",
    };
    let gpus: Vec<&str> = target.gpus.iter().map(|g| g.describe.as_str()).collect();
    let driver = target.driver.as_deref().unwrap_or("any");
    let gpus = if gpus.is_empty() { "any".to_owned() } else { gpus.join(", ") };
    let reason = super::text::reason(target, report);
    format!("| {word} | {} | {} | {} |", text(driver), text(&gpus), text(&reason))
}

/// A broken-up mention reaches nobody: GitHub looks for names in the text as it is shown.
const BROKEN_MENTION: &str = "@&#8203;";

/// Text within a line that begins with an HTML element: there Markdown's escapes would be shown.
fn inline(raw: &str) -> String {
    unlinked(&markup(&safe(raw)).replace('@', BROKEN_MENTION))
}

/// What looks like an address would become a link.
fn unlinked(text: &str) -> String {
    text.replace("://", ":&#8203;//").replace("www.", "www&#8203;.")
}

/// Text of an image, without any meaning in Markdown or HTML.
pub(super) fn text(raw: &str) -> String {
    let mut out = String::new();
    let safe = safe(raw);
    let mut chars = safe.chars().peekable();
    let mut before = ' ';
    while let Some(c) = chars.next() {
        // Within a word an underscore is only that.
        let in_word = before.is_alphanumeric() && chars.peek().is_some_and(|n| n.is_alphanumeric());
        before = c;
        match c {
            '_' if in_word => out.push(c),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '@' => out.push_str(BROKEN_MENTION),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    unlinked(&out)
}
