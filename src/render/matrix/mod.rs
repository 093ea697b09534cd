//! [`Matrix`] -> rows to show: GPUs that fare alike are one row, reasons have letters. One file per format.

pub mod html;
pub mod json;
pub mod markdown;
pub mod svg;
pub mod text;

use crate::matrix::{Cell, Lowest, Matrix};
use crate::report::{RuleId, Verdict};

/// A matrix as people read it.
pub struct View<'a> {
    pub matrix: &'a Matrix<'a>,
    rows: Vec<Row<'a>>,
    /// Rules that explain cells, in the order of their letters.
    reasons: Vec<RuleId>,
    /// The GPUs are one of each kind, not those that somebody asked for.
    kinds: bool,
}

/// GPUs of one compute capability that fare alike.
struct Row<'a> {
    gpus: Vec<String>,
    sm: String,
    cells: Vec<&'a Cell>,
    lowest: &'a Lowest,
}

impl<'a> View<'a> {
    /// `kinds`: the GPUs were not asked for by name.
    pub fn new(matrix: &'a Matrix<'a>, kinds: bool) -> View<'a> {
        let mut rows: Vec<Row> = Vec::new();
        for ((gpu, cells), lowest) in matrix.gpus.iter().zip(&matrix.rows).zip(&matrix.lowest_of) {
            let sm = format!("sm_{}", gpu.cc.sm_number());
            let cells: Vec<&Cell> = cells.iter().collect();
            let name = gpu.describe().split(" (sm_").next().unwrap_or_default().to_owned();
            let alike =
                |row: &&mut Row| row.sm == sm && row.cells.iter().zip(&cells).all(|(a, b)| same(a, b));
            match rows.iter_mut().find(alike) {
                Some(row) => row.gpus.push(name),
                None => rows.push(Row { gpus: vec![name], sm, cells, lowest }),
            }
        }
        let mut reasons: Vec<RuleId> = Vec::new();
        for reason in rows.iter().flat_map(|r| &r.cells).filter_map(|c| c.reason.as_ref()) {
            if !reasons.contains(&reason.rule) {
                reasons.push(reason.rule);
            }
        }
        reasons.sort_unstable();
        View { matrix, rows, reasons, kinds }
    }

    fn driver(&self, column: usize) -> &str {
        self.matrix.drivers.get(column).map_or("", |d| d.text.as_str())
    }

    fn drivers(&self) -> impl Iterator<Item = &str> {
        self.matrix.drivers.iter().map(|d| d.text.as_str())
    }

    /// The letter of a cell's reason; empty where there is none.
    fn letter(&self, cell: &Cell) -> String {
        let position = |rule: RuleId| self.reasons.iter().position(|r| *r == rule);
        cell.reason.as_ref().and_then(|r| position(r.rule)).map(letter).unwrap_or_default()
    }

    fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.rows.iter().flat_map(|r| r.cells.iter().copied())
    }

    /// What a rule says here in a few words: its headline where all cells have the same, else what it is about.
    fn words(&self, rule: RuleId) -> String {
        let of_rule = self.cells().filter_map(|c| c.reason.as_ref()).filter(|r| r.rule == rule);
        let mut headlines: Vec<(&str, &str)> = of_rule.map(|r| (r.headline.as_str(), r.summary)).collect();
        headlines.sort_unstable();
        headlines.dedup();
        match headlines.as_slice() {
            [(headline, _)] => (*headline).to_owned(),
            several => several.first().map_or("", |(_, summary)| summary).to_owned(),
        }
    }

    /// The lowest driver in words, one sentence each.
    fn closing(&self) -> Vec<String> {
        let matrix = self.matrix;
        let nothing = matrix.rows.iter().flatten().all(|c| c.verdict == Verdict::NoGpuCode);
        if nothing {
            return vec!["Nothing in the image uses the GPU.".to_owned()];
        }
        let mut out = Vec::new();
        if let Some(driver) = &matrix.lowest.driver {
            out.push(format!(
                "Lowest driver that runs it on all of these GPUs: {driver}{}{}.",
                up_to(&matrix.lowest),
                jit(&matrix.lowest)
            ));
            return out;
        }
        let unknown = |c: &Cell| c.verdict == Verdict::Unknown;
        if matrix.rows.iter().flatten().all(unknown) {
            return vec!["Nothing can be said for sure: what is missing stands above.".to_owned()];
        }
        let served: Vec<&Lowest> = matrix.lowest_of.iter().filter(|l| l.driver.is_some()).collect();
        if served.is_empty() {
            return vec!["No driver of the list runs it on any of these GPUs.".to_owned()];
        }
        let mut without: Vec<String> = Vec::new();
        for (gpu, lowest) in matrix.gpus.iter().zip(&matrix.lowest_of) {
            // One product stands for many where nobody named it.
            let name = if self.kinds { format!("sm_{}", gpu.cc.sm_number()) } else { gpu.describe() };
            if lowest.driver.is_none() && !without.contains(&name) {
                without.push(name);
            }
        }
        const SHOWN: usize = 6;
        let more = match without.len().saturating_sub(SHOWN) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        without.truncate(SHOWN);
        out.push(format!("No driver of the list runs it on {}{more}.", without.join(", ")));
        // Each has its own lowest driver, and perhaps a last one: the highest of the lowest serves all only below the lowest of the last.
        let age = |name: &Option<String>| {
            let driver = matrix.drivers.iter().find(|d| Some(&d.text) == name.as_ref());
            driver.and_then(|d| d.version.clone())
        };
        let highest = served.iter().max_by_key(|l| age(&l.driver));
        let last = served.iter().filter(|l| l.up_to.is_some()).min_by_key(|l| age(&l.up_to));
        let common = match (highest, last) {
            (Some(highest), Some(last)) => age(&highest.driver) <= age(&last.up_to),
            _ => true,
        };
        if let Some(highest) = highest.filter(|_| common) {
            let driver = highest.driver.as_deref().unwrap_or_default();
            let of_all = Lowest { up_to: last.and_then(|l| l.up_to.clone()), ..(*highest).clone() };
            out.push(format!(
                "On the others the lowest driver is {driver}{}{}.",
                up_to(&of_all),
                jit(&of_all)
            ));
        } else {
            out.push("No one driver runs it on all the others.".to_owned());
        }
        out
    }
}

