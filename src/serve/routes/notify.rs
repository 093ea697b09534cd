//! `POST /v1/notify`: a registry says that something was pushed -> promises to look at it.
//!
//! What it says is a hint: the image is resolved again, with the server's own login, at a registry that is allowed. The answer
//! comes after the promise is on disk. Forms: Distribution (`events`), Azure (one event), Harbor (its own and CloudEvents),
//! and `{"images": ["…"]}` for everything else.

use super::{client, problem, refused, whole};
use crate::image::reference::Reference;
use crate::image::registry::lists::is_of_another;
use crate::names::Digest;
use crate::serve::app::{App, promise_of};
use crate::serve::looks::{Look, Wanted, Why};
use crate::serve::reader::Access;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;

const IMAGES: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// Images that one notification may name.
const IMAGES_MAX: usize = 1000;

pub(super) async fn notify(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let client = match client(&app, &headers) {
        Ok(client) => client,
        Err(refusal) => return refused(refusal),
    };
    let body = match whole(&app, &headers, body).await {
        Ok(body) => body,
        Err(none) => return none.answer(),
    };
    let value: Value = match serde_json::from_slice(&body) {
        Ok(value) => value,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &format!("no JSON: {error}"), ""),
    };
    let named = match pushed(&value) {
        Some(named) if named.len() > IMAGES_MAX => {
            return problem(StatusCode::BAD_REQUEST, &format!("more than {IMAGES_MAX} images"), "");
        }
        Some(named) => named,
        // A form that is not known: registries would send it for ever if it were refused.
        None if value.is_object() => {
            tracing::warn!(client = %client.name, "a notification of unknown form");
            return (StatusCode::ACCEPTED, Json(json!({ "queued": 0, "ignored": 1 }))).into_response();
        }
        None => {
            return problem(StatusCode::BAD_REQUEST, "a notification is a JSON object", "see /openapi.json");
        }
    };
    // For which architectures is not known yet.
    if let Some(why) = app.unready() {
        return problem(StatusCode::SERVICE_UNAVAILABLE, why, "send it again later");
    }
    let mut ignored = 0usize;
    let mut wanted: Vec<Wanted> = Vec::new();
    let platforms = app.platforms(&app.snapshot().cluster.everywhere());
    for text in named {
        let name = Reference::parse(&text).ok();
        let Some(name) = name.filter(|name| {
            app.allowed.refuses(name).is_none()
                && client.may_see(&name.repository_name())
                && !is_attachment(name)
        }) else {
            ignored += 1;
            continue;
        };
        wanted.extend(platforms.values().map(|platform| Wanted {
            name: name.clone(),
            platform: Some(platform.clone()),
            access: Access::Server,
        }));
    }
    let queued = match promise(&app, &wanted).await {
        Ok(queued) => queued,
        Err((status, why, hint)) => return problem(status, why, hint),
    };
    tracing::info!(client = %client.name, queued, ignored, "notified");
    (StatusCode::ACCEPTED, Json(json!({ "queued": queued, "ignored": ignored }))).into_response()
}

/// Writes the promises down and queues the images; what is refused is not acknowledged, and registries send it again.
async fn promise(app: &App, wanted: &[Wanted]) -> Result<usize, (StatusCode, &'static str, &'static str)> {
    const LATER: &str = "send it again later";
    if app.looks.is_too_many(wanted.len()) {
        return Err((
            StatusCode::BAD_REQUEST,
            "more images than the queue has places",
            "send fewer at a time",
        ));
    }
    if !app.looks.has_room(wanted.len()) {
        app.metrics.overloaded();
        return Err((StatusCode::SERVICE_UNAVAILABLE, "the queue is full", LATER));
    }
    let texts: Vec<String> =
        wanted.iter().filter_map(|w| Some(promise_of(&w.name, w.platform.as_ref()?))).collect();
    let journal = Arc::clone(&app.journal);
    let promised = tokio::task::spawn_blocking(move || journal.promise(&texts)).await;
    let Ok(Ok(promises)) = promised else {
        tracing::error!("the journal cannot be written: nothing is promised");
        return Err((StatusCode::SERVICE_UNAVAILABLE, "the journal cannot be written", LATER));
    };
    for (wanted, promise) in wanted.iter().zip(&promises) {
        let look = app.looks.look(wanted, Why::Promised(promise.id));
        // What is known already brings no other news.
        if let Look::Known(known) = look
            && app.attach
            && app.looked.try_send((known, true)).is_err()
        {
            tracing::warn!(image = %wanted.name, "too much to do: nothing is attached to it");
        }
    }
    Ok(promises.len())
}

