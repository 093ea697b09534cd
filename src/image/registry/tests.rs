//! What is refused as a manifest, and transfers from a registry that is made here, byte by byte, on
//! 127.0.0.1.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::Instant;

use super::*;
use crate::image::ErrorKind;

const MANIFEST: &str = r#"{"schemaVersion":2,"layers":[]}"#;

/// A request as it came: headers by lower-case name.
struct Request {
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Where the asked range begins.
    fn offset(&self) -> Option<usize> {
        self.header("range").strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }

    fn read(stream: &TcpStream) -> Option<Request> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut headers = BTreeMap::new();
        loop {
            let mut text = String::new();
            reader.read_line(&mut text).ok()?;
            let Some((name, value)) = text.trim_end().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        Some(Request { line, headers, body: String::from_utf8(body).unwrap() })
    }
}

/// Plain HTTP only; keeps what was asked of it. Each connection gets one answer.
struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `answer` gets the request and how many came before it.
    fn start(answer: impl Fn(&Request, usize) -> Vec<u8> + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let kept = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut first = [0];
                if stream.peek(&mut first).is_err() || first[0] == 0x16 {
                    // A TLS handshake: this server has none.
                    let _gone = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
                    continue;
                }
                let Some(request) = Request::read(&stream) else { continue };
                if request.line.starts_with("GET /v2/ ") {
                    let _gone = stream.write_all(&reply(200, "", b""));
                    continue;
                }
                let mut kept = kept.lock().unwrap();
                let bytes = answer(&request, kept.len());
                kept.push(request);
                drop(kept);
                let _gone = stream.write_all(&bytes);
            }
        });
        Server { address, requests }
    }

    fn connect_with(&self, options: &RegistryOptions) -> Registry {
        let reference = Reference::parse(&format!("{}/a/b:1", self.address)).unwrap();
        Registry::connect_from(&reference, options, &Environment::default()).unwrap()
    }

    fn connect(&self) -> Registry {
        self.connect_with(&RegistryOptions::default())
    }

    fn seen<T>(&self, what: impl Fn(&Request) -> T) -> Vec<T> {
        self.requests.lock().unwrap().iter().map(what).collect()
    }
}

/// A whole answer; headers end with `\r\n`.
fn reply(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    cut_reply(status, headers, body, body.len())
}

/// An answer that promises `length` bytes.
fn cut_reply(status: u16, headers: &str, body: &[u8], length: usize) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn content() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        urls: Vec::new(),
        annotations: std::collections::BTreeMap::new(),
    }
}

