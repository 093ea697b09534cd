//! What a target says of its host beside driver and GPUs: the container stack, the kind of driver, the system. What is not
//! said stays unknown; what follows from what is said (the runtime mode of a toolkit version) is marked as derived.

use super::TargetError;
use super::gpu::Gpu;
use crate::version::Version;
use std::collections::BTreeMap;

/// How the NVIDIA container runtime prepares a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeMode {
    /// `nvidia-container-cli` as a prestart hook.
    Legacy,
    /// A CDI specification, from a file or made just in time (`jit-cdi`).
    Cdi,
    /// Mount lists of Jetson modules.
    Csv,
}

impl RuntimeMode {
    pub fn name(self) -> &'static str {
        match self {
            RuntimeMode::Legacy => "legacy",
            RuntimeMode::Cdi => "cdi",
            RuntimeMode::Csv => "csv",
        }
    }

    /// As `nvidia-container-runtime.mode` in the toolkit's configuration writes it.
    pub fn parse(text: &str) -> Result<RuntimeMode, TargetError> {
        match text {
            "legacy" => Ok(RuntimeMode::Legacy),
            "cdi" | "jit-cdi" => Ok(RuntimeMode::Cdi),
            "csv" => Ok(RuntimeMode::Csv),
            _ => Err(no_such("runtime mode", text, "legacy, cdi, jit-cdi or csv")),
        }
    }
}

/// What the driver is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    DataCenter,
    GeForce,
    Workstation,
    Vgpu,
    Wsl,
    Tegra,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::DataCenter => "data-center",
            Kind::GeForce => "geforce",
            Kind::Workstation => "workstation",
            Kind::Vgpu => "vgpu",
            Kind::Wsl => "wsl",
            Kind::Tegra => "tegra",
        }
    }

    pub fn parse(text: &str) -> Result<Kind, TargetError> {
        match text {
            "data-center" => Ok(Kind::DataCenter),
            "geforce" => Ok(Kind::GeForce),
            "workstation" => Ok(Kind::Workstation),
            "vgpu" => Ok(Kind::Vgpu),
            "wsl" => Ok(Kind::Wsl),
            "tegra" => Ok(Kind::Tegra),
            _ => Err(no_such("kind", text, "data-center, geforce, workstation, vgpu, wsl or tegra")),
        }
    }
}

/// The two flavours of the Linux kernel modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelModule {
    Open,
    Proprietary,
}

impl KernelModule {
    pub fn name(self) -> &'static str {
        match self {
            KernelModule::Open => "open",
            KernelModule::Proprietary => "proprietary",
        }
    }

    pub fn parse(text: &str) -> Result<KernelModule, TargetError> {
        match text {
            "open" => Ok(KernelModule::Open),
            "proprietary" => Ok(KernelModule::Proprietary),
            _ => Err(no_such("kernel module", text, "open or proprietary")),
        }
    }
}

/// Who asks the container runtime for a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuRequest {
    /// `docker --gpus`, a device plugin, a CDI device: the image's own variables are not needed.
    Engine,
    /// Only the image's `NVIDIA_VISIBLE_DEVICES` (`docker --runtime=nvidia`, enroot).
    Image,
    /// Nobody: the container is started by a plain runtime.
    Nobody,
}

impl GpuRequest {
    pub fn name(self) -> &'static str {
        match self {
            GpuRequest::Engine => "engine",
            GpuRequest::Image => "image",
            GpuRequest::Nobody => "nobody",
        }
    }

    pub fn parse(text: &str) -> Result<GpuRequest, TargetError> {
        match text {
            "engine" => Ok(GpuRequest::Engine),
            "image" => Ok(GpuRequest::Image),
            "nobody" => Ok(GpuRequest::Nobody),
            _ => Err(no_such("gpu_request", text, "engine, image or nobody")),
        }
    }
}

/// A GPU brand as libnvidia-container knows it: its enumeration of NVML brands ends at TITAN, everything newer in NVML
/// (NVIDIA, GeForce RTX, vApps …) is `Unknown` to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Brand {
    Unknown,
    Quadro,
    Tesla,
    Nvs,
    Grid,
    GeForce,
    Titan,
}

impl Brand {
    pub const ALL: [Brand; 7] =
        [Brand::Unknown, Brand::Quadro, Brand::Tesla, Brand::Nvs, Brand::Grid, Brand::GeForce, Brand::Titan];

