//! [`ImageFacts`] <-> the public facts document, schema 1: what `cudalint scan` writes and `--facts` reads.
//!
//! These types are the schema. Nothing internal is serialised; what a reader of the document may rely on stands here.

mod read;

pub use read::{device_code_of, elf_of, read};

use super::Depth;
use super::{
    CodeImage, CodeKind, CodePlace, CodeRow, DeviceCode, ElfFacts, FileFacts, FileKind, ImageFacts,
    ImageIdentity, LayerIdentity, Link, Package, PackageOrigin, Problem, Shape,
};
use crate::names::Digest;
use crate::version::Version;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Grows when a reader of an older document would misunderstand a newer one.
pub const FACTS_SCHEMA: u32 = 1;

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug)]
pub struct FactsJson {
    pub facts_schema: u32,
    pub tool: ToolJson,
    #[serde(default = "yes")]
    pub complete: bool,
    /// `full`, or `libraries`: without GPU code, and what only a search through whole files finds.
    #[serde(default = "full")]
    pub depth: String,
    pub image: ImageJson,
    pub files: Vec<FileJson>,
    pub links: Vec<LinkJson>,
    pub packages: Vec<PackageJson>,
    #[serde(default)]
    pub loader: LoaderJson,
    pub problems: Vec<ProblemJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<TimingJson>,
}

fn full() -> String {
    Depth::Full.name().to_owned()
}

fn yes() -> bool {
    true
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct ToolJson {
    pub name: String,
    pub version: String,
    pub facts: String,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug)]
pub struct ImageJson {
    pub reference: String,
    pub digest: Option<String>,
    pub platform: String,
    pub config: ConfigJson,
    pub layers: Vec<LayerJson>,
    /// The history of the image config, oldest first.
    #[serde(default)]
    pub history: Vec<HistoryJson>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug)]
pub struct HistoryJson {
    pub created_by: String,
    pub empty_layer: bool,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default)]
pub struct ConfigJson {
    pub env: BTreeMap<String, String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub user: String,
    pub labels: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug)]
pub struct LayerJson {
    pub index: u32,
    pub digest: Option<String>,
    pub diff_id: Option<String>,
    pub media_type: Option<String>,
    pub size: Option<u64>,
    pub created_by: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug)]
pub struct FileJson {
    pub path: String,
    pub layer: u32,
    pub size: u64,
    pub kind: String,
    pub elf: Option<ElfJson>,
    pub device_code: Option<DeviceCodeJson>,
    #[serde(default)]
    pub text: Option<String>,
    #[serde(default)]
    pub sha256: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default)]
pub struct ElfJson {
    pub bits: u8,
    pub machine: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub interpreter: Option<String>,
    pub soname: Option<String>,
    pub needed: Vec<String>,
    pub rpath: Vec<String>,
    pub runpath: Vec<String>,
    /// Every symbol is looked up when the file is loaded.
    #[serde(default)]
    pub bind_now: bool,
    pub versions_needed: BTreeMap<String, Vec<String>>,
    pub versions_provided: Vec<String>,
    /// Highest `GLIBC_` version needed.
    pub glibc: Option<String>,
    pub build_id: Option<String>,
    pub forward_compat: Option<ForwardCompatJson>,
    /// CUDA runtime code inside; `version` as `cudaRuntimeGetVersion` returns it.
    pub cudart: Option<CudartJson>,
    pub driver_api: Vec<String>,
    pub dlopens: Vec<String>,
    /// Imported symbols by the CUDA library asked for them, `symbol@version`; under the empty name torch's C++ symbols.
    #[serde(default)]
    pub imports: BTreeMap<String, Vec<String>>,
    /// GNU hashes of exported symbols, sorted, 32 bits little endian each, base64; CUDA and torch libraries only.
    #[serde(default)]
    pub exports: Option<String>,
    /// What version functions return and version words hold.
    #[serde(default)]
    pub version_numbers: BTreeMap<String, u32>,
    /// Version texts among the strings.
    #[serde(default)]
    pub version_texts: BTreeMap<String, Vec<String>>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug)]
pub struct ForwardCompatJson {
    pub cuda: Option<String>,
    pub drivers: Option<Vec<u32>>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug)]
