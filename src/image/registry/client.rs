//! TLS and proxy options -> HTTP clients. Nothing is sent here.
//!
//! Roots are those of the system and of `--ca-file`; proxies come from the usual variables (reqwest reads
//! them).

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Identity, Url};
use url::Host;

use super::RegistryOptions;
use crate::image::Error;
use crate::limits;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Without a byte for so long a transfer counts as cut.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The same where images of other registries wait for the thread.
const CONNECT_TIMEOUT_OF_MANY: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT_OF_MANY: Duration = Duration::from_secs(20);
const REDIRECTS_MAX: usize = 10;
const USER_AGENT: &str = concat!("cudalint/", env!("CARGO_PKG_VERSION"));

/// Two clients with the same TLS settings that differ in which redirects they follow.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    /// Follows redirects to storage; reqwest takes `Authorization` off where host, port or scheme change.
    pub(super) registry: Client,
    /// Stays on its host: a redirect would carry the refresh token in the body elsewhere.
    pub(super) token: Client,
}

/// Builds the clients. `is_loopback` registries are never asked through a proxy, as Go's clients do it.
pub(super) fn build(options: &RegistryOptions, is_loopback: bool) -> Result<Clients, Error> {
    let tls = Tls::read(options)?;
    let follow = if options.confined { confined } else { || Policy::limited(REDIRECTS_MAX) };
    Ok(Clients {
        registry: tls.client(options, is_loopback, follow)?,
        token: tls.client(options, is_loopback, stay)?,
    })
}

/// Follows redirects to storage, but not into the network that this program runs in.
fn confined() -> Policy {
    Policy::custom(|attempt| {
        let leads = attempt.previous().first().is_some_and(|from| may_lead(from, attempt.url()));
        if attempt.previous().len() > REDIRECTS_MAX {
            attempt.error("too many redirects")
        } else if leads {
            attempt.follow()
        } else {
            attempt.error("the redirect leads into a network that registries have no business in")
        }
    })
}

/// Whether what a registry says of another place is followed. One outside of this network leads nowhere inside; one that is itself
/// inside may name its neighbours, but not this machine, unless it is on it, and not those on the link.
pub(super) fn may_lead(from: &Url, to: &Url) -> bool {
    let on_this_machine = |url: &Url| url.host_str().is_some_and(crate::image::reference::is_loopback_host);
    let is_link_local = match to.host() {
        Some(Host::Ipv4(address)) => address.is_link_local() || address.is_unspecified(),
        Some(Host::Ipv6(address)) => {
            address.segments()[0] & 0xffc0 == 0xfe80
                || address.is_unspecified()
                || address.to_ipv4_mapped().is_some_and(|v4| v4.is_link_local() || v4.is_loopback())
        }
        Some(Host::Domain(name)) => name.starts_with("metadata"),
        None => true,
    };
    from.host_str() == to.host_str()
        || may_go(to)
        || !may_go(from) && !is_link_local && (on_this_machine(from) || !on_this_machine(to))
}

/// Names that only mean something inside a machine, a cluster or a cloud.
const INNER_NAMES: [&str; 6] = ["localhost", "local", "internal", "svc", "localdomain", "arpa"];

/// Whether a registry that strangers chose may send requests there: not to this machine, its neighbours on the link (where
/// clouds answer for credentials), or names that mean something only inside.
pub(super) fn may_go(url: &Url) -> bool {
    match url.host() {
        None => false,
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let last = name.rsplit('.').next().unwrap_or_default();
            name.contains('.') && !INNER_NAMES.contains(&last)
        }
        Some(Host::Ipv4(address)) => is_outer(address),
        Some(Host::Ipv6(address)) => address.to_ipv4_mapped().map_or_else(|| is_outer_v6(address), is_outer),
    }
}

