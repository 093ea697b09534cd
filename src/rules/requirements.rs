//! Requirements of Python distributions (PEP 508) as far as the rules read them: name, version bounds, and whether they
//! are for this machine at all.

use crate::names::Platform;
use crate::version::Version;

/// `nvidia-cudnn-cu12<10.0,>=9.3.0.75; extra == "and-cuda"`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Requirement {
    /// Normalised.
    pub(super) name: String,
    /// As written: `<10.0,>=9.3.0.75`.
    pub(super) bounds: String,
    /// The condition behind `;`.
    marker: String,
}

/// PEP 503, for names that have no runs of separators.
fn normal(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

impl Requirement {
    /// `None` where no name stands in front.
    pub(super) fn parse(text: &str) -> Option<Requirement> {
        let (front, marker) = text.split_once(';').unwrap_or((text, ""));
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let end = front.find(|c| !is_name(c)).unwrap_or(front.len());
        let (name, rest) = front.split_at(end);
        // `cuda-toolkit[cublas]==13.0.2` and the old form `torch (==2.1.2)`.
        let rest = rest.trim();
        let rest = if rest.starts_with('[') { rest.split_once(']').map_or("", |(_, r)| r) } else { rest };
        let bounds = rest.trim().trim_matches(['(', ')']).trim().to_owned();
        (!name.is_empty()).then(|| Requirement {
            name: normal(name),
            bounds,
            marker: marker.trim().to_owned(),
        })
    }

    /// Whether it is asked for without naming an extra.
    pub(super) fn is_unconditional(&self) -> bool {
        !self.marker.contains("extra")
    }

    /// Whether its condition can hold on the platform: extras and other architectures do not.
    pub(super) fn applies(&self, platform: &Platform) -> bool {
        let machines = [("x86_64", "amd64"), ("aarch64", "arm64"), ("arm64", "arm64")];
        let names_other = machines.iter().any(|(machine, architecture)| {
            let this = *architecture == platform.architecture;
            let quoted =
                [format!("platform_machine == \"{machine}\""), format!("platform_machine == '{machine}'")];
            !this && quoted.iter().any(|q| self.marker.contains(q.as_str()))
        });
        const LINUX: [&str; 5] = ["linux", "Linux", "posix", "linux2", "CPython"];
        let other = |name: &str| {
            let rest = self.marker.split_once(name).map_or("", |(_, r)| r.trim_start());
            let (negated, rest) = match (rest.strip_prefix("=="), rest.strip_prefix("!=")) {
                (Some(rest), _) => (false, rest),
                (_, Some(rest)) => (true, rest),
                _ => return false,
            };
            let value = rest.trim_start().trim_start_matches(['"', '\'']).split(['"', '\'']).next();
            value.is_some_and(|v| LINUX.contains(&v) == negated)
        };
        let other_system = ["sys_platform", "platform_system", "os_name"].into_iter().any(other);
        // Alternatives are not taken apart: one of them may hold.
        if self.marker.contains(" or ") {
            return self.is_unconditional();
        }
        self.is_unconditional() && !names_other && !other_system
    }

    /// Whether a version satisfies all bounds. Bounds that are not understood allow everything.
    pub(super) fn allows(&self, version: &Version) -> bool {
        self.each().all(|(operator, bound)| match operator {
            "==" => {
                bound == *version
                    || bound.agrees_with(version) && bound.len() < version.len() && self.bounds.contains('*')
            }
            ">=" => *version >= bound,
            "<=" => *version <= bound,
            ">" => *version > bound,
            "<" => *version < bound,
            "!=" => bound != *version,
            // ~=2.1 stays below 3, ~=2.1.3 below 2.2.
            "~=" => {
                let fixed = bound.len().saturating_sub(1);
                *version >= bound && (0..fixed).all(|i| version.part(i) == bound.part(i))
            }
            _ => true,
        })
    }

    /// The version behind an operator.
    pub(super) fn bound(&self, operator: &str) -> Option<Version> {
        self.each().find(|(o, _)| *o == operator).map(|(_, v)| v)
    }

    fn each(&self) -> impl Iterator<Item = (&str, Version)> {
        self.bounds.split(',').filter_map(|part| {
            let part = part.trim();
            let at = part.find(|c: char| c.is_ascii_digit())?;
            Some((part.get(..at)?.trim(), Version::leading(part.get(at..)?)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_read_in_both_spellings() {
        let v = |t: &str| Version::parse(t).unwrap();
        let amd64 = Platform::parse("linux/amd64").unwrap();
        let old = Requirement::parse("torch (==2.1.2)").unwrap();
        assert!(old.allows(&v("2.1.2")) && !old.allows(&v("2.1.1")) && old.name == "torch");
        let extra = Requirement::parse("nvidia-cudnn-cu12<10.0,>=9.3.0.75; extra == \"and-cuda\"").unwrap();
        assert!(!extra.applies(&amd64) && extra.allows(&v("9.28.0")) && !extra.allows(&v("9.1.0")));
        assert_eq!(extra.bound(">=").unwrap().as_str(), "9.3.0.75");
        let meta =
            Requirement::parse("cuda-toolkit[cublas,cudart]==13.0.2; platform_system == \"Linux\"").unwrap();
        assert_eq!((meta.name.as_str(), meta.bounds.as_str()), ("cuda-toolkit", "==13.0.2"));
        let arm = Requirement::parse("nvidia-nccl-cu12==2.27.5; platform_machine == 'aarch64'").unwrap();
        assert!(!arm.applies(&amd64));
        let mac =
            Requirement::parse("torch==2.2.2; sys_platform == \"darwin\" and platform_machine == \"x86_64\"")
                .unwrap();
        assert!(!mac.applies(&amd64));
        let not_linux = Requirement::parse("torch==2.2.2; sys_platform != 'linux'").unwrap();
        assert!(!not_linux.applies(&amd64));
        let compatible = Requirement::parse("torch~=2.1.3").unwrap();
        assert!(compatible.allows(&v("2.1.9")) && !compatible.allows(&v("2.2.0")));
    }
}
