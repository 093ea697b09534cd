//! The host's container toolkit has known vulnerabilities, which a container image can use.

use super::reasoning::about_image;
use super::{Case, Rule};
use crate::catalog::ToolkitFix;
use crate::report::{Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL604", name: "toolkit-security-fix-missing" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the host's container toolkit has known vulnerabilities",
    image_only: false,
    judge,
};

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let Some(toolkit) = &case.host.container_toolkit else { return Vec::new() };
    let mut open: Vec<&ToolkitFix> =
        case.catalog.toolkit_fixes.iter().filter(|f| *toolkit <= f.affected_up_to).collect();
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
    let message = format!(
        "container toolkit {toolkit} has known vulnerabilities ({}{more}), mended in {fixed}",
        names.join(", ")
    );
    vec![
        Finding::new(ID, Outcome::Holds, message, evidence)
            .level(if rank(worst) <= 1 { Level::Warning } else { Level::Note })
            .headline("container toolkit lacks security fixes")
            .component("container-toolkit")
            .host(format!("{} ({}): {}", worst.cve, worst.severity.to_lowercase(), worst.effect))
            .remedy(format!("update the container toolkit of the host to {fixed} or newer"))
            .remedy(format!("read https://nvidia.custhelp.com/app/answers/detail/a_id/{}", worst.bulletin)),
    ]
}
