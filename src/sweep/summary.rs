//! The rows of a sweep -> what they amount to: how many images run on each host, what stops the others, and which driver would
//! help how many of them.

use crate::render::style::safe;
use crate::sweep::rows::{ImageRowJson, SWEEP_SCHEMA, Status};
use crate::version::Version;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Images named per rule in the text.
const EXAMPLES_MAX: usize = 3;
/// Images named that could not be read, in the text.
const UNREAD_MAX: usize = 10;

/// The document of `cudalint sweep --json`.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct SummaryJson {
    pub sweep_schema: u32,
    pub as_of: String,
    pub images: usize,
    /// Distinct manifests among them.
    pub distinct: usize,
    pub incomplete: Vec<String>,
    pub unreadable: Vec<UnreadableJson>,
    pub targets: Vec<TargetSummaryJson>,
    pub rules: Vec<RuleSummaryJson>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct UnreadableJson {
    pub reference: String,
    pub message: String,
}

/// How the images do on one host.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct TargetSummaryJson {
    pub name: String,
    pub runs: usize,
    pub degraded: usize,
    pub fails: usize,
    pub unknown: usize,
    pub no_gpu_code: usize,
    /// With each driver, how many of those that fail would run: each number includes those before it.
    pub drivers: Vec<DriverSummaryJson>,
    /// How many no driver helps.
    pub no_driver_helps: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct DriverSummaryJson {
    pub driver: String,
    pub images: usize,
}

/// A rule with the images that it speaks of; suppressed findings do not count.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RuleSummaryJson {
    pub rule: String,
    pub name: String,
    pub level: String,
    pub targets: Vec<String>,
    pub images: Vec<String>,
    /// Who wants these images.
    pub wanted_by: usize,
}

/// Sums up rows; of an image that has several the last counts.
pub fn summary(as_of: &str, rows: impl IntoIterator<Item = ImageRowJson>) -> SummaryJson {
    let by_name: BTreeMap<String, ImageRowJson> =
        rows.into_iter().map(|row| (row.reference.clone(), row)).collect();
    let mut sum = Sum::default();
    for row in by_name.into_values() {
        sum.add(row);
    }
    sum.finish(as_of)
}

#[derive(Default)]
struct Sum {
    out: SummaryJson,
    digests: BTreeSet<String>,
    targets: BTreeMap<String, (TargetSummaryJson, BTreeMap<Version, usize>)>,
    /// By level and code: a rule may be an error in one image and a warning in another.
    rules: BTreeMap<(String, String), RuleSum>,
}

struct RuleSum {
    row: RuleSummaryJson,
    targets: BTreeSet<String>,
    wanted_by: BTreeSet<String>,
}

impl Sum {
    fn add(&mut self, row: ImageRowJson) {
        self.out.images += 1;
        match row.status {
            Status::Judged => {}
            Status::Incomplete => self.out.incomplete.push(row.reference.clone()),
            Status::Unreadable => {
                let message = row.error.map(|e| e.message).unwrap_or_default();
                self.out.unreadable.push(UnreadableJson { reference: row.reference, message });
                return;
            }
        }
        self.digests.extend(row.digest.clone());
        for target in &row.targets {
            let (sum, drivers) = self.targets.entry(target.name.clone()).or_default();
            sum.name.clone_from(&target.name);
            let count = match target.verdict.as_str() {
                "runs" => &mut sum.runs,
                "degraded" => &mut sum.degraded,
                "fails" => &mut sum.fails,
                "no-gpu-code" => &mut sum.no_gpu_code,
                _ => &mut sum.unknown,
            };
            *count += 1;
            if target.verdict == "fails" {
                match target.runs_from_driver.as_deref().and_then(Version::parse) {
                    Some(driver) => *drivers.entry(driver).or_default() += 1,
                    None => sum.no_driver_helps += 1,
                }
            }
        }
        for finding in row.findings.iter().filter(|f| !f.suppressed) {
            let key = (finding.level.clone(), finding.rule.clone());
            let sum = self.rules.entry(key).or_insert_with(|| RuleSum {
                row: RuleSummaryJson {
                    rule: finding.rule.clone(),
                    name: finding.name.clone(),
                    level: finding.level.clone(),
                    targets: Vec::new(),
                    images: Vec::new(),
                    wanted_by: 0,
                },
                targets: BTreeSet::new(),
                wanted_by: BTreeSet::new(),
            });
            sum.targets.extend(finding.targets.iter().cloned());
            sum.wanted_by.extend(row.wanted_by.iter().cloned());
            if sum.row.images.last() != Some(&row.reference) {
                sum.row.images.push(row.reference.clone());
            }
        }
    }

    fn finish(mut self, as_of: &str) -> SummaryJson {
        self.out.sweep_schema = SWEEP_SCHEMA;
        as_of.clone_into(&mut self.out.as_of);
        self.out.distinct = self.digests.len();
        for (mut target, drivers) in self.targets.into_values() {
            let mut sum = 0;
            for (driver, images) in drivers {
                sum += images;
                target.drivers.push(DriverSummaryJson { driver: driver.to_string(), images: sum });
            }
            self.out.targets.push(target);
        }
        for mut sum in self.rules.into_values() {
            sum.row.targets = sum.targets.into_iter().collect();
            sum.row.wanted_by = sum.wanted_by.len();
            self.out.rules.push(sum.row);
        }
        // Within a level what concerns most images comes first.
        let rank = |level: &str| ["error", "warning", "note"].iter().position(|l| *l == level);
        self.out.rules.sort_by_key(|r| (rank(&r.level), std::cmp::Reverse(r.images.len())));
        self.out
    }
}

