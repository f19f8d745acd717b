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

/// The challenge of a response, of which there may be several, in one header or in several. Tokens
/// are preferred, since they are good for less.
pub(crate) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let headers = headers.get_all(WWW_AUTHENTICATE).iter();
    let texts = headers.filter_map(|value| value.to_str().ok());
    let mut is_basic = false;
    for (scheme, mut parameters) in texts.flat_map(|text| Scanner(text).challenges()) {
        is_basic |= scheme == "basic";
        if let ("bearer", Some(realm)) = (scheme.as_str(), parameters.remove("realm")) {
            return Some(Challenge::Bearer(Bearer {
                realm,
                service: parameters.remove("service"),
                scope: parameters.remove("scope"),
            }));
        }
    }
    is_basic.then_some(Challenge::Basic)
}

/// What is left of a header.
struct Scanner<'a>(&'a str);

impl<'a> Scanner<'a> {
    /// The challenges, as RFC 9110 writes them: `scheme name="value", name=value, scheme …`. A name
    /// without a value begins the next one. Schemes and names are in lower case.
    fn challenges(mut self) -> Vec<(String, HashMap<String, String>)> {
        let mut found: Vec<(String, HashMap<String, String>)> = Vec::new();
        loop {
            self.take(|each| matches!(each, ' ' | '\t' | ','));
            let name = self.take(|each| !matches!(each, ' ' | '\t' | ',' | '='));
            let name = name.to_ascii_lowercase();
            self.take(is_blank);
            let (equals, last) = (self.take(|each| each == '='), found.last_mut());
            match (equals, last) {
                ("", _) if name.is_empty() => return found,
                ("", _) => found.push((name, HashMap::new())),
                ("=", Some((_, parameters))) => {
                    let value = self.value();
                    parameters.entry(name).or_insert(value);
                }
                // The end of a scheme's token, which is none of those that are supported.
                _ => {}
            }
        }
    }

    /// A value in quotes or without.
    fn value(&mut self) -> String {
        self.take(is_blank);
        let Some(quoted) = self.0.strip_prefix('"') else {
            return self.take(|each| each != ',').trim_end().to_owned();
        };
        let (mut value, mut rest) = (String::new(), quoted.chars());
        while let Some(each) = rest.next().filter(|each| *each != '"') {
            value.extend(if each == '\\' { rest.next() } else { Some(each) });
        }
        self.0 = rest.as_str();
        value
    }

    fn take(&mut self, is_wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|each| !is_wanted(each)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at_checked(end).unwrap_or((self.0, ""));
        self.0 = rest;
        taken
    }
}

fn is_blank(each: char) -> bool {
    matches!(each, ' ' | '\t')
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

    #[test]
    fn tokens_are_preferred_wherever_they_are_offered() {
        let bearer = "Bearer realm=\"https://a.example/token\", service=r";
        let several = |texts: &[&str]| {
            let values = texts.iter().map(|text| HeaderValue::from_str(text).unwrap());
            challenge(&HeaderMap::from_iter(values.map(|value| (WWW_AUTHENTICATE, value))))
        };
        let basic_first = format!("Basic realm=\"a, b\", charset=\"UTF-8\", {bearer}");
        let bearer_first = format!("{bearer}, Basic realm=x");
        let after_a_token = format!("Negotiate YWJj/+==, {bearer}");
        for texts in [
            &[bearer][..],
            &[&basic_first],
            &[&bearer_first],
            &[&after_a_token],
            &["Basic realm=x", bearer],
            &[bearer, "Basic realm=x"],
            &["Basic realm=\"Bearer realm=\\\"x\\\"\"", bearer],
        ] {
            let Some(Challenge::Bearer(found)) = several(texts) else { panic!("{texts:?}") };
            assert_eq!(found.url("s"), "https://a.example/token?service=r&scope=s", "{texts:?}");
        }
        for text in
            ["basic", "Basic", "BASIC realm=x", "Digest realm=y, Basic realm=x", "a=b, basic"]
        {
            assert_eq!(several(&[text]), Some(Challenge::Basic), "{text}");
        }
        for text in ["", "Digest realm=\"Basic\"", "realm=x", "Bearer", "Bearer realm"] {
            assert_eq!(several(&[text]), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_challenge_is_survived(text in r#"(bearer |basic )?[ -~]{0,40}(,? ?realm="?[ -~]{0,20})?"#) {
            let _ = parse(&text);
        }
    }
}
