//! What was typed about hosts (`535`, `h100`, `sm_90`, `p5.48xlarge`, a targets file) -> [`Target`]s. What is not known stays
//! unknown.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod file;
pub mod fleet;
pub mod gpu;
pub mod host;
pub mod nodes;
pub mod outputs;
pub mod profile;

pub use gpu::{Gpu, distinct, resolve as resolve_gpu};
pub use profile::Host;

use crate::catalog::{Branch, Catalog, Tegra};
use crate::version::Version;

/// What was typed makes no sense; exit 2.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct TargetError {
    pub message: String,
    pub hint: Option<String>,
}

impl TargetError {
    fn new(message: String, hint: impl Into<Option<String>>) -> TargetError {
        TargetError { message, hint: hint.into() }
    }
}

/// One host to judge for: a driver, GPUs, or both.
#[derive(Clone, Debug)]
pub struct Target {
    /// `535/h100`, `535` or `h100`, as typed.
    pub name: String,
    pub driver: Option<Driver>,
    pub gpus: Vec<Gpu>,
    pub host: Host,
}

impl Target {
    /// Its GPUs one by one, or once none: what a target is judged for.
    pub fn each_gpu(&self) -> Vec<Option<&Gpu>> {
        match self.gpus.as_slice() {
            [] => vec![None],
            gpus => gpus.iter().map(Some).collect(),
        }
    }

    /// What the target does not state and so is not judged.
    pub fn not_asked(&self) -> Vec<&'static str> {
        let mut out = Vec::new();
        if self.driver.is_none() {
            out.push("driver");
        }
        if self.gpus.is_empty() {
            out.push("gpu");
        }
        if self.host.container_toolkit.is_none() {
            out.push("container toolkit");
        }
        let jetson = self.driver.as_ref().is_some_and(|d| d.known.tegra) || self.gpus.iter().any(|g| g.tegra);
        if self.host.mode(jetson).is_none() {
            out.push("runtime mode");
        }
        out
    }
}

/// A host driver as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Driver {
    /// As typed: `535`, `535.183.01`, or `CUDA 12.2`.
    pub text: String,
    /// The version, or the branch alone; `None` where only the CUDA version is known.
    pub version: Option<Version>,
    pub known: DriverKnowledge,
}

/// What the catalog says of a driver.
#[derive(Clone, Debug, PartialEq)]
pub struct DriverKnowledge {
    /// CUDA version that it reports; `None` where the driver is older than every known branch.
    pub cuda: Option<Version>,
    /// Branch numbers it may be of: one, or several where only the CUDA version is known. Empty for Tegra.
    pub branches: Vec<u32>,
    /// A Jetson driver.
    pub tegra: bool,
    /// The version is the front of a longer one: `535.183` of 535.183.01 and 535.183.06.
    pub front: bool,
    /// The facts are measured or documented and the branch is not beyond the newest known one.
    pub sure: bool,
}

impl Driver {
    /// `535`, `535.183` or `535.183.01`.
    pub fn parse(text: &str, catalog: &Catalog) -> Result<Driver, TargetError> {
        let bare = text.trim().trim_start_matches(['r', 'R', 'v']);
        let version = Version::parse(bare).filter(|v| v.len() <= 3 && v.major() >= 100);
        let Some(version) = version else {
            let looks_like_cuda = Version::parse(bare).is_some_and(|v| v.len() == 2 && v.major() < 100);
            let hint = if looks_like_cuda {
                format!(
                    "`{text}` looks like the CUDA version that nvidia-smi prints: give it as --host-cuda {bare}"
                )
            } else {
                "a branch (535) or a version (535.183.01), as `nvidia-smi` prints it".to_owned()
            };
            return Err(TargetError::new(format!("`{text}` is no driver version"), hint));
        };
        let known = match tegra_of_driver(&version, catalog) {
            Some(row) => of_tegra(row),
            None => of_desktop(&version, catalog),
        };
        Ok(Driver { text: bare.to_owned(), version: Some(version), known })
    }

    /// Only the number that `nvidia-smi` prints as `CUDA Version` is known.
    pub fn from_cuda(text: &str, catalog: &Catalog) -> Result<Driver, TargetError> {
        let cuda = Version::parse(text.trim()).filter(|v| v.len() == 2 && (5..100).contains(&v.major()));
        let Some(cuda) = cuda else {
            let hint = "two numbers as in the header of `nvidia-smi`: --host-cuda 12.4".to_owned();
            return Err(TargetError::new(format!("`{text}` is no CUDA version"), hint));
        };
        let branches: Vec<&Branch> = catalog.branches.iter().filter(|b| b.cuda_max == cuda).collect();
        let beyond = catalog.newest_branch().filter(|newest| cuda > newest.cuda_max);
        if branches.is_empty() && beyond.is_none() {
            let hint = "`nvidia-smi` prints it in its header as `CUDA Version`".to_owned();
            return Err(TargetError::new(format!("no driver reports CUDA {cuda}"), hint));
        }
        let known = DriverKnowledge {
            branches: branches.iter().copied().chain(beyond).map(|b| b.branch).collect(),
            tegra: false,
            front: false,
            sure: beyond.is_none(),
            cuda: Some(cuda.clone()),
        };
        Ok(Driver { text: format!("CUDA {cuda}"), version: None, known })
    }

    /// `driver 535.183.01`, or `a driver that reports CUDA 12.2`.
    pub fn describe(&self) -> String {
        match self.version {
            Some(_) => format!("driver {}", self.text),
            None => format!("a driver that reports {}", self.text),
        }
    }

    /// The one branch, where it is certain.
    pub fn branch(&self) -> Option<u32> {
        match self.known.branches.as_slice() {
            [branch] => Some(*branch),
            _ => None,
        }
    }

