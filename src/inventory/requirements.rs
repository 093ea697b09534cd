//! What an image asks of a host, whatever the host is: the lowest driver, the driver with every feature, the GPUs.

use super::gpu_code::{CodeGroup, GroupRole};
use super::{Component, Inventory, Runtime, RuntimeVersion};
use crate::catalog::Catalog;
use crate::facts::{CodeKind, json};
use crate::version::Version;
use std::collections::BTreeSet;

/// Requirements of the image as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requirements {
    /// Lowest driver that the newest runtime accepts, by documented minimum.
    pub min_driver: Option<Version>,
    /// Driver that the newest runtime's release shipped with.
    pub full_driver: Option<Version>,
    /// Targets with machine code in the parts that decide (`sm_80`).
    pub native: Vec<String>,
    /// Targets with PTX in those parts (`compute_90`).
    pub jit_from: Vec<String>,
}

pub(super) fn of(runtimes: &[Runtime], code: &[CodeGroup], catalog: &Catalog) -> Requirements {
    let runtimes = runtimes.iter().map(|r| &r.version);
    let min_driver = runtimes.clone().filter_map(|v| minimum(v, catalog)).max();
    let exact = runtimes.filter_map(|v| match v {
        RuntimeVersion::Exactly(version) => Some(version),
        _ => None,
    });
    let full_driver =
        exact.max().and_then(|v| catalog.full_driver(v)).and_then(|t| t.linux_driver_min.clone());
    let (native, jit_from) = architectures(code);
    Requirements { min_driver, full_driver, native, jit_from }
}

/// The newest CUDA runtime that something in the image loads, and the CUDA version that a driver must report for it: from 11 on
/// libcudart compares majors only. `None` where its version is not known.
pub fn payload<'a>(inventory: &'a Inventory) -> Option<(&'a Runtime, Version)> {
    let loaded = |r: &&Runtime| {
        let at = |c: &&Component| c.place == r.place && c.component == "cudart";
        inventory.components.iter().find(at).is_some_and(|c| c.reachable == Some(true))
    };
    let used: Vec<&Runtime> = inventory.runtimes.iter().filter(loaded).collect();
    let all: Vec<&Runtime> = inventory.runtimes.iter().collect();
    let used = if used.is_empty() { all } else { used };
    let newest = used.into_iter().max_by(|a, b| a.version.cmp(&b.version))?;
    let RuntimeVersion::Exactly(version) = &newest.version else { return None };
    let needs = if version.major() >= 11 { Version::of(version.major(), 0) } else { version.major_minor() };
    Some((newest, needs))
}

/// The documented minimum: of the CUDA major from 11 on, of the exact release before.
pub fn minimum(runtime: &RuntimeVersion, catalog: &Catalog) -> Option<Version> {
    let major = runtime.major()?;
    if let Some(family) = catalog.family(major) {
        return Some(family.linux_driver_min.clone());
    }
    match runtime {
        RuntimeVersion::Exactly(version) => {
            catalog.full_driver(&version.major_minor())?.linux_driver_min.clone()
        }
        _ => None,
    }
}

/// Targets of the application parts; where there are none, of the vendor libraries that applications call.
fn architectures(code: &[CodeGroup]) -> (Vec<String>, Vec<String>) {
    let of_role = |wanted: fn(&GroupRole) -> bool| {
        let mut native = BTreeSet::new();
        let mut ptx = BTreeSet::new();
        for group in code.iter().filter(|g| wanted(&g.role)) {
            let any_main = group.files.iter().any(|f| f.main);
            for file in group.files.iter().filter(|f| f.main || !any_main) {
                for image in file.shapes.iter().flat_map(|s| &s.images) {
                    match image.kind {
                        CodeKind::Sass => native.insert((image.arch, json::arch_name(image))),
                        CodeKind::Ptx => ptx.insert((image.arch, json::arch_name(image))),
                        _ => false,
                    };
                }
            }
        }
        (native, ptx)
    };
    let (native, ptx) = match of_role(|r| *r == GroupRole::Application) {
        (native, ptx) if native.is_empty() && ptx.is_empty() => {
            of_role(|r| matches!(r, GroupRole::Vendor(crate::catalog::CodeRole::Core)))
        }
        found => found,
    };
    let names = |set: BTreeSet<_>| set.into_iter().map(|(_, name)| name).collect();
    (names(native), names(ptx))
}
