//! `cudalint IMAGE…`: images and targets -> reports -> exit status.

use super::args::{CheckArgs, FailOn, Format, TargetArgs};
use super::load::{self, Loaded};
use super::{output, remark, say, say_layers, status, status_of};
use crate::catalog::Catalog;
use crate::image::Error;
use crate::inventory;
use crate::render::json::{ReportJson, ReportsJson, SCHEMA_VERSION};
use crate::render::style::Style;
use crate::render::{Context, json, text};
use crate::report::{Level, Report, Verdict};
use crate::target::{self, Driver, Host, Target, TargetError, profile};
use std::path::Path;

pub(super) fn run(args: &CheckArgs) -> Result<u8, Error> {
    let catalog = load::catalog(args.target.catalog.as_deref())?;
    let from_stdin = args.target.targets.as_deref() == Some(Path::new("-"));
    if from_stdin && args.images.iter().any(|i| i == "-") {
        return Err(Error::usage("image and targets cannot both come from standard input"));
    }
    let targets = targets(&args.target, &catalog)?;
    let outputs = output::plan(&args.output, Format::Text)?;
    let as_of = super::output::as_of(args.as_of.as_deref())?;
    let inputs = load::inputs(&args.images, &args.source)?;
    let mut exit = Exit::default();
    let mut documents: Vec<ReportJson> = Vec::new();
    let mut printed: Vec<u8> = Vec::new();
    for input in &inputs {
        let loaded = match load::load(input, &args.source, &args.output) {
            Ok(loaded) => loaded,
            // One image out of several: the others are still examined.
            Err(error) if inputs.len() > 1 => {
                say(&error);
                exit.add(status_of(&error));
                continue;
            }
            Err(error) => return Err(error),
        };
        say_layers(&loaded.errors);
        let context = Context {
            tool: load::tool(&catalog),
            timing: (!args.output.no_timing).then(|| loaded.timing.clone()),
            as_of: as_of.clone(),
        };
        let inventory = inventory::build(&loaded.facts, &catalog);
        let report = crate::check(&inventory, &targets, &catalog, &loaded.repository);
        exit.add(status_of_report(&report, &loaded, args));
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
    }
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

fn status_of_report(report: &Report, loaded: &Loaded, args: &CheckArgs) -> u8 {
    let threshold = match args.fail_on {
        FailOn::Error => Some(Level::Error),
        FailOn::Warning => Some(Level::Warning),
        FailOn::Note => Some(Level::Note),
        FailOn::Never => None,
    };
    if !loaded.errors.is_empty() || !report.complete {
        return status::LOOK;
    }
    match (threshold, report.worst()) {
        (Some(threshold), Some(worst)) if worst >= threshold => return status::FINDINGS,
        _ => {}
    }
    let unknown = report.targets.iter().any(|t| t.verdict == Verdict::Unknown);
    if args.strict && unknown { status::UNKNOWN } else { status::OK }
}

/// Where several statuses apply, 2 wins over 3 over 1 over 4.
#[derive(Default)]
struct Exit(Vec<u8>);

impl Exit {
    fn add(&mut self, status: u8) {
        self.0.push(status);
    }

    fn status(&self) -> u8 {
        [status::USAGE, status::LOOK, status::FINDINGS, status::UNKNOWN]
            .into_iter()
            .find(|s| self.0.contains(s))
            .unwrap_or(status::OK)
    }
}

/// The profiles of a file, or every driver with every GPU.
fn targets(args: &TargetArgs, catalog: &Catalog) -> Result<Vec<Target>, Error> {
    if let Some(file) = &args.targets {
        return from_file(file, &args.target, args.cordoned, catalog);
    }
    let mut drivers = Vec::new();
    for text in &args.host_driver {
        let version =
            if text == "auto" { target::host::driver_version().map_err(usage)? } else { text.clone() };
        drivers.push(Driver::parse(&version, catalog).map_err(usage)?);
    }
    for text in &args.host_cuda {
        drivers.push(Driver::from_cuda(text, catalog).map_err(usage)?);
    }
    let gpus: Result<Vec<_>, _> = args.gpu.iter().map(|g| target::resolve_gpu(g, catalog)).collect();
    let toolkit = args.container_toolkit.as_deref().map(profile::toolkit_version).transpose();
    let mode = args.runtime_mode.as_deref().map(profile::RuntimeMode::parse).transpose();
    let brand = args.brand.as_deref().map(profile::Brand::check_nvml).transpose();
    let host = Host {
        container_toolkit: toolkit.map_err(usage)?,
        runtime_mode: mode.map_err(usage)?,
        brand: brand.map_err(usage)?,
        ..Host::default()
    };
    if host != Host::default() && drivers.is_empty() && args.gpu.is_empty() {
        let hint = "add --host-driver or --gpu".to_owned();
        return Err(Error::usage("a container toolkit, mode or brand alone is no target").hint(hint));
    }
    Ok(target::cross(drivers, gpus.map_err(usage)?, &host))
}

fn usage(error: TargetError) -> Error {
    match error.hint {
        Some(hint) => Error::usage(error.message).hint(hint),
        None => Error::usage(error.message),
    }
}

fn from_file(
    file: &Path,
    chosen: &[String],
    cordoned: bool,
    catalog: &Catalog,
) -> Result<Vec<Target>, Error> {
    let name = file.display();
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin().lock())
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|e| Error::usage(format!("targets `{name}`: {e}")))?;
    let fleet = target::fleet::read(&text, cordoned, catalog).map_err(|e| {
        usage(TargetError { message: format!("targets `{name}`: {}", e.message), hint: e.hint })
    })?;
    for text in &fleet.remarks {
        remark(&format!("targets `{name}`: {text}"));
    }
    let mut all = fleet.targets;
    if let Some(unknown) = chosen.iter().find(|c| !all.iter().any(|t| t.name == **c)) {
        let names: Vec<String> = all.iter().map(|t| format!("`{}`", t.name)).collect();
        let hint = format!("it has {}", names.join(", "));
        return Err(Error::usage(format!("targets `{name}` has no target `{unknown}`")).hint(hint));
    }
    all.retain(|t| chosen.is_empty() || chosen.contains(&t.name));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_wins_over_look_over_findings_over_unknown() {
        let of = |statuses: &[u8]| Exit(statuses.to_vec()).status();
        assert_eq!(of(&[]), status::OK);
        assert_eq!(of(&[status::UNKNOWN, status::FINDINGS]), status::FINDINGS);
        assert_eq!(of(&[status::FINDINGS, status::LOOK]), status::LOOK);
        assert_eq!(of(&[status::LOOK, status::USAGE]), status::USAGE);
    }
}
