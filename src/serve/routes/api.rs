//! `POST /v1/check` and `GET /v1/facts/{digest}`: the command line's own documents over HTTP.
//!
//! A check of a pod answers as admission does, to everybody, and always with a verdict and a message: policy engines know no
//! other answers. A check of an image and the facts of one are for clients, for their repositories.

use super::{client, problem, refused, whole};
use crate::admission::decision::{Decision, State as Stands};
use crate::admission::{pods, review};
use crate::facts::json;
use crate::image::reference::Reference;
use crate::inventory;
use crate::names::{Digest, Platform};
use crate::render::{Context, json as render};
use crate::serve::app::App;
use crate::serve::looks::{Known, Look, Wanted, Why};
use crate::serve::reader::Access;
use crate::serve::shelf::Missing;
use crate::target::Target;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Policy engines give their own requests ten seconds.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest that a client may wait for an image to be looked at.
const WAIT_SECONDS_MAX: f64 = 20.0;

#[derive(Deserialize)]
struct CheckJson {
    image: Option<String>,
    platform: Option<String>,
    targets: Option<Vec<String>>,
    /// Seconds.
    wait: Option<f64>,
    pod: Option<Value>,
    namespace: Option<String>,
}

pub(super) async fn check(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let body = match whole(&app, &headers, body).await {
        Ok(body) => body,
        Err(none) => return none.answer(),
    };
    let asked: CheckJson = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &format!("no check: {error}"), HINT),
    };
    let place = app.enter();
    if place.is_none() {
        app.metrics.overloaded();
        if asked.pod.is_none() {
            return problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "cudalint has too much to do",
                "ask again later",
            );
        }
        let policy = app.policy_of(asked.namespace.as_deref().unwrap_or_default());
        let text = "cudalint has too much to do to look at the pod";
        let kind = asked.pod.as_ref().and_then(|pod| pod.get("kind")?.as_str()).unwrap_or("Pod");
        let decision = Decision::doubtful(Stands::Overloaded, text, policy, kind == "Pod");
        return Json(decided(&decision)).into_response();
    }
    match (&asked.pod, &asked.image) {
        (Some(pod), None) => of_pod(&app, pod, asked.namespace.as_deref().unwrap_or_default()).await,
        (None, Some(_)) => of_image(&app, &headers, asked).await,
        _ => problem(StatusCode::BAD_REQUEST, "a check names an image or holds a pod", HINT),
    }
}

const HINT: &str = "send {\"image\": \"…\"} or {\"pod\": {…}, \"namespace\": \"…\"}";

async fn of_pod(app: &App, object: &Value, namespace: &str) -> Response {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or("Pod");
    let pod = match pods::of(kind, object) {
        Some(Ok(pod)) => pod,
        Some(Err(why)) => return problem(StatusCode::BAD_REQUEST, &why, HINT),
        None => {
            return problem(StatusCode::BAD_REQUEST, &format!("nothing is known of pods in a {kind}"), HINT);
        }
    };
    if review::is_leaving(object) {
        return Json(decided(&Decision::nothing())).into_response();
    }
    let decision = app.decide(pod, namespace, kind == "Pod", Why::Asked, app.times(TIMEOUT)).await;
    Json(decided(&decision)).into_response()
}

fn decided(decision: &Decision) -> Value {
    let message = match decision.message.as_str() {
        "" if decision.state == Stands::NotAsked => "no container asks for a GPU, or the pod goes away",
        "" => "the pod runs where it may land",
        message => message,
    };
    json!({
        "verdict": decision.state.verdict(),
        "state": decision.state.name(),
        "allowed": decision.allowed,
        "message": message,
        "warnings": decision.warnings,
        "affinity": decision.affinity,
        "annotations": decision.annotations,
    })
}

