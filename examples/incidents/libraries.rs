//! Components of the CUDA stack -> files as NVIDIA ships them: names, sonames, and where each file states its version.

use cudalint::facts::{CudartCode, ElfFacts, FileFacts, FileKind, Place, gnu_hash};
use cudalint::names::{ImagePath, LayerIndex};
use cudalint::version::Version;

/// The library files of a component: what a version of it is called. `cuda` is the major that it belongs to.
pub(crate) fn sonames(component: &str, version: Option<&Version>, cuda: u64) -> Vec<String> {
    let of = |stem: &str, number: u64| format!("{stem}.so.{number}");
    let major = version.map(Version::major);
    match component {
        "cuda" => {
            let mut all = vec![cudart(version, cuda), of("libcublas", cuda), of("libcublasLt", cuda)];
            all.push(of("libcufft", if cuda == 10 { 10 } else { cuda.saturating_sub(1) }));
            all.extend([of("libcurand", 10), of("libcusolver", if cuda == 13 { 12 } else { cuda.min(11) })]);
            all.push(of("libcusparse", cuda.min(12)));
            all.push(if cuda == 11 { "libnvrtc.so.11.2".to_owned() } else { of("libnvrtc", cuda) });
            if cuda >= 12 {
                all.push(of("libnvJitLink", cuda));
            }
            all
        }
        "cudart" => vec![cudart(version, cuda)],
        "cublas" => vec![of("libcublas", cuda), of("libcublasLt", cuda)],
        "cudnn" => cudnn(major.unwrap_or(9)),
        "nccl" => vec!["libnccl.so.2".to_owned()],
        "tensorrt" => vec![of("libnvinfer", major.unwrap_or(10))],
        "nvrtc" if cuda == 11 => vec!["libnvrtc.so.11.2".to_owned()],
        "nvrtc" => vec![of("libnvrtc", cuda)],
        name if name.contains(".so") => vec![name.to_owned()],
        _ => Vec::new(),
    }
}

fn cudart(version: Option<&Version>, cuda: u64) -> String {
    match (cuda, version) {
        (..=10, Some(v)) => format!("libcudart.so.{}", v.major_minor()),
        (11, _) => "libcudart.so.11.0".to_owned(),
        _ => format!("libcudart.so.{cuda}"),
    }
}

fn cudnn(major: u64) -> Vec<String> {
    let parts: &[&str] = match major {
        9.. => &[
            "",
            "_graph",
            "_ops",
            "_cnn",
            "_adv",
            "_heuristic",
            "_engines_precompiled",
            "_engines_runtime_compiled",
        ],
        8 => &["", "_ops_infer", "_ops_train", "_cnn_infer", "_cnn_train", "_adv_infer", "_adv_train"],
        _ => &[""],
    };
    parts.iter().map(|p| format!("libcudnn{p}.so.{major}")).collect()
}

/// A library file that states `version` in the way of its component.
pub(crate) fn file(dir: &str, soname: &str, version: Option<&Version>, machine: &str) -> FileFacts {
    let mut elf = elf(soname, machine);
    // Libraries of the stack tell what they export; these export what their version is asked by.
    elf.exports = Some(vec![gnu_hash(b"version")]);
    let number = |v: &Version, major: u64, minor: u64| {
        u32::try_from(v.major() * major + v.minor() * minor + v.part(2)).unwrap_or(0)
    };
    let mut name = soname.to_owned();
    if let Some(v) = version {
        if soname.starts_with("libcudart") {
            let code = u32::try_from(v.major() * 1000 + v.minor() * 10).unwrap_or(0);
            elf.cudart = Some(CudartCode { version: Some(code) });
        } else if soname.starts_with("libcudnn") {
            let full = if v.major() >= 9 { number(v, 10_000, 100) } else { number(v, 1000, 100) };
            elf.version_numbers.insert("cudnnGetVersion".to_owned(), full);
        } else if soname.starts_with("libnccl") {
            elf.version_texts.insert("nccl".to_owned(), vec![v.to_string()]);
        } else if soname.starts_with("libnvinfer") {
            let full = if v.major() >= 10 { number(v, 10_000, 100) } else { number(v, 1000, 100) };
            elf.version_numbers.insert("getInferLibVersion".to_owned(), full);
        } else if ["libnvJitLink", "libnvrtc"].iter().any(|s| soname.starts_with(s)) {
            elf.version_texts.insert("toolkit".to_owned(), vec![v.to_string()]);
        } else if (v.len() >= 3 || v.major() >= 100)
            && let Some((stem, _)) = soname.split_once(".so")
        {
            name = format!("{stem}.so.{v}");
        }
    } else if soname.starts_with("libcudart") {
        elf.cudart = Some(CudartCode { version: None });
    }
    // The soname says no more than the file name did.
    if elf.cudart == Some(CudartCode { version: None }) {
        elf.cudart = None;
    }
    at(&format!("{dir}/{name}"), elf)
}

pub(crate) fn elf(soname: &str, machine: &str) -> ElfFacts {
    ElfFacts {
        bits: 64,
        machine: machine.to_owned(),
        kind: "DYN".to_owned(),
        soname: Some(soname.to_owned()),
        needed: vec!["libc.so.6".to_owned()],
        ..ElfFacts::default()
    }
}

pub(crate) fn at(path: &str, elf: ElfFacts) -> FileFacts {
    FileFacts {
        place: place(path),
        size: 1 << 20,
        kind: FileKind::Elf,
        elf: Some(elf),
        device_code: None,
        text: None,
        sha256: None,
    }
}

pub(crate) fn text(path: &str, text: &str) -> FileFacts {
    FileFacts {
        place: place(path),
        size: text.len() as u64,
        kind: FileKind::Text,
        elf: None,
        device_code: None,
        text: Some(text.to_owned()),
        sha256: None,
    }
}

pub(crate) fn place(path: &str) -> Place {
    Place { layer: LayerIndex(0), path: ImagePath::new(path) }
}