    pub fn name(self) -> &'static str {
        match self {
            Brand::Unknown => "Unknown",
            Brand::Quadro => "Quadro",
            Brand::Tesla => "Tesla",
            Brand::Nvs => "NVS",
            Brand::Grid => "GRID",
            Brand::GeForce => "GeForce",
            Brand::Titan => "TITAN",
        }
    }

    /// The text without blanks around it, where it is a brand as `nvidia-smi -q` prints it. NVML's names that begin with NVIDIA (NVIDIA RTX, NVIDIA
    /// Virtual Compute Server …) grow with its releases; all of them are accepted.
    pub fn check_nvml(text: &str) -> Result<String, TargetError> {
        const NVML: [&str; 10] = [
            "Unknown",
            "Tesla",
            "GeForce",
            "GeForce RTX",
            "Quadro",
            "Quadro RTX",
            "TITAN",
            "TITAN RTX",
            "NVS",
            "GRID",
        ];
        let lower = text.trim().to_ascii_lowercase();
        let nvidia =
            lower.strip_prefix("nvidia").is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        if nvidia || NVML.iter().any(|b| b.eq_ignore_ascii_case(&lower)) {
            return Ok(text.trim().to_owned());
        }
        Err(no_such(
            "brand",
            text,
            "NVIDIA, NVIDIA RTX …, Tesla, GeForce, Quadro, TITAN, NVS or GRID, as `nvidia-smi -q` prints it",
        ))
    }

    /// From a brand as `nvidia-smi -q` prints it.
    pub fn of_nvml(text: &str) -> Brand {
        let same = |b: &Brand| b.name().eq_ignore_ascii_case(text.trim());
        Brand::ALL.into_iter().find(same).unwrap_or(Brand::Unknown)
    }

    /// Brands that a product may have; several where drivers differ, or where it was not looked at.
    pub fn of_product(name: &str, gpu_class: &str) -> &'static [Brand] {
        let has = |word: &str| name.to_ascii_lowercase().contains(word);
        match gpu_class {
            "geforce" if has("titan") => &[Brand::Titan, Brand::GeForce],
            "geforce" => &[Brand::GeForce],
            "data-center" if has("tesla") => &[Brand::Tesla],
            "data-center" if has("grid") => &[Brand::Grid, Brand::Tesla],
            "data-center" => &[Brand::Unknown, Brand::Tesla],
            "workstation" if has("quadro rtx") => &[Brand::Unknown, Brand::Quadro],
            "workstation" if has("quadro") => &[Brand::Quadro],
            "workstation" => &[Brand::Unknown, Brand::Quadro],
            _ => &Brand::ALL,
        }
    }
}

/// What is known of a host beside driver and GPUs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// Version of the NVIDIA container toolkit.
    pub container_toolkit: Option<Version>,
    /// As stated; see [`Host::mode`].
    pub runtime_mode: Option<RuntimeMode>,
    /// As NVML names it: `Tesla`, `GeForce`, `NVIDIA`.
    pub brand: Option<String>,
    pub kind: Option<Kind>,
    pub kernel_module: Option<KernelModule>,
    /// OCI architecture.
    pub arch: Option<String>,
    /// `ubuntu 22.04`.
    pub os: Option<String>,
    pub gpu_request: Option<GpuRequest>,
    /// Whether the container stack makes compat libraries of images the ones that are loaded, where that was looked at or
    /// switched off; what the toolkit version implies is another matter.
    pub cuda_compat: Option<bool>,
    /// GPUs of the host that nothing is known of, as it names them.
    pub unknown_gpus: Vec<String>,
    /// Nodes like this one.
    pub count: Option<u64>,
    /// Labels that nodes of this kind have, where they are known.
    pub labels: BTreeMap<String, String>,
}

/// The toolkit whose runtime makes CDI specifications just in time by default.
const CDI_BY_DEFAULT: &str = "1.18";

impl Host {
    /// The runtime mode, and whether it is derived: from the toolkit version (1.18 and newer use CDI, where the NVIDIA
    /// runtime is in use; the hook of `docker --gpus` stays with legacy), or from being a Jetson.
    pub fn mode(&self, jetson: bool) -> Option<(RuntimeMode, bool)> {
        if let Some(stated) = self.runtime_mode {
            return Some((stated, false));
        }
        if jetson || self.kind == Some(Kind::Tegra) {
            return Some((RuntimeMode::Csv, true));
        }
        let toolkit = self.container_toolkit.as_ref()?;
        let cdi = Version::parse(CDI_BY_DEFAULT).is_some_and(|v| *toolkit >= v);
        Some((if cdi { RuntimeMode::Cdi } else { RuntimeMode::Legacy }, true))
    }

    /// Whether its GPUs are stated to be GeForce or TITAN ones.
    pub fn is_geforce(&self) -> bool {
        let consumer =
            |b: &String| ["geforce", "titan"].iter().any(|c| b.to_ascii_lowercase().starts_with(c));
        self.kind == Some(Kind::GeForce) || self.brand.as_ref().is_some_and(consumer)
    }

