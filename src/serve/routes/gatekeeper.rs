//! `POST /gatekeeper/v1/validate`: keys of an external data provider of OPA Gatekeeper -> values.
//!
//! Gatekeeper reads any status as an answer, so that every one has the form of a ProviderResponse, and every key is answered:
//! one that is left out would pass as if it were well. Source: open-policy-agent/frameworks, constraint/pkg/externaldata.

use super::whole;
use crate::admission::decision::{Answer, Asked, decide};
use crate::admission::pods::{Ask, Container, Overrides, Role};
use crate::image::reference::Reference;
use crate::limits;
use crate::report::Verdict;
use crate::serve::app::{App, Times};
use crate::serve::looks::Why;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const API_GROUP: &str = "externaldata.gatekeeper.sh/";
const API_VERSION: &str = "externaldata.gatekeeper.sh/v1beta1";
/// Gatekeeper's webhook itself has three seconds.
const TIMEOUT: Duration = Duration::from_millis(1500);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProviderRequest {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Keys,
}

#[derive(Deserialize)]
struct Keys {
    #[serde(default)]
    keys: Vec<String>,
}

pub(super) async fn validate(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let body = match whole(&app, &headers, body).await {
        Ok(body) => body,
        Err(none) => return failed(none.status(), &none.message()),
    };
    let request: ProviderRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return failed(StatusCode::BAD_REQUEST, &format!("no ProviderRequest: {error}")),
    };
    if request.kind != "ProviderRequest" || !request.api_version.starts_with(API_GROUP) {
        let text = format!("apiVersion {API_VERSION} and kind ProviderRequest are expected");
        return failed(StatusCode::BAD_REQUEST, &text);
    }
    let keys = request.request.keys;
    if keys.len() > limits::SERVE_KEYS_MAX {
        return failed(StatusCode::PAYLOAD_TOO_LARGE, &format!("more than {} keys", limits::SERVE_KEYS_MAX));
    }
    let Some(_place) = app.enter() else {
        app.metrics.overloaded();
        return failed(StatusCode::SERVICE_UNAVAILABLE, "cudalint has too much to do");
    };
    let times = app.times(TIMEOUT);
    let items = futures_util::future::join_all(keys.iter().map(|key| item(&app, key, times))).await;
    // What a tag means may have changed when it is asked for again.
    let idempotent = keys.iter().all(|key| Reference::parse(key).is_ok_and(|name| name.digest.is_some()));
    answer(StatusCode::OK, &json!({ "idempotent": idempotent, "items": items, "systemError": "" }))
}

fn failed(status: StatusCode, why: &str) -> Response {
    answer(status, &json!({ "idempotent": false, "items": [], "systemError": why }))
}

fn answer(status: StatusCode, response: &Value) -> Response {
    let body = json!({ "apiVersion": API_VERSION, "kind": "ProviderResponse", "response": response });
    (status, Json(body)).into_response()
}

async fn item(app: &App, key: &str, times: Times) -> Value {
    match judged(app, key, times).await {
        Ok(value) => json!({ "key": key, "value": value }),
        Err(why) => json!({ "key": key, "error": format!("unknown: {why}") }),
    }
}

/// The verdict for every kind of host there is: a key says nothing of where the pod may land.
async fn judged(app: &App, key: &str, times: Times) -> Result<Value, String> {
    let snapshot = app.snapshot();
    if !snapshot.is_known {
        return Err("the nodes of the cluster are not known yet".to_owned());
    }
    let candidates = snapshot.cluster.everywhere();
    let container = Container {
        name: "image".to_owned(),
        role: Role::Main,
        image: key.to_owned(),
        overrides: Overrides::default(),
        asks: Some(Ask::Resource("nvidia.com/gpu".to_owned())),
        claims: Vec::new(),
        unseen: Vec::new(),
    };
    let answer = match app.answer(&container, &candidates, Why::Asked, times).await {
        (_, true) => return Err("cudalint has too much to do".to_owned()),
        (answer, false) => answer,
    };
    let (digest, here) = match &answer {
        Answer::Judged { digest, here } => (digest.clone(), here.clone()),
        Answer::Cold | Answer::Unseen => return Err("the image is being looked at".to_owned()),
        Answer::Failed(why) | Answer::NotAllowed(why) => return Err(why.clone()),
    };
    let asked = [Asked { container: &container, answer }];
    let decision = decide(&asked, &candidates, &snapshot.cluster, app.policy(), true);
    let mut rules: Vec<&str> = Vec::new();
    let mut profiles: BTreeMap<String, &str> = BTreeMap::new();
    for (row, judgment) in candidates.rows.iter().zip(&here) {
        let verdict = judgment.as_ref().map_or(Verdict::Unknown, |j| j.verdict);
        profiles.insert(row.profile.name().to_owned(), verdict.name());
        rules.extend(judgment.iter().flat_map(|j| j.rules.iter().copied()));
    }
    rules.sort_unstable();
    rules.dedup();
    let mut value = Map::new();
    value.insert("verdict".to_owned(), json!(decision.state.verdict()));
    value.insert("digest".to_owned(), json!(digest));
    value.insert("rules".to_owned(), json!(rules));
    value.insert("profiles".to_owned(), json!(profiles));
    value.insert("message".to_owned(), json!(decision.message));
    Ok(Value::Object(value))
}
