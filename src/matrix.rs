//! Inventory × drivers × GPUs -> verdicts: which hosts an image runs on, and from which driver on.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::catalog::{self, Branch, Catalog};
use crate::inventory::Inventory;
use crate::names::Platform;
use crate::report::{Finding, How, Level, RuleId, Verdict, build};
use crate::rules::{self, Judge};
use crate::target::{Driver, Gpu, Host, Target, TargetError, distinct, resolve_gpu};

/// The hosts of a matrix: every driver with every GPU, else alike.
#[derive(Clone, Debug)]
pub struct Axes {
    pub drivers: Vec<Driver>,
    pub gpus: Vec<Gpu>,
    pub host: Host,
}

/// What one driver and GPU make of an image.
#[derive(Clone, Debug)]
pub struct Cell {
    pub verdict: Verdict,
    pub how: Vec<How>,
    /// Rules with findings, worst first.
    pub rules: Vec<RuleId>,
    /// The worst finding, unless all is well.
    pub reason: Option<Reason>,
}

/// Why a cell is not simply `runs`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    pub rule: RuleId,
    /// What the rule is about, in one line.
    pub summary: &'static str,
    pub headline: String,
    pub message: String,
    /// The error text that a user would meet.
    pub error: Option<String>,
    pub remedies: Vec<String>,
}

/// The lowest drivers of the axis that run the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lowest {
    pub driver: Option<String>,
    /// The last that does, where newer ones of the axis do not.
    pub up_to: Option<String>,
    /// On which nothing is compiled at first start either.
    pub without_jit: Option<String>,
}

/// The verdicts of one image.
pub struct Matrix<'a> {
    pub inventory: &'a Inventory<'a>,
    pub drivers: Vec<Driver>,
    pub gpus: Vec<Gpu>,
    /// One row per GPU, in it one cell per driver.
    pub rows: Vec<Vec<Cell>>,
    /// For all GPUs together.
    pub lowest: Lowest,
    /// For each GPU.
    pub lowest_of: Vec<Lowest>,
}

/// Judges an image on every host of the axes.
pub fn matrix<'a>(judge: &Judge<'a>, axes: &Axes) -> Matrix<'a> {
    let inventory = judge.inventory();
    let row = |gpu: &Gpu| axes.drivers.iter().map(|d| cell(judge, Some(d), Some(gpu), &axes.host)).collect();
    let rows: Vec<Vec<Cell>> = axes.gpus.iter().map(row).collect();
    let all: Vec<&[Cell]> = rows.iter().map(Vec::as_slice).collect();
    Matrix {
        inventory,
        drivers: axes.drivers.clone(),
        gpus: axes.gpus.clone(),
        lowest: lowest(&axes.drivers, &all),
        lowest_of: rows.iter().map(|row| lowest(&axes.drivers, &[row])).collect(),
        rows,
    }
}

/// Judges one driver and GPU on one host.
fn cell(judge: &Judge, driver: Option<&Driver>, gpu: Option<&Gpu>, host: &Host) -> Cell {
    let answers = judge.answers(driver, gpu, host);
    let findings = || answers.iter().flat_map(|a| a.iter());
    let verdict = build::verdict(judge.inventory(), findings());
    let mut speaking: Vec<&Finding> = findings().filter(|f| f.level > Level::Pass).collect();
    speaking.sort_by_key(|f| (std::cmp::Reverse(f.level), f.rule));
    let mut rules: Vec<RuleId> = Vec::new();
    for finding in &speaking {
        if !rules.contains(&finding.rule) {
            rules.push(finding.rule);
        }
    }
    // What decided the verdict speaks first; a warning of another kind may stand before it in the list.
    let decides = speaking.iter().max_by_key(|f| (f.outcome, f.level, std::cmp::Reverse(f.rule)));
    let reason = decides.filter(|f| f.level > Level::Note).map(|f| {
        let mut finding = [(*f).clone()];
        judge.one_update(&mut finding, gpu, host);
        let [finding] = finding;
        Reason {
            rule: finding.rule,
            summary: rules::find(finding.rule.code).map_or("", |r| r.summary),
            headline: finding.headline,
            message: finding.message,
            error: finding.runtime_error.map(|e| e.text),
            remedies: finding.remedies,
        }
    });
    Cell { verdict, how: build::how(verdict, findings()), rules, reason }
}

