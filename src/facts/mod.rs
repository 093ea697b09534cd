//! What was seen in an image, before anyone judges it: per layer ([`LayerFacts`]) and merged ([`ImageFacts`]).
//!
//! A fact never travels without its [`Place`]. Damage is a [`Problem`] beside the facts, never an error.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod json;
pub mod links;
pub mod merge;

use crate::names::{Digest, ImagePath, LayerIndex, Platform};
use crate::version::{Arch, Version};
use std::collections::BTreeMap;

/// Where something was seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub layer: LayerIndex,
    pub path: ImagePath,
}

/// Something that could not be read as it should: the rest of the file or image was still examined.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub place: Place,
    /// Lower case, no full stop.
    pub detail: String,
}

/// Everything seen in one layer, in tar order. The content of the cache.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerFacts {
    pub entries: Vec<Entry>,
    pub problems: Vec<LayerProblem>,
    pub counts: Counts,
    /// SHA-256 of the uncompressed bytes, where it was computed.
    pub diff_id: Option<Digest>,
}

/// How deep files are looked into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Depth {
    #[default]
    Full,
    /// Names, versions and what libraries need; no GPU code.
    Libraries,
}

impl Depth {
    pub fn name(self) -> &'static str {
        match self {
            Depth::Full => "full",
            Depth::Libraries => "libraries",
        }
    }
}

/// A problem before its layer index is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerProblem {
    pub path: ImagePath,
    pub detail: String,
}

/// What a scan cost, summed over layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub bytes_decompressed: u64,
    pub files: u64,
    pub elf_files: u64,
    /// Files that needed temporary disk.
    pub spills: u64,
    /// Layers read by their tables of contents.
    pub by_table: u64,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.bytes_decompressed = self.bytes_decompressed.saturating_add(other.bytes_decompressed);
        self.files += other.files;
        self.elf_files += other.elf_files;
        self.spills += other.spills;
        self.by_table += other.by_table;
    }
}

/// One tar entry (or one file of a directory source).
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub path: ImagePath,
    pub kind: EntryKind,
    /// Content facts of a regular file that carries any.
    pub content: Option<Box<Content>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    File {
        size: u64,
    },
    Dir,
    /// Target text as stored.
    Symlink(String),
    /// The other name of the same content.
    Hardlink(ImagePath),
    /// `.wh.NAME`: `path` is the removed one.
    Whiteout,
    /// `.wh..wh..opq`: `path` is the directory whose lower content disappears.
    Opaque,
    /// Device, FIFO, socket: a name only.
    Other,
}

/// What a regular file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    pub kind: Option<FileKind>,
    pub elf: Option<ElfFacts>,
    pub device_code: Option<DeviceCode>,
    /// Python distributions or system packages that this file declares.
    pub packages: Vec<PackageFact>,
    /// Whole text of small configuration files (`ld.so.conf`, `version.json`, `os-release`).
    pub text: Option<String>,
    /// SHA-256, with `--hash-files`.
    pub sha256: Option<Digest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    Elf,
    Cubin,
    Fatbin,
    Ptx,
    Archive,
    Text,
    /// A serialized TensorRT engine; its text says by which release.
    Engine,
}

/// What the dynamic loader and the CUDA runtime will care about in an ELF file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ElfFacts {
    /// 32 or 64.
    pub bits: u8,
    /// OCI name of the machine: `amd64`, `arm64`; `e_machine` as `machine-NNN` where it has none.
    pub machine: String,
    /// `EXEC`, `DYN`, `REL`, `CORE` or `type-N`.
    pub kind: String,
    pub interpreter: Option<String>,
    pub soname: Option<String>,
    pub needed: Vec<String>,
    /// DT_RPATH, split at `:`.
    pub rpath: Vec<String>,
    /// DT_RUNPATH, split at `:`.
    pub runpath: Vec<String>,
    /// Every symbol is looked up when the file is loaded, not when it is first called (`DF_BIND_NOW`, `DF_1_NOW`).
    pub bind_now: bool,
    /// Symbol versions asked of each needed library: file name -> versions.
    pub versions_needed: BTreeMap<String, Vec<String>>,
    /// Symbol versions defined here.
    pub versions_provided: Vec<String>,
    /// GNU build id, hexadecimal.
    pub build_id: Option<String>,
    /// The `.note.cuda.fwd_compatibility` note of a compat libcuda.
    pub forward_compat: Option<ForwardCompatNote>,
    /// The CUDA runtime whose code is inside: this file is libcudart, or was linked with libcudart_static.
    pub cudart: Option<CudartCode>,
    /// Driver API functions imported by name (`cuLaunchKernel`), a few of them.
    pub driver_api: Vec<String>,
    /// Names of CUDA libraries in the file's strings that may be opened at run time.
    pub dlopens: Vec<String>,
    /// Imported symbols by the CUDA library asked for them: `symbol@version`, in the order of the symbol table, in which
    /// the loader meets them. Under the empty name: torch's C++ symbols, which have no versions.
    pub imports: BTreeMap<String, Vec<String>>,
    /// [`gnu_hash`] of every exported symbol, sorted; of libraries of the CUDA stack, and of torch's own C++ symbols.
    pub exports: Option<Vec<u32>>,
    /// Numbers that version functions return and version words hold: `cusparseGetVersion` -> 12301.
    pub version_numbers: BTreeMap<String, u32>,
    /// Version texts among the strings: `nccl` -> `2.21.5+cuda12.4`, `toolkit` -> `12.4.127`.
    pub version_texts: BTreeMap<String, Vec<String>>,
}

impl ElfFacts {
    /// Whether it asks for a library of torch.
    pub fn needs_torch(&self) -> bool {
        self.needed.iter().any(|n| is_torch_library(n))
    }

