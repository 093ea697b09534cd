//! A file of clients -> who may ask what. Tokens stand in it as SHA-256, so that who reads the file cannot use them.
//!
//! ```toml
//! [[client]]
//! name = "harbor"
//! token-sha256 = "…"                       # printf %s TOKEN | sha256sum
//! repositories = ["harbor.example/ml/**"]  # default: everything the server may read
//! ```

use super::allow::Globs;
use crate::image::Error;
use crate::limits;
use crate::names::{Digest, located};
use base64::Engine;
use serde::Deserialize;
use std::path::Path;

/// Somebody who showed a token.
#[derive(Clone, Debug)]
pub struct Client {
    pub name: String,
    repositories: Option<Globs>,
}

impl Client {
    /// Whoever can reach a listener on loopback.
    pub fn of_this_machine() -> Client {
        Client { name: "loopback".to_owned(), repositories: None }
    }

    /// `repository`: with the registry's host.
    pub fn may_see(&self, repository: &str) -> bool {
        self.repositories.as_ref().is_none_or(|globs| globs.match_repository(repository))
    }
}

/// Those who may ask.
#[derive(Debug, Default)]
pub struct Clients(Vec<(String, Client)>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileToml {
    #[serde(default)]
    client: Vec<RowToml>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RowToml {
    name: String,
    token_sha256: String,
    repositories: Option<Vec<String>>,
}

impl Clients {
    pub fn read(path: &Path) -> Result<Clients, Error> {
        let wrong = |why: String| Error::usage(format!("--clients `{}`: {why}", path.display()));
        let text = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
        if text.len() as u64 > limits::CONFIG_FILE_BYTES_MAX {
            return Err(wrong(format!("more than {} bytes", limits::CONFIG_FILE_BYTES_MAX)));
        }
        let text = String::from_utf8(text).map_err(|_| wrong("it is no text".to_owned()))?;
        Clients::parse(&text).map_err(wrong)
    }

    fn parse(text: &str) -> Result<Clients, String> {
        let file: FileToml = toml::from_str(text).map_err(|e| located(text, &e))?;
        if file.client.is_empty() {
            return Err("it has no [[client]]".to_owned());
        }
        let mut out = Vec::new();
        for row in file.client {
            let sum = row.token_sha256.to_ascii_lowercase();
            if Digest::parse(&format!("sha256:{sum}")).is_none() {
                return Err(format!(
                    "token-sha256 of `{}` is no SHA-256: write what `printf %s TOKEN | sha256sum` prints",
                    row.name
                ));
            }
            if out.iter().any(|(_, known): &(String, Client)| known.name == row.name) {
                return Err(format!(
                    "two clients are named `{}`: they would see each other's scans",
                    row.name
                ));
            }
            let repositories = row.repositories.map(|globs| Globs::new(&globs)).transpose()?;
            out.push((sum, Client { name: row.name, repositories }));
        }
        Ok(Clients(out))
    }

    /// The client that a request shows itself to be: `Bearer`, the password of `Basic`, or an API key.
    pub fn of(&self, authorization: Option<&str>, api_key: Option<&str>) -> Option<Client> {
        let token = match (authorization, api_key) {
            (Some(text), _) => {
                let (scheme, rest) = text.trim().split_once(' ')?;
                match scheme.to_ascii_lowercase().as_str() {
                    "bearer" => rest.trim().to_owned(),
                    "basic" => basic(rest)?.1,
                    _ => return None,
                }
            }
            (None, Some(key)) => key.trim().to_owned(),
            (None, None) => return None,
        };
        // Digests are compared, so that the time it takes tells nothing of a token.
        let sum = Digest::of(token.as_bytes());
        self.0.iter().find(|(known, _)| known == sum.hex()).map(|(_, client)| client.clone())
    }
}

/// User name and password of `Basic`.
pub(super) fn basic(encoded: &str) -> Option<(String, String)> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let (username, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_by_its_token_in_any_form() {
        let sum = Digest::of(b"s3cret");
        let text = format!(
            "[[client]]\nname = \"a\"\ntoken-sha256 = \"{}\"\nrepositories = [\"r.io/ml/**\"]\n",
            sum.hex()
        );
        let clients = Clients::parse(&text).unwrap();
        for authorization in ["Bearer s3cret", "bearer  s3cret", "Basic dXNlcjpzM2NyZXQ="] {
            assert_eq!(clients.of(Some(authorization), None).unwrap().name, "a", "{authorization}");
        }
        let client = clients.of(None, Some("s3cret")).unwrap();
        assert!(client.may_see("r.io/ml/train") && !client.may_see("r.io/web/x"));
        for authorization in ["Bearer other", "Basic !", "s3cret", ""] {
            assert!(clients.of(Some(authorization), None).is_none());
        }
        assert!(clients.of(None, None).is_none());
    }

    #[test]
    fn a_token_in_the_clear_is_refused() {
        let text = "[[client]]\nname = \"a\"\ntoken-sha256 = \"s3cret\"\n";
        assert!(Clients::parse(text).unwrap_err().contains("sha256sum"));
        assert!(Clients::parse("").unwrap_err().contains("no [[client]]"));
    }
}
