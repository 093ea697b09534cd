//! A tag may be moved to another image after this one was judged.

use super::reasoning::about_image;
use super::{Case, Reads, Rule};
use crate::report::{Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL605", name: "floating-reference" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the image is named by a tag, which may be moved to another image",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let image = &case.inventory.facts.image;
    let reference = image.reference.as_str();
    // Only registries have tags that others move.
    const LOCAL: [&str; 6] = ["oci:", "oci-archive:", "docker-archive:", "dir:", "file:", "-"];
    let local = LOCAL.iter().any(|p| reference.starts_with(p)) || image.digest.is_none();
    if case.policy.profile.is_none() || local {
        return Vec::new();
    }
    let evidence = about_image(case, format!("named as {reference}"));
    if reference.contains("@sha256:") {
        let message = "the image is named by its digest".to_owned();
        return vec![Finding::new(ID, Outcome::Holds, message, evidence)];
    }
    let last = reference.rsplit('/').next().unwrap_or(reference);
    let tag = last.split_once(':').map_or("latest", |(_, tag)| tag);
    let message = format!(
        "the tag `{tag}` may be moved: what runs tomorrow may be another image than the one that was looked at"
    );
    let finding =
        Finding::new(ID, Outcome::Holds, message, evidence).level(Level::Note).headline("named by a tag");
    vec![match &image.digest {
        Some(digest) => finding.remedy(format!("deploy it by digest: @{digest}")),
        None => finding,
    }]
}
