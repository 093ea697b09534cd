//! Recipe (TOML) -> OCI image layout, the same bytes every time: owner 0:0, one fixed time, entries in recipe order.
//!
//! ```toml
//! tag = "1.0"                        # org.opencontainers.image.ref.name; optional
//! platform = "linux/amd64"           # the default
//! env = ["A=B"]                      # also: entrypoint, cmd, user, [labels]
//!
//! [[layer]]
//! created_by = "COPY app /app"       # one line of the history
//! compression = "none"               # none (the default) | gzip | zstd
//! files = [
//!   { dir = "/app" },
//!   { path = "/app/run.sh", text = "#!/bin/sh\n", mode = 0o755 },
//!   { path = "/app/libapp.so", from = "fixtures/code/libdemo_train.so" },
//!   { path = "/app/libfoo.so.1", elf = { soname = "libfoo.so.1", needed = ["libc.so.6"], machine = "arm64" } },
//!   { path = "/app/libfoo.so", symlink = "libfoo.so.1" },
//!   { path = "/app/libbar.so", hardlink = "/app/libfoo.so.1" },
//!   { whiteout = "/etc/motd" },      # a file of a lower layer disappears
//!   { opaque = "/var/cache" },       # everything of lower layers below it disappears
//! ]
//!
//! [[layer]]
//! created_by = "ENV A=B"
//! empty = true                       # history only, no layer
//! ```
//!
//! A layer holds what the recipe lists and nothing else: parent directories that it does not list are absent, as in
//! layers of some builders.

use super::stub::{Stub, stub};
use cudalint::names::Digest;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

/// 2026-01-01T00:00:00Z, in every tar entry and config.
const TIME: u64 = 1_767_225_600;
const TIME_TEXT: &str = "2026-01-01T00:00:00Z";

/// A layout: path below its root -> bytes.
pub(crate) type Layout = BTreeMap<String, Vec<u8>>;

#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    #[serde(default)]
    pub(crate) tag: Option<String>,
    #[serde(default = "linux_amd64")]
    pub(crate) platform: String,
    #[serde(default)]
    pub(crate) env: Vec<String>,
    #[serde(default)]
    pub(crate) entrypoint: Vec<String>,
    #[serde(default)]
    pub(crate) cmd: Vec<String>,
    #[serde(default)]
    pub(crate) user: String,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) layer: Vec<Layer>,
}

fn linux_amd64() -> String {
    "linux/amd64".to_owned()
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Layer {
    pub(crate) created_by: String,
    pub(crate) compression: Compression,
    pub(crate) empty: bool,
    pub(crate) files: Vec<File>,
}

#[derive(Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compression {
    #[default]
    None,
    Gzip,
    Zstd,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    pub(crate) path: Option<String>,
    pub(crate) mode: Option<u32>,
    pub(crate) text: Option<String>,
    /// A file of this repository.
    pub(crate) from: Option<String>,
    pub(crate) elf: Option<Stub>,
    pub(crate) symlink: Option<String>,
    pub(crate) hardlink: Option<String>,
    pub(crate) dir: Option<String>,
    pub(crate) whiteout: Option<String>,
    pub(crate) opaque: Option<String>,
}

/// Reads a recipe; panics with the reason where it makes no sense.
pub(crate) fn recipe(text: &str) -> Recipe {
    toml::from_str(text).unwrap_or_else(|e| panic!("recipe: {e}"))
}

/// Reads the recipe `fixtures/images/NAME.toml`.
pub(crate) fn named(name: &str) -> Recipe {
    let path = super::root().join("fixtures/images").join(format!("{name}.toml"));
    recipe(&std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// One layout with all recipes, in order.
pub(crate) fn layout(recipes: &[Recipe]) -> Layout {
    let mut out = Layout::new();
    let manifests: Vec<Value> = recipes.iter().map(|r| image(r, &mut out)).collect();
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    out.insert("index.json".to_owned(), json_bytes(&index));
    out.insert("oci-layout".to_owned(), json_bytes(&json!({ "imageLayoutVersion": "1.0.0" })));
    out
}

/// Writes a layout to a directory.
pub(crate) fn write(layout: &Layout, dir: &Path) {
    for (name, bytes) in layout {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
}

/// A layout of one recipe in a temporary directory.
pub(crate) fn temporary(recipe: &Recipe) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&layout(std::slice::from_ref(recipe)), dir.path());
    dir
}

/// Adds the blobs of an image; returns its entry in the index.
fn image(recipe: &Recipe, out: &mut Layout) -> Value {
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    let mut history = Vec::new();
    for layer in &recipe.layer {
        let mut line = json!({ "created": TIME_TEXT, "created_by": layer.created_by });
        if layer.empty {
            line["empty_layer"] = json!(true);
            history.push(line);
            continue;
        }
        history.push(line);
        let plain = tar(layer);
        diff_ids.push(Digest::of(&plain).to_string());
        let (bytes, suffix) = compress(plain, layer.compression);
        layers.push(blob(out, bytes, &format!("application/vnd.oci.image.layer.v1.tar{suffix}")));
    }
    let mut parts = recipe.platform.split('/');
    let (os, architecture, variant) = (parts.next().unwrap(), parts.next().unwrap(), parts.next());
    let mut platform = json!({ "architecture": architecture, "os": os });
    if let Some(variant) = variant {
        platform["variant"] = json!(variant);
    }
    let mut config = platform.clone();
    config["created"] = json!(TIME_TEXT);
    config["config"] = runtime(recipe);
    config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
    config["history"] = json!(history);
    let config = blob(out, json_bytes(&config), "application/vnd.oci.image.config.v1+json");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": layers,
    });
    let mut entry = blob(out, json_bytes(&manifest), "application/vnd.oci.image.manifest.v1+json");
    entry["platform"] = platform;
    if let Some(tag) = &recipe.tag {
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    }
    entry
}

