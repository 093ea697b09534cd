//! One `auth.json`, `config.json` or `.dockercfg` -> the login it holds for a repository, if any.
//!
//! Of what docker writes only the logins are read; unknown fields are left alone.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::{Credentials, DOCKER_HUB_KEY, Environment, Login, Place, candidate_keys, helper, normal_key};
use crate::image::reference::{DOCKER_HUB, Reference};
use crate::image::{Error, ErrorKind};
use crate::limits;

/// Some writers leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What such a file says about logins.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Logins {
    auths: Option<BTreeMap<String, Entry>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

/// One login. Docker Desktop leaves an empty one behind where the login itself is in `credsStore`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// Reads one file. `None` where nobody asked for it and it is not there.
pub(super) fn read(place: &Place) -> Result<Option<Logins>, Error> {
    let shown = place.path.display();
    let fail = |why: String| match place.named_by {
        Some(option) => Error::usage(format!("{shown} (from {option}) {why}"))
            .hint("name a file that `docker login` or `podman login` wrote"),
        None => {
            Error::look(format!("{shown} {why}")).hint("mend or remove it, or name another with --authfile")
        }
    };
    let mut text = Vec::new();
    let opened = std::fs::File::open(&place.path);
    match opened.and_then(|file| file.take(limits::TEXT_BYTES_MAX + 1).read_to_end(&mut text)) {
        Ok(_) => {}
        Err(error) if place.named_by.is_none() && is_absent(&error) => return Ok(None),
        Err(error) => return Err(fail(format!("cannot be read: {error}"))),
    }
    if text.len() as u64 > limits::TEXT_BYTES_MAX {
        return Err(fail(format!("is longer than {} bytes", limits::TEXT_BYTES_MAX)));
    }
    if text.trim_ascii().is_empty() {
        // Docker treats an empty file as one without logins.
        return Ok(Some(Logins::default()));
    }
    // serde_json would quote the value it stumbled over, which may be a password: only the place is said.
    let broken = |error: serde_json::Error| {
        fail(format!("is not a valid credentials file: line {}, column {}", error.line(), error.column()))
    };
    if place.legacy {
        let auths = serde_json::from_slice(&text).map_err(broken)?;
        return Ok(Some(Logins { auths: Some(auths), ..Logins::default() }));
    }
    serde_json::from_slice(&text).map(Some).map_err(broken)
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// The login for `reference` in a file that was read from `path`.
pub(super) async fn login(
    logins: &Logins,
    path: &Path,
    reference: &Reference,
    environment: &Environment,
) -> Result<Option<Login>, Error> {
    let keys = candidate_keys(reference);
    let host_key = if reference.registry == DOCKER_HUB { DOCKER_HUB_KEY } else { &reference.registry };
    if let Some((key, name)) = best(logins.cred_helpers.as_ref(), &keys) {
        // The helper knows a host under the name docker uses, a namespace under the name it has in the file.
        let server = if normal_key(key) == reference.registry { host_key } else { key };
        if let Some(credentials) = helper::get(name, server, path, environment).await? {
            return Ok(Some(described(
                credentials,
                &format!("docker-credential-{name}, named in {}", path.display()),
            )));
        }
    }
    if let Some((key, entry)) = best(logins.auths.as_ref(), &keys) {
        let place = format!("{}, key `{key}`", path.display());
        if let Some(credentials) = entry.credentials(&place)? {
            return Ok(Some(described(credentials, &place)));
        }
    }
    let Some(name) = logins.creds_store.as_deref().filter(|name| !name.is_empty()) else { return Ok(None) };
    let found = helper::get(name, host_key, path, environment).await?;
    Ok(found.map(|found| described(found, &format!("docker-credential-{name}, named in {}", path.display()))))
}

fn described(credentials: Credentials, place: &str) -> Login {
    let source: String = match &credentials {
        Credentials::Basic { username, .. } => format!("user `{username}` from {place}"),
        Credentials::IdentityToken(_) => format!("the identity token from {place}"),
        Credentials::Bearer(_) => format!("the registry token from {place}"),
        Credentials::Anonymous => format!("no credentials in {place}"),
    };
    // User names and keys are text from a file: none of it may steer a terminal.
    let source = source.chars().filter(|c| !c.is_control()).collect();
    Login { credentials, source }
}

/// The entry of the most specific key. Of several spellings of one key, the one written exactly so wins.
fn best<'a, T>(entries: Option<&'a BTreeMap<String, T>>, keys: &[String]) -> Option<(&'a str, &'a T)> {
    let entries = entries?;
    keys.iter().find_map(|wanted| {
        entries
            .get_key_value(wanted)
            .or_else(|| entries.iter().find(|(key, _)| normal_key(key) == *wanted))
            .map(|(key, entry)| (key.as_str(), entry))
    })
}

impl Entry {
    fn credentials(&self, place: &str) -> Result<Option<Credentials>, Error> {
        let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credentials::IdentityToken(token)));
        }
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Credentials::Bearer(token)));
        }
        if let Some(auth) = given(&self.auth) {
            return decode(&auth).map(Some).ok_or_else(|| Error {
                kind: ErrorKind::Look,
                message: format!("{place}: `auth` is not base64 of `user:password`"),
                hint: Some("log in again, or remove that key".to_owned()),
            });
        }
        match (given(&self.username), given(&self.password)) {
            (Some(username), Some(password)) => Ok(Some(Credentials::Basic { username, password })),
            _ => Ok(None),
        }
    }
}

fn decode(auth: &str) -> Option<Credentials> {
    let text = String::from_utf8(BASE64.decode(auth.trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    // Old docker padded the password with NUL bytes.
    let password = password.trim_end_matches('\0');
    (!username.is_empty())
        .then(|| Credentials::Basic { username: username.to_owned(), password: password.to_owned() })
}
