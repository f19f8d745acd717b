//! Who we are to a registry: docker's auth file, and the challenges that ask for what is in it.

use crate::error::Error;
use crate::http::encoded;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::HeaderMap;
use hyper::header::{HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;

/// What docker keeps in `config.json`; the rest of it is not read.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: HashMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
}

/// The credentials, by registry. They are looked at only when a registry asks for them.
#[derive(Default)]
pub(crate) struct AuthFile {
    basic: HashMap<String, HeaderValue>,
    helpers: HashMap<String, String>,
}

impl AuthFile {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::AuthFile { path: path.to_owned(), reason };
        let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let config: Config = serde_json::from_slice(&bytes).map_err(|error| {
            wrong(format!(
                "it is not docker's config.json: line {}: {:?}",
                error.line(),
                error.classify()
            ))
        })?;
        let mut found = Self::default();
        for (name, entry) in config.auths {
            let Some(host) = host_of_entry(&name) else { continue };
            match (entry.auth.filter(|auth| !auth.is_empty()), &config.creds_store) {
                (Some(auth), _) => {
                    let reason = || {
                        wrong(format!("auths → {name:?} → auth is not the base64 of user:password"))
                    };
                    found.basic.insert(host, basic(&auth).ok_or_else(reason)?);
                }
                (None, Some(helper)) => _ = found.helpers.insert(host, helper.clone()),
                (None, None) => (),
            }
        }
        let helpers = config
            .cred_helpers
            .into_iter()
            .filter_map(|(name, helper)| Some((host_of_entry(&name)?, helper)));
        found.helpers.extend(helpers);
        Ok(found)
    }

    /// The header for this registry, if we are somebody there.
    pub(crate) fn of(&self, host: &str) -> Result<Option<HeaderValue>, Error> {
        // Docker calls its own registry so in the file.
        let name = if host == "registry-1.docker.io" && !self.basic.contains_key(host) {
            "index.docker.io"
        } else {
            host
        };
        match (self.basic.get(name), self.helpers.get(name)) {
            (Some(basic), _) => Ok(Some(basic.clone())),
            (None, Some(helper)) => {
                Err(Error::Helper { host: host.to_owned(), helper: helper.clone() })
            }
            (None, None) => Ok(None),
        }
    }
}

/// The registry that an entry is for; older ones are URLs. One for a part of a registry is not for
/// the rest of it.
fn host_of_entry(name: &str) -> Option<String> {
    let name =
        name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).unwrap_or(name);
    let (host, path) = name.split_once('/').unwrap_or((name, ""));
    matches!(path.trim_end_matches('/'), "" | "v1" | "v2").then(|| host.to_owned())
}

fn basic(auth: &str) -> Option<HeaderValue> {
    let pair = BASE64_STANDARD.decode(auth).ok()?;
    let is_pair = pair.iter().position(|byte| *byte == b':').is_some_and(|colon| colon > 0);
    if is_pair { secret(&format!("Basic {auth}")) } else { None }
}

/// A header that no log shows.
pub(crate) fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a registry wants of who asks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A user and a password with every request.
    Basic,
    /// A token from somewhere.
    Bearer(Bearer),
}

/// Where tokens are had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub(crate) realm: String,
    service: Option<String>,
    scope: Option<String>,
}

impl Bearer {
    /// The URL to ask for a token; the scope is the registry's, or else this one.
    pub(crate) fn url(&self, scope: &str) -> String {
        let join = if self.realm.contains('?') { '&' } else { '?' };
        let service = self
            .service
            .iter()
            .map(|service| format!("service={}&", encoded(service)))
            .collect::<String>();
        format!(
            "{}{join}{service}scope={}",
            self.realm,
            encoded(self.scope.as_deref().unwrap_or(scope))
        )
    }
}

