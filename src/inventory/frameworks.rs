//! Version files of frameworks and package metadata -> which frameworks an image has and what each was built for.
//!
//! `torch/version.py` says more than the metadata: the wheels on the Python package index carry their CUDA variant only
//! there. Files that exist but are not understood leave the metadata standing.

use super::processes::{in_site, site_directory};
use super::{Component, ComponentKind};
use crate::catalog::{Catalog, FrameworkRow};
use crate::facts::{ImageFacts, Package, PackageOrigin, Place};
use crate::version::Version;

/// A framework as installed once.
#[derive(Clone, Debug, PartialEq)]
pub struct Framework {
    /// Name of the distribution or conda package: `torch`, `onnxruntime-gpu`.
    pub name: String,
    /// The catalog's name: `torch`.
    pub family: String,
    pub version: Option<Version>,
    /// As written, with its local part: `2.6.0+cu124`.
    pub version_text: String,
    /// CUDA release that it was built with.
    pub cuda: Option<Version>,
    /// cuDNN that it was built with, where a file says so.
    pub cudnn: Option<Version>,
    pub backend: Backend,
    /// The file that says so.
    pub place: Place,
    /// What declares the distribution, and the version it says.
    pub declared: Place,
    pub declared_version: String,
    pub how: String,
    pub origin: &'static str,
    /// Site directory it stands in; empty for system packages.
    pub site: String,
    pub requires: Vec<String>,
}

/// What a framework was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Cuda,
    Cpu,
    /// ROCm, XPU and the like.
    Other,
    /// Nothing says.
    Unknown,
}

/// What a version file says.
struct Said {
    version: Option<String>,
    cuda: Option<Version>,
    cudnn: Option<Version>,
    backend: Backend,
}

/// All frameworks, sorted by name and place.
pub fn find(facts: &ImageFacts, catalog: &Catalog) -> Vec<Framework> {
    let mut out: Vec<Framework> =
        facts.packages.iter().filter_map(|p| of_package(p, family(p, catalog)?, facts)).collect();
    out.extend(without_metadata(facts, &out));
    out.sort_by(|a, b| (&a.name, &a.place.path).cmp(&(&b.name, &b.place.path)));
    out
}

fn family<'a>(package: &Package, catalog: &'a Catalog) -> Option<&'a FrameworkRow> {
    let name = package.fact.name.as_str();
    catalog.frameworks.iter().find(|f| match package.fact.origin {
        PackageOrigin::Pip => f
            .pip
            .iter()
            .any(|p| name == p || name.strip_prefix(p.as_str()).is_some_and(|r| r.starts_with("-cu"))),
        PackageOrigin::Conda => f.conda.iter().any(|c| name == c),
        _ => false,
    })
}

fn of_package(package: &Package, row: &FrameworkRow, facts: &ImageFacts) -> Option<Framework> {
    let path = package.place.path.as_str();
    let site = match package.fact.origin {
        PackageOrigin::Pip => site_directory(path)?.to_owned(),
        _ => String::new(),
    };
    let said = row.version_file.as_deref().and_then(|file| {
        let in_prefix = |f: &str| in_site(f) == Some(file) && (site.is_empty() || f.starts_with(&site));
        let found = facts.files.iter().find(|f| in_prefix(f.place.path.as_str()))?;
        Some((read(&row.component, found.text.as_deref()?)?, found.place.clone()))
    });
    let written = package.fact.version.split('=').next().unwrap_or_default();
    let of_metadata = Said {
        version: None,
        cuda: of_local_part(&package.fact.version).or_else(|| of_pin(package)).or_else(|| of_build(package)),
        cudnn: None,
        backend: backend_of_metadata(row, package),
    };
    let (said, place, how) = if let Some((said, place)) = said {
        let how = place.path.as_str().rsplit('/').take(2).collect::<Vec<_>>();
        let how = how.into_iter().rev().collect::<Vec<_>>().join("/");
        (said, place, how)
    } else {
        let origin = crate::facts::json::origin_name(package.fact.origin);
        (of_metadata, package.place.clone(), format!("{origin} metadata"))
    };
    // A CPU distribution shares the module, and so the version file, with the one for GPUs.
    let is_cpu = row.cpu.contains(&package.fact.name);
    let said = if is_cpu { Said { cuda: None, backend: Backend::Cpu, ..said } } else { said };
    let text = said.version.clone().unwrap_or_else(|| written.to_owned());
    Some(Framework {
        name: package.fact.name.clone(),
        family: row.component.clone(),
        version: Version::leading(&text),
        version_text: text,
        cuda: said.cuda.or_else(|| of_local_part(&package.fact.version)),
        cudnn: said.cudnn,
        backend: said.backend,
        place,
        declared: package.place.clone(),
        declared_version: written.to_owned(),
        how,
        origin: crate::facts::json::origin_name(package.fact.origin),
        site,
        requires: package.fact.requires.clone(),
    })
}

