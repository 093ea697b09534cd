//! The host's container toolkit has known vulnerabilities, which a container image can use.

use super::reasoning::about_image;
use super::{Case, Reads, Rule};
use crate::catalog::ToolkitFix;
use crate::report::{Finding, Level, Outcome, RuleId};
use crate::target::profile::RuntimeMode;

const ID: RuleId = RuleId { code: "CUL604", name: "toolkit-security-fix-missing" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the host's container toolkit has known vulnerabilities",
    reads: Reads::HOST,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(toolkit) = &case.host.container_toolkit else { return Vec::new() };
    let mode = case.mode().map(|(mode, _)| mode);
    let concerns = |f: &&ToolkitFix| {
        let by_mode = match mode {
            Some(RuntimeMode::Cdi) => !f.legacy_only,
            Some(_) => f.cdi_only_below.as_ref().is_none_or(|v| toolkit >= v),
            None => true,
        };
        *toolkit <= f.affected_up_to && by_mode
    };
    let mut open: Vec<&ToolkitFix> = case.catalog.toolkit_fixes.iter().filter(concerns).collect();
    let evidence = about_image(case, "nothing; this is about the host".to_owned());
    let rank = |f: &ToolkitFix| match f.severity.as_str() {
        "CRITICAL" => 0,
        "HIGH" => 1,
        _ => 2,
    };
    open.sort_by_key(|f| (rank(f), std::cmp::Reverse(f.bulletin)));
    let (Some(worst), Some(fixed)) = (open.first(), open.iter().map(|f| &f.fixed_version).max()) else {
        let message = format!("container toolkit {toolkit} has no known vulnerability");
        return vec![Finding::new(ID, Outcome::Holds, message, evidence).component("container-toolkit")];
    };
    let names: Vec<&str> = open.iter().map(|f| f.cve.as_str()).take(4).collect();
    let more = open.len().saturating_sub(names.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let many = if open.len() == 1 { "a known vulnerability" } else { "known vulnerabilities" };
    let message =
        format!("container toolkit {toolkit} has {many} ({}{more}), mended in {fixed}", names.join(", "));
    let effect = worst.effect.split(['.', ':']).next().unwrap_or_default();
    vec![
        Finding::new(ID, Outcome::Holds, message, evidence)
            .level(if rank(worst) == 0 { Level::Warning } else { Level::Note })
            .headline("container toolkit lacks security fixes")
            .component("container-toolkit")
            .host(format!("{} ({}): {}", worst.cve, worst.severity.to_lowercase(), effect.trim()))
            .remedy(format!("update the container toolkit of the host to {fixed} or newer"))
            .remedy(format!("read https://nvidia.custhelp.com/app/answers/detail/a_id/{}", worst.bulletin)),
    ]
}
