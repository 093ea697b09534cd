//! Manifest, index and config bytes -> the image that was asked for: its layers, its settings, its history.
//!
//! Read leniently: unknown fields and absent media types are normal. Attestations, SOCI and Nydus entries of an index
//! are never images.

use super::{Descriptor, Error, ErrorKind};
use crate::facts::{Config, HistoryEntry, ImageIdentity, LayerIdentity};
use crate::limits;
use crate::names::{Digest, Platform};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A manifest as stored, before anyone knows what it is.
#[derive(Clone, Debug)]
pub struct RawManifest {
    pub bytes: Vec<u8>,
    /// From the transport; empty where it has none.
    pub media_type: String,
    pub digest: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestJson {
    #[serde(default)]
    schema_version: u64,
    media_type: Option<String>,
    config: Option<DescriptorJson>,
    layers: Option<Vec<DescriptorJson>>,
    manifests: Option<Vec<DescriptorJson>>,
    fs_layers: Option<serde_json::Value>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct DescriptorJson {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    urls: Vec<String>,
    platform: Option<PlatformJson>,
    artifact_type: Option<String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize, Clone)]
struct PlatformJson {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
    #[serde(default, rename = "os.features")]
    os_features: Vec<String>,
}

impl PlatformJson {
    fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: crate::names::oci_architecture(&self.architecture).to_owned(),
            variant: self.variant.clone().filter(|v| !v.is_empty()),
        }
    }
}

/// What a manifest turned out to be.
pub enum Manifest {
    Index(Vec<IndexEntry>),
    Image { config: Descriptor, layers: Vec<Descriptor> },
}

/// One runnable entry of an index (or an index within it).
#[derive(Clone, Debug)]
pub struct IndexEntry {
    pub descriptor: Descriptor,
    pub platform: Option<Platform>,
    pub is_index: bool,
    /// `org.opencontainers.image.ref.name`.
    pub ref_name: Option<String>,
}

fn descriptor(json: &DescriptorJson) -> Result<Descriptor, Error> {
    let digest = Digest::parse(&json.digest)
        .ok_or_else(|| Error::look(format!("the manifest names `{}`, which is no digest", json.digest)))?;
    Ok(Descriptor {
        media_type: json.media_type.clone(),
        digest,
        size: json.size,
        urls: json.urls.clone(),
        annotations: json.annotations.clone(),
    })
}

fn is_runnable(entry: &DescriptorJson) -> bool {
    let unknown = |s: &str| s == "unknown";
    let platform_known = entry.platform.as_ref().is_none_or(|p| !unknown(&p.os) && !unknown(&p.architecture));
    let is_nydus =
        entry.platform.as_ref().is_some_and(|p| p.os_features.iter().any(|f| f.starts_with("nydus")));
    platform_known
        && !is_nydus
        && entry.artifact_type.is_none()
        && !entry.annotations.contains_key("vnd.docker.reference.type")
        && !entry.annotations.contains_key("com.amazon.soci.image-manifest-digest")
}

/// Reads a manifest or index. `place` names it in messages.
pub fn parse(raw: &RawManifest, place: &str) -> Result<Manifest, Error> {
    let json: ManifestJson = serde_json::from_slice(&raw.bytes)
        .map_err(|e| Error::look(format!("{place}: the manifest is no valid JSON: {e}")))?;
    let media_type = json.media_type.as_deref().unwrap_or(&raw.media_type);
    if json.schema_version == 1
        || json.fs_layers.is_some()
        || media_type.contains("docker.distribution.manifest.v1+")
    {
        return Err(Error::look(format!(
            "{place}: the manifest is of Docker schema 1, which no engine runs any more"
        ))
        .hint("push the image again with a current docker, podman or skopeo"));
    }
    if let Some(entries) = &json.manifests {
        let runnable = entries.iter().filter(|e| is_runnable(e));
        let entries: Result<Vec<IndexEntry>, Error> = runnable.map(index_entry).collect();
        return Ok(Manifest::Index(entries?));
    }
    let (Some(config), Some(layers)) = (&json.config, &json.layers) else {
        return Err(Error::look(format!("{place}: neither an image manifest nor an index")));
    };
    if layers.len() > limits::LAYERS_MAX {
        return Err(Error::look(format!(
            "{place}: {} layers, at most {} are read",
            layers.len(),
            limits::LAYERS_MAX
        )));
    }
    let known =
        ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json", ""];
    if !known.contains(&config.media_type.as_str()) {
        return Err(Error::look(format!(
            "{place}: no container image but an artifact of type {}",
            config.media_type
        )));
    }
    if let Some(layer) = layers.iter().find(|l| l.media_type.ends_with("+encrypted")) {
        return Err(Error::look(format!(
            "{place}: layer {} is encrypted ({})",
            layer.digest, layer.media_type
        ))
        .hint("decrypt it first, for example with `skopeo copy --decryption-key`"));
    }
    let layers: Result<Vec<Descriptor>, Error> = layers.iter().map(descriptor).collect();
    Ok(Manifest::Image { config: descriptor(config)?, layers: layers? })
}

