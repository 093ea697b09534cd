//! Where a pod may land: node selector, required node affinity, taints and tolerations, resources, by the semantics of the
//! Kubernetes scheduler (component-helpers, scheduling/corev1). Free capacity is left out: it changes all the time.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What of a node decides whether a pod may land on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeInfo {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    /// GPU resources that it lists, with how many there are; `u64::MAX` where it counts none at the moment.
    pub resources: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

/// The scheduling side of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Placement {
    pub node_name: Option<String>,
    pub selector: BTreeMap<String, String>,
    /// Terms of which one must hold; `None`: nothing is required.
    pub required: Option<Vec<Term>>,
    pub tolerations: Vec<Toleration>,
    /// GPU resources, with how many of each the node must have.
    pub resources: BTreeMap<String, u64>,
}

/// Conditions that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Term {
    pub expressions: Vec<Requirement>,
    /// On fields of the node; there is only `metadata.name`.
    pub fields: Vec<Requirement>,
}

/// One condition on a label, as node affinity writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Requirement {
    pub key: String,
    pub operator: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Toleration {
    pub key: Option<String>,
    /// `Equal` where it is empty.
    pub operator: String,
    pub value: String,
    pub effect: Option<String>,
}

/// Taints with this beginning come and go with the state of the node: it may be well again before the pod is placed.
const PASSING_TAINTS: &str = "node.kubernetes.io/";

impl Placement {
    /// Whether the pod may land on a node, now or when its state has passed.
    pub fn allows(&self, node: &NodeInfo) -> bool {
        if let Some(name) = &self.node_name
            && *name != node.name
        {
            return false;
        }
        self.selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
            && self.required.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(node)))
            // Who names a node goes past the scheduler, and only NoExecute is still heeded there.
            && node.taints.iter().all(|t| self.tolerates(t))
            && self.has_resources(node)
    }

    /// A node that lists no GPU resource at all may give its GPUs by Dynamic Resource Allocation, for the same requests.
    fn has_resources(&self, node: &NodeInfo) -> bool {
        let enough =
            |(name, count): (&String, &u64)| node.resources.get(name).is_some_and(|have| have >= count);
        node.resources.is_empty() || self.resources.iter().all(enough)
    }

    fn tolerates(&self, taint: &Taint) -> bool {
        let hard = match self.node_name {
            Some(_) => taint.effect == "NoExecute",
            None => matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"),
        };
        !hard
            || taint.key.starts_with(PASSING_TAINTS)
            || self.tolerations.iter().any(|toleration| toleration.tolerates(taint))
    }
}

impl Toleration {
    fn tolerates(&self, taint: &Taint) -> bool {
        let effect = self.effect.as_ref().is_none_or(|effect| *effect == taint.effect);
        let key = match &self.key {
            None => self.operator == "Exists",
            Some(key) => *key == taint.key,
        };
        let numbers = || Some((taint.value.parse::<i64>().ok()?, self.value.parse::<i64>().ok()?));
        let value = match self.operator.as_str() {
            "" | "Equal" => self.value == taint.value,
            "Exists" => true,
            "Gt" => numbers().is_some_and(|(taint, own)| taint > own),
            "Lt" => numbers().is_some_and(|(taint, own)| taint < own),
            _ => false,
        };
        effect && key && value
    }
}

impl Term {
    /// An empty term matches nothing.
    fn matches(&self, node: &NodeInfo) -> bool {
        if self.expressions.is_empty() && self.fields.is_empty() {
            return false;
        }
        let by_field = |r: &Requirement| match r.key.as_str() {
            "metadata.name" => r.holds(Some(&node.name)),
            _ => false,
        };
        self.fields.iter().all(by_field) && self.expressions.iter().all(|r| r.matches(&node.labels))
    }
}