pub struct CudartJson {
    pub version: Option<u32>,
    /// `dynamic` for libcudart itself, `static` for what was linked with libcudart_static.
    pub linkage: String,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug)]
pub struct DeviceCodeJson {
    pub containers: u64,
    pub embedded_containers: u64,
    pub bytes: u64,
    pub entries: Vec<CodeRowJson>,
    pub shapes: Vec<ShapeJson>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug)]
pub struct CodeRowJson {
    #[serde(rename = "where")]
    pub place: String,
    pub section: Option<String>,
    pub kind: String,
    pub arch: String,
    pub ptx_isa: Option<String>,
    pub toolkit: Option<String>,
    pub count: u64,
    pub bytes: u64,
}

/// Containers that hold the same images, and how many there are.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug)]
pub struct ShapeJson {
    #[serde(rename = "where")]
    pub place: String,
    pub section: Option<String>,
    /// `sm_90a`, `compute_80 ptx 8.4`, `lto_90`.
    pub images: Vec<String>,
    pub count: u64,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug)]
pub struct LinkJson {
    pub path: String,
    pub target: String,
    pub kind: String,
    pub layer: u32,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug)]
pub struct PackageJson {
    pub origin: String,
    pub name: String,
    pub version: String,
    pub requires: Vec<String>,
    pub path: String,
    pub layer: u32,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default)]
pub struct LoaderJson {
    pub conf_dirs: Vec<String>,
    pub cache: Option<Vec<String>>,
    pub libc: String,
    pub libc_version: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug)]
pub struct ProblemJson {
    pub path: String,
    pub layer: u32,
    pub detail: String,
}

/// What the run cost; the only part of a document that may differ between equal runs.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct TimingJson {
    pub total_ms: u64,
    pub bytes_downloaded: u64,
    pub bytes_decompressed: u64,
    pub files: u64,
    pub elf_files: u64,
    pub layers_cached: u64,
    /// Layers of which a table of contents and parts were read, checked piece by piece, and not their digest as a whole.
    #[serde(default)]
    pub layers_by_table: u64,
    pub spills: u64,
}

pub fn image_json(image: &ImageIdentity) -> ImageJson {
    let config = &image.config;
    ImageJson {
        reference: image.reference.clone(),
        digest: image.digest.as_ref().map(Digest::to_string),
        platform: if image.platform.os.is_empty() { String::new() } else { image.platform.to_string() },
        config: ConfigJson {
            env: config.env.iter().cloned().collect(),
            entrypoint: config.entrypoint.clone(),
            cmd: config.cmd.clone(),
            user: config.user.clone(),
            labels: config.labels.clone(),
        },
        layers: image.layers.iter().zip(0..).map(|(layer, index)| layer_json(layer, index)).collect(),
        history: image
            .history
            .iter()
            .map(|h| HistoryJson { created_by: h.created_by.clone(), empty_layer: h.empty })
            .collect(),
    }
}

fn layer_json(layer: &LayerIdentity, index: u32) -> LayerJson {
    LayerJson {
        index,
        digest: layer.digest.as_ref().map(Digest::to_string),
        diff_id: layer.diff_id.as_ref().map(Digest::to_string),
        media_type: layer.media_type.clone(),
        size: layer.size,
        created_by: layer.created_by.clone(),
    }
}

pub fn problem_json(problem: &Problem) -> ProblemJson {
    ProblemJson {
        path: problem.place.path.to_string(),
        layer: problem.place.layer.0,
        detail: problem.detail.clone(),
    }
}

pub fn place_name(place: CodePlace) -> &'static str {
    match place {
        CodePlace::Section => "section",
        CodePlace::Embedded => "embedded",
        CodePlace::Cubin => "cubin",
    }
}

pub fn kind_name(kind: CodeKind) -> String {
    match kind {
        CodeKind::Sass => "sass".to_owned(),
        CodeKind::Ptx => "ptx".to_owned(),
        CodeKind::LtoIr => "ltoir".to_owned(),
        CodeKind::TileIr => "tileir".to_owned(),
        CodeKind::Other(n) => format!("kind-{n}"),
    }
}