    /// Whether the file exports `symbol`; `None` where its exports were not kept.
    pub fn exports_symbol(&self, symbol: &str) -> Option<bool> {
        Some(self.exports.as_ref()?.binary_search(&gnu_hash(symbol.as_bytes())).is_ok())
    }
}

/// A library of torch itself, by its name.
pub fn is_torch_library(name: &str) -> bool {
    name.starts_with("libtorch") || name.starts_with("libc10")
}

/// The hash of a symbol name that `.gnu.hash` sections use.
pub fn gnu_hash(name: &[u8]) -> u32 {
    name.iter().fold(5381u32, |hash, &byte| hash.wrapping_mul(33).wrapping_add(u32::from(byte)))
}

/// Code of the CUDA runtime inside a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudartCode {
    /// As `cudaRuntimeGetVersion` returns it: 12040. `None`: the code is there, its version was not found.
    pub version: Option<u32>,
}

/// The JSON of the ELF note in newer compat libraries: which host branches may be its base.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardCompatNote {
    /// CUDA version of the library.
    pub cuda: Option<String>,
    /// Host driver branches accepted as base; `None` where the note has no list (Tegra packages).
    pub drivers: Option<Vec<u32>>,
}

/// GPU code in one file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceCode {
    /// Containers in `.nv_fatbin` and `__nv_relfatbin`: what `cuobjdump --all-fatbin` counts.
    pub containers: u64,
    /// Containers elsewhere in the file.
    pub embedded_containers: u64,
    /// Bytes of all containers and bare cubins.
    pub bytes: u64,
    pub rows: Vec<CodeRow>,
    /// Containers with the same images count as one shape: coverage is judged per container.
    pub shapes: Vec<Shape>,
}

/// One row per (place, section, kind, target, PTX ISA, toolkit).
#[derive(Clone, Debug, PartialEq)]
pub struct CodeRow {
    pub place: CodePlace,
    /// ELF section by name; `None` where the section table does not tell.
    pub section: Option<String>,
    pub image: CodeImage,
    /// CUDA release whose ptxas made the machine code, where the header tells.
    pub toolkit: Option<Version>,
    pub count: u64,
    /// Stored size of the images, bytes.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CodePlace {
    /// A container in a section that the CUDA tools list.
    Section,
    /// A container elsewhere in the file.
    Embedded,
    /// A cubin without container.
    Cubin,
}

/// One image in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeImage {
    pub kind: CodeKind,
    pub arch: Arch,
    /// PTX ISA (major, minor), PTX only.
    pub ptx_isa: Option<(u16, u16)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CodeKind {
    Sass,
    Ptx,
    LtoIr,
    TileIr,
    /// A kind this program does not know: the number of the entry header.
    Other(u16),
}

/// A set of images that stand together: the driver picks one of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    pub place: CodePlace,
    pub section: Option<String>,
    /// Sorted, without repetition.
    pub images: Vec<CodeImage>,
    /// How many containers look like this.
    pub count: u64,
}

/// One installed package or Python distribution.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackageFact {
    pub origin: PackageOrigin,
    pub name: String,
    pub version: String,
    /// CUDA-relevant requirements, as written.
    pub requires: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackageOrigin {
    Pip,
    Dpkg,
    Rpm,
    Apk,
    Conda,
}

/// What the manifest and the config say of the image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageIdentity {
    /// As typed.
    pub reference: String,
    /// The image's name without tag and digest: what fingerprints rest on.
    pub repository: String,
    /// Digest of the manifest; `None` for directories and single files.
    pub digest: Option<Digest>,
    pub platform: Platform,
    pub config: Config,
    /// In the order of the manifest.
    pub layers: Vec<LayerIdentity>,
    /// What the builder wrote down, oldest first, with what made no layer; empty where it is not known.
    pub history: Vec<HistoryEntry>,
}

/// One entry of the history in the image config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryEntry {
    pub created_by: String,
    /// It made no layer.
    pub empty: bool,
}

/// The run-time part of the image config.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// In the order of the config.
    pub env: Vec<(String, String)>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub user: String,
    pub labels: BTreeMap<String, String>,
}

impl Config {
    /// The last value of an environment variable, as a process would see it.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerIdentity {
    pub digest: Option<Digest>,
    pub diff_id: Option<Digest>,
    pub media_type: Option<String>,
    /// Stored size, bytes.
    pub size: Option<u64>,
    /// The history instruction that made it; `None` where history and layers do not match.
    pub created_by: Option<String>,
}

/// What a container of this image would see.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageFacts {
    pub image: ImageIdentity,
    /// False where a part of the image could not be read: no verdict is better than unknown then.
    pub complete: bool,
    pub depth: Depth,
    /// Files that carry facts, sorted by path.
    pub files: Vec<FileFacts>,
    /// Symbolic and hard links, sorted by path.
    pub links: Vec<Link>,
    /// Sorted by path, then name.
    pub packages: Vec<Package>,
    /// Sorted.
    pub problems: Vec<Problem>,
    pub counts: Counts,
}

impl ImageFacts {
    /// Says how deep files were looked into.
    pub fn of_depth(mut self, depth: Depth) -> ImageFacts {
        self.depth = depth;
        self
    }

    /// Whether this is one file or wheel, whose libraries come from elsewhere.
    pub fn is_single_file(&self) -> bool {
        self.image.digest.is_none() && self.image.reference.starts_with("file:")
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct FileFacts {
    pub place: Place,
    /// Bytes.
    pub size: u64,
    pub kind: FileKind,
    pub elf: Option<ElfFacts>,
    pub device_code: Option<DeviceCode>,
    pub text: Option<String>,
    pub sha256: Option<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    pub place: Place,
    pub target: String,
    pub hard: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    pub place: Place,
    pub fact: PackageFact,
}
