//! The driver given does not decide: beyond the catalog, or a desktop driver for a Jetson module and the reverse.

use super::reasoning::about_image;
use super::{Case, Reads, Rule};
use crate::report::{Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL109", name: "driver-not-decisive" };
pub(super) const RULE: Rule =
    Rule { id: ID, summary: "what is known of the host driver does not decide", reads: Reads::ALL, judge };

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let uses_gpu = case.inventory.uses_gpu();
    let evidence = || about_image(case, "the target, not the image, lacks a fact".to_owned());
    let mut out = Vec::new();
    if let Some(first) = case.host.unknown_gpus.first().filter(|_| uses_gpu) {
        let message = format!("nothing is known of the GPU that the host calls `{first}`");
        out.push(
            Finding::new(ID, Outcome::Unknown, message, evidence())
                .headline(format!("GPU `{first}` is not known"))
                .remedy("name it with --gpu, by product or compute capability, or update cudalint"),
        );
    }
    let Some(driver) = case.driver.filter(|_| uses_gpu) else { return out };
    if let Some(gpu) = case.gpu {
        let listed = |b: &u32| case.catalog.branch(*b).is_some_and(|b| b.cc.contains(&gpu.cc));
        let desktop_on_jetson = gpu.tegra
            && !driver.known.tegra
            && driver.version.is_some()
            && !driver.known.branches.iter().any(listed);
        let jetson_on_desktop = driver.known.tegra && !gpu.tegra;
        if desktop_on_jetson || jetson_on_desktop {
            let message = match desktop_on_jetson {
                true => format!(
                    "{} runs a Jetson driver; {} is none that is known",
                    gpu.describe(),
                    driver.describe()
                ),
                false => {
                    format!("{} belongs to Jetson modules; {} is none", driver.describe(), gpu.describe())
                }
            };
            let remedy =
                "give what the module's nvidia-smi or JetPack prints, or its CUDA version with --host-cuda";
            out.push(
                Finding::new(ID, Outcome::Unknown, message, evidence())
                    .headline("driver and GPU do not belong together")
                    .remedy(remedy),
            );
        }
    }
    let newest = case.catalog.newest_branch().map_or(0, |b| b.branch);
    let newest_cuda = case.catalog.newest_branch().map(|b| &b.cuda_max);
    let by_number = driver.version.as_ref().is_some_and(|v| v.major() > u64::from(newest));
    let by_cuda = driver.version.is_none() && driver.known.cuda.as_ref() > newest_cuda;
    let beyond = (by_number || by_cuda) && !driver.known.sure;
    if beyond && !driver.known.tegra {
        let message = format!(
            "{} is newer than branch {newest}, the newest one known; judged as that one",
            driver.describe()
        );
        let remedy = "add the branch with --catalog, or update cudalint";
        out.push(Finding::new(ID, Outcome::Holds, message, evidence()).level(Level::Note).remedy(remedy));
    }
    out
}
