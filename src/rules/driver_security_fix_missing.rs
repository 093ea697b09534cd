//! The host driver is older than the release of its branch that mends known vulnerabilities.

use super::reasoning::about_image;
use super::{Case, Reads, Rule};
use crate::report::{Finding, Level, Outcome, RuleId};
use crate::target::profile::Kind;

const ID: RuleId = RuleId { code: "CUL603", name: "driver-security-fix-missing" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the host driver lacks a security fix of its branch, or its branch gets none any more",
    reads: Reads::DRIVER.and(Reads::HOST),
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    // The number of a Windows driver is not that of the Linux branch that it counts as.
    let wsl = case.host.kind == Some(Kind::Wsl);
    let Some(driver) = case.driver.filter(|d| d.is_exact() && !d.known.tegra && !wsl) else {
        return Vec::new();
    };
    let (Some(branch), Some(version)) = (driver.branch(), &driver.version) else { return Vec::new() };
    let Some(fix) = case.catalog.driver_fixes.iter().find(|f| f.branch == branch) else { return Vec::new() };
    let evidence = about_image(case, "nothing; this is about the host".to_owned());
    let finding =
        |outcome, message: String| Finding::new(ID, outcome, message, evidence.clone()).component("driver");
    let link = || format!("read https://nvidia.custhelp.com/app/answers/detail/a_id/{}", fix.bulletin);
    vec![if *version < fix.fixed_version {
        let message = format!(
            "driver {version} lacks security fixes of bulletin {}: branch {branch} has them from {} on",
            fix.bulletin, fix.fixed_version
        );
        finding(Outcome::Holds, message)
            .level(Level::Note)
            .headline("driver lacks security fixes")
            .remedy(format!("update the host to driver {} or newer", fix.fixed_version))
            .remedy(link())
    } else if case.catalog.driver_fixes.iter().all(|f| f.bulletin <= fix.bulletin) {
        finding(Outcome::Holds, format!("driver {version} has the fixes of bulletin {}", fix.bulletin))
    } else {
        let message = format!("branch {branch} gets no more security fixes ({})", fix.state);
        finding(Outcome::Holds, message)
            .level(Level::Note)
            .headline("driver branch without fixes")
            .remedy("move the host to a supported branch")
            .remedy(link())
    }]
}
