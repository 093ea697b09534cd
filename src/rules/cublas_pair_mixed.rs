//! cuBLAS and the cuBLASLt that it loads are of different releases.

use super::linking::{applications, at, library_text, object_of, says};
use super::{Case, Reads, Rule};
use crate::facts::FileFacts;
use crate::inventory::loader::Via;
use crate::report::{Finding, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL304", name: "cublas-pair-mixed" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "cuBLAS is loaded together with a cuBLASLt of another release",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut seen: Vec<(&FileFacts, &FileFacts)> = Vec::new();
    let mut out = Vec::new();
    for group in applications(case) {
        for member in &group.members {
            let (Some((_, blas)), Some((_, lt))) =
                (object_of(&member.process, "libcublas"), object_of(&member.process, "libcublasLt"))
            else {
                continue;
            };
            let known = seen.iter().any(|(a, b)| a.place == blas.file.place && b.place == lt.file.place);
            if known {
                continue;
            }
            seen.push((blas.file, lt.file));
            let by_path = lt.via == Some(Via::LibraryPath);
            out.extend(pair(case, &group.name, blas.file, lt.file, by_path));
        }
    }
    out
}

fn pair(case: &Case<'_>, group: &str, blas: &FileFacts, lt: &FileFacts, by_path: bool) -> Option<Finding> {
    let (a, b) = (case.inventory.version_at(blas)?, case.inventory.version_at(lt)?);
    if a.agrees_with(&b) {
        let message = format!("{} is loaded with its own cuBLASLt", library_text(case, blas));
        return Some(Finding::new(ID, Outcome::Holds, message, vec![at(blas, "same release")]));
    }
    let message = format!("{group} loads cuBLAS {a} with cuBLASLt {b}: the two are made for each other only");
    let evidence = vec![at(blas, format!("cuBLAS {a}")), at(lt, format!("cuBLASLt {b}, found first"))];
    let finding = Finding::new(ID, Outcome::Degrades, message, evidence)
        .headline("cuBLAS and cuBLASLt of different releases")
        .component(group.to_owned())
        .error(says("CUBLAS_STATUS_INVALID_VALUE when calling `cublasLtMatmul(...)`"));
    let finding = match by_path {
        true => finding.remedy(format!(
            "take {} out of LD_LIBRARY_PATH",
            case.inventory.processes.loader.as_named(&lt.place.path.parent())
        )),
        false => finding,
    };
    Some(finding.remedy("install one release of cuBLAS only"))
}
