//! [`View`] -> a table for a terminal: GPUs down, drivers across, reasons as letters below.

use super::{KINDS, VERDICTS, View, symbol};
use crate::render::style::{Style, safe, shorten};
use crate::report::Verdict;
use std::fmt::Write as _;

/// Characters of a row's label; 80 columns hold it and ten branches.
const LABEL_MAX: usize = 34;

/// The whole of one image.
pub fn matrix(view: &View, style: Style) -> String {
    let title = crate::render::title(&view.matrix.inventory.facts.image, style);
    let mut out = format!("{}\n\n", title.join("   "));
    table(view, style, &mut out);
    let mut present: Vec<String> = Vec::new();
    for verdict in VERDICTS.into_iter().filter(|v| view.cells().any(|c| c.verdict == *v)) {
        present.push(format!("{} {}", colour(style, verdict, symbol(verdict)), verdict.name()));
    }
    if !present.is_empty() {
        let _ = writeln!(out, "\n  {}", present.join("   "));
    }
    for (position, rule) in view.reasons.iter().enumerate() {
        let letter = super::letter(position);
        let _ = writeln!(out, "  {letter:<2} {}  {}", rule.code, safe(&view.words(*rule)));
    }
    let _ = writeln!(out, "\n{}", view.closing().join("\n"));
    if view.kinds {
        let _ = writeln!(out, "{KINDS}");
    }
    out
}

fn table(view: &View, style: Style, out: &mut String) {
    if view.rows.is_empty() {
        out.push_str("  no host of the list runs it\n");
        return;
    }
    let labels: Vec<String> = view.rows.iter().map(|r| label(&r.gpus, &r.sm)).collect();
    let width = labels.iter().map(|l| l.chars().count()).max().unwrap_or(0);
    let column = view.drivers().map(|d| d.chars().count()).max().unwrap_or(0).max(3) + 1;
    let mut line = " ".repeat(width + 3);
    for driver in view.drivers() {
        let _ = write!(line, " {driver:<column$}");
    }
    let _ = writeln!(out, "{}", style.bold(line.trim_end()));
    for (row, label) in view.rows.iter().zip(&labels) {
        let pad = " ".repeat(width - label.chars().count());
        let _ = write!(out, "  {label}{pad} ");
        let mut gap = String::new();
        for cell in &row.cells {
            let text = format!("{}{}", symbol(cell.verdict), view.letter(cell));
            let _ = write!(out, "{gap} {}", colour(style, cell.verdict, &text));
            gap = " ".repeat(column.saturating_sub(text.chars().count()));
        }
        out.push('\n');
    }
}

/// `H100, GH200 (sm_90)`; `sm_90` alone where no product was named.
fn label(gpus: &[String], sm: &str) -> String {
    let names: Vec<&str> = gpus.iter().map(String::as_str).filter(|g| *g != sm).collect();
    if names.is_empty() {
        return sm.to_owned();
    }
    let room = LABEL_MAX.saturating_sub(sm.len() + 3);
    format!("{} ({sm})", shorten(&safe(&names.join(", ")), room))
}

fn colour(style: Style, verdict: Verdict, text: &str) -> String {
    match verdict {
        Verdict::Runs => style.green(text),
        Verdict::Fails => style.red(text),
        Verdict::Degraded | Verdict::Unknown => style.yellow(text),
        Verdict::NoGpuCode => style.dim(text),
    }
}
