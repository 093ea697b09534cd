//! `cudalint scan IMAGE`: the facts document, to be judged later and elsewhere.

use super::args::{Format, ScanArgs};
use super::{load, output, say_layers, status};
use crate::facts::json;
use crate::image::Error;
use crate::render::pretty;
use crate::render::style::{bytes, safe};

pub(super) fn run(args: &ScanArgs) -> Result<u8, Error> {
    let outputs = output::plan(&args.output, &[Format::Json, Format::Text])?;
    let input = load::one_input(args.image.as_ref(), &args.source)?;
    let loaded = load::load(&input, &args.source, &args.output)?;
    say_layers(&loaded.errors);
    let catalog = load::catalog(None)?;
    let timing = (!args.output.no_timing).then(|| loaded.timing.clone());
    if outputs.wants(Format::Json) {
        let document = json::write(&loaded.facts, load::tool(&catalog), timing);
        outputs.write(Format::Json, pretty(&document).as_bytes())?;
    }
    let facts = &loaded.facts;
    let summary = format!(
        "{}   {} layers, {} files, {} ELF files, {} with GPU code, {} packages, {} uncompressed\n",
        safe(&facts.image.reference),
        facts.image.layers.len(),
        facts.counts.files,
        facts.counts.elf_files,
        facts.files.iter().filter(|f| f.device_code.is_some()).count(),
        facts.packages.len(),
        bytes(facts.counts.bytes_decompressed),
    );
    outputs.write(Format::Text, summary.as_bytes())?;
    Ok(if loaded.errors.is_empty() && facts.complete { status::OK } else { status::LOOK })
}
