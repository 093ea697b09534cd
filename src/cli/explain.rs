//! `cudalint rules` and `cudalint explain RULE`: the rules, and the page of one.

use super::args::{ExplainArgs, ListFormat, RulesArgs};
use super::{output, status};
use crate::gate::closest;
use crate::image::Error;
use crate::render::{RuleDoc, pretty};
use crate::rules::{self, RULES};
use serde::Serialize;
use std::fmt::Write as _;

mod pages {
    include!(concat!(env!("OUT_DIR"), "/pages.rs"));
}

pub(super) fn explain(args: &ExplainArgs) -> Result<u8, Error> {
    let rule = rules::find(&args.rule).ok_or_else(|| unknown(&args.rule))?;
    let page = page(rule.id.name)
        .ok_or_else(|| Error::look(format!("the page of {} is missing in this build", rule.id.code)))?;
    output::to_stdout(format!("{}\n\n{page}", rule.id.code).as_bytes())?;
    Ok(status::OK)
}

/// The page of a rule, without its machine block.
fn page(name: &str) -> Option<&'static str> {
    let (_, page) = pages::PAGES.iter().find(|(stem, _)| *stem == name)?;
    let after = page.strip_prefix("```toml\n").and_then(|rest| rest.split_once("\n```\n"));
    Some(after.map_or(*page, |(_, prose)| prose).trim_start())
}

/// All rules with their pages, for documents.
pub(super) fn documents() -> Vec<RuleDoc> {
    let doc = |r: &rules::Rule| RuleDoc {
        code: r.id.code,
        name: r.id.name,
        summary: r.summary,
        page: page(r.id.name).unwrap_or_default(),
    };
    RULES.iter().map(doc).collect()
}

fn unknown(typed: &str) -> Error {
    let closest = closest(typed, RULES.iter().map(|r| r.id.name)).map(|name| format!("did you mean {name}?"));
    Error::usage(format!("no rule `{typed}`"))
        .hint(closest.unwrap_or_else(|| "`cudalint rules` lists them".to_owned()))
}

#[derive(Serialize)]
struct RuleJson {
    rule: &'static str,
    name: &'static str,
    summary: &'static str,
}

pub(super) fn rules(args: &RulesArgs) -> Result<u8, Error> {
    let text = match args.format {
        ListFormat::Json => {
            let rules: Vec<RuleJson> = RULES
                .iter()
                .map(|r| RuleJson { rule: r.id.code, name: r.id.name, summary: r.summary })
                .collect();
            pretty(&rules)
        }
        ListFormat::Text => {
            let width = RULES.iter().map(|r| r.id.name.len()).max().unwrap_or(0);
            let mut text = String::new();
            for rule in RULES {
                let _ = writeln!(text, "{}  {:<width$}  {}", rule.id.code, rule.id.name, rule.summary);
            }
            text
        }
    };
    output::to_stdout(text.as_bytes())?;
    Ok(status::OK)
}
