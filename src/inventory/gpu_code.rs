//! Containers of GPU code -> groups of files that stand in for each other, and what they cover of a GPU.
//!
//! Coverage is judged per container, since the driver picks one image of each. A package selects among its extension
//! modules by GPU: they form one group, and only the group as a whole can be uncovered.

use crate::catalog::{Catalog, CodeRole};
use crate::facts::{CodeImage, CodeKind, CodePlace, FileFacts, FileKind, ImageFacts, Place, Shape};
use crate::version::{Arch, ComputeCapability, Suffix, Version};
use std::collections::BTreeMap;

/// Files whose GPU code is judged together.
#[derive(Clone, Debug)]
pub struct CodeGroup {
    /// `torch`, `cuBLAS`, or a path.
    pub name: String,
    pub role: GroupRole,
    pub files: Vec<CodeFile>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupRole {
    /// A framework, an extension, an application.
    Application,
    /// A library of the CUDA stack.
    Vendor(CodeRole),
}

#[derive(Clone, Debug)]
pub struct CodeFile {
    pub place: Place,
    /// Containers that count at run time.
    pub shapes: Vec<Shape>,
    /// The file that does the package's work.
    pub main: bool,
    /// Some file of the image asks for this one by soname.
    pub asked_for: bool,
}

/// How far GPU code reaches on one GPU, counted in containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Containers that count: all but those for other GPUs by design ([`Coverage::specific`]).
    pub counted: u64,
    /// With machine code that fits.
    pub native: u64,
    /// With PTX only, which the driver can compile.
    pub jit: u64,
    /// With PTX only, newer than the driver compiles.
    pub too_new: u64,
    /// With LTO-IR only: linked at run time, if at all.
    pub lto: u64,
    /// Nothing fits.
    pub none: u64,
    /// Not counted: all images are `a` or `f` targets of other GPUs.
    pub specific: u64,
    /// Highest PTX ISA among the containers that are compiled at run time or would have to be.
    pub isa: Option<(u16, u16)>,
}

/// What follows for a file or a group, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    Native,
    Jit,
    PtxTooNew,
    /// Only LTO-IR: the answer depends on who links it.
    LtoOnly,
    None,
    /// Code for other GPUs only, by suffix.
    SpecificOnly,
}

impl Coverage {
    pub fn reach(&self) -> Reach {
        match self {
            c if c.native > 0 => Reach::Native,
            c if c.jit > 0 => Reach::Jit,
            c if c.too_new > 0 => Reach::PtxTooNew,
            c if c.lto > 0 && c.none == 0 => Reach::LtoOnly,
            c if c.counted > 0 => Reach::None,
            _ => Reach::SpecificOnly,
        }
    }

    /// Containers that work.
    pub fn covered(&self) -> u64 {
        self.native.saturating_add(self.jit)
    }

