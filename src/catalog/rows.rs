//! The shape of catalog rows. Fields that no judgment reads stay in the files.

use crate::version::{ComputeCapability, Version};
use serde::{Deserialize, Deserializer};

/// How sure a row is: measured, stated by its source, or concluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    Verified,
    Documented,
    #[default]
    Inferred,
}

impl Status {
    pub fn is_inferred(self) -> bool {
        self == Status::Inferred
    }
}

fn version<'de, D: Deserializer<'de>>(from: D) -> Result<Version, D::Error> {
    let text = String::deserialize(from)?;
    Version::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no version")))
}

fn optional_version<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Version>, D::Error> {
    version(from).map(Some)
}

fn capability<'de, D: Deserializer<'de>>(from: D) -> Result<ComputeCapability, D::Error> {
    let text = String::deserialize(from)?;
    ComputeCapability::parse(&text)
        .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no compute capability")))
}

fn capabilities<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ComputeCapability>, D::Error> {
    let texts: Vec<String> = Vec::deserialize(from)?;
    texts
        .iter()
        .map(|t| ComputeCapability::parse(t))
        .collect::<Option<_>>()
        .ok_or_else(|| serde::de::Error::custom("a compute capability is malformed"))
}

/// A driver branch. `cuda_max`: what its `cuDriverGetVersion` reports.
#[derive(Clone, Debug, Deserialize)]
pub struct Branch {
    pub branch: u32,
    #[serde(deserialize_with = "version")]
    pub cuda_max: Version,
    #[serde(default)]
    pub cuda_max_status: Option<Status>,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub end_of_life: Option<String>,
    #[serde(deserialize_with = "capabilities")]
    pub cc: Vec<ComputeCapability>,
    pub status: Status,
    pub source: String,
}

impl Branch {
    /// A production or long-term branch.
    pub fn is_stable(&self) -> bool {
        matches!(self.kind.as_str(), "PB" | "LTSB")
    }

    /// Whether the CUDA version that the branch reports is measured or documented.
    pub fn cuda_is_sure(&self) -> bool {
        !self.cuda_max_status.unwrap_or(self.status).is_inferred()
    }
}

/// First and last driver branch of a compute capability.
#[derive(Clone, Debug, Deserialize)]
pub struct DriverArch {
    #[serde(deserialize_with = "capability")]
    pub cc: ComputeCapability,
    pub architecture: String,
    pub first_branch: u32,
    #[serde(default)]
    pub last_branch: Option<u32>,
    pub status: Status,
    pub source: String,
}

/// A Jetson driver: its numbers fit no desktop branch.
#[derive(Clone, Debug, Deserialize)]
pub struct Tegra {
    pub l4t: String,
    pub jetpack: String,
    /// `540.2.0 / 540.3.0`, `580`, or words.
    pub driver: String,
    #[serde(deserialize_with = "version")]
    pub cuda_max: Version,
    #[serde(deserialize_with = "capabilities")]
    pub cc: Vec<ComputeCapability>,
    pub status: Status,
    pub source: String,
}

/// A release of the driver.
#[derive(Clone, Debug, Deserialize)]
pub struct DriverRelease {
    #[serde(deserialize_with = "version")]
    pub version: Version,
    pub status: Status,
    pub source: String,
}

/// A CUDA toolkit release and the driver it shipped with.
#[derive(Clone, Debug, Deserialize)]
pub struct Toolkit {
    #[serde(deserialize_with = "version")]
    pub version: Version,
    #[serde(deserialize_with = "version")]
    pub cuda: Version,
    #[serde(default, deserialize_with = "optional_version")]
    pub linux_driver_min: Option<Version>,
    pub driver_branch: u32,
    #[serde(default, deserialize_with = "optional_version")]
    pub cudart: Option<Version>,
    pub status: Status,
    pub source: String,
}

/// Minor-version compatibility of a CUDA major.
#[derive(Clone, Debug, Deserialize)]
pub struct Family {
    pub cuda_major: u64,
    /// The documented floor.
    #[serde(deserialize_with = "version")]
    pub linux_driver_min: Version,
    /// The branch below which libcudart returns error 35.
    pub branch_min: u32,
    /// `cuDriverGetVersion` value below which libcudart returns error 35.
    pub error_35_below: u32,
    pub status: Status,
    pub source: String,
}

/// A PTX ISA version and the first CUDA release whose JIT accepts it.
#[derive(Clone, Debug, Deserialize)]
pub struct PtxIsa {
    #[serde(deserialize_with = "version")]
    pub ptx: Version,
    #[serde(deserialize_with = "version")]
    pub cuda: Version,
    pub driver_branch: u32,
    pub status: Status,
    pub source: String,
}

