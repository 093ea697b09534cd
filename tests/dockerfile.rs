//! Which instruction made which layer: Dockerfiles with the histories that builders write for them, against what was decided
//! by hand from knowledge of each builder (`fixtures/dockerfiles/README.md` has the provenance).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use cudalint::dockerfile::Dockerfile;
use cudalint::facts::{HistoryEntry, ImageIdentity, LayerIdentity};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn cases() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/dockerfiles");
    let mut out: Vec<PathBuf> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    out.sort();
    out
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// An image with this history and nothing else.
fn image(history: &Value) -> ImageIdentity {
    let entry = |h: &Value| HistoryEntry {
        created_by: h["created_by"].as_str().unwrap_or_default().to_owned(),
        empty: h["empty_layer"].as_bool().unwrap_or(false),
    };
    let history: Vec<HistoryEntry> = history.as_array().unwrap().iter().map(entry).collect();
    let layers = history.iter().filter(|h| !h.empty);
    let layers = layers
        .map(|h| LayerIdentity { created_by: Some(h.created_by.clone()), ..LayerIdentity::default() })
        .collect();
    ImageIdentity { layers, history, ..ImageIdentity::default() }
}

#[test]
fn layers_land_on_the_lines_that_made_them() {
    let mut wrong = Vec::new();
    let cases = cases();
    assert!(cases.len() > 40, "only {} cases", cases.len());
    for case in &cases {
        let text = fs::read_to_string(case.join("Dockerfile")).unwrap();
        let image = image(&json_of(&case.join("history.json")));
        let parsed = Dockerfile::parse("Dockerfile", &text).unwrap();
        let got: Vec<Value> = parsed
            .attribute(&image)
            .layers()
            .iter()
            .map(|line| match line {
                Some(line) if line.base => json!({ "lines": [line.start, line.end], "base": true }),
                Some(line) => json!({ "lines": [line.start, line.end] }),
                None => Value::Null,
            })
            .collect();
        let wanted = json_of(&case.join("expected.json"));
        if Value::Array(got.clone()) != wanted {
            let name = case.file_name().unwrap().to_string_lossy().into_owned();
            wrong.push(format!("{name}\n     got {}\n  wanted {wanted}", Value::Array(got)));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
