//! An image that an engine on this machine holds -> the archive that it exports, as a stream.
//!
//! | prefix | asked |
//! |---|---|
//! | `docker-daemon:` | the API at `DOCKER_HOST`, else of the docker context, else `/var/run/docker.sock` |
//! | `podman:` | the same API at `CONTAINER_HOST`, else podman's socket of the user or of the system |
//! | `containers-storage:` | `skopeo`, `podman` or `buildah`, whichever is installed: the store is theirs to read |
//! | `containerd:` | `ctr`, at `CONTAINERD_ADDRESS` and in `CONTAINERD_NAMESPACE` |

use super::auth::Environment;
use super::reference::Reference;
use super::registry::innermost;
use super::{Error, source::Engine};
use crate::names::{Digest, Platform, percent_encoded};
use bytes::Bytes;
use reqwest::{Certificate, Client, ClientBuilder, Identity, StatusCode};
use serde::Deserialize;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// Chunks that wait for the reader.
const CHUNKS_MAX: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What a program or a daemon says about its failure, bytes.
const WORDS_MAX: u64 = 4096;
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// What an export may do and take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// No engine on another machine.
    pub(super) offline: bool,
    /// For the whole answer of an API.
    pub(super) timeout: Option<Duration>,
}

/// Asks the engine for the archive of an image. An error before its first byte comes from here.
pub(super) fn export(
    engine: Engine,
    name: &str,
    platform: Option<&Platform>,
    limits: Limits,
) -> Result<Box<dyn Read + Send>, Error> {
    match engine {
        Engine::Docker => api(&docker(&Environment::of_process())?, "docker-daemon", name, limits),
        Engine::Podman => api(&podman()?, "podman", name, limits),
        Engine::Storage => storage(name),
        Engine::Containerd => containerd(name, platform),
    }
}

