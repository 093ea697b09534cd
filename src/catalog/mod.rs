//! The facts of the world, `rules/catalog/*.toml` -> typed rows. What a vendor can change by publishing a release is a
//! row here; what follows from it is code elsewhere.
//!
//! `--catalog DIR` lays rows of the same file names over the built-in ones: a row with the same key replaces, a new
//! key adds. Rows marked INFERRED are kept with that mark: they never carry an error alone.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod rows;

pub use rows::*;

use crate::names::located;
use crate::version::{ComputeCapability, Version};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// One built-in catalog file.
pub struct CatalogFile {
    /// Without `.toml`.
    pub name: &'static str,
    pub text: &'static str,
}

macro_rules! catalog_files {
    ($($name:literal),* $(,)?) => {
        &[$(CatalogFile { name: $name, text: include_str!(concat!("../../rules/catalog/", $name, ".toml")) }),*]
    };
}

/// All files, in the order in which they are read.
pub const FILES: &[CatalogFile] = catalog_files![
    "architectures",
    "components",
    "container_stack",
    "driver_security",
    "drivers",
    "errors",
    "forward_compat",
    "frameworks",
    "gpus",
    "image_configs",
    "libraries",
    "library_bugs",
    "loading",
    "ptx_isa",
    "toolkits",
];

/// The rows that judgments read.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub as_of: String,
    /// Names of overlay files, for the report.
    pub overlays: Vec<String>,
    pub branches: Vec<Branch>,
    /// Releases of drivers that are known.
    pub driver_versions: Vec<DriverRelease>,
    pub driver_archs: Vec<DriverArch>,
    pub tegra: Vec<Tegra>,
    pub toolkits: Vec<Toolkit>,
    pub families: Vec<Family>,
    pub ptx: Vec<PtxIsa>,
    pub archs: Vec<ArchRow>,
    pub gpus: Vec<Gpu>,
    pub ambiguous: Vec<Ambiguous>,
    pub cloud: Vec<Cloud>,
    pub compat_packages: Vec<CompatPackage>,
    pub compat_matrix: Vec<CompatCell>,
    pub historic_bases: Vec<HistoricBase>,
    pub errors: Vec<ErrorRow>,
    pub components: Vec<ComponentRow>,
    pub frameworks: Vec<FrameworkRow>,
    pub preloads: Vec<PreloadRow>,
    pub dlopens: Vec<DlopenRow>,
    /// Distributions that leave finding their libraries to LD_LIBRARY_PATH.
    pub search_only: Vec<NamedRow>,
    pub bugs: Vec<BugRow>,
    pub cudnn_gpus: Vec<CudnnGpu>,
    pub tritons: Vec<TritonRow>,
    pub capabilities: Vec<CapabilityRow>,
    pub driver_needs: Vec<DriverNeed>,
    /// Variables of the image that the container stack reads.
    pub settings: Vec<NamedRow>,
    pub driver_fixes: Vec<DriverFix>,
    pub toolkit_fixes: Vec<ToolkitFix>,
}

/// Why a catalog could not be used.
#[derive(Debug, thiserror::Error)]
#[error("catalog file `{file}`: {reason}")]
pub struct CatalogError {
    pub file: String,
    pub reason: String,
}

impl Catalog {
    /// The built-in rows.
    pub fn built_in() -> Result<Catalog, CatalogError> {
        Catalog::with_overlay(&BTreeMap::new())
    }

    /// The built-in rows under those of `overlay`: file name without `.toml` -> its text.
    pub fn with_overlay(overlay: &BTreeMap<String, String>) -> Result<Catalog, CatalogError> {
        if let Some(unknown) = overlay.keys().find(|k| !FILES.iter().any(|f| f.name == *k)) {
            let known: Vec<&str> = FILES.iter().map(|f| f.name).collect();
            let reason = format!("no catalog file of that name; there is {}", known.join(", "));
            return Err(CatalogError { file: unknown.clone(), reason });
        }
        let mut catalog = Catalog { overlays: overlay.keys().cloned().collect(), ..Catalog::default() };
        for file in FILES {
            let mut table = parse(file.name, file.text)?;
            catalog.take_as_of(&table);
            if let Some(text) = overlay.get(file.name) {
                lay_over(&mut table, parse(file.name, text)?);
            }
            catalog.take(file.name, &mut table)?;
        }
        catalog.branches.sort_by_key(|b| b.branch);
        Ok(catalog)
    }

    fn take_as_of(&mut self, table: &toml::Table) {
        if let Some(date) = table.get("as_of").and_then(|v| v.as_str())
            && date > self.as_of.as_str()
        {
            date.clone_into(&mut self.as_of);
        }
    }

