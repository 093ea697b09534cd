//! [`View`]s -> one page without scripts: a heat map whose every cell leads to its reason, and the reasons with error and fix.

use super::{KINDS, VERDICTS, View, symbol};
use crate::matrix::{Cell, Reason};
use crate::render::style::{markup, safe};
use std::fmt::Write as _;

const STYLE: &str = include_str!("heatmap.css");

/// Messages of one kind that are written out.
const MESSAGES_SHOWN: usize = 4;

/// The page of all images.
pub fn matrices(views: &[View], tool: &str) -> String {
    let mut body = String::new();
    for (index, view) in views.iter().enumerate() {
        image(view, index, &mut body);
    }
    page("Which GPU and driver run it", "", &body, tool)
}

/// A page around sections; `style`: what it needs beyond the heat map.
pub(in crate::render) fn page(title: &str, style: &str, body: &str, tool: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
         <footer>{}</footer>\n</body>\n</html>\n",
        markup(tool)
    )
}

fn image(view: &View, index: usize, out: &mut String) {
    let facts = view.matrix.inventory.facts;
    let reference = markup(&safe(&facts.image.reference));
    let _ = writeln!(out, "<section aria-labelledby=\"i{index}\">\n<h1 id=\"i{index}\">{reference}</h1>");
    let digest = facts.image.digest.as_ref().map_or_else(String::new, ToString::to_string);
    let _ = writeln!(
        out,
        "<p class=\"id\">{} {}</p>",
        markup(&facts.image.platform.to_string()),
        markup(&digest)
    );
    map(view, index, out);
    out.push_str("</section>\n");
}

/// The answer, the heat map and the reasons of one image.
pub(in crate::render) fn map(view: &View, index: usize, out: &mut String) {
    let _ = writeln!(out, "<p class=\"answer\">{}</p>", markup(&view.closing().join(" ")));
    let groups = groups(view);
    if view.rows.is_empty() {
        out.push_str("<p>No host of the list runs it.</p>\n");
    } else {
        table(view, index, &groups, out);
    }
    if view.kinds {
        let _ = writeln!(out, "<p class=\"legend\">{KINDS}</p>");
    }
    reasons(view, index, &groups, out);
}

/// Reasons that say the same of different hosts: rule and headline.
fn groups<'a>(view: &'a View) -> Vec<&'a Reason> {
    let mut out: Vec<&Reason> = Vec::new();
    for rule in &view.reasons {
        for reason in view.cells().filter_map(|c| c.reason.as_ref()).filter(|r| r.rule == *rule) {
            if !out.iter().any(|known| alike(known, reason)) {
                out.push(reason);
            }
        }
    }
    out
}

fn alike(a: &Reason, b: &Reason) -> bool {
    a.rule == b.rule && a.headline == b.headline
}

fn table(view: &View, index: usize, groups: &[&Reason], out: &mut String) {
    let _ = writeln!(
        out,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Verdict by GPU and driver\">\n<table>\n\
         <thead>\n<tr><th scope=\"col\">GPU</th>"
    );
    for driver in view.drivers() {
        let _ = write!(out, "<th scope=\"col\">{}</th>", markup(driver));
    }
    out.push_str("<th scope=\"col\" class=\"low\">lowest driver</th></tr>\n</thead>\n<tbody>\n");
    for row in &view.rows {
        let names: Vec<&String> = row.gpus.iter().filter(|g| **g != row.sm).collect();
        let name = names.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ");
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{} <small>{}</small></th>",
            markup(&safe(&name)),
            markup(&row.sm)
        );
        for (column, cell) in row.cells.iter().enumerate() {
            let host = format!("driver {}, {} {}", view.driver(column), name, row.sm);
            square(view, cell, index, groups, &host, out);
        }
        let lowest = row.lowest.driver.as_deref().unwrap_or("none");
        let _ = writeln!(
            out,
            "<td class=\"low\">{}{}</td></tr>",
            markup(lowest),
            markup(&super::up_to(row.lowest))
        );
    }
    out.push_str("</tbody>\n</table>\n</div>\n<p class=\"legend\">");
    for verdict in VERDICTS.into_iter().filter(|v| view.cells().any(|c| c.verdict == *v)) {
        let name = verdict.name();
        let _ = write!(out, "<span class=\"key {name}\">{}</span> {name} ", symbol(verdict));
    }
    out.push_str("</p>\n");
}

