//! An earlier report (`--baseline`) -> which findings were known when it was made.

use crate::report::{Level, ReportedFinding, Suppression};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Findings of an earlier report: fingerprint -> level and targets.
pub struct Baseline {
    file: String,
    known: BTreeMap<String, Vec<Known>>,
}

struct Known {
    level: Level,
    targets: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    Several { schema_version: u32, reports: Vec<Findings> },
    One { schema_version: u32, findings: Vec<Row> },
}

#[derive(Deserialize)]
struct Findings {
    findings: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    fingerprint: String,
    level: String,
    targets: Vec<String>,
    #[serde(default)]
    suppressed: Option<serde::de::IgnoredAny>,
}

impl Baseline {
    /// Reads what `check --format json` wrote. An error says in words what is wrong with it.
    pub fn read(file: &str, bytes: &[u8]) -> Result<Baseline, String> {
        let document: Document = serde_json::from_slice(bytes).map_err(|e| match e.is_data() {
            true => "no report; `cudalint check … -o json=FILE` writes one".to_owned(),
            false => format!("no valid JSON: {e}"),
        })?;
        let (version, rows) = match document {
            Document::One { schema_version, findings } => (schema_version, findings),
            Document::Several { schema_version, reports } => {
                (schema_version, reports.into_iter().flat_map(|r| r.findings).collect())
            }
        };
        if version != 1 {
            return Err(format!("a report of schema_version {version}; this version reads 1"));
        }
        let mut known: BTreeMap<String, Vec<Known>> = BTreeMap::new();
        // What was suppressed then was decided elsewhere, perhaps until a day that has passed.
        for row in rows.into_iter().filter(|r| r.suppressed.is_none()) {
            // Reports list no checks that held; whatever else stands there counts least.
            let level = Level::of_name(&row.level).unwrap_or(Level::Note).max(Level::Note);
            known.entry(row.fingerprint).or_default().push(Known { level, targets: row.targets });
        }
        Ok(Baseline { file: file.to_owned(), known })
    }

    pub(super) fn suppression(&self) -> Suppression {
        Suppression { reason: format!("known since the baseline `{}`", self.file), until: None }
    }

    /// The targets for which a finding was known at this level or a worse one; `None`: for none. A fingerprint does not name
    /// targets, and what was known to fail on one host says nothing of another.
    pub(super) fn covers(&self, finding: &ReportedFinding) -> Option<Vec<String>> {
        let known = self.known.get(&finding.fingerprint)?;
        let as_bad = |k: &&Known| k.level >= finding.finding.level;
        if finding.targets.is_empty() {
            return known.iter().any(|k| as_bad(&k)).then(Vec::new);
        }
        let covered: Vec<String> = finding
            .targets
            .iter()
            .filter(|t| known.iter().filter(as_bad).any(|k| k.targets.contains(t)))
            .cloned()
            .collect();
        (!covered.is_empty()).then_some(covered)
    }
}
