//! The stub of libcuda, which is for linking only, is what the loader finds.

use super::linking::{applications, at, says};
use super::{Case, Reads, Rule};
use crate::facts::FileFacts;
use crate::inventory::loader::Via;
use crate::inventory::loading::Opened;
use crate::report::{Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL502", name: "stub-driver" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the loader finds the stub of the driver library instead of the host's",
    reads: Reads::IMAGE,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let applications: Vec<&Opened> = applications(case).flat_map(|g| &g.members).collect();
    let stubs: Vec<(&FileFacts, Option<Via>)> =
        applications.iter().filter_map(|m| opened_driver(case, m)).collect();
    if let Some((stub, via)) = stubs.first() {
        let how = via.map_or("its path", Via::name);
        let message = format!("programs load the stub of libcuda (by {how}) instead of the host's driver");
        // ldconfig, which the container runtime runs, leads links of system directories to the host's file.
        let relinked = matches!(via, Some(Via::Default | Via::Cache));
        let outcome = if relinked { Outcome::Degrades } else { Outcome::Breaks };
        let finding = Finding::new(ID, outcome, message, vec![at(stub, "a stub: for linking only")])
            .headline("stub of libcuda is loaded")
            .error(case.error(34).or_else(|| says("CUDA driver is a stub library")));
        let dir = case.inventory.processes.loader.as_named(&stub.place.path.parent());
        let finding = match via {
            Some(Via::Conf) => finding.remedy(format!("take {dir} out of /etc/ld.so.conf.d")),
            Some(Via::LibraryPath) => finding.remedy(format!("take {dir} out of LD_LIBRARY_PATH")),
            _ => finding.remedy("delete the link to the stub"),
        }
        .remedy(format!("delete {} in the final image", stub.place.path));
        return vec![finding];
    }
    on_path(case).into_iter().collect()
}

/// The stub that a program gets for libcuda: by its needs, or as the CUDA runtime opens it.
fn opened_driver<'c>(case: &Case<'c>, member: &Opened<'c>) -> Option<(&'c FileFacts, Option<Via>)> {
    const NAME: &str = "libcuda.so.1";
    let needed = member.process.objects.iter().flat_map(|o| &o.loads).find(|l| l.name == NAME);
    let found = if let Some(load) = needed {
        (load.file, load.via)
    } else {
        let runtime = |o: &crate::inventory::loader::Object| {
            o.elf.cudart.is_some() || o.elf.dlopens.iter().any(|d| d.starts_with("libcuda.so"))
        };
        let opener = member.process.objects.iter().position(runtime)?;
        let mut process = member.process.clone();
        let load = case.inventory.processes.loader.open_name(&mut process, opener, NAME);
        (load.file, load.via)
    };
    Some((found.0.filter(|f| is_stub(f))?, found.1))
}

fn is_stub(file: &FileFacts) -> bool {
    file.place.path.parent().file_name() == "stubs"
}

/// The directory is searched, but the stub has only the name that linkers use (`libcuda.so`).
fn on_path(case: &Case<'_>) -> Option<Finding> {
    let loader = &case.inventory.processes.loader;
    let dir = loader.library_path().iter().find(|d| loader.paths.real(d).file_name() == "stubs")?;
    let stub = loader.paths.file(&format!("{}/libcuda.so", dir.trim_end_matches('/')))?;
    let message = format!("LD_LIBRARY_PATH names {dir}, whose libcuda is a stub");
    let finding = Finding::new(ID, Outcome::Degrades, message, vec![at(stub, "a stub: for linking only")]);
    Some(
        finding
            .level(Level::Warning)
            .headline("stubs on LD_LIBRARY_PATH")
            .error(case.error(34))
            .remedy(format!("take {dir} out of LD_LIBRARY_PATH")),
    )
}
