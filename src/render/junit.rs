//! [`Report`] -> JUnit XML as Jenkins and GitLab read it: a suite per image and target, a case per check, those that held too.

use super::style::safe;
use super::{Context, Document};
use crate::report::{Evidence, Level, Outcome, Report, ReportedFinding};
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

/// All suites of a run.
pub struct Suites {
    fails: Fails,
    suites: Vec<TestSuite>,
}

/// What makes a case a failure.
#[derive(Clone, Copy)]
pub struct Fails {
    /// Findings of this level or above.
    pub from: Option<Level>,
    /// What the facts do not decide, too.
    pub unknown: bool,
}

impl Suites {
    pub fn new(fails: Fails) -> Suites {
        Suites { fails, suites: Vec::new() }
    }
}

impl Document for Suites {
    fn add(&mut self, report: &Report, _: &Context) {
        let image = &report.inventory.facts.image;
        let name = safe(&format!("{} ({})", image.reference, image.platform));
        let mut suites: Vec<TestSuite> = report
            .targets
            .iter()
            .map(|target| {
                suite(&format!("{name} on {}", safe(&target.name)), Some(&target.name), report, self.fails)
            })
            .collect();
        let of_the_image = suite(&name, None, report, self.fails);
        if report.targets.is_empty() || !of_the_image.test_cases.is_empty() {
            suites.insert(0, of_the_image);
        }
        if let Some(first) = suites.first_mut().filter(|_| !report.complete) {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_message("a part of the image could not be read");
            first.add_test_case(TestCase::new("the image was read completely", status));
        }
        self.suites.extend(suites);
    }

    fn finish(self: Box<Self>) -> String {
        let mut report = quick_junit::Report::new("cudalint");
        report.add_test_suites(self.suites);
        // Only a text that is no XML could make this fail, and `safe` leaves none.
        let mut out = report.to_string().unwrap_or_default();
        if !out.ends_with('\n') {
            out.push('\n');
        }
        out
    }
}

fn suite(name: &str, target: Option<&String>, report: &Report, fails: Fails) -> TestSuite {
    let mut suite = TestSuite::new(name);
    let is_of = |f: &&ReportedFinding| match target {
        Some(target) => f.targets.contains(target),
        None => f.targets.is_empty(),
    };
    for reported in report.findings.iter().chain(&report.passed).filter(is_of) {
        suite.add_test_case(case(reported, fails));
    }
    suite
}

fn case(reported: &ReportedFinding, fails: Fails) -> TestCase {
    let finding = &reported.finding;
    let path = finding.evidence.first().map(|e: &Evidence| e.place.path.as_str());
    let about = finding.component.as_deref().or(path.filter(|p| *p != "/"));
    let name = match about {
        Some(about) => format!("{} {}: {about}", finding.rule.code, finding.rule.name),
        None => format!("{} {}", finding.rule.code, finding.rule.name),
    };
    let unknown = finding.outcome == Outcome::Unknown;
    let fails = fails.from.is_some_and(|threshold| finding.level >= threshold) || fails.unknown && unknown;
    let mut status = match (&reported.suppressed, finding.level) {
        (_, Level::Pass) => TestCaseStatus::success(),
        (Some(suppression), _) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(safe(&format!("suppressed: {}", suppression.reason)));
            status
        }
        _ if fails => TestCaseStatus::non_success(NonSuccessKind::Failure),
        _ if unknown => TestCaseStatus::skipped(),
        _ => TestCaseStatus::success(),
    };
    let told = reported.suppressed.is_none() && finding.level != Level::Pass;
    let succeeds = matches!(status, TestCaseStatus::Success { .. });
    if told && !succeeds {
        status.set_message(safe(&finding.message));
        if fails {
            status.set_type(finding.level.name());
            status.set_description(details(reported));
        }
    }
    let mut case = TestCase::new(safe(&name), status);
    case.set_classname(format!("cudalint.{}", finding.rule.name));
    if let Some(line) = &reported.line {
        case.extra.insert("file".into(), safe(&line.file).into());
        case.extra.insert("line".into(), line.start.to_string().into());
    } else if let Some(path) = path {
        case.extra.insert("file".into(), safe(path).into());
    }
    if told && succeeds {
        case.set_system_out(format!(
            "{}: {}\n{}",
            finding.level.name(),
            safe(&finding.message),
            details(reported)
        ));
    }
    case
}

fn details(reported: &ReportedFinding) -> String {
    let finding = &reported.finding;
    let mut lines: Vec<String> =
        finding.evidence.iter().map(|e| format!("{}: {}", e.place.path, e.detail)).collect();
    lines.extend(finding.host.as_ref().map(|h| format!("on the host: {h}")));
    lines.extend(finding.runtime_error.as_ref().map(|e| format!("at run time: {}", super::error_words(e))));
    lines.extend(finding.remedies.iter().map(|r| format!("fix: {r}")));
    lines.iter().map(|l| safe(l)).collect::<Vec<_>>().join("\n")
}
