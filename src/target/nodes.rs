//! `kubectl get nodes -o json` -> what each GPU node says of itself, by the labels of GPU Feature Discovery.

use super::TargetError;
use super::outputs::{Platform, Said, SaidGpu};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What a node says, or why it is left out.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub said: Result<Said, LeftOut>,
    /// Something of the node that its labels cannot tell.
    pub doubt: Option<String>,
}

/// Why a node is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// It has no GPU.
    NoGpu,
    /// It has a GPU, and GPU Feature Discovery has not labelled it.
    NoLabels,
    /// Nothing is scheduled on it.
    Cordoned,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default)]
    unschedulable: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    capacity: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    node_info: NodeInfo,
}

#[derive(Default, Deserialize)]
struct NodeInfo {
    #[serde(default)]
    architecture: String,
}

/// Every node, in the order of the document. `cordoned`: take those too on which nothing is scheduled.
pub fn read(text: &str, cordoned: bool) -> Result<Vec<Node>, TargetError> {
    let wrong = |e: &serde_json::Error| {
        let hint = "write it with `kubectl get nodes -o json`".to_owned();
        TargetError::new(format!("it is no list of Kubernetes nodes: {e}"), hint)
    };
    items(text)?.into_iter().map(|item| of_value(item, cordoned).map_err(|e| wrong(&e))).collect()
}

/// The nodes of a document, unread: one node alone is no list.
pub fn items(text: &str) -> Result<Vec<serde_json::Value>, TargetError> {
    let hint = || "write it with `kubectl get nodes -o json`".to_owned();
    let wrong = |e: &str| TargetError::new(format!("it is no list of Kubernetes nodes: {e}"), hint());
    let mut value: serde_json::Value = serde_json::from_str(text).map_err(|e| wrong(&e.to_string()))?;
    let items = match value.get_mut("items").map(serde_json::Value::take) {
        Some(serde_json::Value::Array(items)) => items,
        Some(_) => return Err(wrong("its items are no list")),
        None => vec![value],
    };
    let kind = |item: &serde_json::Value| {
        item.get("kind").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    if let Some(other) = items.iter().map(kind).find(|kind| !matches!(kind.as_str(), "" | "Node")) {
        return Err(TargetError::new(format!("it lists objects of kind {other}, not nodes"), hint()));
    }
    Ok(items)
}

/// One node as the Kubernetes API gives it.
pub fn of_value(value: serde_json::Value, cordoned: bool) -> Result<Node, serde_json::Error> {
    Ok(node(serde_json::from_value(value)?, cordoned))
}

fn node(item: Item, cordoned: bool) -> Node {
    let labels = Labels(&item.metadata.labels);
    let product = labels.get("gpu.product");
    let driver = labels.driver();
    let said = if driver.is_none() && product.is_none() {
        let resource = |k: &String| k.starts_with("nvidia.com/gpu") || k.starts_with("nvidia.com/mig-");
        let has_gpu = labels.get("gpu.present") == Some("true") || item.status.capacity.keys().any(resource);
        Err(if has_gpu { LeftOut::NoLabels } else { LeftOut::NoGpu })
    } else if item.spec.unschedulable && !cordoned {
        Err(LeftOut::Cordoned)
    } else {
        let gpu = product.map(|product| gpu(product, &labels));
        let tegra = gpu.as_ref().is_some_and(|g| g.name.ends_with("(nvgpu)"));
        Ok(Said {
            driver,
            cuda: labels
                .pair("cuda.runtime-version.major", "cuda.runtime-version.minor")
                .or_else(|| labels.pair("cuda.runtime.major", "cuda.runtime.minor")),
            gpus: gpu.into_iter().collect(),
            kernel_module: None,
            arch: Some(item.status.node_info.architecture.clone())
                .filter(|a| !a.is_empty())
                .or_else(|| labels.0.get("kubernetes.io/arch").cloned()),
            platform: tegra.then_some(Platform::Tegra),
        })
    };
    Node { doubt: doubt(&item, &labels), name: item.metadata.name, said }
}

/// The labels tell of one product per node, whatever else stands in it.
fn doubt(item: &Item, labels: &Labels<'_>) -> Option<String> {
    let number = |text: &str| text.parse::<u64>().ok();
    let counted = labels.get("gpu.count").and_then(number)?;
    let replicas = labels.get("gpu.replicas").and_then(number).unwrap_or(1).max(1);
    let held = match item.status.capacity.get("nvidia.com/gpu")? {
        serde_json::Value::String(text) => number(text)?,
        other => other.as_u64()?,
    };
    (held > counted.saturating_mul(replicas))
        .then(|| format!("it has {held} GPUs and the labels tell of {counted}: other products may be in it"))
}

/// `NVIDIA-H100-80GB-HBM3`, `NVIDIA-A100-SXM4-40GB-MIG-1g.5gb`, `NVIDIA-GeForce-RTX-4090-SHARED`.
fn gpu(product: &str, labels: &Labels<'_>) -> SaidGpu {
    let bare = product.strip_suffix("-SHARED").unwrap_or(product);
    let (name, mig) = match bare.split_once("-MIG-") {
        Some((name, profile)) => (name, vec![profile.to_owned()]),
        None => (bare, Vec::new()),
    };
    let cc = labels.pair("gpu.compute.major", "gpu.compute.minor");
    SaidGpu { name: name.replace('-', " "), cc, mig, ..SaidGpu::default() }
}

struct Labels<'l>(&'l BTreeMap<String, String>);

impl Labels<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(&format!("nvidia.com/{name}")).map(String::as_str).filter(|v| !v.is_empty())
    }

    fn pair(&self, major: &str, minor: &str) -> Option<String> {
        Some(format!("{}.{}", self.get(major)?, self.get(minor)?))
    }

    /// The labels of today, or those before them; versions of two parts have no last one.
    fn driver(&self) -> Option<String> {
        if let Some(full) = self.get("cuda.driver-version.full") {
            return Some(full.to_owned());
        }
        let of = |major: &str, minor: &str, last: &str| {
            let front = self.pair(major, minor)?;
            Some(self.get(last).map_or(front.clone(), |last| format!("{front}.{last}")))
        };
        of("cuda.driver-version.major", "cuda.driver-version.minor", "cuda.driver-version.revision")
            .or_else(|| of("cuda.driver.major", "cuda.driver.minor", "cuda.driver.rev"))
    }
}
