//! A text -> the images that it names, each once, with who wants it: a plain list, what `kubectl get … -o json` prints, or the
//! manifests that `helm template` and `kustomize build` write.

use crate::limits;
use serde_json::Value;
use std::collections::BTreeMap;

/// Fields of pods and of everything that makes pods.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
/// Nothing that Kubernetes takes is nested deeper.
const DEPTH_MAX: usize = 64;

/// An image of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub reference: String,
    /// `Deployment ml/serve`; empty in a plain list.
    pub wanted_by: Vec<String>,
    /// It was named by someone else, or by a registry: never a file of this machine.
    pub in_registry: bool,
}

/// Reads a list; what it is shows in its first bytes. In order of first mention.
pub fn read(text: &str) -> Result<Vec<Wanted>, String> {
    let mut found = Found::default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let start = text.trim_start();
    if start.starts_with(['{', '[']) {
        for document in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
            found.document(&document.map_err(|e| format!("JSON: {e}"))?);
        }
    } else if is_yaml(text) {
        let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, yaml()).map_err(|e| {
            format!("YAML: {} (`-o json` is read without limits)", first_line(&e.to_string()))
        })?;
        for document in &documents {
            found.document(document);
        }
    } else {
        for line in text.lines() {
            let line = line.split_once(" #").map_or(line, |(front, _)| front).trim();
            if !line.is_empty() && !line.starts_with('#') {
                found.add(line, None);
            }
        }
    }
    Ok(found.images)
}

/// Large clusters, but no documents that grow by references to themselves.
fn yaml() -> serde_saphyr::Options {
    serde_saphyr::options! {
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
        budget: serde_saphyr::budget! {
            max_documents: limits::YAML_DOCUMENTS_MAX,
            max_nodes: limits::YAML_NODES_MAX,
            max_events: limits::YAML_NODES_MAX * 4,
        },
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// A manifest states its kind at the beginning of a line; no image reference has a blank behind a colon.
fn is_yaml(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("apiVersion: ") || line.starts_with("kind: ") || line == "---")
}

#[derive(Default)]
struct Found {
    images: Vec<Wanted>,
    known: BTreeMap<String, usize>,
}

impl Found {
    fn add(&mut self, reference: &str, by: Option<&str>) {
        let index = *self.known.entry(reference.to_owned()).or_insert_with(|| {
            let in_registry = by.is_some();
            self.images.push(Wanted { reference: reference.to_owned(), wanted_by: Vec::new(), in_registry });
            self.images.len() - 1
        });
        // Containers of one object come one after the other.
        if let (Some(wanted), Some(by)) = (self.images.get_mut(index), by)
            && wanted.wanted_by.last().is_none_or(|last| last != by)
        {
            wanted.wanted_by.push(by.to_owned());
        }
    }

    fn document(&mut self, value: &Value) {
        match value {
            Value::Array(items) => {
                for item in items {
                    match item.as_str() {
                        Some(reference) => self.add(reference, None),
                        None => self.document(item),
                    }
                }
            }
            Value::Object(object) => {
                if let Some(Value::Array(items)) = object.get("items") {
                    for item in items {
                        self.document(item);
                    }
                } else {
                    let by = owner(value);
                    let running = running(value);
                    self.containers(value, &by, &running, 0);
                }
            }
            _ => {}
        }
    }

    fn containers(&mut self, value: &Value, by: &str, running: &BTreeMap<String, String>, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        match value {
            Value::Object(object) => {
                for (key, inner) in object {
                    if let (true, Value::Array(containers)) = (CONTAINERS.contains(&key.as_str()), inner) {
                        for container in containers {
                            let image = container.get("image").and_then(Value::as_str).map(str::trim);
                            if let Some(image) = image.filter(|image| !image.is_empty()) {
                                let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
                                self.add(&pinned(image, running.get(name)), Some(by));
                            }
                        }
                    }
                    self.containers(inner, by, running, depth + 1);
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.containers(item, by, running, depth + 1);
                }
            }
            _ => {}
        }
    }
}

/// `Deployment ml/serve`.
fn owner(object: &Value) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let metadata = object.get("metadata");
    let kind = text(object.get("kind"));
    let kind = if kind.is_empty() { "Pod".to_owned() } else { kind };
    let name = text(metadata.and_then(|m| m.get("name")));
    match text(metadata.and_then(|m| m.get("namespace"))).as_str() {
        "" => format!("{kind} {name}"),
        namespace => format!("{kind} {namespace}/{name}"),
    }
}

