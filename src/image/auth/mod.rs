//! Options, files and credential helpers -> the one login for a repository, and where it came from.
//!
//! The order is that of containers-auth.json(5) with docker's files after it: what was typed, the file that
//! was named, the containers files, docker's files. The first that knows the registry wins. Nothing is
//! written, and nothing of a secret is ever printed: `Debug` and messages name the source only.

mod file;
mod helper;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::Error;
use super::reference::{DOCKER_HUB, Reference};

/// The key under which docker keeps the login of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What is shown to the registry or to its token service.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Anonymous,
    Basic {
        username: String,
        password: String,
    },
    /// A refresh token: the token service trades it for an access token.
    IdentityToken(String),
    /// An access token that goes to the registry as it is.
    Bearer(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::Anonymous => "Anonymous",
            Credentials::Basic { .. } => "Basic(…)",
            Credentials::IdentityToken(_) => "IdentityToken(…)",
            Credentials::Bearer(_) => "Bearer(…)",
        })
    }
}

/// Credentials and their source, for the message that says whose password was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub credentials: Credentials,
    /// ``user `ci` from /root/.docker/config.json, key `ghcr.io` ``
    pub source: String,
}

impl Login {
    fn anonymous() -> Login {
        Login { credentials: Credentials::Anonymous, source: "no credentials".to_owned() }
    }
}

/// What was typed about credentials.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Typed<'a> {
    pub(crate) username: Option<&'a str>,
    pub(crate) password: Option<&'a str>,
    pub(crate) token: Option<&'a str>,
    pub(crate) authfile: Option<&'a std::path::Path>,
}

/// The part of the process environment that says where logins are kept.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub home: Option<PathBuf>,
    pub registry_auth_file: Option<PathBuf>,
    pub xdg_runtime_dir: Option<PathBuf>,
    pub xdg_config_home: Option<PathBuf>,
    pub docker_config: Option<PathBuf>,
    /// Where `docker-credential-…` programs are looked for.
    pub path: Option<OsString>,
}

impl Environment {
    /// Where docker keeps its configuration.
    pub fn docker_dir(&self) -> Option<PathBuf> {
        self.docker_config.clone().or_else(|| Some(self.home.as_ref()?.join(".docker")))
    }

    /// Reads the environment of this process. An empty variable counts as unset.
    pub fn of_process() -> Environment {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        Environment {
            home: path("HOME"),
            registry_auth_file: path("REGISTRY_AUTH_FILE"),
            xdg_runtime_dir: path("XDG_RUNTIME_DIR"),
            xdg_config_home: path("XDG_CONFIG_HOME"),
            docker_config: path("DOCKER_CONFIG"),
            path: variable("PATH"),
        }
    }
}

/// Finds the login for `reference`; [`Credentials::Anonymous`] where nothing knows the registry.
pub(crate) async fn find(
    reference: &Reference,
    typed: &Typed<'_>,
    environment: &Environment,
) -> Result<Login, Error> {
    if let Some(login) = typed_login(typed)? {
        return Ok(login);
    }
    for place in places(typed, environment) {
        let Some(logins) = file::read(&place)? else { continue };
        if let Some(login) = file::login(&logins, &place.path, reference, environment).await? {
            return Ok(login);
        }
    }
    Ok(Login::anonymous())
}

fn typed_login(typed: &Typed<'_>) -> Result<Option<Login>, Error> {
    // An empty option is what a CI secret that is not set leaves behind: better said here than as a refusal.
    for (value, option) in [
        (typed.username, "--username"),
        (typed.password, "--password-stdin"),
        (typed.token, "--registry-token"),
    ] {
        if value.is_some_and(str::is_empty) {
            return Err(Error::usage(format!("{option} is empty"))
                .hint("leave it out, or check the variable behind it"));
        }
    }
    match (typed.username, typed.password, typed.token) {
        (None, None, None) => Ok(None),
        (None, None, Some(token)) => Ok(Some(Login {
            credentials: Credentials::Bearer(token.to_owned()),
            source: "the token from --registry-token".to_owned(),
        })),
        (Some(username), Some(password), None) => Ok(Some(Login {
            credentials: Credentials::Basic { username: username.to_owned(), password: password.to_owned() },
            source: "--username and --password-stdin".to_owned(),
        })),
        (Some(_), None, None) => {
            Err(Error::usage("--username is without a password")
                .hint("give the password with --password-stdin"))
        }
        (None, Some(_), None) => {
            Err(Error::usage("a password was given without --username").hint("give --username as well"))
        }
        (_, _, Some(_)) => {
            Err(Error::usage("--registry-token and --username exclude each other").hint("give one of them"))
        }
    }
}

/// A file that may hold logins.
struct Place {
    path: PathBuf,
    /// How it was named, if somebody named it: then it must exist.
    named_by: Option<&'static str>,
    /// `~/.dockercfg` has the logins at the top, not under `auths`.
    legacy: bool,
}

/// Files in the order they are asked.
fn places(typed: &Typed<'_>, environment: &Environment) -> Vec<Place> {
    let mut places = Vec::new();
    let named = match (typed.authfile, &environment.registry_auth_file) {
        (Some(path), _) => Some((path.to_owned(), "--authfile")),
        (None, Some(path)) => Some((path.clone(), "REGISTRY_AUTH_FILE")),
        (None, None) => None,
    };
    if let Some((path, by)) = named {
        // `--authfile ~/.dockercfg` should work as well: only its name tells.
        let legacy = path.file_name().is_some_and(|name| name == ".dockercfg");
        places.push(Place { path, named_by: Some(by), legacy });
    }
    let below_home = |name: &str| environment.home.as_ref().map(|home| home.join(name));
    let config_home = environment.xdg_config_home.clone().or_else(|| below_home(".config"));
    let docker = environment.docker_dir();
    let implicit = [
        (environment.xdg_runtime_dir.as_ref().map(|dir| dir.join("containers/auth.json")), false),
        (config_home.map(|dir| dir.join("containers/auth.json")), false),
        (docker.map(|dir| dir.join("config.json")), false),
        (below_home(".dockercfg"), true),
    ];
    for (path, legacy) in implicit {
        places.extend(path.map(|path| Place { path, named_by: None, legacy }));
    }
    places
}

/// Keys under which a login for `reference` may stand, most specific first: `host/ns/repo`, `host/ns`,
/// `host`.
fn candidate_keys(reference: &Reference) -> Vec<String> {
    let whole = reference.repository_name();
    let ends = whole.match_indices('/').map(|(at, _)| at);
    let mut keys: Vec<String> = ends.map(|at| whole[..at].to_owned()).collect();
    keys.push(whole);
    keys.reverse();
    keys
}

/// A key as written in a file -> the form of [`candidate_keys`]: without scheme and API path, Docker Hub
/// under its one name. Keys with a scheme are docker's older form and mean the whole host.
fn normal_key(key: &str) -> String {
    let (rest, host_only) = match key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")) {
        Some(rest) => (rest, true),
        None => (key, false),
    };
    let rest = rest.trim_end_matches('/');
    let rest = rest.strip_suffix("/v1").or_else(|| rest.strip_suffix("/v2")).unwrap_or(rest);
    let (host, path) = match rest.split_once('/') {
        Some((host, path)) if !host_only => (host, Some(path)),
        Some((host, _)) => (host, None),
        None => (rest, None),
    };
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        host => host,
    };
    match path {
        Some(path) => format!("{host}/{path}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests;
