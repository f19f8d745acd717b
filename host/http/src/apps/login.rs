//! How a browser logs in to a pod's site as the customer: a link has a code, which works once and
//! is exchanged for a cookie. Both are authenticated by the service's key (HMAC). Nothing of them
//! is stored, except which codes were used.

use crate::identity::fresh_bearer;
use crate::limits;
use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use paygress_core::backend::apps::AppLinks;
use paygress_core::model::apps_domain::AppsDomain;
use paygress_core::model::ids::PodName;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::UnixTime;
use sha2::Sha256;

/// The path that a link names. Nothing below `/.paygress/` is the pod's.
pub(super) const LOGIN_PATH: &str = "/.paygress/login";
/// For browsers that do not say that somebody opens the link (Safari before 16.4): the form sends the same
/// URL.
pub(super) const LOGIN_PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Log in</title>
<form method="post"><button>Log in to this pod</button></form>
</html>
"#;
/// The prefix `__Host-` makes browsers accept it from this host alone, and only over HTTPS.
pub(super) const COOKIE: &str = "__Host-paygress-app";
/// The longest code or cookie that is verified: the service makes no longer ones.
const SIGNED_BYTES: usize = 160;
/// How many cookies with our name are verified in one request: a browser has one.
const COOKIES: usize = 4;

/// What a signed value is for: one cannot be used as the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Code,
    Cookie,
}

impl Purpose {
    /// What the signed bytes begin with. No other use of the key begins with the same.
    fn prefix(self) -> &'static [u8] {
        match self {
            Self::Code => b"app code\0",
            Self::Cookie => b"app cookie\0",
        }
    }
}

/// Signs codes and cookies, and verifies them.
pub(super) struct AppLogins {
    key: Secret,
    domain: AppsDomain,
}

impl AppLogins {
    pub(super) fn new(key: Secret, domain: AppsDomain) -> Self {
        Self { key, domain }
    }

    fn code_of(&self, purpose: Purpose, pod: &PodName, signed: &str) -> Option<Hmac<Sha256>> {
        // HMAC takes keys of any length.
        let mut code = Hmac::<Sha256>::new_from_slice(self.key.expose().as_bytes()).ok()?;
        code.update(purpose.prefix());
        code.update(pod.as_str().as_bytes());
        code.update(b"\0");
        code.update(signed.as_bytes());
        Some(code)
    }

    /// `END.ID.CODE`: when it expires, a random id, and the HMAC over both and the pod's name.
    fn sign(&self, purpose: Purpose, pod: &PodName, end: UnixTime) -> Secret {
        let signed = format!("{}.{}", end.0, fresh_bearer().expose());
        match self.code_of(purpose, pod, &signed) {
            Some(code) => {
                let code = URL_SAFE_NO_PAD.encode(code.finalize().into_bytes());
                Secret::new(format!("{signed}.{code}"))
            }
            None => fresh_bearer(),
        }
    }

    /// The id in a signed value, if the value is valid for this pod now.
    fn verify<'a>(
        &self,
        purpose: Purpose,
        pod: &PodName,
        text: &'a str,
        now: UnixTime,
    ) -> Option<&'a str> {
        let (signed, code) = text.rsplit_once('.').filter(|_| text.len() <= SIGNED_BYTES)?;
        let code = URL_SAFE_NO_PAD.decode(code).ok()?;
        self.code_of(purpose, pod, signed)?.verify_slice(&code).ok()?;
        let (end, id) = signed.split_once('.')?;
        (UnixTime(end.parse().ok()?) > now).then_some(id)
    }

    /// The id of this code, if it may log in to this pod now.
    pub(super) fn verify_code<'a>(
        &self,
        pod: &PodName,
        code: &'a str,
        now: UnixTime,
    ) -> Option<&'a str> {
        self.verify(Purpose::Code, pod, code, now)
    }

    /// The header that gives a browser its cookie.
    pub(super) fn set_cookie(&self, pod: &PodName, now: UnixTime) -> Option<HeaderValue> {
        let life = limits::APP_COOKIE;
        let value = self.sign(Purpose::Cookie, pod, now.after(life));
        let cookie = format!(
            "{COOKIE}={}; Path=/; Max-Age={}; Secure; HttpOnly; SameSite=Lax",
            value.expose(),
            life.0
        );
        let mut header = HeaderValue::from_str(&cookie).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    /// Whether the request has a cookie that is good for this pod now.
    pub(super) fn has_cookie(&self, headers: &HeaderMap, pod: &PodName, now: UnixTime) -> bool {
        let pairs = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let values = pairs
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter_map(|(name, value)| (name == COOKIE).then_some(value));
        values.take(COOKIES).any(|value| self.verify(Purpose::Cookie, pod, value, now).is_some())
    }
}