fn is_outer_v6(address: std::net::Ipv6Addr) -> bool {
    let first = address.segments()[0];
    let link_local = first & 0xffc0 == 0xfe80;
    // AWS answers for credentials at fd00:ec2::254.
    let unique_local = first & 0xfe00 == 0xfc00;
    let here = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    !(here || link_local || unique_local)
}

fn is_outer(address: std::net::Ipv4Addr) -> bool {
    !(address.is_loopback()
        || address.is_link_local()
        || address.is_unspecified()
        || address.is_broadcast()
        || address.is_multicast())
}

/// Follows redirects within one scheme, host and port; hands any other over as the answer.
fn stay() -> Policy {
    Policy::custom(|attempt| {
        let leaves = attempt.previous().last().is_none_or(|from| from.origin() != attempt.url().origin());
        if leaves || attempt.previous().len() > REDIRECTS_MAX { attempt.stop() } else { attempt.follow() }
    })
}

/// What the TLS options name, read.
struct Tls {
    roots: Vec<Certificate>,
    identity: Option<Identity>,
}

impl Tls {
    fn read(options: &RegistryOptions) -> Result<Tls, Error> {
        let roots = match &options.ca_file {
            Some(path) => {
                let pem = read_file(path, "--ca-file")?;
                let found = Certificate::from_pem_bundle(&pem).unwrap_or_default();
                if found.is_empty() {
                    return Err(Error::usage(format!(
                        "{} (from --ca-file) holds no PEM certificate",
                        path.display()
                    ))
                    .hint("give the certificate of the authority that signed the registry's, in PEM form"));
                }
                found
            }
            None => Vec::new(),
        };
        let identity = match (&options.tls_cert, &options.tls_key) {
            (Some(cert), Some(key)) => {
                let mut pem = read_file(cert, "--tls-cert")?;
                pem.push(b'\n');
                pem.extend(read_file(key, "--tls-key")?);
                let unusable = |_| {
                    Error::usage(format!(
                        "{} and {} are no PEM certificate and its private key",
                        cert.display(),
                        key.display()
                    ))
                    .hint("--tls-cert and --tls-key take unencrypted PEM files")
                };
                Some(Identity::from_pem(&pem).map_err(unusable)?)
            }
            (None, None) => None,
            (Some(_), None) => return Err(Error::usage("--tls-cert is without --tls-key").hint("give both")),
            (None, Some(_)) => return Err(Error::usage("--tls-key is without --tls-cert").hint("give both")),
        };
        Ok(Tls { roots, identity })
    }

    fn client(
        &self,
        options: &RegistryOptions,
        is_loopback: bool,
        policy: fn() -> Policy,
    ) -> Result<Client, Error> {
        let builder = || {
            // Storage must not compress on the way: offsets and digests are those of the bytes as stored.
            let plain = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
            let mut builder = ClientBuilder::new()
                .user_agent(USER_AGENT)
                .default_headers(plain)
                .connect_timeout(if options.confined { CONNECT_TIMEOUT_OF_MANY } else { CONNECT_TIMEOUT })
                .read_timeout(if options.confined { IDLE_TIMEOUT_OF_MANY } else { IDLE_TIMEOUT })
                .referer(false)
                .tls_danger_accept_invalid_certs(options.insecure);
            if let Some(identity) = &self.identity {
                builder = builder.identity(identity.clone());
            }
            if is_loopback { builder.no_proxy() } else { builder }
        };
        let failed = |error: reqwest::Error| {
            let why = super::refusal::innermost(&error);
            let files: Vec<_> = [&options.ca_file, &options.tls_cert, &options.tls_key]
                .into_iter()
                .flatten()
                .map(|path| path.display().to_string())
                .collect();
            if files.is_empty() {
                return Error::look(format!("TLS cannot be set up: {why}"));
            }
            Error::usage(format!("{} cannot be used for TLS: {why}", files.join(", ")))
                .hint("check that certificate and key are whole and belong together")
        };
        let built = builder().redirect(policy()).tls_certs_merge(self.roots.iter().cloned()).build();
        match built {
            // An image from scratch has no authorities: plain HTTP and --insecure must work there all the
            // same, and HTTPS fails for the registry's certificate, which is what the hint is about.
            Err(error)
                if self.roots.is_empty() && super::refusal::chain(&error).contains("No CA certificates") =>
            {
                builder().redirect(policy()).tls_certs_only([]).build().map_err(failed)
            }
            built => built.map_err(failed),
        }
    }
}

