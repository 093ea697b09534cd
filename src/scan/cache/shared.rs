//! Cache entries in an object store: S3 and what speaks like it, Google Cloud Storage, Azure, HTTP, a directory of several machines.
//!
//! Credentials come from the variables of each provider (`AWS_*`, `GOOGLE_*`, `AZURE_*`) or from the machine's role. Async ends here.

use super::{CACHE_SCHEMA, Place, Usage};
use crate::image::Error;
use crate::limits;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientConfigKey, ObjectMeta, ObjectStoreExt, ObjectStoreScheme, RetryConfig};
use reqwest::Url;
use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::time::{Duration, SystemTime};
use tokio::runtime::Runtime;

/// One request, with what the client itself tries again. Scanning a small layer is faster than a store that is slower.
const PATIENCE: Duration = Duration::from_secs(30);
/// Listing what may be many thousands of entries.
const LIST_PATIENCE: Duration = Duration::from_secs(600);

/// An object store below a URL.
pub struct ObjectStore {
    /// For messages: without what may be a secret.
    shown: String,
    store: Box<dyn object_store::ObjectStore>,
    prefix: Path,
    /// For one request.
    patience: Duration,
    /// Taken out when the store is dropped: a runtime must not wait for its threads inside of another one.
    runtime: Option<Runtime>,
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl ObjectStore {
    /// `s3://BUCKET/PATH`, `gs://…`, `az://…`, `https://…`, `file:///…` or a directory. `environment` has the credentials.
    pub fn open(
        place: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<ObjectStore, Error> {
        let unusable = |why: &str| {
            Error::usage(format!("shared cache `{}`: {why}", shown(place)))
                .hint("a directory, or s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH, https://HOST/PATH, or `referrers`")
        };
        let url = match Url::parse(place) {
            Ok(url) => url,
            Err(_) if place.contains("://") => return Err(unusable("it is no URL")),
            Err(_) => {
                let dir = std::path::absolute(FilePath::new(place)).map_err(|e| unusable(&e.to_string()))?;
                Url::from_file_path(dir).map_err(|()| unusable("it is no path"))?
            }
        };
        // Messages of clients repeat the URL.
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(unusable("a URL with a secret in it would be shown")
                .hint("credentials come from the provider's variables, such as AWS_SECRET_ACCESS_KEY or AZURE_STORAGE_SAS_TOKEN"));
        }
        // Clients know bare names, too, such as `token` and `timeout`: what has another meaning must not reach them.
        let prefix = match url.scheme() {
            "s3" | "s3a" => "AWS_",
            "gs" => "GOOGLE_",
            "az" | "adl" | "azure" | "abfs" | "abfss" => "AZURE_",
            _ if url.host_str().is_some_and(|h| h.ends_with(".amazonaws.com")) => "AWS_",
            _ if url.host_str().is_some_and(|h| h.ends_with(".windows.net")) => "AZURE_",
            _ => "\0",
        };
        let mut options: BTreeMap<String, String> =
            environment.into_iter().filter(|(name, _)| name.starts_with(prefix)).collect();
        if url.scheme() == "http" {
            // It was typed so.
            options.insert("allow_http".to_owned(), "true".to_owned());
        }
        let (store, prefix) = client(&url, &options).map_err(|e| unusable(&cause(&e)))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("shared-cache")
            .enable_all()
            .build()
            .map_err(|e| Error::look(format!("threads for the network cannot be started: {e}")))?;
        Ok(ObjectStore { shown: shown(place), store, prefix, patience: PATIENCE, runtime: Some(runtime) })
    }

    /// The same for who has others waiting.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> ObjectStore {
        self.patience = patience;
        self
    }

    fn path(&self, path: &str) -> Path {
        path.split('/').fold(self.prefix.clone(), object_store::path::Path::join)
    }

    fn wait<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<Option<T>, Error> {
        let Some(runtime) = &self.runtime else { unreachable!("the runtime is taken out only by drop") };
        let answer = runtime.block_on(async { tokio::time::timeout(patience, work).await });
        match answer {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(object_store::Error::NotFound { .. })) => Ok(None),
            Ok(Err(error)) => Err(Error::look(cause(&error))),
            Err(_) => Err(Error::look(format!("no answer within {} s", patience.as_secs()))),
        }
    }

    fn entries(&self) -> Result<Vec<ObjectMeta>, Error> {
        let mut out = Vec::new();
        let stems = ["layers-v", "configs-v"];
        // Other things may stand below the same URL.
        let listed = self.wait(LIST_PATIENCE, self.store.list(Some(&self.prefix)).try_collect::<Vec<_>>())?;
        for entry in listed.unwrap_or_default() {
            let below = entry.location.prefix_match(&self.prefix);
            let first = below.and_then(|mut parts| parts.next());
            if first.is_some_and(|part| stems.iter().any(|stem| part.as_ref().starts_with(stem))) {
                out.push(entry);
            }
        }
        Ok(out)
    }

    /// How much it holds.
    pub fn usage(&self) -> Result<Usage, Error> {
        let entries = self.entries()?;
        Ok(Usage { files: entries.len() as u64, bytes: entries.iter().map(|e| e.size).sum() })
    }

    /// Removes entries of other schemas and those written more than `days` days ago, then the oldest until at most
    /// `bytes_max` are left.
    pub fn prune(&self, days: u64, bytes_max: Option<u64>) -> Result<Usage, Error> {
        let mut entries = self.entries()?;
        entries.sort_by_key(|e| e.last_modified);
        let oldest = SystemTime::now().checked_sub(Duration::from_secs(days.saturating_mul(86_400)));
        let mut bytes: u64 = entries.iter().map(|e| e.size).sum();
        let mut removed = Usage::default();
        let current = [format!("layers-v{CACHE_SCHEMA}"), "configs-v1".to_owned()];
        for entry in entries {
            let is_current = entry.location.parts().any(|p| current.iter().any(|c| p.as_ref() == c));
            let written = SystemTime::from(entry.last_modified);
            let is_old = oldest.is_some_and(|oldest| written <= oldest);
            if is_current && !is_old && bytes_max.is_none_or(|max| bytes <= max) {
                continue;
            }
            self.wait(self.patience, self.store.delete(&entry.location))?;
            bytes = bytes.saturating_sub(entry.size);
            removed.files += 1;
            removed.bytes += entry.size;
        }
        Ok(removed)
    }
}