/// The worst cell over the GPUs of a target, as its verdict is; of several alike the first.
pub fn target(judge: &Judge, target: &Target) -> Cell {
    let one = |gpu: Option<&Gpu>| cell(judge, target.driver.as_ref(), gpu, &target.host);
    let cells = target.each_gpu().into_iter().map(one);
    let worst = cells.reduce(|worst, next| if next.verdict > worst.verdict { next } else { worst });
    // There is at least one: a target without GPU has the cell of no GPU.
    worst.unwrap_or_else(|| one(None))
}

/// The verdict of a cell alone.
pub fn verdict(judge: &Judge, driver: &Driver, gpu: &Gpu, host: &Host) -> Verdict {
    let answers = judge.answers(Some(driver), Some(gpu), host);
    build::verdict(judge.inventory(), answers.iter().flat_map(|a| a.iter()))
}

impl Cell {
    /// The work gets done, perhaps with a loss.
    pub fn works(&self) -> bool {
        self.verdict.works()
    }

    fn works_without_jit(&self) -> bool {
        self.works() && !self.how.contains(&How::Jit)
    }
}

/// `or newer` must hold, so the last unbroken run counts: older drivers that work below a gap are no answer.
fn lowest(drivers: &[Driver], rows: &[&[Cell]]) -> Lowest {
    let mut newest_first: Vec<usize> = (0..drivers.len()).collect();
    newest_first.sort_by(|a, b| age(drivers, *b).cmp(&age(drivers, *a)));
    let run = |works: fn(&Cell) -> bool| -> Vec<usize> {
        let all = |i: &usize| !rows.is_empty() && rows.iter().all(|row| row.get(*i).is_some_and(works));
        newest_first.iter().copied().skip_while(|i| !all(i)).take_while(all).collect()
    };
    let name = |i: Option<&usize>| i.and_then(|i| drivers.get(*i)).map(|d| d.text.clone());
    let works = run(Cell::works);
    let up_to = name(works.first().filter(|i| newest_first.first() != Some(*i)));
    Lowest { driver: name(works.last()), up_to, without_jit: name(run(Cell::works_without_jit).last()) }
}

impl Matrix<'_> {
    /// Without drivers and GPUs on which nothing works.
    pub fn only_supported(mut self) -> Self {
        let works = |cell: Option<&Cell>| cell.is_some_and(Cell::works);
        let column: Vec<bool> =
            (0..self.drivers.len()).map(|i| self.rows.iter().any(|row| works(row.get(i)))).collect();
        let row: Vec<bool> = self.rows.iter().map(|row| row.iter().any(Cell::works)).collect();
        for cells in &mut self.rows {
            keep(cells, &column);
        }
        keep(&mut self.drivers, &column);
        keep(&mut self.rows, &row);
        keep(&mut self.gpus, &row);
        keep(&mut self.lowest_of, &row);
        self
    }
}

fn keep<T>(all: &mut Vec<T>, wanted: &[bool]) {
    let mut wanted = wanted.iter();
    all.retain(|_| wanted.next().copied().unwrap_or(false));
}

fn age(drivers: &[Driver], index: usize) -> Option<&crate::version::Version> {
    drivers.get(index).and_then(|d| d.version.as_ref())
}

/// Years that a branch stays on the axis after its end of support: hosts are slower than that.
const YEARS_AFTER_SUPPORT: u32 = 3;

