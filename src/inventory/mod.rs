//! Merged files and packages -> CUDA components: runtimes, libraries, frameworks, compat packages, and the GPU code of
//! each part. What it amounts to, before any host is looked at.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod compat;
pub mod components;
pub mod frameworks;
pub mod gaps;
pub mod gpu_code;
pub mod loader;
pub mod loading;
pub mod processes;
pub mod requirements;
pub mod versions;
pub mod weight;

use crate::catalog::Catalog;
use crate::facts::{ImageFacts, Place};
use crate::version::Version;
use compat::CompatLibrary;
use gpu_code::CodeGroup;
use processes::Processes;

/// What an image brings for the GPU.
pub struct Inventory<'a> {
    pub facts: &'a ImageFacts,
    /// Sorted by kind, component, path.
    pub components: Vec<Component>,
    pub frameworks: Vec<frameworks::Framework>,
    pub runtimes: Vec<Runtime>,
    pub code: Vec<CodeGroup>,
    pub compat: Vec<CompatLibrary>,
    pub requirements: requirements::Requirements,
    pub processes: Processes<'a>,
    /// What loading every part of the stack meets; empty where that cannot be said, as of a single file.
    pub loading: Vec<loading::Group<'a>>,
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
    /// A source of the version that says something else than the one that is printed.
    pub disagreement: Option<String>,
    /// Some program or package of the image loads it; `None` where nothing was seen to, which proves nothing.
    pub reachable: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ComponentKind {
    Toolkit,
    Library,
    Framework,
    Compat,
    Driver,
}

impl ComponentKind {
    pub fn name(self) -> &'static str {
        match self {
            ComponentKind::Toolkit => "toolkit",
            ComponentKind::Library => "library",
            ComponentKind::Framework => "framework",
            ComponentKind::Compat => "compat",
            ComponentKind::Driver => "driver",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    Dynamic,
    Static,
}

impl Linkage {
    pub fn name(self) -> &'static str {
        match self {
            Linkage::Dynamic => "dynamic",
            Linkage::Static => "static",
        }
    }
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
    let frameworks = frameworks::find(facts, catalog);
    let (components, runtimes) = components::find(facts, &frameworks, catalog);
    let code = gpu_code::group(facts, catalog);
    let requirements = requirements::of(&runtimes, &code, catalog);
    let processes = Processes::of(facts, catalog);
    let compat = compat::find(facts, &processes.loader, catalog);
    let mut loading = loading::groups(facts, &processes, catalog);
    if processes.loader.gave_up() || facts.is_single_file() {
        loading.clear();
    }
    let loaded = loading::loaded_paths(&loading);
    let mut components = components;
    for component in &mut components {
        component.reachable = loaded.contains(&component.place.path).then_some(true);
    }
    Inventory { facts, components, frameworks, runtimes, code, compat, requirements, processes, loading }
}

impl Inventory<'_> {
    /// The row of the stack for a library file.
    pub fn component_at(&self, file: &crate::facts::FileFacts) -> Option<&Component> {
        self.components
            .iter()
            .find(|c| c.place.path == file.place.path && c.linkage == Some(Linkage::Dynamic))
    }

    /// The version of a library file.
    pub fn version_at(&self, file: &crate::facts::FileFacts) -> Option<Version> {
        self.component_at(file)?.version.as_deref().and_then(Version::leading)
    }

    /// Whether a file is one of those whose loading was looked at.
    pub fn is_member(&self, file: &crate::facts::FileFacts) -> bool {
        self.loading.iter().flat_map(|g| &g.members).any(|m| m.file.place == file.place)
    }

    /// Installed frameworks of a catalog family.
    pub fn family<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s frameworks::Framework> + 's {
        self.frameworks.iter().filter(move |f| f.family == name)
    }

    /// The installed distribution of a name.
    pub fn framework(&self, name: &str) -> Option<&frameworks::Framework> {
        self.frameworks.iter().find(|f| f.name == name)
    }

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
    // Video decoders and encoders use the GPU without libcuda among their needs.
    const DRIVER: [&str; 3] = ["libcuda.so", "libnvcuvid.so", "libnvidia-encode.so"];
    elf.needed.iter().any(|n| DRIVER.iter().any(|d| n.starts_with(d))) || !elf.driver_api.is_empty()
}
