//! This machine -> its profile: NVML where the driver installed it (for a static build `nvidia-smi`), else the files of the
//! kernel module. The only part of `target` that looks at the machine.

#![allow(
    clippy::disallowed_methods,
    reason = "asks the running host on purpose: `cudalint host`, `--host-driver auto`"
)]

use super::outputs::{Platform, Said, SaidGpu};
use super::profile::{RuntimeMode, toolkit_version};
use super::{Target, TargetError, fleet, outputs};
use crate::catalog::Catalog;
#[cfg(not(target_feature = "crt-static"))]
use nvml_wrapper::{Nvml, enum_wrappers::device::Brand as NvmlBrand};
use std::path::Path;

/// Where the kernel module tells its version.
const PLACES: [&str; 2] = ["proc/driver/nvidia/version", "sys/module/nvidia/version"];

/// Version of the loaded kernel module.
pub fn driver_version() -> Result<String, TargetError> {
    files(Path::new("/")).driver.ok_or_else(|| {
        let message = format!("no NVIDIA driver found on this machine (/{} is absent)", PLACES[0]);
        TargetError::new(message, "name the driver: --host-driver 535.183.01".to_owned())
    })
}

/// The profile of this machine, and what it does not tell, one remark each.
pub fn this_machine(catalog: &Catalog) -> Result<(Target, Vec<String>), TargetError> {
    let root = Path::new("/");
    let mut said = files(root);
    if let Some(more) = driver_tools() {
        said = Said { driver: more.driver.or(said.driver), cuda: more.cuda, gpus: more.gpus, ..said };
    }
    profile(root, said, toolkit(), catalog)
}

fn profile(
    root: &Path,
    said: Said,
    container_toolkit: Option<String>,
    catalog: &Catalog,
) -> Result<(Target, Vec<String>), TargetError> {
    if said.driver.is_none() && said.cuda.is_none() {
        let message = format!(
            "no NVIDIA driver found on this machine (neither NVML nor nvidia-smi answers, and /{} is absent)",
            PLACES[0]
        );
        let hint = "load or install the driver, or write the profile by hand; `cudalint schema targets` has its keys";
        return Err(TargetError::new(message, hint.to_owned()));
    }
    let (mut target, mut remarks) = fleet::target(&said, catalog)?;
    if said.gpus.is_empty() {
        remarks.push("no GPU told its name: add gpus = […]".to_owned());
    }
    let text = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let name = text("etc/hostname").map(|n| n.trim().to_owned()).filter(|n| !n.is_empty());
    target.name = name.unwrap_or_else(|| "this-host".to_owned());
    target.host.os = text("etc/os-release").and_then(|t| system(&t));
    target.host.container_toolkit = container_toolkit.and_then(|v| toolkit_version(&v).ok());
    let config = text("etc/nvidia-container-runtime/config.toml");
    target.host.runtime_mode = config.and_then(|t| mode(&t));
    if target.host.container_toolkit.is_none() {
        remarks.push("no nvidia-ctk here: where containers run elsewhere, add container_toolkit".to_owned());
    }
    Ok((target, remarks))
}

/// What the files of the kernel module and of the system say.
fn files(root: &Path) -> Said {
    let texts: Vec<String> =
        PLACES.iter().filter_map(|p| std::fs::read_to_string(root.join(p)).ok()).collect();
    let module = texts.iter().map(|t| outputs::kernel_module(t)).find(|s| s.driver.is_some());
    let mut said = module.unwrap_or_default();
    let bare =
        |t: &String| t.lines().map(str::trim).find(|l| outputs::is_driver_version(l)).map(str::to_owned);
    said.driver = said.driver.or_else(|| texts.iter().find_map(bare));
    said.gpus = models(&root.join("proc/driver/nvidia/gpus"));
    if root.join("etc/nv_tegra_release").exists() {
        said.platform = Some(Platform::Tegra);
    } else if root.join("usr/lib/wsl/lib").exists() {
        said.platform = Some(Platform::Wsl2);
    }
    said.arch = match std::env::consts::ARCH {
        "x86_64" => Some("amd64".to_owned()),
        "aarch64" => Some("arm64".to_owned()),
        _ => said.arch,
    };
    said
}

/// `Model: NVIDIA H100 80GB HBM3` of every GPU that the kernel module drives.
fn models(dir: &Path) -> Vec<SaidGpu> {
    let mut out = Vec::new();
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|e| e.path().join("information")).collect();
    paths.sort();
    for text in paths.iter().filter_map(|p| std::fs::read_to_string(p).ok()) {
        let model = text.lines().find_map(|l| l.strip_prefix("Model:"));
        out.extend(model.map(|m| SaidGpu { name: m.trim().to_owned(), ..SaidGpu::default() }));
    }
    out
}

/// A static program can load no library: it asks the driver's own program.
#[cfg(target_feature = "crt-static")]
fn driver_tools() -> Option<Said> {
    let said = std::process::Command::new("nvidia-smi").args(["-q", "-x"]).output().ok()?;
    outputs::read(&String::from_utf8_lossy(&said.stdout)).ok().filter(|s| s.driver.is_some())
}

#[cfg(not(target_feature = "crt-static"))]
fn driver_tools() -> Option<Said> {
    nvml()
}

