//! cuDNN opens its sub-libraries by name at run time. What it would get in a process of the image; shared by the rules
//! on mixed and on incomplete cuDNN.

use super::Case;
use super::linking::{applications, object_of};
use crate::facts::FileFacts;
use crate::inventory::loader::{Load, Process};
use crate::version::Version;

/// One cuDNN as a process opens it.
pub(super) struct Set<'c> {
    pub(super) group: String,
    pub(super) dispatcher: &'c FileFacts,
    pub(super) version: Option<Version>,
    /// Sub-library without version (`libcudnn_ops`), and what opening it gives.
    pub(super) parts: Vec<(&'static str, Load<'c>)>,
    /// The process with all of them.
    pub(super) process: Process<'c>,
}

const PARTS_8: [&str; 2] = ["libcudnn_ops_infer", "libcudnn_cnn_infer"];
const PARTS_9: [&str; 7] = [
    "libcudnn_graph",
    "libcudnn_ops",
    "libcudnn_cnn",
    "libcudnn_adv",
    "libcudnn_engines_precompiled",
    "libcudnn_engines_runtime_compiled",
    "libcudnn_heuristic",
];

/// A cuDNN dispatcher, and the process that loads it.
struct Dispatcher<'c> {
    group: &'c str,
    file: &'c FileFacts,
    version: Option<Version>,
    /// `8` or `9`, and the sub-libraries of it.
    major: &'c str,
    names: &'static [&'static str],
    /// Position in the process.
    index: usize,
    process: &'c Process<'c>,
}

/// Every cuDNN dispatcher that an application loads, or that stands alone where there is none, once each.
fn dispatchers<'c>(case: &Case<'c>) -> Vec<Dispatcher<'c>> {
    let mut out: Vec<Dispatcher<'c>> = Vec::new();
    let any_application = applications(case).next().is_some();
    let groups = case
        .inventory
        .loading
        .iter()
        .filter(|g| g.role == crate::inventory::gpu_code::GroupRole::Application || !any_application);
    // Frameworks first: what others load is mostly loaded by them.
    let mut groups: Vec<_> = groups.collect();
    groups.sort_by_key(|g| !g.members.iter().any(|m| m.main));
    for group in groups {
        for member in &group.members {
            let Some((index, dispatcher)) = object_of(&member.process, "libcudnn") else { continue };
            let file = dispatcher.file;
            if out.iter().any(|s| s.file.place == file.place) {
                continue;
            }
            let major =
                dispatcher.elf.soname.as_deref().and_then(|s| s.rsplit('.').next()).unwrap_or_default();
            let names: &[&str] = match major {
                "8" => &PARTS_8,
                "9" => &PARTS_9,
                _ => continue,
            };
            let version = case.inventory.version_at(file);
            let process = &member.process;
            out.push(Dispatcher { group: &group.name, file, version, major, names, index, process });
        }
    }
    out
}

/// What opening a sub-library gives.
fn open<'c>(case: &Case<'c>, of: &Dispatcher<'c>, name: &str, process: &mut Process<'c>) -> Option<Load<'c>> {
    let mut load = None;
    for spelling in spellings(name, of.version.as_ref(), of.major) {
        let next = case.inventory.processes.loader.open_name(process, of.index, &spelling);
        let found = !next.is_lost();
        load = Some(next);
        if found {
            break;
        }
    }
    load
}

/// Every cuDNN with all its sub-libraries.
pub(super) fn sets<'c>(case: &Case<'c>) -> Vec<Set<'c>> {
    let set = |of: Dispatcher<'c>| {
        let mut process = of.process.clone();
        let part = |name: &&'static str| Some((*name, open(case, &of, name, &mut process)?));
        let parts = of.names.iter().filter_map(part).collect();
        Set { group: of.group.to_owned(), dispatcher: of.file, version: of.version, parts, process }
    };
    dispatchers(case).into_iter().map(set).collect()
}

/// Every cuDNN by its group and the file that tells its version and GPUs: the first sub-library where it is found.
pub(super) fn telling<'c>(case: &Case<'c>) -> Vec<(&'c str, &'c FileFacts)> {
    let one = |of: Dispatcher<'c>| {
        let first = of.names.first().and_then(|name| open(case, &of, name, &mut of.process.clone()));
        (of.group, first.and_then(|l| l.file).unwrap_or(of.file))
    };
    dispatchers(case).into_iter().map(one).collect()
}

/// cuDNN 9 tries `.so.9.10.2`, `.so.9.10`, `.so.9`, then `.so` (its strings); cuDNN 8 `.so.8` only.
fn spellings(name: &str, version: Option<&Version>, major: &str) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(v) = version.filter(|_| major == "9") {
        out.push(format!("{name}.so.{}.{}.{}", v.major(), v.minor(), v.part(2)));
        out.push(format!("{name}.so.{}.{}", v.major(), v.minor()));
    }
    out.push(format!("{name}.so.{major}"));
    if major == "9" {
        out.push(format!("{name}.so"));
    }
    out
}
