//! `cudalint IMAGE…`: images and targets -> reports -> documents and an exit status.

use super::args::{CheckArgs, FailOn, Format, PolicyName};
use super::{Exit, config, explain, load, output, remark, status, targets};
use crate::catalog::Catalog;
use crate::dockerfile::Dockerfile;
use crate::gate::baseline::Baseline;
use crate::gate::file::{self, Config};
use crate::gate::{Gate, Selector};
use crate::image::Error;
use crate::inventory::{self, Inventory};
use crate::limits;
use crate::matrix::{self, Axes};
use crate::render::matrix::View;
use crate::render::style::Style;
use crate::render::{Context, Document, github, gitlab, html, json, junit, markdown, sarif, text};
use crate::report::{Level, Report, Verdict};
use crate::rules::{self, Judge, Policy, Profile};
use crate::target::{Driver, Host, Target};
use std::path::Path;

const FORMATS: &[Format] = &[
    Format::Text,
    Format::Json,
    Format::Sarif,
    Format::Github,
    Format::Gitlab,
    Format::Junit,
    Format::Markdown,
    Format::Html,
];
/// An image says here what should be ignored; heeded only where that is allowed.
const IGNORE_LABEL: &str = "io.github.cudalint.ignore";

pub(super) fn run(args: &CheckArgs, config: Config) -> Result<u8, Error> {
    load::one_reader(&args.images, &args.source, args.target.targets.as_deref())?;
    let catalog = load::catalog(args.target.catalog.as_deref())?;
    let targets = targets::targets(&args.target, &catalog)?;
    let outputs = output::plan(&args.output, FORMATS)?;
    let as_of = output::as_of(args.as_of.as_deref())?;
    let policy = policy(args, &targets, &as_of);
    let mut gate = gate(args, config, &as_of)?;
    let dockerfile = args.dockerfile.as_deref().map(dockerfile).transpose()?;
    let inputs = load::inputs(&args.images, &args.source)?;
    let mut judged = Exit::default();
    let mut documents: Vec<(Format, Box<dyn Document>)> = FORMATS
        .iter()
        .filter(|f| outputs.wants(**f))
        .filter_map(|f| Some((*f, document(*f, args, outputs.style, inputs.len() > 1)?)))
        .collect();
    let mut page = outputs.wants(Format::Html).then(html::Page::default);
    let mut any = false;
    let mut exit = load::each(&inputs, &args.source, &args.output, |loaded| {
        let context = Context {
            tool: load::tool(&catalog),
            timing: (!args.output.no_timing).then(|| loaded.timing.clone()),
            as_of: as_of.clone(),
        };
        let inventory = inventory::build(&loaded.facts, &catalog);
        let mut report = crate::check(&inventory, &targets, &catalog, policy.clone());
        let own = gate.ignores.len();
        heed_label(&mut gate, &inventory, args);
        gate.apply(&mut report);
        gate.ignores.truncate(own);
        if let Some(dockerfile) = &dockerfile {
            let attribution = dockerfile.attribute(&loaded.facts.image);
            if let Some(misfit) = attribution.misfit {
                remark(&format!(
                    "no finding of {} is put on a line of the Dockerfile: {misfit}",
                    loaded.facts.image.reference
                ));
            }
            attribution.apply(&mut report);
        }
        judged.add(status_of_report(&report, args));
        for (_, document) in &mut documents {
            document.add(&report, &context);
        }
        if let Some(page) = &mut page {
            add_to_page(page, &report, &context, &inventory, &catalog)?;
        }
        any = true;
        Ok(())
    })?;
    exit.join(judged);
    for text in gate.remarks() {
        remark(&text);
    }
    // Where no image could be opened there is nothing to write.
    if any {
        for (format, document) in documents {
            outputs.write(format, document.finish().as_bytes())?;
        }
        if let Some(page) = page {
            outputs.write(Format::Html, page.finish().as_bytes())?;
        }
    }
    Ok(exit.status())
}

fn document(format: Format, args: &CheckArgs, style: Style, several: bool) -> Option<Box<dyn Document>> {
    Some(match format {
        Format::Text => Box::new(text::Printed::new(text_options(args, style))),
        Format::Json => Box::new(json::Reports::new(several)),
        Format::Sarif => Box::new(sarif::Log::new(explain::documents())),
        Format::Github => Box::new(github::Annotations::default()),
        Format::Gitlab => Box::new(gitlab::CodeQuality::default()),
        Format::Junit => Box::new(junit::Suites::new(junit::Fails {
            from: threshold(args.gate.fail_on),
            unknown: args.gate.strict,
        })),
        Format::Markdown => Box::new(markdown::Summary::default()),
        // It wants the matrix too.
        Format::Html | Format::Svg => return None,
    })
}

