//! The challenges of a 401 and a login -> what to put into `Authorization` from now on.
//!
//! The token flow of the distribution project: <https://distribution.github.io/distribution/spec/auth/>. All
//! challenges are read, the realm's own scope is used, and identity tokens are traded with
//! `grant_type=refresh_token`: `oci-client` does none of the three, but its types carry the result.

use http_auth::parser::ChallengeParser;
use oci_client::secrets::RegistryAuth;
use oci_client::token_cache::RegistryToken;
use reqwest::header::{CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use reqwest::{StatusCode, Url};

use super::client;
use super::patience::Patience;
use super::refusal;
use super::session::{Session, read_body};
use crate::image::Error;
use crate::image::auth::Credentials;

/// Tokens with the rights to many repositories have been seen to reach 10 kB.
const TOKEN_BYTES_MAX: u64 = 1 << 20;
const CLIENT_ID: &str = "cudalint";

/// One way in which the registry accepts a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
    Basic,
    Other(String),
}

/// Reads every `WWW-Authenticate` header, each of which may hold several challenges. What cannot be parsed is
/// left out, what stands before it is not.
pub(super) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let mut found = Vec::new();
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = value.to_str() else { continue };
        for challenge in ChallengeParser::new(text).map_while(Result::ok) {
            let param = |name: &str| {
                let given = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                given.map(|(_, value)| value.to_unescaped()).filter(|value| !value.is_empty())
            };
            found.push(match challenge.scheme.to_ascii_lowercase().as_str() {
                "basic" => Challenge::Basic,
                "bearer" => match param("realm") {
                    Some(realm) => {
                        Challenge::Bearer { realm, service: param("service"), scope: param("scope") }
                    }
                    None => Challenge::Other("Bearer without realm".to_owned()),
                },
                _ => Challenge::Other(challenge.scheme.to_owned()),
            });
        }
    }
    found
}

/// Answers the challenges with the session's login: Bearer where it is offered, else Basic.
pub(super) async fn authorize(
    session: &Session,
    challenges: &[Challenge],
    patience: &mut Patience,
) -> Result<RegistryAuth, Error> {
    let bearer = challenges.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
    if let Some(Challenge::Bearer { realm, service, scope }) = bearer {
        let url = realm_url(session, realm)?;
        let default_scope = format!("repository:{}:pull", session.reference().repository);
        let scope = scope.as_deref().unwrap_or(&default_scope);
        return token(session, &url, service.as_deref(), scope, patience).await.map(RegistryAuth::Bearer);
    }
    if challenges.contains(&Challenge::Basic) {
        return match &session.login().credentials {
            Credentials::Basic { username, password } => {
                Ok(RegistryAuth::Basic(username.clone(), password.clone()))
            }
            Credentials::Anonymous => Err(refusal::refused(session, "")),
            Credentials::IdentityToken(_) | Credentials::Bearer(_) => Err(Error::look(format!(
                "`{}` takes user and password only, not {}",
                session.host(),
                session.login().source
            ))
            .hint("give --username and --password-stdin")),
        };
    }
    let offered: Vec<String> =
        challenges.iter().map(|c| format!("`{}`", refusal::shown(&c.scheme()))).collect();
    if offered.is_empty() {
        return Err(refusal::refused(session, ": the registry does not say how to log in"));
    }
    Err(Error::look(format!(
        "`{}` asks for a login by {}, not by Bearer or Basic",
        session.host(),
        offered.join(", ")
    ))
    .hint("cudalint knows logins by token and by user and password"))
}

impl Challenge {
    fn scheme(&self) -> String {
        match self {
            Challenge::Bearer { .. } => "Bearer".to_owned(),
            Challenge::Basic => "Basic".to_owned(),
            Challenge::Other(scheme) => scheme.clone(),
        }
    }
}

/// The realm as a URL to which the login may be shown.
fn realm_url(session: &Session, realm: &str) -> Result<Url, Error> {
    let unusable = || {
        Error::look(format!(
            "`{}` names an unusable token service: `{}`",
            session.host(),
            refusal::shown(realm)
        ))
    };
    let url = Url::parse(realm).map_err(|_| unusable())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(unusable());
    }
    let own = Url::parse(&format!("https://{}/", session.host())).map_err(|_| unusable())?;
    if session.is_confined() && !client::may_lead(&own, &url) {
        let hint = "it is inside of this network, and the registry is not";
        return Err(unusable().hint(hint));
    }
    let is_secret = session.login().credentials != Credentials::Anonymous;
    if is_secret && url.scheme() == "http" && !session.is_plain_http() {
        let host = refusal::authority(&url).unwrap_or_default();
        return Err(Error::look(format!(
            "`{}` sends logins to `{host}` over plain HTTP; they were not sent",
            session.host()
        ))
        .hint("the registry must name its token service with https"));
    }
    Ok(url)
}

