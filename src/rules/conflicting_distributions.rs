//! Two distributions that put the same module into one site directory: the later one won.

use super::linking::{and, at_place, says};
use super::{Case, Reads, Rule};
use crate::inventory::frameworks::Framework;
use crate::report::{Finding, Outcome, RuleId};
use std::collections::BTreeMap;

const ID: RuleId = RuleId { code: "CUL408", name: "conflicting-distributions" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "two distributions that bring the same module are installed together",
    reads: Reads::IMAGE,
    judge,
};

/// Families whose distributions exclude each other, with what is printed or happens.
const EXCLUSIVE: [(&str, &str); 3] = [
    ("onnxruntime", "Specified provider 'CUDAExecutionProvider' is not in available provider names."),
    (
        "cupy",
        "CuPy may not function correctly because multiple CuPy packages are installed in your environment:",
    ),
    ("tensorflow", "(no message: the module of the package that was installed last is imported)"),
];

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    for (family, text) in EXCLUSIVE {
        let mut by_site: BTreeMap<&str, Vec<&Framework>> = BTreeMap::new();
        for framework in case.inventory.family(family).filter(|f| f.origin == "pip") {
            by_site.entry(&framework.site).or_default().push(framework);
        }
        for several in by_site.values().filter(|s| s.len() > 1) {
            let short: Vec<String> = several.iter().map(|f| f.name.clone()).collect();
            let names: Vec<String> =
                several.iter().map(|f| format!("{} {}", f.name, f.declared_version)).collect();
            let message = format!("{} are installed together; they bring the same module", and(&names));
            let evidence = several
                .iter()
                .map(|f| at_place(&f.declared, format!("{} {}", f.name, f.declared_version)))
                .collect();
            out.push(
                Finding::new(ID, Outcome::Degrades, message, evidence)
                    .headline(format!("{} are both installed", and(&short)))
                    .component(family)
                    .error(says(text))
                    .remedy("uninstall all of them, then install the one for the GPU"),
            );
        }
    }
    out
}
