//! CuPy imports without any CUDA library and fails at the first kernel: it compiles with NVRTC of its own CUDA major.

use super::linking::{anywhere, at_place, says};
use super::{Case, Reads, Rule};
use crate::report::{Finding, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL322", name: "cupy-libraries-missing" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the NVRTC that CuPy compiles its kernels with is not in the image",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    if case.inventory.facts.is_single_file() {
        return out;
    }
    for cupy in case.inventory.family("cupy") {
        // cupy-cuda12x: the wheel's name says the CUDA major.
        let Some(major) = cupy.name.strip_prefix("cupy-cuda").and_then(|n| n.strip_suffix('x')) else {
            continue;
        };
        let soname =
            if major == "11" { "libnvrtc.so.11.2".to_owned() } else { format!("libnvrtc.so.{major}") };
        if let Some(file) = anywhere(case, &soname) {
            let message =
                format!("NVRTC of CUDA {major}, which {} compiles with, is in the image", cupy.name);
            let evidence = vec![super::linking::at(file, "the NVRTC of that major")];
            out.push(Finding::new(ID, Outcome::Holds, message, evidence).component("cupy"));
            continue;
        }
        let message =
            format!("{} {} needs {soname}, which is nowhere in the image", cupy.name, cupy.version_text);
        let evidence = vec![at_place(&cupy.place, format!("for CUDA {major}, by its name"))];
        out.push(
            Finding::new(ID, Outcome::Breaks, message, evidence)
                .headline(format!("CuPy without {soname}"))
                .component("cupy")
                .error(says(format!("RuntimeError: CuPy failed to load {soname}: OSError: {soname}: cannot open shared object file: No such file or directory")))
                .remedy(if major == "13" { "pip install nvidia-cuda-nvrtc".to_owned() } else { format!("pip install nvidia-cuda-nvrtc-cu{major}") })
                .remedy("install the cupy wheel for the CUDA in the image"),
        );
    }
    out
}
