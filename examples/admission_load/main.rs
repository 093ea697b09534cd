//! Admission reviews at a fixed rate -> how long a running `cudalint serve` takes to answer them.
//!
//! ```text
//! admission_load --to HOST:PORT [--ca FILE] --reviews DIR [--rate N] [--seconds N] [--connections N]
//! ```
//!
//! Requests are due at fixed times, whatever the server does, and each is measured from the time it was due: a server that falls
//! behind cannot hide it. Every connection is a thread of its own with one request on the way. Prints one line of JSON.

#![allow(clippy::print_stdout, reason = "a program that measures prints what it measured")]

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Anyhow<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What was typed.
struct Load {
    to: String,
    tls: Option<Arc<ClientConfig>>,
    reviews: Vec<Vec<u8>>,
    rate: f64,
    seconds: f64,
    connections: usize,
}

/// What one connection met.
#[derive(Default)]
struct Seen {
    /// Seconds from when each request was due.
    latencies: Vec<f64>,
    verdicts: BTreeMap<String, u64>,
    failures: u64,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

fn main() -> Anyhow<()> {
    let load = Arc::new(typed()?);
    let begin = Instant::now() + Duration::from_millis(300);
    let threads: Vec<_> = (0..load.connections)
        .map(|number| {
            let load = Arc::clone(&load);
            std::thread::spawn(move || connection(&load, number, begin))
        })
        .collect();
    let mut all = Seen::default();
    for thread in threads {
        let seen = thread.join().map_err(|_| "a connection's thread ended")?;
        all.latencies.extend(seen.latencies);
        all.failures += seen.failures;
        for (verdict, count) in seen.verdicts {
            *all.verdicts.entry(verdict).or_default() += count;
        }
    }
    let took = begin.elapsed().as_secs_f64();
    all.latencies.sort_by(f64::total_cmp);
    println!("{}", report(&all, took));
    Ok(())
}

fn typed() -> Anyhow<Load> {
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} has no value"))?;
        given.insert(name.trim_start_matches('-').to_owned(), value);
    }
    let number = |name: &str, default: f64| -> Anyhow<f64> {
        given
            .get(name)
            .map_or(Ok(default), |text| text.parse().map_err(|_| format!("--{name} {text}").into()))
    };
    let dir = PathBuf::from(given.get("reviews").ok_or("--reviews DIR is missing")?);
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)?.filter_map(|e| Some(e.ok()?.path())).collect();
    files.sort();
    let reviews: Result<Vec<_>, _> = files.iter().map(std::fs::read).collect();
    let tls = match given.get("ca") {
        None => None,
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(file)? {
                roots.add(certificate?)?;
            }
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config =
                ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
            Some(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
        }
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number of threads")]
    let connections = number("connections", 64.0)?.max(1.0) as usize;
    Ok(Load {
        to: given.get("to").ok_or("--to HOST:PORT is missing")?.clone(),
        tls,
        reviews: reviews?,
        rate: number("rate", 2000.0)?,
        seconds: number("seconds", 10.0)?,
        connections,
    })
}

fn connect(load: &Load) -> Anyhow<BufReader<Box<dyn Stream>>> {
    let plain = TcpStream::connect(&load.to)?;
    plain.set_nodelay(true)?;
    plain.set_read_timeout(Some(Duration::from_secs(30)))?;
    let stream: Box<dyn Stream> = match &load.tls {
        None => Box::new(plain),
        Some(config) => {
            let host = load.to.rsplit_once(':').map_or(load.to.as_str(), |(host, _)| host);
            let session = ClientConnection::new(Arc::clone(config), ServerName::try_from(host.to_owned())?)?;
            Box::new(StreamOwned::new(session, plain))
        }
    };
    Ok(BufReader::new(stream))
}

fn connection(load: &Load, number: usize, begin: Instant) -> Seen {
    let mut seen = Seen::default();
    let mut open = connect(load).ok();
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let (every, first) = (load.connections as f64 / load.rate, number as f64 / load.rate);
    let mut due = first;
    let mut next = number;
    while due < load.seconds {
        let at = begin + Duration::from_secs_f64(due);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let review =
            load.reviews.get(next % load.reviews.len().max(1)).map(Vec::as_slice).unwrap_or_default();
        let answered = match &mut open {
            Some(stream) => ask(stream, &load.to, review),
            None => Err("not connected".into()),
        };
        if let Ok(verdict) = answered {
            seen.latencies.push(at.elapsed().as_secs_f64());
            *seen.verdicts.entry(verdict).or_default() += 1;
        } else {
            seen.failures += 1;
            open = connect(load).ok();
        }
        due += every;
        next += load.connections;
    }
    seen
}

/// Sends one review and gives the verdict among the audit annotations.
fn ask(stream: &mut BufReader<Box<dyn Stream>>, host: &str, review: &[u8]) -> Anyhow<String> {
    let head = format!(
        "POST /v1/admit?timeout=5s HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        review.len()
    );
    let mut request = head.into_bytes();
    request.extend_from_slice(review);
    stream.get_mut().write_all(&request)?;
    stream.get_mut().flush()?;
    let mut length = 0usize;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err("the connection ended".into());
        }
        let header = line.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    if status != "200" {
        return Ok(format!("status {status}"));
    }
    let answer: serde_json::Value = serde_json::from_slice(&body)?;
    let verdict = answer.pointer("/response/auditAnnotations/verdict").and_then(serde_json::Value::as_str);
    Ok(verdict.unwrap_or("nothing to judge").to_owned())
}

fn report(all: &Seen, took: f64) -> serde_json::Value {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a list"
    )]
    let at = |share: f64| {
        let place = (all.latencies.len() as f64 * share) as usize;
        let value = all.latencies.get(place.min(all.latencies.len().saturating_sub(1)));
        value.map(|seconds| (seconds * 1e5).round() / 100.0)
    };
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    let rate = all.latencies.len() as f64 / took;
    serde_json::json!({
        "answered": all.latencies.len(),
        "failures": all.failures,
        "per_second": rate.round(),
        "milliseconds": { "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": at(1.0) },
        "verdicts": all.verdicts,
    })
}
