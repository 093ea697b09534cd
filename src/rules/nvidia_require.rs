//! `NVIDIA_REQUIRE_*` expressions as the container runtime evaluates them, and what it says: libnvidia-container's dialect
//! (legacy mode) and that of the container toolkit (csv mode). In CDI modes nothing reads them.
//!
//! ```text
//! predicate   = alternative *( " " alternative )    one of them must hold; only the blank separates
//! alternative = term *( "," term )                  all of them must hold
//! term        = key operator value                  cuda, driver, arch, brand; = != < <= > >=
//! ```
//!
//! Known from `src/cli/dsl.c` and `src/cli/configure.c` of libnvidia-container, and `internal/requirements` of
//! nvidia-container-toolkit; the tests hold what that C code answered when it was compiled and run. Versions in the csv
//! dialect are read as the toolkit's source after 1.20.0 reads them; its releases so far use another library for that, which
//! differs on odd texts only.

use crate::facts::Config;
use crate::target::profile::Brand;
use crate::version::Version;
use std::cmp::Ordering;

/// Requirements that libnvidia-container takes from one image.
const REQUIREMENTS_MAX: usize = 32;
/// A failing term longer than this (as `key op value`) is an error to libnvidia-container.
const FAILING_TERM_MAX: usize = 127;

/// What the runtime finds out about a property of the host.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Property<T> {
    Is(T),
    /// The runtime cannot find it out (no visible GPU, a failing query): the term counts as satisfied.
    Absent,
    /// The runtime will know; we do not.
    NotKnown,
}

/// A host driver for comparisons: a branch alone leaves its builds open.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DriverVersion {
    pub(super) version: Version,
    pub(super) exact: bool,
}

/// The four properties of one GPU and its host.
#[derive(Clone, Debug)]
pub(super) struct Properties {
    pub(super) cuda: Property<Version>,
    pub(super) driver: Property<DriverVersion>,
    /// Compute capability.
    pub(super) arch: Property<Version>,
    pub(super) brand: Property<Brand>,
}

/// What comes of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer {
    Satisfied,
    /// A property that decides is not known.
    NotKnown,
    Unsatisfied,
    /// The expression cannot be read; the container does not start either.
    Invalid,
}

/// One requirement of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Requirement {
    /// The variable; `CUDA_VERSION` where the runtime makes the requirement up.
    pub(super) variable: String,
    pub(super) expression: String,
}

/// Why the runtime stops before it evaluates anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    TooMany,
    /// A legacy image whose `CUDA_VERSION` is no version.
    CudaVersion(String),
}

/// An image from before `NVIDIA_REQUIRE_CUDA` existed, to the runtime: `CUDA_VERSION` alone.
pub(super) fn is_legacy_image(config: &Config) -> bool {
    let set = |name: &str| config.env(name).is_some_and(|v| !v.is_empty());
    set("CUDA_VERSION") && !set("NVIDIA_REQUIRE_CUDA")
}

/// Whether an expression may ask for a brand: only then it matters which of several a GPU has.
pub(super) fn mentions_brand(expression: &str) -> bool {
    expression.to_ascii_lowercase().contains("brand")
}

/// Values that Go's `strconv.ParseBool` takes for true.
pub(super) fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "TRUE" | "true" | "True")
}

/// Whether the image switches the check of requirements off.
pub(super) fn is_switched_off(config: &Config) -> bool {
    config.env("NVIDIA_DISABLE_REQUIRE").is_some_and(is_true)
}

