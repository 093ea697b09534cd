//! A credential helper and a server address -> credentials, by docker's helper protocol:
//! `docker-credential-NAME get`, the address on standard input, JSON on standard output.
//! <https://github.com/docker/docker-credential-helpers>

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{Credentials, Environment};
use crate::image::Error;

/// Helpers talk to key rings and cloud services, which may ask a person who is not there.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The user name that says: the secret is an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks helper `name`, which `file` names, about `server`. `None` where it has no login for it.
pub(super) async fn get(
    name: &str,
    server: &str,
    file: &Path,
    environment: &Environment,
) -> Result<Option<Credentials>, Error> {
    let fail = |why: String| {
        let named = format!("docker-credential-{name}, named in {}", file.display());
        Error::look(format!("credential helper {named}, {why}"))
            .hint("mend it, take it out of that file, or give --username with --password-stdin")
    };
    // The name becomes part of a program name: it must not lead elsewhere.
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err(fail("has no valid name".to_owned()));
    }
    let Some(program) = find_program(name, environment) else {
        return Err(fail("is not installed (not in PATH)".to_owned()));
    };
    let mut command = Command::new(program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let run = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that answers without reading closes the pipe; its answer counts all the same.
            let _unread = stdin.write_all(server.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(TIMEOUT, run).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(fail(format!("cannot be run: {error}"))),
        Err(_) => return Err(fail(format!("did not answer within {} s", TIMEOUT.as_secs()))),
    };
    if !output.status.success() {
        // Helpers write the reason to standard output; some to standard error.
        let said = [output.stdout.as_slice(), b" ", output.stderr.as_slice()].concat();
        let said = String::from_utf8_lossy(&said);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
        return Err(fail(format!("failed ({}): {}", output.status, said.trim())));
    }
    // What it wrote may hold the secret: only the place of the mistake is said.
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|error| fail(format!("did not answer in JSON (column {})", error.column())))?;
    Ok(match (answer.username.as_str(), answer.secret) {
        (_, secret) if secret.is_empty() => None,
        (TOKEN_USER, secret) => Some(Credentials::IdentityToken(secret)),
        (_, password) => Some(Credentials::Basic { username: answer.username, password }),
    })
}

/// Looks the program up in the given environment's PATH, so that tests need not touch that of the process.
fn find_program(name: &str, environment: &Environment) -> Option<OsString> {
    let file = format!("docker-credential-{name}{}", std::env::consts::EXE_SUFFIX);
    let path = environment.path.as_ref()?;
    std::env::split_paths(path)
        .map(|dir| dir.join(&file))
        .find(|program| program.is_file())
        .map(std::path::PathBuf::into_os_string)
}