fn index_entry(json: &DescriptorJson) -> Result<IndexEntry, Error> {
    let platform = json.platform.as_ref().map(PlatformJson::platform).filter(|p| !p.architecture.is_empty());
    Ok(IndexEntry {
        descriptor: descriptor(json)?,
        platform,
        is_index: json.media_type.contains("index") || json.media_type.contains("manifest.list"),
        ref_name: json.annotations.get("org.opencontainers.image.ref.name").cloned(),
    })
}

/// Chooses from the entries of an index (nested ones flattened, platforms known). `wanted` is `--platform`; without
/// it Linux on this machine's architecture, and where only one platform exists, that one.
pub fn choose(
    entries: &[(Platform, Descriptor)],
    wanted: Option<&Platform>,
    place: &str,
) -> Result<Descriptor, Error> {
    let default = Platform::of_this_machine();
    let asked = wanted.unwrap_or(&default);
    let matching = entries.iter().find(|(p, _)| p.satisfies(asked));
    let only = || wanted.is_none().then_some(entries).filter(|e| e.len() == 1).and_then(|e| e.first());
    if let Some((_, descriptor)) = matching.or_else(only) {
        return Ok(descriptor.clone());
    }
    let names: Vec<String> = entries.iter().map(|(p, _)| p.to_string()).collect();
    if names.is_empty() {
        return Err(Error::look(format!("{place}: the index names no runnable image")));
    }
    let message = format!("{place}: no image for {asked}; there is {}", names.join(", "));
    Err(Error { kind: ErrorKind::NoPlatform, ..Error::look(message) }.hint("choose one with --platform"))
}

#[derive(Deserialize, Default)]
struct ConfigJson {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
    config: Option<RuntimeJson>,
    #[serde(default)]
    rootfs: RootfsJson,
    history: Option<Vec<HistoryJson>>,
}

