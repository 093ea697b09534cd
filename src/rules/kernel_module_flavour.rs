//! The host's kernel modules are of the flavour that does not drive its GPU.

use super::reasoning::about_image;
use super::{Case, Reads, Rule};
use crate::report::{Finding, Outcome, RuleId};
use crate::target::profile::KernelModule;
use crate::version::ComputeCapability;

const ID: RuleId = RuleId { code: "CUL111", name: "kernel-module-flavour" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the host's kernel modules (open or proprietary) do not drive its GPU",
    reads: Reads::GPU.and(Reads::HOST),
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let (Some(gpu), Some(flavour)) = (case.gpu, case.host.kernel_module) else { return Vec::new() };
    if gpu.tegra || !case.inventory.uses_gpu() {
        return Vec::new();
    }
    let from = |major, minor| gpu.cc >= ComputeCapability { major, minor };
    let superchip = gpu.product.as_deref().is_some_and(|p| p.contains("GH200"));
    let (wrong, need) = match flavour {
        KernelModule::Proprietary => (from(10, 0) || superchip, "open"),
        KernelModule::Open => (!from(7, 5), "proprietary"),
    };
    let evidence = about_image(case, "software that uses the GPU".to_owned());
    if !wrong {
        let message = format!("the host's kernel modules drive {}", gpu.describe());
        return vec![Finding::new(ID, Outcome::Holds, message, evidence)];
    }
    let have = match flavour {
        KernelModule::Open => "open",
        KernelModule::Proprietary => "proprietary",
    };
    let message = format!("{} needs the {need} kernel modules; the host has the {have} ones", gpu.describe());
    vec![
        Finding::new(ID, Outcome::Breaks, message, evidence)
            .headline(format!("GPU needs the {need} kernel modules"))
            .component("driver")
            .host(format!("{have} kernel modules"))
            .error(case.error(100))
            .remedy(format!("install the {need} flavour of the driver on the host")),
    ]
}