/// Everything that the runtime collects from the image; nothing where the image switches the check off.
pub(super) fn collect(config: &Config) -> Result<Vec<Requirement>, Refusal> {
    if is_switched_off(config) {
        return Ok(Vec::new());
    }
    let mut out: Vec<Requirement> = Vec::new();
    for (name, _) in &config.env {
        let wanted = name.starts_with("NVIDIA_REQUIRE_") && !name.starts_with("NVIDIA_REQUIRE_JETPACK");
        if wanted && !out.iter().any(|r| r.variable == *name) {
            let expression = config.env(name).unwrap_or_default().to_owned();
            out.push(Requirement { variable: name.clone(), expression });
        }
    }
    if is_legacy_image(config) {
        let text = config.env("CUDA_VERSION").unwrap_or_default();
        let cuda = semantic_version(text).ok_or_else(|| Refusal::CudaVersion(text.to_owned()))?;
        let expression = format!("cuda>={}.{}", cuda.major(), cuda.minor());
        out.push(Requirement { variable: "CUDA_VERSION".to_owned(), expression });
    }
    if out.len() > REQUIREMENTS_MAX {
        return Err(Refusal::TooMany);
    }
    Ok(out)
}

/// As Masterminds/semver reads a version loosely: one to three numbers, `v` in front or not, what follows `-` or `+` aside.
pub(super) fn semantic_version(text: &str) -> Option<Version> {
    let bare = text.strip_prefix('v').unwrap_or(text);
    let (core, rest) = bare.split_at(bare.find(['-', '+']).unwrap_or(bare.len()));
    let identifiers = |part: &str| {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
        part.split('.').all(|i| !i.is_empty() && i.chars().all(legal))
    };
    let (pre, metadata) = match rest.split_once('+') {
        Some((pre, metadata)) => (pre, Some(metadata)),
        None => (rest, None),
    };
    let legal = pre.strip_prefix('-').is_none_or(identifiers) && metadata.is_none_or(identifiers);
    Version::parse(core).filter(|v| v.len() <= 3 && legal)
}

/// Legacy mode: what libnvidia-container makes of an expression.
pub(super) fn evaluate(expression: &str, properties: &Properties) -> Answer {
    let (mut last, mut open) = (Answer::Satisfied, false);
    for alternative in expression.split(' ').filter(|a| !a.is_empty()) {
        let mut terms = alternative.split(',').filter(|t| !t.is_empty()).peekable();
        if terms.peek().is_some() {
            last = all_hold(terms, properties);
        }
        match last {
            Answer::Satisfied => return Answer::Satisfied,
            Answer::Invalid if open => return Answer::NotKnown,
            Answer::Invalid => return Answer::Invalid,
            Answer::NotKnown => open = true,
            Answer::Unsatisfied => {}
        }
    }
    if open { Answer::NotKnown } else { last }
}

/// Left to right, to the first term that does not hold.
fn all_hold<'t>(terms: impl Iterator<Item = &'t str>, properties: &Properties) -> Answer {
    let mut all = Answer::Satisfied;
    for term in terms {
        match holds(term, properties) {
            Answer::Satisfied => {}
            Answer::NotKnown => all = Answer::NotKnown,
            // Behind a term that may not hold, neither is sure to be reached.
            Answer::Invalid if all == Answer::NotKnown => return Answer::NotKnown,
            bad => return bad,
        }
    }
    all
}

/// A term in its three parts; `None` where it has no key, operator or value, or an operator that does not exist.
pub(super) fn parts(term: &str) -> Option<(&str, &'static str, &str)> {
    const OPERATORS: [&str; 6] = ["=", "!=", "<", "<=", ">", ">="];
    let is_operator = |c: char| matches!(c, '<' | '>' | '=' | '!');
    let (key, rest) = term.split_at(term.find(is_operator)?);
    let (run, value) = rest.split_at(rest.find(|c| !is_operator(c)).unwrap_or(rest.len()));
    // The first operator that begins with what was written: `!` alone is `!=`.
    let operator = OPERATORS.into_iter().find(|o| o.starts_with(run))?;
    (!key.is_empty() && !value.is_empty()).then_some((key, operator, value))
}

