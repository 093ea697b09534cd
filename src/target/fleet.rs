//! A file about hosts (a targets file, nodes of Kubernetes, what a tool printed on one host) -> [`Target`]s. Nodes that say the
//! same are one target with a count.

use super::nodes::{self, LeftOut};
use super::outputs::{self, Platform, Said, SaidGpu};
use super::profile::{Brand, Host, Kind, architecture};
use super::{Driver, Gpu, Target, TargetError, file, gpu};
use crate::catalog::Catalog;
use crate::version::ComputeCapability;

/// The hosts of one file.
#[derive(Debug, Default)]
pub struct Fleet {
    pub targets: Vec<Target>,
    /// What the user should know of hosts that are not judged, or not wholly: one line each.
    pub remarks: Vec<String>,
}

/// Reads a file of any of the forms; which one it is shows in the text. `cordoned`: with the nodes on which nothing is
/// scheduled.
pub fn read(text: &str, cordoned: bool, catalog: &Catalog) -> Result<Fleet, TargetError> {
    if text.trim_start().starts_with('{') {
        of_nodes(text, cordoned, catalog)
    } else if outputs::is_one(text) {
        let (target, remarks) = target(&outputs::read(text)?, catalog)?;
        Ok(Fleet { targets: vec![target], remarks })
    } else {
        Ok(Fleet { targets: file::read(text, catalog)?, remarks: Vec::new() })
    }
}