/// Signatures, attestations and lists of referrers are pushed too, by this program among others.
fn is_attachment(name: &Reference) -> bool {
    let tag = name.tag.as_deref().unwrap_or_default();
    is_of_another(tag) || [".sig", ".att", ".sbom"].iter().any(|end| tag.ends_with(end))
}

/// The images that were pushed; `None` where the form is not known.
fn pushed(value: &Value) -> Option<Vec<String>> {
    if let Some(events) = value.get("events").and_then(Value::as_array) {
        return Some(events.iter().filter_map(distribution).collect());
    }
    if let Some(images) = value.get("images").and_then(Value::as_array) {
        return Some(images.iter().filter_map(|i| i.as_str().map(str::to_owned)).collect());
    }
    if let Some(image) = value.get("image").and_then(Value::as_str) {
        return Some(vec![image.to_owned()]);
    }
    // CloudEvents carry the same under another name.
    if let Some(data) = value.get("event_data").or_else(|| value.get("data")) {
        let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
        let is_push = matches!(kind, "PUSH_ARTIFACT" | "harbor.artifact.pushed");
        let resources = data.get("resources").and_then(Value::as_array).filter(|_| is_push);
        return Some(resources.into_iter().flatten().filter_map(harbor).collect());
    }
    value.get("target").and(value.get("action")).map(|_| distribution(value).into_iter().collect())
}

/// A host that reads as one: without dot or port it would be a part of a name on Docker Hub.
pub(super) fn with_port(host: &str) -> String {
    match host.contains(['.', ':']) || host == "localhost" {
        true => host.to_owned(),
        false => format!("{host}:443"),
    }
}

fn distribution(event: &Value) -> Option<String> {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).filter(|t| !t.is_empty());
    let media_type = text("/target/mediaType")?;
    if text("/action") != Some("push") || !IMAGES.contains(&media_type) {
        return None;
    }
    let of_url = || {
        let (_, rest) = text("/target/url")?.split_once("://")?;
        rest.split('/').next()
    };
    let host = with_port(text("/request/host").or_else(of_url)?);
    let digest = text("/target/digest").filter(|d| Digest::parse(d).is_some())?;
    let tag = text("/target/tag").map(|tag| format!(":{tag}")).unwrap_or_default();
    Some(format!("{host}/{}{tag}@{digest}", text("/target/repository")?))
}

/// The tag of a push without tag is its digest.
fn harbor(resource: &Value) -> Option<String> {
    let text = |key: &str| resource.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
    let (host, rest) = text("resource_url")?.split_once('/')?;
    let url = format!("{}/{rest}", with_port(host));
    let digest = text("digest").filter(|d| Digest::parse(d).is_some())?;
    match url.contains('@') {
        true => Some(url),
        false => Some(format!("{url}@{digest}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn pushes_are_read_in_every_form() {
        let event = json!({"action": "push", "target": {"mediaType": IMAGES[0], "digest": DIGEST, "repository": "ml/t", "tag": "v1",
            "url": "https://r.example/v2/ml/t/manifests/x"}, "request": {"host": "r.example:5000"}});
        let expected = [format!("r.example:5000/ml/t:v1@{DIGEST}")];
        assert_eq!(pushed(&json!({"events": [event, {"action": "pull"}]})).unwrap(), expected);
        assert_eq!(pushed(&event).unwrap(), expected);
        let resources = json!([{"digest": DIGEST, "tag": "v1", "resource_url": "h.example/ml/t:v1"},
            {"digest": DIGEST, "tag": DIGEST, "resource_url": format!("h.example/ml/t@{DIGEST}")}]);
        let expected = [format!("h.example/ml/t:v1@{DIGEST}"), format!("h.example/ml/t@{DIGEST}")];
        let own = json!({"type": "PUSH_ARTIFACT", "event_data": {"resources": resources}});
        let cloud =
            json!({"specversion": "1.0", "type": "harbor.artifact.pushed", "data": {"resources": resources}});
        assert_eq!(pushed(&own).unwrap(), expected);
        assert_eq!(pushed(&cloud).unwrap(), expected);
        let pull = json!({"type": "PULL_ARTIFACT", "event_data": {"resources": resources}});
        assert!(pushed(&pull).unwrap().is_empty());
        assert_eq!(pushed(&json!({"images": ["a:1", "b:2"]})).unwrap(), ["a:1", "b:2"]);
        assert!(pushed(&json!({"action": "ping"})).is_none());
    }

    #[test]
    fn what_hangs_on_images_is_left_alone() {
        let list = format!("r.example/a:sha256-{}", "0".repeat(64));
        assert!(is_attachment(&Reference::parse(&list).unwrap()));
        assert!(is_attachment(&Reference::parse("r.example/a:x.sig").unwrap()));
        assert!(!is_attachment(&Reference::parse("r.example/a:v1").unwrap()));
    }
}