/// `sm_90a` for machine code, `compute_90` for PTX, `lto_90` for LTO-IR.
pub fn arch_name(image: &CodeImage) -> String {
    let prefix = match image.kind {
        CodeKind::Sass | CodeKind::Other(_) => "sm",
        CodeKind::Ptx | CodeKind::TileIr => "compute",
        CodeKind::LtoIr => "lto",
    };
    format!("{prefix}_{}", image.arch)
}

fn row_json(row: &CodeRow) -> CodeRowJson {
    CodeRowJson {
        place: place_name(row.place).to_owned(),
        section: row.section.clone(),
        kind: kind_name(row.image.kind),
        arch: arch_name(&row.image),
        ptx_isa: row.image.ptx_isa.map(|(major, minor)| format!("{major}.{minor}")),
        toolkit: row.toolkit.as_ref().map(Version::to_string),
        count: row.count,
        bytes: row.bytes,
    }
}

/// The rows of a device code document; shared with the report.
pub fn rows_json(code: &DeviceCode) -> Vec<CodeRowJson> {
    code.rows.iter().map(row_json).collect()
}

fn image_text(image: &CodeImage) -> String {
    match (image.kind, image.ptx_isa) {
        (CodeKind::Ptx, Some((major, minor))) => format!("{} ptx {major}.{minor}", arch_name(image)),
        (CodeKind::TileIr | CodeKind::Other(_), _) => {
            format!("{} {}", arch_name(image), kind_name(image.kind))
        }
        _ => arch_name(image),
    }
}

pub fn device_code_json(code: &DeviceCode) -> DeviceCodeJson {
    let shape = |s: &Shape| ShapeJson {
        place: place_name(s.place).to_owned(),
        section: s.section.clone(),
        images: s.images.iter().map(image_text).collect(),
        count: s.count,
    };
    DeviceCodeJson {
        containers: code.containers,
        embedded_containers: code.embedded_containers,
        bytes: code.bytes,
        entries: rows_json(code),
        shapes: code.shapes.iter().map(shape).collect(),
    }
}

/// Highest `GLIBC_x.y` among the versions asked of any library.
pub fn glibc_needed(elf: &ElfFacts) -> Option<Version> {
    let versions = elf.versions_needed.values().flatten();
    versions.filter_map(|v| Version::parse(v.strip_prefix("GLIBC_")?)).max()
}

pub fn elf_json(elf: &ElfFacts) -> ElfJson {
    let is_cudart = elf.soname.as_deref().is_some_and(is_cudart_name);
    ElfJson {
        bits: elf.bits,
        machine: elf.machine.clone(),
        kind: elf.kind.clone(),
        interpreter: elf.interpreter.clone(),
        soname: elf.soname.clone(),
        needed: elf.needed.clone(),
        rpath: elf.rpath.clone(),
        runpath: elf.runpath.clone(),
        bind_now: elf.bind_now,
        versions_needed: elf.versions_needed.clone(),
        versions_provided: elf.versions_provided.clone(),
        glibc: glibc_needed(elf).map(|v| v.to_string()),
        build_id: elf.build_id.clone(),
        forward_compat: elf
            .forward_compat
            .as_ref()
            .map(|n| ForwardCompatJson { cuda: n.cuda.clone(), drivers: n.drivers.clone() }),
        cudart: elf.cudart.map(|c| CudartJson {
            version: c.version,
            linkage: if is_cudart { "dynamic" } else { "static" }.to_owned(),
        }),
        driver_api: elf.driver_api.clone(),
        dlopens: elf.dlopens.clone(),
        imports: elf.imports.clone(),
        exports: elf.exports.as_deref().map(hashes_text),
        version_numbers: elf.version_numbers.clone(),
        version_texts: elf.version_texts.clone(),
    }
}

fn hashes_text(hashes: &[u32]) -> String {
    let bytes: Vec<u8> = hashes.iter().flat_map(|h| h.to_le_bytes()).collect();
    BASE64.encode(bytes)
}

/// `libcudart.so.12`, and what auditwheel makes of it (`libcudart.41118559.so.12`, `libcudart-80664282.so.10.2`).
pub fn is_cudart_name(name: &str) -> bool {
    name.strip_prefix("libcudart").is_some_and(|rest| rest.starts_with(['.', '-']) && rest.contains(".so"))
}

pub fn file_kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Elf => "elf",
        FileKind::Cubin => "cubin",
        FileKind::Fatbin => "fatbin",
        FileKind::Ptx => "ptx",
        FileKind::Archive => "archive",
        FileKind::Text => "text",
        FileKind::Engine => "engine",
    }
}

