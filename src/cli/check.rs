//! `cudalint IMAGE…`: images and targets -> reports -> exit status.

use super::args::{CheckArgs, FailOn, Format, PolicyName};
use super::{Exit, load, output, status, targets};
use crate::image::Error;
use crate::inventory;
use crate::render::json::{ReportJson, ReportsJson, SCHEMA_VERSION};
use crate::render::style::Style;
use crate::render::{Context, json, text};
use crate::report::{Level, Report, Verdict};
use crate::rules::{Policy, Profile};
use crate::target::{Driver, Target};
use std::path::Path;

pub(super) fn run(args: &CheckArgs) -> Result<u8, Error> {
    let catalog = load::catalog(args.target.catalog.as_deref())?;
    let from_stdin = args.target.targets.as_deref() == Some(Path::new("-"));
    if from_stdin && args.images.iter().any(|i| i == "-") {
        return Err(Error::usage("image and targets cannot both come from standard input"));
    }
    let targets = targets::targets(&args.target, &catalog)?;
    let outputs = output::plan(&args.output, output::TEXT_OR_JSON)?;
    let as_of = super::output::as_of(args.as_of.as_deref())?;
    let policy = policy(args, &targets, &as_of);
    let inputs = load::inputs(&args.images, &args.source)?;
    let mut judged = Exit::default();
    let mut documents: Vec<ReportJson> = Vec::new();
    let mut printed: Vec<u8> = Vec::new();
    let mut exit = load::each(&inputs, &args.source, &args.output, |loaded| {
        let context = Context {
            tool: load::tool(&catalog),
            timing: (!args.output.no_timing).then(|| loaded.timing.clone()),
            as_of: as_of.clone(),
        };
        let inventory = inventory::build(&loaded.facts, &catalog);
        let report = crate::check(&inventory, &targets, &catalog, &loaded.repository, policy.clone());
        judged.add(status_of_report(&report, args));
        if outputs.wants(Format::Json) {
            documents.push(json::report(&report, &context));
        }
        if outputs.wants(Format::Text) {
            if !printed.is_empty() {
                printed.push(b'\n');
            }
            let _never_fails =
                text::report(&mut printed, &report, &context, text_options(args, outputs.style));
        }
        Ok(())
    })?;
    exit.join(judged);
    let document =
        if inputs.len() == 1 { documents.pop().map(|d| output::pretty(&d)) } else { several(documents) };
    // Where no image could be opened there is nothing to write.
    if !printed.is_empty() {
        outputs.write(Format::Text, &printed)?;
    }
    if let Some(document) = document {
        outputs.write(Format::Json, document.as_bytes())?;
    }
    Ok(exit.status())
}

fn policy(args: &CheckArgs, targets: &[Target], as_of: &str) -> Policy {
    let profile = args.policy.map(|p| match p {
        PolicyName::Development => Profile::Development,
        PolicyName::Production => Profile::Production,
    });
    let mut drivers: Vec<u32> =
        targets.iter().filter_map(|t| t.driver.as_ref()).filter_map(Driver::branch).collect();
    drivers.sort_unstable();
    drivers.dedup();
    Policy { profile, as_of: as_of.to_owned(), drivers }
}

fn several(reports: Vec<ReportJson>) -> Option<String> {
    (!reports.is_empty()).then(|| output::pretty(&ReportsJson { schema_version: SCHEMA_VERSION, reports }))
}

fn text_options(args: &CheckArgs, style: Style) -> text::Options {
    text::Options {
        style,
        verbose: args.output.verbose,
        quiet: args.output.quiet,
        show_passed: args.show_passed,
    }
}

fn status_of_report(report: &Report, args: &CheckArgs) -> u8 {
    let threshold = match args.fail_on {
        FailOn::Error => Some(Level::Error),
        FailOn::Warning => Some(Level::Warning),
        FailOn::Note => Some(Level::Note),
        FailOn::Never => None,
    };
    match (threshold, report.worst()) {
        (Some(threshold), Some(worst)) if worst >= threshold => return status::FINDINGS,
        _ => {}
    }
    let unknown = report.targets.iter().any(|t| t.verdict == Verdict::Unknown);
    if args.strict && unknown { status::UNKNOWN } else { status::OK }
}