/// Asks the token service; it may be as busy as a registry, so it is asked with the same patience.
async fn token(
    session: &Session,
    realm: &Url,
    service: Option<&str>,
    scope: &str,
    patience: &mut Patience,
) -> Result<String, Error> {
    let client = &session.clients().token;
    let host = refusal::authority(realm).unwrap_or_default();
    let response = match &session.login().credentials {
        Credentials::IdentityToken(secret) => {
            let mut fields =
                vec![("grant_type", "refresh_token"), ("client_id", CLIENT_ID), ("scope", scope)];
            fields.extend(service.map(|service| ("service", service)));
            fields.push(("refresh_token", secret));
            let body = form(&fields);
            let request = || {
                let post = client.post(realm.clone()).body(body.clone());
                post.header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            };
            session.send(request, &host, patience).await?
        }
        login => {
            let mut url = realm.clone();
            {
                let mut query = url.query_pairs_mut();
                query.extend_pairs(service.map(|service| ("service", service)));
                // Several scopes in one challenge are several parameters of the request.
                query.extend_pairs(scope.split_whitespace().map(|scope| ("scope", scope)));
            }
            let request = || match login {
                Credentials::Basic { username, password } => {
                    client.get(url.clone()).basic_auth(username, Some(password))
                }
                _ => client.get(url.clone()),
            };
            session.send(request, &host, patience).await?
        }
    };
    let status = response.status();
    match status {
        StatusCode::OK => {}
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(refusal::refused(
                session,
                &format!(": {} from token service `{host}`", status.as_u16()),
            ));
        }
        status if status.is_redirection() => {
            return Err(Error::look(format!(
                "token service `{host}` redirects elsewhere; the login was not sent on"
            )));
        }
        status => return Err(Error::look(format!("token service `{host}` answers {}", status.as_u16()))),
    }
    let unusable = || Error::look(format!("token service `{host}` does not answer with a token"));
    let body = read_body(response, TOKEN_BYTES_MAX).await.map_err(|_| unusable())?;
    let answer: RegistryToken = serde_json::from_slice(&body).map_err(|_| unusable())?;
    let token = answer.token();
    // A token goes into a header: what cannot stand there would make the request fail without a reason.
    let fits = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    if fits { Ok(token.to_owned()) } else { Err(unusable()) }
}

/// `application/x-www-form-urlencoded`, with the encoder that `Url` has for queries.
fn form(fields: &[(&str, &str)]) -> String {
    let Ok(mut url) = Url::parse("form:") else { return String::new() };
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::auth::Login;
    use crate::image::reference::Reference;
    use crate::image::registry::RegistryOptions;

    fn read(values: &[&str]) -> Vec<Challenge> {
        challenges(&values.iter().map(|value| (WWW_AUTHENTICATE, value.parse().unwrap())).collect())
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn all_challenges_of_all_headers_are_read() {
        let hub = concat!(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io","#,
            r#"scope="repository:a/b:pull,push""#
        );
        let wanted = bearer(
            "https://auth.docker.io/token",
            Some("registry.docker.io"),
            Some("repository:a/b:pull,push"),
        );
        assert_eq!(read(&[hub]), std::slice::from_ref(&wanted));
        assert_eq!(read(&["Basic realm=\"x\"", hub]), [Challenge::Basic, wanted.clone()]);
        assert_eq!(
            read(&[&format!("Negotiate, basic realm=\"a, b\", {hub}")]),
            [Challenge::Other("Negotiate".to_owned()), Challenge::Basic, wanted]
        );
    }

    #[test]
    fn names_are_read_in_any_case_and_quotes_are_undone() {
        assert_eq!(
            read(&[r#"bearer Realm="https://h/t\"x" , SERVICE=s"#]),
            [bearer("https://h/t\"x", Some("s"), None)]
        );
        assert_eq!(read(&["Bearer service=\"x\""]), [Challenge::Other("Bearer without realm".to_owned())]);
        assert_eq!(read(&[r#"Bearer realm="https://h/t",scope="""#]), [bearer("https://h/t", None, None)]);
        assert!(read(&["", "=,=", "\t"]).is_empty());
        assert!(read(&[]).is_empty());
    }

    fn session(credentials: Credentials) -> Session {
        let reference = Reference::parse("ghcr.io/a/b").unwrap();
        let clients = super::super::client::build(&RegistryOptions::default(), false).unwrap();
        Session::new(
            &reference,
            clients,
            Login { credentials, source: "a test".to_owned() },
            false,
            &RegistryOptions::default(),
        )
    }

    #[test]
    fn a_login_is_shown_to_no_realm_over_plain_http() {
        let login = session(Credentials::IdentityToken("secret".to_owned()));
        let error = realm_url(&login, "http://auth.test:80/token").unwrap_err();
        assert_eq!(
            error.message,
            "`ghcr.io` sends logins to `auth.test` over plain HTTP; they were not sent"
        );
        assert!(realm_url(&login, "https://auth.test/token").is_ok());
        assert!(realm_url(&session(Credentials::Anonymous), "http://auth.test/token").is_ok());
        for realm in ["", "/token", "file:///etc/passwd", "ftp://auth.test/"] {
            assert!(realm_url(&login, realm).unwrap_err().message.contains("unusable token service"));
        }
    }

    #[test]
    fn secrets_are_encoded_for_a_form() {
        assert_eq!(form(&[("a", "x y&z"), ("b", "=/+")]), "a=x+y%26z&b=%3D%2F%2B");
    }
}