fn read_file(path: &Path, option: &str) -> Result<Vec<u8>, Error> {
    let fail = |why: String| {
        Error::usage(format!("{} (from {option}) {why}", path.display()))
            .hint("check the path and its permissions")
    };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path);
    opened
        .and_then(|file| file.take(limits::TEXT_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| fail(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > limits::TEXT_BYTES_MAX {
        return Err(fail(format!("is longer than {} bytes", limits::TEXT_BYTES_MAX)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ErrorKind;

    #[test]
    fn registries_of_strangers_lead_nowhere_inside() {
        let goes = |text: &str| may_go(&Url::parse(text).unwrap());
        for good in [
            "https://s3.amazonaws.com/x",
            "https://10.1.2.3/x",
            "https://cdn.example.org./x",
            "https://[2001:db8::1]/",
        ] {
            assert!(goes(good), "{good}");
        }
        for bad in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://169.254.169.254/latest/meta-data",
            "http://0.0.0.0/",
            "http://[::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://localhost/",
            "http://metadata/",
            "http://metadata.google.internal/",
            "http://api.default.svc/",
            "http://api.default.svc.cluster.local./",
        ] {
            assert!(!goes(bad), "{bad}");
        }
    }

    #[test]
    fn a_registry_inside_may_name_its_neighbours() {
        let leads = |from: &str, to: &str| may_lead(&Url::parse(from).unwrap(), &Url::parse(to).unwrap());
        assert!(
            leads("https://r.ns.svc/v2/", "https://auth.ns.svc/token")
                && leads("http://127.0.0.1:1/", "http://127.0.0.1:2/")
        );
        assert!(
            leads("https://r.example.org/", "https://s3.example.com/")
                && leads("https://r.example.org/", "https://r.example.org/x")
        );
        for (from, to) in [
            ("https://r.example.org/", "https://auth.ns.svc/token"),
            ("https://r.ns.svc/", "http://127.0.0.1/"),
            ("https://r.ns.svc/", "http://169.254.169.254/"),
            ("http://127.0.0.1:1/", "http://169.254.169.254/"),
            ("https://r.ns.svc/", "http://[::ffff:169.254.169.254]/"),
            ("https://r.ns.svc/", "http://metadata.google.internal/"),
        ] {
            assert!(!leads(from, to), "{from} -> {to}");
        }
    }

    #[test]
    fn unusable_tls_files_are_usage_errors_that_name_them() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text.pem");
        std::fs::write(&text, "no certificate").unwrap();
        let absent = dir.path().join("absent.pem");
        let options = RegistryOptions::default;
        for (options, said) in [
            (
                RegistryOptions { ca_file: Some(absent), ..options() },
                "absent.pem (from --ca-file) cannot be read",
            ),
            (RegistryOptions { ca_file: Some(text.clone()), ..options() }, "holds no PEM certificate"),
            (
                RegistryOptions { tls_cert: Some(text.clone()), ..options() },
                "--tls-cert is without --tls-key",
            ),
            (RegistryOptions { tls_key: Some(text.clone()), ..options() }, "--tls-key is without --tls-cert"),
            (
                RegistryOptions { tls_cert: Some(text.clone()), tls_key: Some(text.clone()), ..options() },
                "are no PEM certificate and its private key",
            ),
        ] {
            let error = build(&options, false).unwrap_err();
            assert!(error.message.contains(said), "{error}");
            assert_eq!(error.kind, ErrorKind::Usage);
        }
    }
}
