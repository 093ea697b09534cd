//! Labels of nodes on which an image runs and of others -> the shortest node affinity that keeps the pod on the former.
//! What is proposed is checked against the labels that are there; nothing is proposed that they do not bear out.

use super::scheduling::{NodeInfo, Requirement};
use std::collections::BTreeSet;

const DRIVER_MAJOR: &str = "nvidia.com/cuda.driver-version.major";
const CAPABILITY_MAJOR: &str = "nvidia.com/gpu.compute.major";
const ARCH: &str = "kubernetes.io/arch";
/// Labels that are compared as texts, the most telling first.
const TEXTS: [&str; 6] = [
    ARCH,
    "nvidia.com/gpu.product",
    CAPABILITY_MAJOR,
    DRIVER_MAJOR,
    "nvidia.com/cuda.driver-version.full",
    HOST_NAME,
];
/// Names of single nodes hold until the next one comes: the last resort.
const HOST_NAME: &str = "kubernetes.io/hostname";
/// More values than these nobody wants to read, or to keep up to date.
const VALUES_MAX: usize = 8;

/// Conditions that all of `good` fulfil and none of `bad`; at most two.
pub fn between(good: &[&NodeInfo], bad: &[&NodeInfo]) -> Option<Vec<Requirement>> {
    if good.is_empty() || bad.is_empty() {
        return None;
    }
    let all = requirements(good, bad);
    let keeps = |r: &&Requirement| good.iter().all(|node| r.matches(&node.labels));
    let usable: Vec<&Requirement> = all.iter().filter(keeps).collect();
    let excludes = |r: &[&Requirement]| bad.iter().all(|node| r.iter().any(|one| !one.matches(&node.labels)));
    let by_host = |r: &Requirement| r.key == HOST_NAME;
    if let Some(one) = usable.iter().find(|r| !by_host(r) && excludes(&[r])) {
        return Some(vec![(*one).clone()]);
    }
    let pairs = usable.iter().enumerate().flat_map(|(i, a)| usable.iter().skip(i + 1).map(move |b| [*a, *b]));
    if let Some(pair) = pairs.into_iter().find(|pair| !pair.iter().any(|r| by_host(r)) && excludes(pair)) {
        return Some(pair.into_iter().cloned().collect());
    }
    let host = usable.iter().find(|r| by_host(r) && excludes(&[r]))?;
    Some(vec![(*host).clone()])
}

fn requirements(good: &[&NodeInfo], bad: &[&NodeInfo]) -> Vec<Requirement> {
    let mut out = Vec::new();
    out.extend(by_text(ARCH, good, bad));
    for label in [DRIVER_MAJOR, CAPABILITY_MAJOR] {
        let numbers: Option<Vec<i64>> = good.iter().map(|n| n.labels.get(label)?.parse().ok()).collect();
        let Some(of_good) = numbers else { continue };
        if let Some(lowest) = of_good.iter().min() {
            out.push(Requirement::new(label, "Gt", [lowest.saturating_sub(1).to_string()]));
        }
        // Never an upper bound for drivers: with the next update the pod would fit nowhere.
        if let Some(highest) = of_good.iter().max().filter(|_| label != DRIVER_MAJOR) {
            out.push(Requirement::new(label, "Lt", [highest.saturating_add(1).to_string()]));
        }
    }
    out.extend(TEXTS.into_iter().skip(1).filter_map(|label| by_text(label, good, bad)));
    out
}

fn by_text(label: &str, good: &[&NodeInfo], bad: &[&NodeInfo]) -> Option<Requirement> {
    let values = |nodes: &[&NodeInfo]| -> BTreeSet<String> {
        nodes.iter().filter_map(|n| n.labels.get(label)).cloned().collect()
    };
    let (of_good, of_bad) = (values(good), values(bad));
    let is_driver = label.starts_with("nvidia.com/cuda.driver");
    let complete = good.iter().all(|n| n.labels.contains_key(label));
    if complete && !is_driver && of_good.len() <= VALUES_MAX {
        Some(Requirement::new(label, "In", of_good))
    } else if of_bad.len() <= VALUES_MAX && !of_bad.is_empty() {
        Some(Requirement::new(label, "NotIn", of_bad))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(name: &str, driver: &str, major: &str, product: &str) -> NodeInfo {
        let labels = [
            (DRIVER_MAJOR, driver),
            (CAPABILITY_MAJOR, major),
            ("nvidia.com/gpu.product", product),
            ("kubernetes.io/hostname", name),
        ];
        NodeInfo {
            name: name.to_owned(),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..NodeInfo::default()
        }
    }

    fn said(good: &[&NodeInfo], bad: &[&NodeInfo]) -> String {
        let texts = |all: Vec<Requirement>| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        between(good, bad).map(texts).unwrap_or_default().join(" and ")
    }

    #[test]
    fn the_shortest_condition_that_parts_them() {
        let (old, new) = (node("a", "470", "7", "T4"), node("b", "535", "7", "T4"));
        assert_eq!(said(&[&new], &[&old]), "nvidia.com/cuda.driver-version.major Gt 534");
        let h100 = node("c", "535", "9", "H100");
        assert_eq!(said(&[&new], &[&h100]), "nvidia.com/gpu.compute.major Lt 8");
        assert_eq!(
            said(&[&h100], &[&node("d", "470", "9", "H100"), &new]),
            "nvidia.com/cuda.driver-version.major Gt 534 and nvidia.com/gpu.compute.major Gt 8"
        );
        assert_eq!(said(&[&h100], &[]), "");
    }

    proptest! {
        #[test]
        fn what_is_proposed_keeps_the_good_and_excludes_the_bad(
            nodes in prop::collection::vec((0usize..4, 0usize..4, 0usize..4, any::<bool>()), 2..20)
        ) {
            let drivers = ["470", "535", "550", "580"];
            let majors = ["7", "8", "9", "10"];
            let products = ["T4", "A100", "H100", "B200"];
            let made: Vec<(NodeInfo, bool)> = nodes.iter().enumerate().map(|(i, (d, m, p, good))| {
                (node(&format!("n{i}"), drivers[*d], majors[*m], products[*p]), *good)
            }).collect();
            let of = |which: bool| made.iter().filter(|(_, g)| *g == which).map(|(n, _)| n).collect::<Vec<_>>();
            if let Some(found) = between(&of(true), &of(false)) {
                for (node, good) in &made {
                    prop_assert_eq!(found.iter().all(|r| r.matches(&node.labels)), *good);
                }
            }
        }
    }
}
