//! ELF files, Python distributions and system packages -> rows of the stack, with the version and what it was read from.

use super::frameworks::Framework;
use super::processes::site_directory;
use super::versions::{self, Stated};
use super::{Component, ComponentKind, Linkage, Runtime, RuntimeVersion};
use crate::catalog::{Catalog, ComponentRow};
use crate::facts::{ElfFacts, FileFacts, FileKind, ImageFacts, Package, PackageOrigin};
use crate::version::Version;

/// All components, and among them the runtimes.
pub(super) fn find(
    facts: &ImageFacts,
    frameworks: &[Framework],
    catalog: &Catalog,
) -> (Vec<Component>, Vec<Runtime>) {
    let mut components = Vec::new();
    let mut runtimes = Vec::new();
    for file in facts.files.iter().filter(|f| f.kind == FileKind::Elf) {
        let Some(elf) = &file.elf else { continue };
        let name = file.place.path.file_name();
        let by_soname = || elf.soname.as_deref().and_then(|s| catalog.component_of(s));
        let row = catalog.component_of(name).or_else(by_soname);
        // Stubs are for linking: nobody's driver.
        let is_stub = file.place.path.parent().file_name() == "stubs";
        if let Some(row) = row.filter(|_| !is_stub) {
            components.push(library(file, elf, row, facts, catalog));
        }
        if row.is_some_and(|r| r.component == "cudart") {
            runtimes.push(dynamic_runtime(file, elf, components.last()));
        } else if let Some(code) = elf.cudart {
            let version = code.version.map(Version::from_cuda_code);
            components.push(static_runtime(file, version.as_ref()));
            runtimes.push(Runtime {
                version: version.map_or(RuntimeVersion::Unknown, RuntimeVersion::Exactly),
                linkage: Linkage::Static,
                place: file.place.clone(),
                how: "the constant in the runtime's code".to_owned(),
            });
        }
    }
    components.extend(toolkits(facts));
    components.extend(super::frameworks::components(frameworks));
    components.extend(package_only(facts, catalog, &components));
    components
        .sort_by(|a, b| (a.kind, &a.component, &a.place.path).cmp(&(b.kind, &b.component, &b.place.path)));
    (components, runtimes)
}

/// The version of the NCCL that is linked into torch's own library: such a torch loads no other.
pub fn nccl_inside(file: &FileFacts) -> Option<&str> {
    let elf = file.elf.as_ref().filter(|_| file.place.path.file_name().starts_with("libtorch_cuda"))?;
    let version = elf.version_texts.get("nccl")?.first()?;
    (!elf.needed.iter().any(|n| n.starts_with("libnccl"))).then_some(version.as_str())
}

