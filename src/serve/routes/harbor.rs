//! `/api/v1/…`: Harbor's pluggable scanner API (goharbor/pluggable-scanner-spec v1.2): findings in the form of vulnerabilities.
//!
//! Harbor compares media types as texts, waits five seconds for each answer, polls after `Refresh-After` (at most 127) and takes
//! anything but 200 and 302 for the end of the scan. It keeps one description per id, package and version for all images, so that
//! the version names the host and the image.

use super::notify::with_port;
use super::{client, header, whole};
use crate::image::reference::Reference;
use crate::names::Digest;
use crate::report::{Level, Outcome, Report};
use crate::serve::app::App;
use crate::serve::clients::{Client, basic};
use crate::serve::looks::{Known, Look, Wanted, Why};
use crate::serve::reader::{Access, Login};
use crate::serve::shelf::Missing;
use crate::target::Target;
use crate::{inventory, limits};
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const METADATA: &str = "application/vnd.scanner.adapter.metadata+json; version=1.1";
const SCAN_ANSWER: &str = "application/vnd.scanner.adapter.scan.response+json; version=1.0";
const ERROR: &str = "application/vnd.scanner.adapter.error+json; version=1.0";
const REPORT: &str = "application/vnd.security.vulnerability.report; version=1.1";
const REPORT_OLD: &str = "application/vnd.scanner.adapter.vuln.report.harbor+json; version=1.0";
const CONSUMED: [&str; 2] =
    ["application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json"];
const REFRESH_SECONDS: HeaderValue = HeaderValue::from_static("5");
/// Harbor's columns, bytes.
const COLUMN_BYTES_MAX: usize = 240;
const RULES: &str = "https://cudalint.github.io/rules/";

/// A scan that was asked for.
#[derive(Clone)]
pub struct Scan {
    wanted: Wanted,
    artifact: Value,
    /// Name of the client; another one does not see the report.
    client: String,
}

#[derive(Deserialize)]
struct ScanRequest {
    registry: Registry,
    artifact: Artifact,
    #[serde(default)]
    enabled_capabilities: Option<Vec<Capability>>,
}

#[derive(Deserialize)]
struct Registry {
    #[serde(default)]
    url: String,
    #[serde(default)]
    authorization: String,
}

#[derive(Deserialize)]
struct Artifact {
    #[serde(default)]
    repository: String,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    tag: String,
    #[serde(default)]
    mime_type: String,
}

#[derive(Deserialize)]
struct Capability {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    produces_mime_types: Option<Vec<String>>,
}

fn typed(status: StatusCode, media_type: &'static str, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static(media_type))], body.to_string()).into_response()
}

fn error(status: StatusCode, message: &str) -> Response {
    typed(status, ERROR, &json!({ "error": { "message": message } }))
}

fn scanner(app: &App) -> Value {
    json!({ "name": "cudalint", "vendor": "cudalint", "version": app.tool.version })
}

fn of_client(app: &App, headers: &HeaderMap) -> Result<Client, Box<Response>> {
    client(app, headers).map_err(|refusal| {
        let (status, message, hint) = refusal;
        Box::new(error(status, &format!("{message} ({hint})")))
    })
}

pub(super) async fn metadata(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if let Err(answer) = of_client(&app, &headers) {
        return *answer;
    }
    let hosts: Vec<String> =
        app.snapshot().cluster.everywhere().rows.iter().map(|r| r.profile.name().to_owned()).collect();
    typed(
        StatusCode::OK,
        METADATA,
        &json!({
            "scanner": scanner(&app),
            "capabilities": [{
                "type": "vulnerability",
                "consumes_mime_types": CONSUMED,
                "produces_mime_types": [REPORT],
            }],
            "properties": {
                "harbor.scanner-adapter/scanner-type": "os-package-vulnerability",
                "harbor.scanner-adapter/registry-authorization-type": "Basic",
                "harbor.scanner-adapter/vulnerability-database-updated-at": format!("{}T00:00:00Z", app.catalog.as_of),
                "cudalint/hosts": hosts.join(", "),
            },
        }),
    )
}

