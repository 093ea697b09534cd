//! A part of the code covers the GPU, a part does not, and no sibling file of the package does better.

use super::reasoning::{Judgement, code_lines, judge_code};
use super::{Case, Reads, Rule};
use crate::inventory::gpu_code::{Coverage, GroupRole, Reach};
use crate::report::{Finding, Level, Outcome, RuleId};
use crate::target::Gpu;

const ID: RuleId = RuleId { code: "CUL204", name: "partial-gpu-cover" };
pub(super) const RULE: Rule =
    Rule { id: ID, summary: "only a part of a library's code covers the GPU", reads: Reads::ALL, judge };

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(gpu) = case.gpu else { return Vec::new() };
    let mut out = Vec::new();
    for part in judge_code(case) {
        let best = part.best();
        let reaches = matches!(part.reach, Reach::Native | Reach::Jit);
        if part.group.role != GroupRole::Application || !reaches {
            continue;
        }
        out.extend(sibling_note(&part, gpu));
        let whole = if part.reach == Reach::Jit { best.covered() } else { best.native };
        if whole >= best.counted {
            continue;
        }
        let name = &part.group.name;
        let code = if best.too_new > best.none { 222 } else { 209 };
        let jit = match best.jit {
            0 => String::new(),
            n => format!(", {n} of them by PTX"),
        };
        let (covered, counted) = (best.covered(), best.counted);
        let message = format!("{covered} of {counted} containers in {name} cover {}{jit}", gpu.describe());
        // Libraries keep kernels for single architectures beside each other; a loss to speak of begins at the half.
        // The same where most kernels are compiled at first start.
        let mostly_jit = part.reach == Reach::Native && best.native.saturating_mul(2) <= best.counted;
        let half = best.covered().saturating_mul(2) <= best.counted || mostly_jit;
        let outcome = if half { Outcome::Degrades } else { Outcome::Holds };
        let finding = Finding::new(ID, outcome, message, part.evidence())
            .headline(format!("{name} covers the GPU in part"))
            .component(name.clone())
            .host(match best.counted.saturating_sub(best.covered()) {
                0 => "PTX is compiled at first start".to_owned(),
                lost => format!("kernels of the other {lost} containers return error {code} here"),
            });
        let finding = match half {
            true => finding
                .error(case.error(code).filter(|_| best.covered() < best.counted))
                .remedy(format!("use a build of {name} for sm_{}", gpu.cc.sm_number())),
            false => finding.level(Level::Note),
        };
        out.push(finding);
    }
    out
}

/// Files of a package without code for the GPU, beside one that has it: normal where the package selects by GPU.
fn sibling_note(part: &Judgement<'_>, gpu: &Gpu) -> Option<Finding> {
    let lacks = |c: &Coverage| matches!(c.reach(), Reach::None | Reach::PtxTooNew);
    let bare: Vec<_> = part.files().filter(|(_, c)| lacks(c)).collect();
    let evidence = code_lines(bare.iter().map(|(file, _)| *file));
    let name = &part.group.name;
    let message = format!(
        "{} of {} files of {name} have no code for {}; another file of the package has",
        bare.len(),
        part.files().count(),
        gpu.describe()
    );
    (!bare.is_empty()).then(|| {
        Finding::new(ID, Outcome::Holds, message, evidence).level(Level::Note).component(name.clone())
    })
}