fn holds(term: &str, properties: &Properties) -> Answer {
    let Some((key, operator, value)) = parts(term) else { return Answer::Invalid };
    let answer = match key.to_ascii_lowercase().as_str() {
        "cuda" => version_term(&properties.cuda, operator, value),
        "arch" => version_term(&properties.arch, operator, value),
        "driver" => driver_term(&properties.driver, operator, value),
        "brand" => brand_term(&properties.brand, operator, value),
        _ => return Answer::Invalid,
    };
    let shown = key.len() + operator.len() + value.len() + 2;
    if answer == Answer::Unsatisfied && shown > FAILING_TERM_MAX { Answer::Invalid } else { answer }
}

fn version_term(property: &Property<Version>, operator: &str, value: &str) -> Answer {
    let wanted = match property {
        Property::Absent => return Answer::Satisfied,
        _ => numbers(value),
    };
    match (property, wanted) {
        (_, None) => Answer::Invalid,
        (Property::Is(have), Some(wanted)) => {
            let have = numbers(have.as_str()).unwrap_or_default();
            answer(compares(ordering(&have, &wanted), operator))
        }
        _ => Answer::NotKnown,
    }
}

fn driver_term(property: &Property<DriverVersion>, operator: &str, value: &str) -> Answer {
    let driver = match property {
        Property::Absent => return Answer::Satisfied,
        Property::NotKnown => None,
        Property::Is(driver) => Some(driver),
    };
    let Some(wanted) = numbers(value) else { return Answer::Invalid };
    let Some(driver) = driver else { return Answer::NotKnown };
    let of = |have: &[u64]| answer(compares(ordering(have, &wanted), operator));
    if driver.exact {
        return of(&numbers(driver.version.as_str()).unwrap_or_default());
    }
    // Every build of the branch lies between `535.1` and `535.9999.99`; both ends must agree.
    let mut low = numbers(driver.version.as_str()).unwrap_or_default();
    let mut high = low.clone();
    low.push(1);
    high.extend([9999, 99]);
    let within = ordering(&low, &wanted).is_le() && ordering(&high, &wanted).is_ge();
    if within && matches!(operator, "=" | "!=") {
        return Answer::NotKnown;
    }
    let (low, high) = (of(&low), of(&high));
    if low == high { low } else { Answer::NotKnown }
}

fn brand_term(property: &Property<Brand>, operator: &str, value: &str) -> Answer {
    match property {
        Property::Absent => Answer::Satisfied,
        _ if !matches!(operator, "=" | "!=") => Answer::Invalid,
        Property::Is(brand) => {
            let same = brand.name().eq_ignore_ascii_case(value);
            answer(same == (operator == "="))
        }
        Property::NotKnown => Answer::NotKnown,
    }
}

fn answer(holds: bool) -> Answer {
    if holds { Answer::Satisfied } else { Answer::Unsatisfied }
}

fn compares(order: Ordering, operator: &str) -> bool {
    match operator {
        "=" => order.is_eq(),
        "!=" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    }
}

/// The numbers of a version: digits and dots only.
fn numbers(text: &str) -> Option<Vec<u64>> {
    let legal = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    legal.then(|| text.split('.').filter(|p| !p.is_empty()).map(|p| p.parse().unwrap_or(u64::MAX)).collect())
}

/// The first difference decides; zeros at the end do not count, else the longer one is greater.
fn ordering(a: &[u64], b: &[u64]) -> Ordering {
    let common = a.iter().zip(b).map(|(a, b)| a.cmp(b)).find(|o| o.is_ne());
    let rest = |v: &[u64], other: &[u64]| v.get(other.len()..).unwrap_or_default().iter().any(|n| *n != 0);
    common.unwrap_or_else(|| rest(a, b).cmp(&rest(b, a)))
}

/// What nvidia-container-cli prints in legacy mode, behind `nvidia-container-cli: requirement error: `.
pub(super) fn legacy_message(expression: &str, answer: Answer) -> String {
    if answer == Answer::Invalid {
        return "invalid expression".to_owned();
    }
    // The text up to the first blank, even where another alternative was closer.
    let first = expression.split(' ').next().unwrap_or_default();
    let advice = match expression.starts_with("cuda>=") {
        true => ", please update your driver to a newer version, or use an earlier cuda container",
        false => "",
    };
    format!("unsatisfied condition: {first}{advice}")
}