    /// Brands that the container runtime may see, all of them where nothing is known.
    pub fn brands(&self, gpu: Option<&Gpu>) -> Vec<Brand> {
        if let Some(brand) = &self.brand {
            return vec![Brand::of_nvml(brand)];
        }
        if let Some(gpu) = gpu {
            let mut brands = gpu.brands.clone();
            // A vGPU goes by its licence: GRID to old drivers, one that libnvidia-container does not know to newer ones.
            if self.kind == Some(Kind::Vgpu) {
                brands.extend([Brand::Unknown, Brand::Grid]);
                brands.sort_unstable();
                brands.dedup();
            }
            return brands;
        }
        let class = match self.kind {
            Some(Kind::DataCenter) => "data-center",
            Some(Kind::GeForce) => "geforce",
            Some(Kind::Workstation) => "workstation",
            _ => "",
        };
        Brand::of_product("", class).to_vec()
    }
}

/// An architecture of processors as OCI images write it.
pub fn architecture(text: &str) -> Result<String, TargetError> {
    const OCI: [&str; 8] = ["amd64", "arm64", "ppc64le", "arm", "386", "riscv64", "s390x", "loong64"];
    let meant = match text {
        "x86_64" | "x86-64" | "x64" => Some("amd64"),
        "aarch64" | "armv8" | "arm64/v8" => Some("arm64"),
        "i386" | "i686" => Some("386"),
        "powerpc64le" => Some("ppc64le"),
        _ => None,
    };
    if OCI.contains(&text) {
        return Ok(text.to_owned());
    }
    let hint = match meant {
        Some(name) => format!("images call it {name}"),
        None => format!("there is {}", OCI.join(", ")),
    };
    Err(TargetError::new(format!("`{text}` is no architecture of images"), hint))
}

/// `1.17.4`, `v1.17.4`, `1.17.4-1`.
pub fn toolkit_version(text: &str) -> Result<Version, TargetError> {
    let bare = text.trim().trim_start_matches('v');
    let version = Version::leading(bare).filter(|v| (2..=3).contains(&v.len()) && v.major() < 100);
    version.ok_or_else(|| {
        let hint = "as `nvidia-ctk --version` prints it, such as 1.17.8".to_owned();
        TargetError::new(format!("`{text}` is no version of the NVIDIA container toolkit"), hint)
    })
}

fn no_such(what: &str, text: &str, known: &str) -> TargetError {
    TargetError::new(format!("`{text}` is no {what}"), format!("there is {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(toolkit: &str) -> Host {
        Host { container_toolkit: Some(toolkit_version(toolkit).unwrap()), ..Host::default() }
    }

    #[test]
    fn the_mode_follows_from_the_toolkit_unless_it_is_stated() {
        assert_eq!(with("1.17.9").mode(false), Some((RuntimeMode::Legacy, true)));
        assert_eq!(with("1.18.0").mode(false), Some((RuntimeMode::Cdi, true)));
        assert_eq!(with("1.18.0").mode(true), Some((RuntimeMode::Csv, true)));
        let stated = Host { runtime_mode: Some(RuntimeMode::Legacy), ..with("1.20.0") };
        assert_eq!(stated.mode(false), Some((RuntimeMode::Legacy, false)));
        assert_eq!(Host::default().mode(false), None);
    }

    #[test]
    fn brands_and_architectures_are_checked() {
        for brand in ["Tesla", "geforce rtx", "NVIDIA", "NVIDIA RTX Virtual Workstation"] {
            assert!(Brand::check_nvml(brand).is_ok(), "{brand}");
        }
        assert!(Brand::check_nvml("Tsela").is_err() && Brand::check_nvml("nvidiartx").is_err());
        assert_eq!(architecture("arm64").unwrap(), "arm64");
        assert!(architecture("aarch64").unwrap_err().hint.unwrap().contains("arm64"));
    }

    #[test]
    fn brands_that_libnvidia_container_does_not_know_are_unknown_to_it() {
        assert_eq!(Brand::of_nvml("NVIDIA"), Brand::Unknown);
        assert_eq!(Brand::of_nvml("GeForce RTX"), Brand::Unknown);
        assert_eq!(Brand::of_nvml("geforce"), Brand::GeForce);
        assert_eq!(Brand::of_product("NVIDIA GeForce RTX 4090", "geforce"), [Brand::GeForce]);
        assert!(Brand::of_product("NVIDIA H100", "data-center").contains(&Brand::Unknown));
    }

    #[test]
    fn toolkit_versions_are_read_as_packages_and_programs_print_them() {
        assert_eq!(toolkit_version("v1.17.4").unwrap().as_str(), "1.17.4");
        assert_eq!(toolkit_version("1.17.4-1").unwrap().as_str(), "1.17.4");
        assert!(toolkit_version("535.104.05").is_err() && toolkit_version("newest").is_err());
    }
}
