//! The stub of libcuda, which is for linking only, is what the loader finds.

use super::linking::{at, says};
use super::{Case, Rule};
use crate::facts::FileFacts;
use crate::inventory::loader::Via;
use crate::report::{Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL311", name: "stub-driver" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the loader finds the stub of the driver library instead of the host's",
    image_only: true,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let members = case.inventory.loading.iter().flat_map(|g| &g.members);
    let loads = members.flat_map(|m| m.process.objects.iter().flat_map(|o| &o.loads));
    let stubs: Vec<(&FileFacts, Option<Via>)> = loads
        .filter(|l| l.name.starts_with("libcuda.so"))
        .filter_map(|l| Some((l.file.filter(|f| is_stub(f))?, l.via)))
        .collect();
    if let Some((stub, via)) = stubs.first() {
        let how = via.map_or("its path", Via::name);
        let message = format!("programs load the stub of libcuda (by {how}) instead of the host's driver");
        let finding = Finding::new(ID, Outcome::Breaks, message, vec![at(stub, "a stub: for linking only")])
            .headline("stub of libcuda is loaded")
            .error(case.error(34).or_else(|| says("CUDA driver is a stub library")))
            .remedy(format!("take {} out of LD_LIBRARY_PATH and of ld.so.conf", stub.place.path.parent()))
            .remedy(format!("delete {} in the final image", stub.place.path));
        return vec![finding];
    }
    on_path(case).into_iter().collect()
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
