//! Forward-compatibility packages in the image: libcuda files in the places where the packages put them.

use super::loader::Loader;
use crate::catalog::Catalog;
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
    pub reach: Reach,
    /// Where the loader's own search comes to it, lower first; `None` where only the container stack or an entry point leads
    /// to it.
    pub turn: Option<Turn>,
    /// How many `libcuda.so.*.*` stand beside each other there: the container toolkit takes none of several.
    pub beside: usize,
}

/// A search path by its rank, the place in it, and whether `libcuda.so.1` leads to another file of that directory.
pub type Turn = (u8, usize, bool);

/// What makes a process load a compat library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The RPATH or RUNPATH of a program that needs libcuda: it is loaded whatever the host is.
    RunPath { entry: String, program: String },
    /// The entry of LD_LIBRARY_PATH that leads to it: the same.
    LibraryPath(String),
    /// The directory as `/etc/ld.so.conf.d` writes it: the same.
    LdConf(String),
    /// The entry point of NVIDIA's framework images tries it, and puts it on the path where it works.
    EntryPoint,
    /// In `compat/lib.real`, where only that entry point looks; the image starts by another.
    LostEntryPoint,
    /// `/usr/local/cuda/compat`: the container stack may put it in front.
    Stack,
    /// Nothing looks there.
    Nothing,
}

impl CompatLibrary {
    /// The entry of the image's own search path that leads to it.
    pub fn forced(&self) -> Option<&str> {
        match &self.reach {
            Reach::LibraryPath(entry) | Reach::LdConf(entry) | Reach::RunPath { entry, .. } => Some(entry),
            _ => None,
        }
    }
}

/// The start script of NVIDIA's images.
pub const ENTRY_POINT: &str = "nvidia_entrypoint.sh";

/// `/usr/local/cuda-X.Y/compat`, `/usr/local/cuda/compat[-orin]`, `…/hpc_sdk/…/cuda/X.Y/compat`, and `compat/lib.real`,
/// from where the entry point of NVIDIA's framework images links it in.
pub fn is_compat_path(path: &ImagePath) -> bool {
    let dir = path.parent();
    let dir = if dir.file_name() == "lib.real" { dir.parent() } else { dir };
    matches!(dir.file_name(), "compat" | "compat-orin") && dir.as_str().contains("cuda")
}

pub(super) fn find(facts: &ImageFacts, loader: &Loader, catalog: &Catalog) -> Vec<CompatLibrary> {
    let is_compat = |f: &&FileFacts| {
        f.place.path.file_name().starts_with("libcuda.so") && f.elf.is_some() && is_compat_path(&f.place.path)
    };
    let found: Vec<&FileFacts> = facts.files.iter().filter(is_compat).collect();
    let library = |file: &&FileFacts| {
        let dir = file.place.path.parent();
        let beside = found.iter().filter(|f| f.place.path.parent() == dir).count();
        let (reach, turn) = reach(facts, loader, &dir);
        let other = loader.paths.real(&format!("{dir}/libcuda.so.1")) != file.place.path;
        let mut library = library(file, reach, beside, catalog);
        library.turn = turn.map(|(rank, index)| (rank, index, other));
        library
    };
    found.iter().map(library).collect()
}

fn library(file: &FileFacts, reach: Reach, beside: usize, catalog: &Catalog) -> CompatLibrary {
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
        reach,
        turn: None,
        beside,
    }
}

/// In the order of the loader: DT_RPATH, LD_LIBRARY_PATH, DT_RUNPATH, the cache of what ld.so.conf names.
fn reach(facts: &ImageFacts, loader: &Loader, dir: &ImagePath) -> (Reach, Option<(u8, usize)>) {
    let leads = |entry: &String| entry.starts_with('/') && loader.paths.real(entry) == *dir;
    let in_program = |runpath: bool| {
        facts.files.iter().find_map(|file| {
            let elf = file.elf.as_ref().filter(|e| e.needed.iter().any(|n| n.starts_with("libcuda.so")))?;
            let dirs = if runpath { &elf.runpath } else { &elf.rpath };
            let ignored = !runpath && !elf.runpath.is_empty();
            let index = dirs.iter().position(leads).filter(|_| !ignored)?;
            let entry = dirs.get(index)?.clone();
            Some((Reach::RunPath { entry, program: file.place.path.to_string() }, index))
        })
    };
    let listed = |dirs: &[String]| dirs.iter().position(leads).and_then(|i| Some((i, dirs.get(i)?.clone())));
    if let Some((reach, index)) = in_program(false) {
        return (reach, Some((0, index)));
    }
    if let Some((index, entry)) = listed(loader.library_path()) {
        return (Reach::LibraryPath(entry), Some((1, index)));
    }
    if let Some((reach, index)) = in_program(true) {
        return (reach, Some((2, index)));
    }
    if let Some((index, entry)) = listed(loader.conf_dirs()) {
        return (Reach::LdConf(entry), Some((3, index)));
    }
    (without_search_path(facts, loader, dir), None)
}

fn without_search_path(facts: &ImageFacts, loader: &Loader, dir: &ImagePath) -> Reach {
    let config = &facts.image.config;
    if dir.file_name() == "lib.real" {
        // Also as a part of a shell's command line, and as the command where there is no entry point.
        let mut started = config.entrypoint.iter().chain(&config.cmd);
        let starts = started.any(|e| e.split_whitespace().any(|word| word.ends_with(ENTRY_POINT)));
        return if starts { Reach::EntryPoint } else { Reach::LostEntryPoint };
    }
    let orin = dir.file_name() == "compat-orin";
    if orin || loader.paths.real("/usr/local/cuda/compat") == *dir { Reach::Stack } else { Reach::Nothing }
}
