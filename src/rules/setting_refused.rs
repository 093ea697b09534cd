//! Settings of the image with which the container runtime does not start it, on whatever host.

use super::linking::says;
use super::nvidia_require::{Refusal, collect, parts};
use super::reasoning::about_image;
use super::settings::{clipped, is_gpu_container, shortened};
use super::{Case, Reads, Rule};
use crate::report::{Finding, Level, Outcome, RuleId};
use crate::target::profile::RuntimeMode;

const ID: RuleId = RuleId { code: "CUL507", name: "setting-refused" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the container runtime does not accept a setting of the image",
    reads: Reads::HOST,
    judge,
};

/// Variables that only privileged containers may carry.
const PRIVILEGED: [(&str, &str); 2] = [
    ("NVIDIA_MIG_CONFIG_DEVICES", "MIG_CONFIG_DEVICES"),
    ("NVIDIA_MIG_MONITOR_DEVICES", "MIG_MONITOR_DEVICES"),
];

fn judge(case: &Case<'_>) -> Vec<Finding> {
    if !is_gpu_container(case) {
        return Vec::new();
    }
    let mut out: Vec<Finding> = capability_words(case).into_iter().collect();
    out.extend(privileged(case));
    out.extend(requirements(case));
    out
}

fn capability_words(case: &Case<'_>) -> Option<Finding> {
    const NAME: &str = "NVIDIA_DRIVER_CAPABILITIES";
    let value = case.inventory.facts.image.config.env(NAME).filter(|v| !v.is_empty())?;
    let known: Vec<&str> = case.catalog.capabilities.iter().map(|c| c.id.as_str()).collect();
    let mut words: Vec<&str> = value.split(',').map(str::trim).filter(|w| !w.is_empty()).collect();
    words.sort_unstable();
    words.dedup();
    let first = words.iter().find(|w| !known.contains(w)).filter(|_| !words.contains(&"all"))?;
    let allowed: Vec<&str> = words.iter().copied().filter(|w| known.contains(w)).collect();
    let (written, allowed) = (words.join(","), allowed.join(","));
    let message = format!("{NAME}={}: `{}` is no capability", clipped(value), clipped(first));
    let text = format!("unsupported capabilities found in '{}' (allowed '{allowed}')", clipped(&written));
    let distance = |k: &&&str| strsim::damerau_levenshtein(k, first);
    let closest = known.iter().min_by_key(distance).filter(|k| distance(k) <= 2);
    let meant = closest.map_or_else(String::new, |k| format!("write `{k}`; "));
    let remedy = format!("{meant}there is {}", known.join(", "));
    Some(refused(case, NAME, message, &text).remedy(remedy))
}

fn privileged(case: &Case<'_>) -> Vec<Finding> {
    let config = &case.inventory.facts.image.config;
    let set = PRIVILEGED.into_iter().filter(|(name, _)| config.env(name).is_some_and(|v| !v.is_empty()));
    set.map(|(name, shown)| {
        let message = format!("{name} is set, which only a privileged container may");
        let text = format!("cannot set {shown} in non privileged container");
        refused(case, name, message, &text)
            .remedy(format!("remove {name} from the image; give it to the one container that manages MIG"))
    })
    .collect()
}

fn requirements(case: &Case<'_>) -> Vec<Finding> {
    let requirements = match collect(&case.inventory.facts.image.config) {
        Ok(requirements) => requirements,
        Err(Refusal::TooMany) => {
            let message = "the image has more than 32 variables NVIDIA_REQUIRE_*".to_owned();
            let text = "nvidia-container-cli: input error: too many requirements";
            return vec![
                refused(case, "NVIDIA_REQUIRE", message, text)
                    .remedy("put them into one NVIDIA_REQUIRE_CUDA"),
            ];
        }
        // Said by the rule about that variable.
        Err(Refusal::CudaVersion(_)) => return Vec::new(),
    };
    let bad_term = |expression: &str| {
        let terms = expression.split([' ', ',']).filter(|t| !t.is_empty());
        let readable = |t: &&str| {
            parts(t).is_some_and(|(key, op, value)| {
                let number = value.bytes().all(|b| b.is_ascii_digit() || b == b'.');
                match key.to_ascii_lowercase().as_str() {
                    "cuda" | "driver" | "arch" => number,
                    "brand" => matches!(op, "=" | "!="),
                    _ => false,
                }
            })
        };
        terms.filter(|t| !readable(t)).map(str::to_owned).next()
    };
    let bad = requirements.iter().filter_map(|r| Some((r, bad_term(&r.expression)?)));
    bad.map(|(requirement, term)| {
        let name = &requirement.variable;
        let message = format!(
            "{name}={}: `{}` is no condition that the container runtime reads",
            shortened(&requirement.expression),
            clipped(&term)
        );
        let text = "nvidia-container-cli: requirement error: invalid expression";
        // Hosts on which an alternative before it holds never get that far; the others are judged one by one.
        let found = refused(case, name, message, text);
        let level = found.level.min(Level::Warning);
        found.outcome(Outcome::Holds).level(level).host("refused in legacy mode, unless an alternative before it holds").remedy(
            "write key, operator, value without blanks: `cuda>=12.4`; a blank means or, a comma means and",
        )
    })
    .collect()
}

fn refused(case: &Case<'_>, name: &str, message: String, text: &str) -> Finding {
    let mode = case.mode().map(|(mode, _)| mode);
    let (outcome, level) = match mode {
        Some(RuntimeMode::Legacy) => (Outcome::Breaks, Level::Error),
        Some(RuntimeMode::Cdi | RuntimeMode::Csv) => (Outcome::Holds, Level::Note),
        None => (Outcome::Holds, Level::Warning),
    };
    let evidence = about_image(case, format!("it sets {name}"));
    Finding::new(ID, outcome, message, evidence)
        .level(level)
        .headline(format!("{name} not accepted"))
        .component(name.to_ascii_lowercase())
        .host("refused in legacy mode; CDI modes do not look at it".to_owned())
        .error(says(text))
}
