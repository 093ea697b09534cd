//! An image that was looked at -> its requirements as an in-toto statement beside it in its registry, once.

use super::app::App;
use super::looks::{Known, Why};
use crate::catalog::Catalog;
use crate::export::statement;
use crate::facts::ImageFacts;
use crate::facts::json::ToolJson;
use crate::image::Error;
use crate::image::registry::Registry;
use crate::image::registry::lists::Part;
use crate::image::registry::push::{Artifact, Blob};
use crate::inventory;
use crate::render::pretty;
use std::sync::Arc;

/// Annotation by which our statements are told from those of others.
const PREDICATE: &str = "io.github.cudalint.predicate";

/// Attaches the statement; what fails is logged, since nobody waits for it.
pub(super) async fn attach(app: &Arc<App>, known: &Arc<Known>) {
    let Ok(facts) = app.shelf.load(&app.looks, known, Why::Asked).await else { return };
    let (of, image) = (Arc::clone(app), Arc::clone(known));
    let pushing = tokio::task::spawn_blocking(move || {
        let registry = of.looks.registry(&image)?;
        push(&registry, &image, &facts, &of.catalog, &of.tool)
    });
    match pushing.await {
        Ok(Ok(true)) => tracing::info!(image = %known.name, "statement attached"),
        Ok(Ok(false)) => {}
        Ok(Err(error)) => {
            tracing::warn!(image = %known.name, error = %error.message, "the statement could not be attached");
        }
        Err(_) => tracing::error!(image = %known.name, "attaching ended in a fault of cudalint"),
    }
}

/// `false` where one is there already, or nothing can be stated.
fn push(
    registry: &Registry,
    known: &Known,
    facts: &ImageFacts,
    catalog: &Catalog,
    tool: &ToolJson,
) -> Result<bool, Error> {
    let digest = known.digest.as_str();
    let ours =
        |part: &Part| part.annotations.get(PREDICATE).map(String::as_str) == Some(statement::PREDICATE_TYPE);
    if registry.referrers(digest, statement::MEDIA_TYPE)?.iter().any(ours) {
        return Ok(false);
    }
    let inventory = inventory::build(facts, catalog);
    let Some(document) = statement::statement(&inventory, tool).map(|s| pretty(&s)) else { return Ok(false) };
    let blob =
        Blob { media_type: statement::MEDIA_TYPE, bytes: document.as_bytes(), annotations: Vec::new() };
    let created = ("org.opencontainers.image.created".to_owned(), crate::clock::now());
    let of = (PREDICATE.to_owned(), statement::PREDICATE_TYPE.to_owned());
    let artifact =
        Artifact { artifact_type: statement::MEDIA_TYPE, blobs: &[blob], annotations: vec![created, of] };
    registry.attach(digest, &artifact).map(|_| true)
}
