//! `cudalint cache`: where, how large, prune, clear.

use super::args::{CacheAction, CacheArgs};
use super::{load, output, status};
use crate::image::Error;
use crate::render::style::bytes;
use crate::scan::cache::{Cache, ObjectStore, Place, Usage};

pub(super) fn run(args: &CacheArgs) -> Result<u8, Error> {
    let text = match &args.shared {
        Some(place) => shared(place, args.action.as_ref())?,
        None => local(&load::cache(args.cache_dir.as_deref(), false, u64::MAX), args.action.as_ref())?,
    };
    output::to_stdout(text.as_bytes())?;
    Ok(status::OK)
}

fn entries(usage: Usage) -> String {
    let word = if usage.files == 1 { "entry" } else { "entries" };
    format!("{} {word}, {}", usage.files, bytes(usage.bytes))
}

fn local(cache: &Cache, action: Option<&CacheAction>) -> Result<String, Error> {
    let Some(dir) = cache.dir().map(|d| d.display().to_string()) else {
        return Err(
            Error::usage("no cache directory is known").hint("give one with --cache-dir, or set HOME")
        );
    };
    let failed = |e: std::io::Error| Error::look(format!("cache `{dir}`: {e}"));
    Ok(match action {
        None => format!("{dir}\n{}\n", entries(cache.usage())),
        Some(CacheAction::Where) => format!("{dir}\n"),
        Some(CacheAction::Size) => format!("{}\n", entries(cache.usage())),
        Some(CacheAction::Prune { older_than, max_size }) => {
            format!("removed {}\n", entries(cache.prune(*older_than, *max_size).map_err(failed)?))
        }
        Some(CacheAction::Clear) => format!("removed {}\n", entries(cache.clear().map_err(failed)?)),
    })
}

fn shared(place: &str, action: Option<&CacheAction>) -> Result<String, Error> {
    if place == load::REFERRERS {
        return Err(Error::usage("entries in registries belong to their images and go with them")
            .hint("name the place of an object store with --shared"));
    }
    let store = ObjectStore::open(place, load::environment())?;
    let failed = |e: Error| Error { message: format!("{}: {}", store.name(), e.message), ..e };
    Ok(match action {
        None => format!("{place}\n{}\n", entries(store.usage().map_err(failed)?)),
        Some(CacheAction::Size) => format!("{}\n", entries(store.usage().map_err(failed)?)),
        Some(CacheAction::Where) => format!("{place}\n"),
        Some(CacheAction::Prune { older_than, max_size }) => {
            format!(
                "removed {} from {place}\n",
                entries(store.prune(*older_than, *max_size).map_err(failed)?)
            )
        }
        Some(CacheAction::Clear) => {
            format!("removed {} from {place}\n", entries(store.prune(0, Some(0)).map_err(failed)?))
        }
    })
}
