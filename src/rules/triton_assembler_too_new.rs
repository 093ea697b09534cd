//! Triton brings its own ptxas: it may be too old for the GPU, or make machine code of a newer CUDA major than the driver's.

use super::linking::{at_place, says};
use super::reasoning::ptx_limit;
use super::{Case, Reads, Rule};
use crate::report::{Finding, Outcome, RuleId};
use crate::version::{ComputeCapability, Version};

const ID: RuleId = RuleId { code: "CUL412", name: "triton-assembler-too-new" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "Triton's ptxas is of a newer CUDA major than the driver's, or too old for the GPU",
    reads: Reads::ALL,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(gpu) = case.gpu else { return Vec::new() };
    // A compat package that is loaded stands in for the driver.
    let limit = ptx_limit(case);
    let mut out = Vec::new();
    for triton in case.inventory.family("triton") {
        let Some(version) = &triton.version else { continue };
        let Some(row) = case
            .catalog
            .tritons
            .iter()
            .filter(|r| r.version.major_minor() <= version.major_minor())
            .max_by(|a, b| a.version.cmp(&b.version))
        else {
            continue;
        };
        let second = row.ptxas_blackwell.as_ref().filter(|_| {
            let lowest = row
                .blackwell_used_for_cc
                .as_deref()
                .and_then(|c| ComputeCapability::parse(c.trim_start_matches(">=")));
            lowest.is_some_and(|l| gpu.cc >= l)
        });
        let ptxas = second.unwrap_or(&row.ptxas);
        // From 3.6 on the second assembler has a variable of its own.
        let variable = if second.is_some() { "TRITON_PTXAS_BLACKWELL_PATH" } else { "TRITON_PTXAS_PATH" };
        if case.inventory.facts.image.config.env(variable).is_some() {
            continue;
        }
        let evidence = vec![at_place(
            &triton.place,
            format!("triton {version} assembles for {} with ptxas {ptxas}", gpu.describe()),
        )];
        let first = case.catalog.arch_row(gpu.cc).map(|a| a.first_toolkit.major_minor());
        if let Some(first) = first.filter(|f| ptxas.major_minor() < *f) {
            let sm = gpu.cc.sm_number();
            let message = format!(
                "triton {version} cannot assemble for {}: its ptxas {} is older than CUDA {first}, the first that knows sm_{sm}",
                gpu.describe(),
                short(ptxas)
            );
            out.push(
                Finding::new(ID, Outcome::Degrades, message, evidence)
                    .headline(format!("Triton's assembler does not know sm_{sm}"))
                    .component("triton")
                    .error(says(format!(
                        "ptxas fatal   : Value 'sm_{sm}a' is not defined for option 'gpu-name'"
                    )))
                    .remedy("install a newer triton".to_owned())
                    .remedy(format!("set {variable} to a ptxas of CUDA {first} or newer")),
            );
            continue;
        }
        let Some((reported, who)) = limit.as_ref().map(|l| (&l.cuda, &l.who)) else { continue };
        if ptxas.major() <= reported.major() {
            let message = format!("ptxas {} of triton {version} fits {}", short(ptxas), who);
            out.push(Finding::new(ID, Outcome::Holds, message, evidence).component("triton"));
            continue;
        }
        let message = format!(
            "triton {version} assembles kernels for {} with ptxas {}; whether {} (CUDA {reported}) loads them is not known",
            gpu.describe(),
            short(ptxas),
            who
        );
        out.push(
            // What a driver of the older major does with such machine code was not measured.
            Finding::new(ID, Outcome::Unknown, message, evidence)
                .headline("Triton's assembler is newer than the driver")
                .component("triton")
                .error(
                    case.error(209)
                        .or_else(|| says("no kernel image is available for execution on the device")),
                )
                .remedy(format!("update the host to a driver that reports CUDA {}", ptxas.major()))
                .remedy(format!(
                    "install an older triton, or set {variable} to a ptxas of CUDA {}",
                    reported.major()
                )),
        );
    }
    out
}

fn short(version: &Version) -> Version {
    version.major_minor()
}
