//! A socket -> requests for the router: TLS, bounded connections, time limits for those who send slowly, and an orderly end.
//!
//! | a connection waits for | at most |
//! |---|---|
//! | the TLS handshake, its first byte, the whole head of a request | `SERVE_ARRIVAL_SECONDS` each |
//! | the next request | `SERVE_IDLE_SECONDS` |
//! | the body | `SERVE_ARRIVAL_SECONDS` (in `routes`) |

use super::metrics::Metrics;
use super::tls::Tls;
use crate::limits;
use axum::Router;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::{Request, server::conn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;

/// For requests that are being answered when the server is told to stop.
const LAST_WORDS: Duration = Duration::from_secs(20);
const ARRIVAL: Duration = Duration::from_secs(limits::SERVE_ARRIVAL_SECONDS);
const IDLE: Duration = Duration::from_secs(limits::SERVE_IDLE_SECONDS);

/// Whether the connection of a request has shown a certificate of the authority that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct HasCertificate(pub bool);

/// Serves until `stop` changes, then answers what has come.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(limits::SERVE_CONNECTIONS_MAX));
    let peers = Arc::new(Peers::default());
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
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most often: others must close first.
                tracing::warn!(error = %error, "a connection cannot be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // One peer does not take the places of all others.
        let Some(of_peer) = peers.enter(peer.ip()) else { continue };
        let held = (place, of_peer);
        let _slower = stream.set_nodelay(true);
        let (router, watcher) = (router.clone(), graceful.watcher());
        let (tls, metrics) = (tls.as_ref().map(|tls| tls.config()), Arc::clone(&metrics));
        tokio::spawn(async move {
            let _counted = Counted::new(&metrics);
            taken(stream, tls, router, watcher, held).await;
        });
    }
    drop(listener);
    if tokio::time::timeout(LAST_WORDS, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still open at the end");
    }
}

/// Connections that are open, as long as they are.
struct Counted<'m>(&'m Metrics);

impl Counted<'_> {
    fn new(metrics: &Metrics) -> Counted<'_> {
        metrics.connections.inc();
        Counted(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// Connections by where they come from.
#[derive(Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

struct OfPeer {
    peers: Arc<Peers>,
    address: IpAddr,
}

impl Peers {
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<OfPeer> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= limits::SERVE_CONNECTIONS_OF_PEER_MAX {
            return None;
        }
        *count += 1;
        Some(OfPeer { peers: Arc::clone(self), address })
    }
}

impl Drop for OfPeer {
    fn drop(&mut self) {
        let mut counts = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

async fn taken(
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    watcher: Watcher,
    _held: (OwnedSemaphorePermit, OfPeer),
) {
    let Some(config) = tls else {
        return http1(stream, router, watcher, HasCertificate(false)).await;
    };
    let shaken = tokio::time::timeout(ARRIVAL, TlsAcceptor::from(config).accept(stream)).await;
    let Ok(Ok(stream)) = shaken else { return };
    let session = stream.get_ref().1;
    let certificate = HasCertificate(session.peer_certificates().is_some());
    match session.alpn_protocol() {
        Some(b"h2") => http2(stream, router, watcher, certificate).await,
        _ => http1(stream, router, watcher, certificate).await,
    }
}

async fn http1<S>(stream: S, router: Router, watcher: Watcher, certificate: HasCertificate)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let phase = Arc::new(AtomicU8::new(HEAD));
    let stream = Timed::new(stream, Arc::clone(&phase));
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(certificate);
        phase.store(BUSY, Ordering::Relaxed);
        let (answer, phase) = (service.call(request), Arc::clone(&phase));
        async move {
            let answer = answer.await;
            phase.store(NEXT, Ordering::Relaxed);
            answer
        }
    });
    let connection =
        conn::http1::Builder::new().max_headers(64).serve_connection(TokioIo::new(stream), service);
    // Who goes away in the middle is nobody's fault.
    let _gone = watcher.watch(connection).await;
}

async fn http2<S>(stream: S, router: Router, watcher: Watcher, certificate: HasCertificate)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let phase = Arc::new(AtomicU8::new(HEAD));
    let stream = Timed::new(stream, Arc::clone(&phase));
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(certificate);
        // Many requests share the connection from here on; pings tell whether the other side is there.
        phase.store(BUSY, Ordering::Relaxed);
        service.call(request)
    });
    let connection = conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(200)
        .max_header_list_size(16 << 10)
        .keep_alive_interval(ARRIVAL)
        .keep_alive_timeout(ARRIVAL)
        .serve_connection(TokioIo::new(stream), service);
    let _gone = watcher.watch(connection).await;
}

/// The head of a request is arriving, or should.
const HEAD: u8 = 0;
/// A request is being answered; its body has a limit of its own.
const BUSY: u8 = 1;
/// Another request may come.
const NEXT: u8 = 2;

/// A stream that ends where its other side lets it wait too long.
struct Timed<S> {
    inner: S,
    phase: Arc<AtomicU8>,
    /// For which phase the alarm is set.
    set_for: u8,
    alarm: Pin<Box<Sleep>>,
}

impl<S> Timed<S> {
    fn new(inner: S, phase: Arc<AtomicU8>) -> Timed<S> {
        Timed { inner, phase, set_for: HEAD, alarm: Box::pin(tokio::time::sleep(ARRIVAL)) }
    }

    fn set(&mut self, phase: u8) {
        if self.set_for != phase {
            self.set_for = phase;
            let pause = if phase == NEXT { IDLE } else { ARRIVAL };
            self.alarm.as_mut().reset(Instant::now() + pause);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, into);
        let phase = this.phase.load(Ordering::Relaxed);
        match read {
            Poll::Ready(done) => {
                if phase == NEXT && into.filled().len() > before {
                    this.phase.store(HEAD, Ordering::Relaxed);
                    this.set(HEAD);
                }
                Poll::Ready(done)
            }
            Poll::Pending if phase == BUSY => {
                this.set_for = BUSY;
                Poll::Pending
            }
            Poll::Pending => {
                this.set(phase);
                this.alarm.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
