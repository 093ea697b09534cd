//! `cudalint cache`: where, how large, prune, clear.

use super::args::{CacheAction, CacheArgs};
use super::{load, output, status};
use crate::image::Error;
use crate::render::style::bytes;
use crate::scan::cache::{Cache, Usage};

pub(super) fn run(args: &CacheArgs) -> Result<u8, Error> {
    let cache = load::cache(args.cache_dir.as_deref(), false);
    let Some(dir) = cache.dir().map(|d| d.display().to_string()) else {
        return Err(
            Error::usage("no cache directory is known").hint("give one with --cache-dir, or set HOME")
        );
    };
    let failed = |e: std::io::Error| Error::look(format!("cache `{dir}`: {e}"));
    let layers = |u: Usage| {
        format!("{} {}, {}", u.files, if u.files == 1 { "layer" } else { "layers" }, bytes(u.bytes))
    };
    let text = match &args.action {
        None => format!("{dir}\n{}\n", layers(Cache::usage(&cache))),
        Some(CacheAction::Where) => format!("{dir}\n"),
        Some(CacheAction::Size) => format!("{}\n", layers(cache.usage())),
        Some(CacheAction::Prune { older_than }) => {
            format!("removed {}\n", layers(cache.prune(*older_than).map_err(failed)?))
        }
        Some(CacheAction::Clear) => format!("removed {}\n", layers(cache.clear().map_err(failed)?)),
    };
    output::to_stdout(text.as_bytes())?;
    Ok(status::OK)
}
