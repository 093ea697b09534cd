//! Judgments over all drivers and GPUs -> the node labels of GPU Feature Discovery that tell the hosts on which an image runs.
//!
//! Each term names a compute capability and the drivers for it; a node that one of the terms fits is a host on which the image
//! runs. Drivers newer than the catalog count where the image runs on such a driver as far as can be said.

use crate::catalog::{self, Catalog};
use crate::inventory::ComponentKind;
use crate::matrix::verdict;
use crate::report::Verdict;
use crate::rules::Judge;
use crate::target::gpu::of_capability;
use crate::target::{Driver, Gpu, Host, resolve_gpu};
use crate::version::{ComputeCapability, Version};
use std::collections::{BTreeMap, BTreeSet};

pub const MAJOR: &str = "nvidia.com/gpu.compute.major";
pub const MINOR: &str = "nvidia.com/gpu.compute.minor";
pub const PRODUCT: &str = "nvidia.com/gpu.product";
pub const DRIVER_MAJOR: &str = "nvidia.com/cuda.driver-version.major";
pub const DRIVER_MINOR: &str = "nvidia.com/cuda.driver-version.minor";
pub const DRIVER_REVISION: &str = "nvidia.com/cuda.driver-version.revision";
pub const ARCH: &str = "kubernetes.io/arch";

/// One condition on a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    pub label: &'static str,
    pub operator: Operator,
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// One of the values.
    In,
    /// A number above the value.
    Gt,
    /// A number below the value.
    Lt,
}

impl Operator {
    pub fn name(self) -> &'static str {
        match self {
            Operator::In => "In",
            Operator::Gt => "Gt",
            Operator::Lt => "Lt",
        }
    }
}

/// Whether a driver and GPU are accepted; `None` where that is not known of the driver as named.
type Works<'a> = dyn Fn(&Driver, &Gpu) -> Option<bool> + 'a;

/// Conditions that must all hold.
pub type Term = Vec<Condition>;

/// Drivers on which one kind of GPU works.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Drivers {
    /// Branches of which every build works.
    whole: Vec<u32>,
    /// Branches of which some builds work, by their second number.
    partly: Vec<(u32, Minors)>,
    /// Those beyond the catalog work, too.
    beyond: bool,
}

/// Second numbers of driver builds: labels have them apart from the first and the third.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Minors {
    From(u64),
    UpTo(u64),
    These(Vec<u64>),
    /// Of one second number only these third ones, as the label writes them.
    Builds(u64, Vec<String>),
}

/// The terms for the hosts whose verdict is accepted; none where there is no such host.
pub fn select(judge: &Judge, host: &Host, accept: fn(Verdict) -> bool) -> Vec<Term> {
    let catalog = judge.catalog();
    let platform = &judge.inventory().facts.image.platform;
    let mut by_drivers: BTreeMap<(Drivers, u32), Vec<u32>> = BTreeMap::new();
    let mut by_product: Vec<(Drivers, ComputeCapability, Vec<&catalog::Gpu>)> = Vec::new();
    let mut jetson: Vec<(ComputeCapability, Vec<Vec<Condition>>)> = Vec::new();
    let has_driver = judge.inventory().components.iter().any(|c| c.kind == ComponentKind::Driver);
    let works = |driver: &Driver, gpu: &Gpu| {
        let verdict = verdict(judge, driver, gpu, host);
        // A driver library in the image makes single builds fare otherwise than their branch.
        let by_build = has_driver && !driver.is_exact() && !driver.known.tegra;
        match accept(verdict) {
            _ if by_build => None,
            true => Some(true),
            false => (verdict != Verdict::Unknown).then_some(false),
        }
    };
    for row in &catalog.archs {
        let general = of_capability(&row.cc.to_string(), row.cc, catalog);
        let here = |g: &Gpu| {
            g.host_arch.is_none_or(|a| platform.architecture.is_empty() || a == platform.architecture)
        };
        if row.tegra {
            if here(&general) {
                jetson.push((row.cc, on_jetson(catalog, &general, &works)));
            }
            continue;
        }
        let kinds: Vec<(Drivers, Vec<&catalog::Gpu>)> = kinds(row.cc, catalog)
            .into_iter()
            .filter(|(gpu, _)| here(gpu))
            .map(|(gpu, names)| (drivers(catalog, &gpu, &works), names))
            .collect();
        let Some((first, _)) = kinds.first() else {
            let of_general = drivers(catalog, &general, &works);
            by_drivers.entry((of_general, row.cc.major)).or_default().push(row.cc.minor);
            continue;
        };
        // What holds for all products needs no names; the rest does.
        let common = kinds.iter().fold(first.clone(), |common, (drivers, _)| common.shared_with(drivers));
        by_product.extend(kinds.into_iter().map(|(d, names)| (d.without(&common), row.cc, names)));
        by_drivers.entry((common, row.cc.major)).or_default().push(row.cc.minor);
    }
    let mut out: Vec<Term> = Vec::new();
    let arch = (!platform.architecture.is_empty()).then(|| is(ARCH, [platform.architecture.clone()]));
    let mut add = |gpu: Vec<Condition>, drivers: Vec<Vec<Condition>>| {
        for driver in drivers {
            out.push(arch.iter().cloned().chain(gpu.iter().cloned()).chain(driver).collect());
        }
    };
    for ((drivers, major), minors) in by_drivers {
        let minors = minors.iter().map(ToString::to_string);
        add(vec![is(MAJOR, [major.to_string()]), is(MINOR, minors)], drivers.conditions(catalog));
    }
    for (drivers, cc, names) in by_product {
        add([capability(cc), vec![is(PRODUCT, labels(&names))]].concat(), drivers.conditions(catalog));
    }
    for (cc, drivers) in jetson {
        add(capability(cc), drivers);
    }
    out.sort();
    out
}

