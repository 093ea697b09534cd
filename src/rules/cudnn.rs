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

/// Every cuDNN dispatcher that an application loads, or that stands alone where there is none, once each.
pub(super) fn sets<'c>(case: &Case<'c>) -> Vec<Set<'c>> {
    let mut out: Vec<Set<'c>> = Vec::new();
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
            if out.iter().any(|s| s.dispatcher.place == file.place) {
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
            let mut process = member.process.clone();
            let parts = names
                .iter()
                .map(|name| {
                    let spelled = spellings(name, version.as_ref(), major);
                    let mut load = None;
                    for spelling in spelled {
                        let next = case.inventory.processes.loader.open_name(&mut process, index, &spelling);
                        let found = !next.is_lost();
                        load = Some(next);
                        if found {
                            break;
                        }
                    }
                    (*name, load)
                })
                .filter_map(|(name, load)| Some((name, load?)))
                .collect();
            out.push(Set { group: group.name.clone(), dispatcher: file, version, parts, process });
        }
    }
    out
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
