//! Whether a forward-compatibility package of the image is loaded on a host, by what, and whether it works there. Findings are
//! made by the rules, not here.

use super::Case;
use super::reasoning::{Fit, fit_cuda};
use crate::inventory::RuntimeVersion;
use crate::inventory::compat::{CompatLibrary, Reach};
use crate::target::Driver;
use crate::target::profile::{Kind, RuntimeMode};
use crate::version::Version;

/// Whether a compat package of the image may be loaded on this host.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum CompatUse {
    Usable {
        sure: bool,
    },
    /// The host driver is of the package's branch or newer.
    NotNeeded,
    /// Nothing loads it on this host: the driver's own libcuda is used.
    Unused {
        why: String,
    },
    /// Not usable: the reason in words, the error that follows, and how sure that is.
    Unusable {
        why: String,
        code: i64,
        sure: bool,
    },
    /// A fact is missing, named in words.
    Unknown {
        missing: String,
    },
}

/// Who makes a process load the library, on this host.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Loaded {
    /// Always: in words, by what.
    Yes(String),
    /// By the entry point, where it works.
    IfItWorks,
    /// In words, why not.
    No(String),
    /// In words, what it depends on.
    NotKnown(String),
}

/// The compat library that matters most on the target, and whether it may be used.
pub(super) fn compat<'a>(case: &Case<'a>) -> Option<(&'a CompatLibrary, CompatUse)> {
    let driver = case.driver?;
    let tegra = driver.known.tegra || case.gpu.is_some_and(|g| g.tegra);
    if let Some(library) = first_of_search_path(case).filter(|_| !tegra) {
        return Some((library, compat_use(case, driver, library)));
    }
    let libraries = case.inventory.compat.iter().filter(|c| tegra || !c.orin);
    let judged = libraries.map(|library| (library, compat_use(case, driver, library)));
    judged.max_by(|(a, use_a), (b, use_b)| {
        helpfulness(use_a).cmp(&helpfulness(use_b)).then_with(|| a.cuda.cmp(&b.cuda))
    })
}

/// What the image's own search paths name is loaded in any case: the first of several.
pub(super) fn first_of_search_path<'a>(case: &Case<'a>) -> Option<&'a CompatLibrary> {
    let named = case.inventory.compat.iter().filter(|c| !c.orin).filter_map(|c| Some((c.turn?, c)));
    named.min_by_key(|(turn, _)| *turn).map(|(_, library)| library)
}

fn helpfulness(compat: &CompatUse) -> u8 {
    match compat {
        CompatUse::Usable { .. } => 4,
        CompatUse::Unknown { .. } => 3,
        CompatUse::NotNeeded => 2,
        CompatUse::Unusable { .. } => 1,
        CompatUse::Unused { .. } => 0,
    }
}

fn compat_use(case: &Case, driver: &Driver, library: &CompatLibrary) -> CompatUse {
    let jetson = driver.known.tegra || case.gpu.is_some_and(|g| g.tegra);
    if library.orin || jetson {
        let newer = matches!((&library.cuda, &driver.known.cuda), (Some(a), Some(b)) if a > b);
        return if newer { CompatUse::Usable { sure: false } } else { CompatUse::NotNeeded };
    }
    if case.host.kind == Some(Kind::Wsl) {
        return match loaded(case, library) {
            Loaded::No(why) => CompatUse::Unused { why },
            _ => CompatUse::Unknown {
                missing: "what a libcuda for Linux does under WSL, which has no NVIDIA kernel module"
                    .to_owned(),
            },
        };
    }
    let (Some(host), Some(package)) = (driver.branch(), library.branch) else {
        let missing = match driver.branch() {
            Some(_) => "the driver branch of the compat package".to_owned(),
            None => "the driver branch of the host".to_owned(),
        };
        return undecided(case, library, missing);
    };
    let loaded = loaded(case, library);
    // A newer build of the host's own branch counts as forward compatibility where something loads it.
    let newer_build = host == package
        && driver.is_exact()
        && library.driver > driver.version
        && takes_builds_of_the_branch(case, library);
    if host >= package && !newer_build {
        return CompatUse::NotNeeded;
    }
    if let Loaded::No(why) = &loaded {
        return CompatUse::Unused { why: why.clone() };
    }
    let base = match newer_build {
        true => CompatUse::Usable { sure: false },
        false => base_is_supported(case, host, library),
    };
    // A GPU that no compat package serves decides, whatever the base is.
    let of_gpu = on_gpu(case, package, CompatUse::Usable { sure: true });
    let gpu_decides = match &of_gpu {
        CompatUse::Usable { .. } => false,
        CompatUse::Unusable { sure: true, .. } => true,
        _ => matches!(base, CompatUse::Usable { .. }),
    };
    let works = if gpu_decides { of_gpu } else { base };
    match (works, loaded) {
        (CompatUse::Unusable { why, sure: true, .. }, Loaded::IfItWorks) => CompatUse::Unused {
            why: format!("the entry point of the image leaves it out where it does not work: {why}"),
        },
        (works, _) => works,
    }
}

