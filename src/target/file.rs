//! A targets file (TOML) -> [`Target`]s. Unknown keys are errors: a misspelt one would silently judge less.

use super::profile::{
    Brand, GpuRequest, Host, KernelModule, Kind, RuntimeMode, architecture, toolkit_version,
};
use super::{Driver, Target, TargetError, gpu};
use crate::catalog::Catalog;
use crate::names::located;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A targets file.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetsFile {
    #[serde(default)]
    target: Vec<Row>,
}

/// Hosts that are alike. Only `name` and one of `driver`, `cuda`, `gpus` are required; what is absent is not known.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    /// A branch (535) or a version (535.183.01).
    driver: Option<String>,
    /// The CUDA version that nvidia-smi prints, in place of the driver.
    cuda: Option<String>,
    /// One target; its verdict is the worst over its GPUs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gpus: Vec<String>,
    /// data-center, geforce, workstation, vgpu, wsl or tegra.
    kind: Option<String>,
    /// As NVML names it: Tesla, GeForce, NVIDIA.
    brand: Option<String>,
    /// Version of the NVIDIA container toolkit.
    container_toolkit: Option<String>,
    /// legacy, cdi or csv.
    runtime_mode: Option<String>,
    /// open or proprietary.
    kernel_module: Option<String>,
    /// Architecture as images write it: amd64, arm64.
    arch: Option<String>,
    os: Option<String>,
    /// Who asks for GPUs: engine, image or nobody.
    gpu_request: Option<String>,
    /// Whether the container stack loads compat libraries of images.
    cuda_compat: Option<bool>,
    /// Nodes like this one.
    count: Option<u64>,
    /// Labels of the nodes, for admission: a pod whose selector they do not fit does not land there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

/// Reads all targets of a file, in its order.
pub(super) fn read(text: &str, catalog: &Catalog) -> Result<Vec<Target>, TargetError> {
    let file: TargetsFile = toml::from_str(text).map_err(|e| {
        let hint = "see `[[target]]` in the documentation: name, and driver, cuda or gpus".to_owned();
        TargetError::new(located(text, &e), hint)
    })?;
    if file.target.is_empty() {
        return Err(TargetError::new("it has no [[target]]".to_owned(), None));
    }
    let mut out: Vec<Target> = Vec::new();
    for row in file.target {
        let name = row.name.clone();
        let target = target(row, catalog)
            .map_err(|e| TargetError { message: format!("target `{name}`: {}", e.message), hint: e.hint })?;
        if out.iter().any(|t| t.name == target.name) {
            return Err(TargetError::new(format!("two targets are named `{name}`"), None));
        }
        out.push(target);
    }
    Ok(out)
}

fn target(row: Row, catalog: &Catalog) -> Result<Target, TargetError> {
    let driver = match (&row.driver, &row.cuda) {
        (Some(_), Some(_)) => {
            return Err(TargetError::new("driver and cuda exclude each other".to_owned(), None));
        }
        (Some(text), None) => Some(Driver::parse(text, catalog)?),
        (None, Some(text)) => Some(Driver::from_cuda(text, catalog)?),
        (None, None) => None,
    };
    let mut gpus = Vec::new();
    for name in &row.gpus {
        let gpu = gpu::resolve(name, catalog)?;
        if !gpus.contains(&gpu) {
            gpus.push(gpu);
        }
    }
    if row.count == Some(0) {
        return Err(TargetError::new("its count is 0".to_owned(), "leave the target out".to_owned()));
    }
    if row.name.trim().is_empty() {
        return Err(TargetError::new("its name is empty".to_owned(), None));
    }
    if driver.is_none() && gpus.is_empty() {
        return Err(TargetError::new("it has neither driver nor cuda nor gpus".to_owned(), None));
    }
    let host = Host {
        container_toolkit: row.container_toolkit.as_deref().map(toolkit_version).transpose()?,
        runtime_mode: row.runtime_mode.as_deref().map(RuntimeMode::parse).transpose()?,
        brand: row.brand.as_deref().map(Brand::check_nvml).transpose()?,
        kind: row.kind.as_deref().map(Kind::parse).transpose()?,
        kernel_module: row.kernel_module.as_deref().map(KernelModule::parse).transpose()?,
        arch: row.arch.as_deref().map(architecture).transpose()?,
        os: row.os,
        gpu_request: row.gpu_request.as_deref().map(GpuRequest::parse).transpose()?,
        cuda_compat: row.cuda_compat,
        unknown_gpus: Vec::new(),
        count: row.count,
        labels: row.labels,
    };
    Ok(Target { name: row.name, driver, gpus, host })
}

