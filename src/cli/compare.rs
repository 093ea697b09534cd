//! `cudalint compare IMAGE IMAGE…`: what differs in the stacks, and on which hosts that matters.

use super::args::{CompareArgs, Format};
use super::{load, output, status, targets};
use crate::catalog::Catalog;
use crate::compare;
use crate::image::Error;
use crate::inventory::{self, Inventory};
use crate::matrix;
use crate::names::Platform;
use crate::render::compare::{json, text};
use crate::render::pretty;
use crate::report::Level;
use crate::rules::Judge;
use crate::target::{Target, cross};

pub(super) fn run(args: &CompareArgs) -> Result<u8, Error> {
    load::one_reader(&args.images, &args.source, args.target.targets.as_deref())?;
    let catalog = load::catalog(args.target.catalog.as_deref())?;
    let as_of = output::as_of(args.as_of.as_deref())?;
    let outputs = output::plan(&args.output, output::TEXT_OR_JSON)?;
    let targets = hosts(args, &as_of, &catalog)?;
    let inputs = load::inputs(&args.images, &args.source)?;
    if inputs.len() < 2 {
        return Err(Error::usage("compare needs two images at least")
            .hint("cudalint compare repo/train:1.1 repo/train:1.2, or --facts twice"));
    }
    let (all, mut exit) = load::all(&inputs, &args.source, &args.output)?;
    if all.len() < 2 {
        return Ok(exit.status());
    }
    if all.iter().any(|l| Some(l.facts.depth) != all.first().map(|f| f.facts.depth)) {
        return Err(Error::usage(
            "documents of different depth cannot be compared: one was made with --depth libraries",
        )
        .hint("scan all of them at the same depth"));
    }
    let inventories: Vec<Inventory> = all.iter().map(|l| inventory::build(&l.facts, &catalog)).collect();
    let judges: Vec<Judge> = inventories.iter().map(|i| Judge::new(i, &catalog)).collect();
    let comparison = compare::compare(&judges, &targets, args.job);
    if outputs.wants(Format::Json) {
        outputs.write(Format::Json, pretty(&json(&comparison)).as_bytes())?;
    }
    if outputs.wants(Format::Text) {
        outputs.write(Format::Text, text(&comparison, outputs.style).as_bytes())?;
    }
    let refused = comparison.job.iter().flatten().any(|m| m.level == Level::Error);
    exit.add(if refused { status::FINDINGS } else { status::OK });
    Ok(exit.status())
}

/// Those that were named, else the branches that hosts have with one GPU of each kind.
fn hosts(args: &CompareArgs, as_of: &str, catalog: &Catalog) -> Result<Vec<Target>, Error> {
    let named = targets::targets(&args.target, catalog)?;
    if !named.is_empty() {
        return Ok(named);
    }
    let drivers = matrix::drivers(&[], as_of, catalog).map_err(targets::usage)?;
    let gpus = matrix::gpus(&[], &drivers, &Platform::default(), catalog).map_err(targets::usage)?;
    Ok(cross(drivers, gpus, &targets::host(&args.target.stack)?))
}