/// What can be said where a branch is missing: a GPU that no compat package serves decides all the same.
fn undecided(case: &Case, library: &CompatLibrary, missing: String) -> CompatUse {
    let loaded = loaded(case, library);
    if let Loaded::No(why) = loaded {
        return CompatUse::Unused { why };
    }
    let older = |d: &Driver| {
        let newest = d.known.branches.iter().max().copied();
        matches!((newest, library.branch), (Some(host), Some(package)) if host < package)
    };
    match on_gpu(case, 0, CompatUse::Usable { sure: true }) {
        unusable @ CompatUse::Unusable { .. } if case.driver.is_some_and(older) => unusable,
        _ => CompatUse::Unknown { missing },
    }
}

/// The container stack goes by branches, until it reads the note (1.20); search paths of the image ask nothing.
fn takes_builds_of_the_branch(case: &Case, library: &CompatLibrary) -> bool {
    let reads_note = case.host.container_toolkit.as_ref().is_some_and(reads_note) && library.note.is_some();
    library.forced().is_some() || case.host.cuda_compat == Some(true) || reads_note
}

/// Whether the hook of this container toolkit goes by the note of a compat library on desktops and servers (on Jetson modules
/// it did so earlier).
fn reads_note(toolkit: &Version) -> bool {
    *toolkit >= Version::of(1, 20)
}

/// Whether the GPU is one that no compat package serves, as far as product or host say so; the product counts for more.
pub(super) fn is_consumer(case: &Case) -> bool {
    match case.gpu.and_then(|g| g.forward_compat) {
        Some(served) => !served,
        None => case.host.is_geforce(),
    }
}

/// Whether compat packages serve the GPU.
fn on_gpu(case: &Case, package: u32, served: CompatUse) -> CompatUse {
    if case.host.kind == Some(Kind::Vgpu) {
        let missing = "whether forward compatibility works on this vGPU (NVIDIA does not promise it)";
        return CompatUse::Unknown { missing: missing.to_owned() };
    }
    let no_data_center = |what: String| CompatUse::Unusable { why: what, code: 804, sure: true };
    match case.gpu {
        None if is_consumer(case) => no_data_center("GeForce GPUs are no data center GPUs".to_owned()),
        Some(gpu) if gpu.forward_compat == Some(false) => {
            no_data_center(format!("{} is no data center GPU", gpu.describe()))
        }
        Some(gpu) if is_consumer(case) => {
            no_data_center(format!("{} on a GeForce host is no data center GPU", gpu.describe()))
        }
        Some(gpu) if gpu.forward_compat.is_none() && case.host.kind != Some(Kind::DataCenter) => {
            CompatUse::Unknown {
                missing: format!("whether {} is a data center or NGC-ready GPU", gpu.describe()),
            }
        }
        // That the library ends with the branch of its kernel module is concluded, not documented.
        Some(gpu) if last_branch(case, gpu).is_some_and(|last| last < package) => CompatUse::Unusable {
            why: format!("a driver library of branch {package} no longer drives {}", gpu.describe()),
            code: 803,
            sure: false,
        },
        _ => served,
    }
}

/// The last driver branch that supports the GPU.
fn last_branch(case: &Case, gpu: &crate::target::Gpu) -> Option<u32> {
    case.catalog.driver_archs.iter().find(|a| a.cc == gpu.cc)?.last_branch
}

/// The note inside the library first, then the published matrix, then what is known of bases that are end of life.
fn base_is_supported(case: &Case, host: u32, library: &CompatLibrary) -> CompatUse {
    if let Some(listed) = library.note.as_ref().and_then(|n| n.drivers.as_ref()) {
        if listed.contains(&host) {
            return CompatUse::Usable { sure: true };
        }
        let names: Vec<String> = listed.iter().map(u32::to_string).collect();
        let why = format!("the library itself lists the host branches {} only", names.join(", "));
        let forced = matches!(loaded(case, library), Loaded::Yes(_));
        return CompatUse::Unusable { why, code: if forced { 803 } else { 35 }, sure: true };
    }
    let Some(cuda) = &library.cuda else {
        return CompatUse::Unknown { missing: "the CUDA version of the compat package".to_owned() };
    };
    let cell = case.catalog.compat_matrix.iter().find(|c| c.base_branch == host && c.cuda == *cuda);
    match cell.map(|c| (c.result.as_str(), !c.status.is_inferred())) {
        Some(("compatible", sure)) => return CompatUse::Usable { sure },
        Some(("not-needed", _)) => return CompatUse::NotNeeded,
        Some((_, sure)) => {
            let why = format!("NVIDIA's matrix lists host branch {host} as not compatible with CUDA {cuda}");
            return CompatUse::Unusable { why, code: 803, sure };
        }
        None => {}
    }
    let historic = case.catalog.historic_bases.iter().find(|h| h.base_branch == host);
    match historic {
        Some(base) if *cuda <= base.cuda_max_with_compat => {
            CompatUse::Usable { sure: !base.status.is_inferred() }
        }
        Some(base) => CompatUse::Unknown {
            missing: format!(
                "support of host branch {host}: end of life, its last supported compat package is CUDA {}",
                base.cuda_max_with_compat
            ),
        },
        None => CompatUse::Unknown {
            missing: format!("host branch {host} in NVIDIA's forward-compatibility matrix"),
        },
    }
}