impl AppLinks for AppLogins {
    fn url(&self, pod: &PodName) -> String {
        self.domain.url_of(pod)
    }

    fn login_url(&self, pod: &PodName) -> Secret {
        let code = self.sign(Purpose::Code, pod, UnixTime::now().after(limits::APP_CODE));
        Secret::new(format!("{}{LOGIN_PATH}?code={}", self.url(pod), code.expose()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins(key: &str) -> AppLogins {
        AppLogins::new(Secret::new(key), AppsDomain::parse("apps.example").unwrap())
    }

    fn pod(name: &str) -> PodName {
        PodName::parse(name).unwrap()
    }

    fn cookies(header: &HeaderValue) -> HeaderMap {
        let pair = header.to_str().unwrap().split(';').next().unwrap();
        let line = HeaderValue::from_str(&format!("theme=dark; {pair}")).unwrap();
        HeaderMap::from_iter([(header::COOKIE, line)])
    }

    #[test]
    fn a_code_is_good_for_its_pod_and_its_time_alone() {
        let (logins, own, other) =
            (logins("a"), pod("ssh-pod-aaaaaaaaaa"), pod("ssh-pod-bbbbbbbbbb"));
        let link = logins.login_url(&own);
        let prefix = "https://ssh-pod-aaaaaaaaaa.apps.example/.paygress/login?code=";
        let code = link.expose().strip_prefix(prefix).unwrap();
        let now = UnixTime::now();
        assert!(logins.verify_code(&own, code, now).is_some());
        assert!(logins.verify_code(&other, code, now).is_none());
        assert!(self::logins("b").verify_code(&own, code, now).is_none());
        let afterwards = now.after(limits::APP_CODE).after(limits::APP_CODE);
        assert!(logins.verify_code(&own, code, afterwards).is_none());
        for changed in [&code[1..], &code[..code.len() - 1], "", ".", "..", &code.repeat(2)] {
            assert!(logins.verify_code(&own, changed, now).is_none(), "{changed}");
        }
        let again = logins.login_url(&own);
        assert_ne!(link.expose(), again.expose());
    }

    #[test]
    fn a_cookie_is_no_code_and_holds_for_its_host_alone() {
        let (logins, own, other) =
            (logins("a"), pod("ssh-pod-aaaaaaaaaa"), pod("ssh-pod-bbbbbbbbbb"));
        let now = UnixTime(1_000);
        let header = logins.set_cookie(&own, now).unwrap();
        let text = header.to_str().unwrap();
        for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
            assert!(text.contains(&format!("; {attribute}")), "{text}");
        }
        assert!(!text.contains("Domain") && format!("{header:?}") == "Sensitive");
        let headers = cookies(&header);
        assert!(logins.has_cookie(&headers, &own, now));
        assert!(!logins.has_cookie(&headers, &other, now));
        assert!(!logins.has_cookie(&headers, &own, now.after(limits::APP_COOKIE)));
        assert!(!logins.has_cookie(&HeaderMap::new(), &own, now));
        let value = text.split([';', '=']).nth(1).unwrap();
        assert!(logins.verify_code(&own, value, now).is_none());
        let code = logins.sign(Purpose::Code, &own, now.after(limits::APP_CODE));
        let line = HeaderValue::from_str(&format!("{COOKIE}={}", code.expose())).unwrap();
        let as_cookie = HeaderMap::from_iter([(header::COOKIE, line)]);
        assert!(!logins.has_cookie(&as_cookie, &own, now));
    }
}
