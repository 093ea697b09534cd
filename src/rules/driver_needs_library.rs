//! What the injected libcuda needs from the image's C library is not there.

use super::linking::{at, cannot_open, says};
use super::{Case, Reads, Rule, breaks_if};
use crate::catalog::DriverNeed;
use crate::facts::FileFacts;
use crate::inventory::loader::Libc;
use crate::report::{Finding, Outcome, RuleId};
use crate::version::Version;

const ID: RuleId = RuleId { code: "CUL516", name: "driver-needs-library" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the image lacks a part of the C library that the driver's libcuda needs",
    reads: Reads::DRIVER,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let loader = &case.inventory.processes.loader;
    let branch = case.driver.and_then(crate::target::Driver::branch);
    let needs = branch.and_then(|b| {
        case.catalog.driver_needs.iter().find(|n| (n.branch_from..n.branch_below).contains(&b))
    });
    // A document about a part of an image says nothing of the rest.
    let whole = case.inventory.facts.complete && !case.inventory.facts.is_single_file();
    let (Some(needs), true, Libc::Glibc) = (needs, whole && case.inventory.uses_gpu(), loader.libc) else {
        return Vec::new();
    };
    let files = &case.inventory.facts.files;
    let named = |name: &str| files.iter().find(|f| f.elf.is_some() && f.place.path.file_name() == name);
    let Some(libc) =
        named("libc.so.6").or_else(|| files.iter().find(|f| f.place.path.file_name().starts_with("libc-2.")))
    else {
        return Vec::new();
    };
    let mut out: Vec<Finding> = old_glibc(case, needs, libc).into_iter().collect();
    let dir = libc.place.path.parent();
    let beside = |name: &str| {
        let path = format!("{dir}/{name}");
        loader.paths.file(&path).is_some() || files.iter().any(|f| soname(f) == Some(name))
    };
    // Only where the C library is there with its kin is the absence of one of them more than a gap in the document.
    if !beside("libm.so.6") {
        return out;
    }
    let missing: Vec<&String> = needs.libraries.iter().filter(|n| !beside(n)).collect();
    if missing.is_empty() && out.is_empty() {
        let message = "the C library has what libcuda needs of it".to_owned();
        out.push(Finding::new(ID, Outcome::Holds, message, vec![at(libc, "with its kin beside it")]));
    }
    if let Some(first) = missing.first() {
        let message = format!(
            "the image has glibc without {first}, which libcuda of {} needs",
            case.driver.map(crate::target::Driver::describe).unwrap_or_default()
        );
        let detail = format!("no {first} beside it, nor on another search path");
        out.push(
            Finding::new(ID, breaks_if(!needs.status.is_inferred()), message, vec![at(libc, detail)])
                .headline(format!("libcuda needs {first}"))
                .component("libc")
                .error(cannot_open(first))
                .remedy("copy the whole C library (package libc6 or glibc) into the image"),
        );
    }
    out
}

fn soname(file: &FileFacts) -> Option<&str> {
    file.elf.as_ref()?.soname.as_deref()
}

fn old_glibc(case: &Case<'_>, needs: &DriverNeed, libc: &FileFacts) -> Option<Finding> {
    let provided = &libc.elf.as_ref()?.versions_provided;
    let versions = provided.iter().filter_map(|v| Version::parse(v.strip_prefix("GLIBC_")?));
    let have = versions.max().filter(|v| *v < needs.glibc)?;
    let driver = case.driver.map(crate::target::Driver::describe).unwrap_or_default();
    // What an older branch is measured to need, a newer one does not need less.
    let measured = |n: &&DriverNeed| n.branch_from <= needs.branch_from && !n.status.is_inferred();
    let sure = case.catalog.driver_needs.iter().filter(measured).any(|n| have < n.glibc);
    let message = format!("libcuda of {driver} needs glibc {}; the image has {have}", needs.glibc);
    let text = format!("libc.so.6: version `GLIBC_{}' not found (required by libcuda.so.1)", needs.glibc);
    Some(
        Finding::new(ID, breaks_if(sure), message, vec![at(libc, format!("glibc {have}"))])
            .headline("glibc older than the driver needs")
            .component("libc")
            .error(says(text))
            .remedy("use a base image of a newer distribution release"),
    )
}