fn library(
    file: &FileFacts,
    elf: &ElfFacts,
    row: &ComponentRow,
    facts: &ImageFacts,
    catalog: &Catalog,
) -> Component {
    let name = file.place.path.file_name();
    let package = owner(file, row, facts);
    let is_cudart = row.component == "cudart";
    let constant = elf.cudart.and_then(|c| c.version).map(Version::from_cuda_code);
    let stated = match constant.clone().filter(|_| is_cudart) {
        Some(version) => Some(Stated { version, how: "the constant in its code".to_owned() }),
        None => versions::stated(&row.component, elf).or_else(|| beside(file, row, facts, catalog)),
    };
    let mut sources: Vec<(Version, String)> = stated.into_iter().map(|s| (s.version, s.how)).collect();
    sources.extend(version_in_name(name).map(|v| (v, "the file name".to_owned())));
    let packaged = package.and_then(|p| Some((Version::leading(&p.fact.version)?, package_text(p))));
    sources.extend(packaged);
    // What the bytes state comes first; of the sources that agree with it the longest spelling is printed.
    let (agreeing, other): (Vec<_>, Vec<_>) =
        sources.iter().partition(|(v, _)| sources.first().is_some_and(|(first, _)| first.agrees_with(v)));
    let version =
        agreeing.iter().map(|(v, _)| v).max_by_key(|v| v.len()).map(std::string::ToString::to_string);
    let names: Vec<&str> = agreeing.iter().map(|(_, how)| how.as_str()).collect();
    let how = match names.as_slice() {
        [] => "only the file name; it has no full version".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    };
    let disagreement = other.first().map(|(v, how)| match how.contains(v.as_str()) {
        true => how.clone(),
        false => format!("{how} says {v}"),
    });
    // A package that says something else is not where the file comes from.
    let package = package.filter(|p| !other.iter().any(|(_, how)| *how == package_text(p)));
    let cuda = match (is_cudart, row.component.as_str()) {
        (true, _) | (_, "nvrtc" | "nvjitlink") => {
            version.as_deref().and_then(Version::leading).map(|v| v.major_minor())
        }
        // What they answer is a CUDA release of their makers, not of the toolkit that they belong to.
        (_, "cublas" | "cublaslt") => None,
        (_, "cudnn") => companions(file, "cudnn", facts, catalog)
            .find_map(|f| versions::built_with("cudnn", f.elf.as_ref()?)),
        _ => versions::built_with(&row.component, elf).or(constant),
    };
    let is_driver = matches!(row.component.as_str(), "libcuda" | "nvidia-driver");
    let kind = match is_driver {
        true if super::compat::is_compat_path(&file.place.path) => ComponentKind::Compat,
        true => ComponentKind::Driver,
        false => ComponentKind::Library,
    };
    let origin = package.map_or("file", |p| crate::facts::json::origin_name(p.fact.origin));
    Component {
        component: row.component.clone(),
        display: row.display.clone(),
        kind,
        version,
        cuda,
        linkage: Some(Linkage::Dynamic),
        place: file.place.clone(),
        how,
        origin,
        disagreement,
        reachable: None,
    }
}

/// The version that a library's companion in the same directory states: cuDNN's dispatcher has none of its own, and
/// cuBLAS asks cuBLASLt for it.
fn beside(file: &FileFacts, row: &ComponentRow, facts: &ImageFacts, catalog: &Catalog) -> Option<Stated> {
    let companion = match row.component.as_str() {
        "cudnn" => "cudnn",
        "cublas" => "cublaslt",
        _ => return None,
    };
    let stated = companions(file, companion, facts, catalog)
        .filter(|f| f.place.path != file.place.path)
        .filter_map(|f| {
            let stated = versions::stated(companion, f.elf.as_ref()?)?;
            Some(Stated { how: format!("{} of {}", stated.how, f.place.path.file_name()), ..stated })
        });
    stated.min_by(|a, b| a.how.cmp(&b.how))
}

/// Libraries of a component in the same directory and with the same number in their sonames, the file itself included.
fn companions<'f>(
    file: &'f FileFacts,
    component: &'f str,
    facts: &'f ImageFacts,
    catalog: &'f Catalog,
) -> impl Iterator<Item = &'f FileFacts> {
    let number = |f: &FileFacts| f.elf.as_ref()?.soname.as_deref()?.split(".so.").nth(1).map(str::to_owned);
    let (dir, own) = (file.place.path.parent(), number(file));
    facts.files.iter().filter(move |f| {
        f.place.path.parent() == dir
            && catalog.component_of(f.place.path.file_name()).is_some_and(|c| c.component == component)
            && number(f) == own
    })
}

fn plain_version(package: &Package) -> String {
    package.fact.version.split(['-', '=']).next().unwrap_or_default().to_owned()
}

fn package_text(package: &Package) -> String {
    let origin = crate::facts::json::origin_name(package.fact.origin);
    format!("{origin} package {} {}", package.fact.name, package.fact.version)
}

/// `12.2.140` of `libcudart.so.12.2.140`; a soname alone (`.so.12`, `.so.11.0`) is no full version.
fn version_in_name(name: &str) -> Option<Version> {
    let (_, rest) = name.split_once(".so.")?;
    Version::parse(rest).filter(|v| v.len() >= 3)
}

