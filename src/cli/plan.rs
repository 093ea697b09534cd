//! `cudalint plan IMAGE… --targets FILE`: the smallest set of changes with which all images run on all hosts.

use super::args::{Format, PlanArgs};
use super::{load, output, status, targets};
use crate::image::Error;
use crate::inventory::{self, Inventory};
use crate::plan::plan;
use crate::render::plan::{Named, json, text};
use crate::render::pretty;
use crate::rules::Judge;

pub(super) fn run(args: &PlanArgs) -> Result<u8, Error> {
    load::one_reader(&args.images, &args.source, args.target.targets.as_deref())?;
    let catalog = load::catalog(args.target.catalog.as_deref())?;
    let as_of = output::as_of(args.as_of.as_deref())?;
    let outputs = output::plan(&args.output, output::TEXT_OR_JSON)?;
    let hosts = targets::targets(&args.target, &catalog)?;
    if hosts.is_empty() {
        let hint = "--targets FILE, such as what `kubectl get nodes -o json` prints";
        return Err(Error::usage("a plan needs hosts").hint(hint));
    }
    let inputs = load::inputs(&args.images, &args.source)?;
    let (all, mut exit) = load::all(&inputs, &args.source, &args.output)?;
    if all.is_empty() {
        return Ok(exit.status());
    }
    let inventories: Vec<Inventory> = all.iter().map(|l| inventory::build(&l.facts, &catalog)).collect();
    let judges: Vec<Judge> = inventories.iter().map(|i| Judge::new(i, &catalog)).collect();
    let plan = plan(&judges, &hosts, &as_of);
    let named = Named { inventories: &inventories, targets: &hosts };
    if outputs.wants(Format::Json) {
        outputs.write(Format::Json, pretty(&json(&plan, &named)).as_bytes())?;
    }
    if outputs.wants(Format::Text) {
        outputs.write(Format::Text, text(&plan, &named, outputs.style).as_bytes())?;
    }
    // Something fails now: the same status as a check gives.
    exit.add(if plan.steps.is_empty() { status::OK } else { status::FINDINGS });
    Ok(exit.status())
}
