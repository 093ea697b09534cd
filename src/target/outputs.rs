//! What tools print on a host (`nvidia-smi` in its forms, `nvidia-container-cli info`, `/proc/driver/nvidia/version`) -> what
//! the host says of itself. Nothing is guessed: what a text does not say stays unknown.

use super::TargetError;
use super::profile::{Brand, KernelModule};
use regex::Regex;
use std::sync::LazyLock;

/// What one host says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// Version of the kernel module.
    pub driver: Option<String>,
    /// CUDA version that the driver reports.
    pub cuda: Option<String>,
    pub gpus: Vec<SaidGpu>,
    pub kernel_module: Option<KernelModule>,
    /// OCI architecture.
    pub arch: Option<String>,
    pub platform: Option<Platform>,
}

/// One GPU of a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SaidGpu {
    /// As NVML names it.
    pub name: String,
    /// Whether the tool cut the name to the width of its table.
    pub cut: bool,
    /// As NVML names it.
    pub brand: Option<String>,
    /// As libnvidia-container names it, where it was asked.
    pub known_brand: Option<Brand>,
    /// Compute capability.
    pub cc: Option<String>,
    /// MIG profiles: `1g.5gb`.
    pub mig: Vec<String>,
}

/// Systems whose drivers count differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    Windows,
    Wsl2,
    Tegra,
}

/// Reads any of the outputs; which one it is shows in the text.
pub fn read(text: &str) -> Result<Said, TargetError> {
    refused(text)?;
    let trimmed = text.trim_start_matches('\u{feff}').trim_start();
    let said = if trimmed.starts_with('<') {
        xml(trimmed)?
    } else if text.contains("NVIDIA-SMI") {
        table(text)
    } else if trimmed.starts_with("NVRM version: ") && trimmed.contains("Kernel Module") {
        kernel_module(trimmed)
    } else if trimmed.starts_with("NVRM version:") {
        container_cli(trimmed)
    } else if LISTED.is_match(trimmed) {
        list(trimmed)
    } else {
        query(trimmed)
    };
    if said == Said::default() {
        let hint = "there is nvidia-smi, nvidia-smi -q -x, nvidia-smi -L, nvidia-smi --query-gpu=… --format=csv, \
                    nvidia-container-cli info, /proc/driver/nvidia/version and kubectl get nodes -o json";
        return Err(TargetError::new("it is no output of a host that is known".to_owned(), hint.to_owned()));
    }
    Ok(said)
}

/// Whether a text looks like one of the outputs at all.
pub(super) fn is_one(text: &str) -> bool {
    let first = text.trim_start_matches('\u{feff}').trim_start().lines().next().unwrap_or_default();
    let row = first.matches(',').count() > 1 && !first.contains('=');
    let query = row || first.contains("driver_version") || first.starts_with("Field \"");
    let known = text.contains("NVIDIA-SMI") || text.contains("NVRM version:") || text.contains("NVML");
    first.starts_with('<') || known || query || LISTED.is_match(text)
}

/// Messages of tools that could not look.
fn refused(text: &str) -> Result<(), TargetError> {
    let lower = text.to_ascii_lowercase();
    let (what, hint) = if lower.contains("driver/library version mismatch") {
        (
            "driver/library version mismatch: the loaded kernel module is older than the installed files",
            "reboot the host or reload the module, then ask again",
        )
    } else if lower.contains("couldn't communicate with the nvidia driver") {
        ("no driver: nvidia-smi could not reach one", "load or install the driver, then ask again")
    } else if lower.contains("no devices were found") {
        ("the driver found no GPU", "ask on a host whose GPU the driver drives")
    } else if lower.contains("is not a valid field to query") {
        ("field not supported by this driver", "leave the field out of --query-gpu, or use nvidia-smi -q -x")
    } else {
        return Ok(());
    };
    Err(TargetError::new(what.to_owned(), hint.to_owned()))
}

fn pattern(text: &str) -> Regex {
    // The patterns are constants of this file, and every one is used by a test.
    #[allow(clippy::expect_used, reason = "a constant pattern")]
    Regex::new(text).expect("a constant pattern")
}

/// `NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.95.05  Release Build …`
static MODULE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?m)^NVRM version:.*?\s(\d{3}\.\d+(?:\.\d+)?)(?:\s|$)"));

