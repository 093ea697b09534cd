//! Merged files and packages -> CUDA components: runtimes, libraries, frameworks, compat packages, and the GPU code of
//! each part. What it amounts to, before any host is looked at.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod compat;
pub mod components;
pub mod gpu_code;
pub mod requirements;

use crate::catalog::Catalog;
use crate::facts::{ImageFacts, Place};
use crate::version::Version;
use compat::CompatLibrary;
use gpu_code::CodeGroup;

/// What an image brings for the GPU.
pub struct Inventory<'a> {
    pub facts: &'a ImageFacts,
    /// Sorted by kind, component, path.
    pub components: Vec<Component>,
    pub runtimes: Vec<Runtime>,
    pub code: Vec<CodeGroup>,
    pub compat: Vec<CompatLibrary>,
    pub requirements: requirements::Requirements,
}

/// One row of the stack.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// `cudart`, `cublas`, `torch` …
    pub component: String,
    /// For people: `CUDA runtime`, `cuBLAS`, `torch`.
    pub display: String,
    pub kind: ComponentKind,
    pub version: Option<String>,
    /// CUDA release it was built with or belongs to, major.minor.
    pub cuda: Option<Version>,
    pub linkage: Option<Linkage>,
    pub place: Place,
    /// What the version was read from.
    pub how: String,
    pub origin: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ComponentKind {
    Toolkit,
    Library,
    Framework,
    Compat,
    Driver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    Dynamic,
    Static,
}

/// A CUDA runtime that a process of the image may load.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    pub version: RuntimeVersion,
    pub linkage: Linkage,
    pub place: Place,
    /// What the version was read from.
    pub how: String,
}

/// How much of a runtime's version is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuntimeVersion {
    /// `12.4` or `12.4.127`.
    Exactly(Version),
    /// `libcudart.so.12` alone says 12.x.
    Major(u64),
    /// The code of a runtime is there, its version is not.
    Unknown,
}

impl RuntimeVersion {
    pub fn major(&self) -> Option<u64> {
        match self {
            RuntimeVersion::Exactly(version) => Some(version.major()),
            RuntimeVersion::Major(major) => Some(*major),
            RuntimeVersion::Unknown => None,
        }
    }
}

impl std::fmt::Display for RuntimeVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RuntimeVersion::Exactly(version) => version.fmt(f),
            RuntimeVersion::Major(major) => write!(f, "{major}.x"),
            RuntimeVersion::Unknown => f.write_str("of unknown version"),
        }
    }
}

/// Builds the inventory of an image.
pub fn build<'a>(facts: &'a ImageFacts, catalog: &Catalog) -> Inventory<'a> {
    let (components, runtimes) = components::find(facts, catalog);
    let code = gpu_code::group(facts, catalog);
    let requirements = requirements::of(&runtimes, &code, catalog);
    Inventory { facts, components, runtimes, code, compat: compat::find(facts, catalog), requirements }
}

impl Inventory<'_> {
    /// Whether anything inside uses the GPU. A compat package or a driver library alone is no use.
    pub fn uses_gpu(&self) -> bool {
        let library = |c: &Component| c.kind == ComponentKind::Library;
        !self.runtimes.is_empty()
            || !self.code.is_empty()
            || self.components.iter().any(library)
            || self.facts.files.iter().any(|f| f.elf.as_ref().is_some_and(uses_driver_api))
    }
}

fn uses_driver_api(elf: &crate::facts::ElfFacts) -> bool {
    elf.needed.iter().any(|n| n.starts_with("libcuda.so")) || !elf.driver_api.is_empty()
}
