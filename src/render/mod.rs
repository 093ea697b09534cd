//! A report -> text for people or JSON for programs. One file per format; each reads the report and writes.

pub mod compare;
pub mod inspect;
pub mod json;
pub mod matrix;
pub mod plan;
pub mod style;
pub mod text;
pub mod tree;
pub mod weight;

use crate::facts::ImageIdentity;
use crate::facts::json::{TimingJson, ToolJson};
use style::{Style, safe};

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
