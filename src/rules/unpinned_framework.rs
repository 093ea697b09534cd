//! A GPU framework is installed without its version.

use super::settings::clipped;
use super::{Case, Reads, Rule};
use crate::facts::Place;
use crate::names::{ImagePath, LayerIndex};
use crate::report::{Evidence, Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL609", name: "unpinned-framework" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "an instruction installs a GPU framework without its version",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    if case.policy.profile.is_none() {
        return Vec::new();
    }
    let image = &case.inventory.facts.image;
    let families = || case.catalog.frameworks.iter().flat_map(|f| f.pip.iter().chain(&f.conda));
    let mut out = Vec::new();
    for (index, layer) in image.layers.iter().enumerate() {
        let Some(instruction) =
            layer.created_by.as_deref().filter(|c| INSTALLS.iter().any(|i| c.contains(i)))
        else {
            continue;
        };
        let mut loose: Vec<&str> = Vec::new();
        // Only what stands behind `install` in the same command.
        let mut installing = false;
        for word in instruction.split_whitespace() {
            installing = match word {
                "install" => true,
                "&&" | "||" | "|" | ";" => false,
                _ => installing,
            };
            let ends = word.ends_with(';');
            let word = word.trim_matches(['"', '\'', ';', '&', '\\']);
            let end = word.find(['=', '<', '>', '~', '!', '[']).unwrap_or(word.len());
            let (name, rest) = word.split_at(end);
            let pinned = rest.contains("==") || rest.starts_with('=');
            if installing
                && !pinned
                && families().any(|f| f.eq_ignore_ascii_case(name))
                && !loose.contains(&name)
            {
                loose.push(name);
            }
            installing &= !ends;
        }
        if loose.is_empty() {
            continue;
        }
        let message = format!(
            "{} {} installed without a version: the next build may bring another CUDA",
            loose.join(", "),
            if loose.len() == 1 { "is" } else { "are" }
        );
        let layer = LayerIndex(u32::try_from(index).unwrap_or(u32::MAX));
        let place = Place { layer, path: ImagePath::new("/") };
        let evidence = vec![Evidence { place, detail: clipped(instruction) }];
        out.push(
            Finding::new(ID, Outcome::Holds, message, evidence)
                .level(Level::Note)
                .headline("framework not pinned")
                .component(loose.join("+"))
                .remedy("pin it, such as torch==2.6.0, or install from a lock file"),
        );
    }
    out
}

/// What installs Python packages.
const INSTALLS: [&str; 4] = ["pip install", "pip3 install", "conda install", "mamba install"];
