//! `cudalint attach IMAGE --as FORM`: a result, pushed to the registry as a referrer of the image.

use super::args::{AttachArgs, AttachForm, ExportForm};
use super::load::{self, Input, Loaded};
use super::{export, output, status, targets};
use crate::catalog::Catalog;
use crate::export::{nfd, statement};
use crate::image::registry::Registry;
use crate::image::registry::push::{Artifact, Blob};
use crate::image::source::Source;
use crate::image::{Error, reference::Reference};
use crate::inventory;
use crate::render::{Context, json, pretty};
use crate::rules::Policy;

const REPORT: &str = "application/vnd.cudalint.report.v1+json";

pub(super) fn run(args: &AttachArgs) -> Result<u8, Error> {
    load::one_reader(std::slice::from_ref(&args.image), &args.source, args.target.targets.as_deref())?;
    let catalog = load::catalog(args.target.catalog.as_deref())?;
    let targets = targets::targets(&args.target, &catalog)?;
    if args.form != AttachForm::Report && !targets.is_empty() {
        return Err(Error::usage("only a report is about given hosts")
            .hint("leave the hosts out, or attach --as report"));
    }
    if args.output.format.is_some() || !args.output.output.is_empty() {
        return Err(Error::usage("attach writes to the registry")
            .hint("`cudalint export` and `check -f json` write files"));
    }
    let Source::Registry(reference) = Source::parse(&args.image)? else {
        return Err(Error::usage(format!(
            "`{}` is in no registry: nothing can be attached to it",
            args.image
        ))
        .hint("push it first; `cudalint export` writes the document to a file"));
    };
    let loaded = load::load(&Input::Image(args.image.clone()), &args.source, &args.output)?;
    super::say_layers(&loaded.errors);
    if !loaded.errors.is_empty() || !loaded.facts.complete {
        // A document about half an image would speak for the whole.
        return Ok(status::LOOK);
    }
    let host = targets::host(&args.target.stack)?;
    let export = |form| export::document(form, &loaded, &host, &catalog);
    let (artifact_type, media_type, document) = match args.form {
        AttachForm::Nfd => (nfd::ARTIFACT_TYPE, nfd::MEDIA_TYPE, export(ExportForm::Nfd)?),
        AttachForm::InToto => (statement::MEDIA_TYPE, statement::MEDIA_TYPE, export(ExportForm::InToto)?),
        AttachForm::Report => (REPORT, REPORT, report(&loaded, &targets, &catalog)?),
    };
    push(
        args,
        &reference,
        &loaded,
        &Artifact {
            artifact_type,
            blobs: &[Blob { media_type, bytes: document.as_bytes(), annotations: Vec::new() }],
            annotations: vec![("org.opencontainers.image.created".to_owned(), crate::clock::now())],
        },
    )
}

/// The same report as a check's.
fn report(loaded: &Loaded, targets: &[crate::target::Target], catalog: &Catalog) -> Result<String, Error> {
    let inventory = inventory::build(&loaded.facts, catalog);
    let report = crate::check(&inventory, targets, catalog, Policy::default());
    let context = Context { tool: load::tool(catalog), timing: None, as_of: output::as_of(None)? };
    Ok(pretty(&json::report(&report, &context)))
}

fn push(args: &AttachArgs, reference: &Reference, loaded: &Loaded, artifact: &Artifact) -> Result<u8, Error> {
    let digest = loaded.facts.image.digest.as_ref();
    let digest = digest.ok_or_else(|| Error::look("the registry told no digest of the image"))?;
    let registry = Registry::connect(reference, &load::open_options(&args.source)?.registry)?;
    let attached = registry.attach(digest.as_str(), artifact)?;
    let mut text = format!("{}@{}\n", reference.repository_name(), attached.digest);
    if let Some(tag) = attached.fallback_tag {
        text.push_str(&format!("the registry keeps no list of referrers: listed under tag {tag}\n"));
    }
    output::to_stdout(text.as_bytes())?;
    Ok(status::OK)
}