/// Source builds without metadata: a version file in a site directory whose package manager knows nothing of it.
fn without_metadata(facts: &ImageFacts, known: &[Framework]) -> Vec<Framework> {
    let mut out = Vec::new();
    for file in &facts.files {
        let path = file.place.path.as_str();
        let (Some("torch/version.py"), Some(site), Some(text)) =
            (in_site(path), site_directory(path), &file.text)
        else {
            continue;
        };
        let is_known = known.iter().any(|f| f.family == "torch" && (f.site == site || f.site.is_empty()));
        let Some(said) = read("torch", text).filter(|_| !is_known) else { continue };
        let version_text = said.version.unwrap_or_default();
        out.push(Framework {
            name: "torch".to_owned(),
            family: "torch".to_owned(),
            version: Version::leading(&version_text),
            version_text,
            cuda: said.cuda,
            cudnn: said.cudnn,
            backend: said.backend,
            place: file.place.clone(),
            declared: file.place.clone(),
            declared_version: String::new(),
            how: "torch/version.py".to_owned(),
            origin: "file",
            site: site.to_owned(),
            requires: Vec::new(),
        });
    }
    out
}

fn read(family: &str, text: &str) -> Option<Said> {
    match family {
        "torch" => torch(text),
        "torchvision" | "torchaudio" => {
            let version = python_value(text, "__version__")?;
            let cuda = of_local_part(&version);
            let backend = if version.ends_with("+cpu") { Backend::Cpu } else { Backend::Unknown };
            Some(Said { version: Some(version), cuda, cudnn: None, backend })
        }
        "tensorflow" => tensorflow(text),
        "onnxruntime" => {
            let cuda = python_value(text, "cuda_version").and_then(|v| Version::parse(&v));
            let backend = if cuda.is_some() { Backend::Cuda } else { Backend::Unknown };
            Some(Said { version: python_value(text, "__version__"), cuda, cudnn: None, backend })
        }
        "paddle" => {
            let cuda = python_value(text, "cuda_version");
            let backend = if cuda.as_deref() == Some("False") { Backend::Cpu } else { Backend::Cuda };
            let cudnn = python_value(text, "cudnn_version").and_then(|v| Version::parse(&v));
            let cuda = cuda.and_then(|v| Version::parse(&v));
            Some(Said { version: python_value(text, "full_version"), cuda, cudnn, backend })
        }
        "xformers" => xformers(text),
        _ => None,
    }
}

/// `__version__ = '2.5.1+cu124'`, `cuda: Optional[str] = '12.4'` or `None`, `hip = None`.
fn torch(text: &str) -> Option<Said> {
    let version = python_value(text, "__version__")?;
    let other = ["hip", "xpu", "rocm"].iter().any(|n| python_value(text, n).is_some());
    let cuda = python_value(text, "cuda").and_then(|v| Version::parse(&v));
    let says_cuda = text.lines().any(|l| assigned(l, "cuda").is_some());
    let backend = match (&cuda, other, says_cuda) {
        (Some(_), _, _) => Backend::Cuda,
        (None, true, _) => Backend::Other,
        (None, false, true) => Backend::Cpu,
        (None, false, false) => Backend::Unknown,
    };
    Some(Said { version: Some(version), cuda, cudnn: None, backend })
}

/// `build_info = collections.OrderedDict([('cuda_version', '12.5.1'), ('cudnn_version', '9'), ('is_cuda_build', True), …`.
fn tensorflow(text: &str) -> Option<Said> {
    let value = |key: &str| {
        let rest = text.split_once(&format!("'{key}'"))?.1.trim_start_matches([',', ':', ' ']);
        Some(rest.split([',', ')', '}', '\n']).next()?.trim().trim_matches(['\'', '"']).to_owned())
    };
    let backend = match value("is_cuda_build").as_deref() {
        Some("True") => Backend::Cuda,
        Some("False") if value("is_rocm_build").as_deref() == Some("True") => Backend::Other,
        Some("False") => Backend::Cpu,
        _ => return None,
    };
    let version = |key: &str| value(key).and_then(|v| Version::parse(&v));
    Some(Said { version: None, cuda: version("cuda_version"), cudnn: version("cudnn_version"), backend })
}

/// `{"version": {"cuda": 1201, "torch": "2.5.1+cu121", …}, "env": {…}}`.
fn xformers(text: &str) -> Option<Said> {
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    let number = json.pointer("/version/cuda")?.as_u64()?;
    let cuda = (number > 0).then(|| Version::of(number / 100, number % 100));
    Some(Said { version: None, cuda, cudnn: None, backend: Backend::Cuda })
}

/// The torch that an xformers build was made with.
pub fn torch_of_xformers(text: &str) -> Option<String> {
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    json.pointer("/version/torch")?.as_str().map(str::to_owned)
}

