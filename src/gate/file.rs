//! Text of `cudalint.toml` -> options, rule levels and ignores, each key checked; a wrong one is named with what was meant.

use super::ignore::{Ignore, Pattern, TargetScope};
use super::{Selector, closest};
use crate::names::located;
use crate::report::{Level, RuleId};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The configuration file. Keys that are also options of the command line mean the same; what is given there, or in the
/// environment, wins. Whom to trust and with which secret is never read from a file that a checkout may bring.
#[derive(Deserialize, JsonSchema, Debug, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ConfigFile {
    pub host_driver: Option<OneOrMany>,
    pub host_cuda: Option<OneOrMany>,
    pub gpu: Option<OneOrMany>,
    pub container_toolkit: Option<String>,
    pub runtime_mode: Option<String>,
    pub brand: Option<String>,
    /// A file, relative to this one.
    pub targets: Option<String>,
    pub target: Option<OneOrMany>,
    pub cordoned: Option<bool>,
    /// A directory, relative to this file.
    pub catalog: Option<String>,
    pub platform: Option<String>,
    pub timeout: Option<String>,
    pub offline: Option<bool>,
    pub no_cache: Option<bool>,
    pub jobs: Option<u32>,
    pub hash_files: Option<bool>,
    /// `full` or `libraries`.
    pub depth: Option<String>,
    pub verify_blobs: Option<bool>,
    pub verify_diff_ids: Option<bool>,
    pub fail_on: Option<String>,
    pub strict: Option<bool>,
    pub policy: Option<String>,
    pub show_passed: Option<bool>,
    pub show_suppressed: Option<bool>,
    /// A file, relative to this one.
    pub dockerfile: Option<String>,
    /// A file, relative to this one.
    pub baseline: Option<String>,
    pub allow_image_ignores: Option<bool>,
    pub format: Option<String>,
    pub quiet: Option<bool>,
    pub verbose: Option<bool>,
    pub no_progress: Option<bool>,
    pub color: Option<String>,
    pub no_timing: Option<bool>,
    #[serde(default)]
    pub rules: RulesTable,
    #[serde(default)]
    pub ignore: Vec<IgnoreRow>,
}

/// Values of these keys are paths, relative to the file.
pub const PATHS: [&str; 4] = ["targets", "catalog", "dockerfile", "baseline"];
/// Keys that are no options.
const TABLES: [&str; 2] = ["rules", "ignore"];

#[derive(Deserialize, JsonSchema, Debug)]
#[serde(untagged, expecting = "expected a text, a number without a dot, or a list of them")]
pub enum OneOrMany {
    One(Word),
    Many(Vec<Word>),
}

/// A text, or a number without a dot: `535`.
#[derive(Deserialize, JsonSchema, Debug)]
#[serde(untagged)]
pub enum Word {
    Text(String),
    Number(u32),
}

#[derive(Deserialize, JsonSchema, Debug, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, expecting = "a table with select, ignore, level")]
pub struct RulesTable {
    /// Only these rules count: codes, names, or beginnings of codes such as CUL2.
    #[serde(default)]
    pub select: Vec<String>,
    /// These do not count.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// Rule -> error, warning or note.
    #[serde(default)]
    pub level: BTreeMap<String, LevelName>,
}

#[derive(Deserialize, JsonSchema, Debug, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
pub enum LevelName {
    Error,
    Warning,
    Note,
}

/// Findings that a team lives with. All scopes that are given must fit.
#[derive(Deserialize, JsonSchema, Debug)]
#[serde(
    rename_all = "kebab-case",
    deny_unknown_fields,
    expecting = "a table `[[ignore]]` with rule and reason; rules that do not count at all stand in `[rules] ignore`"
)]
pub struct IgnoreRow {
    /// Code, name, or beginning of a code.
    pub rule: String,
    /// Why; it stands in every report.
    pub reason: String,
    /// The last day on which it counts: 2026-12-31.
    #[schemars(with = "Option<String>")]
    pub expires: Option<Day>,
    /// Pattern for the image's name, with or without tag; `*` stays between slashes, `**` crosses them.
    pub image: Option<String>,
    /// Pattern for the file in the image.
    pub path: Option<String>,
    /// File name of the library: libcufft.so.11.
    pub soname: Option<String>,
    /// What the finding is about, as `component` in the JSON report: torch.
    pub component: Option<String>,
    /// Pattern for the target's name, or gpu:NAME, or driver:BRANCH.
    pub target: Option<String>,
}