/// Writes a target so that [`read`] gives it back, as far as the form has words for it.
pub fn write(target: &Target, catalog: &Catalog) -> String {
    let driver = target.driver.as_ref();
    let bare = driver.filter(|d| d.version.is_none()).and_then(|d| d.known.cuda.as_ref());
    // A product that the catalog does not know is written by its compute capability.
    let name = |g: &gpu::Gpu| match gpu::resolve(&g.typed, catalog) {
        Ok(same) if same.cc == g.cc => g.typed.clone(),
        _ => g.cc.to_string(),
    };
    let host = &target.host;
    let row = Row {
        name: target.name.clone(),
        driver: driver.filter(|d| d.version.is_some()).map(|d| d.text.clone()),
        cuda: bare.map(ToString::to_string),
        gpus: target.gpus.iter().map(name).collect(),
        kind: host.kind.map(|k| k.name().to_owned()),
        brand: host.brand.clone(),
        container_toolkit: host.container_toolkit.as_ref().map(ToString::to_string),
        runtime_mode: host.runtime_mode.map(|m| m.name().to_owned()),
        kernel_module: host.kernel_module.map(|m| m.name().to_owned()),
        arch: host.arch.clone(),
        os: host.os.clone(),
        gpu_request: host.gpu_request.map(|r| r.name().to_owned()),
        cuda_compat: host.cuda_compat,
        count: host.count,
        labels: host.labels.clone(),
    };
    // Strings and numbers alone: nothing in it can fail to be written.
    toml::to_string(&TargetsFile { target: vec![row] }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_profile_is_read() {
        let text = "[[target]]\nname = \"train-pool\"\ndriver = \"535.183.01\"\ngpus = [\"h100\", \"l4\"]\n\
                    kind = \"data-center\"\nbrand = \"Tesla\"\ncontainer_toolkit = \"1.17.8\"\nruntime_mode = \"legacy\"\n\
                    kernel_module = \"open\"\narch = \"amd64\"\nos = \"ubuntu 22.04\"\ncount = 12\n";
        let targets = read(text, &Catalog::built_in().unwrap()).unwrap();
        assert_eq!(targets.len(), 1);
        assert_eq!(targets[0].gpus.len(), 2);
        assert_eq!(targets[0].host.runtime_mode, Some(RuntimeMode::Legacy));
        assert_eq!(targets[0].not_asked(), Vec::<&str>::new());
    }

    #[test]
    fn what_makes_no_sense_is_said_with_the_name_of_the_target() {
        let catalog = Catalog::built_in().unwrap();
        let error = |text: &str| read(text, &catalog).unwrap_err().message;
        assert!(error("[[target]]\nname = \"a\"\n").contains("target `a`: it has neither"));
        assert!(error("[[target]]\nname = \"a\"\ndriver = \"535\"\nruntime = \"cdi\"\n").contains("runtime"));
        assert!(error("[[target]]\nname = \"a\"\ngpus = [\"h1oo\"]\n").contains("`h1oo`"));
        assert!(error("").contains("no [[target]]"));
        assert!(error("[[target]]\nname = \" \"\ndriver = \"535\"\n").contains("name is empty"));
        assert!(error("[[target]]\nname = \"a\"\ndriver = \"535\"\narch = \"x86_64\"\n").contains("x86_64"));
        assert!(error("[[target]]\nname = \"a\"\ndriver = \"535\"\nbrand = \"Tsela\"\n").contains("Tsela"));
    }
}