/// Where an engine's API answers.
#[derive(Debug, PartialEq, Eq)]
enum Address {
    Socket(PathBuf),
    /// `tcp://`; with a directory of `ca.pem`, `cert.pem` and `key.pem` over TLS.
    Host(String, Option<PathBuf>),
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

fn docker(environment: &Environment) -> Result<Address, Error> {
    if let Some(host) = set("DOCKER_HOST") {
        let tls = set("DOCKER_TLS_VERIFY").map(|_| {
            set("DOCKER_CERT_PATH")
                .map_or_else(|| environment.docker_dir().unwrap_or_default(), PathBuf::from)
        });
        return address(&host, "DOCKER_HOST", tls);
    }
    match environment.docker_dir().and_then(|dir| context(&dir, set("DOCKER_CONTEXT").as_deref())) {
        Some(found) => found,
        None => Ok(Address::Socket(DOCKER_SOCKET.into())),
    }
}

fn podman() -> Result<Address, Error> {
    if let Some(host) = set("CONTAINER_HOST") {
        return address(&host, "CONTAINER_HOST", None);
    }
    let own = set("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("podman/podman.sock"));
    let places = own.into_iter().chain([PathBuf::from("/run/podman/podman.sock")]);
    let sockets: Vec<PathBuf> = places.collect();
    let found = sockets.iter().find(|p| p.exists()).or(sockets.first()).cloned();
    Ok(Address::Socket(found.unwrap_or_default()))
}

fn address(host: &str, named_by: &str, tls: Option<PathBuf>) -> Result<Address, Error> {
    match host.split_once("://") {
        Some(("unix", path)) => Ok(Address::Socket(path.into())),
        Some(("tcp" | "http", host)) => Ok(Address::Host(host.trim_end_matches('/').to_owned(), tls)),
        _ => Err(Error::usage(format!("{named_by}={host}: this kind of address is not supported"))
            .hint("unix:///PATH or tcp://HOST:PORT; behind ssh, `docker save IMAGE | cudalint -` does it")),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
    current_context: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Context {
    endpoints: std::collections::BTreeMap<String, Endpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    host: Option<String>,
}

/// The address of docker's current context; `None` where that is the default one. Its files stand in a directory named by
/// the SHA-256 of its name.
fn context(dir: &Path, asked: Option<&str>) -> Option<Result<Address, Error>> {
    let configured = || {
        let bytes = std::fs::read(dir.join("config.json")).ok()?;
        serde_json::from_slice::<DockerConfig>(&bytes).ok()?.current_context
    };
    let name = asked.map(str::to_owned).or_else(configured).filter(|n| !n.is_empty() && n != "default")?;
    let id = Digest::of(name.as_bytes());
    let place = dir.join("contexts/meta").join(id.hex()).join("meta.json");
    let unusable = |why: String| {
        Error::usage(format!("docker context `{name}`: {why}"))
            .hint("`docker context ls` lists them; or set DOCKER_HOST")
    };
    let read = std::fs::read(&place).map_err(|e| unusable(format!("{}: {e}", place.display())));
    let parsed = read.and_then(|bytes| {
        serde_json::from_slice::<Context>(&bytes).map_err(|e| unusable(format!("{}: {e}", place.display())))
    });
    Some(parsed.and_then(|context| {
        let host = context.endpoints.get("docker").and_then(|e| e.host.clone());
        let host = host.ok_or_else(|| unusable("it names no docker host".to_owned()))?;
        let tls = Some(dir.join("contexts/tls").join(id.hex()).join("docker")).filter(|d| d.is_dir());
        address(&host, &format!("docker context `{name}`"), tls)
    }))
}

/// `GET /images/NAME/get`: the archive that `docker save` writes.
fn api(address: &Address, prefix: &str, name: &str, limits: Limits) -> Result<Box<dyn Read + Send>, Error> {
    if let (Address::Host(host, _), true) = (address, limits.offline) {
        return Err(Error::usage(format!(
            "{prefix}:{name} is held by {host}, and --offline forbids the network"
        )));
    }
    let place = match address {
        Address::Socket(path) => path.display().to_string(),
        Address::Host(host, _) => host.clone(),
    };
    let failed = |why: String| {
        Error::look(format!("{prefix}:{name}: the engine at {place} cannot be asked: {why}"))
            .hint("is it running, and may you use it? DOCKER_HOST or CONTAINER_HOST names another one")
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("engine")
        .enable_all()
        .build()
        .map_err(|e| failed(e.to_string()))?;
    let (client, base) = client(address)?;
    let url = format!("{base}/images/{}/get", percent_encoded(name, b""));
    let mut ask = client.get(&url);
    if let Some(timeout) = limits.timeout {
        ask = ask.timeout(timeout);
    }
    let asked = runtime.block_on(async {
        let mut response = ask.send().await.map_err(|e| failed(innermost(&e)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let mut words = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            words.extend_from_slice(&chunk);
            if words.len() as u64 > WORDS_MAX {
                break;
            }
        }
        Err(refused(prefix, name, &place, status, &words))
    });
    let mut response = asked?;
    let (sender, parts) = mpsc::channel(CHUNKS_MAX);
    runtime.spawn(async move {
        loop {
            let part = match response.chunk().await {
                Ok(Some(chunk)) => Ok(chunk),
                Ok(None) => return,
                Err(error) => Err(innermost(&error)),
            };
            let last = part.is_err();
            if sender.send(part).await.is_err() || last {
                return;
            }
        }
    });
    Ok(Box::new(Exported { parts, current: Bytes::new(), runtime: Some(runtime) }))
}

fn refused(prefix: &str, name: &str, place: &str, status: StatusCode, words: &[u8]) -> Error {
    #[derive(Deserialize)]
    struct Said {
        message: String,
    }
    let said = serde_json::from_slice::<Said>(words).map(|s| s.message).unwrap_or_default();
    if status == StatusCode::NOT_FOUND || said.contains("no such image") || said.contains("No such image") {
        return Error::look(format!("{prefix}:{name}: the engine at {place} has no such image"))
            .hint("pull or build it first, or leave the prefix out to read it from the registry");
    }
    let said = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
    Error::look(format!("{prefix}:{name}: the engine at {place} answers {said}"))
}

fn client(address: &Address) -> Result<(Client, String), Error> {
    let builder = ClientBuilder::new().connect_timeout(CONNECT_TIMEOUT).no_proxy();
    let broken = |e: reqwest::Error| {
        Error::look(format!("the connection to the engine cannot be set up: {}", innermost(&e)))
    };
    match address {
        #[cfg(unix)]
        Address::Socket(path) => {
            let client = builder.unix_socket(path.clone()).build().map_err(broken)?;
            Ok((client, "http://localhost".to_owned()))
        }
        #[cfg(not(unix))]
        Address::Socket(path) => {
            Err(Error::usage(format!("`{}`: sockets are not supported here", path.display())))
        }
        Address::Host(host, None) => Ok((builder.build().map_err(broken)?, format!("http://{host}"))),
        Address::Host(host, Some(dir)) => {
            let file = |name: &str| {
                let path = dir.join(name);
                std::fs::read(&path).map_err(|e| {
                    Error::usage(format!("`{}`: {e}", path.display()))
                        .hint("DOCKER_CERT_PATH names the directory of ca.pem, cert.pem and key.pem")
                })
            };
            let unusable = |e: reqwest::Error| {
                Error::usage(format!("certificates in `{}`: {}", dir.display(), innermost(&e)))
            };
            let roots = Certificate::from_pem_bundle(&file("ca.pem")?).map_err(unusable)?;
            let mut pem = file("cert.pem")?;
            pem.push(b'\n');
            pem.extend(file("key.pem")?);
            let identity = Identity::from_pem(&pem).map_err(unusable)?;
            let client = builder.tls_certs_merge(roots).identity(identity).build().map_err(broken)?;
            Ok((client, format!("https://{host}")))
        }
    }
}

/// What a daemon sends, read by a thread that may wait.
struct Exported {
    parts: mpsc::Receiver<Result<Bytes, String>>,
    current: Bytes,
    runtime: Option<Runtime>,
}

impl Read for Exported {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.parts.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(why)) => return Err(io::Error::other(format!("the engine broke off: {why}"))),
            }
        }
        let count = buffer.len().min(self.current.len());
        let part = self.current.split_to(count);
        if let Some(free) = buffer.get_mut(..count) {
            free.copy_from_slice(&part);
        }
        Ok(count)
    }
}

impl Drop for Exported {
    /// A plain runtime would wait for a transfer that nobody reads any more.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn storage(name: &str) -> Result<Box<dyn Read + Send>, Error> {
    let what = format!("containers-storage:{name}");
    let copy = [what.as_str(), "docker-archive:/dev/stdout"];
    let programs: [(&str, Vec<&str>); 3] = [
        ("skopeo", [&["copy", "--quiet"][..], &copy].concat()),
        ("podman", vec!["save", "--quiet", "--format", "docker-archive", name]),
        ("buildah", vec!["push", "--quiet", name, "docker-archive:/dev/stdout"]),
    ];
    for (program, arguments) in programs {
        if let Some(stream) = run(program, &arguments, &what)? {
            return Ok(stream);
        }
    }
    Err(Error::look(format!(
        "{what}: none of skopeo, podman and buildah is installed, which read this store"
    ))
    .hint("install one of them"))
}

fn containerd(name: &str, platform: Option<&Platform>) -> Result<Box<dyn Read + Send>, Error> {
    let what = format!("containerd:{name}");
    let full = Reference::parse(name)?;
    let tag = match &full.digest {
        Some(digest) => format!("@{digest}"),
        None => format!(":{}", full.tag_or_digest()),
    };
    let full = format!("{}{tag}", full.repository_name());
    let address = set("CONTAINERD_ADDRESS").unwrap_or_else(|| "/run/containerd/containerd.sock".to_owned());
    let namespace = set("CONTAINERD_NAMESPACE").unwrap_or_else(|| "default".to_owned());
    let platform = platform.cloned().unwrap_or_else(Platform::of_this_machine).to_string();
    let arguments = [
        "--address",
        &address,
        "--namespace",
        &namespace,
        "images",
        "export",
        "--platform",
        &platform,
        "-",
        &full,
    ];
    run("ctr", &arguments, &what)?.ok_or_else(|| {
        Error::look(format!("{what}: `ctr`, which comes with containerd, is not in PATH"))
            .hint("install it, or give the archive that `nerdctl save` writes")
    })
}

/// The standard output of a program; `None` where it is not installed.
fn run(program: &str, arguments: &[&str], what: &str) -> Result<Option<Box<dyn Read + Send>>, Error> {
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::look(format!("{what}: `{program}` cannot be started: {error}"))),
    };
    let (Some(out), Some(words)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Error::look(format!("{what}: `{program}` cannot be listened to")));
    };
    Ok(Some(Box::new(Output {
        child,
        out,
        words: Some(std::thread::spawn(move || last_line(words))),
        program: program.to_owned(),
    })))
}

