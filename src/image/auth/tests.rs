//! Logins from options, files in a temporary directory and a helper that is a shell script.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::*;
use crate::image::ErrorKind;

/// A program that is still open for writing in a process another test forked cannot be run (ETXTBSY).
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Home {
    _alone: MutexGuard<'static, ()>,
    dir: tempfile::TempDir,
    environment: Environment,
}

impl Home {
    fn new() -> Home {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let mut path = dir.path().as_os_str().to_owned();
        path.push("/bin:/usr/bin:/bin");
        let environment =
            Environment { home: Some(dir.path().to_owned()), path: Some(path), ..Environment::default() };
        Home { _alone: alone, dir, environment }
    }

    fn write(self, name: &str, text: &str) -> Home {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn helper(self, name: &str, script: &str) -> Home {
        use std::os::unix::fs::PermissionsExt as _;
        let file = format!("bin/docker-credential-{name}");
        let home = self.write(&file, &format!("#!/bin/sh\n{script}\n"));
        let path = home.dir.path().join(file);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        home
    }

    fn find_with(&self, image: &str, typed: &Typed<'_>) -> Result<Login, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(find(&Reference::parse(image).unwrap(), typed, &self.environment))
    }

    fn find(&self, image: &str) -> Result<Login, Error> {
        self.find_with(image, &Typed::default())
    }

    fn user(&self, image: &str) -> String {
        match self.find(image).unwrap().credentials {
            Credentials::Basic { username, password } => format!("{username}:{password}"),
            other => format!("{other:?}"),
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!(r#"{{"auth":"{auth}"}}"#)
}

#[test]
fn nothing_known_means_anonymous() {
    assert_eq!(Home::new().find("ghcr.io/a/b").unwrap(), Login::anonymous());
}

#[test]
fn the_most_specific_key_wins() {
    let home = Home::new().write(
        ".config/containers/auth.json",
        &format!(
            r#"{{"auths":{{"h.io":{},"h.io/ns":{},"h.io/ns/repo":{},"h.io/n":{}}}}}"#,
            basic("host", "1"),
            basic("ns", "2"),
            basic("repo", "3:x"),
            basic("wrong", "4")
        ),
    );
    assert_eq!(home.user("h.io/ns/repo:1"), "repo:3:x");
    assert_eq!(home.user("h.io/ns/repo2"), "ns:2");
    assert_eq!(home.user("h.io/nsx/repo"), "host:1");
    assert_eq!(home.user("h.io:443/ns/repo"), "Anonymous");
    let source = home.find("h.io/ns/repo").unwrap().source;
    assert!(source.contains("user `repo`") && source.contains("auth.json, key `h.io/ns/repo`"), "{source}");
}

#[test]
fn docker_hub_and_old_keys_are_found_under_every_spelling() {
    for key in ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"] {
        let home = Home::new()
            .write(".docker/config.json", &format!(r#"{{"auths":{{"{key}":{}}}}}"#, basic("u", "p")));
        assert_eq!(home.user("ubuntu"), "u:p", "{key}");
    }
    for key in ["https://h.io:5000/v2/", "http://h.io:5000", "h.io:5000/", "https://h.io:5000/some/path"] {
        let home = Home::new().write(".dockercfg", &format!(r#"{{"{key}":{}}}"#, basic("u", "p\0\0")));
        assert_eq!(home.user("h.io:5000/a/b"), "u:p", "{key}");
    }
}

#[test]
fn options_come_before_the_named_file_before_the_others() {
    let auths = |user: &str| format!(r#"{{"auths":{{"h.io":{}}}}}"#, basic(user, "p"));
    let mut home = Home::new()
        .write("run/containers/auth.json", &auths("runtime"))
        .write(".config/containers/auth.json", &auths("config"))
        .write(".docker/config.json", &auths("docker"))
        .write("named.json", &auths("named"))
        .write("variable.json", &auths("variable"));
    let root = home.dir.path().to_owned();
    assert_eq!(home.user("h.io/a"), "config:p");
    home.environment.xdg_runtime_dir = Some(root.join("run"));
    assert_eq!(home.user("h.io/a"), "runtime:p");
    home.environment.registry_auth_file = Some(root.join("variable.json"));
    assert_eq!(home.user("h.io/a"), "variable:p");
    let named = root.join("named.json");
    let mut typed = Typed { authfile: Some(&named), ..Typed::default() };
    assert!(home.find_with("h.io/a", &typed).unwrap().source.contains("user `named`"));
    typed.username = Some("typed");
    assert!(home.find_with("h.io/a", &typed).unwrap_err().hint.unwrap().contains("--password-stdin"));
    typed.password = Some("secret-word");
    let login = home.find_with("h.io/a", &typed).unwrap();
    assert_eq!(login.source, "--username and --password-stdin");
    assert!(!format!("{login:?}").contains("secret-word"));
    typed.token = Some("t");
    assert_eq!(home.find_with("h.io/a", &typed).unwrap_err().kind, ErrorKind::Usage);
}

#[test]
fn a_named_file_must_exist_and_no_broken_file_is_passed_over() {
    let home = Home::new().write(".docker/config.json", r#"{"auths":{"h.io":{"auth": hunter2"#);
    let absent = Path::new("/nonexistent/auth.json");
    let typed = Typed { authfile: Some(absent), ..Typed::default() };
    let error = home.find_with("h.io/a", &typed).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Usage);
    assert!(error.message.contains("/nonexistent/auth.json (from --authfile)"), "{error}");
    let error = home.find("h.io/a").unwrap_err();
    assert!(error.message.contains("config.json is not a valid credentials file: line 1"), "{error}");
    assert!(!error.message.contains("hunter2"));
    drop(home);
    let home = Home::new().write(".docker/config.json", r#"{"auths":{"h.io":{"auth":"bm9jb2xvbg=="}}}"#);
    assert!(home.find("h.io/a").unwrap_err().message.contains("key `h.io`: `auth` is not base64"));
    assert_eq!(home.user("other.io/a"), "Anonymous");
}

#[test]
fn tokens_and_plain_fields_are_read() {
    let home = Home::new().write(
        ".docker/config.json",
        r#"{"auths":{"i.io":{"auth":"eDp5","identitytoken":"i"},"r.io":{"registrytoken":"r"},
            "p.io":{"username":"u","password":"p"},"e.io":{}},"HttpHeaders":{"a":"b"}}"#,
    );
    assert_eq!(home.find("i.io/a").unwrap().credentials, Credentials::IdentityToken("i".to_owned()));
    assert_eq!(home.find("r.io/a").unwrap().credentials, Credentials::Bearer("r".to_owned()));
    assert_eq!(home.user("p.io/a"), "u:p");
    assert_eq!(home.user("e.io/a"), "Anonymous");
}

#[test]
fn helpers_answer_before_auths_and_the_store_after() {
    let home = Home::new()
        .helper("one", r#"read h; echo "{\"ServerURL\":\"$h\",\"Username\":\"one-$h\",\"Secret\":\"s\"}""#)
        .helper("two", r#"echo '{"Username":"<token>","Secret":"refresh"}'"#)
        .helper("none", "echo credentials not found in native keychain; exit 1")
        .write(
            ".docker/config.json",
            &format!(
                r#"{{"credHelpers":{{"h.io":"one","docker.io":"one","n.io":"none"}},"credsStore":"two",
                    "auths":{{"h.io":{},"n.io":{},"d.io":{{}}}}}}"#,
                basic("a", "b"),
                basic("n", "n")
            ),
        );
    assert_eq!(home.user("h.io/a"), "one-h.io:s");
    assert_eq!(home.user("ubuntu"), "one-https://index.docker.io/v1/:s");
    assert_eq!(home.user("n.io/a"), "n:n");
    let login = home.find("d.io/a").unwrap();
    assert_eq!(login.credentials, Credentials::IdentityToken("refresh".to_owned()));
    assert!(login.source.contains("docker-credential-two, named in "), "{}", login.source);
}

#[test]
fn a_helper_that_is_absent_or_fails_is_named_with_its_file() {
    let home = Home::new()
        .helper("bad", "echo no key ring >&2; exit 2")
        .helper("odd", "echo the secret is hunter2")
        .write(
            ".docker/config.json",
            r#"{"credHelpers":{"b.io":"bad","o.io":"odd","p.io":"../x","m.io":"missing"}}"#,
        );
    for (image, said) in [
        ("b.io/a", "failed (exit status: 2): no key ring"),
        ("o.io/a", "did not answer in JSON"),
        ("p.io/a", "has no valid name"),
        ("m.io/a", "docker-credential-missing, named in "),
    ] {
        let error = home.find(image).unwrap_err();
        assert!(error.message.contains(said), "{error}");
        assert!(error.message.contains(".docker/config.json") && !error.message.contains("hunter2"));
        assert!(error.hint.is_some());
    }
}