/// The challenge of an answer: tokens first, since they are good for less.
pub(crate) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let challenges =
        headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let split = challenges.map(|text| text.trim().split_once(' ').unwrap_or((text, "")));
    let mut is_basic = false;
    for (scheme, rest) in split {
        is_basic |= scheme.eq_ignore_ascii_case("basic");
        let mut found = parameters(rest);
        if let (true, Some(realm)) = (scheme.eq_ignore_ascii_case("bearer"), found.remove("realm"))
        {
            return Some(Challenge::Bearer(Bearer {
                realm,
                service: found.remove("service"),
                scope: found.remove("scope"),
            }));
        }
    }
    is_basic.then_some(Challenge::Basic)
}

/// `name="value",name=value`; no registry escapes anything within the quotes.
fn parameters(mut rest: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.insert(name.trim_matches([',', ' ', '\t']).to_ascii_lowercase(), value.to_owned());
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(text: &str) -> Option<Challenge> {
        challenge(&HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_str(text).ok()?)]))
    }

    #[test]
    fn challenges_are_understood() {
        let Some(Challenge::Bearer(bearer)) = told(
            r#"Bearer realm="https://a.example/token",service="a b", scope="repository:x:pull,push""#,
        ) else {
            panic!("no bearer")
        };
        assert_eq!(
            bearer.url("else"),
            "https://a.example/token?service=a%20b&scope=repository%3Ax%3Apull%2Cpush"
        );
        let Some(Challenge::Bearer(bearer)) = told("bearer realm=https://a.example/token?x=y")
        else {
            panic!("no bearer")
        };
        assert_eq!(bearer.url("else"), "https://a.example/token?x=y&scope=else");
        assert_eq!(told(r#"Basic realm="x""#), Some(Challenge::Basic));
        assert_eq!(told("Bearer service=x"), None);
        assert_eq!(told("Negotiate"), None);
    }

    fn file(text: &str) -> Result<AuthFile, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        AuthFile::read(file.path())
    }

    #[test]
    fn the_file_is_dockers() {
        let found = file(r#"{"auths": {"r.example:5000": {"auth": "dTpw"}, "https://index.docker.io/v1/": {"auth": "dTpx"}}}"#).unwrap();
        assert_eq!(found.of("r.example:5000").unwrap().unwrap(), "Basic dTpw");
        assert_eq!(found.of("registry-1.docker.io").unwrap().unwrap(), "Basic dTpx");
        assert!(found.of("r.example").unwrap().is_none());
        assert!(!format!("{:?}", found.of("r.example:5000")).contains("dTpw"));
    }

    #[test]
    fn who_may_use_a_part_of_a_registry_is_nobody_in_the_rest_of_it() {
        let found = file(
            r#"{"auths": {"r.example/team": {"auth": "dTpw"}, "s.example/v2/": {"auth": "dTpx"}}}"#,
        )
        .unwrap();
        assert!(found.of("r.example").unwrap().is_none());
        assert_eq!(found.of("s.example").unwrap().unwrap(), "Basic dTpx");
    }

    #[test]
    fn helpers_are_not_run() {
        let found = file(r#"{"auths": {"a.example": {}}, "credsStore": "desktop", "credHelpers": {"b.example": "pass"}}"#).unwrap();
        for (host, helper) in [("a.example", "desktop"), ("b.example", "pass")] {
            assert!(found.of(host).unwrap_err().to_string().contains(helper));
        }
        assert!(found.of("c.example").unwrap().is_none());
    }

    #[test]
    fn wrong_files_are_named_and_not_quoted() {
        for wrong in [
            r#"{"auths": {"a.example": "hunter2"}}"#,
            r#"{"auths": {"a.example": {"auth": "aHVudGVyMg=="}}}"#,
            "hunter2",
        ] {
            let error = file(wrong).err().unwrap().to_string();
            assert!(
                error.contains("auth file")
                    && !error.contains("hunter2")
                    && !error.contains("aHVud"),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn strangers_challenges_are_survived(text in r#"(bearer |basic )?[ -~]{0,40}(realm="?[ -~]{0,20})?"#) {
            let _ = told(&text);
        }
    }
}
