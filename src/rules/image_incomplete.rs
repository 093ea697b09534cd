//! A layer could not be read: what it holds may change every answer.

use super::reasoning::about_image;
use super::{Case, Reads, Rule};
use crate::report::{Finding, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL902", name: "image-incomplete" };
pub(super) const RULE: Rule =
    Rule { id: ID, summary: "a layer of the image could not be read", reads: Reads::IMAGE, judge };

fn judge(case: &Case<'_>) -> Vec<Finding> {
    if case.inventory.facts.complete {
        return Vec::new();
    }
    let message = "a layer of the image could not be read: what it holds may change every answer".to_owned();
    vec![
        Finding::new(ID, Outcome::Unknown, message, about_image(case, "layers are missing".to_owned()))
            .headline("a layer could not be read")
            .remedy("scan the image again, once the layer can be read"),
    ]
}
