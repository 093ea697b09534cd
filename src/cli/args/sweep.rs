//! Options of `cudalint sweep`.

use super::{FailOn, SourceArgs, TargetArgs};
use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(in crate::cli) struct SweepArgs {
    /// File of image names (`-`: standard input), catalog:HOST[/PREFIX], or what `kubectl get pods -A -o json`, `helm template` or `kustomize build` print
    pub(in crate::cli) list: Option<String>,
    /// Results as NDJSON; a sweep that was stopped goes on from there. Default: standard output
    #[arg(short, long, value_name = "FILE", env = "CUDALINT_OUTPUT")]
    pub(in crate::cli) output: Option<PathBuf>,
    /// Report on results of earlier sweeps, of all shards together, in place of a list; repeatable
    #[arg(long, value_name = "FILE", env = "CUDALINT_RESULTS", conflicts_with = "list")]
    pub(in crate::cli) results: Vec<PathBuf>,
    /// Begin anew where there are results already
    #[arg(long, env = "CUDALINT_RESTART", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) restart: bool,
    /// Only images whose name matches the pattern; repeatable
    #[arg(long, value_name = "GLOB", env = "CUDALINT_ONLY")]
    pub(in crate::cli) only: Vec<String>,
    /// No image whose name matches the pattern; repeatable
    #[arg(long, value_name = "GLOB", env = "CUDALINT_SKIP")]
    pub(in crate::cli) skip: Vec<String>,
    /// Into how many parts the list is divided
    #[arg(long, value_name = "N", default_value_t = 1, env = "CUDALINT_SHARDS", hide_default_value = true)]
    pub(in crate::cli) shards: u64,
    /// Which part this is, from 0; default: JOB_COMPLETION_INDEX
    #[arg(long, value_name = "I", env = "CUDALINT_SHARD")]
    pub(in crate::cli) shard: Option<u64>,
    /// The whole facts document in every row
    #[arg(long, env = "CUDALINT_WITH_FACTS", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) with_facts: bool,
    /// The report as JSON
    #[arg(long, env = "CUDALINT_JSON", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) json: bool,
    /// Lowest level of a finding that makes the exit status 1
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = FailOn::Error, env = "CUDALINT_FAIL_ON", hide_default_value = true)]
    pub(in crate::cli) fail_on: FailOn,
    /// Day as of which is judged; default today, or that of the results
    #[arg(long, value_name = "DATE", env = "CUDALINT_AS_OF")]
    pub(in crate::cli) as_of: Option<String>,
    /// No progress on the terminal
    #[arg(long, env = "CUDALINT_NO_PROGRESS", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) no_progress: bool,
    #[command(flatten)]
    pub(in crate::cli) source: SourceArgs,
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
}
