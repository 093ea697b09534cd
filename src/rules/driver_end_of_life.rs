//! The driver branch of the host gets no more fixes, or soon will not.

use super::reasoning::about_image;
use super::{Case, Reads, Rule};
use crate::catalog::Branch;
use crate::report::{Finding, Level, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL607", name: "driver-end-of-life" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the host's driver branch is out of support, or nearly so",
    reads: Reads::DRIVER,
    judge,
};

/// Days before the end from which on it is said.
const DAYS_BEFORE: i64 = 120;

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let branch = case.driver.and_then(crate::target::Driver::branch).and_then(|b| case.catalog.branch(b));
    let (Some(branch), Some(driver), Some(_)) = (branch, case.driver, case.policy.profile) else {
        return Vec::new();
    };
    let (Some(end), Some(today)) =
        (branch.end_of_life.as_deref().and_then(months), months(&case.policy.as_of))
    else {
        return Vec::new();
    };
    let end_text = branch.end_of_life.clone().unwrap_or_default();
    let evidence = about_image(case, "nothing; this is about the host".to_owned());
    // Branches end with a month, so months are counted.
    let left = (end - today) * 30;
    let (message, headline) = if left < 0 {
        (
            format!("driver branch {} is out of support since {end_text}", branch.branch),
            "driver out of support",
        )
    } else if left <= DAYS_BEFORE {
        (format!("support of driver branch {} ends in {end_text}", branch.branch), "driver support ends soon")
    } else {
        let message = format!("driver branch {} is under support until {end_text}", branch.branch);
        return vec![Finding::new(ID, Outcome::Holds, message, evidence)];
    };
    let finding = Finding::new(ID, Outcome::Holds, message, evidence)
        .level(Level::Note)
        .headline(headline)
        .component("driver")
        .host(driver.describe());
    vec![match successor(case, branch) {
        Some(remedy) => finding.remedy(remedy),
        None => finding,
    }]
}

/// Where to move from a branch: of the newer ones under support the one with the longest life.
pub(super) fn successor(case: &Case<'_>, branch: &Branch) -> Option<String> {
    let today = months(&case.policy.as_of)?;
    let alive = |b: &&Branch| {
        let end = b.end_of_life.as_deref().and_then(months);
        b.is_stable() && end.is_some_and(|e| e > today)
    };
    let newer = case.catalog.branches.iter().filter(|b| b.branch > branch.branch && !b.status.is_inferred());
    let best = newer.filter(alive).max_by_key(|b| b.end_of_life.clone())?;
    let until = best.end_of_life.clone().unwrap_or_default();
    Some(format!("move the host to driver branch {} (supported until {until})", best.branch))
}

/// `2026-06` or `2026-06-30` as a number of months.
fn months(date: &str) -> Option<i64> {
    let mut parts = date.split('-').map(str::parse::<i64>);
    Some(parts.next()?.ok()? * 12 + parts.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::months;

    #[test]
    fn dates_are_counted_in_months() {
        assert_eq!(months("2026-06").unwrap() - months("2025-12-31").unwrap(), 6);
        assert_eq!(months("soon"), None);
    }
}
