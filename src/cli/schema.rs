//! `cudalint schema` and `cudalint completions`: descriptions of the program for other programs.

use super::args::{Cli, CompletionsArgs, SchemaArgs, SchemaName};
use super::{output, status};
use crate::facts::json::FactsJson;
use crate::image::Error;
use crate::render::json::ReportJson;
use crate::render::matrix::json::MatricesJson;
use crate::target::file::TargetsFile;
use clap::CommandFactory;

pub(super) fn run(args: &SchemaArgs) -> Result<u8, Error> {
    let schema = match args.name {
        SchemaName::Report => schemars::schema_for!(ReportJson),
        SchemaName::Facts => schemars::schema_for!(FactsJson),
        SchemaName::Targets => schemars::schema_for!(TargetsFile),
        SchemaName::Matrix => schemars::schema_for!(MatricesJson),
    };
    output::to_stdout(output::pretty(&schema).as_bytes())?;
    Ok(status::OK)
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<u8, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cudalint", &mut script);
    output::to_stdout(&script)?;
    Ok(status::OK)
}