    fn take(&mut self, file: &str, table: &mut toml::Table) -> Result<(), CatalogError> {
        let t = table;
        match file {
            "drivers" => {
                self.branches = rows(file, t, "branch")?;
                self.driver_versions = rows(file, t, "version")?;
                self.driver_archs = rows(file, t, "arch")?;
                self.tegra = rows(file, t, "tegra")?;
            }
            "toolkits" => {
                self.toolkits = rows(file, t, "toolkit")?;
                self.families = rows(file, t, "family")?;
            }
            "ptx_isa" => self.ptx = rows(file, t, "ptx")?,
            "architectures" => self.archs = rows(file, t, "arch")?,
            "gpus" => {
                self.gpus = rows(file, t, "gpu")?;
                self.ambiguous = rows(file, t, "ambiguous")?;
                self.cloud = rows(file, t, "cloud")?;
            }
            "forward_compat" => {
                self.compat_packages = rows(file, t, "package")?;
                self.compat_matrix = rows(file, t, "matrix")?;
                self.historic_bases = rows(file, t, "historic_base")?;
            }
            "frameworks" => self.tritons = rows(file, t, "triton_release")?,
            "library_bugs" => {
                self.bugs = rows(file, t, "bug")?;
                self.cudnn_gpus = rows(file, t, "cudnn_gpu")?;
            }
            "loading" => {
                self.preloads = rows(file, t, "preload")?;
                self.dlopens = rows(file, t, "dlopen")?;
                self.search_only = rows(file, t, "search_only")?;
            }
            "container_stack" => {
                self.capabilities = rows(file, t, "capability")?;
                self.driver_needs = rows(file, t, "driver_need")?;
                self.settings = rows(file, t, "setting")?;
            }
            "driver_security" => {
                self.driver_fixes = rows(file, t, "latest_fix")?;
                self.toolkit_fixes = rows(file, t, "container_toolkit")?;
            }
            "errors" => self.errors = rows(file, t, "error")?,
            "components" => {
                self.components = rows(file, t, "component")?;
                self.frameworks = rows(file, t, "framework")?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The largest branch not above the major number of a driver version; this serves Windows numbers too.
    pub fn branch_of(&self, major: u64) -> Option<&Branch> {
        self.branches.iter().rev().find(|b| u64::from(b.branch) <= major)
    }

    pub fn branch(&self, number: u32) -> Option<&Branch> {
        self.branches.iter().find(|b| b.branch == number)
    }

    /// The newest branch, beyond which nothing is known.
    pub fn newest_branch(&self) -> Option<&Branch> {
        self.branches.last()
    }

    /// Rules of the CUDA major family (11 and newer).
    pub fn family(&self, major: u64) -> Option<&Family> {
        self.families.iter().find(|f| f.cuda_major == major)
    }

    /// Driver that the first release of a CUDA minor version shipped with, which has its full feature set.
    pub fn full_driver(&self, cuda: &Version) -> Option<&Toolkit> {
        let exact =
            self.toolkits.iter().find(|t| t.cudart.as_ref() == Some(cuda) && t.linux_driver_min.is_some());
        let wanted = cuda.major_minor();
        let minor = || self.toolkits.iter().find(|t| t.cuda == wanted && t.linux_driver_min.is_some());
        if cuda.len() > 2 { exact.or_else(minor) } else { minor() }
    }

    /// The highest PTX ISA that the JIT of a driver reporting `cuda` accepts; 12.7 (driver 565) has its own row.
    pub fn ptx_of_cuda(&self, cuda: &Version) -> Option<&PtxIsa> {
        self.ptx.iter().rev().find(|p| p.cuda <= *cuda)
    }

    /// The row of a PTX ISA version.
    pub fn ptx_row(&self, isa: &Version) -> Option<&PtxIsa> {
        self.ptx.iter().find(|p| p.ptx == *isa)
    }

    pub fn arch_row(&self, cc: ComputeCapability) -> Option<&ArchRow> {
        self.archs.iter().find(|a| a.cc == cc)
    }

    /// Whether a compute capability is that of a Tegra module, whose machine code is its own.
    pub fn is_tegra(&self, cc: ComputeCapability) -> bool {
        self.arch_row(cc).is_some_and(|a| a.tegra)
    }

    /// A CUDA error code with its names and text.
    pub fn error(&self, code: i64) -> Option<&ErrorRow> {
        self.errors.iter().find(|e| e.code == code)
    }

    /// Whether a file does the work of a framework's package.
    pub fn is_main_file(&self, file_name: &str) -> bool {
        self.frameworks.iter().any(|f| f.main.iter().any(|m| m == file_name))
    }

    /// The component that a file name or soname belongs to.
    pub fn component_of(&self, file_name: &str) -> Option<&ComponentRow> {
        let stem = library_stem(file_name)?;
        self.components.iter().find(|c| c.stems.contains(&stem))
    }
}

/// `libcudart` of `libcudart.so.12`, `libcudart-80664282.so.10.2` and `libcudart.41118559.so.12`: auditwheel puts eight
/// hexadecimal digits into the name.
pub fn library_stem(file_name: &str) -> Option<String> {
    let (stem, rest) = file_name.split_once(".so")?;
    if !(rest.is_empty() || rest.starts_with('.')) {
        return None;
    }
    let is_hash = |s: &str| s.len() == 8 && s.bytes().all(|b| b.is_ascii_hexdigit());
    let bare = stem.rsplit_once(['-', '.']).filter(|(_, hash)| is_hash(hash)).map_or(stem, |(bare, _)| bare);
    Some(bare.to_owned())
}

fn parse(file: &str, text: &str) -> Result<toml::Table, CatalogError> {
    text.parse()
        .map_err(|e: toml::de::Error| CatalogError { file: file.to_owned(), reason: located(text, &e) })
}

fn rows<T: DeserializeOwned>(file: &str, table: &mut toml::Table, key: &str) -> Result<Vec<T>, CatalogError> {
    let Some(value) = table.remove(key) else { return Ok(Vec::new()) };
    value.try_into().map_err(|e: toml::de::Error| CatalogError {
        file: file.to_owned(),
        reason: format!("[[{key}]]: {e}"),
    })
}

/// The field that names a row of a table, by which an overlay replaces it.
fn key_field(table: &str) -> &'static [&'static str] {
    match table {
        "arch" => &["cc"],
        "version" | "toolkit" => &["version"],
        "branch" | "windows_map" | "latest_fix" => &["branch"],
        "container_toolkit" => &["cve"],
        "tegra" => &["l4t"],
        "family" => &["cuda_major"],
        "ptx" => &["ptx"],
        "gpu" => &["name"],
        "ambiguous" => &["alias"],
        "cloud" => &["provider", "instance"],
        "package" => &["package"],
        "matrix" => &["package", "base_branch"],
        "historic_base" => &["base_branch"],
        "error" => &["code"],
        "component" | "framework" => &["component"],
        _ => &["id"],
    }
}

fn lay_over(base: &mut toml::Table, overlay: toml::Table) {
    for (name, value) in overlay {
        let toml::Value::Array(new_rows) = value else { continue };
        let keys = key_field(&name);
        let slot = base.entry(name).or_insert_with(|| toml::Value::Array(Vec::new()));
        let toml::Value::Array(rows) = slot else { continue };
        for row in new_rows {
            let same =
                |old: &toml::Value| keys.iter().all(|k| old.get(k).is_some() && old.get(k) == row.get(k));
            match rows.iter_mut().find(|old| same(old)) {
                Some(old) => *old = row,
                None => rows.push(row),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalog_reads() {
        let catalog = Catalog::built_in().unwrap();
        assert_eq!(catalog.branch_of(540).unwrap().branch, 535, "windows and gap numbers go down");
        assert_eq!(
            catalog.full_driver(&Version::parse("12.4.127").unwrap()).unwrap().version.as_str(),
            "12.4.1"
        );
        assert_eq!(catalog.ptx_of_cuda(&Version::of(12, 2)).unwrap().ptx.as_str(), "8.2");
        assert_eq!(catalog.component_of("libcudart.41118559.so.12").unwrap().component, "cudart");
        assert!(catalog.component_of("libcudart_extra.so").is_none());
    }

    #[test]
    fn an_overlay_replaces_by_key_and_adds() {
        let text = "[[branch]]\nbranch = 630\ncuda_max = \"13.6\"\ntype = \"PB\"\ncc = [\"9.0\"]\nstatus = \"DOCUMENTED\"\n\
                    source = \"site\"\n[[branch]]\nbranch = 535\ncuda_max = \"12.2\"\ntype = \"LTSB\"\ncc = [\"9.0\"]\n\
                    status = \"DOCUMENTED\"\nsource = \"site\"\n";
        let overlay = BTreeMap::from([("drivers".to_owned(), text.to_owned())]);
        let catalog = Catalog::with_overlay(&overlay).unwrap();
        assert_eq!(catalog.branch(630).unwrap().cuda_max.as_str(), "13.6");
        assert_eq!(catalog.branch(535).unwrap().cc.len(), 1);
        assert!(catalog.branch(550).is_some());
        assert!(Catalog::with_overlay(&BTreeMap::from([("nope".to_owned(), String::new())])).is_err());
    }
}
