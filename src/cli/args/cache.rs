//! Options of `cudalint cache`, and how sizes are typed.

use clap::{Args, Subcommand};
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

/// `500MB`, `4GB`, `1TB`, or bytes.
pub(super) fn byte_size(text: &str) -> Result<u64, String> {
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