fn of_nodes(text: &str, cordoned: bool, catalog: &Catalog) -> Result<Fleet, TargetError> {
    let nodes = nodes::read(text, cordoned)?;
    let mut groups: Vec<(Said, Vec<String>)> = Vec::new();
    let mut fleet = Fleet::default();
    let named = |why: LeftOut| {
        let of = nodes.iter().filter(|n| n.said == Err(why)).map(|n| n.name.as_str());
        let names: Vec<&str> = of.collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if let Some(names) = named(LeftOut::NoLabels) {
        fleet.remarks.push(format!(
            "not judged: {names} (GPU without labels of GPU Feature Discovery; install it with the GPU operator)"
        ));
    }
    if let Some(names) = named(LeftOut::Cordoned) {
        fleet.remarks.push(format!("not judged: {names} (cordoned; --cordoned takes them)"));
    }
    for node in &nodes {
        if let Some(doubt) = node.doubt.as_ref().filter(|_| node.said.is_ok()) {
            fleet.remarks.push(format!("{}: {doubt}", node.name));
        }
        let Ok(mut said) = node.said.clone() else { continue };
        // MIG divides a GPU and changes nothing of what runs on it.
        said.gpus.iter_mut().for_each(|g| g.mig.clear());
        match groups.iter_mut().find(|(known, _)| *known == said) {
            Some((_, names)) => names.push(node.name.clone()),
            None => groups.push((said, vec![node.name.clone()])),
        }
    }
    for (said, names) in groups {
        let first = names.first().cloned().unwrap_or_default();
        let (mut target, remarks) = target(&said, catalog)
            .map_err(|e| TargetError { message: format!("node {first}: {}", e.message), hint: e.hint })?;
        target.host.count = u64::try_from(names.len()).ok();
        if fleet.targets.iter().any(|t| t.name == target.name) {
            target.name = format!("{} ({first})", target.name);
        }
        fleet.remarks.extend(remarks.into_iter().map(|r| format!("{first}: {r}")));
        fleet.targets.push(target);
    }
    if fleet.targets.is_empty() {
        let hint = fleet.remarks.first().cloned();
        return Err(TargetError::new("no node has labels that tell of a GPU".to_owned(), hint));
    }
    Ok(fleet)
}

/// One host, and remarks about what it does not say.
pub fn target(said: &Said, catalog: &Catalog) -> Result<(Target, Vec<String>), TargetError> {
    let driver = match (&said.driver, &said.cuda) {
        (Some(driver), _) => Some(Driver::parse(driver, catalog)?),
        (None, Some(cuda)) => Some(Driver::from_cuda(cuda, catalog)?),
        (None, None) => None,
    };
    let mut remarks = Vec::new();
    let mut gpus: Vec<Gpu> = Vec::new();
    let mut host = Host {
        kernel_module: said.kernel_module,
        kind: said.platform.map(|p| match p {
            // Containers of a Windows host run under WSL.
            Platform::Windows | Platform::Wsl2 => Kind::Wsl,
            Platform::Tegra => Kind::Tegra,
        }),
        brand: brand(&said.gpus),
        arch: said.arch.as_deref().map(architecture).transpose()?,
        ..Host::default()
    };
    for one in &said.gpus {
        match resolved(one, catalog) {
            Ok(gpu) if gpus.iter().any(|g| g.describe() == gpu.describe()) => {}
            Ok(gpu) => gpus.push(gpu),
            Err(error) => {
                if !host.unknown_gpus.contains(&one.name) {
                    remarks.push(format!("{} ({})", error.message, error.hint.unwrap_or_default()));
                    host.unknown_gpus.push(one.name.clone());
                }
            }
        }
    }
    let described: Vec<&str> = gpus.iter().map(|g| g.typed.as_str()).collect();
    let driver_text = driver.as_ref().map(|d| d.text.clone());
    let parts: Vec<String> =
        driver_text.into_iter().chain((!described.is_empty()).then(|| described.join(" + "))).collect();
    let name = if parts.is_empty() { "host".to_owned() } else { parts.join("/") };
    Ok((Target { name, driver, gpus, host }, remarks))
}

/// By its name; where that is not known, or of another compute capability than the host says, by the latter.
fn resolved(said: &SaidGpu, catalog: &Catalog) -> Result<Gpu, TargetError> {
    let stated = said.cc.as_deref().and_then(ComputeCapability::parse);
    if said.cut && stated.is_none() {
        let message = format!("the name of the GPU is cut: `{}`", said.name);
        return Err(TargetError::new(message, "use `nvidia-smi -q -x`".to_owned()));
    }
    match (gpu::resolve(&said.name, catalog), stated) {
        (Ok(gpu), None) => Ok(gpu),
        (Ok(gpu), Some(cc)) if gpu.cc == cc => Ok(gpu),
        (Err(error), None) => Err(error),
        (_, Some(cc)) => {
            let mut gpu = gpu::resolve(&cc.to_string(), catalog)?;
            gpu.product = Some(said.name.clone());
            said.name.clone_into(&mut gpu.typed);
            Ok(gpu)
        }
    }
}

/// The brand, where all GPUs have the same.
fn brand(gpus: &[SaidGpu]) -> Option<String> {
    let of = |g: &SaidGpu| g.brand.clone().or_else(|| Some(g.known_brand?.name().to_owned()));
    let first = of(gpus.first()?)?;
    let same = gpus.iter().all(|g| of(g).as_ref() == Some(&first));
    Brand::check_nvml(&first).ok().filter(|_| same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(text: &str) -> Fleet {
        read(text, false, &Catalog::built_in().unwrap()).unwrap()
    }

    #[test]
    fn alike_nodes_are_one_target() {
        let fleet = fleet(include_str!("../../fixtures/hosts/nodes.json"));
        let names: Vec<&str> = fleet.targets.iter().map(|t| t.name.as_str()).collect();
        assert!(names.contains(&"535.104.05/NVIDIA H100 80GB HBM3"), "{names:?}");
        let all = read(include_str!("../../fixtures/hosts/nodes.json"), true, &Catalog::built_in().unwrap());
        assert_eq!(all.unwrap().targets.len(), 7);
        let counts: Vec<Option<u64>> = fleet.targets.iter().map(|t| t.host.count).collect();
        assert_eq!(counts, [1, 1, 2, 1, 1, 1].map(Some), "two nodes differ in MIG only");
        assert!(
            fleet.remarks.iter().any(|r| r.contains("no-gfd"))
                && fleet.remarks.iter().any(|r| r.contains("cordoned"))
        );
    }

    #[test]
    fn what_one_host_prints_is_a_target() {
        let one = fleet(include_str!("../../fixtures/hosts/smi_xml_v12_535_rtx4090.xml"));
        assert_eq!(one.targets[0].name, "535.86.05/NVIDIA GeForce RTX 4090");
        assert_eq!(one.targets[0].host.brand.as_deref(), Some("GeForce"));
        let cut = fleet(include_str!("../../fixtures/hosts/smi_plain_525_geforce_cut_name.txt"));
        assert_eq!(cut.targets[0].host.unknown_gpus, ["NVIDIA GeForce ..."]);
        let wsl = fleet(include_str!("../../fixtures/hosts/smi_plain_wsl2_smi_differs.txt"));
        assert_eq!(wsl.targets[0].host.kind, Some(Kind::Wsl));
    }

    #[test]
    fn a_product_that_is_not_known_is_judged_by_its_compute_capability() {
        let text = "name, driver_version, compute_cap\nNVIDIA Q900, 580.65.06, 9.0\n";
        let gpu = &fleet(text).targets[0].gpus[0];
        assert_eq!((gpu.cc.to_string().as_str(), gpu.product.as_deref()), ("9.0", Some("NVIDIA Q900")));
    }
}