fn images(count: usize) -> String {
    format!("{count} {}", if count == 1 { "image" } else { "images" })
}

/// The report as people read it: notes are left out.
pub fn text(summary: &SummaryJson) -> String {
    let mut out = String::new();
    let _ = write!(out, "{}, {} distinct", images(summary.images), summary.distinct);
    for (count, what) in [(summary.unreadable.len(), "not read"), (summary.incomplete.len(), "read in part")]
    {
        if count > 0 {
            let _ = write!(out, ", {count} {what}");
        }
    }
    out.push('\n');
    if !summary.targets.is_empty() {
        let width = summary.targets.iter().map(|t| t.name.chars().count()).max().unwrap_or(0).max(4);
        let _ = writeln!(
            out,
            "\n{:width$}  {:>6}  {:>8}  {:>6}  {:>7}  {:>11}",
            "host", "runs", "degraded", "fails", "unknown", "no GPU code"
        );
        for t in &summary.targets {
            let _ = writeln!(
                out,
                "{:width$}  {:>6}  {:>8}  {:>6}  {:>7}  {:>11}",
                safe(&t.name),
                t.runs,
                t.degraded,
                t.fails,
                t.unknown,
                t.no_gpu_code
            );
        }
    }
    for t in summary.targets.iter().filter(|t| t.fails > 0) {
        let helps = t.drivers.iter().map(|d| format!("driver {} lets {} run", d.driver, d.images));
        let rest = (t.no_driver_helps > 0).then(|| format!("no driver alone helps {}", t.no_driver_helps));
        let words: Vec<String> = helps.chain(rest).collect();
        let word = if t.fails == 1 { "fails" } else { "fail" };
        let _ = writeln!(out, "\n{}: {} {word}; {}", safe(&t.name), t.fails, words.join(", "));
    }
    for rule in summary.rules.iter().filter(|r| r.level != "note") {
        let on = match rule.targets.as_slice() {
            [] => String::new(),
            targets => format!(" on {}", safe(&targets.join(", "))),
        };
        let by = match rule.wanted_by {
            0 => String::new(),
            1 => ", wanted by 1 object".to_owned(),
            n => format!(", wanted by {n} objects"),
        };
        let _ = writeln!(
            out,
            "\n{}[{}] {}: {}{by}{on}",
            rule.level,
            rule.rule,
            rule.name,
            images(rule.images.len())
        );
        for image in rule.images.iter().take(EXAMPLES_MAX) {
            let _ = writeln!(out, "  {}", safe(image));
        }
        if rule.images.len() > EXAMPLES_MAX {
            let _ = writeln!(out, "  and {} more", rule.images.len() - EXAMPLES_MAX);
        }
    }
    if !summary.unreadable.is_empty() {
        out.push_str("\nnot read\n");
        for image in summary.unreadable.iter().take(UNREAD_MAX) {
            let _ = writeln!(out, "  {}", safe(&image.message));
        }
        if summary.unreadable.len() > UNREAD_MAX {
            let _ = writeln!(out, "  and {} more", summary.unreadable.len() - UNREAD_MAX);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(
        reference: &str,
        verdict: &str,
        driver: Option<&str>,
        finding: Option<(&str, &str)>,
    ) -> ImageRowJson {
        let finding = finding.map(|(rule, level)| {
            serde_json::json!({ "rule": rule, "name": "n", "level": level, "message": "m", "component": null,
                "path": null, "created_by": null, "targets": ["535"], "remedies": [], "fingerprint": "f", "suppressed": false })
        });
        let row = serde_json::json!({
            "reference": reference, "wanted_by": [format!("Pod {reference}")], "digest": format!("sha256:{reference}"),
            "platform": "linux/amd64", "status": "judged", "error": null, "verdict": verdict,
            "targets": [{ "name": "535", "verdict": verdict, "how": [], "rules": [], "runs_from_driver": driver }],
            "min_driver": null, "full_driver": null, "native": [], "jit_from": [], "stack": [],
            "findings": finding.into_iter().collect::<Vec<_>>(), "facts": null,
            "total_ms": 1, "bytes_downloaded": 0, "layers": 1, "layers_cached": 0,
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn drivers_add_up_and_what_concerns_most_comes_first() {
        let summary = summary(
            "2026-11-20",
            [
                row("a", "runs", None, Some(("CUL103", "note"))),
                row("b", "fails", Some("570"), Some(("CUL101", "error"))),
                row("c", "fails", Some("525.60.13"), Some(("CUL101", "error"))),
                row("d", "fails", None, Some(("CUL201", "error"))),
                row("d", "fails", None, Some(("CUL201", "error"))),
            ],
        );
        assert_eq!((summary.images, summary.distinct), (4, 4), "an image with two rows is one image");
        let target = &summary.targets[0];
        assert_eq!((target.runs, target.fails, target.no_driver_helps), (1, 3, 1));
        let drivers: Vec<(&str, usize)> =
            target.drivers.iter().map(|d| (d.driver.as_str(), d.images)).collect();
        assert_eq!(drivers, [("525.60.13", 1), ("570", 2)]);
        let rules: Vec<(&str, usize)> =
            summary.rules.iter().map(|r| (r.rule.as_str(), r.images.len())).collect();
        assert_eq!(rules, [("CUL101", 2), ("CUL201", 1), ("CUL103", 1)]);
        let text = text(&summary);
        assert!(text.contains("535: 3 fail; driver 525.60.13 lets 1 run, driver 570 lets 2 run"));
        assert!(text.contains("error[CUL101] n: 2 images, wanted by 2 objects on 535"), "{text}");
    }
}
