//! TensorFlow opens CUDA libraries by name at run time; where one is missing it computes on the CPU without an error.

use super::linking::{and, anywhere, at, at_place, pip_package, says};
use super::{Case, Reads, Rule, breaks_if};
use crate::catalog::DlopenRow;
use crate::inventory::frameworks::Framework;
use crate::inventory::loader::Load;
use crate::report::{Finding, How, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL320", name: "tensorflow-libraries-missing" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "TensorFlow does not find a CUDA library that it opens, and computes on the CPU",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    if case.inventory.facts.is_single_file() {
        return Vec::new();
    }
    case.inventory.family("tensorflow").filter_map(|f| one(case, f)).collect()
}

fn row<'c>(case: &Case<'c>, framework: &Framework) -> Option<&'c DlopenRow> {
    let cuda = framework.cuda.as_ref()?.major_minor();
    let fits = |r: &&DlopenRow| r.framework == "tensorflow" && r.cuda_from <= cuda && cuda < r.cuda_below;
    case.catalog.dlopens.iter().find(fits)
}

/// What each name that TensorFlow opens resolves to, from the libraries that open them.
pub(super) fn opens<'c>(case: &Case<'c>, framework: &Framework) -> Option<Vec<(String, Load<'c>)>> {
    let row = row(case, framework).filter(|_| framework.family == "tensorflow")?;
    let loader = &case.inventory.processes.loader;
    let caller = caller(case, framework)?;
    let mut process = case.inventory.processes.open(caller)?;
    let index = process.objects.iter().position(|o| o.file.place == caller.place)?;
    Some(row.sonames.iter().map(|name| (name.clone(), loader.open_name(&mut process, index, name))).collect())
}

/// The library that opens the others: its search path counts, not that of TensorFlow's other libraries (measured).
fn caller<'c>(case: &Case<'c>, framework: &Framework) -> Option<&'c crate::facts::FileFacts> {
    let paths = &case.inventory.processes.loader.paths;
    let names = [
        "libtensorflow_framework.so.2",
        "libtensorflow_framework.so.1",
        "python/_pywrap_tensorflow_internal.so",
    ];
    names.iter().find_map(|name| paths.file(&format!("{}tensorflow/{name}", framework.site)))
}

fn one(case: &Case<'_>, framework: &Framework) -> Option<Finding> {
    let row = row(case, framework)?;
    let opened = opens(case, framework)?;
    let lost: Vec<String> = opened.iter().filter(|(_, l)| l.is_lost()).map(|(n, _)| n.clone()).collect();
    let cuda = framework.cuda.as_ref().map(ToString::to_string).unwrap_or_default();
    let what = format!("tensorflow {} for CUDA {cuda}", framework.version_text);
    let Some(first) = lost.first() else {
        let message = format!("{what} finds all {} CUDA libraries that it opens", opened.len());
        let evidence = vec![at_place(&framework.place, "looked up as its libraries would")];
        return Some(Finding::new(ID, Outcome::Holds, message, evidence).component("tensorflow"));
    };
    let mut evidence =
        vec![at_place(&framework.place, format!("built for CUDA {cuda}, from {}", framework.how))];
    let tried = opened.iter().find(|(n, _)| n == first).map(|(_, l)| l.tried_count).unwrap_or_default();
    evidence.extend(
        caller(case, framework).map(|f| at(f, format!("opens {first}; not found in {tried} directories"))),
    );
    let somewhere = anywhere(case, first);
    evidence.extend(somewhere.map(|f| at(f, "is there, but in none of them")));
    let are = if lost.len() == 1 { "is" } else { "are" };
    // Where the wheels are the only source, nothing else leads to them; a toolkit's directory may be named by a start script.
    let by_script =
        lost.iter().all(|n| anywhere(case, n).is_some_and(|f| !f.place.path.as_str().contains("-packages/")));
    let outcome = if by_script { Outcome::Unknown } else { breaks_if(!row.status.is_inferred()) };
    let may = if outcome == Outcome::Breaks { "computes" } else { "may compute" };
    let message = format!("{what} {may} on the CPU: {} {are} not found", and(&lost));
    let mut finding = Finding::new(ID, outcome, message, evidence)
        .headline(if outcome == Outcome::Breaks { "TensorFlow falls back to the CPU" } else { "TensorFlow may fall back to the CPU" })
        .component("tensorflow")
        .error(says("Cannot dlopen some GPU libraries. Please make sure the missing libraries mentioned above are installed properly if you would like to use GPU. […] Skipping registering GPU devices..."));
    let version = framework.version.as_ref();
    if outcome == Outcome::Breaks {
        finding = finding.how(How::CpuFallback);
    }
    let has_extra = version.is_some_and(|v| *v >= Version::of(2, 14));
    let one = pip_package(case, first, None)
        .filter(|_| lost.len() == 1 && version.is_some_and(|v| *v >= Version::of(2, 15)));
    finding = match (somewhere, one) {
        (Some(file), _) => {
            finding.remedy(format!("set LD_LIBRARY_PATH={} in the image", file.place.path.parent()))
        }
        (None, Some(package)) => finding.remedy(format!("pip install {package}")),
        (None, None) if has_extra => finding.remedy("pip install tensorflow[and-cuda]"),
        (None, None) => finding.remedy(format!("use a base image with CUDA {cuda} and its cuDNN")),
    };
    Some(finding)
}
