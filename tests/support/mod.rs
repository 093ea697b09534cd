//! What several integration tests share. Each test crate uses a part of it.
#![allow(dead_code, reason = "every test crate compiles all of it and uses a part")]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test that cannot prepare itself fails")]

pub(crate) mod forge;
pub(crate) mod stub;

use std::path::Path;

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