/// What stands behind `name =` or `name: TYPE =` of a line.
fn assigned<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.trim_start().strip_prefix(name)?;
    let rest = rest.trim_start();
    let value = match rest.strip_prefix(':') {
        Some(annotated) => annotated.split_once('=')?.1,
        None => rest.strip_prefix('=')?,
    };
    Some(value.trim())
}

/// The text of a quoted value; `None` for anything else.
fn python_value(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|l| assigned(l, name))?;
    let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    Some(value[1..].split(quote).next()?.to_owned())
}

/// `2.6.0+cu124` says 12.4, `+cu118` 11.8, `+cu130` 13.0.
fn of_local_part(version: &str) -> Option<Version> {
    let digits: String = version.split_once("+cu")?.1.chars().take_while(char::is_ascii_digit).collect();
    let (major, minor) = digits.split_at(digits.len().checked_sub(1).filter(|n| *n >= 2)?);
    Some(Version::of(major.parse().ok()?, minor.parse().ok()?))
}

/// The runtime that the distribution pins.
fn of_pin(package: &Package) -> Option<Version> {
    let pinned = package.fact.requires.iter().find_map(|r| r.strip_prefix("nvidia-cuda-runtime"))?;
    Version::leading(pinned.split_once("==")?.1.trim()).map(|v| v.major_minor())
}

/// conda build strings: `py3.11_cuda12.1_cudnn8.9.2_0`, `cuda126_mkl_py311h…`.
fn of_build(package: &Package) -> Option<Version> {
    let build = package.fact.version.split_once('=')?.1;
    let after = build.split("cuda").nth(1)?;
    let text: String = after.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    match text.split_once('.') {
        Some(_) => Version::parse(text.trim_end_matches('.')),
        None if text.len() == 3 => Some(Version::of(text[..2].parse().ok()?, text[2..].parse().ok()?)),
        None => None,
    }
}

fn backend_of_metadata(row: &FrameworkRow, package: &Package) -> Backend {
    let name = package.fact.name.as_str();
    let build = package.fact.version.split_once('=').map(|(_, b)| b).unwrap_or_default();
    match () {
        () if row.cpu.iter().any(|c| c == name)
            || package.fact.version.contains("+cpu")
            || build.contains("cpu") =>
        {
            Backend::Cpu
        }
        () if package.fact.version.contains("+cu") || build.contains("cuda") => Backend::Cuda,
        () => Backend::Unknown,
    }
}

/// Rows of the stack.
pub(super) fn components(frameworks: &[Framework]) -> Vec<Component> {
    let row = |f: &Framework| Component {
        component: f.name.clone(),
        display: f.name.clone(),
        kind: ComponentKind::Framework,
        version: Some(f.version_text.clone()).filter(|v| !v.is_empty()),
        cuda: f.cuda.as_ref().map(Version::major_minor),
        linkage: None,
        place: f.place.clone(),
        how: f.how.clone(),
        origin: f.origin,
        disagreement: None,
        reachable: None,
    };
    frameworks.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torch_says_its_cuda_in_every_spelling() {
        let old = torch("__version__ = '1.12.1+cu102'\ncuda = '10.2'\nhip = None\n").unwrap();
        assert_eq!((old.cuda.unwrap().as_str(), old.backend), ("10.2", Backend::Cuda));
        let new = torch("__version__ = '2.15.0+cu132'\ncuda: str | None = '13.2'\nhip: str | None = None\n")
            .unwrap();
        assert_eq!(new.cuda.unwrap().as_str(), "13.2");
        let cpu = torch("__version__ = '2.5.1+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n")
            .unwrap();
        assert_eq!(cpu.backend, Backend::Cpu);
        let rocm =
            torch("__version__ = '2.5.1'\ncuda: Optional[str] = None\nhip: Optional[str] = '6.2'\n").unwrap();
        assert_eq!(rocm.backend, Backend::Other);
    }

    #[test]
    fn tensorflow_says_what_it_was_built_with() {
        let text = "build_info = collections.OrderedDict([('cpu_compiler', '/usr/bin/clang'), ('cuda_compute_capabilities', \
                    ['sm_60', 'compute_90']), ('cuda_version', '12.5.1'), ('cudnn_version', '9'), ('is_cuda_build', True), \
                    ('is_rocm_build', False), ('is_tensorrt_build', False)])";
        let said = tensorflow(text).unwrap();
        assert_eq!(said.cuda.unwrap().as_str(), "12.5.1");
        assert_eq!((said.cudnn.unwrap().major(), said.backend), (9, Backend::Cuda));
        assert_eq!(tensorflow("x = [('is_cuda_build', False)]").unwrap().backend, Backend::Cpu);
    }

    #[test]
    fn local_parts_and_build_strings_name_the_release() {
        assert_eq!(of_local_part("2.6.0+cu124").unwrap().as_str(), "12.4");
        assert_eq!(of_local_part("2.6.0+cu130.1").unwrap().as_str(), "13.0");
        assert!(of_local_part("2.6.0+cpu").is_none() && of_local_part("2.6.0+cu1").is_none());
    }
}
