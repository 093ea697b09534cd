//! [`Report`] -> one page without scripts, nothing fetched: verdicts, findings with their evidence, the stack, and the heat
//! map of all drivers and GPUs.

use super::Context;
use super::matrix::{View, html as heatmap};
use super::style::{Style, bytes, markup, safe};
use crate::report::{Level, Report, ReportedFinding, TargetVerdict};
use std::fmt::Write as _;

const STYLE: &str = include_str!("report.css");

/// Files of one finding that are written out before the rest is only counted.
const EVIDENCE_MAX: usize = 200;

/// Sections of all images.
#[derive(Default)]
pub struct Page {
    body: String,
    images: usize,
    tool: String,
}

impl Page {
    /// One image; `view`: its heat map, where there is one.
    pub fn add(&mut self, report: &Report, context: &Context, view: Option<&View>) {
        let index = self.images;
        self.images += 1;
        self.tool = format!(
            "cudalint {}, facts of {}, as of {}",
            context.tool.version, context.tool.facts, context.as_of
        );
        let out = &mut self.body;
        let image = &report.inventory.facts.image;
        let _ = writeln!(
            out,
            "<section aria-labelledby=\"p{index}\">\n<h1 id=\"p{index}\">{}</h1>",
            text(&image.reference)
        );
        let digest = image.digest.as_ref().map_or_else(String::new, ToString::to_string);
        let _ = writeln!(
            out,
            "<p class=\"id\">{} {digest} {}</p>",
            text(&image.platform.to_string()),
            super::layers_words(image)
        );
        if !report.complete {
            out.push_str("<p class=\"answer\">A part of the image could not be read; what it holds is not judged.</p>\n");
        }
        verdicts(report, index, out);
        findings(report, index, out);
        stack(report, out);
        if let Some(view) = view {
            out.push_str("<h2>All drivers and GPUs</h2>\n");
            heatmap::map(view, index, out);
        }
        layers(report, out);
        out.push_str("</section>\n");
    }

    pub fn finish(self) -> String {
        heatmap::page("Will it run", STYLE, &self.body, &self.tool)
    }
}

fn text(raw: &str) -> String {
    markup(&safe(raw))
}

fn verdicts(report: &Report, index: usize, out: &mut String) {
    if !report.targets.is_empty() {
        out.push_str("<ul class=\"verdicts\">\n");
        for target in &report.targets {
            verdict(target, report, index, out);
        }
        out.push_str("</ul>\n");
    }
    let _ = writeln!(out, "<p>{}</p>", text(&super::closing_words(report)));
}

fn verdict(target: &TargetVerdict, report: &Report, index: usize, out: &mut String) {
    let reason = text(&super::text::reason(target, report));
    let first = target
        .findings
        .iter()
        .find(|&&i| report.findings.get(i).is_some_and(|f| f.finding.level > Level::Note));
    let reason = match first {
        Some(finding) => format!("<a href=\"#p{index}f{finding}\">{reason}</a>"),
        None => reason,
    };
    let _ = writeln!(
        out,
        "<li><b class=\"key {0}\">{0}</b> <span>{1}</span> <span>{reason}</span></li>",
        target.verdict.name(),
        markup(&super::text::title(target))
    );
}

fn findings(report: &Report, index: usize, out: &mut String) {
    if report.findings.is_empty() {
        return;
    }
    out.push_str("<h2>Findings</h2>\n");
    for (number, reported) in report.findings.iter().enumerate() {
        finding(reported, report, &format!("p{index}f{number}"), out);
    }
}

fn finding(reported: &ReportedFinding, report: &Report, id: &str, out: &mut String) {
    let finding = &reported.finding;
    let open = if finding.level > Level::Note && reported.suppressed.is_none() { " open" } else { "" };
    let level = finding.level.name();
    let _ = writeln!(
        out,
        "<article id=\"{id}\"><details{open}>\n<summary><b class=\"level {level}\">{level}</b> {} {}</summary>\n<dl>",
        finding.rule.code,
        text(&finding.message)
    );
    let mut row = |label: &str, value: &str| {
        let _ = writeln!(out, "<dt>{label}</dt><dd>{value}</dd>");
    };
    if let Some(suppression) = &reported.suppressed {
        row("suppressed", &text(&super::suppression_words(suppression)));
    }
    if let Some(line) = &reported.line {
        let place = format!("{}:{}", line.file, line.start);
        row("Dockerfile", &format!("<code>{}</code> {}", text(&place), text(&line.instruction)));
    }
    for evidence in finding.evidence.iter().take(EVIDENCE_MAX) {
        let place = match evidence.place.path.is_root() {
            true => "image settings".to_owned(),
            false => format!(
                "<code>{}</code> (layer {})",
                text(evidence.place.path.as_str()),
                evidence.place.layer.0 + 1
            ),
        };
        row("evidence", &format!("{place}: {}", text(&evidence.detail)));
    }
    if finding.evidence.len() > EVIDENCE_MAX {
        row("evidence", &format!("and {} more files", finding.evidence.len() - EVIDENCE_MAX));
    }
    if let Some(host) = &finding.host {
        row("on the host", &text(host));
    }
    if let Some(error) = &finding.runtime_error {
        row("at run time", &format!("<code>{}</code>", text(&super::error_words(error))));
    }
    for remedy in &finding.remedies {
        row("fix", &text(remedy));
    }
    if !reported.targets.is_empty() && reported.targets.len() < report.targets.len() {
        row("for", &text(&reported.targets.join(", ")));
    }
    out.push_str("</dl>\n</details></article>\n");
}

fn stack(report: &Report, out: &mut String) {
    let table = super::text::stack(report, Style::default());
    if !table.is_empty() {
        let _ = writeln!(
            out,
            "<h2>Stack</h2>\n<div class=\"scroll\" tabindex=\"0\"><pre>{}</pre></div>",
            markup(table.trim_matches('\n'))
        );
    }
}

fn layers(report: &Report, out: &mut String) {
    let layers = &report.inventory.facts.image.layers;
    if layers.len() < 2 {
        return;
    }
    out.push_str("<h2>Layers</h2>\n<ol class=\"layers\">\n");
    for layer in layers {
        let size = layer.size.map_or_else(String::new, |s| format!("<small>{}</small> ", bytes(s)));
        let made = layer
            .created_by
            .as_deref()
            .map_or_else(|| "instruction not known".to_owned(), super::text::plain_instruction);
        let _ = writeln!(out, "<li>{size}<code>{}</code></li>", text(&made));
    }
    out.push_str("</ol>\n");
}
