//! The GPU is newer than the driver branch: its kernel module does not know the device.

use super::reasoning::about_image;
use super::{Case, Reads, Rule, breaks_if};
use crate::report::{Finding, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL106", name: "gpu-unknown-to-driver" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the driver branch does not know the GPU yet",
    reads: Reads::DRIVER.and(Reads::GPU),
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let (Some(driver), Some(gpu)) = (case.driver, case.gpu) else { return Vec::new() };
    if !case.inventory.uses_gpu() {
        return Vec::new();
    }
    if driver.known.tegra || driver.known.branches.is_empty() {
        return Vec::new();
    }
    let branches: Vec<_> = driver.known.branches.iter().filter_map(|b| case.catalog.branch(*b)).collect();
    let knowing = branches.iter().filter(|b| b.cc.contains(&gpu.cc)).count();
    if knowing == branches.len() {
        let message = format!("{} knows {}", driver.describe(), gpu.describe());
        return vec![Finding::new(ID, Outcome::Holds, message, about_image(case, "any image".to_owned()))];
    }
    let Some(row) = case.catalog.driver_archs.iter().find(|a| a.cc == gpu.cc) else { return Vec::new() };
    let too_early = |b: &&&crate::catalog::Branch| b.branch < row.first_branch;
    if !branches.iter().any(|b| too_early(&b)) {
        return Vec::new();
    }
    // A driver that reports an older CUDA than the first one with the architecture cannot know it either.
    let arch = case.catalog.arch_row(gpu.cc).filter(|a| !a.status.is_inferred());
    let documented = |b: &crate::catalog::Branch| {
        !b.status.is_inferred()
            && (!row.status.is_inferred()
                || arch.is_some_and(|a| a.first_toolkit > b.cuda_max && b.cuda_is_sure()))
    };
    let all = branches.iter().all(|b| too_early(&b) && documented(b)) && case.driver_is_sure();
    let message = format!(
        "{} needs driver branch {} or newer; the host has {}",
        gpu.describe(),
        row.first_branch,
        driver.text
    );
    vec![
        Finding::new(
            ID,
            breaks_if(all),
            message,
            about_image(case, "nothing that could change this".to_owned()),
        )
        .headline(format!("GPU unknown to {}", driver.describe()))
        .component(gpu.describe())
        .host(format!("{} does not list compute capability {}", driver.describe(), gpu.cc))
        .error(case.error(100))
        .remedy(format!("update the host to driver branch {} or newer", row.first_branch)),
    ]
}
