//! Nodes of Kubernetes and pools that an operator declares -> profiles (hosts that are alike), and which of them a pod may
//! land on.

use super::pods::{is_gpu_resource, quantity};
use super::scheduling::{NodeInfo, Placement, Taint};
use crate::catalog::Catalog;
use crate::target::nodes::{self, LeftOut};
use crate::target::outputs::Said;
use crate::target::{Host, Target, fleet};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Hosts that are alike in everything that verdicts depend on.
#[derive(Debug)]
pub struct Profile {
    pub target: Target,
    /// The same for the same host, whatever it is called and however many there are.
    pub key: Arc<str>,
}

impl Profile {
    fn new(mut target: Target, stack: &Host) -> Profile {
        let host = &mut target.host;
        host.labels.clear();
        host.count = None;
        host.container_toolkit = host.container_toolkit.take().or_else(|| stack.container_toolkit.clone());
        host.runtime_mode = host.runtime_mode.or(stack.runtime_mode);
        host.brand = host.brand.take().or_else(|| stack.brand.clone());
        let key = format!("{:?} {:?} {:?}", target.driver, target.gpus, target.host);
        Profile { target, key: key.into() }
    }

    pub fn name(&self) -> &str {
        &self.target.name
    }

    /// OCI architecture, where it is known.
    pub fn arch(&self) -> Option<&str> {
        self.target.host.arch.as_deref()
    }
}

/// A node as admission sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub info: NodeInfo,
    pub gpu: NodeGpu,
}