/// A TOML date, or the same in quotes.
#[derive(Deserialize, Debug)]
#[serde(untagged)]
pub enum Day {
    Date(toml::value::Datetime),
    Text(String),
}

/// A file that was read and found right.
#[derive(Default)]
pub struct Config {
    /// Option -> values, in the words of the command line.
    pub options: Vec<(String, Vec<String>)>,
    pub select: Vec<Selector>,
    pub ignore: Vec<Selector>,
    pub levels: Vec<(Selector, Level)>,
    pub ignores: Vec<Ignore>,
}

/// Reads the text of the file `name`. `rules`: all rules. An error says what, where and what was meant.
pub fn parse(name: &str, text: &str, rules: &[RuleId]) -> Result<Config, String> {
    let table: toml::Table = toml::from_str(text).map_err(|e| located(text, &e))?;
    unknown_key(text, "", table.keys(), &keys::<ConfigFile>())?;
    if let Some(toml::Value::Table(rules)) = table.get("rules") {
        unknown_key(text, "rules.", rules.keys(), &keys::<RulesTable>())?;
    }
    if let Some(toml::Value::Array(rows)) = table.get("ignore") {
        for row in rows.iter().filter_map(toml::Value::as_table) {
            unknown_key(text, "ignore.", row.keys(), &keys::<IgnoreRow>())?;
        }
    }
    if let Some((key, _)) = table.iter().find(|(_, value)| is_fraction(value)) {
        let line = line_of(text, key);
        return Err(format!(
            "{line}`{key}`: write the number in quotes, since 12.10 and 12.1 are one number to TOML"
        ));
    }
    let file: ConfigFile = toml::from_str(text).map_err(|e| located(text, &e))?;
    if file.targets.is_some()
        && (file.host_driver.is_some() || file.host_cuda.is_some() || file.gpu.is_some())
    {
        return Err("`targets` excludes `host-driver`, `host-cuda` and `gpu`".to_owned());
    }
    let selectors =
        |texts: &[String]| texts.iter().map(|t| Selector::parse(t, rules)).collect::<Result<Vec<_>, _>>();
    let mut levels = Vec::new();
    for (rule, level) in &file.rules.level {
        let level = match level {
            LevelName::Error => Level::Error,
            LevelName::Warning => Level::Warning,
            LevelName::Note => Level::Note,
        };
        levels.push((Selector::parse(rule, rules)?, level));
    }
    // The longer a selector, the more it is about one rule: it wins.
    levels.sort_by_key(|(selector, _)| selector.to_string().len());
    let ignores = file.ignore.iter().zip(1..).map(|(row, number): (_, u32)| {
        ignore(&format!("{name}, ignore {number}"), row, rules).map_err(|e| format!("ignore {number}: {e}"))
    });
    Ok(Config {
        options: options(&table),
        select: selectors(&file.rules.select)?,
        ignore: selectors(&file.rules.ignore)?,
        levels,
        ignores: ignores.collect::<Result<_, _>>()?,
    })
}

fn ignore(place: &str, row: &IgnoreRow, rules: &[RuleId]) -> Result<Ignore, String> {
    if row.reason.trim().is_empty() {
        return Err("`reason` is empty: say why, for those who read it in a year".to_owned());
    }
    let mut out = Ignore::new(place.to_owned(), Selector::parse(&row.rule, rules)?, row.reason.clone());
    let pattern = |text: &Option<String>| text.as_deref().map(Pattern::parse).transpose();
    out.expires = row.expires.as_ref().map(day).transpose()?;
    out.image = pattern(&row.image)?;
    out.path = pattern(&row.path)?;
    out.soname.clone_from(&row.soname);
    out.component.clone_from(&row.component);
    out.target = row.target.as_deref().map(TargetScope::parse).transpose()?;
    Ok(out)
}

