//! Package databases and configuration files -> packages of the CUDA stack and the text that later stages read.
//!
//! | file | what it gives |
//! |---|---|
//! | `*.dist-info/METADATA`, `*.egg-info/PKG-INFO` | a Python distribution (PyPA core metadata) |
//! | `/var/lib/dpkg/status`, `/var/lib/dpkg/status.d/*` | Debian packages |
//! | `/lib/apk/db/installed` | Alpine packages |
//! | `rpmdb.sqlite`, `Packages`, `Packages.db` below an rpm directory | RPM packages |
//! | `conda-meta/*.json` | conda packages |
//! | `ld.so.conf`, `ld.so.conf.d/*`, `ld.so.cache`, `os-release`, `cuda*/version.json`, `cuda*/version.txt` | text |

use super::file::FileScan;
use super::rpm;
use super::tar::read_bounded;
use crate::facts::{Content, FileKind, PackageFact, PackageOrigin};
use crate::limits;
use crate::names::ImagePath;
use std::io::{self, Read};

type Analyzer = fn(&[u8]) -> Result<Content, String>;

/// Which analyzer wants a file, by its path alone.
fn analyzer(path: &str) -> Option<Analyzer> {
    let (dir, name) = path.rsplit_once('/')?;
    let parent = dir.rsplit('/').next().unwrap_or_default();
    let is_cuda_root = parent.starts_with("cuda") || dir.ends_with("/cuda_runtime");
    match name {
        "METADATA" if parent.ends_with(".dist-info") => Some(python),
        "PKG-INFO" if parent.ends_with(".egg-info") => Some(python),
        _ if name.ends_with(".egg-info") => Some(python),
        "status" if dir.ends_with("var/lib/dpkg") => Some(dpkg),
        _ if dir.ends_with("var/lib/dpkg/status.d") && !name.ends_with(".md5sums") => Some(dpkg),
        "installed" if dir.ends_with("lib/apk/db") => Some(apk),
        "rpmdb.sqlite" | "Packages" | "Packages.db" if parent == "rpm" => Some(rpm_packages),
        _ if parent == "conda-meta" && name.ends_with(".json") => Some(conda),
        "ld.so.cache" if dir == "/etc" => Some(loader_cache),
        "ld.so.conf" | "ld.so.preload" if dir == "/etc" => Some(text),
        _ if dir == "/etc/ld.so.conf.d" || dir == "/etc" && name.starts_with("ld-musl-") => Some(text),
        "os-release" if dir == "/etc" || dir == "/usr/lib" => Some(text),
        "version.json" | "version.txt" if is_cuda_root => Some(text),
        _ if is_framework_file(dir, name) => Some(text),
        _ => None,
    }
}

/// Files in which frameworks say what they were built for; their versions are in `inventory/frameworks.rs`.
fn is_framework_file(dir: &str, name: &str) -> bool {
    const FILES: &[(&str, &str)] = &[
        ("/torch", "version.py"),
        ("/torchvision", "version.py"),
        ("/torchaudio", "version.py"),
        ("/jax", "version.py"),
        ("/jaxlib", "version.py"),
        ("/xla_cuda12", "version.py"),
        ("/xla_cuda13", "version.py"),
        ("/tensorflow/python/platform", "build_info.py"),
        ("/onnxruntime/capi", "build_and_package_info.py"),
        ("/paddle/version", "__init__.py"),
        ("/cupy/.data", "_wheel.json"),
        ("/xformers", "cpp_lib.json"),
        ("/deepspeed", "git_version_info_installed.py"),
    ];
    FILES.iter().any(|(end, file)| *file == name && dir.ends_with(end))
}

pub(crate) fn scan(path: &ImagePath, reader: &mut dyn Read) -> io::Result<FileScan> {
    let Some(analyze) = analyzer(path.as_str()) else { return Ok(FileScan::default()) };
    let Some(bytes) = read_bounded(reader, limits::TEXT_BYTES_MAX)? else {
        let problem = format!("larger than {} bytes: not read", limits::TEXT_BYTES_MAX);
        return Ok(FileScan { problems: vec![problem], ..FileScan::default() });
    };
    Ok(match analyze(&bytes) {
        Ok(content) => {
            let says_something = !content.packages.is_empty() || content.text.is_some();
            FileScan { content: says_something.then_some(content), ..FileScan::default() }
        }
        Err(problem) => FileScan { problems: vec![problem], ..FileScan::default() },
    })
}

