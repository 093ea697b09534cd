//! A report -> what people and programs read. One file per format; each reads the report and writes.

pub mod compare;
pub mod github;
pub mod gitlab;
pub mod html;
pub mod inspect;
pub mod json;
pub mod junit;
pub mod markdown;
pub mod matrix;
pub mod plan;
pub mod sarif;
pub mod style;
pub mod text;
pub mod tree;
pub mod weight;

use crate::facts::ImageIdentity;
use crate::facts::json::{TimingJson, ToolJson};
use crate::names::ImagePath;
use crate::report::{Level, Report, ReportedFinding, RuntimeError, Suppression};
use serde::Serialize;
use std::collections::BTreeMap;
use style::{Style, safe};

/// A document that the reports of a run go into, one after the other.
pub trait Document {
    fn add(&mut self, report: &Report, context: &Context);
    fn finish(self: Box<Self>) -> String;
}

/// A rule as documents describe it.
#[derive(Clone, Copy, Debug)]
pub struct RuleDoc {
    pub code: &'static str,
    pub name: &'static str,
    pub summary: &'static str,
    /// Its page, in Markdown.
    pub page: &'static str,
}

/// Indented JSON with a final newline. What a terminal could take for a command, or for a change of direction, is escaped: it can
/// only stand within a string.
pub fn pretty(document: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(document).unwrap_or_default();
    let mut out = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if style::is_treacherous(c) && c != '\n' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out.push('\n');
    out
}

/// How many findings with a fingerprint came, so that equal ones can be told apart.
#[derive(Default)]
struct Ordinals(BTreeMap<String, usize>);

impl Ordinals {
    /// 1 for the first of its fingerprint.
    fn next(&mut self, finding: &ReportedFinding) -> usize {
        let count = self.0.entry(finding.fingerprint.clone()).or_default();
        *count += 1;
        *count
    }
}

/// `cudaErrorInsufficientDriver (35): CUDA driver version is insufficient for CUDA runtime version`.
fn error_words(error: &RuntimeError) -> String {
    match (&error.name, error.code) {
        (Some(name), Some(code)) => format!("{name} ({code}): {}", error.text),
        _ => error.text.clone(),
    }
}

/// An image as the first line of a text names it: reference, platform, digest, where known.
fn title(image: &ImageIdentity, style: Style) -> Vec<String> {
    let mut parts = vec![style.bold(&safe(&image.reference))];
    if !image.platform.os.is_empty() {
        parts.push(safe(&image.platform.to_string()));
    }
    parts.extend(image.digest.as_ref().map(|d| d.short().to_owned()));
    parts
}

/// What every format needs beside the report.
#[derive(Clone, Debug)]
pub struct Context {
    pub tool: ToolJson,
    /// Absent with `--no-timing`.
    pub timing: Option<TimingJson>,
    pub as_of: String,
}

/// The last part of the image's name: `train` of `registry.example.com/team/train`, `layout` of `oci:../layout`.
fn last_name(image: &ImageIdentity) -> &str {
    let parts = image.repository.rsplit(['/', ':', '\\']);
    parts.map(|p| p.trim_matches('.')).find(|p| !p.is_empty()).unwrap_or("image")
}

/// A file as documents name it that want a path outside of any image: `train/opt/lib.so`; the image alone for its settings.
fn path_in_image(path: &ImagePath, image: &ImageIdentity) -> String {
    let path = path.as_str().trim_start_matches('/');
    let name = last_name(image);
    if path.is_empty() { name.to_owned() } else { format!("{name}/{path}") }
}

/// `1 error, 0 warnings, 2 notes. Lowest driver: 525.60.13.`
fn closing_words(report: &Report) -> String {
    let counts = [(Level::Error, "error"), (Level::Warning, "warning"), (Level::Note, "note")]
        .map(|(level, word)| plural(report.count(level), word));
    let lowest = report.lowest_driver.as_ref().map_or_else(String::new, |d| format!(" Lowest driver: {d}."));
    format!("{}.{lowest}", counts.join(", "))
}

/// `the T4 machines go in January, until 2027-01-31`.
fn suppression_words(suppression: &Suppression) -> String {
    let until = suppression.until.as_ref().map_or_else(String::new, |u| format!(", until {u}"));
    format!("{}{until}", suppression.reason)
}

/// `14 layers, 6.1 GB`, where their size is known.
fn layers_words(image: &ImageIdentity) -> String {
    let size = image.layers.iter().filter_map(|l| l.size).fold(0, u64::saturating_add);
    let layers = plural(image.layers.len(), "layer");
    if size > 0 { format!("{layers}, {}", style::bytes(size)) } else { layers }
}

/// `1 error`, `2 errors`.
fn plural(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

#[cfg(test)]
mod tests {
    use super::pretty;

    #[test]
    fn json_holds_no_control_character_and_says_the_same() {
        let text = "a\u{7f}\u{9b}31m\u{202e}\u{ffff}\u{1f600}\n\"";
        let written = pretty(&text);
        assert!(written.trim_end().chars().all(|c| !super::style::is_treacherous(c)), "{written}");
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
    }
}