/// csv mode (Jetson): what the container toolkit makes of an expression, and the message where it refuses. It fills in `cuda` and
/// `arch` only; `driver` and `brand` are known to it and empty, other keys are skipped.
pub(super) fn evaluate_csv(
    expression: &str,
    cuda: &Property<Version>,
    arch: &Property<Version>,
) -> (Answer, String) {
    let refused = |why: &str| format!("requirements not met: {why}");
    let mut alternatives: Vec<Vec<CsvTerm>> = Vec::new();
    // Everything is read before anything is evaluated.
    for alternative in expression.split(' ') {
        let mut terms = Vec::new();
        for term in alternative.split(',').filter(|t| !t.trim().is_empty()) {
            match csv_term(term) {
                Ok(term) => terms.extend(term),
                Err(message) => return (Answer::Invalid, refused(&message)),
            }
        }
        if !terms.is_empty() {
            alternatives.push(terms);
        }
    }
    let (mut open, mut failures) = (false, Vec::new());
    for terms in &alternatives {
        // Whatever an open term says, one that fails decides.
        let of = |wanted: Answer| terms.iter().find(|t| t.holds(cuda, arch) == wanted).map(|t| (t, wanted));
        let bad = of(Answer::Unsatisfied).or_else(|| of(Answer::NotKnown));
        match bad {
            None => return (Answer::Satisfied, String::new()),
            Some((term, answer)) => {
                open |= answer == Answer::NotKnown;
                failures.push(term.failure(cuda, arch));
            }
        }
    }
    let message = match failures.as_slice() {
        [] => return (Answer::Satisfied, String::new()),
        [one] => one.clone(),
        _ => {
            let shown = |terms: &Vec<CsvTerm>| terms.iter().map(|t| t.text).collect::<Vec<_>>().join("&&");
            format!("{} not met", alternatives.iter().map(shown).collect::<Vec<_>>().join("||"))
        }
    };
    (if open { Answer::NotKnown } else { Answer::Unsatisfied }, refused(&message))
}

/// A term of the csv dialect.
struct CsvTerm<'t> {
    text: &'t str,
    key: &'t str,
    /// Empty for a bare `!`.
    operator: &'static str,
    value: &'t str,
}

/// `Ok(None)`: skipped, since its key is none that the toolkit knows.
fn csv_term(text: &str) -> Result<Option<CsvTerm<'_>>, String> {
    // In this order, as prefixes: `==12.4` is `=` with the value `=12.4`.
    const OPERATORS: [&str; 6] = ["!=", "<=", ">=", "=", "<", ">"];
    let Some(at) = text.find(['<', '>', '=', '!']) else {
        return Err(format!("invalid constraint: {text}"));
    };
    let (key, rest) = text.split_at(at);
    if !matches!(key, "cuda" | "arch" | "driver" | "brand") {
        return Ok(None);
    }
    let found = OPERATORS.iter().find_map(|o| Some((*o, rest.strip_prefix(o)?)));
    let (operator, value) = found.unwrap_or(("", rest));
    if key != "brand" && semantic_version(value).is_none() {
        return Err("invalid version string: invalid semantic version".to_owned());
    }
    Ok(Some(CsvTerm { text, key, operator, value }))
}

