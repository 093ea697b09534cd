//! An object of Kubernetes (a pod, or whatever makes pods) -> its containers, what they start and who of them asks for a GPU.
//!
//! Field names and meanings: Kubernetes API reference, core/v1 PodSpec; resources by NVIDIA's device plugin and DRA driver.

use super::scheduling::{Placement, Requirement, Term, Toleration};
use crate::limits;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// A container whose image may be judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    pub name: String,
    pub role: Role,
    pub image: String,
    pub overrides: Overrides,
    /// Why it will see a GPU; `None`: it asks for none.
    pub asks: Option<Ask>,
    /// Claims of Dynamic Resource Allocation, by their names in the pod.
    pub claims: Vec<String>,
    /// Settings whose values are not in the pod: from ConfigMaps, Secrets, fields.
    pub unseen: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Main,
    Init,
    /// An init container that keeps running.
    Sidecar,
    Ephemeral,
}

/// How a container comes to a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `nvidia.com/gpu` and its kin.
    Resource(String),
    /// A claim of Dynamic Resource Allocation, by its name in the pod.
    Claim(String),
    /// The image's or pod's `NVIDIA_VISIBLE_DEVICES` under the NVIDIA runtime.
    Runtime,
    /// A CDI device named by an annotation.
    Annotation,
}

impl Ask {
    pub fn describe(&self) -> String {
        match self {
            Ask::Resource(name) => name.clone(),
            Ask::Claim(name) => format!("resource claim {name}"),
            Ask::Runtime => "the NVIDIA runtime".to_owned(),
            Ask::Annotation => "a CDI annotation".to_owned(),
        }
    }
}

/// What the pod says in place of the image's config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Overrides {
    /// In place of ENTRYPOINT; drops CMD.
    pub command: Option<Vec<String>>,
    /// In place of CMD.
    pub args: Option<Vec<String>>,
    pub env: Vec<(String, String)>,
}

/// A claim of the pod and where it is defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub name: String,
    /// Name of the ResourceClaim, or of the template.
    pub object: ClaimObject,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimObject {
    Claim(String),
    Template(String),
}

/// What a pod, or the template of one, says.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    pub containers: Vec<Container>,
    pub placement: Placement,
    pub claims: Vec<Claim>,
}

/// Where the pod spec stands in an object of that kind.
fn path(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            Some("/spec/template")
        }
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        "PodTemplate" => Some("/template"),
        _ => None,
    }
}

/// The pod of an object; `None` for kinds that make none, or whose shape is not known.
pub fn of(kind: &str, object: &Value) -> Option<Result<Pod, String>> {
    let at = path(kind)?;
    let pod = object.pointer(at)?;
    let Some(spec) = pod.get("spec").filter(|s| !s.is_null()) else {
        return Some(Err(format!("{kind} has no {at}/spec")));
    };
    let parsed = SpecJson::deserialize(spec).map_err(|e| format!("{kind}{at}/spec: {e}"));
    let annotations = pod.pointer("/metadata/annotations").cloned().unwrap_or_default();
    Some(parsed.map(|spec| spec.pod(&annotations)))
}

