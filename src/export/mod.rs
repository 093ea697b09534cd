//! What follows for an image -> documents that other systems act on: schedulers, container runtimes, inventories, signers.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod affinity;
pub mod cyclonedx;
pub mod nfd;
pub mod require;
pub mod selection;
pub mod statement;

/// A string as YAML and JSON both read it.
fn quoted(text: &str) -> String {
    serde_json::Value::String(crate::render::style::safe(text)).to_string()
}