fn text(bytes: &[u8]) -> Result<Content, String> {
    const KEPT: usize = 64 << 10;
    if bytes.len() > KEPT {
        return Err(format!(
            "configuration text of {} bytes: only files up to {KEPT} bytes are read",
            bytes.len()
        ));
    }
    Ok(Content {
        kind: Some(FileKind::Text),
        text: Some(String::from_utf8_lossy(bytes).into_owned()),
        ..Content::default()
    })
}

fn of_packages(packages: Vec<PackageFact>) -> Content {
    Content { packages, ..Content::default() }
}

/// RFC 822 style headers; the body after the first empty line is prose.
fn python(bytes: &[u8]) -> Result<Content, String> {
    let text = String::from_utf8_lossy(bytes);
    let mut fact = PackageFact {
        origin: PackageOrigin::Pip,
        name: String::new(),
        version: String::new(),
        requires: Vec::new(),
    };
    for line in text.lines().take_while(|l| !l.trim().is_empty()) {
        let Some((key, value)) = line.split_once(':') else { continue };
        match key {
            "Name" => fact.name = normal_name(value.trim()),
            "Version" => value.trim().clone_into(&mut fact.version),
            "Requires-Dist" if is_cuda_package(&normal_name(value.trim())) => {
                fact.requires.push(value.trim().to_owned());
            }
            _ => {}
        }
    }
    if fact.name.is_empty() || fact.version.is_empty() {
        return Err("Python metadata without name or version".to_owned());
    }
    fact.requires.truncate(limits::NAMES_PER_FILE_MAX);
    Ok(of_packages(vec![fact]))
}

/// PEP 503: lower case, runs of `-`, `_` and `.` are one `-`.
fn normal_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            c => out.extend(c.to_lowercase()),
        }
    }
    out
}

fn dpkg(bytes: &[u8]) -> Result<Content, String> {
    let text = String::from_utf8_lossy(bytes);
    let mut packages = Vec::new();
    for stanza in text.split("\n\n") {
        let field =
            |key: &str| stanza.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':').map(str::trim));
        let installed = field("Status").is_none_or(|s| s.ends_with(" installed"));
        if let (Some(name), Some(version), true) = (field("Package"), field("Version"), installed) {
            push_system(&mut packages, PackageOrigin::Dpkg, name, version);
        }
    }
    Ok(of_packages(packages))
}

fn apk(bytes: &[u8]) -> Result<Content, String> {
    let text = String::from_utf8_lossy(bytes);
    let mut packages = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |key: &str| stanza.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
        if let (Some(name), Some(version)) = (field("P"), field("V")) {
            push_system(&mut packages, PackageOrigin::Apk, name, version);
        }
    }
    Ok(of_packages(packages))
}

fn rpm_packages(bytes: &[u8]) -> Result<Content, String> {
    let mut packages = Vec::new();
    for package in rpm::packages(bytes).map_err(|e| format!("RPM database: {e}"))? {
        push_system(&mut packages, PackageOrigin::Rpm, &package.name, &package.version);
    }
    Ok(of_packages(packages))
}

fn conda(bytes: &[u8]) -> Result<Content, String> {
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|e| format!("conda record is no valid JSON: {e}"))?;
    let field = |key: &str| value.get(key).and_then(|v| v.as_str());
    let (Some(name), Some(version)) = (field("name"), field("version")) else {
        // `conda-meta/history` and state files are no package records.
        return Ok(Content::default());
    };
    let depends = value.get("depends").and_then(|d| d.as_array()).map(Vec::as_slice).unwrap_or_default();
    let mut packages = Vec::new();
    push_system(&mut packages, PackageOrigin::Conda, name, version);
    if let Some(fact) = packages.first_mut() {
        fact.requires = depends
            .iter()
            .filter_map(|d| d.as_str())
            .filter(|d| is_cuda_package(d))
            .map(str::to_owned)
            .collect();
        if let Some(build) = field("build").filter(|b| !b.is_empty()) {
            fact.version = format!("{version}={build}");
        }
    }
    Ok(of_packages(packages))
}

fn push_system(packages: &mut Vec<PackageFact>, origin: PackageOrigin, name: &str, version: &str) {
    let c_library = matches!(name, "libc6" | "glibc" | "musl");
    if c_library || is_cuda_package(name) {
        let fact =
            PackageFact { origin, name: name.to_owned(), version: version.to_owned(), requires: Vec::new() };
        packages.push(fact);
    }
}

