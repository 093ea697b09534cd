//! A variable or value of the image that the container runtime does not read, close to one that it does.

use super::nvidia_require::is_true;
use super::reasoning::about_image;
use super::{Case, Reads, Rule};
use crate::report::{Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL510", name: "misspelt-setting" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a setting for the container runtime is misspelt, so it does nothing",
    reads: Reads::IMAGE,
    judge,
};

/// Letters by which a misspelt name differs at most.
const DISTANCE_MAX: usize = 2;

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let env = &case.inventory.facts.image.config.env;
    let mut out: Vec<Finding> = env.iter().filter_map(|(name, _)| misspelt(case, name)).collect();
    out.extend(env.iter().filter_map(|(name, value)| no_boolean(case, name, value)));
    out
}

fn misspelt(case: &Case<'_>, name: &str) -> Option<Finding> {
    let settings = &case.catalog.settings;
    // Whatever begins with NVIDIA_REQUIRE_ is a requirement by any other name.
    if settings.iter().any(|s| s.id == name) || name.starts_with("NVIDIA_REQUIRE_") {
        return None;
    }
    let upper = name.to_ascii_uppercase();
    let near = |id: &str| match id.len() {
        // Short names have neighbours that mean something else.
        0..=14 => upper == id,
        _ => strsim::damerau_levenshtein(&upper, id) <= DISTANCE_MAX,
    };
    let meant = settings.iter().find(|s| near(&s.id))?;
    let message = format!("{name} is read by nobody; {} is meant", meant.id);
    let evidence = about_image(case, format!("it sets {name}"));
    Some(
        Finding::new(ID, Outcome::Holds, message, evidence)
            .level(Level::Warning)
            .headline(format!("{name} is misspelt"))
            .component(name.to_ascii_lowercase())
            .remedy(format!("rename it to {}", meant.id)),
    )
}

fn no_boolean(case: &Case<'_>, name: &str, value: &str) -> Option<Finding> {
    const FALSE: [&str; 7] = ["", "0", "f", "F", "false", "FALSE", "False"];
    let finding = |message: String, remedy: &str| {
        let evidence = about_image(case, format!("it sets {name}={value}"));
        Finding::new(ID, Outcome::Holds, message, evidence)
            .level(Level::Warning)
            .headline(format!("{name} has no effect"))
            .component(name.to_ascii_lowercase())
            .remedy(remedy.to_owned())
    };
    match name {
        "NVIDIA_DISABLE_REQUIRE" if !is_true(value) && !FALSE.contains(&value) => {
            let message =
                format!("{name}={value} switches nothing off: the container runtime takes 1 or true only");
            Some(finding(message, "write NVIDIA_DISABLE_REQUIRE=1"))
        }
        "NVIDIA_GDS" | "NVIDIA_MOFED" | "NVIDIA_GDRCOPY" | "NVIDIA_NVSWITCH"
            if !matches!(value, "enabled" | "disabled" | "") =>
        {
            let message = format!("{name}={value} adds no device: only the word `enabled` does");
            Some(finding(message, &format!("write {name}=enabled")))
        }
        _ => None,
    }
}