/// Not `Result`, so that a test reads what it expects in one line.
fn read_all(registry: &Registry, descriptor: &Descriptor) -> Vec<u8> {
    let mut bytes = Vec::new();
    registry.blob(descriptor).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn read_error(registry: &Registry, descriptor: &Descriptor) -> Error {
    let mut reader = match registry.blob(descriptor) {
        Ok(reader) => reader,
        Err(error) => return error,
    };
    let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(reader.read(&mut [0]).is_err(), "an error must not turn into an end");
    error.get_ref().unwrap().downcast_ref::<Error>().unwrap().clone()
}

#[test]
fn a_cut_blob_goes_on_at_the_byte_where_it_was_cut() {
    let server = Server::start(|request, count| {
        let bytes = content();
        let from = request.offset().unwrap_or(0);
        let range = format!("Content-Range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
        let status = if from == 0 { 200 } else { 206 };
        let end = if count < 3 { from + 70_001 } else { bytes.len() };
        cut_reply(status, &range, &bytes[from..end], bytes.len() - from)
    });
    let registry = server.connect();
    assert!(read_all(&registry, &descriptor(&content())) == content());
    assert_eq!(server.seen(Request::offset), [None, Some(70_001), Some(140_002), Some(210_003)]);
    assert_eq!(registry.bytes_downloaded(), content().len() as u64);
}

#[test]
fn a_server_that_ignores_ranges_or_sends_the_wrong_one_is_read_again() {
    for wrong_range in [false, true] {
        let server = Server::start(move |request, count| {
            let bytes = content();
            match (count, request.offset()) {
                (0, _) => cut_reply(200, "", &bytes[..90_000], bytes.len()),
                (_, Some(_)) if wrong_range => {
                    reply(206, "Content-Range: bytes 5-9/400000\r\n", &bytes[5..10])
                }
                _ => reply(200, "", &bytes),
            }
        });
        let registry = server.connect();
        assert!(read_all(&registry, &descriptor(&content())) == content());
        assert_eq!(registry.bytes_downloaded(), 90_000 + content().len() as u64);
        let last = server.seen(Request::offset).pop().unwrap();
        assert_eq!(last, if wrong_range { None } else { Some(90_000) });
    }
}

#[test]
fn a_body_that_always_stops_is_given_up_with_the_place() {
    let server = Server::start(|request, _| match request.offset() {
        None => cut_reply(200, "", b"1234", 10),
        Some(_) => cut_reply(206, "Content-Range: bytes 4-9/10\r\n", b"", 6),
    });
    let error = read_error(&server.connect(), &descriptor(b"1234567890"));
    assert!(error.message.contains("ends after 4 of 10 bytes"), "{error}");
    assert_eq!(server.requests.lock().unwrap().len(), limits::REQUEST_ATTEMPTS_MAX as usize);
}

#[test]
fn a_blob_that_is_longer_than_promised_ends_one_byte_later() {
    let server = Server::start(|_, _| reply(200, "", b"1234567890"));
    let short = Descriptor { size: 4, ..descriptor(b"1234567890") };
    assert_eq!(read_all(&server.connect(), &short), b"12345");
}

#[test]
fn a_token_that_expires_in_the_middle_is_replaced() {
    let server = Server::start(|request, count| {
        if request.line.starts_with("GET /token") {
            return reply(200, "", format!(r#"{{"access_token":"t{count}"}}"#).as_bytes());
        }
        let host = request.header("host");
        let ask = format!(
            "WWW-Authenticate: Basic realm=\"x\", Bearer realm=\"http://{host}/token\",service=\"s\"\r\n"
        );
        match (request.header("authorization"), request.offset()) {
            ("Bearer t1", None) => cut_reply(200, "", b"12345", 10),
            ("Bearer t4", Some(5)) => reply(206, "Content-Range: bytes 5-9/10\r\n", b"67890"),
            _ => reply(401, &ask, b""),
        }
    });
    assert_eq!(read_all(&server.connect(), &descriptor(b"1234567890")), b"1234567890");
    let asked = server.seen(|request| request.line.clone());
    assert!(asked[1].contains("/token?service=s&scope=repository%3Aa%2Fb%3Apull "), "{asked:?}");
}

#[test]
fn an_identity_token_is_traded_at_the_realm_and_never_shown_to_the_registry() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|request, _| {
        if request.line.starts_with("POST /token") {
            return reply(200, "", br#"{"token":"access"}"#);
        }
        let realm = format!("http://{}/token", request.header("host"));
        match request.header("authorization") {
            "Bearer access" => reply(200, "", MANIFEST.as_bytes()),
            _ => reply(401, &format!("WWW-Authenticate: Bearer realm=\"{realm}\",scope=\"x y\"\r\n"), b""),
        }
    });
    let authfile = dir.path().join("auth.json");
    let text = format!(r#"{{"auths":{{"{}":{{"identitytoken":"re fresh"}}}}}}"#, server.address);
    std::fs::write(&authfile, text).unwrap();
    let options = RegistryOptions { authfile: Some(authfile), ..RegistryOptions::default() };
    server.connect_with(&options).manifest("1").unwrap();
    let bodies = server.seen(|request| request.body.clone());
    assert_eq!(bodies[1], "grant_type=refresh_token&client_id=cudalint&scope=x+y&refresh_token=re+fresh");
    assert_eq!(server.seen(|request| request.header("authorization").to_owned()), ["", "", "Bearer access"]);
}

#[test]
fn a_refused_password_is_named_by_its_source_and_not_tried_twice() {
    let server = Server::start(|_, _| {
        let envelope = br#"{"errors":[{"code":"UNAUTHORIZED","message":"bad\u001b[31m login"}]}"#;
        reply(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", envelope)
    });
    let options = RegistryOptions {
        username: Some("ci".to_owned()),
        password: Some("hunter2".to_owned()),
        ..RegistryOptions::default()
    };
    let error = server.connect_with(&options).manifest("1").unwrap_err();
    assert!(
        error.message.ends_with("was refused with --username and --password-stdin: bad [31m login"),
        "{error}"
    );
    assert_eq!((server.requests.lock().unwrap().len(), error.kind), (2, ErrorKind::Look));
    let error = server.connect().manifest("1").unwrap_err();
    assert!(error.message.contains("no credentials were found"), "{error}");
    assert!(error.hint.unwrap().contains("docker login 127.0.0.1:"));
    assert!(!format!("{options:?}").contains("hunter2"));
}

#[test]
fn authorization_stays_with_the_registry_when_storage_is_elsewhere() {
    let storage = Server::start(|_, _| reply(200, "", b"1234567890"));
    let address = storage.address;
    let registry =
        Server::start(move |_, _| reply(307, &format!("Location: http://{address}/x?sig=1\r\n"), b""));
    let options = RegistryOptions { token: Some("secret".to_owned()), ..RegistryOptions::default() };
    assert_eq!(read_all(&registry.connect_with(&options), &descriptor(b"1234567890")), b"1234567890");
    assert_eq!(registry.seen(|request| request.header("authorization").to_owned()), ["Bearer secret"]);
    assert_eq!(storage.seen(|request| request.header("authorization").to_owned()), [""]);
    assert!(storage.seen(|request| request.header("user-agent").to_owned())[0].starts_with("cudalint/"));
}

#[test]
fn busy_servers_are_waited_for_but_not_for_an_hour() {
    let server = Server::start(|_, count| match count {
        0 => reply(429, "Retry-After: 1\r\n", b""),
        1 => reply(503, "Retry-After: 0\r\n", b""),
        _ => reply(200, "", MANIFEST.as_bytes()),
    });
    let start = Instant::now();
    server.connect().manifest("1").unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    let server = Server::start(|_, _| reply(429, "Retry-After: 3600\r\n", b""));
    let error = server.connect().manifest("1").unwrap_err();
    assert!(error.message.ends_with("answers 429 (too many requests) and asks to wait 3600 s"), "{error}");
    let server = Server::start(|_, _| reply(502, "Retry-After: 0\r\n", b""));
    let error = server.connect().manifest("1").unwrap_err();
    assert!(error.message.ends_with("answers 502 (bad gateway) after 6 attempts"), "{error}");
}

#[test]
fn foreign_layers_come_from_their_urls_and_others_never() {
    let elsewhere = Server::start(|_, _| reply(200, "", b"1234567890"));
    let server = Server::start(|_, _| reply(404, "", b""));
    let url = format!("http://user:word@{}/layer", elsewhere.address);
    let foreign = Descriptor {
        media_type: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".to_owned(),
        urls: vec!["ftp://x/y".to_owned(), url.clone()],
        ..descriptor(b"1234567890")
    };
    let options = RegistryOptions { token: Some("secret".to_owned()), ..RegistryOptions::default() };
    let registry = server.connect_with(&options);
    assert_eq!(read_all(&registry, &foreign), b"1234567890");
    assert_eq!(elsewhere.seen(|request| request.header("authorization").to_owned()), [""]);
    let plain = Descriptor { urls: vec![url], ..descriptor(b"1234567890") };
    assert!(read_error(&registry, &plain).message.contains("is missing in"));
}

#[test]
fn dropping_the_reader_ends_the_transfer() {
    let (sender, ended) = std::sync::mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut first = [0];
            if stream.peek(&mut first).is_err() || first[0] == 0x16 {
                let _gone = stream.write_all(b"no TLS here\r\n");
                continue;
            }
            let is_probe = Request::read(&stream).unwrap().line.starts_with("GET /v2/ ");
            if is_probe {
                let _gone = stream.write_all(&reply(200, "", b""));
                continue;
            }
            let zeros = vec![0; 65536];
            let mut sent = stream.write_all(&cut_reply(200, "", b"", 1 << 40));
            while sent.is_ok() {
                sent = stream.write_all(&zeros);
            }
            sender.send(()).unwrap();
        }
    });
    let reference = Reference::parse(&format!("{address}/a:1")).unwrap();
    let registry =
        Registry::connect_from(&reference, &RegistryOptions::default(), &Environment::default()).unwrap();
    let mut reader = registry.blob(&Descriptor { size: 1 << 40, ..descriptor(b"") }).unwrap();
    drop(registry);
    reader.read_exact(&mut [0; 1000]).unwrap();
    drop(reader);
    ended.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[test]
fn the_time_limit_ends_a_transfer_that_stalls() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let reference = Reference::parse(&format!("{}/a:1", listener.local_addr().unwrap())).unwrap();
    let options = RegistryOptions { timeout: Some(Duration::from_millis(200)), ..RegistryOptions::default() };
    let registry = Registry::connect_from(&reference, &options, &Environment::default()).unwrap();
    let error = registry.manifest("1").unwrap_err();
    assert!(error.message.contains("was not read within --timeout (0.2 s)"), "{error}");
}

#[test]
fn a_closed_port_is_said_soon_and_with_the_host() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let reference = Reference::parse(&format!("{address}/a:1")).unwrap();
    let registry =
        Registry::connect_from(&reference, &RegistryOptions::default(), &Environment::default()).unwrap();
    let error = registry.manifest("1").unwrap_err();
    assert_eq!(error.message, format!("`{address}` refuses connections after 3 attempts"));
}

fn manifest(headers: &str, body: &str, tag: &str) -> Result<RawManifest, Error> {
    let (headers, body) = (headers.to_owned(), body.to_owned());
    Server::start(move |_, _| reply(200, &headers, body.as_bytes())).connect().manifest(tag)
}

#[test]
fn a_manifest_has_the_type_that_the_registry_or_it_itself_names() {
    let own = r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}"#;
    for (sent, body, wanted) in [
        (
            "Content-Type: application/vnd.oci.image.index.v1+json; charset=x\r\n",
            "{}",
            OCI_IMAGE_INDEX_MEDIA_TYPE,
        ),
        ("Content-Type: application/json\r\n", own, IMAGE_MANIFEST_MEDIA_TYPE),
        ("", r#"{"manifests":[{"a":1}]}"#, OCI_IMAGE_INDEX_MEDIA_TYPE),
        ("", MANIFEST, OCI_IMAGE_MEDIA_TYPE),
    ] {
        let manifest = manifest(sent, body, "1").unwrap();
        assert_eq!((manifest.media_type.as_str(), manifest.bytes), (wanted, body.as_bytes().to_vec()));
        assert_eq!(manifest.digest, Digest::of(body.as_bytes()));
    }
}

#[test]
fn what_is_no_manifest_or_not_the_right_one_is_refused() {
    let digest = Digest::of(MANIFEST.as_bytes());
    let other = Digest::of(b"other");
    assert!(manifest("", MANIFEST, digest.as_str()).is_ok());
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(4 << 20));
    let signed = "Content-Type: application/vnd.docker.distribution.manifest.v1+prettyjws\r\n";
    for (headers, body, tag, said) in [
        ("", MANIFEST, other.as_str(), "is damaged: its digest should be"),
        (&format!("Docker-Content-Digest: {other}\r\n"), MANIFEST, "1", "is damaged"),
        (&format!("{signed}Docker-Content-Digest: {other}\r\n"), "{}", "1", "old schema 1"),
        ("", r#"{"schemaVersion":1}"#, "1", "old schema 1"),
        ("Content-Type: text/html\r\n", "hello", "1", "as a web page"),
        ("", "\n<!doctype html>", "1", "as a web page"),
        ("", "hello", "1", "is not a JSON object"),
        ("", &long, "1", "is longer than 4194304 bytes"),
    ] {
        let error = manifest(headers, body, tag).unwrap_err();
        assert!(error.message.contains(said), "{error}");
        assert_eq!(error.kind, ErrorKind::Look);
    }
}

#[test]
fn what_does_not_exist_is_said_by_name() {
    for (body, tag, said) in [
        ("", "1", "no such tag `1` in `127.0.0.1:"),
        (r#"{"errors":[{"code":"NAME_UNKNOWN","message":"x"}]}"#, "1", "no such repository `127.0.0.1:"),
        ("<html>", "sha256:1", "no such manifest sha256:1 in"),
    ] {
        let error =
            Server::start(move |_, _| reply(404, "", body.as_bytes())).connect().manifest(tag).unwrap_err();
        assert!(error.message.contains(said), "{error}");
    }
}

#[test]
fn four_layers_at_once_share_one_token() {
    let server = Server::start(|request, _| {
        if request.line.starts_with("GET /token") {
            return reply(200, "", br#"{"token":"t"}"#);
        }
        let ask = format!("WWW-Authenticate: Bearer realm=\"http://{}/token\"\r\n", request.header("host"));
        match request.header("authorization") {
            "Bearer t" => reply(200, "", &content()),
            _ => reply(401, &ask, b""),
        }
    });
    let registry = server.connect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(read_all(&registry.clone(), &descriptor(&content())) == content()));
        }
    });
    let tokens = server.seen(|request| request.line.starts_with("GET /token"));
    assert_eq!(tokens.iter().filter(|is_token| **is_token).count(), 1);
}

