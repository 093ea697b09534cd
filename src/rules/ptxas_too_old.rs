//! JAX compiles with the `ptxas` that it finds; one that is older than the PTX it is given stops with an error.

use super::linking::{at, at_place, says};
use super::requirements::Requirement;
use super::{Case, Reads, Rule};
use crate::facts::FileFacts;
use crate::inventory::frameworks::Framework;
use crate::report::{Finding, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL415", name: "ptxas-too-old" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "JAX finds a ptxas that is older than the one its build asks for",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    case.inventory.family("jax").filter_map(|f| one(case, f)).collect()
}

fn one(case: &Case<'_>, jax: &Framework) -> Option<Finding> {
    let asked = jax.requires.iter().filter_map(|r| Requirement::parse(r));
    let wanted = asked
        .filter(|r| r.name.starts_with("nvidia-cuda-nvcc"))
        .find_map(|r| r.bound(">=").or_else(|| r.bound("==")))?
        .major_minor();
    let (file, have) = ptxas(case, &jax.site)?;
    let evidence = vec![
        at(file, format!("ptxas of CUDA {have}, the first that is found")),
        at_place(&jax.place, format!("asks for ptxas of CUDA {wanted} or newer")),
    ];
    if have.major_minor() >= wanted {
        let message = format!("{} finds ptxas {have} and asks for {wanted}", jax.name);
        return Some(Finding::new(ID, Outcome::Holds, message, evidence).component(jax.name.clone()));
    }
    let isa = |cuda: &Version| case.catalog.ptx_of_cuda(&cuda.major_minor()).map(|p| p.ptx.clone());
    let text = isa(&wanted).zip(isa(&have)).map(|(wanted, have)| {
        format!("fatal   : Unsupported .version {wanted}; current version is '{have}'")
    });
    let message = format!(
        "{} finds ptxas of CUDA {}, which does not read the PTX of CUDA {wanted} that it makes",
        jax.name,
        have.major_minor()
    );
    Some(
        Finding::new(ID, Outcome::Breaks, message, evidence)
            .headline("ptxas too old for JAX")
            .component(jax.name.clone())
            .error(text.and_then(says))
            .remedy(format!("pip install \"nvidia-cuda-nvcc-cu{}>={wanted}\"", wanted.major()))
            .remedy(format!("use a base image with CUDA {wanted} or newer")),
    )
}

/// In the order in which XLA looks: NVIDIA's wheel, PATH, the toolkit's directory.
fn ptxas<'c>(case: &Case<'c>, site: &str) -> Option<(&'c FileFacts, Version)> {
    let paths = &case.inventory.processes.loader.paths;
    let path = case.inventory.facts.image.config.env("PATH").unwrap_or_default();
    let wheels = ["cuda_nvcc", "cu12", "cu13"].map(|d| format!("{site}nvidia/{d}/bin"));
    let directories = wheels.into_iter().chain(path.split(':').map(str::to_owned));
    let mut directories = directories.chain(["/usr/local/cuda/bin".to_owned()]);
    directories.find_map(|d| {
        let file = paths.file(&format!("{d}/ptxas"))?;
        let text = file.elf.as_ref()?.version_texts.get("toolkit")?.first()?;
        // XLA passes over what it knows to be too old or broken.
        let version =
            Version::parse(text).filter(|v| *v >= Version::of(11, 8) && v.as_str() != "12.3.103")?;
        Some((file, version))
    })
}
