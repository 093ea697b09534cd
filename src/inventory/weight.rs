//! Files with GPU code -> bytes per library and architecture, and how many of them the GPUs of a fleet can ever use.

use super::gpu_code::{key, ptx_fits, sass_fits};
use crate::catalog::Catalog;
use crate::facts::{CodeImage, CodeKind, CodeRow, DeviceCode, ImageFacts, Shape, json};
use crate::version::ComputeCapability;
use std::collections::BTreeMap;

/// The GPU code of an image by weight. All numbers are stored (mostly compressed) bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Heaviest first.
    pub libraries: Vec<Library>,
    pub total: Bytes,
}

/// The files of one library or package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Library {
    pub name: String,
    pub files: u64,
    pub bytes: Bytes,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    pub all: u64,
    /// `sm_90`, `compute_90`: bytes.
    pub by_arch: BTreeMap<String, u64>,
    /// That none of the GPUs can use; 0 where no GPU was named.
    pub unused: u64,
    /// That a build for just these GPUs would not have: of several images that a GPU could use it takes one. 0 where no GPU
    /// was named.
    pub saved: u64,
}

/// Weighs the GPU code; for `gpus` also what they can use.
pub fn weigh(facts: &ImageFacts, gpus: &[ComputeCapability], catalog: &Catalog) -> Weight {
    let mut libraries: BTreeMap<String, Library> = BTreeMap::new();
    for file in &facts.files {
        let Some(code) = &file.device_code else { continue };
        let (name, _) = key(file, catalog);
        let library = libraries.entry(name.clone()).or_insert_with(|| Library { name, ..Library::default() });
        library.files += 1;
        for row in &code.rows {
            let bytes = &mut library.bytes;
            bytes.all = bytes.all.saturating_add(row.bytes);
            let of_arch = bytes.by_arch.entry(json::arch_name(&row.image)).or_default();
            *of_arch = of_arch.saturating_add(row.bytes);
            if gpus.is_empty() {
                continue;
            }
            if !gpus.iter().any(|gpu| fits(&row.image, *gpu, catalog)) {
                bytes.unused = bytes.unused.saturating_add(row.bytes);
            }
            if !is_kept(row, code, gpus, catalog) {
                bytes.saved = bytes.saved.saturating_add(row.bytes);
            }
        }
    }
    let mut libraries: Vec<Library> = libraries.into_values().collect();
    libraries.sort_by(|a, b| b.bytes.all.cmp(&a.bytes.all).then_with(|| a.name.cmp(&b.name)));
    let mut total = Bytes::default();
    for library in &libraries {
        let bytes = &library.bytes;
        total.all = total.all.saturating_add(bytes.all);
        total.unused = total.unused.saturating_add(bytes.unused);
        total.saved = total.saved.saturating_add(bytes.saved);
        for (arch, count) in &bytes.by_arch {
            let of_arch = total.by_arch.entry(arch.clone()).or_default();
            *of_arch = of_arch.saturating_add(*count);
        }
    }
    Weight { libraries, total }
}

fn fits(image: &CodeImage, gpu: ComputeCapability, catalog: &Catalog) -> bool {
    match image.kind {
        CodeKind::Sass => sass_fits(image.arch, gpu, catalog),
        CodeKind::Ptx => ptx_fits(image.arch, gpu),
        // What links LTO-IR and the rest decides at run time.
        _ => true,
    }
}

/// Whether a build for the GPUs would keep the images of a row: in some container of the file one of the GPUs takes them, as the
/// nearest machine code or, where there is none, as PTX. So what is saved is never told too high.
fn is_kept(row: &CodeRow, code: &DeviceCode, gpus: &[ComputeCapability], catalog: &Catalog) -> bool {
    if !matches!(row.image.kind, CodeKind::Sass | CodeKind::Ptx) {
        return true;
    }
    let here = |s: &&Shape| s.place == row.place && s.section == row.section && s.images.contains(&row.image);
    let mut shapes = code.shapes.iter().filter(here);
    shapes.any(|s| gpus.iter().any(|gpu| is_taken(&row.image, &s.images, *gpu, catalog)))
}

/// Whether a GPU may take an image of a container: nothing nearer fits it. `90` and `90a` are equally near.
fn is_taken(image: &CodeImage, beside: &[CodeImage], gpu: ComputeCapability, catalog: &Catalog) -> bool {
    let nearest = |kind: CodeKind| {
        beside.iter().filter(|i| i.kind == kind && fits(i, gpu, catalog)).map(|i| i.arch.number).max()
    };
    let machine = nearest(CodeKind::Sass);
    let wanted =
        if image.kind == CodeKind::Ptx && machine.is_none() { nearest(CodeKind::Ptx) } else { machine };
    let of_kind = (image.kind == CodeKind::Ptx) == machine.is_none();
    of_kind && fits(image, gpu, catalog) && wanted == Some(image.arch.number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Arch;

    fn image(kind: CodeKind, arch: &str) -> CodeImage {
        CodeImage { kind, arch: Arch::parse(arch).unwrap(), ptx_isa: None }
    }

    #[test]
    fn a_gpu_takes_the_nearest_machine_code_and_ptx_where_there_is_none() {
        let catalog = Catalog::built_in().unwrap();
        let images = [
            image(CodeKind::Sass, "80"),
            image(CodeKind::Sass, "86"),
            image(CodeKind::Sass, "90"),
            image(CodeKind::Ptx, "90"),
        ];
        let taken = |gpu: &str| -> Vec<usize> {
            let gpu = ComputeCapability::parse(gpu).unwrap();
            (0..images.len()).filter(|i| is_taken(&images[*i], &images, gpu, &catalog)).collect()
        };
        assert_eq!(taken("9.0"), [2]);
        assert_eq!(taken("8.9"), [1]);
        assert_eq!(taken("8.0"), [0]);
        assert_eq!(taken("12.0"), [3], "only PTX reaches it");
        assert!(taken("7.5").is_empty());
    }
}