    fn add(&mut self, shape: &Shape, class: Class) {
        let slot = match class {
            Class::Native => &mut self.native,
            Class::Jit(isa) => {
                self.isa = self.isa.max(isa);
                &mut self.jit
            }
            Class::TooNew(isa) => {
                self.isa = self.isa.max(isa);
                &mut self.too_new
            }
            Class::Lto => &mut self.lto,
            Class::None => &mut self.none,
            Class::Specific => &mut self.specific,
        };
        *slot = slot.saturating_add(shape.count);
        if class != Class::Specific {
            self.counted = self.counted.saturating_add(shape.count);
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Class {
    Native,
    Jit(Option<(u16, u16)>),
    TooNew(Option<(u16, u16)>),
    Lto,
    None,
    Specific,
}

/// Coverage of one file. `ptx_max`: the newest PTX ISA that the loading driver compiles; `None` = not known, so none
/// is too new.
pub fn coverage(
    file: &CodeFile,
    gpu: ComputeCapability,
    ptx_max: Option<&Version>,
    catalog: &Catalog,
) -> Coverage {
    let mut out = Coverage::default();
    for shape in &file.shapes {
        out.add(shape, classify(shape, gpu, ptx_max, catalog));
    }
    out
}

fn classify(shape: &Shape, gpu: ComputeCapability, ptx_max: Option<&Version>, catalog: &Catalog) -> Class {
    let images = || shape.images.iter();
    if images().any(|i| i.kind == CodeKind::Sass && sass_fits(i.arch, gpu, catalog)) {
        return Class::Native;
    }
    let fitting = images().filter(|i| i.kind == CodeKind::Ptx && ptx_fits(i.arch, gpu));
    if let Some(isa) = fitting.map(|i| i.ptx_isa).min() {
        let version = isa.map(|(major, minor)| Version::of(u64::from(major), u64::from(minor)));
        let too_new = matches!((&version, ptx_max), (Some(v), Some(max)) if v > max);
        return if too_new { Class::TooNew(isa) } else { Class::Jit(isa) };
    }
    let loadable = |i: &&CodeImage| matches!(i.kind, CodeKind::Sass | CodeKind::Ptx);
    let mut real = images().filter(loadable).peekable();
    if real.peek().is_none() {
        return Class::Lto;
    }
    if real.all(|i| i.arch.suffix != Suffix::None) { Class::Specific } else { Class::None }
}

/// Machine code runs on its own compute capability and on later minors of the same major, discrete GPUs only; Tegra
/// GPUs take their exact one; `a` code exactly its own, `f` code later minors of its major
/// (CUDA programming guide, binary compatibility).
pub fn sass_fits(code: Arch, gpu: ComputeCapability, catalog: &Catalog) -> bool {
    let made_for = code.compute_capability();
    let tegra = catalog.is_tegra(gpu) || catalog.is_tegra(made_for);
    match code.suffix {
        _ if made_for == gpu => true,
        Suffix::ArchSpecific => false,
        _ if tegra => false,
        Suffix::None | Suffix::FamilySpecific => made_for.major == gpu.major && made_for.minor <= gpu.minor,
    }
}

/// PTX for A compiles for every B >= A; `a` for its own only, `f` within its family (measured with ptxas 13.5).
pub fn ptx_fits(code: Arch, gpu: ComputeCapability) -> bool {
    // CUDA 12.8 and 12.9 called Thor 101, CUDA 13 calls it 110: specific code follows the chip.
    let renamed = code.number == 101 && code.suffix != Suffix::None;
    let made_for =
        if renamed { ComputeCapability { major: 11, minor: 0 } } else { code.compute_capability() };
    match code.suffix {
        Suffix::None => made_for <= gpu,
        Suffix::ArchSpecific => made_for == gpu,
        Suffix::FamilySpecific => made_for.major == gpu.major && made_for.minor <= gpu.minor,
    }
}

/// Groups every file with GPU code that can be loaded at run time.
pub(super) fn group(facts: &ImageFacts, catalog: &Catalog) -> Vec<CodeGroup> {
    let mut groups: BTreeMap<String, CodeGroup> = BTreeMap::new();
    let is_program = |f: &&FileFacts| f.kind == FileKind::Elf;
    // Loose cubins and PTX files are data of some program; they are judged only where there is no program at all.
    let any_program = facts.files.iter().filter(is_program).any(|f| f.device_code.is_some());
    for file in &facts.files {
        let loose = matches!(file.kind, FileKind::Cubin | FileKind::Fatbin | FileKind::Ptx);
        if !(file.kind == FileKind::Elf || loose && !any_program) {
            continue;
        }
        let Some(code) = &file.device_code else { continue };
        // The linked image of `__nv_relfatbin` stands in `.nv_fatbin`.
        let counts =
            |s: &&Shape| s.place != CodePlace::Section || s.section.as_deref() != Some("__nv_relfatbin");
        let shapes: Vec<Shape> = code.shapes.iter().filter(counts).cloned().collect();
        if shapes.is_empty() {
            continue;
        }
        let (name, role) = key(file, catalog);
        let main = catalog.is_main_file(file.place.path.file_name());
        let asked_for = is_asked_for(file, facts);
        let entry = CodeFile { place: file.place.clone(), shapes, main, asked_for };
        groups
            .entry(name.clone())
            .or_insert_with(|| CodeGroup { name, role, files: Vec::new() })
            .files
            .push(entry);
    }
    groups.into_values().collect()
}

fn is_asked_for(file: &FileFacts, facts: &ImageFacts) -> bool {
    let Some(soname) = file.elf.as_ref().and_then(|e| e.soname.as_deref()) else { return true };
    let own = library_key(soname);
    facts.files.iter().filter(|f| f.place.path != file.place.path).filter_map(|f| f.elf.as_ref()).any(|e| {
        let other_family = e.soname.as_deref().is_none_or(|s| library_key(s) != own);
        other_family && (e.needed.iter().any(|n| n == soname) || e.dlopens.iter().any(|n| n == soname))
    })
}

/// `libcudnn_ops.so.9` and `libcudnn.so.9` are one family.
fn library_key(soname: &str) -> &str {
    soname.split(['_', '.', '-']).next().unwrap_or(soname)
}

/// The group that a file belongs to.
pub(super) fn key(file: &FileFacts, catalog: &Catalog) -> (String, GroupRole) {
    let path = file.place.path.as_str();
    let by_soname =
        || file.elf.as_ref().and_then(|e| e.soname.as_deref()).and_then(|s| catalog.component_of(s));
    if let Some(row) = catalog.component_of(file.place.path.file_name()).or_else(by_soname) {
        return (row.display.clone(), GroupRole::Vendor(row.device_code));
    }
    if let Some(site) = super::processes::site_directory(path) {
        let rest = &path[site.len()..];
        let package = rest.split('/').next().unwrap_or(rest);
        // An extension module directly in the directory: `bitsandbytes_C.cpython-311-x86_64-linux-gnu.so`.
        let package = package.split('.').next().unwrap_or(package);
        return (package.to_owned(), GroupRole::Application);
    }
    (
        file.place.path.parent().join(&variant_stem(file.place.path.file_name())).to_string(),
        GroupRole::Application,
    )
}

/// `libkernels_sm90.so` and `libkernels_sm80.so` are variants of `libkernels.so`; without such a mark a file stands
/// alone under its own name.
fn variant_stem(name: &str) -> String {
    let mut out = name.to_owned();
    for mark in ["_sm", "-sm", ".sm", "_cuda", "-cuda", "_cu", "-cu"] {
        let mut from = 0;
        while let Some(at) = out[from..].find(mark).map(|at| from + at) {
            let digits = out[at + mark.len()..].trim_start_matches('_');
            let skipped = out.len() - at - mark.len() - digits.len();
            let len = digits.bytes().take_while(u8::is_ascii_digit).count();
            if len < 2 {
                from = at + mark.len();
                continue;
            }
            let end = at + mark.len() + skipped + len;
            out.replace_range(at..end, "");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arch(text: &str) -> Arch {
        Arch::parse(text).unwrap()
    }

    fn cc(text: &str) -> ComputeCapability {
        ComputeCapability::parse(text).unwrap()
    }

    #[test]
    fn machine_code_runs_on_later_minors_of_its_major_and_never_across_tegra() {
        let catalog = Catalog::built_in().unwrap();
        for (code, gpu, fits) in [
            ("80", "8.0", true),
            ("80", "8.6", true),
            ("80", "8.9", true),
            ("86", "8.0", false),
            ("80", "8.7", false),
            ("87", "8.7", true),
            ("87", "8.9", false),
            ("70", "7.5", true),
            ("72", "7.5", false),
            ("90", "9.0", true),
            ("90a", "9.0", true),
            ("90a", "10.0", false),
            ("100", "10.3", true),
            ("100a", "10.3", false),
            ("100f", "10.3", true),
            ("120f", "12.1", true),
            ("90", "10.0", false),
            ("110", "11.0", true),
        ] {
            assert_eq!(sass_fits(arch(code), cc(gpu), &catalog), fits, "sm_{code} on {gpu}");
        }
    }

    #[test]
    fn ptx_compiles_upwards_unless_a_suffix_forbids() {
        for (code, gpu, fits) in [
            ("50", "12.0", true),
            ("90", "8.9", false),
            ("80", "8.7", true),
            ("90a", "10.0", false),
            ("90a", "9.0", true),
            ("100f", "10.3", true),
            ("100f", "12.0", false),
        ] {
            assert_eq!(ptx_fits(arch(code), cc(gpu)), fits, "compute_{code} on {gpu}");
        }
    }

    #[test]
    fn variants_of_one_library_share_a_stem() {
        assert_eq!(variant_stem("libk_sm90.so"), "libk.so");
        assert_eq!(variant_stem("libk_sm_80.so"), "libk.so");
        assert_eq!(variant_stem("libbitsandbytes_cuda118.so"), "libbitsandbytes.so");
        assert_eq!(variant_stem("libsmall.so"), "libsmall.so");
        assert_eq!(variant_stem("lib_small_sm80.so"), "lib_small.so");
        assert_eq!(variant_stem("libfoo_cuda.so"), "libfoo_cuda.so");
    }
}
