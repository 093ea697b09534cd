//! `POST /v1/admit`: an AdmissionReview -> an AdmissionReview. Always 200 with an answer where the request can be read at all:
//! any other status is for the API server's own failure policy.

use super::{problem, whole};
use crate::admission::decision::{Decision, State as Stands};
use crate::admission::review;
use crate::limits;
use crate::serve::app::App;
use crate::serve::looks::Why;
use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the API server waits where it does not say.
const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

pub(super) async fn admit(
    State(app): State<Arc<App>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let started = Instant::now();
    let times = app.times(timeout(&query));
    let body = match whole(&app, &headers, body).await {
        Ok(body) => body,
        Err(none) => return none.answer(),
    };
    let read = if body.len() <= limits::SERVE_SMALL_BODY_BYTES {
        review::read(&body)
    } else {
        // Others are answered meanwhile.
        let reading = tokio::task::spawn_blocking(move || review::read(&body)).await;
        reading.unwrap_or_else(|_| Err("reading it ended in a fault of cudalint".to_owned()))
    };
    let review = match read {
        Ok(review) => review,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why, ""),
    };
    let is_pod = review.kind == "Pod";
    let policy = app.policy_of(&review.namespace);
    let decision = match (review.pod, app.enter()) {
        (None, _) => Decision::nothing(),
        (Some(_), None) => {
            app.metrics.overloaded();
            Decision::doubtful(
                Stands::Overloaded,
                "cudalint has too much to do to look at the pod",
                policy,
                is_pod,
            )
        }
        (Some(pod), Some(_place)) => {
            let why = if review.dry_run { Why::Peek } else { Why::Asked };
            app.decide(pod, &review.namespace, is_pod, why, times).await
        }
    };
    let (verdict, took) = (decision.state.name(), started.elapsed());
    app.metrics.decided(verdict, decision.allowed, policy.mode.name(), took);
    let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if decision.allowed && matches!(decision.state, Stands::NotAsked | Stands::Runs) {
        tracing::debug!(object = %review.object, verdict, milliseconds, "admitted");
    } else {
        let (allowed, why) = (decision.allowed, &decision.message);
        tracing::info!(object = %review.object, verdict, allowed, why, milliseconds, "decided");
    }
    Json(review::answer(&review.uid, &decision)).into_response()
}

/// `?timeout=5s`, as the API server adds it.
fn timeout(query: &HashMap<String, String>) -> Duration {
    let text = query.get("timeout").map(String::as_str).unwrap_or_default();
    let seconds = text.strip_suffix('s').unwrap_or(text).parse::<f64>().ok();
    let asked = seconds.filter(|s| s.is_finite() && *s > 0.0).map(|s| Duration::from_secs_f64(s.min(60.0)));
    asked.unwrap_or(TIMEOUT).min(TIMEOUT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_the_api_server_gives_is_heeded() {
        let of = |text: &str| timeout(&HashMap::from([("timeout".to_owned(), text.to_owned())]));
        assert_eq!(of("5s"), Duration::from_secs(5));
        assert_eq!(of("2"), Duration::from_secs(2));
        assert_eq!(of("900s"), TIMEOUT_MAX);
        for wrong in ["", "x", "-3s", "NaN", "inf"] {
            assert_eq!(of(wrong), TIMEOUT, "{wrong}");
        }
    }
}