fn is(label: &'static str, values: impl IntoIterator<Item = String>) -> Condition {
    Condition { label, operator: Operator::In, values: values.into_iter().collect() }
}

fn above(label: &'static str, value: u64) -> Condition {
    Condition { label, operator: Operator::Gt, values: vec![value.to_string()] }
}

fn capability(cc: ComputeCapability) -> Vec<Condition> {
    vec![is(MAJOR, [cc.major.to_string()]), is(MINOR, [cc.minor.to_string()])]
}

/// As GPU Feature Discovery writes product names, shared GPUs included. Drivers before 460 name data center GPUs without NVIDIA,
/// older ones with Tesla; their forms (`A100-SXM4-40GB`) are among the catalog's aliases, in lower case.
fn labels(products: &[&catalog::Gpu]) -> Vec<String> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for product in products {
        names.insert(product.name.clone());
        if product.gpu_class != "data-center" {
            continue;
        }
        names.extend(product.name.strip_prefix("NVIDIA ").map(str::to_owned));
        let formed = product.aliases.iter().filter(|a| a.contains('-')).map(|a| a.to_uppercase());
        names.extend(formed.flat_map(|a| [format!("Tesla {a}"), format!("NVIDIA {a}"), a]));
    }
    let written = names.iter().map(|n| n.replace(' ', "-"));
    written.flat_map(|n| [format!("{n}-SHARED"), n]).collect()
}

/// Products of a compute capability that drivers and container runtimes treat alike.
fn kinds(cc: ComputeCapability, catalog: &Catalog) -> Vec<(Gpu, Vec<&catalog::Gpu>)> {
    let mut out: Vec<(Gpu, Vec<&catalog::Gpu>)> = Vec::new();
    for row in catalog.gpus.iter().filter(|g| g.cc == cc && !g.tegra) {
        let Ok(gpu) = resolve_gpu(&row.name, catalog) else { continue };
        let alike = |(known, _): &&mut (Gpu, Vec<&catalog::Gpu>)| {
            (known.forward_compat, known.host_arch, &known.brands)
                == (gpu.forward_compat, gpu.host_arch, &gpu.brands)
        };
        match out.iter_mut().find(alike) {
            Some((_, products)) => products.push(row),
            None => out.push((gpu, vec![row])),
        }
    }
    out
}

fn drivers(catalog: &Catalog, gpu: &Gpu, works: &Works) -> Drivers {
    let parsed = |text: &str| Driver::parse(text, catalog).ok();
    let mut out = Drivers::default();
    for branch in &catalog.branches {
        match parsed(&branch.branch.to_string()).and_then(|d| works(&d, gpu)) {
            Some(true) => out.whole.push(branch.branch),
            // Where the branch does not decide, its builds may.
            None => builds_of(catalog, branch.branch, gpu, works, &mut out.partly),
            Some(false) => {}
        }
    }
    let beyond = catalog.newest_branch().map(|b| (b.branch + 100).to_string());
    out.beyond = beyond.and_then(|text| parsed(&text)).is_some_and(|d| works(&d, gpu) == Some(true));
    out
}

