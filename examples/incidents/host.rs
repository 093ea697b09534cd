//! A record's `host` -> the target that cudalint judges for.

use cudalint::catalog::Catalog;
use cudalint::target::profile::{Brand, GpuRequest, Host as Profile, Kind, RuntimeMode, toolkit_version};
use cudalint::target::{Driver, Gpu, Target, resolve_gpu};
use cudalint::version::{ComputeCapability, Version};
use serde::Deserialize;

/// As the record writes it; what is absent is not stated.
#[derive(Default, Deserialize)]
pub(crate) struct Host {
    driver: Option<String>,
    cuda_driver: Option<String>,
    gpu: Option<String>,
    cc: Option<String>,
    pub(crate) platform: Option<String>,
    runtime: Option<String>,
    runtime_mode: Option<String>,
    toolkit: Option<String>,
    compat_active: Option<bool>,
}

/// `None` where nothing is said that a verdict could hang on.
pub(crate) fn target(host: &Host, catalog: &Catalog) -> Option<Target> {
    let profile = profile(host);
    let gpus = gpus(host, catalog);
    let driver = driver(host, catalog);
    let said = driver.is_some() || !gpus.is_empty() || profile != Profile::default();
    said.then(|| Target { name: "host".to_owned(), driver, gpus, host: profile })
}

fn driver(host: &Host, catalog: &Catalog) -> Option<Driver> {
    let by_version = host.driver.as_deref().and_then(|d| Driver::parse(d, catalog).ok());
    by_version.or_else(|| Driver::from_cuda(host.cuda_driver.as_deref()?, catalog).ok())
}

/// Products joined by ` + `, each with its compute capability.
fn gpus(host: &Host, catalog: &Catalog) -> Vec<Gpu> {
    let split = |text: &Option<String>| -> Vec<String> {
        text.iter().flat_map(|t| t.split(" + ")).map(|t| t.trim().to_owned()).collect()
    };
    let (names, capabilities) = (split(&host.gpu), split(&host.cc));
    let count = names.len().max(capabilities.len());
    (0..count).filter_map(|i| gpu(names.get(i), capabilities.get(i), catalog)).collect()
}

/// The product where the catalog knows it and agrees; else the compute capability, with what the name says of the brand.
fn gpu(name: Option<&String>, cc: Option<&String>, catalog: &Catalog) -> Option<Gpu> {
    let wanted = cc.and_then(|c| ComputeCapability::parse(c));
    let known = name.and_then(|n| resolve_gpu(n, catalog).ok());
    if let Some(known) = known.filter(|g| wanted.is_none_or(|w| w == g.cc)) {
        return Some(known);
    }
    let mut gpu = resolve_gpu(cc?, catalog).ok()?;
    if name.is_some_and(|n| {
        n.contains("GeForce") || n.contains("RTX 3") || n.contains("RTX 4") || n.contains("RTX 5")
    }) {
        gpu.forward_compat = Some(false);
        gpu.brands = vec![Brand::GeForce];
    }
    Some(gpu)
}

fn profile(host: &Host) -> Profile {
    let runtime = host.runtime.as_deref().unwrap_or_default();
    let stated = host.runtime_mode.as_deref().and_then(|m| RuntimeMode::parse(m).ok());
    let toolkit =
        host.toolkit.as_deref().unwrap_or_default().trim_start_matches("libnvidia-container").trim();
    // `<1.18.2` is a bound: below 1.18 it still says that the mode is legacy.
    let bound = toolkit.strip_prefix('<').and_then(|b| Version::parse(b.trim_start_matches('=').trim()));
    let old = bound.as_ref().is_some_and(|b| *b <= Version::of(1, 18));
    // The hook of nvidia-docker 2 and of `docker --gpus` is the legacy mode.
    let without = ["without --gpus", "no --gpus", "not requested"].iter().any(|w| runtime.contains(w));
    let hook = runtime.contains("nvidia-docker") || runtime.contains("--gpus") && !without;
    let kind = match host.platform.as_deref() {
        Some("wsl2") => Some(Kind::Wsl),
        _ => None,
    };
    let nobody = without && (runtime.contains("without --runtime") || runtime.contains("runc"));
    // enroot's hook reads the image's variables, as the NVIDIA runtime does.
    let only_image =
        without || ["runtime=nvidia", "runtime nvidia", "enroot"].iter().any(|w| runtime.contains(w));
    let by_engine = !without && ["--gpus", "kubernetes", "device plugin"].iter().any(|w| runtime.contains(w));
    Profile {
        container_toolkit: toolkit_version(toolkit).ok().filter(|_| bound.is_none()),
        runtime_mode: stated.or((hook || old).then_some(RuntimeMode::Legacy)),
        kind,
        gpu_request: match (by_engine, only_image) {
            _ if nobody => Some(GpuRequest::Nobody),
            (true, _) => Some(GpuRequest::Engine),
            (false, true) => Some(GpuRequest::Image),
            (false, false) => None,
        },
        cuda_compat: host.compat_active,
        ..Profile::default()
    }
}
