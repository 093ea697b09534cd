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
    /// Name of each table -> its rows as JSON.
    tables: &'static [(&'static str, &'static str)],
}

// FILES, in the order of their names, and AS_OF.
include!(concat!(env!("OUT_DIR"), "/catalog.rs"));

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
        let mut catalog = Catalog {
            overlays: overlay.keys().cloned().collect(),
            as_of: AS_OF.to_owned(),
            ..Catalog::default()
        };
        for file in FILES {
            let overlay = overlay.get(file.name).map(|text| parse(file.name, text)).transpose()?;
            catalog.take(&Tables { file, overlay })?;
        }
        catalog.branches.sort_by_key(|b| b.branch);
        Ok(catalog)
    }

    fn take(&mut self, t: &Tables<'_>) -> Result<(), CatalogError> {
        match t.file.name {
            "drivers" => {
                self.branches = t.rows("branch")?;
                self.driver_versions = t.rows("version")?;
                self.driver_archs = t.rows("arch")?;
                self.tegra = t.rows("tegra")?;
            }
            "toolkits" => {
                self.toolkits = t.rows("toolkit")?;
                self.families = t.rows("family")?;
            }
            "ptx_isa" => self.ptx = t.rows("ptx")?,
            "architectures" => self.archs = t.rows("arch")?,
            "gpus" => {
                self.gpus = t.rows("gpu")?;
                self.ambiguous = t.rows("ambiguous")?;
                self.cloud = t.rows("cloud")?;
            }
            "forward_compat" => {
                self.compat_packages = t.rows("package")?;
                self.compat_matrix = t.rows("matrix")?;
                self.historic_bases = t.rows("historic_base")?;
            }
            "frameworks" => self.tritons = t.rows("triton_release")?,
            "library_bugs" => {
                self.bugs = t.rows("bug")?;
                self.cudnn_gpus = t.rows("cudnn_gpu")?;
            }
            "loading" => {
                self.preloads = t.rows("preload")?;
                self.dlopens = t.rows("dlopen")?;
                self.search_only = t.rows("search_only")?;
            }
            "container_stack" => {
                self.capabilities = t.rows("capability")?;
                self.driver_needs = t.rows("driver_need")?;
                self.settings = t.rows("setting")?;
            }
            "driver_security" => {
                self.driver_fixes = t.rows("latest_fix")?;
                self.toolkit_fixes = t.rows("container_toolkit")?;
            }
            "errors" => self.errors = t.rows("error")?,
            "components" => {
                self.components = t.rows("component")?;
                self.frameworks = t.rows("framework")?;
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

/// One file with what is laid over it.
struct Tables<'a> {
    file: &'a CatalogFile,
    overlay: Option<toml::Table>,
}

impl Tables<'_> {
    fn rows<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, CatalogError> {
        let built_in = self.file.tables.iter().find(|(n, _)| *n == name).map_or("[]", |(_, json)| json);
        let rows = match self.overlay.as_ref().and_then(|table| table.get(name)) {
            None => serde_json::from_str(built_in),
            Some(new) => laid_over(name, built_in, new).and_then(serde_json::from_value),
        };
        rows.map_err(|e| CatalogError { file: self.file.name.to_owned(), reason: format!("[[{name}]]: {e}") })
    }
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

fn laid_over(name: &str, built_in: &str, new: &toml::Value) -> serde_json::Result<serde_json::Value> {
    let mut rows: Vec<serde_json::Value> = serde_json::from_str(built_in)?;
    let keys = key_field(name);
    let new = serde_json::to_value(new)?;
    for row in new.as_array().into_iter().flatten() {
        let same =
            |old: &serde_json::Value| keys.iter().all(|k| old.get(k).is_some() && old.get(k) == row.get(k));
        match rows.iter_mut().find(|old| same(old)) {
            Some(old) => *old = row.clone(),
            None => rows.push(row.clone()),
        }
    }
    Ok(rows.into())
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
