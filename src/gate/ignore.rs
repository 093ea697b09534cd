//! One `[[ignore]]`: which findings it covers, and whether it still does anything.

use super::Selector;
use crate::report::{GpuVerdict, Report, ReportedFinding, Suppression, TargetVerdict};
use globset::{Glob, GlobBuilder, GlobMatcher};

/// A decision to live with findings of a rule. Scopes that are given must all fit.
pub struct Ignore {
    /// Where it was written: `cudalint.toml, ignore 2`.
    pub place: String,
    pub rule: Selector,
    pub reason: String,
    /// The last day on which it counts, as `2026-12-31`.
    pub expires: Option<String>,
    pub image: Option<Pattern>,
    pub path: Option<Pattern>,
    pub soname: Option<String>,
    pub component: Option<String>,
    pub target: Option<TargetScope>,
    /// It covered a finding.
    used: bool,
    /// An image within its scope was judged for a target within it.
    seen: bool,
}

/// A glob: `*` stays within one part between slashes, `**` crosses them.
pub struct Pattern(GlobMatcher);

impl Pattern {
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let glob: Result<Glob, _> = GlobBuilder::new(text).literal_separator(true).build();
        glob.map(|g| Pattern(g.compile_matcher()))
            .map_err(|e| format!("`{text}` is no pattern: {}", e.kind()))
    }

    fn fits(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// Which targets an ignore is for.
pub enum TargetScope {
    Name(Pattern),
    /// `gpu:h100`: every GPU of the target is one.
    Gpu(String),
    /// `driver:535`: a branch or a full version.
    Driver(String),
}

impl TargetScope {
    pub fn parse(text: &str) -> Result<TargetScope, String> {
        match text.split_once(':') {
            Some((kind, name)) if kind.eq_ignore_ascii_case("gpu") => Ok(TargetScope::Gpu(plain(name))),
            Some((kind, version)) if kind.eq_ignore_ascii_case("driver") => {
                Ok(TargetScope::Driver(version.trim().to_owned()))
            }
            _ => Pattern::parse(text).map(TargetScope::Name),
        }
    }

    fn fits(&self, target: &TargetVerdict) -> bool {
        match self {
            TargetScope::Name(pattern) => pattern.fits(&target.name),
            TargetScope::Gpu(name) => {
                let is = |g: &GpuVerdict| {
                    let shown = g.describe.split(" (sm_").next().unwrap_or_default();
                    let sm = format!("sm{}", g.cc.sm_number());
                    [plain(&g.name), plain(shown), sm, plain(&g.cc.to_string())].contains(name)
                };
                !target.gpus.is_empty() && target.gpus.iter().all(is)
            }
            TargetScope::Driver(version) => target.driver.as_deref().is_some_and(|driver| {
                driver == version || driver.strip_prefix(version.as_str()).is_some_and(|r| r.starts_with('.'))
            }),
        }
    }
}

/// `RTX 2080 Ti`, `rtx-2080-ti`, `NVIDIA GeForce RTX 2080 Ti` as one word without the maker's names.
fn plain(name: &str) -> String {
    let kept: String = name.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
    kept.replace("nvidia", "").replace("geforce", "").replace("tesla", "")
}

impl Ignore {
    pub fn new(place: String, rule: Selector, reason: String) -> Ignore {
        Ignore {
            place,
            rule,
            reason,
            expires: None,
            image: None,
            path: None,
            soname: None,
            component: None,
            target: None,
            used: false,
            seen: false,
        }
    }

    /// Dates are compared as text: year, month, day.
    pub(super) fn is_expired(&self, as_of: &str) -> bool {
        self.expires.as_deref().is_some_and(|last| last < as_of)
    }

    pub(super) fn suppression(&self) -> Suppression {
        Suppression { reason: self.reason.clone(), until: self.expires.clone() }
    }

    /// Takes note of an image that is looked at, if it and one of its targets are within the scope.
    pub(super) fn saw(&mut self, report: &Report, names: &[&str]) {
        let target = self.target.as_ref().is_none_or(|scope| report.targets.iter().any(|t| scope.fits(t)));
        self.seen |= target && self.fits_image(names);
    }

    fn fits_image(&self, names: &[&str]) -> bool {
        self.image.as_ref().is_none_or(|p| names.iter().any(|n| p.fits(n)))
    }

    /// The targets of the finding for which it counts; `None`: it does not cover the finding at all.
    pub(super) fn covers(
        &mut self,
        finding: &ReportedFinding,
        report: &Report,
        names: &[&str],
    ) -> Option<Vec<String>> {
        if !self.rule.selects(finding.finding.rule) || !self.fits_image(names) || !self.fits_files(finding) {
            return None;
        }
        let targets = match &self.target {
            None => finding.targets.clone(),
            Some(scope) => {
                let fits = |t: &&TargetVerdict| finding.targets.contains(&t.name) && scope.fits(t);
                let covered: Vec<String> =
                    report.targets.iter().filter(fits).map(|t| t.name.clone()).collect();
                if covered.is_empty() {
                    return None;
                }
                covered
            }
        };
        self.used = true;
        Some(targets)
    }

    /// Where a finding rests on several files, all of them must be within the scope.
    fn fits_files(&self, finding: &ReportedFinding) -> bool {
        let mut paths =
            finding.finding.evidence.iter().map(|e| &e.place.path).filter(|p| !p.is_root()).peekable();
        let any = paths.peek().is_some();
        let fits = paths.all(|path| {
            self.path.as_ref().is_none_or(|p| p.fits(path.as_str()))
                && self.soname.as_ref().is_none_or(|s| path.file_name() == s)
        });
        let scoped = self.path.is_some() || self.soname.is_some();
        let component =
            self.component.as_ref().is_none_or(|c| finding.finding.component.as_deref() == Some(c));
        component && (!scoped || any && fits)
    }

    /// What its author should know.
    pub(super) fn remark(&self, as_of: &str) -> Option<String> {
        match (&self.expires, self.used) {
            (Some(day), true) if self.is_expired(as_of) => Some(format!(
                "{}: the ignore of {} expired on {day}; its findings count again",
                self.place, self.rule
            )),
            (_, false) if self.seen => Some(format!(
                "{}: the ignore of {} covers nothing any more; remove it",
                self.place, self.rule
            )),
            _ => None,
        }
    }
}