pub(super) async fn scan(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let client = match of_client(&app, &headers) {
        Ok(client) => client,
        Err(answer) => return *answer,
    };
    let body = match whole(&app, &headers, body).await {
        Ok(body) => body,
        Err(none) => return error(none.status(), &none.message()),
    };
    let request: ScanRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(e) => return error(StatusCode::BAD_REQUEST, &format!("no scan request: {e}")),
    };
    if !produces_ours(request.enabled_capabilities.as_deref()) {
        return error(StatusCode::NOT_IMPLEMENTED, &format!("only {REPORT} is made here"));
    }
    let wanted = match wanted(&app, &client, &request) {
        Ok(wanted) => wanted,
        Err(why) => return error(StatusCode::UNPROCESSABLE_ENTITY, &why),
    };
    let Some(id) = unguessable() else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "this machine gives no random numbers");
    };
    if let Look::Cold { .. } = app.looks.look(&wanted, Why::Asked) {
        app.metrics.overloaded();
        return error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "too many images wait to be looked at; scan it again later",
        );
    }
    let Artifact { repository, digest, tag, mime_type } = request.artifact;
    let artifact = json!({ "repository": repository, "digest": digest, "tag": tag, "mime_type": mime_type });
    app.reports.insert(id.clone(), Arc::new(Scan { wanted, artifact, client: client.name }));
    typed(StatusCode::ACCEPTED, SCAN_ANSWER, &json!({ "id": id }))
}

fn produces_ours(enabled: Option<&[Capability]>) -> bool {
    let ours = |c: &Capability| {
        let made =
            |types: &Vec<String>| types.iter().any(|t| same_type(t, REPORT) || same_type(t, REPORT_OLD));
        matches!(c.kind.as_str(), "" | "vulnerability") && c.produces_mime_types.as_ref().is_none_or(made)
    };
    enabled.is_none_or(|all| all.is_empty() || all.iter().any(ours))
}

/// The image that Harbor means, to be read with the login that came with the request and no other.
fn wanted(app: &App, client: &Client, request: &ScanRequest) -> Result<Wanted, String> {
    let url = reqwest::Url::parse(&request.registry.url).map_err(|e| format!("registry.url: {e}"))?;
    let host = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https"));
    let host = host.ok_or("registry.url is no URL of a registry")?;
    let host = match (url.port(), url.scheme()) {
        (Some(port), _) => format!("{host}:{port}"),
        (None, "http") if !host.contains('.') => format!("{host}:80"),
        _ => with_port(host),
    };
    if Digest::parse(&request.artifact.digest).is_none() {
        return Err("artifact.digest is no digest".to_owned());
    }
    let text = format!("{host}/{}@{}", request.artifact.repository, request.artifact.digest);
    let name = Reference::parse(&text).map_err(|e| format!("artifact: {}", e.message))?;
    if name.api_host() != host {
        return Err(format!("registry.url names {host}, and the artifact reads as one of {}", name.registry));
    }
    if url.scheme() == "http" && !name.is_loopback() && !app.may_plain_http {
        return Err("registry.url is plain HTTP: start cudalint serve with --insecure, or give Harbor's HTTPS address".to_owned());
    }
    if let Some(why) = app.allowed.refuses(&name) {
        return Err(why);
    }
    if !client.may_see(&name.repository_name()) {
        return Err(format!("the client may not ask for {}", name.repository_name()));
    }
    let login = login(&request.registry.authorization)?;
    Ok(Wanted { name, platform: None, access: Access::lent(login) })
}

fn login(authorization: &str) -> Result<Login, String> {
    let Some((scheme, rest)) = authorization.trim().split_once(' ') else {
        return match authorization.trim().is_empty() {
            true => Ok(Login::Anonymous),
            false => Err("registry.authorization is no header value".to_owned()),
        };
    };
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Ok(Login::Bearer(rest.trim().to_owned())),
        "basic" => {
            let (username, password) = basic(rest).ok_or("registry.authorization is no Basic login")?;
            Ok(Login::Basic { username, password })
        }
        _ => Err("registry.authorization is neither Basic nor Bearer".to_owned()),
    }
}

fn unguessable() -> Option<String> {
    let mut bytes = [0u8; 16];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes).ok()?;
    Some(crate::names::hex(&bytes))
}

/// Media types with their parameters, however they are spaced.
fn same_type(a: &str, b: &str) -> bool {
    let bare =
        |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
    bare(a) == bare(b)
}

pub(super) async fn report(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let client = match of_client(&app, &headers) {
        Ok(client) => client,
        Err(answer) => return *answer,
    };
    let id = id.map(|Path(id)| id).unwrap_or_default();
    let Some(asked) = app.reports.get(&id).filter(|asked| asked.client == client.name) else {
        return error(StatusCode::NOT_FOUND, "no scan of this id is known; ids are kept for an hour");
    };
    let accept = header(&headers, ACCEPT).unwrap_or("*/*");
    let fits = |ours: &str| accept.split(',').any(|one| same_type(one, ours));
    let any =
        accept.split(',').any(|one| matches!(one.trim(), "*/*" | "application/*" | "application/json" | ""));
    let media_type = if any || fits(REPORT) {
        REPORT
    } else if fits(REPORT_OLD) {
        REPORT_OLD
    } else {
        return error(StatusCode::NOT_IMPLEMENTED, &format!("only {REPORT} is made here"));
    };
    let known = match app.looks.look(&asked.wanted, Why::Asked) {
        Look::Known(known) => known,
        Look::Coming(_) | Look::Cold { .. } => return later(&id),
        Look::Failed(e) => return error(StatusCode::INTERNAL_SERVER_ERROR, &e.message),
    };
    match made(&app, &known, &asked).await {
        Ok(report) => typed(StatusCode::OK, media_type, &report),
        Err(Missing::Cold | Missing::Overloaded) => later(&id),
        Err(Missing::Failed(why)) => error(StatusCode::INTERNAL_SERVER_ERROR, &why),
    }
}