/// The package that brought a library: a distribution of the same site directory, else a system package of the
/// component's name where the file stands in a system directory. Packages of another CUDA major than the file's are
/// no owners, and where several are left none is named.
fn owner<'a>(file: &FileFacts, row: &ComponentRow, facts: &'a ImageFacts) -> Option<&'a Package> {
    let path = file.place.path.as_str();
    let candidates: Vec<&Package> = match site_directory(path) {
        Some(site) => {
            let is_pip = |p: &&Package| {
                p.fact.origin == PackageOrigin::Pip
                    && p.place.path.as_str().starts_with(site)
                    && row.pip.iter().any(|name| is_distribution(&p.fact.name, name))
            };
            facts.packages.iter().filter(is_pip).collect()
        }
        None if path.starts_with("/usr/") || path.starts_with("/lib") => {
            let is_system = |p: &&Package| {
                p.fact.origin != PackageOrigin::Pip
                    && row.packages.iter().any(|prefix| p.fact.name.starts_with(prefix.as_str()))
                    && !p.fact.name.ends_with("-dev")
                    && path_names_release(path, &p.fact.name)
            };
            facts.packages.iter().filter(is_system).collect()
        }
        None => Vec::new(),
    };
    let mut majors: Vec<&Package> =
        candidates.iter().copied().filter(|p| major_fits(&p.fact.name, file)).collect();
    majors.dedup_by(|a, b| a.fact == b.fact);
    match majors.as_slice() {
        [one] => Some(one),
        _ => None,
    }
}