/// Container -> digest of what it really runs: a tag may have moved since.
fn running(pod: &Value) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        let statuses = pod.get("status").and_then(|s| s.get(list)).and_then(Value::as_array);
        for status in statuses.into_iter().flatten() {
            let text = |key: &str| status.get(key).and_then(Value::as_str);
            // Without a repository in front it is the digest of a config, which no registry gives.
            let digest = text("imageID").and_then(|id| id.rsplit_once('@')).map(|(_, digest)| digest);
            if let (Some(name), Some(digest)) = (text("name"), digest.filter(|d| d.starts_with("sha256:"))) {
                out.insert(name.to_owned(), digest.to_owned());
            }
        }
    }
    out
}

fn pinned(image: &str, digest: Option<&String>) -> String {
    match digest {
        Some(digest) if !image.contains('@') => format!("{image}@{digest}"),
        _ => image.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        read(text).unwrap().into_iter().map(|w| w.reference).collect()
    }

    #[test]
    fn a_plain_list_has_one_image_per_line_and_comments() {
        let text = "# ours\nrepo/a:1\n\n  repo/b@sha256:00  # pinned\nrepo/a:1\noci:dir\n";
        assert_eq!(names(text), ["repo/a:1", "repo/b@sha256:00", "oci:dir"]);
        assert_eq!(names("[\"a:1\", \"b:2\"]"), ["a:1", "b:2"]);
        assert!(names("").is_empty());
    }

    #[test]
    fn pods_name_what_they_run_and_who_they_are() {
        let pods = r#"{"kind":"List","items":[
            {"kind":"Pod","metadata":{"name":"t-0","namespace":"ml"},
             "spec":{"initContainers":[{"name":"i","image":"init:1"}],"containers":[{"name":"c","image":"train:1"}]},
             "status":{"containerStatuses":[{"name":"c","image":"train:1","imageID":"docker-pullable://r/train@sha256:aa"}],
                       "initContainerStatuses":[{"name":"i","imageID":"sha256:bb"}]}},
            {"kind":"Pod","metadata":{"name":"t-1","namespace":"ml"},"spec":{"containers":[{"name":"c","image":"init:1"}]}}]}"#;
        let list = read(pods).unwrap();
        assert_eq!(
            list[0],
            Wanted {
                reference: "train:1@sha256:aa".into(),
                wanted_by: vec!["Pod ml/t-0".into()],
                in_registry: true
            }
        );
        assert_eq!(list[1].wanted_by, ["Pod ml/t-0", "Pod ml/t-1"]);
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn manifests_of_helm_and_kustomize_are_read_however_deep_their_pods_are() {
        let yaml = "---\n# Source: chart/templates/x.yaml\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: serve\n  namespace: ml\n\
                    spec:\n  template:\n    spec:\n      containers:\n        - name: main\n          image: \"repo/serve:2\"\n---\n\
                    apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: nightly}\nspec:\n  jobTemplate:\n    spec:\n      template:\n\
                    \x20       spec:\n          initContainers: [{name: a, image: repo/init:1}]\n          containers: [{name: b, image: repo/serve:2}]\n\
                    ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {image: not-one}\n---\n";
        let list = read(yaml).unwrap();
        assert_eq!(list[0].reference, "repo/serve:2");
        assert_eq!(list[0].wanted_by, ["Deployment ml/serve", "CronJob nightly"]);
        assert_eq!(list[1].reference, "repo/init:1");
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        assert!(read("{\"items\": [").unwrap_err().starts_with("JSON: "));
        assert!(read("apiVersion: v1\nkind: [").unwrap_err().starts_with("YAML: "));
    }
}