fn square(view: &View, cell: &Cell, index: usize, groups: &[&Reason], host: &str, out: &mut String) {
    let name = cell.verdict.name();
    let how: Vec<&str> = cell.how.iter().map(|h| h.name()).collect();
    let how = if how.is_empty() { String::new() } else { format!(" ({})", how.join(", ")) };
    let Some(reason) = &cell.reason else {
        let label = markup(&format!("{host}: {name}{how}"));
        let _ = write!(
            out,
            "<td class=\"{name}\"><span tabindex=\"0\" role=\"img\" aria-label=\"{label}\" data-why=\"{label}\">{}</span></td>",
            symbol(cell.verdict)
        );
        return;
    };
    let group = groups.iter().position(|g| alike(g, reason)).unwrap_or(0);
    let label = markup(&safe(&format!("{host}: {name}{how}. {} {}", reason.rule.code, reason.headline)));
    let _ = write!(
        out,
        "<td class=\"{name}\"><a href=\"#i{index}r{group}\" aria-label=\"{label}\" data-why=\"{label}\">{} {}</a></td>",
        symbol(cell.verdict),
        view.letter(cell)
    );
}

fn reasons(view: &View, index: usize, groups: &[&Reason], out: &mut String) {
    if groups.is_empty() {
        return;
    }
    out.push_str("<h2>Reasons</h2>\n");
    for (number, group) in groups.iter().enumerate() {
        let letter =
            view.reasons.iter().position(|r| *r == group.rule).map(super::letter).unwrap_or_default();
        let _ = writeln!(
            out,
            "<article id=\"i{index}r{number}\" tabindex=\"-1\">\n<h3><b>{letter}</b> {} {}</h3>",
            group.rule.code,
            markup(&safe(&group.headline))
        );
        let mut messages: Vec<&str> = Vec::new();
        let mut hosts: Vec<String> = Vec::new();
        for row in &view.rows {
            let cells = row.cells.iter().enumerate();
            let reasons = cells.filter_map(|(column, cell)| Some((column, cell.reason.as_ref()?)));
            let of_row: Vec<(usize, &Reason)> = reasons.filter(|(_, r)| alike(r, group)).collect();
            let drivers: Vec<&str> = of_row.iter().map(|(column, _)| view.driver(*column)).collect();
            for (_, reason) in &of_row {
                if !messages.contains(&reason.message.as_str()) {
                    messages.push(&reason.message);
                }
            }
            if !drivers.is_empty() {
                hosts.push(format!("{} ({}) with {}", row.gpus.join(", "), row.sm, drivers.join(", ")));
            }
        }
        for message in messages.iter().take(MESSAGES_SHOWN) {
            let _ = writeln!(out, "<p>{}</p>", markup(&safe(message)));
        }
        if messages.len() > MESSAGES_SHOWN {
            let _ = writeln!(out, "<p>and {} more of this kind</p>", messages.len() - MESSAGES_SHOWN);
        }
        out.push_str("<dl>\n");
        if let Some(error) = &group.error {
            let _ = writeln!(out, "<dt>at run time</dt><dd><code>{}</code></dd>", markup(&safe(error)));
        }
        for remedy in &group.remedies {
            let _ = writeln!(out, "<dt>fix</dt><dd>{}</dd>", markup(&safe(remedy)));
        }
        let _ = writeln!(out, "<dt>on</dt><dd>{}</dd>\n</dl>\n</article>", markup(&safe(&hosts.join("; "))));
    }
}