fn day(day: &Day) -> Result<String, String> {
    let date = match day {
        Day::Date(date) => date.date,
        Day::Text(text) => text.parse::<toml::value::Datetime>().ok().and_then(|d| d.date),
    };
    date.map(|d| d.to_string()).ok_or_else(|| "`expires` is no date: write it as 2026-12-31".to_owned())
}

/// What stands in the label `io.github.cudalint.ignore` of an image: `RULE: reason`, several parted by `;`.
pub fn image_ignores(label: &str, rules: &[RuleId]) -> (Vec<Ignore>, Vec<String>) {
    let mut wrong = Vec::new();
    let rows = label.split(';').map(str::trim).filter(|row| !row.is_empty());
    let ignores = rows.filter_map(|row| {
        let (rule, reason) = row.split_once(':').map_or((row, ""), |(rule, reason)| (rule, reason.trim()));
        match Selector::parse(rule, rules) {
            Ok(rule) if !reason.is_empty() => Some(Ignore::new(
                "label of the image".to_owned(),
                rule,
                format!("{reason} (label of the image)"),
            )),
            Ok(rule) => {
                wrong.push(format!("the image's label ignores {rule} without a reason: not heeded"));
                None
            }
            Err(error) => {
                wrong.push(format!("the image's label: {error}"));
                None
            }
        }
    });
    let ignores = ignores.collect();
    (ignores, wrong)
}

/// The keys of a table, from its schema: one list for both.
fn keys<T: JsonSchema>() -> Vec<String> {
    let schema = schemars::schema_for!(T);
    let properties = schema.get("properties").and_then(|p| p.as_object());
    properties.map(|p| p.keys().cloned().collect()).unwrap_or_default()
}

fn unknown_key<'k>(
    text: &str,
    table: &str,
    used: impl Iterator<Item = &'k String>,
    known: &[String],
) -> Result<(), String> {
    let mut used = used;
    let Some(key) = used.find(|k| !known.contains(k)) else { return Ok(()) };
    let meant = closest(&key.replace('_', "-"), known.iter().map(String::as_str));
    let hint = match meant {
        _ if NOT_HERE.contains(&key.as_str()) => {
            "; that is said on the command line or in the environment only".to_owned()
        }
        Some(meant) => format!("; did you mean `{table}{meant}`?"),
        None => "; `cudalint schema config` has all keys".to_owned(),
    };
    Err(format!("{}unknown key `{table}{key}`{hint}", line_of(text, key)))
}

/// Options that a file cannot set: secrets, whom to trust, where to write.
const NOT_HERE: [&str; 16] = [
    "username",
    "password-stdin",
    "registry-token",
    "authfile",
    "insecure",
    "ca-file",
    "tls-cert",
    "tls-key",
    "cache-dir",
    "cache-key",
    "cache-max-size",
    "shared-cache",
    "shared-cache-read-only",
    "output",
    "as-of",
    "facts",
];

/// `line 3: ` for the line that sets a key.
fn line_of(text: &str, key: &str) -> String {
    let sets = |line: &&str| {
        let line = line.trim_start().trim_start_matches(['"', '[']);
        line.strip_prefix(key)
            .is_some_and(|rest| rest.trim_start_matches(['"', ' ']).starts_with(['=', '.', ']']))
    };
    text.lines().position(|l| sets(&l)).map_or_else(String::new, |at| format!("line {}: ", at + 1))
}

fn is_fraction(value: &toml::Value) -> bool {
    match value {
        toml::Value::Float(_) => true,
        toml::Value::Array(values) => values.iter().any(toml::Value::is_float),
        _ => false,
    }
}

fn options(table: &toml::Table) -> Vec<(String, Vec<String>)> {
    let word = |value: &toml::Value| match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let of = |value: &toml::Value| match value {
        toml::Value::Array(values) => values.iter().map(word).collect(),
        // What is off needs no saying.
        toml::Value::Boolean(false) => Vec::new(),
        other => vec![word(other)],
    };
    let set = table.iter().filter(|(key, _)| !TABLES.contains(&key.as_str()));
    set.map(|(key, value)| (key.clone(), of(value))).filter(|(_, values)| !values.is_empty()).collect()
}