fn runtime(recipe: &Recipe) -> Value {
    let mut out = json!({});
    let lists = [("Env", &recipe.env), ("Entrypoint", &recipe.entrypoint), ("Cmd", &recipe.cmd)];
    for (key, list) in lists.into_iter().filter(|(_, l)| !l.is_empty()) {
        out[key] = json!(list);
    }
    if !recipe.user.is_empty() {
        out["User"] = json!(recipe.user);
    }
    if !recipe.labels.is_empty() {
        out["Labels"] = json!(recipe.labels);
    }
    out
}

/// Two-space JSON with a newline at the end: a diff of the committed layout can be read.
fn json_bytes(value: &Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(&sorted(value)).unwrap();
    bytes.push(b'\n');
    bytes
}

/// Keys in alphabetical order, whether or not some crate of the build turns serde_json's `preserve_order` on.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<&String, Value> = map.iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Object(ordered.into_iter().map(|(k, v)| (k.clone(), v)).collect())
        }
        Value::Array(list) => list.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

fn blob(out: &mut Layout, bytes: Vec<u8>, media_type: &str) -> Value {
    let digest = Digest::of(&bytes);
    let descriptor = json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() });
    out.insert(format!("blobs/sha256/{}", digest.hex()), bytes);
    descriptor
}

fn compress(plain: Vec<u8>, compression: Compression) -> (Vec<u8>, &'static str) {
    match compression {
        Compression::None => (plain, ""),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&plain).unwrap();
            (encoder.finish().unwrap(), "+gzip")
        }
        Compression::Zstd => (zstd::encode_all(plain.as_slice(), 3).unwrap(), "+zstd"),
    }
}

/// The uncompressed tar of a layer.
fn tar(layer: &Layer) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for file in &layer.files {
        append(&mut builder, file);
    }
    builder.into_inner().unwrap()
}

fn append(builder: &mut tar::Builder<Vec<u8>>, file: &File) {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    if let Some(dir) = &file.dir {
        return entry(
            builder,
            Directory,
            &format!("{}/", relative(dir)),
            file.mode.unwrap_or(0o755),
            &[],
            None,
        );
    }
    if let Some(path) = &file.whiteout {
        let (dir, name) = relative(path).rsplit_once('/').unwrap_or(("", relative(path)));
        let path = if dir.is_empty() { format!(".wh.{name}") } else { format!("{dir}/.wh.{name}") };
        return entry(builder, Regular, &path, 0o644, &[], None);
    }
    if let Some(dir) = &file.opaque {
        return entry(builder, Regular, &format!("{}/.wh..wh..opq", relative(dir)), 0o644, &[], None);
    }
    let path = relative(file.path.as_deref().unwrap_or_else(|| panic!("an entry without path: {file:?}")));
    if let Some(target) = &file.symlink {
        return entry(builder, Symlink, path, 0o777, &[], Some(target));
    }
    if let Some(target) = &file.hardlink {
        return entry(builder, Link, path, 0o644, &[], Some(relative(target)));
    }
    entry(builder, Regular, path, file.mode.unwrap_or(0o644), &content(file), None);
}

fn content(file: &File) -> Vec<u8> {
    match (&file.text, &file.from, &file.elf) {
        (Some(text), None, None) => text.clone().into_bytes(),
        (None, Some(from), None) => {
            let path = super::root().join(from);
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        }
        (None, None, Some(elf)) => stub(elf),
        _ => panic!("one of text, from, elf: {file:?}"),
    }
}

/// Tar names have no slash in front.
fn relative(path: &str) -> &str {
    path.trim_matches('/')
}

fn entry(
    builder: &mut tar::Builder<Vec<u8>>,
    kind: tar::EntryType,
    path: &str,
    mode: u32,
    bytes: &[u8],
    target: Option<&str>,
) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(TIME);
    header.set_size(bytes.len() as u64);
    match target {
        Some(target) => builder.append_link(&mut header, path, target).unwrap(),
        None => builder.append_data(&mut header, path, bytes).unwrap(),
    }
}
