//! Paths -> handlers, and what they share: bodies that arrive in time and are not too large, errors in one form, and who asks.

mod admit;
mod api;
mod gatekeeper;
mod harbor;
mod notify;

pub(crate) use harbor::{Scan, reports};

use super::app::App;
use super::clients::Client;
use super::listen::HasCertificate;
use crate::limits;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

const ARRIVAL: Duration = Duration::from_secs(limits::SERVE_ARRIVAL_SECONDS);
/// Nothing but the reading of images takes longer, and nobody waits for that.
const ANSWER: Duration = Duration::from_secs(30);
/// Of a body that is too long so much is read and dropped, so that its sender hears why.
const DROPPED_BYTES_MAX: usize = 64 << 20;
const OPENAPI: &str = include_str!("../../../docs/openapi.json");

pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/admit", post(admit::admit))
        .route("/v1/check", post(api::check))
        .route("/v1/facts/{digest}", get(api::facts))
        .route("/v1/notify", post(notify::notify))
        .route("/gatekeeper/v1/validate", post(gatekeeper::validate))
        .route("/api/v1/metadata", get(harbor::metadata))
        .route("/api/v1/scan", post(harbor::scan))
        .route("/api/v1/scan/{id}/report", get(harbor::report))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(|| async { ([(CONTENT_TYPE, "application/json")], OPENAPI) }))
        .fallback(any(nothing))
        .method_not_allowed_fallback(|| async {
            problem(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method", "see /openapi.json")
        })
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// Counts requests, and ends those that take too long.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = route_of(request.uri().path());
    let shown = request.extensions().get::<HasCertificate>().is_some_and(|c| c.0);
    // Probes of the kubelet have no certificate.
    if app.needs_certificate && !shown && !matches!(route, "/healthz" | "/readyz" | "/metrics") {
        app.metrics.answered(route, StatusCode::FORBIDDEN.as_u16());
        let hint = "connect with a certificate of the authority that --client-ca names";
        return problem(StatusCode::FORBIDDEN, "no client certificate was shown", hint);
    }
    let answer = tokio::time::timeout(ANSWER, next.run(request)).await;
    let mut answer = answer.unwrap_or_else(|_| {
        problem(StatusCode::GATEWAY_TIMEOUT, "it took too long", "ask again: what was begun goes on")
    });
    answer.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    app.metrics.answered(route, answer.status().as_u16());
    answer
}

fn route_of(path: &str) -> &'static str {
    const ROUTES: [&str; 9] = [
        "/v1/admit",
        "/v1/check",
        "/v1/notify",
        "/gatekeeper/v1/validate",
        "/api/v1/metadata",
        "/api/v1/scan",
        "/healthz",
        "/readyz",
        "/metrics",
    ];
    match ROUTES.into_iter().find(|known| *known == path) {
        Some(known) => known,
        None if path.starts_with("/v1/facts/") => "/v1/facts",
        None if path.starts_with("/api/v1/scan/") => "/api/v1/scan/report",
        None => "other",
    }
}

async fn nothing() -> Response {
    problem(StatusCode::NOT_FOUND, "there is nothing at this path", "see /openapi.json")
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    match app.unready() {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(CONTENT_TYPE, text)], app.metrics.text()).into_response()
}

/// An error as every route but those with a form of their own says it.
fn problem(status: StatusCode, message: &str, hint: &str) -> Response {
    let hint = if hint.is_empty() { Value::Null } else { json!(hint) };
    let body = json!({ "error": { "message": message, "hint": hint } });
    (status, axum::Json(body)).into_response()
}

/// A body, and its place among those that are in memory.
struct Whole {
    bytes: Vec<u8>,
    _place: Option<OwnedSemaphorePermit>,
}

impl std::ops::Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why there is no body.
enum NoBody {
    TooLarge,
    TooMany,
    Late,
    Broken,
}

impl NoBody {
    fn status(&self) -> StatusCode {
        match self {
            NoBody::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            NoBody::TooMany => StatusCode::SERVICE_UNAVAILABLE,
            NoBody::Late => StatusCode::REQUEST_TIMEOUT,
            NoBody::Broken => StatusCode::BAD_REQUEST,
        }
    }

    fn message(&self) -> String {
        match self {
            NoBody::TooLarge => format!("the body is longer than {} bytes", limits::SERVE_BODY_BYTES_MAX),
            NoBody::TooMany => "too many large bodies come at the same time".to_owned(),
            NoBody::Late => format!("the body did not come within {} s", limits::SERVE_ARRIVAL_SECONDS),
            NoBody::Broken => "the body broke off".to_owned(),
        }
    }

    fn answer(&self) -> Response {
        problem(self.status(), &self.message(), "")
    }
}

/// The whole body, if it comes in time and is not too large.
async fn whole(app: &App, headers: &HeaderMap, body: Body) -> Result<Whole, NoBody> {
    let stated =
        headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if stated.is_some_and(|length| length > DROPPED_BYTES_MAX) {
        return Err(NoBody::TooLarge);
    }
    tokio::time::timeout(ARRIVAL, arriving(app, body)).await.unwrap_or(Err(NoBody::Late))
}

async fn arriving(app: &App, body: Body) -> Result<Whole, NoBody> {
    let mut out = Whole { bytes: Vec::new(), _place: None };
    let mut places: Option<OwnedSemaphorePermit> = None;
    let mut seen = 0usize;
    let mut refused = None;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| NoBody::Broken)?;
        seen += chunk.len();
        if seen > DROPPED_BYTES_MAX {
            break;
        }
        if seen > limits::SERVE_BODY_BYTES_MAX {
            refused = Some(NoBody::TooLarge);
        }
        if refused.is_some() {
            // Read and dropped: who is still sending hears no answer.
            (out.bytes, places) = (Vec::new(), None);
            continue;
        }
        // What is still missing for all that has come, in KiB.
        let held = places.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let counted = if seen > limits::SERVE_SMALL_BODY_BYTES { seen >> 10 } else { 0 };
        let more = u32::try_from(counted.saturating_sub(held)).unwrap_or(u32::MAX);
        if more > 0 {
            let Ok(permit) = Arc::clone(&app.bodies).try_acquire_many_owned(more) else {
                refused = Some(NoBody::TooMany);
                continue;
            };
            match &mut places {
                Some(places) => places.merge(permit),
                None => places = Some(permit),
            }
        }
        out.bytes.extend_from_slice(&chunk);
    }
    match refused {
        Some(refused) => Err(refused),
        None if seen > limits::SERVE_BODY_BYTES_MAX => Err(NoBody::TooLarge),
        None => Ok(Whole { _place: places, ..out }),
    }
}

fn header(headers: &HeaderMap, name: impl axum::http::header::AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The client that asks, or the refusal.
fn client(app: &App, headers: &HeaderMap) -> Result<Client, (StatusCode, &'static str, &'static str)> {
    let api_key = header(headers, "x-scanneradapter-api-key");
    match app.client(header(headers, AUTHORIZATION), api_key) {
        Some(client) => Ok(client),
        None if app.clients.is_none() => Err((
            StatusCode::FORBIDDEN,
            "this path is only for clients, and none are set up",
            "start cudalint serve with --clients FILE",
        )),
        None => Err((
            StatusCode::UNAUTHORIZED,
            "no client is known by this token",
            "send Authorization: Bearer TOKEN with a token of the --clients file",
        )),
    }
}

fn refused((status, message, hint): (StatusCode, &'static str, &'static str)) -> Response {
    let mut answer = problem(status, message, hint);
    if status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"cudalint\""));
    }
    answer
}
