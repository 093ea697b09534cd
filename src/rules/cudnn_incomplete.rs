//! cuDNN without one of the sub-libraries that it opens by name.

use super::cudnn::sets;
use super::linking::{and, at, pip_package, says};
use super::{Case, Rule};
use crate::inventory::loading::is_lost;
use crate::report::{Finding, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL306", name: "cudnn-incomplete" };
pub(super) const RULE: Rule =
    Rule { id: ID, summary: "cuDNN does not find one of its sub-libraries", image_only: true, judge };

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    for set in sets(case) {
        let major = set.version.as_ref().map_or(9, crate::version::Version::major);
        let lost: Vec<String> = set
            .parts
            .iter()
            .filter(|(_, l)| is_lost(l))
            .map(|(name, _)| format!("{name}.so.{major}"))
            .collect();
        let Some(first) = lost.first() else {
            let message = format!("cuDNN of {} finds all its sub-libraries", set.group);
            out.push(Finding::new(
                ID,
                Outcome::Holds,
                message,
                vec![at(set.dispatcher, "looked up as it would")],
            ));
            continue;
        };
        let version = set.version.as_ref().map(|v| format!(" {v}")).unwrap_or_default();
        let message = format!("cuDNN{version} of {} does not find {}", set.group, and(&lost));
        let stem = first.split(".so").next().unwrap_or_default();
        let text = match &set.version {
            Some(v) if v.major() >= 9 => format!(
                "Unable to load any of {{{stem}.so.{}.{}.{}, {stem}.so.{}.{}, {stem}.so.{}, {stem}.so}}",
                v.major(),
                v.minor(),
                v.part(2),
                v.major(),
                v.minor(),
                v.major()
            ),
            _ => format!(
                "Could not load library {first}. Error: {first}: cannot open shared object file: No such file or directory"
            ),
        };
        let finding = Finding::new(
            ID,
            Outcome::Breaks,
            message,
            vec![at(set.dispatcher, "opens them by name at first use")],
        )
        .headline("cuDNN is not complete")
        .component(set.group.clone())
        .error(says(text));
        out.push(match pip_package(case, first, None) {
            Some(package) => finding.remedy(format!("install cuDNN whole: pip install {package}")),
            None => finding.remedy("install cuDNN whole"),
        });
    }
    out
}