/// ` to 580`, where newer drivers do not run it.
fn up_to(lowest: &Lowest) -> String {
    let last = lowest.up_to.as_ref().filter(|l| Some(*l) != lowest.driver.as_ref());
    match (last, &lowest.up_to) {
        (Some(last), _) => format!(", up to {last}"),
        (None, Some(_)) => " and no newer one".to_owned(),
        (None, None) => String::new(),
    }
}

fn jit(lowest: &Lowest) -> String {
    match &lowest.without_jit {
        Some(driver) if Some(driver) == lowest.driver.as_ref() => String::new(),
        Some(driver) => format!(" ({driver} without compiling at first start)"),
        None => " (compiling at first start)".to_owned(),
    }
}

/// `a` to `z`, then `aa`.
fn letter(position: usize) -> String {
    let one = |n: usize| char::from(b'a' + u8::try_from(n % 26).unwrap_or(0));
    if position < 26 {
        one(position).to_string()
    } else {
        format!("{}{}", one(position / 26 - 1), one(position))
    }
}

fn same(a: &Cell, b: &Cell) -> bool {
    let rule = |c: &Cell| c.reason.as_ref().map(|r| r.rule);
    a.verdict == b.verdict && a.how == b.how && rule(a) == rule(b)
}

/// One character per verdict, told apart without colour.
fn symbol(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Runs => "✓",
        Verdict::Degraded => "~",
        Verdict::Unknown => "?",
        Verdict::Fails => "✗",
        Verdict::NoGpuCode => "-",
    }
}

const VERDICTS: [Verdict; 5] =
    [Verdict::Runs, Verdict::Degraded, Verdict::Unknown, Verdict::Fails, Verdict::NoGpuCode];

/// Of each kind of GPU one is shown.
const KINDS: &str = "Each GPU stands for its kind: products of one architecture that drivers and container runtimes treat alike.";
