//! A socket -> requests for the router: TLS, bounded connections, time limits for those who send slowly, and an orderly end.

use super::metrics::Metrics;
use super::tls::Tls;
use crate::limits;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// For requests that are being answered when the server is told to stop.
const LAST_WORDS: Duration = Duration::from_secs(20);
const ARRIVAL: Duration = Duration::from_secs(limits::SERVE_ARRIVAL_SECONDS);

/// Serves until `stop` changes, then answers what has come.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(limits::SERVE_CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            _ = stop.changed() => break,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        let (stream, _) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most often: others must close first.
                tracing::warn!(error = %error, "a connection cannot be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _slower = stream.set_nodelay(true);
        let (router, metrics, watcher) = (router.clone(), Arc::clone(&metrics), graceful.watcher());
        let tls = tls.as_ref().map(|tls| tls.config());
        tokio::spawn(async move {
            metrics.connections.inc();
            match tls {
                None => connection(stream, router, watcher).await,
                Some(config) => {
                    let shaken =
                        tokio::time::timeout(ARRIVAL, TlsAcceptor::from(config).accept(stream)).await;
                    if let Ok(Ok(stream)) = shaken {
                        connection(stream, router, watcher).await;
                    }
                }
            }
            metrics.connections.dec();
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(LAST_WORDS, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still open at the end");
    }
}

async fn connection<S>(stream: S, router: Router, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(ARRIVAL * 3).max_headers(64);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(200)
        .max_header_list_size(16 << 10)
        .keep_alive_interval(ARRIVAL)
        .keep_alive_timeout(ARRIVAL);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    // Who goes away in the middle is nobody's fault.
    let _gone = watcher.watch(connection).await;
}
