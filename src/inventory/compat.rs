//! Forward-compatibility packages in the image: libcuda files in the places where the packages put them.

use crate::catalog::Catalog;
use crate::facts::links::Paths;
use crate::facts::{FileFacts, ForwardCompatNote, ImageFacts, Place};
use crate::names::ImagePath;
use crate::version::Version;

/// A compat libcuda.
#[derive(Clone, Debug, PartialEq)]
pub struct CompatLibrary {
    pub place: Place,
    /// CUDA version it reports, from its note, its directory or its driver branch.
    pub cuda: Option<Version>,
    /// Driver version in its file name.
    pub driver: Option<Version>,
    /// Driver branch it was built from.
    pub branch: Option<u32>,
    /// Its own list of host branches.
    pub note: Option<ForwardCompatNote>,
    /// For Orin modules only.
    pub orin: bool,
    /// The entry of LD_LIBRARY_PATH that leads to it: then it is loaded whatever the host is.
    pub on_library_path: Option<String>,
}

/// `/usr/local/cuda-X.Y/compat`, `/usr/local/cuda/compat[-orin]`, `…/hpc_sdk/…/cuda/X.Y/compat`, and `compat/lib.real`,
/// from where the entry point of NVIDIA's framework images links it in.
pub fn is_compat_path(path: &ImagePath) -> bool {
    let dir = path.parent();
    let dir = if dir.file_name() == "lib.real" { dir.parent() } else { dir };
    matches!(dir.file_name(), "compat" | "compat-orin") && dir.as_str().contains("cuda")
}

pub(super) fn find(facts: &ImageFacts, catalog: &Catalog) -> Vec<CompatLibrary> {
    let is_compat = |f: &&FileFacts| {
        f.place.path.file_name().starts_with("libcuda.so") && f.elf.is_some() && is_compat_path(&f.place.path)
    };
    let mut found = facts.files.iter().filter(is_compat).peekable();
    if found.peek().is_none() {
        return Vec::new();
    }
    let paths = Paths::of(facts);
    found.map(|f| library(f, facts, &paths, catalog)).collect()
}

fn library(file: &FileFacts, facts: &ImageFacts, paths: &Paths, catalog: &Catalog) -> CompatLibrary {
    let path = &file.place.path;
    let note = file.elf.as_ref().and_then(|e| e.forward_compat.clone());
    let driver =
        path.file_name().strip_prefix("libcuda.so.").and_then(Version::parse).filter(|v| v.major() >= 100);
    let branch = driver.as_ref().and_then(|d| catalog.branch_of(d.major())).map(|b| b.branch);
    let noted = note.as_ref().and_then(|n| n.cuda.as_deref()).and_then(Version::parse);
    let of_directory = path.as_str().split('/').find_map(|part| {
        let release = part.strip_prefix("cuda-").unwrap_or(part);
        Version::parse(release).filter(|v| v.len() == 2)
    });
    let of_branch = branch.and_then(|b| catalog.branch(b)).map(|b| b.cuda_max.clone());
    CompatLibrary {
        place: file.place.clone(),
        cuda: noted.or(of_branch).or(of_directory),
        driver,
        branch,
        note,
        orin: path.parent().file_name() == "compat-orin",
        on_library_path: on_library_path(facts, paths, &path.parent()),
    }
}

fn on_library_path(facts: &ImageFacts, paths: &Paths, dir: &ImagePath) -> Option<String> {
    let value = facts.image.config.env("LD_LIBRARY_PATH")?;
    value.split(':').find(|entry| !entry.is_empty() && paths.real(entry) == *dir).map(str::to_owned)
}
