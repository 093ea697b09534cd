//! [`select`]ed terms -> the image compatibility artifact of Node Feature Discovery, v1alpha1
//! (<https://kubernetes-sigs.github.io/node-feature-discovery/v0.20/usage/image-compatibility.html>).

use super::quoted;
use super::selection::{ARCH, select};
use crate::report::Verdict;
use crate::rules::Judge;
use crate::target::Host;
use std::fmt::Write as _;

pub const ARTIFACT_TYPE: &str = "application/vnd.nfd.image-compatibility.v1alpha1";
pub const MEDIA_TYPE: &str = "application/vnd.nfd.image-compatibility.spec.v1alpha1+yaml";

/// The specification as YAML. `None` where no host is known on which the image runs.
pub fn yaml(judge: &Judge, host: &Host) -> Option<String> {
    let terms = select(judge, host, Verdict::works);
    if terms.is_empty() {
        return None;
    }
    let image = &judge.inventory().facts.image;
    let mut out = format!(
        "version: v1alpha1\ncompatibilities:\n  - description: {}\n    rules:\n      - name: \"NVIDIA GPU and driver\"\n        matchAny:\n",
        quoted(&format!("GPUs and drivers on which {} runs, by cudalint", image.reference))
    );
    for term in &terms {
        // The labels that GPU Feature Discovery hands over are the feature `local.label`. The processor is none of them: an
        // image for another one is not pulled in the first place.
        out.push_str("          - matchFeatures:\n              - feature: local.label\n                matchExpressions:\n");
        for condition in term.iter().filter(|c| c.label != ARCH) {
            let values: Vec<String> = condition.values.iter().map(|v| quoted(v)).collect();
            let _ = writeln!(
                out,
                "                  {}: {{op: {}, value: [{}]}}",
                condition.label,
                condition.operator.name(),
                values.join(", ")
            );
        }
    }
    Some(out)
}
