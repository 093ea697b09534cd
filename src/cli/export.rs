//! `cudalint export IMAGE --as FORM`: what other systems can act on.

use super::args::{ExportArgs, ExportForm, Format};
use super::load::{self, Loaded};
use super::{output, status, targets};
use crate::catalog::Catalog;
use crate::export::{affinity, cyclonedx, nfd, require, statement};
use crate::image::Error;
use crate::inventory;
use crate::render::pretty;
use crate::rules::Judge;
use crate::target::Host;

pub(super) fn run(args: &ExportArgs) -> Result<u8, Error> {
    if args.output.format.is_some() {
        return Err(Error::usage("the form of an export is chosen with --as").hint("leave --format out"));
    }
    let catalog = load::catalog(args.catalog.as_deref())?;
    let host = targets::host(&args.stack)?;
    let outputs = output::plan(&args.output, &[Format::Text])?;
    let input = load::one_input(args.image.as_ref(), &args.source)?;
    let loaded = load::load(&input, &args.source, &args.output)?;
    super::say_layers(&loaded.errors);
    let document = document(args.form, &loaded, &host, &catalog)?;
    outputs.write(Format::Text, document.as_bytes())?;
    Ok(if loaded.errors.is_empty() && loaded.facts.complete { status::OK } else { status::LOOK })
}

/// The document of a form.
pub(super) fn document(
    form: ExportForm,
    loaded: &Loaded,
    host: &Host,
    catalog: &Catalog,
) -> Result<String, Error> {
    let inventory = inventory::build(&loaded.facts, catalog);
    let judge = Judge::new(&inventory, catalog);
    let tool = load::tool(catalog);
    // The image was looked at: it is the question that has no answer.
    let nowhere = || match inventory.uses_gpu() {
        true => Error::usage("no driver and GPU is known on which the image runs")
            .hint("`cudalint matrix` shows why"),
        false => Error::usage("nothing in the image uses the GPU: it needs no particular node"),
    };
    match form {
        ExportForm::NodeAffinity => affinity::yaml(&judge, host).ok_or_else(nowhere),
        ExportForm::Nfd => nfd::yaml(&judge, host).ok_or_else(nowhere),
        ExportForm::Require => {
            let value = require::value(&inventory);
            let line = value.map(|v| format!("NVIDIA_REQUIRE_CUDA={v}\n"));
            line.ok_or_else(|| {
                Error::usage("the image has no CUDA runtime of known version to ask a driver for")
            })
        }
        ExportForm::Cyclonedx => Ok(pretty(&cyclonedx::bom(&inventory, &tool))),
        ExportForm::InToto => statement::statement(&inventory, &tool).map(|s| pretty(&s)).ok_or_else(|| {
            Error::usage("an in-toto statement speaks of a digest, and this image has none")
                .hint("name it by registry, OCI layout or archive")
        }),
    }
}