/// The builds of a branch that work, by their numbers.
fn builds_of(catalog: &Catalog, branch: u32, gpu: &Gpu, works: &Works, out: &mut Vec<(u32, Minors)>) {
    let of_branch = |v: &&Version| v.major() == u64::from(branch) && v.len() > 1;
    let mut minors: BTreeMap<u64, bool> = BTreeMap::new();
    let mut builds: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for build in catalog.driver_versions.iter().map(|r| &r.version).filter(of_branch) {
        let good = Driver::parse(build.as_str(), catalog).is_ok_and(|d| works(&d, gpu) == Some(true));
        *minors.entry(build.minor()).or_insert(true) &= good;
        let revision = build.as_str().split('.').nth(2).unwrap_or_default().to_owned();
        let of_minor = builds.entry(build.minor()).or_default();
        of_minor.extend(good.then_some(revision));
    }
    let mixed =
        builds.into_iter().filter(|(minor, good)| minors.get(minor) == Some(&false) && !good.is_empty());
    out.extend(mixed.map(|(minor, good)| (branch, Minors::Builds(minor, good))));
    let last_bad = minors.iter().rev().find(|(_, good)| !**good).map(|(minor, _)| *minor);
    let good: Vec<u64> = minors.iter().filter(|(_, good)| **good).map(|(minor, _)| *minor).collect();
    let (Some(lowest), Some(highest)) = (good.first(), good.last()) else { return };
    // Builds that the catalog does not list lie between those that it does.
    let first_bad = minors.iter().find(|(_, good)| !**good).map(|(minor, _)| *minor);
    let minors = match (first_bad, last_bad) {
        (_, Some(bad)) if bad < *lowest => Minors::From(*lowest),
        (Some(bad), _) if bad > *highest => Minors::UpTo(*highest),
        (None, _) => Minors::From(0),
        _ => Minors::These(good),
    };
    out.push((branch, minors));
}

impl Drivers {
    fn shared_with(&self, other: &Drivers) -> Drivers {
        Drivers {
            whole: self.whole.iter().filter(|b| other.whole.contains(b)).copied().collect(),
            partly: self.partly.iter().filter(|b| other.partly.contains(b)).cloned().collect(),
            beyond: self.beyond && other.beyond,
        }
    }

    fn without(&self, other: &Drivers) -> Drivers {
        Drivers {
            whole: self.whole.iter().filter(|b| !other.whole.contains(b)).copied().collect(),
            partly: self.partly.iter().filter(|b| !other.partly.contains(b)).cloned().collect(),
            beyond: self.beyond && !other.beyond,
        }
    }

    fn conditions(&self, catalog: &Catalog) -> Vec<Vec<Condition>> {
        let mut out = Vec::new();
        let mut listed = self.whole.clone();
        if self.beyond {
            // The unbroken run up to the newest branch is open upwards.
            let run = catalog.branches.iter().rev().map(|b| b.branch).take_while(|b| self.whole.contains(b));
            let lowest = run.last();
            if let Some(lowest) = lowest {
                listed.retain(|b| *b < lowest);
                out.push(vec![above(DRIVER_MAJOR, u64::from(lowest) - 1)]);
            }
        }
        if !listed.is_empty() {
            out.push(vec![is(DRIVER_MAJOR, listed.iter().map(ToString::to_string))]);
        }
        for (branch, minors) in &self.partly {
            let mut both = vec![is(DRIVER_MAJOR, [branch.to_string()])];
            match minors {
                Minors::From(lowest) => both.extend(lowest.checked_sub(1).map(|m| above(DRIVER_MINOR, m))),
                Minors::UpTo(highest) => both.push(Condition {
                    label: DRIVER_MINOR,
                    operator: Operator::Lt,
                    values: vec![highest.saturating_add(1).to_string()],
                }),
                Minors::Builds(minor, revisions) => {
                    both.push(is(DRIVER_MINOR, [minor.to_string()]));
                    both.push(is(DRIVER_REVISION, revisions.iter().cloned()));
                }
                Minors::These(list) => both.push(is(DRIVER_MINOR, list.iter().map(ToString::to_string))),
            }
            out.push(both);
        }
        out
    }
}

/// Jetson drivers by their own table: `540.4.0` has the labels 540 and 4.
fn on_jetson(catalog: &Catalog, gpu: &Gpu, works: &Works) -> Vec<Vec<Condition>> {
    let mut minors: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let listed = catalog.tegra.iter().filter(|row| row.cc.contains(&gpu.cc));
    for version in
        listed.flat_map(|row| row.driver.split(" / ")).filter_map(Version::parse).filter(|v| v.len() > 1)
    {
        let driver = Driver::parse(version.as_str(), catalog);
        if driver.is_ok_and(|d| works(&d, gpu) == Some(true)) {
            minors.entry(version.major()).or_default().push(version.minor().to_string());
        }
    }
    minors
        .into_iter()
        .map(|(major, minors)| vec![is(DRIVER_MAJOR, [major.to_string()]), is(DRIVER_MINOR, minors)])
        .collect()
}
