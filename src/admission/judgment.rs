//! Facts + what a pod overrides + profiles -> a verdict and its reason for each profile.

use super::cluster::Profile;
use super::pods::{Ask, Overrides};
use crate::catalog::Catalog;
use crate::facts::ImageFacts;
use crate::inventory;
use crate::matrix::{self, Cell};
use crate::report::Verdict;
use crate::rules::{Judge, Policy};
use crate::target::profile::GpuRequest;

/// What is said of one container on one profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgment {
    pub verdict: Verdict,
    /// Codes of the rules that brought it there.
    pub rules: Vec<&'static str>,
    /// The finding that decides; `None` where nothing is wrong.
    pub reason: Option<Reason>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub code: &'static str,
    pub headline: String,
    pub message: String,
    /// The error a user would meet.
    pub error: Option<String>,
    pub remedy: Option<String>,
}

impl Judgment {
    fn of(cell: Cell) -> Judgment {
        Judgment {
            verdict: cell.verdict,
            rules: cell.rules.iter().map(|rule| rule.code).collect(),
            reason: cell.reason.map(|reason| Reason {
                code: reason.rule.code,
                headline: reason.headline,
                message: reason.message,
                error: reason.error,
                remedy: reason.remedies.into_iter().next(),
            }),
        }
    }
}

impl Judgment {
    /// The image has nothing for the architecture of a host (rule `wrong-cpu-architecture`).
    pub fn no_variant(arch: &str) -> Judgment {
        const CODE: &str = "CUL110";
        Judgment {
            verdict: Verdict::Fails,
            rules: vec![CODE],
            reason: Some(Reason {
                code: CODE,
                headline: format!("nothing for {arch}"),
                message: format!("the image has nothing for linux/{arch}"),
                error: Some("no match for platform in manifest".to_owned()),
                remedy: Some(format!(
                    "build the image for linux/{arch} too, or keep the pod on nodes of its architecture"
                )),
            }),
        }
    }
}

/// By what the container comes to its GPU, as far as verdicts depend on it.
pub fn request(ask: &Ask) -> GpuRequest {
    match ask {
        Ask::Resource(_) | Ask::Claim(_) | Ask::Annotation => GpuRequest::Engine,
        Ask::Runtime => GpuRequest::Image,
    }
}

/// Judges an image, as the pod starts it, for every profile.
pub fn judge<'p>(
    facts: &ImageFacts,
    overrides: &Overrides,
    request: GpuRequest,
    profiles: impl IntoIterator<Item = &'p Profile>,
    catalog: &Catalog,
    policy: &Policy,
) -> Vec<Judgment> {
    let changed;
    let facts = if *overrides == Overrides::default() {
        facts
    } else {
        changed = started(facts, overrides);
        &changed
    };
    let inventory = inventory::build(facts, catalog);
    let judge = Judge::new(&inventory, catalog).with(policy.clone());
    let one = |profile: &Profile| {
        let mut target = profile.target.clone();
        target.host.gpu_request.get_or_insert(request);
        Judgment::of(matrix::target(&judge, &target))
    };
    profiles.into_iter().map(one).collect()
}

/// The image with the pod's own settings in place of its own.
fn started(facts: &ImageFacts, overrides: &Overrides) -> ImageFacts {
    let mut facts = facts.clone();
    let config = &mut facts.image.config;
    if let Some(command) = &overrides.command {
        config.entrypoint.clone_from(command);
        config.cmd.clear();
    }
    if let Some(args) = &overrides.args {
        config.cmd.clone_from(args);
    }
    for (name, value) in &overrides.env {
        config.env.retain(|(known, _)| known != name);
        config.env.push((name.clone(), value.clone()));
    }
    facts
}

/// Variables that some rule or the loader looks at, by their names' beginnings.
const MATTERS: [&str; 15] = [
    "BNB_", "CUBLAS", "CUDNN", "DS_", "ENROOT_", "JAX_", "LD_", "MIG_", "NCCL_", "NV", "PYTHON", "TF_",
    "TORCH_", "TRITON_", "XLA_",
];
impl Overrides {
    /// The same without what no judgment depends on, so that pods that differ in their own business share one.
    #[must_use]
    pub fn essence(&self) -> Overrides {
        let matters = |name: &str| {
            let upper = name.to_ascii_uppercase();
            name == "PATH"
                || upper.starts_with('_')
                || upper.contains("CUDA")
                || MATTERS.iter().any(|m| upper.starts_with(m))
        };
        let mut env: Vec<(String, String)> =
            self.env.iter().filter(|(name, _)| matters(name)).cloned().collect();
        env.sort();
        Overrides { command: self.command.as_deref().map(line), args: self.args.as_deref().map(line), env }
    }
}

/// The program, and whatever among its arguments is a path or an entry point.
fn line(words: &[String]) -> Vec<String> {
    let counts = |word: &&String| word.contains('/') || word.contains("entrypoint");
    words.first().into_iter().chain(words.iter().skip(1).filter(counts)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn pods_that_differ_in_their_own_business_share_a_judgment() {
        let of = |lr: &str, rank: &str| Overrides {
            command: Some(vec!["python".into(), "train.py".into(), "--lr".into(), lr.into()]),
            args: None,
            env: env(&[("RANK", rank), ("LD_LIBRARY_PATH", "/opt/lib"), ("NVIDIA_DISABLE_REQUIRE", "1")]),
        };
        assert_eq!(of("0.1", "0").essence(), of("0.2", "1").essence());
        assert_eq!(of("0.1", "0").essence().env.len(), 2);
    }
}