/// `nvidia-cublas` is the distribution of `nvidia-cublas-cu12` and of `nvidia-cublas` (CUDA 13).
fn is_distribution(name: &str, stem: &str) -> bool {
    name.strip_prefix(stem)
        .is_some_and(|rest| rest.is_empty() || rest.strip_prefix("-cu").is_some_and(is_digits))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether the CUDA major in a package's name (`-cu12`, `-12-2`) may be that of the file: its runtime's constant, else the
/// number behind `.so.`, where that is a CUDA major (`libnvrtc.so.12`, not `libcurand.so.10`).
fn major_fits(package: &str, file: &FileFacts) -> bool {
    let of_pip = package.rsplit_once("-cu").map(|(_, m)| m).filter(|m| is_digits(m));
    let of_system = || package.rsplit('-').nth(1).filter(|m| is_digits(m));
    let Some(major) = of_pip.or_else(of_system).and_then(|m| m.parse::<u64>().ok()) else { return true };
    let constant =
        file.elf.as_ref().and_then(|e| e.cudart).and_then(|c| c.version).map(|v| u64::from(v / 1000));
    let name = file.elf.as_ref().and_then(|e| e.soname.as_deref()).unwrap_or(file.place.path.file_name());
    let numbered = ["libcudart", "libnvrtc", "libcublas", "libnvJitLink", "libnvjpeg", "libnpp", "libcupti"];
    let carries_major = numbered.iter().any(|n| name.starts_with(n));
    let number = name
        .split_once(".so.")
        .filter(|_| carries_major)
        .and_then(|(_, v)| v.split('.').next()?.parse().ok());
    constant.or(number).is_none_or(|m| m == major)
}

/// `cuda-cudart-12-2` belongs to files below `cuda-12.2`; packages without a release belong to any.
fn path_names_release(path: &str, package: &str) -> bool {
    let parts: Vec<&str> = package.rsplitn(3, '-').collect();
    match parts.as_slice() {
        [minor, major, _] if is_digits(minor) && is_digits(major) => {
            !path.contains("/cuda-") || path.contains(&format!("/cuda-{major}.{minor}/"))
        }
        _ => true,
    }
}

fn dynamic_runtime(file: &FileFacts, elf: &ElfFacts, row: Option<&Component>) -> Runtime {
    let known = row.and_then(|c| Some((Version::leading(c.version.as_deref()?)?, c.how.clone())));
    let soname = elf.soname.as_deref().unwrap_or(file.place.path.file_name());
    let (version, how) = match (known, soname.split_once(".so.").and_then(|(_, v)| Version::parse(v))) {
        (Some((version, how)), _) => (RuntimeVersion::Exactly(version), how),
        // Up to 10.2 the soname carries major.minor; 11.0 stands for every 11.x.
        (None, Some(v)) if v.major() < 11 && v.len() > 1 => {
            (RuntimeVersion::Exactly(v), "the soname".to_owned())
        }
        (None, Some(v)) => (RuntimeVersion::Major(v.major()), "the soname".to_owned()),
        (None, None) => (RuntimeVersion::Unknown, "nothing in the file".to_owned()),
    };
    Runtime { version, linkage: Linkage::Dynamic, place: file.place.clone(), how }
}

fn static_runtime(file: &FileFacts, version: Option<&Version>) -> Component {
    Component {
        component: "cudart".to_owned(),
        display: "CUDA runtime".to_owned(),
        kind: ComponentKind::Library,
        version: version.map(Version::to_string),
        cuda: version.cloned(),
        linkage: Some(Linkage::Static),
        place: file.place.clone(),
        how: "the constant in the runtime's code".to_owned(),
        origin: "file",
        disagreement: None,
        reachable: None,
    }
}

/// `version.json` of a toolkit directory: `{"cuda": {"name": "CUDA SDK", "version": "12.2.2"}, …}`; older ones have
/// `version.txt`: `CUDA Version 10.2.89`.
fn toolkits(facts: &ImageFacts) -> Vec<Component> {
    let mut out = Vec::new();
    for file in &facts.files {
        let name = file.place.path.file_name();
        let Some(text) = file.text.as_deref().filter(|_| name.starts_with("version.")) else { continue };
        let version = match name {
            "version.json" => serde_json::from_str::<serde_json::Value>(text)
                .ok()
                .and_then(|v| v.pointer("/cuda/version").and_then(|v| v.as_str()).and_then(Version::leading)),
            _ => text.trim().strip_prefix("CUDA Version ").and_then(Version::leading),
        };
        let Some(version) = version else { continue };
        out.push(Component {
            component: "toolkit".to_owned(),
            display: "CUDA toolkit".to_owned(),
            kind: ComponentKind::Toolkit,
            cuda: Some(version.major_minor()),
            version: Some(version.to_string()),
            linkage: None,
            place: file.place.clone(),
            how: name.to_owned(),
            origin: "file",
            disagreement: None,
            reachable: None,
        });
    }
    out
}

/// Packages of the stack of which no library was seen: they are rows of their own.
fn package_only(facts: &ImageFacts, catalog: &Catalog, seen: &[Component]) -> Vec<Component> {
    let named = |text: &str| {
        seen.iter().any(|c| c.how.contains(text) || c.disagreement.as_ref().is_some_and(|d| d.contains(text)))
    };
    let mut out = Vec::new();
    for package in &facts.packages {
        let name = package.fact.name.as_str();
        let is_of = |row: &&ComponentRow| match package.fact.origin {
            PackageOrigin::Pip => row.pip.iter().any(|p| is_distribution(name, p)),
            _ => row.packages.iter().any(|p| name.starts_with(p.as_str())) && !name.ends_with("-dev"),
        };
        let Some(row) = catalog.components.iter().find(is_of) else { continue };
        let text = package_text(package);
        if named(&text) {
            continue;
        }
        out.push(Component {
            component: row.component.clone(),
            display: row.display.clone(),
            kind: if row.component == "libcuda" { ComponentKind::Compat } else { ComponentKind::Library },
            version: Some(plain_version(package)),
            cuda: None,
            linkage: None,
            place: package.place.clone(),
            how: text,
            origin: crate::facts::json::origin_name(package.fact.origin),
            disagreement: None,
            reachable: None,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_version_in_a_file_name_counts() {
        assert_eq!(version_in_name("libcudart.so.12.2.140").unwrap().as_str(), "12.2.140");
        assert!(version_in_name("libcudart.so.11.0").is_none());
        assert!(version_in_name("libcudnn.so.9").is_none());
    }

    #[test]
    fn distributions_of_all_cuda_majors_belong_to_their_component() {
        assert!(is_distribution("nvidia-cublas-cu12", "nvidia-cublas"));
        assert!(is_distribution("nvidia-cublas", "nvidia-cublas"));
        assert!(!is_distribution("nvidia-cublas-cupy", "nvidia-cublas"));
        assert!(path_names_release("/usr/local/cuda-12.2/lib64/libcudart.so.12", "cuda-cudart-12-2"));
        assert!(!path_names_release("/usr/local/cuda-12.2/lib64/libcudart.so.12", "cuda-cudart-11-8"));
    }
}
