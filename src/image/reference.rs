//! What people type for an image in a registry -> registry host, repository, tag and digest, by docker's
//! rules.
//!
//! The grammar of names is that of `oci-client`, which a test compares; written out it says what is wrong in words, and needs no
//! regular expression, the making of which would be most of what a short run costs.
//! Transports (`oci:`, `docker-archive:` …) are taken off before; nothing here opens a connection.

use std::fmt;

use super::Error;
use crate::names::Digest;

/// The registry of names without a host.
pub const DOCKER_HUB: &str = "docker.io";
/// Where Docker Hub answers the registry protocol.
const DOCKER_HUB_API: &str = "registry-1.docker.io";
/// The longest repository name, as docker limits it.
const NAME_BYTES_MAX: usize = 255;
const SYNTAX_HINT: &str = "write NAME[:TAG][@sha256:DIGEST] or HOST[:PORT]/NAME[:TAG][@sha256:DIGEST]";

/// An image in a registry: `nvcr.io/nvidia/cuda:12.4.1-base-ubuntu22.04`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Host and optional port as typed; `docker.io` where none was.
    pub registry: String,
    /// `library/ubuntu`: never empty, never with a tag.
    pub repository: String,
    /// As typed, or `latest` where neither tag nor digest was. Beside a digest it is for display only.
    pub tag: Option<String>,
    /// Wins over the tag.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Parses what was typed; every refusal is a usage error that names the part at fault.
    pub fn parse(text: &str) -> Result<Reference, Error> {
        let refuse = |why: String| Error::usage(format!("`{}`: {why}", printable(text))).hint(SYNTAX_HINT);
        if text.is_empty() {
            return Err(Error::usage("the image reference is empty").hint(SYNTAX_HINT));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(refuse(format!("a reference is no URL; leave `{}://` out", printable(scheme))));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let parsed = Digest::parse(digest).ok_or_else(|| {
                    refuse(
                        "what follows `@` is no digest, such as sha256: and 64 hexadecimal digits".to_owned(),
                    )
                })?;
                (name, Some(parsed))
            }
            None => (text, None),
        };
        let (registry, rest) = split_host(name);
        if let Some(problem) = registry.and_then(host_problem) {
            return Err(refuse(problem));
        }
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if let Some(problem) = path_problem(path).or_else(|| tag.and_then(tag_problem)) {
            return Err(refuse(problem));
        }
        let registry = match registry {
            // docker calls them one registry: credentials and names must agree whichever was typed.
            None | Some("index.docker.io") => DOCKER_HUB,
            Some(host) => host,
        };
        let repository = if registry == DOCKER_HUB && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        let tag = tag.or(if digest.is_none() { Some("latest") } else { None });
        if repository.len() > NAME_BYTES_MAX {
            return Err(refuse(format!("a repository name has at most {NAME_BYTES_MAX} characters")));
        }
        Ok(Reference { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }

    /// The host (and port) that answers the protocol, which for Docker Hub is not the one in the name.
    pub fn api_host(&self) -> &str {
        match self.registry.as_str() {
            DOCKER_HUB | "index.docker.io" => DOCKER_HUB_API,
            host => host,
        }
    }

    /// Whether the registry runs on this machine, where plain HTTP crosses no network.
    pub fn is_loopback(&self) -> bool {
        is_loopback_host(&self.registry)
    }

    /// `registry/repository`, in full and without tag.
    pub fn repository_name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What to ask the registry for: the digest where there is one, else the tag.
    pub fn tag_or_digest(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// The name as people type it: Docker Hub and its `library/` are left out.
    fn familiar_name(&self) -> String {
        if self.registry != DOCKER_HUB {
            return self.repository_name();
        }
        let official = self.repository.strip_prefix("library/").filter(|name| !name.contains('/'));
        let short = official.unwrap_or(&self.repository);
        // `docker.io/my.org/app` without its host would read as an image on the host `my.org`.
        if split_host(short).0.is_some() { self.repository_name() } else { short.to_owned() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar_name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Whether `host` (with or without port) is this machine: `localhost`, 127.0.0.0/8, `[::1]`.
pub(super) fn is_loopback_host(host: &str) -> bool {
    let bare = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The first part is a host if, and only if, it could not be the first part of a repository.
fn split_host(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
        _ => (None, name),
    }
}

fn host_problem(host: &str) -> Option<String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((address, after)) = rest.split_once(']') else {
                return Some(format!("`{}` has no closing bracket", printable(host)));
            };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Some(format!("`{}` is no IPv6 address", printable(address)));
            }
            match after.strip_prefix(':') {
                None if after.is_empty() => return None,
                None => return Some(format!("`{}` is no host", printable(host))),
                port => (None, port),
            }
        }
        None => match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), None),
        },
    };
    if let Some(port) = port.filter(|port| !matches!(port.parse::<u16>(), Ok(1..)) || port.starts_with('+')) {
        return Some(format!("`{}` is no port of `{}`", printable(port), printable(host)));
    }
    let valid = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let bad = name.is_some_and(|name| !name.split('.').all(valid));
    bad.then(|| format!("`{}` is no host name", printable(host)))
}

