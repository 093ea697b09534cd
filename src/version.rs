//! Dotted numeric versions as NVIDIA writes them (`535.104.05`, `12.4`), and compute capabilities and `sm_` targets.
//! Compared by number, printed as written: `535.104.05` and `535.104.5` are the same release.

use std::cmp::Ordering;
use std::fmt;

/// A dotted numeric version. Missing parts compare as zero: `12.4` equals `12.4.0`.
#[derive(Clone, Debug)]
pub struct Version {
    text: String,
    parts: Vec<u64>,
}

impl Version {
    /// Accepts up to six numeric parts; `None` for anything else.
    pub fn parse(text: &str) -> Option<Version> {
        let parts: Option<Vec<u64>> = text
            .split('.')
            .map(|p| {
                let digits = !p.is_empty() && p.len() <= 12 && p.bytes().all(|b| b.is_ascii_digit());
                digits.then(|| p.parse().ok()).flatten()
            })
            .collect();
        let parts = parts?;
        (parts.len() <= 6).then(|| Version { text: text.to_owned(), parts })
    }

    /// The leading numeric part of a longer text: `12.2.140-1` gives `12.2.140`, `2.6.0+cu124` gives `2.6.0`.
    pub fn leading(text: &str) -> Option<Version> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        Version::parse(text[..end].trim_end_matches('.'))
    }

    /// `12.4` from 12 and 4.
    pub fn of(major: u64, minor: u64) -> Version {
        Version { text: format!("{major}.{minor}"), parts: vec![major, minor] }
    }

    /// `12.4.5` from 12, 4 and 5.
    pub fn triple(major: u64, minor: u64, patch: u64) -> Version {
        Version { text: format!("{major}.{minor}.{patch}"), parts: vec![major, minor, patch] }
    }

    /// Whether two spellings can be one version: `12.4.5` and `12.4.5.8`.
    pub fn agrees_with(&self, other: &Version) -> bool {
        let shared = self.len().min(other.len());
        (0..shared).all(|i| self.part(i) == other.part(i))
    }

    /// A CUDA version from the number that `cudaRuntimeGetVersion` returns: 12040 is 12.4.
    pub fn from_cuda_code(code: u32) -> Version {
        Version::of(u64::from(code / 1000), u64::from(code % 1000 / 10))
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn part(&self, index: usize) -> u64 {
        self.parts.get(index).copied().unwrap_or(0)
    }

    pub fn major(&self) -> u64 {
        self.part(0)
    }

    pub fn minor(&self) -> u64 {
        self.part(1)
    }

    /// How many parts were written: 1 for `535`, 3 for `535.104.05`.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The first two parts, as CUDA releases are named.
    pub fn major_minor(&self) -> Version {
        Version::of(self.major(), self.minor())
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        let len = self.parts.len().max(other.parts.len());
        (0..len).map(|i| self.part(i).cmp(&other.part(i))).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Version) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// A compute capability: 9.0, 12.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComputeCapability {
    pub major: u32,
    pub minor: u32,
}

impl ComputeCapability {
    /// `9.0` or `12.1`.
    pub fn parse(text: &str) -> Option<ComputeCapability> {
        let (major, minor) = text.split_once('.')?;
        let minor_digit = minor.len() == 1;
        let cc = ComputeCapability { major: major.parse().ok()?, minor: minor.parse().ok()? };
        (minor_digit && (1..100).contains(&cc.major)).then_some(cc)
    }

    /// From the decimal number of a target: 90 is 9.0, 121 is 12.1.
    pub fn from_sm(number: u32) -> ComputeCapability {
        ComputeCapability { major: number / 10, minor: number % 10 }
    }

    /// 9.0 is 90.
    pub fn sm_number(self) -> u32 {
        self.major.saturating_mul(10).saturating_add(self.minor)
    }
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What a suffix on a target restricts: `a` to exactly that compute capability, `f` to its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suffix {
    None,
    ArchSpecific,
    FamilySpecific,
}

/// A compilation target without its `sm_` or `compute_` prefix: 90, 90a, 100f.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arch {
    pub number: u32,
    pub suffix: Suffix,
}

impl Arch {
    /// Accepts `90a`, `sm_90a`, `compute_90a`, `lto_90`.
    pub fn parse(text: &str) -> Option<Arch> {
        let bare = text.rsplit('_').next()?;
        let (digits, suffix) = match bare.as_bytes().last()? {
            b'a' => (&bare[..bare.len() - 1], Suffix::ArchSpecific),
            b'f' => (&bare[..bare.len() - 1], Suffix::FamilySpecific),
            _ => (bare, Suffix::None),
        };
        let number = digits.parse().ok()?;
        Arch::is_plausible(number).then_some(Arch { number, suffix })
    }

    /// Targets have two or three digits; images of unknown kinds may state none.
    pub fn is_plausible(number: u32) -> bool {
        number < 1000
    }

    pub fn compute_capability(self) -> ComputeCapability {
        ComputeCapability::from_sm(self.number)
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match self.suffix {
            Suffix::None => "",
            Suffix::ArchSpecific => "a",
            Suffix::FamilySpecific => "f",
        };
        write!(f, "{}{}", self.number, suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_and_print_as_written() {
        let v = |t| Version::parse(t).unwrap();
        assert_eq!(v("535.104.05"), v("535.104.5"));
        assert_eq!(v("12.4"), v("12.4.0"));
        assert!(v("525.60.12") < v("525.60.13"));
        assert!(v("9.2") < v("10.0"));
        assert_eq!(v("535.104.05").to_string(), "535.104.05");
        assert!(Version::parse("12.x").is_none() && Version::parse("").is_none());
        assert_eq!(Version::leading("12.2.140-1").unwrap().as_str(), "12.2.140");
        assert_eq!(Version::from_cuda_code(12080).as_str(), "12.8");
    }

    #[test]
    fn targets_keep_their_suffix() {
        assert_eq!(Arch::parse("sm_90a").unwrap(), Arch { number: 90, suffix: Suffix::ArchSpecific });
        assert_eq!(Arch::parse("compute_120f").unwrap().to_string(), "120f");
        assert_eq!(Arch::parse("sm_121").unwrap().compute_capability().to_string(), "12.1");
        assert!(Arch::parse("sm_").is_none() && Arch::parse("hopper").is_none());
    }
}