/// What the driver's own library says; `None` where it is not installed or does not start.
#[cfg(not(target_feature = "crt-static"))]
fn nvml() -> Option<Said> {
    let nvml = Nvml::init().ok()?;
    let mut said = Said { driver: nvml.sys_driver_version().ok(), ..Said::default() };
    // Inside a container with a compat library loaded this is the version of that library: only used without a driver version.
    let cuda = nvml.sys_cuda_driver_version().ok().filter(|_| said.driver.is_none());
    said.cuda = cuda.map(|n| format!("{}.{}", n / 1000, n % 1000 / 10));
    for index in 0..nvml.device_count().unwrap_or(0) {
        let Ok(device) = nvml.device_by_index(index) else { continue };
        let cc = device.cuda_compute_capability().ok();
        said.gpus.push(SaidGpu {
            name: device.name().unwrap_or_default(),
            brand: device.brand().ok().and_then(brand).map(str::to_owned),
            cc: cc.map(|c| format!("{}.{}", c.major, c.minor)),
            ..SaidGpu::default()
        });
    }
    Some(said)
}

/// As `nvidia-smi -q` prints it.
#[cfg(not(target_feature = "crt-static"))]
fn brand(brand: NvmlBrand) -> Option<&'static str> {
    Some(match brand {
        NvmlBrand::Quadro => "Quadro",
        NvmlBrand::Tesla => "Tesla",
        NvmlBrand::NVS => "NVS",
        NvmlBrand::GRID => "GRID",
        NvmlBrand::GeForce => "GeForce",
        NvmlBrand::Titan => "Titan",
        NvmlBrand::QuadroRTX => "Quadro RTX",
        NvmlBrand::NvidiaRTX => "NVIDIA RTX",
        NvmlBrand::Nvidia => "NVIDIA",
        NvmlBrand::GeForceRTX => "GeForce RTX",
        NvmlBrand::TitanRTX => "Titan RTX",
        _ => return None,
    })
}

/// `1.17.8` of `NVIDIA Container Toolkit CLI version 1.17.8`.
fn toolkit() -> Option<String> {
    let said = std::process::Command::new("nvidia-ctk").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&said.stdout);
    text.lines().find_map(|l| Some(l.split_once("version ")?.1.trim().to_owned()))
}

/// `ubuntu 22.04` of os-release.
fn system(text: &str) -> Option<String> {
    let value = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        line.map(|v| v.trim_matches(['"', '\'']).to_owned())
    };
    Some(match value("VERSION_ID") {
        Some(version) => format!("{} {version}", value("ID")?),
        None => value("ID")?,
    })
}

/// The mode of the container runtime, where its configuration fixes one: `auto` is derived from the toolkit.
fn mode(text: &str) -> Option<RuntimeMode> {
    let table: toml::Table = text.parse().ok()?;
    let section = table.get("nvidia-container-runtime")?;
    RuntimeMode::parse(section.get("mode")?.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::file;

    /// A machine as its files tell it.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    const OPEN: &str = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build  (dvs-builder@x)\n\
                        GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n";
    const CLOSED: &str =
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n";

    #[test]
    fn both_flavours_of_the_kernel_module_are_read() {
        let version = |path: &str, text: &str| files(machine(&[(path, text)]).path()).driver;
        assert_eq!(version(PLACES[0], OPEN).as_deref(), Some("550.54.14"));
        assert_eq!(version(PLACES[0], CLOSED).as_deref(), Some("535.183.01"));
        assert_eq!(version(PLACES[1], "390.157\n").as_deref(), Some("390.157"));
        assert_eq!(version(PLACES[0], "GCC version 12.2.0"), None);
    }

    #[test]
    fn a_profile_is_written_that_reads_back_as_the_same_target() {
        let catalog = Catalog::built_in().unwrap();
        let dir = machine(&[
            (PLACES[0], OPEN),
            ("proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t NVIDIA L4\nIRQ: 1\n"),
            ("proc/driver/nvidia/gpus/0000:02:00.0/information", "Model: \t\t NVIDIA L4\nIRQ: 2\n"),
            ("etc/hostname", "gpu-7\n"),
            ("etc/os-release", "ID=ubuntu\nVERSION_ID=\"22.04\"\n"),
            ("etc/nvidia-container-runtime/config.toml", "[nvidia-container-runtime]\nmode = \"legacy\"\n"),
        ]);
        let toolkit = Some("1.17.8".to_owned());
        let (target, remarks) = profile(dir.path(), files(dir.path()), toolkit, &catalog).unwrap();
        assert!(remarks.is_empty(), "{remarks:?}");
        let text = file::write(&target, &catalog);
        assert!(text.contains("driver = \"550.54.14\"\ngpus = [\"NVIDIA L4\"]\n"), "{text}");
        assert!(text.contains("name = \"gpu-7\"") && text.contains("os = \"ubuntu 22.04\""), "{text}");
        let read = file::read(&text, &catalog).unwrap();
        assert_eq!(
            (&read[0].name, &read[0].driver, &read[0].gpus),
            (&target.name, &target.driver, &target.gpus)
        );
        assert_eq!(read[0].host, target.host);
    }

    #[test]
    fn a_machine_without_driver_is_an_error_that_says_what_was_looked_for() {
        let dir = machine(&[("etc/hostname", "plain\n")]);
        let error = profile(dir.path(), files(dir.path()), None, &Catalog::built_in().unwrap()).unwrap_err();
        assert!(
            error.message.contains("neither NVML") && error.message.contains(PLACES[0]),
            "{}",
            error.message
        );
    }
}
