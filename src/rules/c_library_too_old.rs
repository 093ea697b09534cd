//! A library of the stack was built for a newer glibc or libstdc++ than the image has.

use super::linking::{applications, at, best_member, says};
use super::{Case, Reads, Rule};
use crate::inventory::gaps::{Gap, Missing};
use crate::report::{Finding, Outcome, RuleId};

const ID: RuleId = RuleId { code: "CUL303", name: "c-library-too-old" };
pub(super) const RULE: Rule = Rule {
    id: ID,
    summary: "the image's glibc or libstdc++ is older than a part of the stack was built for",
    reads: Reads::IMAGE,
    judge,
};

/// Whether a gap is one of the C or C++ library; others are missing symbols of some library.
pub(super) fn is_version(gap: &Gap<'_>) -> bool {
    const FAMILIES: [&str; 4] = ["GLIBC_", "GLIBCXX_", "CXXABI_", "GCC_"];
    matches!(&gap.what, Missing::Version(v) if FAMILIES.iter().any(|f| v.starts_with(f)))
}

fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    for group in applications(case).filter(|g| g.fails(case.catalog)) {
        let Some(gap) = best_member(case, group).and_then(|m| m.gaps.iter().find(|g| is_version(g))) else {
            continue;
        };
        let (Missing::Version(version), Some(provider)) = (&gap.what, gap.provider) else { continue };
        let have =
            provider.elf.as_ref().and_then(|e| newest(&e.versions_provided, version)).unwrap_or_default();
        let name = provider.place.path.file_name();
        let message = format!("{} needs {version}; {name} of the image stops at {have}", group.name);
        let evidence = vec![
            at(gap.object, format!("needs {version}")),
            at(provider, format!("has versions up to {have}")),
        ];
        out.push(
            Finding::new(ID, Outcome::Breaks, message, evidence)
                .headline(format!("needs {version}"))
                .component(group.name.clone())
                .error(says(gap.text()))
                .remedy("use a base image of a newer distribution release")
                .remedy(format!("use a build of {} for an older distribution", group.name)),
        );
    }
    out
}

/// The newest version of the same family: `GLIBCXX_3.4.30`.
fn newest(provided: &[String], like: &str) -> Option<String> {
    let family = like.rsplit_once('_')?.0;
    let of_family = provided.iter().filter(|v| v.rsplit_once('_').is_some_and(|(f, _)| f == family));
    of_family.max_by_key(|v| v.rsplit('_').next().and_then(crate::version::Version::parse)).cloned()
}
