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

use crate::facts::json::{TimingJson, ToolJson};

/// What every format needs beside the report.
#[derive(Clone, Debug)]
pub struct Context {
    pub tool: ToolJson,
    /// Absent with `--no-timing`.
    pub timing: Option<TimingJson>,
    pub as_of: String,
}
