//! bitsandbytes brings one library per CUDA release and picks by torch's; without a fitting one it computes on the CPU.

use super::linking::{at, at_place, says};
use super::{Case, Reads, Rule};
use crate::facts::FileFacts;
use crate::inventory::processes::in_site;
use crate::report::{Finding, How, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL413", name: "bitsandbytes-variant-missing" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "bitsandbytes has no library for the CUDA release of the torch in the image",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    one(case).into_iter().collect()
}

fn one(case: &Case<'_>) -> Option<Finding> {
    let package = case.inventory.framework("bitsandbytes")?;
    let torch = case.inventory.framework("torch")?;
    let cuda = torch.cuda.as_ref()?.major_minor();
    // BNB_CUDA_VERSION picks by hand.
    if case.inventory.facts.image.config.env("BNB_CUDA_VERSION").is_some() {
        return None;
    }
    let variants: Vec<(&FileFacts, Version)> =
        case.inventory.facts.files.iter().filter_map(|f| Some((f, variant(f)?))).collect();
    let exact = variants.iter().find(|(_, v)| *v == cuda);
    let version = package.version.as_ref()?;
    // From 0.50 on it takes the nearest lower one of the same major, else the nearest higher one.
    let same_major =
        || variants.iter().filter(|(_, v)| v.major() == cuda.major() && *version >= Version::of(0, 50));
    let lower = same_major().filter(|(_, v)| *v < cuda).max_by(|a, b| a.1.cmp(&b.1));
    let higher = same_major().filter(|(_, v)| *v > cuda).min_by(|a, b| a.1.cmp(&b.1));
    if let Some((file, picked)) = exact.or(lower).or(higher) {
        let message = match *picked == cuda {
            true => format!("bitsandbytes {version} has a library for CUDA {cuda} of torch"),
            false => format!(
                "bitsandbytes {version} has no library for CUDA {cuda} of torch and takes that for {picked}"
            ),
        };
        let evidence = vec![at(file, "the one that it picks")];
        return Some(Finding::new(ID, Outcome::Holds, message, evidence).component("bitsandbytes"));
    }
    let names: Vec<String> = variants.iter().map(|(_, v)| v.to_string()).collect();
    let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let message = format!("bitsandbytes {version} has no library for CUDA {cuda}, which torch is built for");
    let evidence = vec![
        at_place(&package.place, format!("has libraries for CUDA {has}")),
        at_place(&torch.place, format!("torch {} is for CUDA {cuda}", torch.version_text)),
    ];
    let name = format!("libbitsandbytes_cuda{}{}.so", cuda.major(), cuda.minor());
    let text = match () {
        () if *version < Version::of(0, 43) => "CUDA Setup failed despite GPU being available.".to_owned(),
        () if *version < Version::of(0, 46) => {
            format!("Could not find the bitsandbytes CUDA binary at {name}")
        }
        () if *version < Version::of(0, 50) => format!("Configured CUDA binary not found at {name}"),
        () => format!("No compatible CUDA binary found at {name}"),
    };
    // 0.43 to 0.45 go on with their CPU library; before, the import fails, after, the first call does.
    let on_cpu = (Version::of(0, 43)..Version::of(0, 46)).contains(version);
    let finding = Finding::new(ID, Outcome::Breaks, message, evidence)
        .headline(format!("bitsandbytes without CUDA {cuda}"))
        .component("bitsandbytes")
        .error(says(text))
        .remedy("install a bitsandbytes that has it (pip install -U bitsandbytes)");
    Some(if on_cpu { finding.how(How::CpuFallback) } else { finding })
}

/// `libbitsandbytes_cuda124.so` is for 12.4.
fn variant(file: &FileFacts) -> Option<Version> {
    let name = in_site(file.place.path.as_str())?.strip_prefix("bitsandbytes/libbitsandbytes_cuda")?;
    let digits = name.strip_suffix(".so")?;
    let (major, minor) = digits.split_at_checked(2)?;
    Some(Version::of(major.parse().ok()?, minor.parse().ok()?))
}