#[derive(Deserialize, Default)]
struct RootfsJson {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RuntimeJson {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    user: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct HistoryJson {
    #[serde(default)]
    created_by: String,
    #[serde(default)]
    empty_layer: bool,
}

/// Config bytes and layer descriptors -> identity. `digest` is that of the manifest.
pub fn identity(
    reference: &str,
    digest: Option<Digest>,
    config: &[u8],
    layers: Vec<LayerIdentity>,
) -> Result<ImageIdentity, Error> {
    let json: ConfigJson = serde_json::from_slice(config)
        .map_err(|e| Error::look(format!("{reference}: the image config is no valid JSON: {e}")))?;
    let platform = PlatformJson {
        os: json.os,
        architecture: json.architecture,
        variant: json.variant,
        os_features: Vec::new(),
    }
    .platform();
    if platform.os == "windows" {
        return Err(Error::look(format!("{reference}: a Windows image; only Linux images are read")));
    }
    let diff_ids = json.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.len() != layers.len() {
        return Err(Error::look(format!(
            "{reference}: the config lists {} diff_ids, the manifest {} layers",
            diff_ids.len(),
            layers.len()
        )));
    }
    let history: Vec<HistoryEntry> = json
        .history
        .unwrap_or_default()
        .into_iter()
        .map(|h| HistoryEntry { created_by: h.created_by, empty: h.empty_layer })
        .collect();
    let instructions: Vec<&String> = history.iter().filter(|h| !h.empty).map(|h| &h.created_by).collect();
    // Squashed and converted images have a history that fits no layer: then none is attributed.
    let fits = instructions.len() == layers.len();
    let mut layers = layers;
    for (index, layer) in layers.iter_mut().enumerate() {
        layer.diff_id = diff_ids.get(index).and_then(|d| Digest::parse(d));
        layer.created_by = instructions.get(index).filter(|i| fits && !i.is_empty()).map(|i| (*i).clone());
    }
    Ok(ImageIdentity {
        reference: reference.to_owned(),
        // The source knows it.
        repository: String::new(),
        digest,
        platform,
        config: runtime(json.config.unwrap_or_default()),
        layers,
        history,
    })
}

/// The platform that a config states; `None` where it is no config.
pub fn platform_of_config(config: &[u8]) -> Option<Platform> {
    let json: PlatformJson = serde_json::from_slice(config).ok()?;
    Some(json.platform())
}

fn runtime(json: RuntimeJson) -> Config {
    let pair = |e: String| match e.split_once('=') {
        Some((k, v)) => (k.to_owned(), v.to_owned()),
        None => (e, String::new()),
    };
    Config {
        env: json.env.unwrap_or_default().into_iter().map(pair).collect(),
        entrypoint: json.entrypoint.unwrap_or_default(),
        cmd: json.cmd.unwrap_or_default(),
        user: json.user.unwrap_or_default(),
        labels: json.labels.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> RawManifest {
        RawManifest {
            bytes: json.as_bytes().to_vec(),
            media_type: String::new(),
            digest: Digest::of(json.as_bytes()),
        }
    }

    fn digest(c: char) -> String {
        format!("sha256:{}", c.to_string().repeat(64))
    }

    #[test]
    fn attestations_are_never_images() {
        let json = format!(
            r#"{{"manifests":[
              {{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","platform":{{"os":"linux","architecture":"arm64","variant":"v8"}}}},
              {{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","platform":{{"os":"unknown","architecture":"unknown"}},
                "annotations":{{"vnd.docker.reference.type":"attestation-manifest"}}}}]}}"#,
            digest('a'),
            digest('b')
        );
        let Manifest::Index(entries) = parse(&raw(&json), "x").unwrap() else { panic!("no index") };
        assert_eq!(entries.len(), 1);
        let listed: Vec<_> = entries.into_iter().map(|e| (e.platform.unwrap(), e.descriptor)).collect();
        assert_eq!(choose(&listed, None, "x").unwrap().digest.as_str(), digest('a'), "the only one there is");
        let amd64 = Platform::parse("linux/amd64").unwrap();
        assert!(choose(&listed, Some(&amd64), "x").unwrap_err().message.contains("there is linux/arm64/v8"));
    }

    #[test]
    fn schema_1_artifacts_and_encrypted_layers_are_refused_in_words() {
        let error = |json: &str| parse(&raw(json), "x").err().unwrap().message;
        assert!(error(r#"{"schemaVersion":1,"fsLayers":[]}"#).contains("schema 1"));
        let helm = format!(
            r#"{{"config":{{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"{}"}},"layers":[]}}"#,
            digest('a')
        );
        assert!(error(&helm).contains("artifact"));
        let encrypted = format!(
            r#"{{"config":{{"digest":"{0}"}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip+encrypted","digest":"{0}"}}]}}"#,
            digest('a')
        );
        assert!(error(&encrypted).contains("encrypted"));
    }

    #[test]
    fn history_is_attributed_only_where_it_fits() {
        let layers = || vec![LayerIdentity::default(), LayerIdentity::default()];
        let config = format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"diff_ids":["{0}","{0}"]}},
                "history":[{{"created_by":"ADD"}},{{"created_by":"ENV","empty_layer":true}},{{"created_by":"RUN pip"}}]}}"#,
            digest('a')
        );
        let got = identity("x", None, config.as_bytes(), layers()).unwrap();
        assert_eq!(got.layers[1].created_by.as_deref(), Some("RUN pip"));
        assert!(identity("x", None, config.as_bytes(), vec![LayerIdentity::default()]).is_err());
        let squashed = config.replace("{\"created_by\":\"ADD\"},", "");
        assert_eq!(identity("x", None, squashed.as_bytes(), layers()).unwrap().layers[1].created_by, None);
    }
}
