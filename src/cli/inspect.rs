//! `cudalint inspect IMAGE`: the CUDA bill of materials.

use super::args::{Format, InspectArgs};
use super::{load, output, say_layers, status};
use crate::image::Error;
use crate::inventory::Inventory;
use crate::names::ImagePath;
use crate::render::style::Style;
use crate::render::{Context, inspect, json};
use crate::report::Report;
use crate::{inventory, render};

pub(super) fn run(args: &InspectArgs) -> Result<u8, Error> {
    let catalog = load::catalog(args.catalog.as_deref())?;
    let outputs = output::plan(&args.output, output::TEXT_OR_JSON)?;
    let images: Vec<String> = args.image.iter().cloned().collect();
    let inputs = load::inputs(&images, &args.source)?;
    let input = inputs.first().ok_or_else(|| Error::usage("no image given"))?;
    let loaded = load::load(input, &args.source, &args.output)?;
    say_layers(&loaded.errors);
    let inventory = inventory::build(&loaded.facts, &catalog);
    if outputs.wants(Format::Json) {
        let context = Context {
            tool: load::tool(&catalog),
            timing: (!args.output.no_timing).then(|| loaded.timing.clone()),
            as_of: output::as_of(None)?,
        };
        // The same document as the report's, without anything judged.
        let mut document = json::report(&Report::unjudged(&inventory), &context);
        document.objects = Some(inspect::objects(&inventory, args.all_objects));
        outputs.write(Format::Json, output::pretty(&document).as_bytes())?;
    }
    if outputs.wants(Format::Text) {
        let mut text = Vec::new();
        match args.tree.as_deref() {
            None => drop(render::inspect::text(&mut text, &inventory, outputs.style)),
            Some(path) => text.extend(tree(&inventory, path, outputs.style)?.into_bytes()),
        }
        outputs.write(Format::Text, &text)?;
    }
    Ok(if loaded.errors.is_empty() && loaded.facts.complete { status::OK } else { status::LOOK })
}

/// All trees, or that of one file.
fn tree(inventory: &Inventory, path: &str, style: Style) -> Result<String, Error> {
    if path.is_empty() {
        return Ok(render::tree::of_all(inventory, style));
    }
    let file = inventory.processes.loader.paths.file(ImagePath::new(path).as_str());
    let tree = file.and_then(|f| render::tree::of_file(inventory, f, style));
    tree.ok_or_else(|| Error::usage(format!("--tree: `{path}` is no program or shared library of the image")))
}
