//! [`Report`] -> SARIF 2.1.0, as code scanning takes it: one run per image, results where people edit, fingerprints that stay
//! the same when tag, digest and layers change.
//!
//! GitHub takes 20 runs, 5,000 shown results per run, and asks every result for a location and a fingerprint
//! (<https://docs.github.com/en/code-security/reference/code-scanning/sarif-files/sarif-support-for-code-scanning>).

use super::style::safe;
use super::{Context, Document, Ordinals, RuleDoc};
use crate::names::percent_encoded;
use crate::report::{Evidence, Report, ReportedFinding};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Results that GitHub shows of one run.
const RESULTS_MAX: usize = 5_000;
/// Files of one result that are listed beside the first.
const RELATED_MAX: usize = 20;
/// What paths inside the image are relative to.
const ROOT: &str = "IMAGEROOT";

/// A log with one run per image.
pub struct Log {
    rules: Vec<RuleDoc>,
    runs: Vec<Value>,
    categories: Vec<String>,
}

impl Log {
    /// `rules`: every rule, for those that results name.
    pub fn new(rules: Vec<RuleDoc>) -> Log {
        Log { rules, runs: Vec::new(), categories: Vec::new() }
    }
}

impl Document for Log {
    fn add(&mut self, report: &Report, context: &Context) {
        // GitHub takes one run of a category: of two tags of one image the second is told apart by its number.
        let category = category(report);
        let same = self.categories.iter().filter(|c| **c == category).count();
        let id = if same == 0 { category.clone() } else { format!("{category}-{}", same + 1) };
        self.categories.push(category);
        self.runs.push(run(report, context, &self.rules, &id));
    }

    fn finish(self: Box<Self>) -> String {
        super::pretty(&json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": self.runs,
        }))
    }
}

fn run(report: &Report, context: &Context, all: &[RuleDoc], category: &str) -> Value {
    let shown = report.findings.get(..RESULTS_MAX).unwrap_or(&report.findings);
    let used: BTreeSet<&str> = shown.iter().map(|f| f.finding.rule.code).collect();
    let rules: Vec<&RuleDoc> = all.iter().filter(|r| used.contains(r.code)).collect();
    let mut ordinals = Ordinals::default();
    let results: Vec<Value> =
        shown.iter().map(|finding| result(finding, ordinals.next(finding), &rules, report)).collect();
    json!({
        "tool": { "driver": {
            "name": "cudalint",
            "fullName": format!("cudalint {}", context.tool.version),
            "version": context.tool.version,
            "semanticVersion": context.tool.version,
            "informationUri": env!("CARGO_PKG_HOMEPAGE"),
            "rules": rules.iter().map(|r| rule(r)).collect::<Vec<_>>(),
        } },
        // What stands before the last slash is the category: uploads of other images do not close these alerts.
        "automationDetails": { "id": format!("cudalint/{category}/") },
        "originalUriBaseIds": { ROOT: { "description": { "text": "Root of the file system in the container image." } } },
        "columnKind": "unicodeCodePoints",
        "results": results,
        "invocations": [{
            "executionSuccessful": report.complete,
            "toolExecutionNotifications": notifications(report, shown.len()),
        }],
    })
}

fn category(report: &Report) -> String {
    let platform = report.inventory.facts.image.platform.to_string();
    uri(&format!("{} {platform}", report.inventory.facts.image.repository).replace(['/', ' '], "-"))
}

fn notifications(report: &Report, shown: usize) -> Vec<Value> {
    let say = |level: &str, text: String| json!({ "level": level, "message": { "text": text } });
    let mut out = Vec::new();
    let left_out = report.findings.len().saturating_sub(shown);
    if left_out > 0 {
        out.push(say(
            "warning",
            format!("{left_out} more findings are left out; the JSON report has them all."),
        ));
    }
    if !report.complete {
        out.push(say(
            "error",
            "A part of the image could not be read; what it holds is not judged.".to_owned(),
        ));
    }
    out
}

fn rule(rule: &RuleDoc) -> Value {
    json!({
        "id": rule.code,
        "name": pascal(rule.name),
        "shortDescription": { "text": sentence(rule.summary) },
        "fullDescription": { "text": sentence(rule.summary) },
        "help": { "text": rule.page, "markdown": rule.page },
        "properties": { "tags": ["cuda", "gpu", "container"], "precision": "high" },
    })
}

