//! `cudalint schema`, `cudalint completions`, `cudalint man`: descriptions of the program for other programs.

use super::args::{Cli, CompletionsArgs, ManArgs, SchemaArgs, SchemaName};
use super::{output, status};
use crate::facts::json::FactsJson;
use crate::gate::file::ConfigFile;
use crate::image::Error;
use crate::render::json::ReportJson;
use crate::render::matrix::json::MatricesJson;
use crate::render::pretty;
use crate::sweep::rows::Row;
use crate::target::file::TargetsFile;
use clap::CommandFactory;

pub(super) fn run(args: &SchemaArgs) -> Result<u8, Error> {
    let schema = match args.name {
        SchemaName::Report => schemars::schema_for!(ReportJson),
        SchemaName::Facts => schemars::schema_for!(FactsJson),
        SchemaName::Config => schemars::schema_for!(ConfigFile),
        SchemaName::Targets => schemars::schema_for!(TargetsFile),
        SchemaName::Matrix => schemars::schema_for!(MatricesJson),
        SchemaName::Sweep => schemars::schema_for!(Row),
    };
    output::to_stdout(pretty(&schema).as_bytes())?;
    Ok(status::OK)
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<u8, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cudalint", &mut script);
    output::to_stdout(&script)?;
    Ok(status::OK)
}

/// One page per command, as the definition of the options says it.
pub(super) fn man(args: &ManArgs) -> Result<u8, Error> {
    let dir = &args.dir;
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .map_err(|e| Error::usage(format!("cannot write manual pages to `{}`: {e}", dir.display())))?;
    Ok(status::OK)
}
