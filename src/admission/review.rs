//! AdmissionReview of `admission.k8s.io/v1` (JSON) <-> what is asked and what is answered.
//!
//! Source: Kubernetes, "Dynamic Admission Control", request and response.

use super::decision::Decision;
use super::pods::{self, Pod};
use serde::Deserialize;
use serde_json::{Value, json};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// The part of a request that is heeded.
#[derive(Debug)]
pub struct Review {
    pub uid: String,
    pub kind: String,
    pub namespace: String,
    /// `Pod ml/train-`, for logs.
    pub object: String,
    pub dry_run: bool,
    /// The containers to judge; `None` where there is nothing to judge.
    pub pod: Option<Pod>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReviewJson {
    api_version: Option<String>,
    kind: Option<String>,
    request: Option<RequestJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestJson {
    #[serde(default)]
    uid: String,
    kind: Option<KindJson>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    operation: String,
    object: Option<Value>,
    old_object: Option<Value>,
    dry_run: Option<bool>,
}

#[derive(Deserialize)]
struct KindJson {
    #[serde(default)]
    group: String,
    #[serde(default)]
    kind: String,
}

/// API groups of the kinds whose pod specs are known.
fn is_known_group(group: &str) -> bool {
    matches!(group, "" | "apps" | "batch")
}

/// Reads a review; an error says what is wrong with the body.
pub fn read(body: &[u8]) -> Result<Review, String> {
    let json: ReviewJson = serde_json::from_slice(body).map_err(|e| format!("no AdmissionReview: {e}"))?;
    let (version, kind) = (json.api_version.unwrap_or_default(), json.kind.unwrap_or_default());
    if kind != KIND {
        return Err(format!("kind `{}` where {KIND} is expected", shown(&kind)));
    }
    if version != API_VERSION {
        return Err(format!(
            "apiVersion `{}` where {API_VERSION} is expected; set admissionReviewVersions: [v1]",
            shown(&version)
        ));
    }
    let request = json.request.ok_or("the AdmissionReview has no request")?;
    if request.uid.is_empty() {
        return Err("the request has no uid".to_owned());
    }
    let kind = request.kind.as_ref().map(|k| k.kind.clone()).unwrap_or_default();
    let group = request.kind.as_ref().map(|k| k.group.clone()).unwrap_or_default();
    let pod = match request.operation.as_str() {
        "CREATE" | "UPDATE" if is_known_group(&group) => pod(&request, &kind)?,
        "CREATE" | "UPDATE" | "DELETE" | "CONNECT" => None,
        other => return Err(format!("operation `{}`", shown(other))),
    };
    let name = match request.name.as_str() {
        "" => request
            .object
            .as_ref()
            .and_then(|o| o.pointer("/metadata/generateName")?.as_str())
            .unwrap_or_default(),
        name => name,
    };
    let object = format!("{kind} {}/{name}", request.namespace);
    Ok(Review {
        uid: request.uid,
        kind,
        namespace: request.namespace,
        object,
        dry_run: request.dry_run.unwrap_or(false),
        pod,
    })
}

fn pod(request: &RequestJson, kind: &str) -> Result<Option<Pod>, String> {
    let Some(object) = request.object.as_ref().filter(|o| !o.is_null()) else {
        return Err(format!("the request to {} has no object", request.operation));
    };
    if is_leaving(object) {
        return Ok(None);
    }
    let Some(pod) = pods::of(kind, object) else { return Ok(None) };
    let mut pod = pod?;
    if request.operation == "UPDATE"
        && let Some(old) = request.old_object.as_ref().and_then(|old| pods::of(kind, old))
        && let Ok(old) = old
    {
        pod.without_unchanged(&old);
    }
    pod.containers.retain(|c| c.asks.is_some());
    Ok((!pod.containers.is_empty()).then_some(pod))
}

/// What is going away is not held up: its finalizers must be able to leave.
pub fn is_leaving(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null())
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

/// The answer as the API server reads it.
pub fn answer(uid: &str, decision: &Decision) -> Value {
    let mut response = json!({ "uid": uid, "allowed": decision.allowed });
    if !decision.allowed {
        response["status"] = json!({ "code": 403, "reason": "Forbidden", "message": decision.message });
    }
    if !decision.warnings.is_empty() {
        response["warnings"] = json!(decision.warnings);
    }
    if !decision.annotations.is_empty() {
        response["auditAnnotations"] = json!(decision.annotations);
    }
    json!({ "apiVersion": API_VERSION, "kind": KIND, "response": response })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(operation: &str, object: Value, old: Value) -> Result<Review, String> {
        let body = json!({"apiVersion": API_VERSION, "kind": KIND, "request": {
            "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "name": "", "namespace": "ml",
            "operation": operation, "object": object, "oldObject": old, "dryRun": true}});
        read(body.to_string().as_bytes())
    }

    fn gpu_pod(image: &str) -> Value {
        json!({"metadata": {"generateName": "train-"}, "spec": {"containers": [
            {"name": "c", "image": image, "resources": {"limits": {"nvidia.com/gpu": 1}}}]}})
    }

    #[test]
    fn a_review_names_what_it_is_about() {
        let read = review("CREATE", gpu_pod("a:1"), Value::Null).unwrap();
        assert_eq!((read.uid.as_str(), read.object.as_str(), read.dry_run), ("u", "Pod ml/train-", true));
        assert_eq!(read.pod.unwrap().containers.len(), 1);
    }

    #[test]
    fn what_was_there_before_or_goes_away_is_let_be() {
        assert!(review("UPDATE", gpu_pod("a:1"), gpu_pod("a:1")).unwrap().pod.is_none());
        assert!(review("UPDATE", gpu_pod("a:2"), gpu_pod("a:1")).unwrap().pod.is_some());
        assert!(review("DELETE", Value::Null, gpu_pod("a:1")).unwrap().pod.is_none());
        let mut leaving = gpu_pod("a:2");
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(review("UPDATE", leaving, gpu_pod("a:1")).unwrap().pod.is_none());
    }

    #[test]
    fn malformed_reviews_say_what_is_wrong() {
        for (body, said) in [
            ("", "no AdmissionReview"),
            ("{}", "kind ``"),
            (r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1"}"#, "v1beta1"),
            (r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#, "no request"),
            (r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{}}"#, "no uid"),
        ] {
            assert!(read(body.as_bytes()).unwrap_err().contains(said), "{body}");
        }
        assert!(review("CREATE", Value::Null, Value::Null).unwrap_err().contains("no object"));
        assert!(review("PATCH", gpu_pod("a"), Value::Null).is_err());
    }
}