fn path_problem(path: &str) -> Option<String> {
    if path.is_empty() {
        return Some("the repository name is missing".to_owned());
    }
    if path.split('/').any(str::is_empty) {
        return Some(format!("`{}` has an empty part", printable(path)));
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        let lower = path.to_ascii_lowercase();
        return Some(format!(
            "a repository name has no upper case: `{}`, not `{}`",
            printable(&lower),
            printable(path)
        ));
    }
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/".contains(&b);
    if !path.bytes().all(allowed) {
        return Some(format!(
            "a repository name has only a-z, 0-9, `.`, `_`, `-` and `/`, unlike `{}`",
            printable(path)
        ));
    }
    let alphanumeric = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let odd =
        path.split('/').find(|p| !alphanumeric(p.as_bytes().first()) || !alphanumeric(p.as_bytes().last()));
    if let Some(part) = odd {
        return Some(format!("`{part}` must begin and end with a letter or digit"));
    }
    let between = |part: &str| {
        let runs = part.split(|c: char| c.is_ascii_alphanumeric()).filter(|run| !run.is_empty());
        runs.map(str::to_owned)
            .find(|run| !matches!(run.as_str(), "." | "_" | "__") && !run.bytes().all(|b| b == b'-'))
    };
    if let Some(run) = path.split('/').find_map(between) {
        return Some(format!("between letters and digits stand `.`, `_`, `__` or dashes, not `{run}`"));
    }
    let is_id = path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| "an image id names nothing in a registry; give the repository".to_owned())
}

fn tag_problem(tag: &str) -> Option<String> {
    if tag.is_empty() {
        return Some("the tag after `:` is missing".to_owned());
    }
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = tag.bytes().next().is_some_and(word);
    if first && tag.len() <= 128 && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-') {
        return None;
    }
    Some(format!(
        "`{}` is no tag: up to 128 letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`",
        printable(tag)
    ))
}