impl Requirement {
    pub fn new(key: &str, operator: &str, values: impl IntoIterator<Item = String>) -> Requirement {
        Requirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: values.into_iter().collect(),
        }
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.holds(labels.get(&self.key))
    }

    fn holds(&self, value: Option<&String>) -> bool {
        let compared = |above: bool| {
            let number = |text: Option<&String>| text.and_then(|t| t.parse::<i64>().ok());
            let one = (self.values.len() == 1).then(|| self.values.first()).flatten();
            match (number(value), number(one)) {
                (Some(value), Some(limit)) => {
                    if above {
                        value > limit
                    } else {
                        value < limit
                    }
                }
                _ => false,
            }
        };
        match self.operator.as_str() {
            "In" => value.is_some_and(|v| self.values.contains(v)),
            "NotIn" => value.is_none_or(|v| !self.values.contains(v)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => compared(true),
            "Lt" => compared(false),
            _ => false,
        }
    }
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.key, self.operator, self.values.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(labels: &[(&str, &str)], taints: &[(&str, &str, &str)]) -> NodeInfo {
        let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        NodeInfo {
            name: "n1".into(),
            labels: labels.iter().map(owned).collect(),
            taints: taints
                .iter()
                .map(|(key, value, effect)| Taint {
                    key: (*key).into(),
                    value: (*value).into(),
                    effect: (*effect).into(),
                })
                .collect(),
            resources: BTreeMap::from([("nvidia.com/gpu".to_owned(), 8)]),
        }
    }

    fn asks(key: &str, operator: &str, values: &[&str]) -> Placement {
        let requirement = Requirement::new(key, operator, values.iter().map(|v| (*v).to_owned()));
        let term = Term { expressions: vec![requirement], fields: Vec::new() };
        Placement { required: Some(vec![term]), ..Placement::default() }
    }

    #[test]
    fn operators_of_node_affinity() {
        let n = node(&[("driver", "535"), ("gpu", "H100")], &[]);
        for (key, operator, values, expected) in [
            ("gpu", "In", &["H100", "A100"][..], true),
            ("gpu", "NotIn", &["H100"], false),
            ("absent", "NotIn", &["x"], true),
            ("gpu", "Exists", &[], true),
            ("absent", "DoesNotExist", &[], true),
            ("driver", "Gt", &["534"], true),
            ("driver", "Gt", &["535"], false),
            ("driver", "Lt", &["536"], true),
            ("gpu", "Gt", &["1"], false),
            ("driver", "Gt", &["1", "2"], false),
            ("driver", "Near", &["535"], false),
        ] {
            assert_eq!(asks(key, operator, values).allows(&n), expected, "{key} {operator} {values:?}");
        }
        let nothing = Placement { required: Some(vec![Term::default()]), ..Placement::default() };
        assert!(!nothing.allows(&n), "an empty term matches nothing");
        let no_terms = Placement { required: Some(Vec::new()), ..Placement::default() };
        assert!(!no_terms.allows(&n));
        let by_name = |name: &str| Placement {
            required: Some(vec![Term {
                expressions: Vec::new(),
                fields: vec![Requirement::new("metadata.name", "In", [name.to_owned()])],
            }]),
            ..Placement::default()
        };
        assert!(by_name("n1").allows(&n) && !by_name("n2").allows(&n));
    }

    #[test]
    fn taints_keep_off_whoever_does_not_tolerate_them() {
        let tainted = node(&[], &[("nvidia.com/gpu", "present", "NoSchedule")]);
        let with = |toleration| Placement { tolerations: vec![toleration], ..Placement::default() };
        let of = |key: Option<&str>, exists, value: &str, effect: Option<&str>| Toleration {
            key: key.map(str::to_owned),
            operator: if exists { "Exists" } else { "" }.to_owned(),
            value: value.to_owned(),
            effect: effect.map(str::to_owned),
        };
        assert!(!Placement::default().allows(&tainted));
        assert!(with(of(Some("nvidia.com/gpu"), true, "", None)).allows(&tainted));
        assert!(with(of(None, true, "", None)).allows(&tainted));
        assert!(with(of(Some("nvidia.com/gpu"), false, "present", Some("NoSchedule"))).allows(&tainted));
        assert!(!with(of(Some("nvidia.com/gpu"), false, "other", None)).allows(&tainted));
        assert!(!with(of(Some("nvidia.com/gpu"), true, "", Some("NoExecute"))).allows(&tainted));
        assert!(Placement::default().allows(&node(&[], &[("a", "", "PreferNoSchedule")])));
        assert!(
            Placement::default()
                .allows(&node(&[], &[("node.kubernetes.io/unschedulable", "", "NoSchedule")])),
            "a cordoned node comes back"
        );
        let named = Placement { node_name: Some("n1".into()), ..Placement::default() };
        assert!(named.allows(&tainted), "a named node is not scheduled for");
    }

    #[test]
    fn a_node_must_have_the_resource_at_all() {
        let wants = |name: &str, n| Placement {
            resources: BTreeMap::from([(name.to_owned(), n)]),
            ..Placement::default()
        };
        let n = node(&[], &[]);
        assert!(wants("nvidia.com/gpu", 8).allows(&n));
        assert!(!wants("nvidia.com/gpu", 9).allows(&n));
        assert!(!wants("nvidia.com/mig-1g.5gb", 1).allows(&n));
    }
}