/// What loads the library on the host of the case.
pub(super) fn loaded(case: &Case, library: &CompatLibrary) -> Loaded {
    match &library.reach {
        Reach::RunPath { entry, program } => Loaded::Yes(format!("`{entry}` in the RPATH of {program}")),
        Reach::LibraryPath(entry) => Loaded::Yes(format!("`{entry}` in LD_LIBRARY_PATH")),
        Reach::LdConf(entry) => Loaded::Yes(format!("`{entry}` in /etc/ld.so.conf.d")),
        Reach::EntryPoint => Loaded::IfItWorks,
        Reach::LostEntryPoint => Loaded::No(
            "only the entry point of NVIDIA's images looks into compat/lib.real, and the image has another one"
                .to_owned(),
        ),
        Reach::Nothing => Loaded::No(format!(
            "nothing looks into {}: /usr/local/cuda/compat leads elsewhere",
            library.place.path.parent()
        )),
        Reach::Stack => by_container_stack(case, library),
    }
}

/// What the NVIDIA container toolkit does with `/usr/local/cuda/compat`, by its release. From the sources and change logs of
/// libnvidia-container and nvidia-container-toolkit; `rules/catalog/forward_compat.toml` has the rows.
fn by_container_stack(case: &Case, library: &CompatLibrary) -> Loaded {
    if case.host.kind == Some(Kind::Wsl) {
        return Loaded::No("WSL takes libcuda from the Windows driver".to_owned());
    }
    match case.host.cuda_compat {
        Some(true) => return Loaded::Yes("the container stack of this host".to_owned()),
        Some(false) => {
            return Loaded::No("the container stack of this host does not load compat packages".to_owned());
        }
        None => {}
    }
    let Some(toolkit) = &case.host.container_toolkit else {
        return Loaded::NotKnown("the container toolkit of the host".to_owned());
    };
    let mode = case.mode().map(|(mode, _)| mode);
    let below = |text: &str| Version::parse(text).is_some_and(|v| *toolkit < v);
    let yes = || Loaded::Yes(format!("container toolkit {toolkit}"));
    let no = |why: &str| Loaded::No(format!("container toolkit {toolkit} {why}"));
    let several = library.beside > 1;
    let listed = |note: &crate::facts::ForwardCompatNote| {
        let host = case.driver.and_then(Driver::branch);
        note.drivers.as_ref().is_none_or(|d| host.is_some_and(|h| d.contains(&h)))
    };
    match mode {
        _ if below("1.3.1") => no("does not find it behind the links of /usr/local/cuda"),
        Some(RuntimeMode::Cdi) if below("1.17.5") => no("loads none in CDI mode"),
        _ if below("1.17.4") => yes(),
        _ if below("1.17.5") => no("loads none unless allow-cuda-compat-libs-from-container is set"),
        Some(RuntimeMode::Legacy) if below("1.17.7") => {
            Loaded::NotKnown("whether the NVIDIA runtime or the hook of `docker --gpus` starts it".to_owned())
        }
        _ if several => no("takes none where several libcuda stand beside each other"),
        Some(RuntimeMode::Cdi) if below("1.18.1") && !has_loader_cache(case) => {
            no("needs an /etc/ld.so.cache in the image for it")
        }
        _ if reads_note(toolkit) && library.note.as_ref().is_some_and(|n| !listed(n)) => {
            no("leaves it out, since its note does not list the host's branch")
        }
        _ => yes(),
    }
}

/// Whether the image has `/etc/ld.so.cache`.
pub(super) fn has_loader_cache(case: &Case) -> bool {
    case.inventory.processes.loader.paths.file("/etc/ld.so.cache").is_some()
}

/// Whether the compat package lifts the driver far enough for a runtime.
pub(super) fn lifts(library: &CompatLibrary, runtime: &RuntimeVersion) -> bool {
    library.cuda.as_ref().is_some_and(|c| matches!(fit_cuda(runtime, c), Fit::Backward | Fit::Minor))
}
