//! torchvision or torchaudio is built for another CUDA than torch: they refuse to be imported.

use super::linking::{at_place, says};
use super::{Case, Reads, Rule};
use crate::report::{Finding, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL404", name: "torch-companion-cuda" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "torchvision or torchaudio is built for another CUDA than torch",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(torch) = case.inventory.framework("torch") else { return Vec::new() };
    let Some(torch_cuda) = &torch.cuda else { return Vec::new() };
    let mut out = Vec::new();
    for (name, display) in [("torchvision", "torchvision"), ("torchaudio", "TorchAudio")] {
        let Some((companion, cuda)) =
            case.inventory.framework(name).and_then(|c| Some((c, c.cuda.as_ref()?)))
        else {
            continue;
        };
        let evidence = vec![
            at_place(&torch.place, format!("torch {} is for CUDA {torch_cuda}", torch.version_text)),
            at_place(&companion.place, format!("{name} {} is for CUDA {cuda}", companion.version_text)),
        ];
        // torchvision compares majors, before 0.16 the whole release as torchaudio does.
        let fits = match name {
            "torchvision" if companion.version.as_ref().is_none_or(|v| *v >= Version::of(0, 16)) => {
                cuda.major() == torch_cuda.major()
            }
            _ => cuda.major_minor() == torch_cuda.major_minor(),
        };
        if fits {
            let message = format!("{name} for CUDA {cuda} and torch for CUDA {torch_cuda} fit");
            out.push(Finding::new(ID, Outcome::Holds, message, evidence).component(name));
            continue;
        }
        let by_major =
            name == "torchvision" && companion.version.as_ref().is_none_or(|v| *v >= Version::of(0, 16));
        let what = if by_major { "CUDA major versions" } else { "CUDA versions" };
        let text =
            format!("RuntimeError: Detected that PyTorch and {display} were compiled with different {what}.");
        let message = format!("{name} is built for CUDA {cuda}, torch for CUDA {torch_cuda}");
        out.push(
            Finding::new(ID, Outcome::Breaks, message, evidence)
                .headline(format!("{name} and torch for different CUDA"))
                .component(name)
                .error(says(text))
                .remedy(format!(
                    "install {name} and torch from the same index (both +cu{}{})",
                    torch_cuda.major(),
                    torch_cuda.minor()
                )),
        );
    }
    out
}
