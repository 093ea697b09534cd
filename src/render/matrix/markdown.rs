//! [`View`] -> a Markdown table, for pull requests and wikis.

use super::{KINDS, VERDICTS, View, symbol};
use crate::render::markdown::text;
use std::fmt::Write as _;

/// The whole of one image.
pub fn matrix(view: &View) -> String {
    let image = &view.matrix.inventory.facts.image;
    let mut out = format!("### {}\n\n", text(&image.reference));
    if view.rows.is_empty() {
        out.push_str("No host of the list runs it.\n\n");
    } else {
        let drivers: Vec<String> = view.drivers().map(text).collect();
        let _ = writeln!(out, "| GPU | {} |", drivers.join(" | "));
        let _ = writeln!(out, "|---|{}", ":-:|".repeat(drivers.len()));
        for row in &view.rows {
            let cell = |c: &&crate::matrix::Cell| match view.letter(c).as_str() {
                "" => symbol(c.verdict).to_owned(),
                letter => format!("{} {letter}", symbol(c.verdict)),
            };
            let cells: Vec<String> = row.cells.iter().map(cell).collect();
            let names = match row.gpus.as_slice() {
                [one] if *one == row.sm => row.sm.clone(),
                many => format!("{} ({})", many.join(", "), row.sm),
            };
            let _ = writeln!(out, "| {} | {} |", text(&names), cells.join(" | "));
        }
        out.push('\n');
    }
    let present = VERDICTS.into_iter().filter(|v| view.cells().any(|c| c.verdict == *v));
    let legend: Vec<String> = present.map(|v| format!("{} {}", symbol(v), v.name())).collect();
    let _ = writeln!(out, "{}\n", legend.join(" · "));
    for (position, rule) in view.reasons.iter().enumerate() {
        let _ =
            writeln!(out, "- **{}** {}: {}", super::letter(position), rule.code, text(&view.words(*rule)));
    }
    if !view.reasons.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(out, "{}", view.closing().join(" "));
    if view.kinds {
        let _ = writeln!(out, "\n{KINDS}");
    }
    out
}