#[derive(Clone, Debug, PartialEq)]
pub enum NodeGpu {
    Said(Said),
    /// It has a GPU that no label tells of.
    Unlabelled,
    None,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeJson {
    metadata: MetadataJson,
    spec: SpecJson,
    status: StatusJson,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct MetadataJson {
    name: String,
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SpecJson {
    taints: Option<Vec<Taint>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StatusJson {
    allocatable: BTreeMap<String, Value>,
    capacity: BTreeMap<String, Value>,
}

impl Node {
    /// Reads a node as the Kubernetes API gives it.
    pub fn read(value: &Value) -> Result<Node, String> {
        let json = NodeJson::deserialize(value).map_err(|e| e.to_string())?;
        let read = nodes::of_value(value.clone(), true).map_err(|e| e.to_string())?;
        let mut resources: BTreeMap<String, u64> = BTreeMap::new();
        let status = json.status;
        let gpus =
            status.allocatable.iter().chain(&status.capacity).filter(|(name, _)| is_gpu_resource(name));
        for (name, count) in gpus {
            let known = resources.entry(name.clone()).or_default();
            *known = (*known).max(quantity(count));
        }
        // A device plugin that starts anew, or a driver that is being exchanged, counts none for a while.
        resources.values_mut().filter(|count| **count == 0).for_each(|count| *count = u64::MAX);
        let gpu = match read.said {
            Ok(mut said) => {
                // MIG divides a GPU and changes nothing of what runs on it.
                said.gpus.iter_mut().for_each(|g| g.mig.clear());
                NodeGpu::Said(said)
            }
            Err(LeftOut::NoGpu) => NodeGpu::None,
            Err(LeftOut::NoLabels | LeftOut::Cordoned) => NodeGpu::Unlabelled,
        };
        let info = NodeInfo {
            name: json.metadata.name,
            labels: json.metadata.labels,
            taints: json.spec.taints.unwrap_or_default(),
            resources,
        };
        Ok(Node { info, gpu })
    }
}

/// Everything a pod may land on, at one moment.
#[derive(Debug, Default)]
pub struct Cluster {
    pub nodes: Vec<Node>,
    /// Of each node: the place of its profile.
    profile_of: Vec<Option<usize>>,
    pub profiles: Vec<Arc<Profile>>,
    pools: Vec<Pool>,
    /// What the operator should know of nodes that are not judged, or not wholly.
    pub remarks: Vec<String>,
}

/// Hosts that an operator declares; their nodes may not exist yet.
#[derive(Debug)]
struct Pool {
    profile: usize,
    labels: BTreeMap<String, String>,
    count: usize,
}

/// Where a pod may land: profiles with their nodes.
#[derive(Debug, Default)]
pub struct Candidates {
    pub rows: Vec<Candidate>,
    /// Nodes it may land on whose GPU no label tells of.
    pub unlabelled: Vec<String>,
    /// They are declared pools; no node is there that fits.
    pub from_pools: bool,
}

#[derive(Debug)]
pub struct Candidate {
    pub profile: Arc<Profile>,
    /// Places in [`Cluster::nodes`]; empty for pools.
    pub nodes: Vec<usize>,
    pub count: usize,
}

impl Cluster {
    /// `stack`: what is said of the container stack of all nodes.
    pub fn new(mut nodes: Vec<Node>, pools: &[Target], stack: &Host, catalog: &Catalog) -> Cluster {
        nodes.sort_by(|a, b| a.info.name.cmp(&b.info.name));
        let mut cluster = Cluster::default();
        let mut known: Vec<(&Said, Option<usize>)> = Vec::new();
        for node in &nodes {
            let NodeGpu::Said(said) = &node.gpu else {
                cluster.profile_of.push(None);
                continue;
            };
            if let Some((_, profile)) = known.iter().find(|(known, _)| *known == said) {
                cluster.profile_of.push(*profile);
                continue;
            }
            let profile = match fleet::target(said, catalog) {
                Ok((target, remarks)) => {
                    let name = &node.info.name;
                    cluster.remarks.extend(remarks.into_iter().map(|r| format!("{name}: {r}")));
                    Some(cluster.add(Profile::new(target, stack), name))
                }
                Err(error) => {
                    cluster.remarks.push(format!("{}: {}", node.info.name, error.message));
                    None
                }
            };
            known.push((said, profile));
            cluster.profile_of.push(profile);
        }
        for target in pools {
            let labels = target.host.labels.clone();
            let count = target.host.count.and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
            let name = target.name.clone();
            let profile = cluster.add(Profile::new(target.clone(), stack), &name);
            cluster.pools.push(Pool { profile, labels, count });
        }
        cluster.nodes = nodes;
        cluster
    }

    fn add(&mut self, mut profile: Profile, of: &str) -> usize {
        if let Some(known) =
            self.profiles.iter().position(|p| p.key == profile.key && p.name() == profile.name())
        {
            return known;
        }
        if self.profiles.iter().any(|p| p.name() == profile.name()) {
            profile.target.name = format!("{} ({of})", profile.target.name);
        }
        self.profiles.push(Arc::new(profile));
        self.profiles.len() - 1
    }

    /// The nodes that a pod may land on, by profile; where there is none, the pools.
    pub fn candidates(&self, placement: &Placement) -> Candidates {
        self.select(
            |node| placement.allows(&node.info),
            |pool| {
                let info = NodeInfo {
                    // What a pool will have is declared by naming it.
                    resources: placement.resources.clone(),
                    labels: pool.labels.clone(),
                    ..NodeInfo::default()
                };
                let anywhere = Placement { node_name: None, ..placement.clone() };
                pool.labels.is_empty() || anywhere.allows(&info)
            },
        )
    }

    /// Everything with a GPU, wherever the pod may go.
    pub fn everywhere(&self) -> Candidates {
        self.select(|_| true, |_| true)
    }

    fn select(&self, node_fits: impl Fn(&Node) -> bool, pool_fits: impl Fn(&Pool) -> bool) -> Candidates {
        let mut of_profile: Vec<Vec<usize>> = vec![Vec::new(); self.profiles.len()];
        let mut out = Candidates::default();
        for (at, (node, profile)) in self.nodes.iter().zip(&self.profile_of).enumerate() {
            if node.gpu == NodeGpu::None || !node_fits(node) {
                continue;
            }
            match profile.and_then(|p| of_profile.get_mut(p)) {
                Some(nodes) => nodes.push(at),
                None => out.unlabelled.push(node.info.name.clone()),
            }
        }
        for (profile, nodes) in self.profiles.iter().zip(of_profile) {
            if !nodes.is_empty() {
                out.rows.push(Candidate { profile: Arc::clone(profile), count: nodes.len(), nodes });
            }
        }
        if out.rows.is_empty() && out.unlabelled.is_empty() {
            for pool in self.pools.iter().filter(|pool| pool_fits(pool)) {
                let Some(profile) = self.profiles.get(pool.profile) else { continue };
                out.from_pools = true;
                out.rows.push(Candidate {
                    profile: Arc::clone(profile),
                    nodes: Vec::new(),
                    count: pool.count,
                });
            }
        }
        out
    }
}

impl Candidates {
    /// About how much memory it takes, bytes.
    pub fn bytes(&self) -> u32 {
        const OF_ROW: usize = 128;
        let rows: usize = self.rows.iter().map(|row| OF_ROW + row.nodes.len() * size_of::<usize>()).sum();
        let names: usize = self.unlabelled.iter().map(|name| name.len() + size_of::<String>()).sum();
        u32::try_from(OF_ROW * 2 + rows + names).unwrap_or(u32::MAX)
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.unlabelled.is_empty()
    }

    pub fn count(&self) -> usize {
        self.rows.iter().map(|r| r.count).sum::<usize>() + self.unlabelled.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cluster(pools: &str) -> Cluster {
        let catalog = Catalog::built_in().unwrap();
        let items = nodes::items(include_str!("../../fixtures/hosts/nodes.json")).unwrap();
        let nodes = items.iter().map(|v| Node::read(v).unwrap()).collect();
        let pools =
            if pools.is_empty() { Vec::new() } else { fleet::read(pools, false, &catalog).unwrap().targets };
        Cluster::new(nodes, &pools, &Host::default(), &catalog)
    }

    fn gpu(selector: &[(&str, &str)]) -> Placement {
        Placement {
            selector: selector.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            resources: BTreeMap::from([("nvidia.com/gpu".to_owned(), 1)]),
            ..Placement::default()
        }
    }

    #[test]
    fn a_pod_lands_on_nodes_that_have_what_it_asks_for() {
        let cluster = cluster("");
        let t4 = cluster.candidates(&gpu(&[("nvidia.com/gpu.product", "Tesla-T4")]));
        assert_eq!(t4.rows.len(), 1);
        assert_eq!(t4.rows[0].profile.target.driver.as_ref().unwrap().text, "550.107.02");
        assert!(cluster.candidates(&gpu(&[("nvidia.com/gpu.product", "None")])).is_empty());
        assert!(cluster.everywhere().rows.len() > 3);
    }

    #[test]
    fn pools_stand_in_where_no_node_fits() {
        let pools = "[[target]]\nname = \"b200\"\ndriver = \"580\"\ngpus = [\"b200\"]\nlabels = { pool = \"b200\" }\n\
                     [[target]]\nname = \"old\"\ndriver = \"470\"\ngpus = [\"t4\"]\nlabels = { pool = \"old\" }\n";
        let cluster = cluster(pools);
        let found = cluster.candidates(&gpu(&[("pool", "b200")]));
        assert!(found.from_pools);
        assert_eq!(found.rows.len(), 1);
        assert_eq!(found.rows[0].profile.name(), "b200");
        assert!(!cluster.candidates(&gpu(&[])).from_pools);
    }

    #[test]
    fn a_node_whose_gpu_nobody_labelled_is_a_doubt() {
        let value = json!({"metadata": {"name": "n", "labels": {}},
            "status": {"allocatable": {"nvidia.com/gpu": "4"}, "capacity": {"nvidia.com/gpu": "4"}}});
        let node = Node::read(&value).unwrap();
        assert_eq!(node.gpu, NodeGpu::Unlabelled);
        let cluster = Cluster::new(vec![node], &[], &Host::default(), &Catalog::built_in().unwrap());
        assert_eq!(cluster.candidates(&gpu(&[])).unlabelled, ["n"]);
    }
}