pub(super) fn kernel_module(text: &str) -> Said {
    let Some(found) = MODULE.captures(text) else { return Said::default() };
    let line = found.get(0).map_or("", |m| m.as_str());
    let arch = [("x86_64", "amd64"), ("aarch64", "arm64"), ("ppc64le", "ppc64le")];
    let open = line.contains("Open Kernel Module");
    Said {
        driver: found.get(1).map(|m| m.as_str().to_owned()),
        kernel_module: Some(if open { KernelModule::Open } else { KernelModule::Proprietary }),
        arch: arch.iter().find(|(name, _)| line.contains(name)).map(|(_, oci)| (*oci).to_owned()),
        ..Said::default()
    }
}

/// The header of plain `nvidia-smi`; drivers from 610 on call the fields otherwise.
static SMI: LazyLock<Regex> = LazyLock::new(|| pattern(r"NVIDIA-SMI\s+(\d{3}\.[\d.]+)"));
static SMI_DRIVER: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?:Driver|KMD) Version:\s*(\d{3}\.\d+(?:\.\d+)?)"));
static SMI_CUDA: LazyLock<Regex> = LazyLock::new(|| pattern(r"CUDA (?:UMD )?Version:\s*(\d+\.\d+)"));
/// A GPU's first row: index, name, persistence mode or driver model, and the bus identifier.
static SMI_GPU: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?m)^\|\s+\d+\s+(\S.*?)\s+(On|Off|N/A|WDDM|TCC|MCDM|ERR!)\s*\|\s*(?:[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d|N/A)\s",
    )
});

/// Plain `nvidia-smi`.
fn table(text: &str) -> Said {
    let first = |pattern: &Regex| pattern.captures(text).and_then(|c| Some(c.get(1)?.as_str().to_owned()));
    let driver = first(&SMI_DRIVER);
    // The table of processes has rows that begin alike.
    let devices = text.split("Processes:").next().unwrap_or(text);
    let rows: Vec<(String, String)> = SMI_GPU
        .captures_iter(devices)
        .filter_map(|c| Some((c.get(1)?.as_str().to_owned(), c.get(2)?.as_str().to_owned())))
        .collect();
    let windows = devices.contains("/WDDM")
        || rows.iter().any(|(_, model)| matches!(model.as_str(), "WDDM" | "TCC" | "MCDM"));
    let gpus: Vec<SaidGpu> = rows
        .into_iter()
        .map(|(name, _)| SaidGpu { cut: name.ends_with("..."), name, ..SaidGpu::default() })
        .collect();
    // Under WSL the program comes from Linux packages and the driver from Windows, so their numbers differ.
    let differs = matches!((first(&SMI), &driver), (Some(program), Some(driver)) if program != *driver);
    let platform = match () {
        () if is_tegra(&gpus) => Some(Platform::Tegra),
        () if windows => Some(Platform::Windows),
        () if differs => Some(Platform::Wsl2),
        () => None,
    };
    Said { driver, cuda: first(&SMI_CUDA), gpus, platform, ..Said::default() }
}

/// The driver of Jetson modules names itself behind the product.
fn is_tegra(gpus: &[SaidGpu]) -> bool {
    gpus.iter().any(|g| g.name.ends_with("(nvgpu)"))
}

static LISTED: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?m)^GPU \d+: (.+?) \(UUID: [^)]*\)\s*$"));
static LISTED_MIG: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\s+MIG (\S+)\s+Device"));

/// `nvidia-smi -L`.
fn list(text: &str) -> Said {
    let mut gpus: Vec<SaidGpu> = Vec::new();
    for line in text.lines() {
        if let Some(name) = LISTED.captures(line).and_then(|c| c.get(1)) {
            gpus.push(SaidGpu { name: name.as_str().to_owned(), ..SaidGpu::default() });
        } else if let (Some(profile), Some(gpu)) =
            (LISTED_MIG.captures(line).and_then(|c| c.get(1)), gpus.last_mut())
        {
            gpu.mig.push(profile.as_str().to_owned());
        }
    }
    let platform = is_tegra(&gpus).then_some(Platform::Tegra);
    Said { gpus, platform, ..Said::default() }
}

