//! The cuDNN that a framework gets is older than the one that it was built with, or of another major.

use super::linking::{at, at_place, object_of, says};
use super::requirements::Requirement;
use super::{Case, Reads, Rule};
use crate::facts::FileFacts;
use crate::inventory::frameworks::Framework;
use crate::report::{Finding, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL319", name: "cudnn-older-than-built" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "a framework gets an older cuDNN than it was built with",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let frameworks = case
        .inventory
        .frameworks
        .iter()
        .filter(|f| matches!(f.name.as_str(), "torch" | "tensorflow" | "jaxlib"));
    frameworks.filter_map(|f| one(case, f)).collect()
}

fn one(case: &Case<'_>, framework: &Framework) -> Option<Finding> {
    let built = built_with(framework)?;
    let file = loaded(case, framework)?;
    let have = case.inventory.version_at(file)?;
    let name = &framework.name;
    let evidence = vec![
        at_place(&framework.place, format!("{name} {} was built with cuDNN {built}", framework.version_text)),
        at(file, format!("cuDNN {have}")),
    ];
    if have.major() == built.major() && have.minor() >= built.minor() {
        let message = format!("{name} was built with cuDNN {built} and gets {have}");
        return Some(Finding::new(ID, Outcome::Holds, message, evidence).component(name.clone()));
    }
    let text = match name.as_str() {
        "torch" => format!(
            "RuntimeError: cuDNN version incompatibility: PyTorch was compiled  against {} but found runtime version {}.",
            tuple(&built),
            tuple(&have)
        ),
        _ => format!(
            "Loaded runtime CuDNN library: {} but source was compiled with: {}.  CuDNN library needs to have \
             matching major version and equal or higher minor version.",
            dotted(&have),
            dotted(&built)
        ),
    };
    let why = if have.major() > built.major() { "does not fit" } else { "is too old for it" };
    let message = format!("{name} was built with cuDNN {built} and gets {have}, which {why}");
    Some(
        Finding::new(ID, Outcome::Breaks, message, evidence)
            .headline(format!("cuDNN {have} does not fit {name}"))
            .component(name.clone())
            .error(says(text))
            .remedy(format!("install cuDNN {}.{} or newer of the same major", built.major(), built.minor())),
    )
}

/// `9.1.0`.
fn dotted(version: &Version) -> Version {
    Version::triple(version.major(), version.minor(), version.part(2))
}

/// `(9, 1, 0)`.
fn tuple(version: &Version) -> String {
    format!("({}, {}, {})", version.major(), version.minor(), version.part(2))
}

/// The cuDNN that a distribution's requirements name: its pin, or the lower bound of its CUDA extra; else its version.
fn built_with(framework: &Framework) -> Option<Version> {
    let parsed = framework.requires.iter().filter_map(|r| Requirement::parse(r));
    let mut cudnn = parsed.filter(|r| r.name.starts_with("nvidia-cudnn") || r.name == "cudnn");
    cudnn
        .find_map(|r| r.bound("==").or_else(|| r.bound(">=")))
        .map(|v| Version::triple(v.major(), v.minor(), v.part(2)))
        .or_else(|| of_local_part(&framework.version_text))
}

/// `8.6` of jaxlib's `0.4.13+cuda11.cudnn86`.
fn of_local_part(version: &str) -> Option<Version> {
    let digits: String = version.split_once("cudnn")?.1.chars().take_while(char::is_ascii_digit).collect();
    let (major, minor) = digits.split_at_checked(1).filter(|(_, minor)| !minor.is_empty())?;
    Some(Version::of(major.parse().ok()?, minor.parse().ok()?))
}

fn loaded<'c>(case: &Case<'c>, framework: &Framework) -> Option<&'c FileFacts> {
    let group = case.inventory.loading.iter().find(|g| g.name == framework.name)?;
    let of_needs =
        group.members.iter().filter(|m| m.main).find_map(|m| Some(object_of(&m.process, "libcudnn")?.1.file));
    let of_name = || {
        let member =
            group.members.iter().find(|m| m.elf.dlopens.iter().any(|d| d.starts_with("libcudnn.so.")))?;
        let name = member.elf.dlopens.iter().find(|d| d.starts_with("libcudnn.so."))?;
        let mut process = member.process.clone();
        let opener = process.objects.iter().position(|o| o.file.place == member.file.place)?;
        case.inventory.processes.loader.open_name(&mut process, opener, name).file
    };
    of_needs.or_else(of_name).or_else(|| {
        super::tensorflow_libraries_missing::opens(case, framework)?
            .into_iter()
            .find_map(|(_, load)| load.file.filter(|_| load.name.starts_with("libcudnn.so")))
    })
}
