//! `cudalint matrix IMAGE…`: one scan of each image -> its verdict for every driver and GPU.

use super::args::{Format, MatrixArgs};
use super::{load, output, targets};
use crate::image::Error;
use crate::inventory::{self, Inventory};
use crate::matrix::{self, Axes, Matrix};
use crate::names::Platform;
use crate::render::matrix::{View, html, json, markdown, svg, text};
use crate::render::pretty;
use crate::rules::Judge;

const FORMATS: &[Format] = &[Format::Text, Format::Json, Format::Markdown, Format::Svg, Format::Html];

pub(super) fn run(args: &MatrixArgs) -> Result<u8, Error> {
    let catalog = load::catalog(args.catalog.as_deref())?;
    let as_of = output::as_of(args.as_of.as_deref())?;
    let drivers = matrix::drivers(&args.drivers, &as_of, &catalog).map_err(targets::usage)?;
    let host = targets::host(&args.stack)?;
    let axes = |platform: &Platform| {
        let gpus = matrix::gpus(&args.gpus, &drivers, platform, &catalog).map_err(targets::usage)?;
        Ok(Axes { drivers: drivers.clone(), gpus, host: host.clone() })
    };
    // What is wrong with the list is said before anything is pulled.
    axes(&Platform::default())?;
    let outputs = output::plan(&args.output, FORMATS)?;
    let inputs = load::inputs(&args.images, &args.source)?;
    let (all, exit) = load::all(&inputs, &args.source, &args.output)?;
    if all.is_empty() {
        return Ok(exit.status());
    }
    let inventories: Vec<Inventory> = all.iter().map(|l| inventory::build(&l.facts, &catalog)).collect();
    let mut matrices: Vec<Matrix> = Vec::new();
    for inventory in &inventories {
        let axes = axes(&inventory.facts.image.platform)?;
        let whole = matrix::matrix(&Judge::new(inventory, &catalog), &axes);
        matrices.push(if args.only_supported { whole.only_supported() } else { whole });
    }
    let view = |m| View::new(m, args.gpus.is_empty());
    let views: Vec<View> = matrices.iter().map(view).collect();
    let joined = |one: &dyn Fn(&View) -> String| views.iter().map(one).collect::<Vec<_>>().join("\n");
    for format in FORMATS.iter().copied().filter(|f| outputs.wants(*f)) {
        let document = match format {
            Format::Text => joined(&|v| text::matrix(v, outputs.style)),
            Format::Markdown => joined(&markdown::matrix),
            Format::Svg => svg::matrices(&views),
            Format::Html => {
                let tool = load::tool(&catalog);
                html::matrices(&views, &format!("{} {}, facts of {}", tool.name, tool.version, tool.facts))
            }
            Format::Json => pretty(&json::matrices(&matrices.iter().collect::<Vec<_>>())),
            // Not among FORMATS.
            Format::Sarif | Format::Github | Format::Gitlab | Format::Junit => continue,
        };
        outputs.write(format, document.as_bytes())?;
    }
    Ok(exit.status())
}