async fn of_image(app: &Arc<App>, headers: &HeaderMap, asked: CheckJson) -> Response {
    let client = match client(app, headers) {
        Ok(client) => client,
        Err(refusal) => return refused(refusal),
    };
    let name = match Reference::parse(asked.image.as_deref().unwrap_or_default()) {
        Ok(name) => name,
        Err(error) => {
            return problem(
                StatusCode::BAD_REQUEST,
                &error.message,
                error.hint.as_deref().unwrap_or_default(),
            );
        }
    };
    let platform = match asked.platform.as_deref().map(Platform::parse) {
        Some(None) => return problem(StatusCode::BAD_REQUEST, "platform is none", "such as linux/amd64"),
        Some(Some(platform)) => platform,
        None => app.platform.clone(),
    };
    if let Some(why) = app.allowed.refuses(&name) {
        return problem(StatusCode::FORBIDDEN, &why, "the operator allows registries with --allow-registry");
    }
    if !client.may_see(&name.repository_name()) {
        let text = format!("the client may not ask for {}", name.repository_name());
        return problem(StatusCode::FORBIDDEN, &text, "its repositories stand in the --clients file");
    }
    let targets = match targets(app, asked.targets.as_deref(), &platform) {
        Ok(targets) => targets,
        Err(unknown) => {
            let text = format!("no host is called `{unknown}`");
            return problem(StatusCode::BAD_REQUEST, &text, "leave targets out for all hosts that are known");
        }
    };
    let seconds = asked.wait.filter(|s| s.is_finite()).unwrap_or(0.0).clamp(0.0, WAIT_SECONDS_MAX);
    let until = tokio::time::Instant::now() + Duration::from_secs_f64(seconds);
    let wanted = Wanted { name, platform: Some(platform), access: Access::Server };
    let known = match app.looks.wait(&wanted, Why::Asked, until).await {
        Look::Known(known) => known,
        Look::Coming(_) | Look::Cold { full: false } => return pending(),
        Look::Cold { full: true } => {
            return problem(StatusCode::SERVICE_UNAVAILABLE, "the queue is full", "ask again later");
        }
        Look::Failed(error) => {
            return problem(
                StatusCode::BAD_GATEWAY,
                &error.message,
                error.hint.as_deref().unwrap_or_default(),
            );
        }
    };
    let facts = match app.shelf.load(&app.looks, &known, Why::Asked).await {
        Ok(facts) => facts,
        Err(missing) => return missed(&missing),
    };
    let of = Arc::clone(app);
    let making = tokio::task::spawn_blocking(move || {
        let facts = Known::named(&facts, &wanted.name);
        let inventory = inventory::build(&facts, &of.catalog);
        let report = crate::check(&inventory, &targets, &of.catalog, of.judging.clone());
        let context = Context { tool: of.tool.clone(), timing: None, as_of: of.judging.as_of.clone() };
        render::report(&report, &context)
    });
    match making.await {
        Ok(report) => Json(report).into_response(),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "judging it ended in a fault of cudalint", ""),
    }
}

fn targets(app: &App, names: Option<&[String]>, platform: &Platform) -> Result<Vec<Target>, String> {
    let snapshot = app.snapshot();
    let all = &snapshot.cluster.profiles;
    let Some(names) = names else {
        let fits = |arch: Option<&str>| arch.is_none_or(|a| a == platform.architecture);
        return Ok(all.iter().filter(|p| fits(p.arch())).map(|p| p.target.clone()).collect());
    };
    let find = |name: &String| all.iter().find(|p| p.name() == name).map(|p| p.target.clone());
    names.iter().map(|name| find(name).ok_or_else(|| name.clone())).collect()
}

fn pending() -> Response {
    let mut answer = (StatusCode::ACCEPTED, Json(json!({ "status": "pending" }))).into_response();
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    answer
}

fn missed(missing: &Missing) -> Response {
    match missing {
        Missing::Cold => pending(),
        Missing::Overloaded => {
            problem(StatusCode::SERVICE_UNAVAILABLE, "cudalint has too much to do", "ask again later")
        }
        Missing::Failed(why) => problem(StatusCode::BAD_GATEWAY, why, ""),
    }
}

pub(super) async fn facts(
    State(app): State<Arc<App>>,
    digest: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let client = match client(&app, &headers) {
        Ok(client) => client,
        Err(refusal) => return refused(refusal),
    };
    let Some(digest) = digest.ok().and_then(|Path(text)| Digest::parse(&text)) else {
        return problem(StatusCode::BAD_REQUEST, "that is no digest", "sha256: and 64 hexadecimal digits");
    };
    // Whether it exists for others is nobody's business.
    let unknown = || {
        problem(
            StatusCode::NOT_FOUND,
            "no facts of this digest are kept",
            "ask for the image with POST /v1/check",
        )
    };
    let repositories = app.journal.repositories_of(&digest);
    let Some(repository) = repositories.iter().find(|r| client.may_see(r)) else { return unknown() };
    let Ok(name) = Reference::parse(&format!("{repository}@{digest}")) else { return unknown() };
    if app.allowed.refuses(&name).is_some() {
        return unknown();
    }
    let wanted = Wanted { name, platform: None, access: Access::Server };
    let until = tokio::time::Instant::now() + TIMEOUT;
    let known = match app.looks.wait(&wanted, Why::Asked, until).await {
        Look::Known(known) => known,
        Look::Coming(_) => return pending(),
        Look::Cold { .. } => {
            return problem(StatusCode::SERVICE_UNAVAILABLE, "the queue is full", "ask again later");
        }
        Look::Failed(error) => return problem(StatusCode::BAD_GATEWAY, &error.message, ""),
    };
    match app.shelf.load(&app.looks, &known, Why::Asked).await {
        Ok(facts) => {
            let facts = Known::named(&facts, &known.name);
            Json(json::write(&facts, app.tool.clone(), None)).into_response()
        }
        Err(missing) => missed(&missing),
    }
}
