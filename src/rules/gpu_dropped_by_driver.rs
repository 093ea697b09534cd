//! The GPU is older than the driver branch still supports.

use super::reasoning::about_image;
use super::{Case, Reads, Rule, breaks_if};
use crate::report::{Finding, RuleId};

const ID: RuleId = RuleId { code: "CUL107", name: "gpu-dropped-by-driver" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the driver branch no longer supports the GPU",
    reads: Reads::DRIVER.and(Reads::GPU),
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let (Some(driver), Some(gpu)) = (case.driver, case.gpu) else { return Vec::new() };
    if !case.inventory.uses_gpu() {
        return Vec::new();
    }
    let Some(branch) = driver.branch().and_then(|b| case.catalog.branch(b)) else { return Vec::new() };
    if branch.cc.contains(&gpu.cc) {
        return Vec::new();
    }
    let Some(row) = case.catalog.driver_archs.iter().find(|a| a.cc == gpu.cc) else { return Vec::new() };
    let Some(last) = row.last_branch.filter(|last| *last < branch.branch) else { return Vec::new() };
    let message =
        format!("driver branch {last} is the last one for {}; the host has {}", gpu.describe(), driver.text);
    let sure = !branch.status.is_inferred() && !row.status.is_inferred() && case.driver_is_sure();
    vec![
        Finding::new(
            ID,
            breaks_if(sure),
            message,
            about_image(case, "nothing that could change this".to_owned()),
        )
        .headline(match sure {
            true => format!("GPU dropped by {}", driver.describe()),
            false => format!("GPU perhaps dropped by {}", driver.describe()),
        })
        .component(gpu.describe())
        .host(format!("{} does not list compute capability {}", driver.describe(), gpu.cc))
        .error(case.error(100))
        .remedy(format!("keep a driver of branch {last} on hosts with this GPU")),
    ]
}
