//! The statements of a record -> their parts: `torch 2.1.0+cu121`, `first nccl <2.19 at DIRECTORY`.

use cudalint::version::Version;

/// `NAME[ VERSION][+VARIANT][ (remark)]`.
#[derive(Clone)]
pub(crate) struct Framework {
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    pub(crate) variant: Option<String>,
    pub(crate) bound: Option<String>,
}

impl Framework {
    pub(crate) fn parse(statement: &str) -> Framework {
        let bare = statement.split(" (").next().unwrap_or(statement).trim();
        let (front, variant) = match bare.split_once('+') {
            Some((front, variant)) => (front.trim(), Some(variant.trim().to_owned())),
            None => (bare, None),
        };
        let (name, rest) = front.split_once(' ').unwrap_or((front, ""));
        let number = rest.trim_start_matches(['<', '>', '=']).split_whitespace().next().unwrap_or_default();
        let stated = Version::leading(number).map(|_| number.to_owned());
        let bound = rest.starts_with(['<', '>']).then(|| rest.to_owned());
        Framework { name: name.to_owned(), version: stated.filter(|_| bound.is_none()), variant, bound }
    }

    /// `12.1` of `cu121`, 12 of `cu12` and of `cuda12.cudnn89`.
    pub(crate) fn cuda(&self) -> (Option<Version>, Option<u64>) {
        let Some(variant) = &self.variant else { return (None, None) };
        let digits: String = variant
            .strip_prefix("cuda")
            .or_else(|| variant.strip_prefix("cu"))
            .unwrap_or_default()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        match digits.len() {
            // `cu92` is 9.2, `cu12` any 12.
            2 if digits.starts_with(['7', '8', '9']) => {
                let version = digits.split_at(1);
                let version =
                    version.0.parse().ok().zip(version.1.parse().ok()).map(|(a, b)| Version::of(a, b));
                let major = version.as_ref().map(Version::major);
                (version, major)
            }
            2 => (None, digits.parse().ok()),
            3 => {
                let (major, minor) = digits.split_at(2);
                let version = major.parse().ok().zip(minor.parse().ok()).map(|(a, b)| Version::of(a, b));
                let major = version.as_ref().map(Version::major);
                (version, major)
            }
            _ => (None, None),
        }
    }

    pub(crate) fn is_cpu(&self) -> bool {
        self.variant.as_deref() == Some("cpu")
    }

    /// The module directory below the site directory.
    pub(crate) fn module(&self) -> String {
        self.name.to_ascii_lowercase().replace('-', "_")
    }
}

/// A statement of `libs`, taken apart.
pub(crate) struct Statement {
    pub(crate) verb: String,
    /// Soname, file, component, or symbol.
    pub(crate) name: String,
    pub(crate) version: Option<Version>,
    /// `<2.19`, `>=12.4`.
    pub(crate) bound: Option<(char, Version)>,
    pub(crate) path: Option<String>,
    pub(crate) whole: String,
}

impl Statement {
    pub(crate) fn parse(statement: &str) -> Statement {
        let (verb, rest) = statement.split_once(' ').unwrap_or((statement, ""));
        let (rest, path) = match rest.split_once(" at ") {
            Some((rest, path)) => (rest, Some(path.trim().to_owned())),
            None => (rest, None),
        };
        let mut words = rest.split_whitespace().map(|w| w.trim_matches(['(', ')', ',']));
        let mut name = words.next().unwrap_or_default().to_owned();
        if name == "symbol" {
            words.next().unwrap_or_default().clone_into(&mut name);
        }
        let (mut version, mut bound) = (None, None);
        for word in words {
            let number = Version::leading(word.trim_start_matches(['<', '>', '=']));
            match (word.chars().next(), number) {
                (Some(sign @ ('<' | '>')), Some(number)) => bound = bound.or(Some((sign, number))),
                (_, Some(number)) => version = version.or(Some(number)),
                _ => {}
            }
        }
        Statement { verb: verb.to_owned(), name, version, bound, path, whole: statement.to_owned() }
    }

    pub(crate) fn is_symbol(&self) -> bool {
        self.whole.contains("symbol ")
    }

    /// The version, or one that lies within the bound.
    pub(crate) fn some_version(&self) -> Option<Version> {
        let below = |v: &Version| match v.minor() {
            0 => Version::of(v.major().saturating_sub(1), 9),
            minor => Version::of(v.major(), minor - 1),
        };
        self.version.clone().or_else(|| match &self.bound {
            Some(('<', v)) => Some(below(v)),
            Some((_, v)) => Some(v.clone()),
            None => None,
        })
    }
}