/// What was typed goes back to a terminal: without control characters, and not a page of it.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_expand_as_docker_expands_them() {
        for (typed, registry, repository, tag) in [
            ("ubuntu", "docker.io", "library/ubuntu", "latest"),
            ("ubuntu:22.04", "docker.io", "library/ubuntu", "22.04"),
            ("nvidia/cuda:12.4.1-base", "docker.io", "nvidia/cuda", "12.4.1-base"),
            ("docker.io/ubuntu", "docker.io", "library/ubuntu", "latest"),
            ("index.docker.io/a/b", "docker.io", "a/b", "latest"),
            ("nvcr.io/nvidia/cuda", "nvcr.io", "nvidia/cuda", "latest"),
            ("localhost/a", "localhost", "a", "latest"),
            ("localhost:5000", "docker.io", "library/localhost", "5000"),
            ("localhost:5000/a:1", "localhost:5000", "a", "1"),
            ("registry/a", "docker.io", "registry/a", "latest"),
            ("[::1]:5000/a/b:1", "[::1]:5000", "a/b", "1"),
            ("h.io/a__b/c--d/e.f_g", "h.io", "a__b/c--d/e.f_g", "latest"),
        ] {
            let reference = Reference::parse(typed).unwrap();
            assert_eq!(
                (reference.registry.as_str(), reference.repository.as_str(), reference.tag.as_deref()),
                (registry, repository, Some(tag)),
                "{typed}"
            );
        }
    }

    #[test]
    fn a_digest_wins_and_leaves_no_default_tag() {
        let bare = Reference::parse(&format!("a/b@sha256:{HEX}")).unwrap();
        assert_eq!(bare.tag, None);
        let both = Reference::parse(&format!("h:1/a:2@sha256:{HEX}")).unwrap();
        assert_eq!(
            (both.tag.as_deref(), both.tag_or_digest()),
            (Some("2"), format!("sha256:{HEX}").as_str())
        );
        assert_eq!(both.to_string(), format!("h:1/a:2@sha256:{HEX}"));
    }

    #[test]
    fn the_short_form_reads_back_as_the_same_image() {
        for (typed, shown) in [
            ("docker.io/library/ubuntu:22.04", "ubuntu:22.04"),
            ("docker.io/repo/train:1.2", "repo/train:1.2"),
            ("nvcr.io/nvidia/cuda:1", "nvcr.io/nvidia/cuda:1"),
            ("docker.io/library/a/b", "library/a/b:latest"),
            ("docker.io/my.org/app", "docker.io/my.org/app:latest"),
        ] {
            let reference = Reference::parse(typed).unwrap();
            assert_eq!(reference.to_string(), shown);
            assert_eq!(Reference::parse(shown).unwrap(), reference);
        }
    }

    #[test]
    fn what_is_no_reference_is_a_usage_error_that_says_why() {
        for (typed, word) in [
            ("", "empty"),
            ("Ubuntu", "upper case"),
            ("h.io/Foo/bar", "upper case"),
            ("a//b", "empty part"),
            ("a/", "empty part"),
            ("h.io/", "missing"),
            ("a:", "tag after"),
            ("a:.x", "no tag"),
            ("a:b:c", "no tag"),
            ("a@sha256:12", "no digest"),
            ("h.io:port/a", "no port"),
            ("h.io:0/a", "no port"),
            ("h.io:+80/a", "no port"),
            ("-h.io/a", "no host name"),
            ("https://h.io/a", "no URL"),
            ("[::1/a", "no closing bracket"),
            ("a b", "only a-z"),
            ("a..b", "not `..`"),
            ("a._b", "not `._`"),
            ("_a", "must begin"),
            (HEX, "image id"),
        ] {
            let error = Reference::parse(typed).unwrap_err();
            assert!(error.message.contains(word), "{typed}: {}", error.message);
            assert_eq!(error.kind, crate::image::ErrorKind::Usage);
            assert!(error.hint.is_some());
        }
        assert!(Reference::parse(&"a/".repeat(200)).is_err());
        assert!(Reference::parse(&"a".repeat(300)).unwrap_err().message.contains("255"));
    }

    #[test]
    fn the_grammar_of_names_is_that_of_the_client() {
        let parts = ["a", "0", ".", "_", "-", "/", "b9"];
        let mut names = vec![String::new()];
        for length in 0..5 {
            let from = names.len() - parts.len().pow(length);
            let shorter: Vec<String> = names.iter().skip(from).cloned().collect();
            for name in shorter {
                names.extend(parts.iter().map(|part| format!("{name}{part}")));
            }
        }
        assert!(names.len() > 15_000);
        for name in names {
            let ours = path_problem(&name).is_none();
            let theirs = oci_client::Reference::try_from(format!("registry.test/{name}")).is_ok();
            assert_eq!(ours, theirs, "{name}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (typed, wanted) in [
            ("localhost:5000/a", true),
            ("127.0.0.1/a", true),
            ("127.3.2.1:80/a", true),
            ("[::1]:5000/a", true),
            ("128.0.0.1/a", false),
            ("127.0.0.1.example.com/a", false),
            ("localhost.example.com/a", false),
            ("ubuntu", false),
        ] {
            assert_eq!(Reference::parse(typed).unwrap().is_loopback(), wanted, "{typed}");
        }
        assert_eq!(Reference::parse("ubuntu").unwrap().api_host(), "registry-1.docker.io");
        assert_eq!(Reference::parse("[::1]:5/a").unwrap().api_host(), "[::1]:5");
    }
}
