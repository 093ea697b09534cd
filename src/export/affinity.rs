//! [`Term`]s -> `nodeAffinity` of a Kubernetes pod: required where the image works, preferred where it works without loss.

use super::quoted;
use super::selection::{PRODUCT, Term, select};
use crate::report::Verdict;
use crate::rules::Judge;
use crate::target::Host;
use std::fmt::Write as _;

/// YAML to put under a pod's `spec`. `None` where no host is known on which the image runs.
pub fn yaml(judge: &Judge, host: &Host) -> Option<String> {
    let required = select(judge, host, Verdict::works);
    if required.is_empty() {
        return None;
    }
    let best = select(judge, host, |verdict| verdict == Verdict::Runs);
    let image = &judge.inventory().facts.image;
    let digest = image.digest.as_ref().map_or_else(String::new, |d| format!(" {d}"));
    let mut out = format!(
        "# Nodes on which {}{digest} runs, by the labels of GPU Feature Discovery.\n\
         affinity:\n  nodeAffinity:\n    requiredDuringSchedulingIgnoredDuringExecution:\n      nodeSelectorTerms:\n",
        crate::render::style::safe(&image.reference)
    );
    if required.iter().flatten().any(|c| c.label == PRODUCT) {
        out.insert_str(0, "# Products fare differently: those that are named count, MIG slices with a product label of their own do not.\n");
    }
    for term in &required {
        out.push_str("        - matchExpressions:\n");
        out.push_str(&expressions(term, 12));
    }
    // Worth a preference only where some hosts do better than others.
    if !best.is_empty() && best != required {
        out.push_str("    preferredDuringSchedulingIgnoredDuringExecution:\n");
        for term in &best {
            out.push_str("      - weight: 100\n        preference:\n          matchExpressions:\n");
            out.push_str(&expressions(term, 14));
        }
    }
    Some(out)
}

fn expressions(term: &Term, indent: usize) -> String {
    let mut out = String::new();
    for condition in term {
        let values: Vec<String> = condition.values.iter().map(|v| quoted(v)).collect();
        let _ = writeln!(
            out,
            "{}- {{key: {}, operator: {}, values: [{}]}}",
            " ".repeat(indent),
            condition.label,
            condition.operator.name(),
            values.join(", ")
        );
    }
    out
}