/// `nvidia-container-cli info`.
fn container_cli(text: &str) -> Said {
    let mut said = Said::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim().to_owned();
        match (key.trim(), said.gpus.last_mut()) {
            ("NVRM version", _) => said.driver = Some(value),
            ("CUDA version", _) => said.cuda = Some(value),
            ("Device Index", _) => said.gpus.push(SaidGpu::default()),
            ("Model", Some(gpu)) => gpu.name = value,
            ("Brand", Some(gpu)) => gpu.known_brand = Some(Brand::of_nvml(&value)),
            ("Architecture", Some(gpu)) => gpu.cc = Some(value),
            _ => {}
        }
    }
    said
}

static DRIVER: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\d{3}\.\d+(?:\.\d+)?$"));
static CAPABILITY: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\d{1,2}\.\d$"));

pub(super) fn is_driver_version(text: &str) -> bool {
    DRIVER.is_match(text)
}

/// `nvidia-smi --query-gpu=… --format=csv`, with or without a header; without one the fields tell by their shape.
fn query(text: &str) -> Said {
    let mut said = Said::default();
    let mut header: Option<Vec<&str>> = None;
    for line in text.lines().filter(|l| l.contains(',')) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let column = |f: &&str| f.split([' ', '[']).next().unwrap_or_default().to_owned();
        if fields
            .iter()
            .any(|f| matches!(column(f).as_str(), "name" | "gpu_name" | "driver_version" | "compute_cap"))
        {
            header = Some(fields);
            continue;
        }
        let by_name = |wanted: &[&str]| {
            let at = header.as_ref()?.iter().position(|f| wanted.contains(&column(f).as_str()))?;
            fields.get(at).copied()
        };
        let by_shape =
            |fits: &dyn Fn(&str) -> bool| fields.iter().copied().find(|f| header.is_none() && fits(f));
        let is_name = |f: &str| {
            let words =
                f.chars().any(|c| c.is_ascii_alphabetic()) && !f.starts_with("GPU-") && !f.starts_with('[');
            words && !f.ends_with("MiB") && f.contains(' ')
        };
        let driver = by_name(&["driver_version"]).or_else(|| by_shape(&is_driver_version));
        let cc = by_name(&["compute_cap"]).or_else(|| by_shape(&|f| CAPABILITY.is_match(f)));
        let name = by_name(&["name", "gpu_name"]).or_else(|| by_shape(&is_name));
        said.driver = said.driver.or(driver.filter(|d| is_driver_version(d)).map(str::to_owned));
        if let Some(name) = name.filter(|n| !n.is_empty()) {
            let cc = cc.filter(|c| CAPABILITY.is_match(c)).map(str::to_owned);
            said.gpus.push(SaidGpu { name: name.to_owned(), cc, ..SaidGpu::default() });
        }
    }
    said
}

/// `nvidia-smi -q -x`.
fn xml(text: &str) -> Result<Said, TargetError> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, nodes_limit: 1_000_000, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(text, options).map_err(|e| {
        TargetError::new(
            format!("it is no XML of nvidia-smi: {e}"),
            "write it with `nvidia-smi -q -x`".to_owned(),
        )
    })?;
    let root = document.root_element();
    let text_of = |node: roxmltree::Node<'_, '_>, name: &str| {
        let child = node.children().find(|c| c.has_tag_name(name))?;
        child.text().map(str::trim).filter(|t| !t.is_empty() && *t != "N/A").map(str::to_owned)
    };
    let gpu = |node: roxmltree::Node<'_, '_>| SaidGpu {
        name: text_of(node, "product_name").unwrap_or_default(),
        brand: text_of(node, "product_brand"),
        ..SaidGpu::default()
    };
    let gpus: Vec<SaidGpu> = root.children().filter(|c| c.has_tag_name("gpu")).map(gpu).collect();
    let platform = is_tegra(&gpus).then_some(Platform::Tegra);
    // The names before 610, and those since.
    let driver = text_of(root, "driver_version").or_else(|| text_of(root, "kmd_version"));
    let cuda = text_of(root, "cuda_version").or_else(|| text_of(root, "cuda_umd_version"));
    Ok(Said { driver, cuda, gpus, platform, ..Said::default() })
}