/// A registry that takes what is pushed, and says of manifests whose subject it noted.
fn taking(lists_referrers: bool) -> Server {
    Server::start(move |request, _| {
        let line = request.line.as_str();
        let subject = if lists_referrers { "OCI-Subject: sha256:aa\r\n" } else { "" };
        match line.split(' ').next().unwrap() {
            "HEAD" => reply(404, "", b""),
            "POST" => reply(202, "Location: /upload?state=x\r\n", b""),
            "PUT" if line.contains("/manifests/") => reply(201, subject, b""),
            "PUT" => reply(201, "", b""),
            _ if line.contains("/manifests/sha256-") => reply(404, "", b""),
            _ => reply(
                200,
                "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n",
                MANIFEST.as_bytes(),
            ),
        }
    })
}

fn attach_to(server: &Server) -> Result<push::Attached, Error> {
    let reference = Reference::parse(&format!("{}/r:1", server.address)).unwrap();
    let registry =
        Registry::connect_from(&reference, &RegistryOptions::default(), &Environment::default()).unwrap();
    let artifact = push::Artifact {
        artifact_type: "application/x-test",
        blobs: &[push::Blob { media_type: "application/x-test", bytes: b"{}\n", annotations: Vec::new() }],
        annotations: Vec::new(),
    };
    registry.attach(Digest::of(MANIFEST.as_bytes()).as_str(), &artifact)
}