fn later(id: &str) -> Response {
    let mut answer = StatusCode::FOUND.into_response();
    answer.headers_mut().insert("refresh-after", REFRESH_SECONDS);
    if let Ok(place) = HeaderValue::try_from(format!("/api/v1/scan/{id}/report")) {
        answer.headers_mut().insert(LOCATION, place);
    }
    answer
}

async fn made(app: &Arc<App>, known: &Arc<Known>, asked: &Scan) -> Result<Value, Missing> {
    let facts = app.shelf.load(&app.looks, known, Why::Asked).await?;
    let arch = facts.image.platform.architecture.clone();
    let targets: Vec<Target> = app
        .snapshot()
        .cluster
        .everywhere()
        .rows
        .iter()
        .filter(|row| row.profile.arch().is_none_or(|of| of == arch))
        .map(|row| row.profile.target.clone())
        .collect();
    let (of, artifact, digest) = (Arc::clone(app), asked.artifact.clone(), known.digest.clone());
    let name = known.name.clone();
    let making = tokio::task::spawn_blocking(move || {
        let facts = Known::named(&facts, &name);
        let inventory = inventory::build(&facts, &of.catalog);
        let report = crate::check(&inventory, &targets, &of.catalog, of.judging.clone());
        json!({
            "generated_at": crate::clock::now(),
            "artifact": artifact,
            "scanner": scanner(&of),
            "severity": worst(&report),
            "vulnerabilities": items(&report, &digest),
        })
    });
    making.await.map_err(|_| Missing::Failed("judging it ended in a fault of cudalint".to_owned()))
}

fn severity(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Breaks => "High",
        Outcome::Degrades | Outcome::Holds => "Low",
        Outcome::Unknown => "Unknown",
    }
}

fn worst(report: &Report) -> &'static str {
    let telling = report.findings.iter().filter(|f| f.finding.level > Level::Note);
    telling
        .map(|f| f.finding.outcome)
        .max_by_key(|o| (*o == Outcome::Breaks, *o != Outcome::Unknown))
        .map_or("Negligible", severity)
}

/// One for each finding and host, each with a key of its own.
fn items(report: &Report, digest: &Digest) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    let mut keys = std::collections::BTreeSet::new();
    for one in report.findings.iter().filter(|f| f.finding.level > Level::Note) {
        let finding = &one.finding;
        let evidence = finding.evidence.first();
        let path = evidence.map(|e| e.place.path.to_string()).unwrap_or_default();
        let package = finding.component.clone().unwrap_or_else(|| path.clone());
        let alone = [String::new()];
        let hosts = if one.targets.is_empty() { alone.as_slice() } else { &one.targets };
        for host in hosts {
            let version = format!("{host} {}", digest.short());
            let package = column(&package);
            let version = column(version.trim());
            if !keys.insert((finding.rule.code, package.clone(), version.clone())) {
                continue;
            }
            out.push(json!({
                "id": finding.rule.code,
                "package": package,
                "version": version,
                "fix_version": "",
                "severity": severity(finding.outcome),
                "description": text(&[&finding.message, finding.runtime_error.as_ref().map_or("", |e| &e.text),
                    finding.remedies.first().map_or("", String::as_str)]),
                "links": [format!("{RULES}{}", finding.rule.name)],
                "cwe_ids": [],
                "vendor_attributes": { "host": host, "file": path, "rule": finding.rule.name },
            }));
        }
    }
    out
}

/// Texts of a database column: no NUL, not too long.
fn column(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > COLUMN_BYTES_MAX {
            break;
        }
        out.push(c);
    }
    out
}

fn text(parts: &[&str]) -> String {
    let told: Vec<String> = parts
        .iter()
        .filter(|p| !p.is_empty())
        .map(|p| p.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
        .collect();
    told.join(". ")
}

/// Reports are asked for by an id that nobody can guess, and for an hour.
pub(crate) fn reports() -> moka::sync::Cache<String, Arc<Scan>> {
    moka::sync::Cache::builder()
        .max_capacity(limits::SERVE_REPORTS_MAX as u64)
        .eviction_policy(moka::policy::EvictionPolicy::lru())
        .time_to_live(std::time::Duration::from_secs(limits::SERVE_REPORT_SECONDS))
        .build()
}