/// `driver-too-old` as SARIF names rules: `DriverTooOld`.
fn pascal(name: &str) -> String {
    let upper = |part: &str| {
        let mut chars = part.chars();
        chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
    };
    name.split('-').map(upper).collect()
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let rest = chars.as_str().trim_end_matches('.');
    format!("{first}{rest}.")
}

fn result(reported: &ReportedFinding, ordinal: usize, rules: &[&RuleDoc], report: &Report) -> Value {
    let finding = &reported.finding;
    let hash = reported.fingerprint.get(..16).unwrap_or(&reported.fingerprint);
    let mut result = json!({
        "ruleId": finding.rule.code,
        "ruleIndex": rules.iter().position(|r| r.code == finding.rule.code),
        "level": finding.level.name(),
        "kind": "fail",
        "message": { "text": message(reported, report) },
        "locations": [location(reported, report)],
        "partialFingerprints": { "primaryLocationLineHash": format!("{hash}:{ordinal}") },
        "properties": { "targets": reported.targets, "component": finding.component.as_deref().map(safe) },
    });
    let Some(object) = result.as_object_mut() else { return result };
    let inside = |e: &&Evidence| !e.place.path.is_root();
    let skipped = usize::from(reported.line.is_none());
    let related: Vec<Value> = finding
        .evidence
        .iter()
        .filter(inside)
        .skip(skipped)
        .take(RELATED_MAX)
        .zip(1..)
        .map(|(e, id): (_, u32)| {
            let mut place = in_image(e, report);
            if let Some(place) = place.as_object_mut() {
                place.insert("id".to_owned(), json!(id));
                place.insert("message".to_owned(), json!({ "text": plain(&e.detail) }));
            }
            place
        })
        .collect();
    if !related.is_empty() {
        object.insert("relatedLocations".to_owned(), json!(related));
    }
    if let Some(suppression) = &reported.suppressed {
        let entry =
            json!({ "kind": "external", "status": "accepted", "justification": plain(&suppression.reason) });
        object.insert("suppressions".to_owned(), json!([entry]));
    }
    result
}

/// Which image on which host, then claim, error and fix.
fn message(reported: &ReportedFinding, report: &Report) -> String {
    let finding = &reported.finding;
    let image = &report.inventory.facts.image;
    let on = match reported.targets.as_slice() {
        [] => String::new(),
        targets => format!(" on {}", targets.join(", ")),
    };
    let mut text = format!("{} ({}){on}: {}.", image.reference, image.platform, finding.message);
    if let Some(evidence) = finding.evidence.first().filter(|e| !e.place.path.is_root()) {
        text.push_str(&format!(" File: {}.", evidence.place.path));
    }
    if let Some(error) = &finding.runtime_error {
        text.push_str(&format!(" At run time: {}", super::error_words(error)));
        if !text.ends_with('.') {
            text.push('.');
        }
    }
    for remedy in &finding.remedies {
        text.push_str(&format!(" Fix: {}.", remedy.trim_end_matches('.')));
    }
    plain(&text)
}

/// Without control characters, and without what SARIF viewers would take for a link.
fn plain(text: &str) -> String {
    safe(text).replace("](", "] (")
}

fn location(reported: &ReportedFinding, report: &Report) -> Value {
    let first = reported.finding.evidence.iter().find(|e| !e.place.path.is_root());
    let first = first.or_else(|| reported.finding.evidence.first());
    let Some(line) = &reported.line else {
        return first.map_or_else(|| json!({}), |e| in_image(e, report));
    };
    let logical = first.map(|e| logical(e, report));
    json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri(&line.file) },
            "region": { "startLine": line.start, "startColumn": 1, "endLine": line.end, "endColumn": 2 },
        },
        "logicalLocations": logical.into_iter().collect::<Vec<_>>(),
    })
}

fn in_image(evidence: &Evidence, report: &Report) -> Value {
    let path = super::path_in_image(&evidence.place.path, &report.inventory.facts.image);
    json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri(&path), "uriBaseId": ROOT },
            "region": { "startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 2 },
        },
        "logicalLocations": [logical(evidence, report)],
    })
}

fn logical(evidence: &Evidence, report: &Report) -> Value {
    let digest = report.inventory.facts.image.digest.as_ref();
    let digest = digest.map_or_else(String::new, |d| format!("@{d}"));
    let name = format!("{}{digest}:{}", report.inventory.facts.image.repository, evidence.place.path);
    json!({ "fullyQualifiedName": safe(&name), "kind": "resource" })
}

/// A relative URI. A colon in the first part would be a scheme.
fn uri(path: &str) -> String {
    percent_encoded(path, b"/")
}