#[test]
fn a_registry_that_lists_referrers_gets_no_tag_for_them() {
    let server = taking(true);
    assert_eq!(attach_to(&server).unwrap().fallback_tag, None);
    let requests = server.requests.lock().unwrap();
    let manifest =
        requests.iter().find(|r| r.line.starts_with("PUT") && r.line.contains("/manifests/")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&manifest.body).unwrap();
    assert_eq!(document["subject"]["digest"], Digest::of(MANIFEST.as_bytes()).to_string());
    assert_eq!(document["artifactType"], "application/x-test");
    assert!(requests.iter().any(|r| r.line.starts_with("PUT /upload?state=x&digest=sha256")));
    assert!(!requests.iter().any(|r| r.line.contains("/manifests/sha256-")));
}

#[test]
fn elsewhere_the_tag_lists_them() {
    let server = taking(false);
    let tag = attach_to(&server).unwrap().fallback_tag.unwrap();
    assert_eq!(tag, Digest::of(MANIFEST.as_bytes()).to_string().replace(':', "-"));
    let requests = server.requests.lock().unwrap();
    let index = requests.iter().rfind(|r| r.line.starts_with("PUT")).unwrap();
    assert!(index.line.contains(&tag) && index.body.contains("application/vnd.oci.image.index.v1+json"));
}

#[test]
fn a_login_that_may_not_push_is_told_so() {
    let server = Server::start(|request, _| match request.line.starts_with("GET") {
        true => {
            reply(200, "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n", MANIFEST.as_bytes())
        }
        false => reply(403, "", b"{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\"}]}"),
    });
    let error = attach_to(&server).err().unwrap();
    assert!(error.message.contains("may not be written to without credentials: no"), "{error}");
    assert_eq!(error.kind, ErrorKind::Look);
}
