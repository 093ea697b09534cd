//! Merging layers equals a naive model of a file system on random stacks: whiteouts, opaque directories, replacement in
//! both directions. The model keeps a plain list of (path, layer, tag) and applies the rules of the OCI specification
//! one sentence at a time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use cudalint::facts::merge::merge;
use cudalint::facts::{Content, Entry, EntryKind, FileKind, ImageIdentity, LayerFacts};
use cudalint::names::ImagePath;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    File(String),
    Dir(String),
    Whiteout(String),
    Opaque(String),
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "a-b"], 1..4)
        .prop_map(|parts| format!("/{}", parts.join("/")))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => path().prop_map(Step::File),
        2 => path().prop_map(Step::Dir),
        2 => path().prop_map(Step::Whiteout),
        1 => path().prop_map(Step::Opaque),
    ]
}

fn entry(step: &Step, layer: usize, at: usize) -> Entry {
    let (path, kind, content) = match step {
        Step::File(path) => {
            let text = Some(format!("{layer}.{at}"));
            let content = Content { kind: Some(FileKind::Text), text, ..Content::default() };
            (path, EntryKind::File { size: 1 }, Some(Box::new(content)))
        }
        Step::Dir(path) => (path, EntryKind::Dir, None),
        Step::Whiteout(path) => (path, EntryKind::Whiteout, None),
        Step::Opaque(path) => (path, EntryKind::Opaque, None),
    };
    Entry { path: ImagePath::new(path), kind, content }
}

/// (path, is file, tag), the naive file system.
type Model = Vec<(String, bool, String)>;

fn below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

fn model(layers: &[Vec<Step>]) -> Vec<String> {
    let mut tree: Model = Vec::new();
    for (layer, steps) in layers.iter().enumerate() {
        for step in steps {
            match step {
                Step::Whiteout(gone) => tree.retain(|(p, _, _)| p != gone && !below(p, gone)),
                Step::Opaque(dir) => tree.retain(|(p, _, _)| !below(p, dir)),
                _ => {}
            }
        }
        for (at, step) in steps.iter().enumerate() {
            let (path, is_file) = match step {
                Step::File(path) => (path, true),
                Step::Dir(path) => (path, false),
                _ => continue,
            };
            // Everything on the way down must be a directory: a file there gives way.
            tree.retain(|(p, file, _)| !(*file && below(path, p)));
            let was_dir = tree.iter().any(|(p, file, _)| (p == path && !file) || below(p, path));
            if is_file || !was_dir {
                tree.retain(|(p, _, _)| p != path && !below(p, path));
            } else {
                tree.retain(|(p, _, _)| p != path);
            }
            tree.push((path.clone(), is_file, format!("{layer}.{at}")));
        }
    }
    let mut out: Vec<String> =
        tree.into_iter().filter(|(_, f, _)| *f).map(|(p, _, tag)| format!("{p}={tag}")).collect();
    out.sort();
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn the_merged_view_equals_the_naive_model(layers in proptest::collection::vec(proptest::collection::vec(step(), 0..8), 1..5)) {
        let facts = layers.iter().enumerate().map(|(layer, steps)| {
            let entries = steps.iter().enumerate().map(|(at, s)| entry(s, layer, at)).collect();
            Some(LayerFacts { entries, ..LayerFacts::default() })
        });
        let merged = merge(ImageIdentity::default(), facts.collect());
        let mut got: Vec<String> =
            merged.files.iter().map(|f| format!("{}={}", f.place.path, f.text.clone().unwrap())).collect();
        got.sort();
        prop_assert_eq!(got, model(&layers));
    }
}
