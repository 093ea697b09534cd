//! A report and what a team decided (configuration, baseline, labels where allowed) -> the same report with levels set and
//! findings suppressed. Verdicts stay as they are; only what counts for the exit status changes.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod baseline;
pub mod file;
pub mod ignore;

use crate::report::{Level, Report, ReportedFinding, RuleId, Suppression};
use baseline::Baseline;
use ignore::Ignore;

/// Rules by code, name, or the beginning of a code: `CUL101`, `driver-too-old`, `CUL2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(String);

impl Selector {
    /// `known`: all rules. An error where the text selects none of them.
    pub fn parse(text: &str, known: &[RuleId]) -> Result<Selector, String> {
        let text = text.trim();
        let selector = Selector(match text.get(..3) {
            Some(family) if family.eq_ignore_ascii_case("CUL") => text.to_ascii_uppercase(),
            _ => text.to_ascii_lowercase(),
        });
        match known.iter().any(|rule| selector.selects(*rule)) {
            true => Ok(selector),
            false => Err(match closest(text, known.iter().map(|r| r.name)) {
                Some(name) => format!("no rule `{text}`; did you mean `{name}`?"),
                None => format!("no rule `{text}`; `cudalint rules` lists them"),
            }),
        }
    }

    pub fn selects(&self, rule: RuleId) -> bool {
        let prefix = self.0.len() > 3 && rule.code.starts_with(&self.0) && self.0.starts_with("CUL");
        prefix || self.0 == rule.name || self.0 == "CUL"
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The known word that is nearest to a typed one, if any is near.
pub fn closest<'k>(typed: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let near = known.map(|word| (strsim::damerau_levenshtein(word, typed), word)).min();
    near.filter(|(distance, word)| *distance <= word.len() / 3).map(|(_, word)| word)
}

/// What a team decided about findings.
#[derive(Default)]
pub struct Gate {
    /// Empty: every rule.
    pub select: Vec<Selector>,
    pub ignore: Vec<Selector>,
    /// The last that fits wins.
    pub levels: Vec<(Selector, Level)>,
    pub ignores: Vec<Ignore>,
    pub baseline: Option<Baseline>,
    /// The day by which ignores expire, as `2026-11-20`.
    pub as_of: String,
}

impl Gate {
    /// Sets levels and suppressions.
    pub fn apply(&mut self, report: &mut Report) {
        let image = &report.inventory.facts.image;
        let names = [image.reference.as_str(), image.repository.as_str()];
        for ignore in &mut self.ignores {
            ignore.saw(report, &names);
        }
        let mut out = Vec::new();
        for mut finding in std::mem::take(&mut report.findings) {
            if let Some((_, level)) = self.levels.iter().rev().find(|(s, _)| s.selects(finding.finding.rule))
            {
                finding.finding.level = *level;
            }
            self.suppress(finding, report, &names, &mut out);
        }
        report.findings = out;
        report.arrange();
    }

    /// A finding that only some targets' decision covers becomes two.
    fn suppress(
        &mut self,
        finding: ReportedFinding,
        report: &Report,
        names: &[&str],
        out: &mut Vec<ReportedFinding>,
    ) {
        if let Some(reason) = self.unselected(finding.finding.rule) {
            out.push(ReportedFinding { suppressed: Some(Suppression { reason, until: None }), ..finding });
            return;
        }
        let mut rest = finding;
        for ignore in &mut self.ignores {
            if ignore.is_expired(&self.as_of) {
                // Only so that it is known what it would cover.
                let _targets = ignore.covers(&rest, report, names);
            } else if let Some(covered) = ignore.covers(&rest, report, names) {
                let Some(left) = split(rest, &covered, &ignore.suppression(), out) else { return };
                rest = left;
            }
        }
        if let Some(baseline) = &self.baseline
            && let Some(covered) = baseline.covers(&rest)
        {
            let Some(left) = split(rest, &covered, &baseline.suppression(), out) else { return };
            rest = left;
        }
        out.push(rest);
    }

    fn unselected(&self, rule: RuleId) -> Option<String> {
        if let Some(selector) = self.ignore.iter().find(|s| s.selects(rule)) {
            return Some(format!("ignored by `--ignore {selector}` or `[rules] ignore`"));
        }
        let selected = self.select.is_empty() || self.select.iter().any(|s| s.selects(rule));
        (!selected).then(|| "not among the rules of `--select` or `[rules] select`".to_owned())
    }

    /// What the person who wrote the ignores should know: which are unused, which have expired.
    pub fn remarks(&self) -> Vec<String> {
        self.ignores.iter().filter_map(|i| i.remark(&self.as_of)).collect()
    }
}

/// Suppresses a finding for the targets in `covered`; what is left of it otherwise.
fn split(
    finding: ReportedFinding,
    covered: &[String],
    suppression: &Suppression,
    out: &mut Vec<ReportedFinding>,
) -> Option<ReportedFinding> {
    let (suppressed, left): (Vec<String>, Vec<String>) =
        finding.targets.iter().cloned().partition(|t| covered.contains(t));
    let rest = (!left.is_empty()).then(|| ReportedFinding { targets: left, ..finding.clone() });
    out.push(ReportedFinding { targets: suppressed, suppressed: Some(suppression.clone()), ..finding });
    rest
}
