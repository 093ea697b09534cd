//! Thoughts that the rules of the families 3xx and 4xx share: who loads what, of which version, for which CUDA.

use super::Case;
use crate::facts::{ElfFacts, FileFacts, Place};
use crate::inventory::gpu_code::GroupRole;
use crate::inventory::loader::{Object, Process};
use crate::inventory::loading::{Group, Opened};
use crate::names::ImagePath;
use crate::report::{Evidence, RuntimeError};
use crate::version::Version;

/// What a user would read, without an error code.
pub(super) fn says(text: impl Into<String>) -> Option<RuntimeError> {
    Some(RuntimeError { code: None, name: None, text: text.into() })
}

/// What glibc's loader says of a library that it does not find.
pub(super) fn cannot_open(name: &str) -> Option<RuntimeError> {
    says(format!("{name}: cannot open shared object file: No such file or directory"))
}

/// Groups of applications: packages, extensions, programs. Where torch itself cannot be loaded, those that import it first
/// are left out: its failure is theirs.
pub(super) fn applications<'c>(case: &Case<'c>) -> impl Iterator<Item = &'c Group<'c>> {
    let loading = &case.inventory.loading;
    let torch_fails = loading.iter().any(|g| g.name == "torch" && g.fails(case.catalog));
    let after_torch = |g: &Group| {
        g.name != "torch"
            && g.members.iter().all(|m| m.process.inherited > 0 && m.process.object("libc10.so").is_some())
    };
    loading.iter().filter(move |g| g.role == GroupRole::Application && !(torch_fails && after_torch(g)))
}

pub(super) fn at(file: &FileFacts, detail: impl Into<String>) -> Evidence {
    Evidence { place: file.place.clone(), detail: detail.into() }
}

pub(super) fn at_place(place: &Place, detail: impl Into<String>) -> Evidence {
    Evidence { place: place.clone(), detail: detail.into() }
}

/// Tools that a toolkit brings along and no workload loads.
pub(super) fn is_toolkit_extra(path: &ImagePath) -> bool {
    const PARTS: [&str; 9] = [
        // Plug-ins in NVIDIA's own wheels, which their library opens if it can.
        "-packages/nvidia/",
        "/nsight",
        "/extras/",
        "/compute-sanitizer",
        "/samples/",
        "/gds/",
        "/libnvvp/",
        "/host-linux-",
        "/target-linux-",
    ];
    PARTS.iter().any(|p| path.as_str().contains(p))
}

/// `cuBLAS 12.4.5`, or the file name where nothing is known.
pub(super) fn library_text(case: &Case<'_>, file: &FileFacts) -> String {
    match case.inventory.component_at(file) {
        Some(component) => {
            let version = component.version.as_deref().map(|v| format!(" {v}")).unwrap_or_default();
            format!("{}{version}", component.display)
        }
        None => file.place.path.file_name().to_owned(),
    }
}

/// The CUDA major that a library's own needs give away: `libcublas.so.12` or `libnvJitLink.so.13` say 12 and 13.
pub(super) fn cuda_major_of_needs(elf: &ElfFacts) -> Option<u64> {
    const TELLING: [&str; 5] =
        ["libcudart.so.", "libcublas.so.", "libcublasLt.so.", "libnvJitLink.so.", "libnvrtc.so."];
    let major = |name: &String| {
        let rest = TELLING.iter().find_map(|t| name.strip_prefix(t))?;
        rest.split('.').next()?.parse().ok()
    };
    elf.needed.iter().find_map(major)
}

/// The CUDA major that a library belongs to, from its bytes, its needs, or its soname where that says so.
pub(super) fn cuda_major(case: &Case<'_>, file: &FileFacts) -> Option<u64> {
    let elf = file.elf.as_ref()?;
    let component = case.inventory.component_at(file);
    let stated = component.and_then(|c| c.cuda.as_ref()).map(Version::major);
    let own_soname = || {
        const NUMBERED: [&str; 7] =
            ["libcudart", "libnvrtc", "libcublas", "libnvJitLink", "libnvjpeg", "libnpp", "libcupti"];
        let name = elf.soname.as_deref().filter(|s| NUMBERED.iter().any(|n| s.starts_with(n)))?;
        name.split_once(".so.")?.1.split('.').next()?.parse().ok()
    };
    stated.or_else(|| cuda_major_of_needs(elf)).or_else(own_soname)
}

/// The distribution that ships a library, as pip names it for a CUDA major: `nvidia-cublas-cu12`, `nvidia-cublas`. Where the
/// soname says nothing about CUDA, `asks` may.
pub(super) fn pip_package(case: &Case<'_>, soname: &str, asks: Option<&FileFacts>) -> Option<String> {
    let row = case.catalog.component_of(soname)?;
    let stem = row.pip.first()?;
    let number: Option<u64> = soname.split_once(".so.").and_then(|(_, v)| v.split('.').next()?.parse().ok());
    let major = match row.component.as_str() {
        "cudart" | "cublas" | "cublaslt" | "nvrtc" | "nvjitlink" | "nvjpeg" | "npp" | "cupti" => number,
        "cufft" => number.map(|n| n + 1),
        "cusparse" if number == Some(11) => Some(11),
        "cusolver" | "cusparse" | "curand" | "cudnn" | "nccl" => {
            let majors = case.inventory.runtimes.iter().filter_map(|r| r.version.major());
            asks.and_then(|f| cuda_major_of_needs(f.elf.as_ref()?)).or_else(|| majors.max())
        }
        _ => return Some(stem.clone()),
    };
    Some(match major {
        Some(major) if major >= 13 && !matches!(row.component.as_str(), "cudnn" | "nccl") => stem.clone(),
        Some(major) => format!("{stem}-cu{major}"),
        None => stem.clone(),
    })
}

/// The first object of a process whose soname begins with `stem` and `.so`.
pub(super) fn object_of<'p, 'a>(process: &'p Process<'a>, stem: &str) -> Option<(usize, &'p Object<'a>)> {
    let is_it = |o: &Object| {
        let name = o.elf.soname.as_deref().unwrap_or(o.file.place.path.file_name());
        name.strip_prefix(stem).is_some_and(|rest| rest.starts_with(".so"))
    };
    process.objects.iter().enumerate().find(|(_, o)| is_it(o))
}

/// A file of the image with the name of a library, wherever it stands.
pub(super) fn anywhere<'c>(case: &Case<'c>, name: &str) -> Option<&'c FileFacts> {
    let architecture = &case.inventory.facts.image.platform.architecture;
    let named = |f: &&FileFacts| {
        f.elf.as_ref().is_some_and(|e| {
            let fits = e.bits == 64 && (architecture.is_empty() || e.machine == *architecture);
            fits && (f.place.path.file_name() == name || e.soname.as_deref() == Some(name))
        })
    };
    case.inventory.facts.files.iter().find(named)
}

/// The member that got furthest: with the fewest libraries missing.
pub(super) fn best_member<'g, 'a>(case: &Case<'_>, group: &'g Group<'a>) -> Option<&'g Opened<'a>> {
    group.deciding().min_by_key(|m| (m.missing(case.catalog).count(), m.gaps.len()))
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn and(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
