//! The `WWW-Authenticate` header: which kind of credentials a registry requires.

use hyper::HeaderMap;
use hyper::header::WWW_AUTHENTICATE;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::HashMap;

/// What stays as it is in a query or a form: the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A user name and a password with every request.
    Basic,
    /// A token from a realm.
    Bearer(Bearer),
}

/// Where tokens are issued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub(crate) realm: String,
    service: Option<String>,
    scope: Option<String>,
}

impl Bearer {
    /// The URL of a GET for a token; the scope is the registry's, or else this one.
    pub(crate) fn url(&self, scope: &str) -> String {
        let join = if self.realm.contains('?') { '&' } else { '?' };
        format!("{}{join}{}", self.realm, self.parameters(scope))
    }

    /// The form of a POST that exchanges an identity token, as in OAuth 2.
    pub(crate) fn form(&self, scope: &str, identity_token: &str) -> String {
        let parameters = self.parameters(scope);
        let token = encode(identity_token);
        format!("grant_type=refresh_token&client_id=paygress&{parameters}&refresh_token={token}")
    }

    fn parameters(&self, scope: &str) -> String {
        let scope = encode(self.scope.as_deref().unwrap_or(scope));
        match &self.service {
            Some(service) => format!("service={}&scope={scope}", encode(service)),
            None => format!("scope={scope}"),
        }
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The challenge of a response: tokens are preferred, since they are good for less.
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
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    fn parse(text: &str) -> Option<Challenge> {
        challenge(&HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_str(text).ok()?)]))
    }

    #[test]
    fn challenges_are_parsed() {
        let Some(Challenge::Bearer(bearer)) = parse(
            r#"Bearer realm="https://a.example/token",service="a b", scope="repository:x:pull,push""#,
        ) else {
            panic!("no bearer")
        };
        assert_eq!(
            bearer.url("else"),
            "https://a.example/token?service=a%20b&scope=repository%3Ax%3Apull%2Cpush"
        );
        assert_eq!(
            bearer.form("else", "a+b~c"),
            "grant_type=refresh_token&client_id=paygress&service=a%20b&scope=repository%3Ax%3Apull%2Cpush&refresh_token=a%2Bb~c"
        );
        let Some(Challenge::Bearer(bearer)) = parse("bearer realm=https://a.example/token?x=y")
        else {
            panic!("no bearer")
        };
        assert_eq!(bearer.url("else"), "https://a.example/token?x=y&scope=else");
        assert_eq!(parse(r#"Basic realm="x""#), Some(Challenge::Basic));
        assert_eq!(parse("Bearer service=x"), None);
        assert_eq!(parse("Negotiate"), None);
    }

    proptest! {
        #[test]
        fn any_challenge_is_survived(text in r#"(bearer |basic )?[ -~]{0,40}(realm="?[ -~]{0,20})?"#) {
            let _ = parse(&text);
        }
    }
}