/// The drivers of a list (`535,550.54.14`, `525..580`, `all`); an empty list is the branches that hosts have: production and
/// long-term ones until three years past their end of support, and all since the newest of them. `as_of`: `YYYY-MM-DD`.
pub fn drivers(list: &[String], as_of: &str, catalog: &Catalog) -> Result<Vec<Driver>, TargetError> {
    let mut out: Vec<Driver> = Vec::new();
    let branch = |b: &Branch| Driver::parse(&b.branch.to_string(), catalog);
    let mut add = |driver: Driver| {
        if !out.contains(&driver) {
            out.push(driver);
        }
    };
    if list.is_empty() {
        let year = |date: &str| date.get(..4).and_then(|y| y.parse::<u32>().ok()).unwrap_or(0);
        let month = |date: &str| date.get(5..7).unwrap_or_default().to_owned();
        let alive = |end: &str| (year(end) + YEARS_AFTER_SUPPORT, month(end)) >= (year(as_of), month(as_of));
        let newest = catalog.branches.iter().filter(|b| b.is_stable()).map(|b| b.branch).max().unwrap_or(0);
        // Where no end is known, the branch that followed tells its age.
        let ended = |b: &Branch| {
            let later = || catalog.branches.iter().filter(|l| l.branch > b.branch);
            b.end_of_life.clone().or_else(|| later().find_map(|l| l.end_of_life.clone()))
        };
        for b in &catalog.branches {
            let recent = ended(b).is_none_or(|end| alive(&end));
            if !b.status.is_inferred() && (b.branch > newest || b.is_stable() && recent) {
                add(branch(b)?);
            }
        }
        return Ok(out);
    }
    for text in list {
        match text.split_once("..") {
            None if text == "all" => catalog.branches.iter().try_for_each(|b| branch(b).map(&mut add))?,
            None => add(Driver::parse(text, catalog)?),
            Some((from, to)) => {
                let (from, to) = (Driver::parse(from, catalog)?, Driver::parse(to, catalog)?);
                if from.is_exact() || to.is_exact() {
                    return Err(TargetError {
                        message: format!("`{text}` is no range of branches"),
                        hint: Some(
                            "branches alone, such as 525..580; single versions go between commas".to_owned(),
                        ),
                    });
                }
                let major = |d: &Driver| d.version.as_ref().map_or(0, crate::version::Version::major);
                let range = major(&from)..=major(&to);
                let mut between =
                    catalog.branches.iter().filter(|b| range.contains(&u64::from(b.branch))).peekable();
                if between.peek().is_none() {
                    return Err(TargetError {
                        message: format!("no driver branch lies in `{text}`"),
                        hint: Some("oldest first, such as 525..580".to_owned()),
                    });
                }
                between.try_for_each(|b| branch(b).map(&mut add))?;
            }
        }
    }
    Ok(out)
}

/// Words of products that stand for no kind: few hosts have them, or their plain sibling says the same.
const ODD: [&str; 5] = ["EIZO", "CMP", "Laptop", "Embedded", "Max-Q"];

/// The GPUs of a list; an empty list is one product of every kind that the catalog tells apart, some driver of the axis knows,
/// and hosts of the image's architecture have. Jetson modules stay out of it: their drivers have other numbers.
pub fn gpus(
    list: &[String],
    drivers: &[Driver],
    platform: &Platform,
    catalog: &Catalog,
) -> Result<Vec<Gpu>, TargetError> {
    if !list.is_empty() {
        let named: Result<Vec<Gpu>, TargetError> =
            list.iter().map(|text| resolve_gpu(text, catalog)).collect();
        return Ok(distinct(named?));
    }
    let mut out: Vec<Gpu> = Vec::new();
    let branches: Vec<&Branch> =
        drivers.iter().filter_map(Driver::branch).filter_map(|b| catalog.branch(b)).collect();
    let here = |gpu: &Gpu| {
        let known = branches.iter().any(|b| b.cc.contains(&gpu.cc));
        let host = |arch: &str| platform.architecture.is_empty() || platform.architecture == arch;
        known && gpu.host_arch.is_none_or(host)
    };
    let alike = |a: &Gpu, b: &Gpu| (a.cc, a.forward_compat, &a.brands) == (b.cc, b.forward_compat, &b.brands);
    let plain =
        |g: &&catalog::Gpu| !g.tegra && !g.status.is_inferred() && !ODD.iter().any(|o| g.name.contains(o));
    for row in catalog.gpus.iter().filter(plain) {
        let Some(gpu) = row.aliases.first().and_then(|a| resolve_gpu(a, catalog).ok()) else { continue };
        if here(&gpu) && !out.iter().any(|other| alike(other, &gpu)) {
            out.push(gpu);
        }
    }
    out.sort_by_key(|g| std::cmp::Reverse(g.cc));
    Ok(out)
}
