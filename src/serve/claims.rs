//! Claims of Dynamic Resource Allocation -> whether they are for a GPU of NVIDIA's. Pods name claims; what is claimed stands
//! in other objects.

use crate::admission::pods::{Claim, ClaimObject};
use kube::Client;
use serde_json::Value;
use std::time::Duration;

/// Device classes of NVIDIA's driver that give GPUs with their driver library.
const GPU_CLASSES: [&str; 2] = ["gpu.nvidia.com", "mig.nvidia.com"];
/// Its name in selectors of classes that sites define.
const DRIVER: &str = "gpu.nvidia.com";
const KEPT: Duration = Duration::from_secs(60);
const ANSWERS_MAX: u64 = 10_000;

pub struct Claims {
    client: Option<Client>,
    answers: moka::future::Cache<String, Option<bool>>,
}

impl Claims {
    pub fn new(client: Option<Client>) -> Claims {
        let answers = moka::future::Cache::builder().max_capacity(ANSWERS_MAX).time_to_live(KEPT).build();
        Claims { client, answers }
    }

    /// `None` where it cannot be told.
    pub async fn is_gpu(&self, namespace: &str, claim: &Claim) -> Option<bool> {
        let client = self.client.clone()?;
        let (plural, name) = match &claim.object {
            ClaimObject::Claim(name) => ("resourceclaims", name),
            ClaimObject::Template(name) => ("resourceclaimtemplates", name),
        };
        // They become part of a path.
        let is_name = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        };
        if !is_name(namespace) || !is_name(name) {
            return None;
        }
        let path = format!("/apis/resource.k8s.io/v1/namespaces/{namespace}/{plural}/{name}");
        self.answers.get_with(path.clone(), classify(client, path)).await
    }
}

async fn classify(client: Client, path: String) -> Option<bool> {
    let object = get(&client, &path).await?;
    // A template holds the spec of a claim in its own.
    let spec = object.pointer("/spec/spec").or_else(|| object.get("spec"))?;
    let requests = spec.pointer("/devices/requests")?.as_array()?;
    for request in requests {
        for class in classes(request) {
            if GPU_CLASSES.contains(&class.as_str()) {
                return Some(true);
            }
            // Channels between nodes, whole GPUs for virtual machines: no driver library comes with them.
            if class.ends_with(".nvidia.com") || class.contains('/') {
                continue;
            }
            let of = get(&client, &format!("/apis/resource.k8s.io/v1/deviceclasses/{class}")).await?;
            if of.pointer("/spec/selectors").is_some_and(|s| s.to_string().contains(DRIVER)) {
                return Some(true);
            }
        }
    }
    Some(false)
}

fn classes(request: &Value) -> Vec<String> {
    let alternatives = request.get("firstAvailable").and_then(Value::as_array);
    let each = alternatives.into_iter().flatten().chain(request.get("exactly")).chain([request]);
    each.filter_map(|one| one.get("deviceClassName")?.as_str().map(str::to_owned)).collect()
}

async fn get(client: &Client, path: &str) -> Option<Value> {
    let request = axum::http::Request::get(path).body(Vec::new()).ok()?;
    client.request(request).await.ok()
}