impl CsvTerm<'_> {
    fn holds(&self, cuda: &Property<Version>, arch: &Property<Version>) -> Answer {
        let property = match self.key {
            "cuda" => cuda,
            "arch" => arch,
            // The brand is the empty text, which every other text follows.
            "brand" => {
                return answer(compares("".cmp(self.value), self.operator) && !self.operator.is_empty());
            }
            // The driver is no version at all.
            _ => return Answer::Unsatisfied,
        };
        match (property, semantic_version(self.value)) {
            (Property::Is(have), Some(wanted)) => answer(compares(have.cmp(&wanted), self.operator)),
            (Property::NotKnown, _) => Answer::NotKnown,
            _ => Answer::Unsatisfied,
        }
    }

    fn failure(&self, cuda: &Property<Version>, arch: &Property<Version>) -> String {
        let have = match (self.key, cuda, arch) {
            ("driver", ..) => return "invalid value for driver: invalid semantic version".to_owned(),
            ("brand", ..) if self.operator.is_empty() => return "invalid operator ".to_owned(),
            ("cuda", Property::Is(have), _) | ("arch", _, Property::Is(have)) => have.to_string(),
            _ => String::new(),
        };
        format!("unsatisfied condition: {} ({}={have})", self.text, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Deserialize)]
    struct Vectors {
        require: BTreeMap<String, String>,
        vector: Vec<Vector>,
    }

    #[derive(Deserialize)]
    struct Vector {
        expression: String,
        cuda: String,
        driver: String,
        arch: String,
        brand: String,
        verdict: String,
        message: String,
    }

    fn property<T>(text: &str, of: impl Fn(&str) -> T) -> Property<T> {
        if text == "-" { Property::Absent } else { Property::Is(of(text)) }
    }

    #[test]
    fn every_expression_is_answered_as_libnvidia_container_answered_it() {
        let version = |t: &str| Version::parse(t).unwrap();
        let file: Vectors = toml::from_str(include_str!("../../fixtures/require/vectors.toml")).unwrap();
        assert_eq!(file.vector.len(), 67);
        for v in &file.vector {
            let expression = match v.expression.strip_prefix('@') {
                Some(id) => file.require[id].clone(),
                None => v.expression.clone(),
            };
            let properties = Properties {
                cuda: property(&v.cuda, version),
                driver: property(&v.driver, |t| DriverVersion { version: version(t), exact: true }),
                arch: property(&v.arch, version),
                brand: property(&v.brand, Brand::of_nvml),
            };
            let answer = evaluate(&expression, &properties);
            let want = match v.verdict.as_str() {
                "pass" => Answer::Satisfied,
                "unsatisfied" => Answer::Unsatisfied,
                _ => Answer::Invalid,
            };
            let shown = format!("`{}` on {} {} {} {}", v.expression, v.cuda, v.driver, v.arch, v.brand);
            assert_eq!(answer, want, "{shown}");
            if answer != Answer::Satisfied {
                assert_eq!(legacy_message(&expression, answer), v.message, "{shown}");
            }
        }
    }

    fn host(driver: &str, exact: bool, brand: Property<Brand>) -> Properties {
        Properties {
            cuda: Property::Is(Version::of(12, 2)),
            driver: Property::Is(DriverVersion { version: Version::parse(driver).unwrap(), exact }),
            arch: Property::Is(Version::of(9, 0)),
            brand,
        }
    }

    #[test]
    fn a_branch_alone_decides_what_all_its_builds_agree_on() {
        let branch = host("535", false, Property::Is(Brand::Unknown));
        assert_eq!(evaluate("brand=unknown,driver>=535,driver<536", &branch), Answer::Satisfied);
        assert_eq!(evaluate("driver>=550", &branch), Answer::Unsatisfied);
        assert_eq!(evaluate("driver>=535.104.05", &branch), Answer::NotKnown);
        assert_eq!(evaluate("driver=535", &branch), Answer::Unsatisfied);
        assert_eq!(evaluate("driver=535.104.05", &branch), Answer::NotKnown);
        assert_eq!(evaluate("driver!=535.104.05", &branch), Answer::NotKnown);
        assert_eq!(evaluate("driver!=550.54.14", &branch), Answer::Satisfied);
    }

    #[test]
    fn what_is_not_known_stays_open_unless_another_alternative_holds() {
        let open = host("535.104.05", true, Property::NotKnown);
        assert_eq!(evaluate("cuda>=12.4 brand=tesla,driver>=535", &open), Answer::NotKnown);
        assert_eq!(evaluate("brand=tesla,driver>=535 driver>=530", &open), Answer::Satisfied);
        assert_eq!(evaluate("brand=tesla,driver>=550", &open), Answer::Unsatisfied);
    }

    #[test]
    fn jetsons_have_a_dialect_of_their_own() {
        let cuda = Property::Is(Version::of(12, 2));
        let arch = Property::Is(Version::of(8, 7));
        let csv = |text: &str| evaluate_csv(text, &cuda, &arch);
        assert_eq!(csv("cuda>=12.2").0, Answer::Satisfied);
        let (answer, message) = csv("cuda>=12.6");
        assert_eq!(answer, Answer::Unsatisfied);
        assert_eq!(message, "requirements not met: unsatisfied condition: cuda>=12.6 (cuda=12.2)");
        let (_, message) = csv("cuda>=12.6 brand=tesla,driver>=470,driver<471");
        assert_eq!(message, "requirements not met: cuda>=12.6||brand=tesla&&driver>=470&&driver<471 not met");
        let (_, message) = csv("cuda>=12.2,arch>=9.0");
        assert_eq!(message, "requirements not met: unsatisfied condition: arch>=9.0 (arch=8.7)");
        let (_, message) = csv("driver>=535");
        assert_eq!(message, "requirements not met: invalid value for driver: invalid semantic version");
        assert_eq!(
            csv("cuda"),
            (Answer::Invalid, "requirements not met: invalid constraint: cuda".to_owned())
        );
        assert_eq!(csv("kernel>=5.10").0, Answer::Satisfied, "unknown keys are skipped");
        assert_eq!(csv("cuda>=12.2 foo=bar").0, Answer::Satisfied);
        assert_eq!(csv("CUDA>=13.0").0, Answer::Satisfied, "keys are in lower case only");
        assert_eq!(csv("brand!=tesla").0, Answer::Satisfied, "the brand is empty");
        assert_eq!(csv("brand=tesla").0, Answer::Unsatisfied);
        let no_version = "requirements not met: invalid version string: invalid semantic version";
        for text in ["cuda==12.2", "cuda=foo", "cuda>=12.2 cuda!12.2"] {
            assert_eq!(csv(text), (Answer::Invalid, no_version.to_owned()), "{text}");
        }
        assert_eq!(csv("").0, Answer::Satisfied);
    }

    #[test]
    fn requirements_are_collected_as_the_hook_does() {
        let config = |pairs: &[(&str, &str)]| Config {
            env: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..Config::default()
        };
        let legacy = config(&[("CUDA_VERSION", "12.4.1")]);
        assert_eq!(collect(&legacy).unwrap()[0].expression, "cuda>=12.4");
        assert_eq!(collect(&config(&[("CUDA_VERSION", "12")])).unwrap()[0].expression, "cuda>=12.0");
        assert_eq!(collect(&config(&[("CUDA_VERSION", "12-4")])).unwrap()[0].expression, "cuda>=12.0");
        assert_eq!(collect(&config(&[("CUDA_VERSION", "12.04")])).unwrap()[0].expression, "cuda>=12.4");
        for text in ["cu121", "12.4.1.003"] {
            let refused = collect(&config(&[("CUDA_VERSION", text)]));
            assert_eq!(refused, Err(Refusal::CudaVersion(text.to_owned())));
        }
        let off = config(&[("NVIDIA_REQUIRE_CUDA", "cuda>=99"), ("NVIDIA_DISABLE_REQUIRE", "1")]);
        assert!(collect(&off).unwrap().is_empty());
        let misspelt = config(&[("NVIDIA_REQUIRE_CUDA", "cuda>=99"), ("NVIDIA_DISABLE_REQUIRE", "yes")]);
        assert_eq!(collect(&misspelt).unwrap().len(), 1);
        let jetpack =
            config(&[("NVIDIA_REQUIRE_JETPACK_HOST_MOUNTS", ""), ("NVIDIA_REQUIRE_DRIVER", "driver>=1")]);
        assert_eq!(collect(&jetpack).unwrap().len(), 1);
    }
}