/// Whether a package or requirement belongs to the CUDA stack or to a framework on it, by its name.
fn is_cuda_package(name: &str) -> bool {
    const PARTS: [&str; 14] = [
        "cuda",
        "cudnn",
        "cublas",
        "cusparse",
        "cusolver",
        "cufft",
        "curand",
        "nccl",
        "nvidia",
        "tensorrt",
        "nvinfer",
        "nvjitlink",
        "cutensor",
        "cupti",
    ];
    const STARTS: [&str; 34] = [
        "torch",
        "pytorch",
        "triton",
        "tensorflow",
        "tf-",
        "jax",
        "cupy",
        "onnxruntime",
        "xformers",
        "flash-attn",
        "vllm",
        "bitsandbytes",
        "deepspeed",
        "transformer-engine",
        "faiss",
        "cudf",
        "cuml",
        "rmm",
        "raft",
        "xgboost",
        "lightgbm",
        "mxnet",
        "ctranslate2",
        "llama-cpp",
        "numba",
        "warp-lang",
        "paddlepaddle",
        "dali",
        "apex",
        "sglang",
        "flashinfer",
        "nvtx",
        "libnv",
        "libnpp",
    ];
    let lower = name.to_ascii_lowercase();
    PARTS.iter().any(|p| lower.contains(p)) || STARTS.iter().any(|s| lower.starts_with(s))
}

/// glibc's cache -> lines `soname => path`. Layout of the current format (glibc, elf/dl-cache.h): magic
/// `glibc-ld.so.cache1.1`, u32 count, u32 string bytes, 20 bytes, then entries of 24 bytes: i32 flags, u32 name, u32
/// path (offsets from the magic), u32, u64. The older format may stand in front of it.
fn loader_cache(bytes: &[u8]) -> Result<Content, String> {
    const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
    let start = memchr::memmem::find(bytes, MAGIC).ok_or("loader cache of an unknown format")?;
    let cache = bytes.get(start..).unwrap_or_default();
    let word = |at: usize| super::fatbin::u32_at(cache, at).map(|n| n as usize);
    let text = |at: usize| -> Option<&str> {
        let rest = cache.get(at..)?;
        std::str::from_utf8(rest.get(..memchr::memchr(0, rest)?)?).ok()
    };
    let count = word(MAGIC.len()).ok_or("loader cache is cut short")?.min(cache.len() / 24);
    let mut lines = String::new();
    for index in 0..count {
        let at = 48usize.saturating_add(index.saturating_mul(24));
        let name = word(at.saturating_add(4)).and_then(text);
        let path = word(at.saturating_add(8)).and_then(text);
        if let (Some(name), Some(path)) = (name, path) {
            lines.push_str(&format!("{name} => {path}\n"));
        }
    }
    Ok(Content { kind: Some(FileKind::Text), text: Some(lines), ..Content::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_metadata_gives_name_version_and_cuda_requirements() {
        let text = "Metadata-Version: 2.1\nName: Torch_Vision\nVersion: 0.16.2\nRequires-Dist: numpy\n\
                    Requires-Dist: torch (==2.1.2)\nRequires-Dist: nvidia-nccl-cu12==2.18.1; platform_system == \"Linux\"\n\n\
                    Version: prose\n";
        let fact = python(text.as_bytes()).unwrap().packages.remove(0);
        assert_eq!((fact.name.as_str(), fact.version.as_str()), ("torch-vision", "0.16.2"));
        assert_eq!(fact.requires.len(), 2);
        assert!(python(b"nothing").is_err());
    }

    #[test]
    fn only_installed_debian_packages_of_the_stack_count() {
        let text = "Package: cuda-cudart-12-2\nStatus: install ok installed\nVersion: 12.2.140-1\n\n\
                    Package: libcudnn8\nStatus: deinstall ok config-files\nVersion: 8.9\n\n\
                    Package: bash\nStatus: install ok installed\nVersion: 5\n";
        let packages = dpkg(text.as_bytes()).unwrap().packages;
        assert_eq!(packages.len(), 1);
        assert_eq!(packages[0].version, "12.2.140-1");
    }

    #[test]
    fn the_path_decides_who_reads_a_file() {
        assert!(analyzer("/usr/local/lib/python3.11/site-packages/torch-2.6.0.dist-info/METADATA").is_some());
        assert!(analyzer("/usr/local/cuda-12.2/version.json").is_some());
        assert!(analyzer("/app/version.json").is_none());
        assert!(analyzer("/opt/x/Packages").is_none());
        assert!(analyzer("/etc/ld.so.conf.d/000_cuda.conf").is_some());
    }
}