impl Place for ObjectStore {
    fn name(&self) -> String {
        format!("shared cache `{}`", self.shown)
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(path);
        let read = async {
            let answer = self.store.get(&path).await?;
            if answer.meta.size > limits::CACHE_ENTRY_BYTES_MAX {
                return Ok(None);
            }
            let mut bytes = Vec::new();
            let mut stream = answer.into_stream();
            while let Some(chunk) = stream.try_next().await? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() as u64 > limits::CACHE_ENTRY_BYTES_MAX {
                    return Ok(None);
                }
            }
            Ok(Some(bytes))
        };
        self.wait(self.patience, read).map(Option::flatten)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path(path);
        let put = self.store.put(&path, bytes.to_vec().into());
        match self.wait(self.patience, put)? {
            Some(_) => Ok(()),
            None => Err(Error::look("it does not exist")),
        }
    }
}

/// The provider's client, which gives up soon: reading a layer again is the worst that can follow.
fn client(
    url: &Url,
    options: &BTreeMap<String, String>,
) -> object_store::Result<(Box<dyn object_store::ObjectStore>, Path)> {
    let retry = || RetryConfig { max_retries: 2, retry_timeout: PATIENCE, ..RetryConfig::default() };
    macro_rules! built {
        ($builder:expr, $key:ty) => {{
            let known =
                options.iter().filter_map(|(k, v)| Some((k.to_ascii_lowercase().parse::<$key>().ok()?, v)));
            let builder = $builder.with_retry(retry());
            Box::new(known.fold(builder, |b, (key, value)| b.with_config(key, value)).build()?)
        }};
    }
    let (scheme, path) = ObjectStoreScheme::parse(url)?;
    let store: Box<dyn object_store::ObjectStore> = match scheme {
        ObjectStoreScheme::Local => Box::new(LocalFileSystem::new()),
        ObjectStoreScheme::AmazonS3 => {
            built!(AmazonS3Builder::new().with_url(url.as_str()), AmazonS3ConfigKey)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            built!(GoogleCloudStorageBuilder::new().with_url(url.as_str()), GoogleConfigKey)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            built!(MicrosoftAzureBuilder::new().with_url(url.as_str()), AzureConfigKey)
        }
        ObjectStoreScheme::Http => {
            // The path is the prefix below which entries stand.
            built!(HttpBuilder::new().with_url(url.origin().ascii_serialization()), ClientConfigKey)
        }
        _ => return object_store::parse_url(url),
    };
    Ok((store, path))
}

/// A place as it was typed, without user, password and query.
fn shown(place: &str) -> String {
    let Ok(mut url) = Url::parse(place) else { return place.to_owned() };
    let _none_there = url.set_password(None);
    let _none_there = url.set_username("");
    url.set_query(None);
    url.to_string()
}

/// Errors of providers come with whole documents; the innermost says what happened.
fn cause(error: &object_store::Error) -> String {
    const SHOWN_MAX: usize = 160;
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let text = inner.to_string();
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(place: &str) -> Result<ObjectStore, Error> {
        ObjectStore::open(place, [])
    }

    #[test]
    fn a_directory_keeps_and_prunes() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("deep/cache");
        let store = open(place.to_str().unwrap()).unwrap();
        let path = format!("layers-v{CACHE_SCHEMA}/sha256-00.full");
        assert_eq!(store.read(&path).unwrap(), None);
        store.write(&path, b"entry").unwrap();
        store.write("layers-v1/sha256-00", b"old").unwrap();
        std::fs::write(place.join("README"), "not ours").unwrap();
        assert_eq!(store.read(&path).unwrap().as_deref(), Some(&b"entry"[..]));
        assert_eq!(store.usage().unwrap(), Usage { files: 2, bytes: 8 });
        assert_eq!(store.prune(30, None).unwrap(), Usage { files: 1, bytes: 3 });
        assert_eq!(store.prune(30, Some(4)).unwrap().files, 1);
        assert!(place.join("README").exists());
    }

    #[test]
    fn what_is_no_place_says_so_without_secrets() {
        for place in ["ftp://host/x", "s3://", "https://user:s3cret@host/x", "https://host/x?sig=s3cret"] {
            let error = open(place).err().unwrap();
            assert!(error.message.starts_with("shared cache `"), "{}", error.message);
            assert!(!format!("{error:?}").contains("s3cret"));
        }
        assert_eq!(shown("https://user:pass@host/x?sig=secret"), "https://host/x");
    }
}
