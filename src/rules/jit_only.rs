//! PTX only: the driver compiles at the first start, which takes from seconds to many minutes.

use super::reasoning::{driver_for_ptx, isa_text, judge_code, ptx_limit};
use super::{Case, Reads, Rule};
use crate::inventory::gpu_code::Reach;
use crate::report::{Finding, How, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL202", name: "jit-only" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "no machine code for the GPU: the driver compiles PTX at first start",
    reads: Reads::ALL,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(gpu) = case.gpu else { return Vec::new() };
    // Where the image forbids it, nothing is compiled: the rule about that variable speaks.
    if super::jit_setting::is_on(case, "CUDA_DISABLE_PTX_JIT") {
        return Vec::new();
    }
    let env = |name: &str| case.inventory.facts.image.config.env(name);
    let own_cache = env("CUDA_CACHE_PATH").is_some() || super::jit_setting::is_on(case, "CUDA_CACHE_DISABLE");
    let limit = ptx_limit(case);
    let mut out = Vec::new();
    for part in judge_code(case).into_iter().filter(|p| p.reach == Reach::Jit) {
        let name = &part.group.name;
        let isa = part.best().isa;
        let host = match (&limit, driver_for_ptx(case, isa)) {
            (Some(limit), _) => format!("{} compiles PTX up to ISA {}", limit.who, limit.isa),
            (None, Some((branch, cuda))) => {
                format!("PTX {} needs a driver of CUDA {cuda} (branch {branch}) or newer", isa_text(isa))
            }
            (None, None) => format!("which driver compiles PTX {} is not known", isa_text(isa)),
        };
        let message =
            format!("{name} has no machine code for {}: its PTX is compiled at first start", gpu.describe());
        let mut finding = Finding::new(ID, Outcome::Degrades, message, part.evidence())
            .headline(format!("JIT compilation of {name}"))
            .component(name.clone())
            .host(host)
            .how(How::Jit)
            .remedy(format!("use a build of {name} with machine code for sm_{}", gpu.cc.sm_number()));
        if !own_cache {
            finding =
                finding.remedy("keep ~/.nv/ComputeCache on a volume, so that only the first start pays");
        }
        if limit.as_ref().is_some_and(|l| l.by_compat) {
            finding = finding.how(How::ForwardCompatibility);
        }
        out.push(finding);
    }
    out
}
