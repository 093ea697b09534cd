//! `cudalint inspect IMAGE`: the CUDA bill of materials.

use super::args::{Format, InspectArgs};
use super::{load, output, say_layers, status, targets};
use crate::catalog::Catalog;
use crate::image::Error;
use crate::inventory::Inventory;
use crate::inventory::weight::weigh;
use crate::names::ImagePath;
use crate::render::style::Style;
use crate::render::{Context, inspect, json, pretty};
use crate::report::Report;
use crate::target::{Gpu, distinct, resolve_gpu};
use crate::version::ComputeCapability;
use crate::{inventory, render};

pub(super) fn run(args: &InspectArgs) -> Result<u8, Error> {
    let catalog = load::catalog(args.catalog.as_deref())?;
    let outputs = output::plan(&args.output, output::TEXT_OR_JSON)?;
    let gpus = gpus(args, &catalog)?;
    let input = load::one_input(args.image.as_ref(), &args.source)?;
    let loaded = load::load(&input, &args.source, &args.output)?;
    say_layers(&loaded.errors);
    let inventory = inventory::build(&loaded.facts, &catalog);
    let capabilities: Vec<ComputeCapability> = gpus.iter().map(|g| g.cc).collect();
    let weight = args.weight.then(|| weigh(&loaded.facts, &capabilities, &catalog));
    if outputs.wants(Format::Json) {
        let context = Context {
            tool: load::tool(&catalog),
            timing: (!args.output.no_timing).then(|| loaded.timing.clone()),
            as_of: output::as_of(None)?,
        };
        // The same document as the report's, without anything judged.
        let mut document = json::report(&Report::unjudged(&inventory), &context);
        document.objects = Some(inspect::objects(&inventory, args.all_objects));
        document.weight = weight.as_ref().map(|w| render::weight::json(w, &gpus));
        outputs.write(Format::Json, pretty(&document).as_bytes())?;
    }
    if outputs.wants(Format::Text) {
        let mut text = Vec::new();
        match args.tree.as_deref() {
            None if args.weight => {
                let text_of = |w| render::weight::text(w, &gpus, outputs.style);
                text.extend(weight.as_ref().map(text_of).unwrap_or_default().into_bytes());
            }
            None => drop(render::inspect::text(&mut text, &inventory, outputs.style)),
            Some(path) => text.extend(tree(&inventory, path, outputs.style)?.into_bytes()),
        }
        outputs.write(Format::Text, &text)?;
    }
    Ok(if loaded.errors.is_empty() && loaded.facts.complete { status::OK } else { status::LOOK })
}

/// The GPUs that the weight is asked for.
fn gpus(args: &InspectArgs, catalog: &Catalog) -> Result<Vec<Gpu>, Error> {
    let named: Result<Vec<Gpu>, _> = args.gpus.iter().map(|g| resolve_gpu(g, catalog)).collect();
    let fleet = match &args.targets {
        Some(file) => targets::from_file(file, &[], false, catalog)?,
        None => Vec::new(),
    };
    if let Some(unknown) = fleet.iter().flat_map(|t| &t.host.unknown_gpus).next() {
        return Err(Error::usage(format!(
            "nothing is known of GPU `{unknown}`: what it can use is not either"
        )));
    }
    if args.targets.is_some() && fleet.iter().all(|t| t.gpus.is_empty()) {
        return Err(Error::usage("the targets name no GPU"));
    }
    let all = named.map_err(targets::usage)?.into_iter().chain(fleet.into_iter().flat_map(|t| t.gpus));
    Ok(distinct(all))
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