/// A GPU architecture.
#[derive(Clone, Debug, Deserialize)]
pub struct ArchRow {
    #[serde(deserialize_with = "capability")]
    pub cc: ComputeCapability,
    pub architecture: String,
    pub tegra: bool,
    #[serde(deserialize_with = "version")]
    pub first_toolkit: Version,
    #[serde(default, deserialize_with = "optional_version")]
    pub last_toolkit: Option<Version>,
    pub status: Status,
    pub source: String,
}

/// A product.
#[derive(Clone, Debug, Deserialize)]
pub struct Gpu {
    pub name: String,
    #[serde(deserialize_with = "capability")]
    pub cc: ComputeCapability,
    pub architecture: String,
    pub gpu_class: String,
    pub form: String,
    pub tegra: bool,
    /// `yes`, `no`, `no-unless-ngc-ready`, `jetson-package`.
    pub forward_compat: String,
    #[serde(default)]
    pub aliases: Vec<String>,
    pub status: Status,
    pub source: String,
}

/// A name that fits products of several generations.
#[derive(Clone, Debug, Deserialize)]
pub struct Ambiguous {
    pub alias: String,
    pub candidates: Vec<String>,
    pub note: String,
}

/// A cloud instance family.
#[derive(Clone, Debug, Deserialize)]
pub struct Cloud {
    pub provider: String,
    pub instance: String,
    pub gpu: String,
    #[serde(default)]
    pub note: String,
    pub status: Status,
}

/// A forward-compatibility package.
#[derive(Clone, Debug, Deserialize)]
pub struct CompatPackage {
    pub package: String,
    #[serde(deserialize_with = "version")]
    pub cuda: Version,
    pub driver_branch: u32,
    pub status: Status,
    pub source: String,
}

/// One cell of the published matrix.
#[derive(Clone, Debug, Deserialize)]
pub struct CompatCell {
    pub package: String,
    #[serde(deserialize_with = "version")]
    pub cuda: Version,
    pub base_branch: u32,
    /// `compatible`, `not-needed`, `not-compatible`.
    pub result: String,
    pub status: Status,
    pub source: String,
}

/// The newest package for a base branch that is end of life.
#[derive(Clone, Debug, Deserialize)]
pub struct HistoricBase {
    pub base_branch: u32,
    #[serde(deserialize_with = "version")]
    pub cuda_max_with_compat: Version,
    pub status: Status,
    pub source: String,
}

/// A CUDA error code.
#[derive(Clone, Debug, Deserialize)]
pub struct ErrorRow {
    pub code: i64,
    #[serde(default)]
    pub driver_name: Option<String>,
    #[serde(default)]
    pub runtime_name: Option<String>,
    #[serde(default)]
    pub text: Option<String>,
    pub status: Status,
    pub source: String,
}

/// What the GPU code of a library is for: `components.toml` tells the meaning of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodeRole {
    Core,
    Part,
    RuntimeBuilt,
    Optional,
    Instrumentation,
    None,
}

/// A library of the CUDA stack.
#[derive(Clone, Debug, Deserialize)]
pub struct ComponentRow {
    pub component: String,
    pub display: String,
    pub stems: Vec<String>,
    pub pip: Vec<String>,
    pub packages: Vec<String>,
    pub device_code: CodeRole,
    pub status: Status,
    pub source: String,
}

/// A framework, recognised by its Python distribution or conda package.
#[derive(Clone, Debug, Deserialize)]
pub struct FrameworkRow {
    pub component: String,
    pub pip: Vec<String>,
    #[serde(default)]
    pub conda: Vec<String>,
    /// Distributions of the family that never use a GPU.
    #[serde(default)]
    pub cpu: Vec<String>,
    /// Files whose GPU code decides for the whole package.
    pub main: Vec<String>,
    /// The file that says what it was built for, below the site directory.
    #[serde(default)]
    pub version_file: Option<String>,
    pub status: Status,
    pub source: String,
}

/// When a framework works through its list of libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PreloadWhen {
    /// Always, best effort.
    Import,
    /// Only where its first attempt to load failed; then it tries again.
    LoadError,
}

/// Libraries that a framework opens by itself, by absolute path below the site directory.
#[derive(Clone, Debug, Deserialize)]
pub struct PreloadRow {
    pub id: String,
    pub distribution: String,
    /// Where the files of the package stand, below the site directory.
    pub modules: Vec<String>,
    #[serde(deserialize_with = "version")]
    pub from: Version,
    #[serde(deserialize_with = "version")]
    pub below: Version,
    pub when: PreloadWhen,
    /// Stems, in the order of loading.
    pub libraries: Vec<String>,
    pub status: Status,
    pub source: String,
}