pub fn file_kind_of(name: &str) -> Option<FileKind> {
    [
        FileKind::Elf,
        FileKind::Cubin,
        FileKind::Fatbin,
        FileKind::Ptx,
        FileKind::Archive,
        FileKind::Text,
        FileKind::Engine,
    ]
    .into_iter()
    .find(|k| file_kind_name(*k) == name)
}

pub fn origin_name(origin: PackageOrigin) -> &'static str {
    match origin {
        PackageOrigin::Pip => "pip",
        PackageOrigin::Dpkg => "dpkg",
        PackageOrigin::Rpm => "rpm",
        PackageOrigin::Apk => "apk",
        PackageOrigin::Conda => "conda",
    }
}

pub fn origin_of(name: &str) -> Option<PackageOrigin> {
    [PackageOrigin::Pip, PackageOrigin::Dpkg, PackageOrigin::Rpm, PackageOrigin::Apk, PackageOrigin::Conda]
        .into_iter()
        .find(|o| origin_name(*o) == name)
}

/// The public document. `timing` stays out with `--no-timing`.
pub fn write(facts: &ImageFacts, tool: ToolJson, timing: Option<TimingJson>) -> FactsJson {
    let file = |f: &FileFacts| FileJson {
        path: f.place.path.to_string(),
        layer: f.place.layer.0,
        size: f.size,
        kind: file_kind_name(f.kind).to_owned(),
        elf: f.elf.as_ref().map(elf_json),
        device_code: f.device_code.as_ref().map(device_code_json),
        text: f.text.clone(),
        sha256: f.sha256.as_ref().map(|d| d.hex().to_owned()),
    };
    let link = |l: &Link| LinkJson {
        path: l.place.path.to_string(),
        target: l.target.clone(),
        kind: if l.hard { "hardlink" } else { "symlink" }.to_owned(),
        layer: l.place.layer.0,
    };
    let package = |p: &Package| PackageJson {
        origin: origin_name(p.fact.origin).to_owned(),
        name: p.fact.name.clone(),
        version: p.fact.version.clone(),
        requires: p.fact.requires.clone(),
        path: p.place.path.to_string(),
        layer: p.place.layer.0,
    };
    FactsJson {
        facts_schema: FACTS_SCHEMA,
        tool,
        complete: facts.complete,
        depth: facts.depth.name().to_owned(),
        image: image_json(&facts.image),
        files: facts.files.iter().map(file).collect(),
        links: facts.links.iter().map(link).collect(),
        packages: facts.packages.iter().map(package).collect(),
        loader: loader_json(facts),
        problems: facts.problems.iter().map(problem_json).collect(),
        timing,
    }
}

fn loader_json(facts: &ImageFacts) -> LoaderJson {
    let text = |path: &str| {
        facts.files.iter().find(|f| f.place.path.as_str() == path).and_then(|f| f.text.as_deref())
    };
    let confs = facts.files.iter().filter(|f| {
        let path = f.place.path.as_str();
        path == "/etc/ld.so.conf"
            || path.starts_with("/etc/ld.so.conf.d/")
            || path.starts_with("/etc/ld-musl-")
    });
    let is_dir = |line: &&str| line.starts_with('/');
    let conf_dirs = confs
        .filter_map(|f| f.text.as_deref())
        .flat_map(|t| t.lines().map(str::trim).filter(is_dir).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let has = |prefix: &str| facts.files.iter().any(|f| f.place.path.file_name().starts_with(prefix));
    let package = |names: &[&str]| {
        facts.packages.iter().find(|p| names.contains(&p.fact.name.as_str())).map(|p| p.fact.version.clone())
    };
    let (libc, libc_version) = if has("libc.so.6") || has("ld-linux") {
        ("glibc", package(&["libc6", "glibc"]))
    } else if has("ld-musl-") || has("libc.musl-") {
        ("musl", package(&["musl"]))
    } else {
        ("none", None)
    };
    LoaderJson {
        conf_dirs,
        cache: text("/etc/ld.so.cache").map(|t| t.lines().map(str::to_owned).collect()),
        libc: libc.to_owned(),
        libc_version,
    }
}
