//! Options of `cudalint cache`, those about caches that other commands have, and how sizes are typed.

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Subcommand};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(in crate::cli) struct CacheArgs {
    #[command(subcommand)]
    pub(in crate::cli) action: Option<CacheAction>,
    /// Where facts of layers are kept
    #[arg(long, value_name = "DIR", env = "CUDALINT_CACHE_DIR", global = true)]
    pub(in crate::cli) cache_dir: Option<PathBuf>,
    /// The shared cache there in place of the directory: s3://…, gs://…, az://…, https://… or another directory
    #[arg(long, value_name = "PLACE", env = "CUDALINT_SHARED", global = true)]
    pub(in crate::cli) shared: Option<String>,
}

/// Where facts are kept for the next look.
#[derive(Args, Debug)]
#[command(next_help_heading = "Image")]
pub(in crate::cli) struct StoreArgs {
    /// Where facts of layers are kept
    #[arg(long, value_name = "DIR", env = "CUDALINT_CACHE_DIR")]
    pub(in crate::cli) cache_dir: Option<PathBuf>,
    /// Neither read nor write the cache
    #[arg(long, env = "CUDALINT_NO_CACHE", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) no_cache: bool,
    /// Cache that machines share: a URL, a directory, `referrers`
    ///
    /// A directory, s3://BUCKET/PATH, gs://…, az://…, https://…, or `referrers`: beside each image in its own registry.
    #[arg(long, value_name = "PLACE", env = "CUDALINT_SHARED_CACHE")]
    pub(in crate::cli) shared_cache: Option<String>,
    /// Read the shared cache only
    #[arg(long, env = "CUDALINT_SHARED_CACHE_READ_ONLY", value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub(in crate::cli) shared_cache_read_only: bool,
    /// Secret with which entries of the shared cache are signed; others are not read
    #[arg(long, value_name = "FILE", env = "CUDALINT_CACHE_KEY")]
    pub(in crate::cli) cache_key: Option<PathBuf>,
    /// Most that the cache directory holds; the longest unused goes first
    #[arg(long, value_name = "SIZE", default_value = "4GB", env = "CUDALINT_CACHE_MAX_SIZE", value_parser = byte_size)]
    pub(in crate::cli) cache_max_size: u64,
}

/// `500MB`, `4GB`, `1TB`, or bytes.
fn byte_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default().to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" => 1_000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "T" | "TB" => 1_000_000_000_000,
        _ => 0,
    };
    let number = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|_| unit > 0);
    number.ok_or_else(|| "a size is a number with MB, GB or TB, such as 4GB".to_owned())
}

#[derive(Subcommand, Debug)]
pub(in crate::cli) enum CacheAction {
    /// Print the directory
    Where,
    /// Print how many layers and bytes it holds
    Size,
    /// Remove layers of other versions and those not used lately
    Prune {
        /// Days without use
        #[arg(long, value_name = "DAYS", default_value_t = 30, env = "CUDALINT_OLDER_THAN")]
        older_than: u64,
        /// Most that is left; the oldest go first
        #[arg(long, value_name = "SIZE", env = "CUDALINT_MAX_SIZE", value_parser = byte_size)]
        max_size: Option<u64>,
    },
    /// Remove everything
    Clear,
}