impl Pod {
    /// Leaves out what stood so in the object before: it was judged when it came.
    pub fn without_unchanged(&mut self, old: &Pod) {
        // A pod that is bound to a node goes nowhere else, whatever else changes.
        let stays = old.placement.node_name.is_some() && self.placement.node_name == old.placement.node_name;
        if stays || self.placement == old.placement {
            self.containers.retain(|c| !old.containers.contains(c));
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct SpecJson {
    #[serde(deserialize_with = "or_empty")]
    containers: Vec<ContainerJson>,
    #[serde(deserialize_with = "or_empty")]
    init_containers: Vec<ContainerJson>,
    #[serde(deserialize_with = "or_empty")]
    ephemeral_containers: Vec<ContainerJson>,
    node_name: Option<String>,
    #[serde(deserialize_with = "or_empty")]
    node_selector: BTreeMap<String, String>,
    affinity: Option<AffinityJson>,
    #[serde(deserialize_with = "or_empty")]
    tolerations: Vec<TolerationJson>,
    runtime_class_name: Option<String>,
    #[serde(deserialize_with = "or_empty")]
    resource_claims: Vec<ClaimJson>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ContainerJson {
    name: String,
    image: Option<String>,
    command: Option<Vec<String>>,
    args: Option<Vec<String>>,
    #[serde(deserialize_with = "or_empty")]
    env: Vec<EnvJson>,
    #[serde(deserialize_with = "or_empty")]
    env_from: Vec<Value>,
    #[serde(deserialize_with = "or_empty")]
    resources: ResourcesJson,
    restart_policy: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct EnvJson {
    name: String,
    value: Option<String>,
    value_from: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResourcesJson {
    #[serde(deserialize_with = "or_empty")]
    limits: BTreeMap<String, Value>,
    #[serde(deserialize_with = "or_empty")]
    requests: BTreeMap<String, Value>,
    #[serde(deserialize_with = "or_empty")]
    claims: Vec<NamedJson>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NamedJson {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ClaimJson {
    name: String,
    resource_claim_name: Option<String>,
    resource_claim_template_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AffinityJson {
    node_affinity: Option<NodeAffinityJson>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct NodeAffinityJson {
    required_during_scheduling_ignored_during_execution: Option<SelectorJson>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SelectorJson {
    #[serde(deserialize_with = "or_empty")]
    node_selector_terms: Vec<TermJson>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct TermJson {
    #[serde(deserialize_with = "or_empty")]
    match_expressions: Vec<Requirement>,
    #[serde(deserialize_with = "or_empty")]
    match_fields: Vec<Requirement>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TolerationJson {
    key: Option<String>,
    operator: Option<String>,
    value: Option<String>,
    effect: Option<String>,
}

/// `null` stands for nothing where Go wrote an empty list.
fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Resources of NVIDIA's device plugin: whole GPUs, shared ones, MIG slices; and those of its device classes.
pub fn is_gpu_resource(name: &str) -> bool {
    if let Some(class) = name.strip_prefix("deviceclass.resource.kubernetes.io/") {
        return matches!(class, "gpu.nvidia.com" | "mig.nvidia.com");
    }
    let Some(kind) = name.strip_prefix("nvidia.com/") else { return false };
    kind == "gpu" || kind.starts_with("gpu.") || kind.starts_with("mig-") || kind == "pgpu"
}

/// A quantity of whole things; what is no such number counts as one, since something is asked for.
pub(super) fn quantity(value: &Value) -> u64 {
    match value {
        Value::Number(number) => number.as_u64().unwrap_or(1),
        Value::String(text) => match text.strip_suffix('k') {
            Some(thousands) => thousands.parse::<u64>().map_or(1, |n| n.saturating_mul(1000)),
            None => text.parse().unwrap_or(1),
        },
        _ => 0,
    }
}

impl ResourcesJson {
    /// GPU resources that are asked for, with their number.
    fn gpus(&self) -> BTreeMap<String, u64> {
        let mut out = BTreeMap::new();
        for (name, value) in self.requests.iter().chain(&self.limits) {
            if is_gpu_resource(name) && quantity(value) > 0 {
                out.insert(name.clone(), quantity(value));
            }
        }
        out
    }
}

impl SpecJson {
    fn pod(self, annotations: &Value) -> Pod {
        let by_annotation = annotations.as_object().is_some_and(|all| {
            let names_gpu = |v: &Value| v.as_str().is_some_and(|v| v.contains("nvidia.com/"));
            all.iter().any(|(key, value)| key.starts_with("cdi.k8s.io/") && names_gpu(value))
        });
        let class = self.runtime_class_name.as_deref().unwrap_or_default();
        let pod = InPod { by_annotation, by_class: class == "nvidia" || class.starts_with("nvidia-") };
        let mut resources: BTreeMap<String, u64> = BTreeMap::new();
        let (mut together, mut alone): (BTreeMap<String, u64>, BTreeMap<String, u64>) = Default::default();
        for (list, is_init) in [(&self.containers, false), (&self.init_containers, true)] {
            for container in list {
                let at_once = !is_init || container.restart_policy.as_deref() == Some("Always");
                for (name, count) in container.resources.gpus() {
                    let so_far = if at_once { &mut together } else { &mut alone }.entry(name).or_default();
                    *so_far = if at_once { so_far.saturating_add(count) } else { (*so_far).max(count) };
                }
            }
        }
        for (name, count) in together.into_iter().chain(alone) {
            let known = resources.entry(name).or_default();
            *known = (*known).max(count);
        }
        let claims = self.resource_claims.iter().filter_map(|claim| {
            let object = match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
                (Some(name), _) => ClaimObject::Claim(name.clone()),
                (None, Some(name)) => ClaimObject::Template(name.clone()),
                (None, None) => return None,
            };
            Some(Claim { name: claim.name.clone(), object })
        });
        let claims = claims.collect();
        let lists = [
            (self.init_containers, Role::Init),
            (self.containers, Role::Main),
            (self.ephemeral_containers, Role::Ephemeral),
        ];
        let containers = lists
            .into_iter()
            .flat_map(|(list, role)| list.into_iter().map(move |c| (c, role)))
            .filter_map(|(container, role)| container.read(role, &pod))
            .collect();
        let required = self
            .affinity
            .and_then(|a| a.node_affinity)
            .and_then(|a| a.required_during_scheduling_ignored_during_execution)
            .map(|selector| selector.node_selector_terms.into_iter().map(TermJson::read).collect());
        let placement = Placement {
            node_name: self.node_name.filter(|name| !name.is_empty()),
            selector: self.node_selector,
            required,
            tolerations: self.tolerations.into_iter().map(TolerationJson::read).collect(),
            resources,
        };
        Pod { containers, placement, claims }
    }
}

/// What the pod says for all of its containers.
struct InPod {
    by_annotation: bool,
    by_class: bool,
}

impl ContainerJson {
    /// `None` where somebody else will fill in the image.
    fn read(self, role: Role, pod: &InPod) -> Option<Container> {
        let image = self.image.map(|i| i.trim().to_owned()).filter(|i| !i.is_empty())?;
        let role = match (role, self.restart_policy.as_deref()) {
            (Role::Init, Some("Always")) => Role::Sidecar,
            (role, _) => role,
        };
        let (env, mut unseen) = variables(self.env);
        if !self.env_from.is_empty() {
            unseen.push("envFrom".to_owned());
        }
        let visible = env.iter().find(|(name, _)| name == "NVIDIA_VISIBLE_DEVICES").map(|(_, v)| v.as_str());
        let hidden = matches!(visible, Some("" | "void" | "none"));
        let gpus = self.resources.gpus();
        let claims: Vec<String> = self.resources.claims.into_iter().map(|c| c.name).collect();
        let asks = if let Some(name) = gpus.into_keys().next() {
            Some(Ask::Resource(name))
        } else if pod.by_annotation {
            Some(Ask::Annotation)
        } else if !hidden && (pod.by_class || visible.is_some()) {
            Some(Ask::Runtime)
        } else {
            claims.first().cloned().map(Ask::Claim)
        };
        let overrides = Overrides {
            command: self.command.filter(|c| !c.is_empty()),
            args: self.args.filter(|a| !a.is_empty()),
            env,
        };
        Some(Container { name: self.name, role, image, overrides, asks, claims, unseen })
    }
}

/// Variables with their values, and the names of those whose values are not in the pod or too long to write out.
fn variables(list: Vec<EnvJson>) -> (Vec<(String, String)>, Vec<String>) {
    let mut env: Vec<(String, String)> = Vec::new();
    let mut place: HashMap<String, usize> = HashMap::new();
    let mut unseen: Vec<String> = Vec::new();
    let mut left = limits::POD_VARIABLES_BYTES_MAX;
    for variable in list {
        let known = |name: &str| place.get(name).and_then(|&at| env.get(at)).map(|(_, value)| value.as_str());
        let value = match variable.value_from {
            None => expanded(&variable.value.unwrap_or_default(), known, left),
            Some(_) => None,
        };
        let Some(value) = value else {
            unseen.push(variable.name);
            continue;
        };
        left = left.saturating_sub(value.len());
        // Of two with one name the later counts.
        if let Some(earlier) = place.get(&variable.name).and_then(|&at| env.get_mut(at)) {
            earlier.1 = value;
        } else {
            place.insert(variable.name.clone(), env.len());
            env.push((variable.name, value));
        }
    }
    (env, unseen)
}

/// `$(NAME)` of variables that stand before, as the kubelet writes them out; `$$` is a dollar. `None` beyond `max` bytes.
fn expanded<'k>(value: &str, before: impl Fn(&str) -> Option<&'k str>, max: usize) -> Option<String> {
    let mut out = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(behind) = rest.strip_prefix("$$") {
            out.push('$');
            rest = behind;
            continue;
        }
        let name = rest.strip_prefix("$(").and_then(|r| r.split_once(')'));
        let known = name.and_then(|(name, behind)| Some((before(name)?, behind)));
        if let Some((known, behind)) = known {
            out.push_str(known);
            rest = behind;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
        if out.len() > max {
            return None;
        }
    }
    out.push_str(rest);
    (out.len() <= max).then_some(out)
}

impl TermJson {
    fn read(self) -> Term {
        Term { expressions: self.match_expressions, fields: self.match_fields }
    }
}

impl TolerationJson {
    fn read(self) -> Toleration {
        let set = |text: Option<String>| text.filter(|t| !t.is_empty());
        Toleration {
            key: set(self.key),
            operator: self.operator.unwrap_or_default(),
            value: self.value.unwrap_or_default(),
            effect: set(self.effect),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: &Value) -> Pod {
        of("Pod", &json!({"metadata": {}, "spec": spec})).unwrap().unwrap()
    }

    #[test]
    fn every_kind_has_its_pod_spec_where_the_api_puts_it() {
        let spec = json!({"containers": [{"name": "c", "image": "a:1"}]});
        let template = json!({"spec": spec});
        for kind in ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"] {
            let object = json!({"kind": kind, "spec": {"template": template}});
            assert_eq!(of(kind, &object).unwrap().unwrap().containers[0].image, "a:1", "{kind}");
        }
        let cron = json!({"spec": {"jobTemplate": {"spec": {"template": template}}}});
        assert_eq!(of("CronJob", &cron).unwrap().unwrap().containers.len(), 1);
        assert_eq!(of("PodTemplate", &json!({"template": template})).unwrap().unwrap().containers.len(), 1);
        assert!(of("ConfigMap", &json!({})).is_none());
        assert!(of("Pod", &json!({"metadata": {}})).unwrap().is_err());
        assert!(of("Pod", &json!({"spec": {"containers": "none"}})).unwrap().is_err());
    }

    #[test]
    fn whoever_gets_a_gpu_asks_for_one() {
        let asks = |spec: Value| pod(&spec).containers[0].asks.clone();
        let with =
            |resources: Value| json!({"containers": [{"name": "c", "image": "a", "resources": resources}]});
        assert_eq!(
            asks(with(json!({"limits": {"nvidia.com/gpu": "1"}}))),
            Some(Ask::Resource("nvidia.com/gpu".into()))
        );
        assert_eq!(asks(with(json!({"limits": {"nvidia.com/gpu": 0}}))), None);
        assert_eq!(
            asks(with(json!({"limits": {"nvidia.com/mig-1g.10gb": 1, "cpu": "500m"}}))),
            Some(Ask::Resource("nvidia.com/mig-1g.10gb".into()))
        );
        assert_eq!(asks(with(json!({"claims": [{"name": "g"}]}))), Some(Ask::Claim("g".into())));
        assert_eq!(asks(with(json!({"limits": {"amd.com/gpu": 1}}))), None);
        assert_eq!(
            asks(json!({"runtimeClassName": "nvidia", "containers": [{"name": "c", "image": "a"}]})),
            Some(Ask::Runtime)
        );
        let void = json!([{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]);
        assert_eq!(
            asks(
                json!({"runtimeClassName": "nvidia", "containers": [{"name": "c", "image": "a", "env": void}]})
            ),
            None
        );
        let cdi = json!({"metadata": {"annotations": {"cdi.k8s.io/x": "nvidia.com/gpu=0"}},
            "spec": {"containers": [{"name": "c", "image": "a"}]}});
        assert_eq!(of("Pod", &cdi).unwrap().unwrap().containers[0].asks, Some(Ask::Annotation));
    }

    #[test]
    fn a_node_needs_what_runs_at_once_or_the_largest_init_container() {
        let gpu = |n: u64| json!({"limits": {"nvidia.com/gpu": n}});
        let spec = json!({
            "containers": [{"name": "a", "image": "a", "resources": gpu(2)}, {"name": "b", "image": "b", "resources": gpu(1)}],
            "initContainers": [{"name": "i", "image": "i", "resources": gpu(5)},
                               {"name": "s", "image": "s", "restartPolicy": "Always", "resources": gpu(1)}]});
        let read = pod(&spec);
        assert_eq!(read.placement.resources["nvidia.com/gpu"], 5);
        let roles: Vec<Role> = read.containers.iter().map(|c| c.role).collect();
        assert_eq!(roles, [Role::Init, Role::Sidecar, Role::Main, Role::Main]);
    }

    #[test]
    fn variables_are_written_out_as_the_kubelet_does() {
        let env = json!([{"name": "A", "value": "x"}, {"name": "B", "value": "$(A)/$$(A)/$(C)/$"},
                         {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]);
        let read = pod(&json!({"containers": [{"name": "c", "image": "a", "env": env, "envFrom": [{}]}]}));
        assert_eq!(read.containers[0].overrides.env[1].1, "x/$(A)/$(C)/$");
        assert_eq!(read.containers[0].unseen, ["S", "envFrom"]);
    }

    #[test]
    fn variables_that_grow_by_each_other_are_left_out() {
        let mut env = vec![json!({"name": "V0", "value": "lol"})];
        for n in 1..12 {
            env.push(json!({"name": format!("V{n}"), "value": format!("$(V{})", n - 1).repeat(10)}));
        }
        let read = pod(&json!({"containers": [{"name": "c", "image": "a", "env": env}]}));
        let bytes: usize = read.containers[0].overrides.env.iter().map(|(_, v)| v.len()).sum();
        assert!(bytes <= crate::limits::POD_VARIABLES_BYTES_MAX);
        assert!(!read.containers[0].unseen.is_empty());
    }

    #[test]
    fn an_update_is_judged_for_what_changed() {
        let spec =
            |image: &str| json!({"containers": [{"name": "a", "image": "a"}, {"name": "b", "image": image}]});
        let mut new = pod(&spec("b:2"));
        new.without_unchanged(&pod(&spec("b:1")));
        assert_eq!(new.containers.len(), 1);
        assert_eq!(new.containers[0].image, "b:2");
    }
}