/// The last line that a program says on standard error, which is where it says why it failed.
fn last_line(mut words: ChildStderr) -> String {
    let mut said = Vec::new();
    let _cut = (&mut words).take(WORDS_MAX).read_to_end(&mut said);
    // A program whose words nobody reads would wait for ever.
    let _rest = io::copy(&mut words, &mut io::sink());
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default().trim();
    // skopeo logs in pairs of keys and values; what it means stands under `msg`.
    let message = last.split_once(" msg=\"").map(|(_, m)| m.trim_end_matches('"').replace("\\\"", "\""));
    message.unwrap_or_else(|| last.to_owned())
}

struct Output {
    child: Child,
    out: ChildStdout,
    words: Option<std::thread::JoinHandle<String>>,
    program: String,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.out.read(buffer)?;
        if got > 0 || buffer.is_empty() {
            return Ok(got);
        }
        let status = self.child.wait()?;
        match self.words.take() {
            Some(words) if !status.success() => {
                let said = words.join().unwrap_or_default();
                let why = if said.is_empty() { status.to_string() } else { said };
                let named =
                    if why.starts_with(&self.program) { why } else { format!("{}: {why}", self.program) };
                Err(Error::look(named).into())
            }
            _ => Ok(0),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_sockets_or_hosts() {
        let of = |text: &str| address(text, "DOCKER_HOST", None);
        assert_eq!(of("unix:///run/x.sock").unwrap(), Address::Socket("/run/x.sock".into()));
        assert_eq!(of("tcp://h:2375/").unwrap(), Address::Host("h:2375".to_owned(), None));
        assert!(of("ssh://me@h").unwrap_err().hint.unwrap().contains("docker save"));
    }

    #[test]
    fn a_docker_context_is_found_by_the_digest_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        assert!(context(dir.path(), None).is_none());
        std::fs::write(dir.path().join("config.json"), r#"{"currentContext":"lab"}"#).unwrap();
        assert!(context(dir.path(), None).unwrap().unwrap_err().message.contains("docker context `lab`"));
        let meta = dir.path().join("contexts/meta").join(Digest::of(b"lab").hex());
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"lab","Endpoints":{"docker":{"Host":"unix:///run/lab.sock"}}}"#,
        )
        .unwrap();
        assert_eq!(context(dir.path(), None).unwrap().unwrap(), Address::Socket("/run/lab.sock".into()));
        assert!(context(dir.path(), Some("default")).is_none());
    }
}
