//! Certificate and key files -> what the listener shows; taken up anew when they change.

use super::metrics::Metrics;
use crate::image::Error;
use crate::limits;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// Files of the listener's TLS.
#[derive(Clone, Debug)]
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Clients must show a certificate of this authority, but for probes.
    pub client_ca: Option<PathBuf>,
}

/// What is shown now.
pub struct Tls {
    files: Files,
    state: RwLock<State>,
}

struct State {
    bytes: Vec<Vec<u8>>,
    config: Arc<ServerConfig>,
}

impl Tls {
    pub fn load(files: Files) -> Result<Tls, Error> {
        let bytes = read(&files)?;
        let config = config(&files, &bytes)?;
        Ok(Tls { files, state: RwLock::new(State { bytes, config }) })
    }

    /// For the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Takes up what changed; where that cannot be used, what was goes on.
    pub async fn follow(&self, metrics: &Metrics) {
        loop {
            tokio::time::sleep(limits::SERVE_FILES_EVERY).await;
            let Ok(bytes) = read(&self.files) else { continue };
            if self.state.read().unwrap_or_else(PoisonError::into_inner).bytes == bytes {
                continue;
            }
            match config(&self.files, &bytes) {
                Ok(config) => {
                    *self.state.write().unwrap_or_else(PoisonError::into_inner) = State { bytes, config };
                    metrics.reloaded();
                    tracing::info!("certificate taken up");
                }
                // Certificate and key change one after the other: between them they do not fit.
                Err(error) => tracing::warn!(error = %error.message, "the certificate stays as it was"),
            }
        }
    }
}

fn read(files: &Files) -> Result<Vec<Vec<u8>>, Error> {
    let all = [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()];
    all.into_iter().flatten().map(|path| read_file(path)).collect()
}

fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limits::CONFIG_FILE_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|e| Error::usage(format!("`{}` cannot be read: {e}", path.display())))?;
    Ok(bytes)
}

fn config(files: &Files, bytes: &[Vec<u8>]) -> Result<Arc<ServerConfig>, Error> {
    let (cert, key) = (&files.cert, &files.key);
    let at = |index: usize| bytes.get(index).map(Vec::as_slice).unwrap_or_default();
    let wrong = |path: &Path, why: String| Error::usage(format!("`{}`: {why}", path.display()));
    let chain = certificates(at(0)).map_err(|why| wrong(cert, why))?;
    let secret = PrivateKeyDer::from_pem_slice(at(1))
        .map_err(|_| wrong(key, "it holds no private key in PEM form without password".to_owned()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certified = CertifiedKey::from_der(chain, secret, &provider).map_err(|e| {
        wrong(cert, format!("certificate and key `{}` cannot be used together: {e}", key.display()))
    })?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::look(format!("TLS cannot be set up: {e}")))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for root in certificates(at(2)).map_err(|why| wrong(path, why))? {
                roots.add(root).map_err(|e| wrong(path, e.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                // Who shows none may still ask whether the server is well: routes decide.
                .allow_unauthenticated()
                .build()
                .map_err(|e| wrong(path, e.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(One(Arc::new(certified))));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err("it holds no certificate in PEM form".to_owned()),
    }
}

/// The same certificate for every name.
#[derive(Debug)]
struct One(Arc<CertifiedKey>);

impl ResolvesServerCert for One {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}
