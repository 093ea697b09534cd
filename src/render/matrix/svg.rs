//! [`View`]s -> one SVG heat map: symbols and letters in the cells, the reason as the title of each.

use super::{VERDICTS, View, symbol};
use crate::matrix::Cell;
use crate::render::style::{markup, safe, shorten};
use crate::report::Verdict;
use std::fmt::Write as _;

const CELL_WIDTH: usize = 64;
const CELL_HEIGHT: usize = 30;
const LABEL_WIDTH: usize = 300;
const MARGIN: usize = 16;
const LINE: usize = 20;

/// Colours of both schemes: contrast of text on ground is above 4.5 : 1 (WCAG 2.1, AA).
const STYLE: &str = "\
text{font:14px system-ui,sans-serif;fill:#1f2328}.b{font-weight:600}.g{fill:#fff}\
.runs rect{fill:#c8ecd0}.degraded rect{fill:#fdeeb3}.unknown rect{fill:#e3e3e8}.fails rect{fill:#ffd0cc}.no-gpu-code rect{fill:#f3f3f5}\
@media (prefers-color-scheme:dark){text{fill:#f0f3f6}.g{fill:#14171a}\
.runs rect{fill:#14532d}.degraded rect{fill:#5c4a00}.unknown rect{fill:#3d424a}.fails rect{fill:#7a1f1a}.no-gpu-code rect{fill:#24292f}}";

/// One picture of all images, one below the other.
pub fn matrices(views: &[View]) -> String {
    let mut body = String::new();
    let mut top = MARGIN;
    for view in views {
        top = one(view, top, &mut body);
    }
    let columns = views.iter().map(|v| v.matrix.drivers.len()).max().unwrap_or(0);
    let width = (LABEL_WIDTH + columns * CELL_WIDTH + 2 * MARGIN).max(720);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{top}\" viewBox=\"0 0 {width} {top}\" role=\"img\" \
         aria-label=\"Which GPU and driver run the image\">\n<style>{STYLE}</style>\n<rect class=\"g\" width=\"100%\" height=\"100%\"/>\n{body}</svg>\n"
    )
}

/// Draws one matrix from `top` on; gives where the next begins.
fn one(view: &View, mut top: usize, out: &mut String) -> usize {
    let reference = markup(&shorten(&safe(&view.matrix.inventory.facts.image.reference), 80));
    let _ = writeln!(out, "<text class=\"b\" x=\"{MARGIN}\" y=\"{}\">{reference}</text>", top + 14);
    top += 28;
    for (column, driver) in view.drivers().enumerate() {
        let x = MARGIN + LABEL_WIDTH + column * CELL_WIDTH + CELL_WIDTH / 2;
        let driver = markup(&shorten(&safe(driver), 9));
        let _ = writeln!(
            out,
            "<text class=\"b\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{driver}</text>",
            top + 14
        );
    }
    top += 22;
    for row in &view.rows {
        let names = row.gpus.iter().filter(|g| **g != row.sm).cloned().collect::<Vec<_>>().join(", ");
        let label =
            if names.is_empty() { row.sm.clone() } else { format!("{} ({})", shorten(&names, 28), row.sm) };
        let _ = writeln!(out, "<text x=\"{MARGIN}\" y=\"{}\">{}</text>", top + 20, markup(&safe(&label)));
        for (column, cell) in row.cells.iter().enumerate() {
            square(view, cell, (column, top), &format!("{label}, driver {}", view.driver(column)), out);
        }
        top += CELL_HEIGHT;
    }
    top += LINE;
    let present = VERDICTS.into_iter().filter(|v| view.cells().any(|c| c.verdict == *v));
    let legend: Vec<String> = present.map(|v: Verdict| format!("{} {}", symbol(v), v.name())).collect();
    let reasons =
        view.reasons.iter().enumerate().map(|(position, rule)| {
            format!("{}  {}  {}", super::letter(position), rule.code, view.words(*rule))
        });
    for line in std::iter::once(legend.join("    ")).chain(reasons).chain(view.closing()) {
        let _ =
            writeln!(out, "<text x=\"{MARGIN}\" y=\"{top}\">{}</text>", markup(&shorten(&safe(&line), 120)));
        top += LINE;
    }
    top + MARGIN
}

fn square(view: &View, cell: &Cell, (column, top): (usize, usize), host: &str, out: &mut String) {
    let x = MARGIN + LABEL_WIDTH + column * CELL_WIDTH;
    let why = cell.reason.as_ref().map_or_else(String::new, |r| format!(": {} {}", r.rule.code, r.headline));
    let title = markup(&safe(&format!("{host}: {}{why}", cell.verdict.name())));
    let text = format!("{} {}", symbol(cell.verdict), view.letter(cell));
    let _ = writeln!(
        out,
        "<g class=\"{}\"><title>{title}</title><rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"3\"/>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text></g>",
        cell.verdict.name(),
        x + 1,
        top + 1,
        CELL_WIDTH - 2,
        CELL_HEIGHT - 2,
        x + CELL_WIDTH / 2,
        top + 20,
        text.trim_end()
    );
}
