//! Files that take part in the CUDA stack -> what happens when each is loaded, by the package or program it belongs to.

use super::gaps::{self, Gap};
use super::gpu_code::{self, GroupRole};
use super::loader::{Load, Process};
use super::processes::Processes;
use crate::catalog::Catalog;
use crate::facts::{ElfFacts, FileFacts, ImageFacts};
use crate::names::ImagePath;
use std::collections::{BTreeMap, BTreeSet};

/// Files that stand in for each other: a package, the variants of a library, a program.
pub struct Group<'a> {
    /// `torch`, `bitsandbytes`, a path.
    pub name: String,
    pub role: GroupRole,
    pub members: Vec<Opened<'a>>,
}

/// One file, and what its loading meets.
pub struct Opened<'a> {
    pub file: &'a FileFacts,
    pub elf: &'a ElfFacts,
    /// The file that does the package's work.
    pub main: bool,
    pub process: Process<'a>,
    pub gaps: Vec<Gap<'a>>,
    /// Another program or package loads it, with everything that it needs: its own search decides nothing.
    pub loaded_elsewhere: bool,
}

impl<'a> Opened<'a> {
    /// Libraries of the stack that nothing brings, with the file that asks for each.
    pub fn missing<'s>(
        &'s self,
        catalog: &'s Catalog,
    ) -> impl Iterator<Item = (&'a FileFacts, &'s Load<'a>)> + 's {
        let all = self.process.missing().map(|(object, load)| (object.file, load));
        all.filter(move |(_, load)| is_stack_library(&load.name, catalog))
    }

    /// What a direct need of this file resolves to.
    pub fn load(&self, name: &str) -> Option<&Load<'a>> {
        self.own().and_then(|o| o.loads.iter().find(|l| l.name == name))
    }

    /// Direct needs of this file.
    pub fn loads(&self) -> &[Load<'a>] {
        self.own().map(|o| o.loads.as_slice()).unwrap_or_default()
    }

    fn own(&self) -> Option<&super::loader::Object<'a>> {
        self.process.objects.iter().find(|o| o.file.place.path == self.file.place.path)
    }

    /// Whether it can be loaded, as far as the CUDA stack is concerned.
    pub fn works(&self, catalog: &Catalog) -> bool {
        self.loaded_elsewhere || self.gaps.is_empty() && self.missing(catalog).next().is_none()
    }
}

impl<'a> Group<'a> {
    /// Members whose failure is the failure of the whole: the main files, else all members.
    pub fn deciding(&self) -> impl Iterator<Item = &Opened<'a>> {
        let any_main = self.members.iter().any(|m| m.main);
        self.members.iter().filter(move |m| m.main || !any_main)
    }

    /// Whether the package or program as a whole cannot be loaded: no main file can, or no member at all.
    pub fn fails(&self, catalog: &Catalog) -> bool {
        self.deciding().next().is_some() && self.deciding().all(|m| !m.works(catalog))
    }
}

/// A library of the CUDA stack or of torch, by its name.
pub fn is_stack_library(name: &str, catalog: &Catalog) -> bool {
    let of_torch =
        name.starts_with("libtorch.so") || name.starts_with("libtorch_") || name.starts_with("libc10");
    catalog.component_of(name).is_some() || of_torch
}

/// Whether a file takes part in the stack: GPU code, a library of it, or a need for one.
pub fn takes_part(file: &FileFacts, catalog: &Catalog) -> bool {
    let Some(elf) = &file.elf else { return false };
    file.device_code.is_some()
        || catalog.component_of(file.place.path.file_name()).is_some()
        || elf.needed.iter().any(|n| is_stack_library(n, catalog))
}

/// Groups of everything that takes part, sorted by name.
pub(super) fn groups<'a>(
    facts: &'a ImageFacts,
    processes: &Processes<'a>,
    catalog: &Catalog,
) -> Vec<Group<'a>> {
    let mut out: BTreeMap<String, Group<'a>> = BTreeMap::new();
    for file in with_users(facts, catalog) {
        if processes.loader.gave_up() {
            return Vec::new();
        }
        let Some(elf) = &file.elf else { continue };
        let Some(process) = processes.open(file) else { continue };
        let (name, role) = gpu_code::key(file, catalog);
        let main = catalog.is_main_file(file.place.path.file_name());
        let gaps = gaps::find(&process);
        let group = out.entry(name.clone()).or_insert_with(|| Group { name, role, members: Vec::new() });
        group.members.push(Opened { file, elf, main, process, gaps, loaded_elsewhere: false });
    }
    let mut groups: Vec<Group<'a>> = out.into_values().collect();
    let mut whole: BTreeSet<ImagePath> = BTreeSet::new();
    for member in groups.iter().flat_map(|g| &g.members).filter(|m| m.works(catalog)) {
        let own = member.process.objects.iter().skip(member.process.inherited).map(|o| &o.file.place.path);
        whole.extend(own.filter(|p| **p != member.file.place.path).cloned());
    }
    for member in groups.iter_mut().flat_map(|g| &mut g.members) {
        member.loaded_elsewhere = whole.contains(&member.file.place.path) && !member.works(catalog);
    }
    groups
}

/// Files that take part, and the programs and libraries that load those by name.
fn with_users<'a>(facts: &'a ImageFacts, catalog: &Catalog) -> Vec<&'a FileFacts> {
    const DEPTH: usize = 4;
    let mut chosen: Vec<bool> = facts.files.iter().map(|f| takes_part(f, catalog)).collect();
    for _ in 0..DEPTH {
        let both = facts.files.iter().zip(&chosen);
        let names: BTreeSet<&str> = both
            .filter(|(f, chosen)| **chosen && catalog.component_of(f.place.path.file_name()).is_none())
            .filter_map(|(f, _)| f.elf.as_ref()?.soname.as_deref())
            .collect();
        let mut grown = false;
        for (file, chosen) in facts.files.iter().zip(&mut chosen).filter(|(_, chosen)| !**chosen) {
            let uses = file.elf.as_ref().is_some_and(|e| e.needed.iter().any(|n| names.contains(n.as_str())));
            *chosen |= uses;
            grown |= uses;
        }
        if !grown {
            break;
        }
    }
    facts.files.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(f, _)| f).collect()
}

/// Paths of everything that applications load, themselves included.
pub(super) fn loaded_paths(groups: &[Group<'_>]) -> BTreeSet<ImagePath> {
    let applications = groups.iter().filter(|g| g.role == GroupRole::Application).flat_map(|g| &g.members);
    let objects = applications.flat_map(|m| &m.process.objects);
    objects.map(|o| o.file.place.path.clone()).collect()
}