/// Names that a framework's library opens at run time, by the CUDA release that it was built with.
#[derive(Clone, Debug, Deserialize)]
pub struct DlopenRow {
    pub id: String,
    pub framework: String,
    #[serde(deserialize_with = "version")]
    pub cuda_from: Version,
    #[serde(deserialize_with = "version")]
    pub cuda_below: Version,
    pub sonames: Vec<String>,
    pub status: Status,
    pub source: String,
}

/// A release of a library with a known fault.
#[derive(Clone, Debug, Deserialize)]
pub struct BugRow {
    pub id: String,
    pub component: String,
    #[serde(deserialize_with = "version")]
    pub from: Version,
    #[serde(deserialize_with = "version")]
    pub below: Version,
    /// Majors of the compute capabilities that meet it; empty = all.
    #[serde(default)]
    pub cc_majors: Vec<u32>,
    /// A second component that must be there for it.
    #[serde(default)]
    pub with: Option<String>,
    #[serde(default, deserialize_with = "optional_version")]
    pub with_from: Option<Version>,
    #[serde(default, deserialize_with = "optional_version")]
    pub with_below: Option<Version>,
    /// Only processes that use more than one GPU meet it.
    #[serde(default)]
    pub several_gpus: bool,
    pub effect: String,
    pub text: String,
    pub fix: String,
    pub status: Status,
    pub source: String,
}

/// From which release on cuDNN lacks kernels for older GPUs.
#[derive(Clone, Debug, Deserialize)]
pub struct CudnnGpu {
    #[serde(deserialize_with = "version")]
    pub from: Version,
    #[serde(deserialize_with = "capability")]
    pub cc_min: ComputeCapability,
    pub status: Status,
    pub source: String,
}

/// A release of Triton and the assembler in it.
#[derive(Clone, Debug, Deserialize)]
pub struct TritonRow {
    #[serde(deserialize_with = "version")]
    pub version: Version,
    #[serde(deserialize_with = "version")]
    pub ptxas: Version,
    #[serde(default, deserialize_with = "optional_version")]
    pub ptxas_blackwell: Option<Version>,
    /// `>=10.0`: compute capabilities for which the second assembler is used.
    #[serde(default)]
    pub blackwell_used_for_cc: Option<String>,
    pub status: Status,
    pub source: String,
}

/// A word of `NVIDIA_DRIVER_CAPABILITIES` and what it brings in legacy mode.
#[derive(Clone, Debug, Deserialize)]
pub struct CapabilityRow {
    pub id: String,
    /// Names up to `.so`.
    pub libraries: Vec<String>,
    pub programs: Vec<String>,
    /// Libraries of the image that open these.
    #[serde(default)]
    pub loaders: Vec<String>,
    pub status: Status,
    pub source: String,
}

/// What libcuda of a range of branches needs from the image.
#[derive(Clone, Debug, Deserialize)]
pub struct DriverNeed {
    pub id: String,
    pub branch_from: u32,
    pub branch_below: u32,
    /// Highest glibc symbol version.
    #[serde(deserialize_with = "version")]
    pub glibc: Version,
    pub libraries: Vec<String>,
    pub status: Status,
    pub source: String,
}

/// A name that belongs to a list.
#[derive(Clone, Debug, Deserialize)]
pub struct NamedRow {
    pub id: String,
    pub status: Status,
    pub source: String,
}

/// The newest release of a driver branch that mends a bulletin.
#[derive(Clone, Debug, Deserialize)]
pub struct DriverFix {
    pub branch: u32,
    #[serde(deserialize_with = "version")]
    pub fixed_version: Version,
    pub bulletin: u32,
    /// `current`, or in words why no more fixes come.
    pub state: String,
    pub status: Status,
    pub source: String,
}

/// A vulnerability of the container toolkit.
#[derive(Clone, Debug, Deserialize)]
pub struct ToolkitFix {
    pub cve: String,
    pub bulletin: u32,
    pub severity: String,
    #[serde(deserialize_with = "version")]
    pub affected_up_to: Version,
    #[serde(deserialize_with = "version")]
    pub fixed_version: Version,
    pub effect: String,
    /// CDI modes are not concerned.
    #[serde(default)]
    pub legacy_only: bool,
    /// Below this release only CDI modes are concerned.
    #[serde(default, deserialize_with = "optional_version")]
    pub cdi_only_below: Option<Version>,
    pub status: Status,
    pub source: String,
}