    /// Whether the build is known, not only the branch.
    pub fn is_exact(&self) -> bool {
        self.version.as_ref().is_some_and(|v| v.len() > 1) && !self.known.front
    }
}

/// A Jetson driver by its number: 540.x fits no desktop branch.
fn tegra_of_driver<'a>(version: &Version, catalog: &'a Catalog) -> Option<&'a Tegra> {
    catalog.tegra.iter().find(|row| {
        row.driver.split(" / ").filter_map(Version::parse).any(|listed| {
            let only_branch = version.len() == 1 || listed.len() == 1;
            // Thor carries a desktop number (580); that is looked up as a desktop branch.
            listed.len() > 1 && (listed == *version || only_branch && listed.major() == version.major())
        })
    })
}

fn of_tegra(row: &Tegra) -> DriverKnowledge {
    DriverKnowledge {
        cuda: Some(row.cuda_max.clone()),
        branches: Vec::new(),
        tegra: true,
        front: false,
        sure: !row.status.is_inferred(),
    }
}

fn of_desktop(version: &Version, catalog: &Catalog) -> DriverKnowledge {
    let Some(branch) = catalog.branch_of(version.major()) else {
        return DriverKnowledge { front: false, cuda: None, branches: Vec::new(), tegra: false, sure: false };
    };
    // A number of the next ten above the newest branch may be a branch that the catalog does not know yet.
    let beyond = catalog.newest_branch().is_some_and(|n| n.branch == branch.branch)
        && version.major() > u64::from(branch.branch);
    DriverKnowledge {
        cuda: Some(branch.cuda_max.clone()),
        branches: vec![branch.branch],
        tegra: false,
        front: is_front(version, catalog),
        sure: branch.cuda_is_sure() && !beyond,
    }
}

/// Whether only longer versions that begin with it are known.
fn is_front(version: &Version, catalog: &Catalog) -> bool {
    let front = format!("{version}.");
    let known = || catalog.driver_versions.iter().map(|d| d.version.as_str());
    version.len() == 2 && known().any(|v| v.starts_with(&front)) && !known().any(|v| v == version.as_str())
}

/// Every driver with every GPU, on hosts that are else alike; one kind alone where only that is given.
pub fn cross(drivers: Vec<Driver>, gpus: Vec<Gpu>, host: &Host) -> Vec<Target> {
    let target = |name: String, driver: Option<&Driver>, gpu: Option<&Gpu>| Target {
        name,
        driver: driver.cloned(),
        gpus: gpu.into_iter().cloned().collect(),
        host: host.clone(),
    };
    if drivers.is_empty() {
        return one_of_each(gpus.iter().map(|g| target(g.typed.clone(), None, Some(g))).collect());
    }
    let mut out: Vec<Target> = Vec::new();
    for driver in &drivers {
        if gpus.is_empty() {
            out.push(target(driver.text.clone(), Some(driver), None));
        }
        for gpu in &gpus {
            out.push(target(format!("{}/{}", driver.text, gpu.typed), Some(driver), Some(gpu)));
        }
    }
    one_of_each(out)
}

/// What was typed twice is judged once.
fn one_of_each(targets: Vec<Target>) -> Vec<Target> {
    let mut seen = std::collections::BTreeSet::new();
    let what = |t: &Target| (t.driver.as_ref().map(|d| d.text.clone()), t.gpus.first().map(Gpu::describe));
    targets.into_iter().filter(|t| seen.insert(what(t))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        Catalog::built_in().unwrap()
    }

    #[test]
    fn a_branch_and_a_build_are_told_apart() {
        let catalog = catalog();
        let branch = Driver::parse("535", &catalog).unwrap();
        assert!(!branch.is_exact());
        assert_eq!(branch.known.cuda.as_ref().unwrap().as_str(), "12.2");
        let build = Driver::parse("535.104.05", &catalog).unwrap();
        assert!(build.is_exact() && build.branch() == Some(535));
        assert!(!Driver::parse("535.183", &catalog).unwrap().is_exact());
        assert!(Driver::parse("390.157", &catalog).unwrap().is_exact());
        assert!(Driver::parse("12.4", &catalog).unwrap_err().hint.unwrap().contains("--host-cuda 12.4"));
        assert!(Driver::parse("newest", &catalog).is_err());
    }

    #[test]
    fn windows_numbers_belong_to_the_branch_below() {
        let catalog = catalog();
        for (typed, branch) in [("528.33", 525), ("475.14", 470), ("514.08", 510), ("617.14", 615)] {
            assert_eq!(Driver::parse(typed, &catalog).unwrap().branch(), Some(branch), "{typed}");
        }
    }

    #[test]
    fn jetson_drivers_have_their_own_table() {
        let orin = Driver::parse("540.4.0", &catalog()).unwrap();
        assert!(orin.known.tegra);
        assert_eq!(orin.known.cuda.unwrap().as_str(), "12.6");
    }

    #[test]
    fn a_cuda_version_may_belong_to_several_branches() {
        let catalog = catalog();
        assert_eq!(Driver::from_cuda("12.2", &catalog).unwrap().branch(), Some(535));
        assert!(Driver::from_cuda("8.0", &catalog).unwrap().known.branches.len() > 1);
        assert!(Driver::from_cuda("535", &catalog).is_err());
    }

    #[test]
    fn a_driver_beyond_the_catalog_is_not_sure() {
        let catalog = catalog();
        assert!(!Driver::parse("700.10", &catalog).unwrap().known.sure);
        assert!(Driver::parse("340.29", &catalog).unwrap().known.cuda.is_none());
    }
}