/// Findings of one image up to which its page shows all drivers and GPUs too: beyond it they are all the same trouble.
const MAPPED_FINDINGS_MAX: usize = 500;

/// The page shows all drivers and GPUs beside the targets.
fn add_to_page(
    page: &mut html::Page,
    report: &Report,
    context: &Context,
    inventory: &Inventory,
    catalog: &Catalog,
) -> Result<(), Error> {
    if report.findings.len() > MAPPED_FINDINGS_MAX {
        page.add(report, context, None);
        return Ok(());
    }
    let drivers = matrix::drivers(&[], &context.as_of, catalog).map_err(targets::usage)?;
    let gpus =
        matrix::gpus(&[], &drivers, &inventory.facts.image.platform, catalog).map_err(targets::usage)?;
    let axes = Axes { drivers, gpus, host: Host::default() };
    let matrix = matrix::matrix(&Judge::new(inventory, catalog), &axes);
    page.add(report, context, Some(&View::new(&matrix, true)));
    Ok(())
}

fn gate(args: &CheckArgs, config: Config, as_of: &str) -> Result<Gate, Error> {
    let known = rules::ids();
    let parse = |option: &str, texts: &[String]| -> Result<Vec<Selector>, Error> {
        let one =
            |t: &String| Selector::parse(t, &known).map_err(|e| Error::usage(format!("--{option}: {e}")));
        texts.iter().map(one).collect()
    };
    let or = |typed: Vec<Selector>, file: Vec<Selector>| if typed.is_empty() { file } else { typed };
    Ok(Gate {
        select: or(parse("select", &args.gate.select)?, config.select),
        ignore: or(parse("ignore", &args.gate.ignore)?, config.ignore),
        levels: config.levels,
        ignores: config.ignores,
        baseline: args.gate.baseline.as_deref().map(baseline).transpose()?,
        as_of: as_of.to_owned(),
    })
}

/// What the image itself wants ignored: heeded where that is allowed, said where it is not.
fn heed_label(gate: &mut Gate, inventory: &Inventory, args: &CheckArgs) {
    let image = &inventory.facts.image;
    let Some(label) = image.config.labels.get(IGNORE_LABEL) else { return };
    if !args.gate.allow_image_ignores {
        remark(&format!(
            "{} carries the label {IGNORE_LABEL}; it is heeded only with --allow-image-ignores",
            image.reference
        ));
        return;
    }
    let (ignores, wrong) = file::image_ignores(label, &rules::ids());
    for text in wrong {
        remark(&text);
    }
    gate.ignores.extend(ignores);
}

fn baseline(path: &Path) -> Result<Baseline, Error> {
    let name = path.display().to_string();
    let refuse = |e: String| Error::usage(format!("--baseline `{name}`: {e}"));
    let text = config::text_file(path, limits::BASELINE_BYTES_MAX).map_err(refuse)?;
    Baseline::read(&name, text.as_bytes()).map_err(refuse)
}

fn dockerfile(path: &Path) -> Result<Dockerfile, Error> {
    let refuse = |e: String| Error::usage(format!("--dockerfile `{}`: {e}", path.display()));
    let text = config::text_file(path, limits::DOCKERFILE_BYTES_MAX).map_err(refuse)?;
    Dockerfile::parse(&config::shown(path), &text).map_err(refuse)
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

fn text_options(args: &CheckArgs, style: Style) -> text::Options {
    text::Options {
        style,
        verbose: args.output.verbose,
        quiet: args.output.quiet,
        show_passed: args.show_passed,
        show_suppressed: args.gate.show_suppressed,
    }
}

/// From this level on a finding fails the run.
pub(super) fn threshold(fail_on: FailOn) -> Option<Level> {
    match fail_on {
        FailOn::Error => Some(Level::Error),
        FailOn::Warning => Some(Level::Warning),
        FailOn::Note => Some(Level::Note),
        FailOn::Never => None,
    }
}

fn status_of_report(report: &Report, args: &CheckArgs) -> u8 {
    match (threshold(args.gate.fail_on), report.worst()) {
        (Some(threshold), Some(worst)) if worst >= threshold => return status::FINDINGS,
        _ => {}
    }
    let unknown = report.targets.iter().any(|t| t.verdict == Verdict::Unknown);
    if args.gate.strict && unknown { status::UNKNOWN } else { status::OK }
}
