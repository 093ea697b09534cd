//! `cudalint` looks into a container image without running it and says whether its GPU software works on given hosts.
//!
//! This file is the map. Bytes become facts, facts become an inventory, the inventory is judged against targets:
//!
//! ```text
//! image::Image ─ scan::layers ─► facts::LayerFacts × N ─ facts::merge ─► facts::ImageFacts      (IO above, pure below)
//!     facts::ImageFacts ─ inventory::build ─► inventory::Inventory ─ rules::judge ─► report::Report ─► render
//! ```

pub mod admission;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod dockerfile;
pub mod export;
pub mod facts;
pub mod gate;
pub mod image;
pub mod inventory;
pub mod limits;
pub mod matrix;
pub mod names;
pub mod plan;
pub mod render;
pub mod report;
pub mod rules;
pub mod scan;
pub mod serve;
pub mod sweep;
pub mod target;
pub mod version;

use catalog::Catalog;
use facts::ImageFacts;
use image::Image;
use image::source::Source;
use inventory::Inventory;
use report::Report;
use scan::cache::Cache;
use std::io::Read;
use target::Target;

/// Facts of an image, and what kept a layer from being read.
pub struct Examined {
    pub facts: ImageFacts,
    pub errors: Vec<image::Error>,
    pub layers_cached: u64,
}

/// Bytes -> facts: every layer once, then merged into what a container would see.
pub fn examine(image: &Image, cache: &Cache, options: &scan::Options) -> Examined {
    merged(image, scan::layers(image, cache, options), options.depth)
}

/// The same for an archive that can be read only once: layers are scanned while they pass.
pub fn examine_stream(
    stream: Box<dyn Read + Send>,
    source: &Source,
    open: &image::OpenOptions,
    cache: &Cache,
    options: &scan::Options,
) -> Result<(Image, Examined), image::Error> {
    let streamed =
        scan::stream::archive(stream, cache, options).map_err(|e| image::Error::io(&source.place(), &e))?;
    let image = Image::of_passed(source, &streamed.passed, open)?;
    let examined = merged(&image, streamed.layers(&image), options.depth);
    Ok((image, examined))
}

fn merged(image: &Image, scan: scan::Scan, depth: facts::Depth) -> Examined {
    let mut errors = Vec::new();
    let layers =
        scan.layers.into_iter().map(|layer| layer.map_err(|error| errors.push(error)).ok()).collect();
    let facts = facts::merge::merge(image.identity.clone(), layers).of_depth(depth);
    Examined { facts, errors, layers_cached: scan.layers_cached }
}

/// Inventory -> report: every rule for every target.
pub fn check<'a>(
    inventory: &'a Inventory<'a>,
    targets: &[Target],
    catalog: &Catalog,
    policy: rules::Policy,
) -> Report<'a> {
    judged(inventory, &rules::Judge::new(inventory, catalog).with(policy), targets)
}

/// The same by a judge that is asked more afterwards, and remembers what it has answered.
pub fn judged<'a>(inventory: &'a Inventory<'a>, judge: &rules::Judge<'_>, targets: &[Target]) -> Report<'a> {
    let judged = targets.iter().map(|t| (t.clone(), judge.target(t))).collect();
    let alone = if targets.is_empty() { judge.alone() } else { Vec::new() };
    let lowest = judge.lowest_driver(targets);
    report::build::report(inventory, judged, alone, lowest)
}
