//! Where a redirect may lead, and every other URL that a server gives us to go to.

use crate::address::{Reach, is_public};
use crate::url::{is_confidential, is_http_url, is_private, is_same_server};
use hyper::Uri;
use hyper::header::HeaderMap;
use hyper::header::LOCATION;
use std::net::IpAddr;

/// The rule for redirects that a caller follows explicitly with
/// [`HttpClient::follow`](crate::HttpClient::follow).
///
/// Every hop has to be https; plain HTTP is followed from this machine to this machine only, and
/// within a server that was spoken to in plain HTTP already. A
/// server on the public internet cannot send us to a private address, such as the metadata
/// service of a cloud: neither by writing it into the URL, nor by a name that leads there. Names that
/// a proxy resolves are not checked here; what answers behind one needs a certificate for that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedirectPolicy {
    /// How many redirects may follow each other.
    pub max_hops: usize,
}

/// A server that may lead us on: by a redirect, or by a URL in its response.
#[derive(Clone, Debug)]
pub struct Origin {
    pub(crate) url: Uri,
    /// Where the request to it could go.
    pub(crate) reach: Reach,
    /// Where it has answered from, unless a proxy was between.
    pub(crate) address: Option<IpAddr>,
}

impl Origin {
    /// A server that the operator named and that has not answered yet.
    #[must_use]
    pub fn named(url: Uri) -> Self {
        Self { url, reach: Reach::Any, address: None }
    }

    /// Where a request to a URL that it names may go: no further than the request to it, and to the
    /// public internet only, if it is there itself.
    pub(crate) fn reach_of(&self, to: &Uri) -> Reach {
        let is_internal = is_private(self.url.host().unwrap_or_default())
            || self.address.is_some_and(|address| !is_public(address));
        if is_internal || is_same_server(&self.url, to) { self.reach } else { Reach::Public }
    }
}

/// Why a redirect, or another URL that a server gave, is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    #[error("its location is no URL")]
    InvalidLocation,
    #[error("its location is not https")]
    NotConfidential,
    #[error("its location is a private address")]
    PrivateAddress,
    #[error("it redirects without end: more than {max_hops} times")]
    TooManyHops { max_hops: usize },
}

/// The absolute URL in the `Location` header: an absolute path on the same server, or a whole URL.
/// Other forms are legal, but no registry uses them.
pub(crate) fn location(from: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    let is_path = location.starts_with('/') && !location.starts_with("//");
    let url = if is_path {
        format!("{}://{}{location}", from.scheme_str()?, from.authority()?).parse()
    } else {
        location.parse()
    };
    url.ok().filter(is_http_url)
}

/// The URL to go to, if the rule allows it.
pub(crate) fn destination(from: &Uri, headers: &HeaderMap) -> Result<Uri, RedirectError> {
    let to = location(from, headers).ok_or(RedirectError::InvalidLocation)?;
    check_destination(from, &to)?;
    Ok(to)
}

/// Whether a server may send us to a URL, by the rule of [`RedirectPolicy`]: in a redirect, or in any
/// other part of its response. What its name leads to is checked by
/// [`HttpClient::send_from`](crate::HttpClient::send_from).
///
/// # Errors
/// Why not.
pub fn check_destination(from: &Uri, to: &Uri) -> Result<(), RedirectError> {
    let is_internal = |url: &Uri| is_private(url.host().unwrap_or_default());
    if !is_http_url(to) {
        Err(RedirectError::InvalidLocation)
    } else if !is_confidential(from, to) && !is_same_server(from, to) {
        Err(RedirectError::NotConfidential)
    } else if is_internal(to) && !is_internal(from) {
        Err(RedirectError::PrivateAddress)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    fn headers(location: &str) -> HeaderMap {
        HeaderMap::from_iter([(LOCATION, HeaderValue::from_str(location).unwrap())])
    }

    #[test]
    fn locations_are_paths_or_whole_urls() {
        let from: Uri = "https://a.example:5000/v2/x".parse().unwrap();
        let to = |text: &str| location(&from, &headers(text));
        assert_eq!(to("/v2/y?z=1").unwrap(), "https://a.example:5000/v2/y?z=1");
        assert_eq!(to("https://b.example/y").unwrap(), "https://b.example/y");
        for bad in
            ["//b.example/y", "y", "ftp://b.example/y", "https://user:secret@b.example/y", ""]
        {
            assert_eq!(to(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_public_server_leads_only_to_public_https() {
        for (from, to, expected) in [
            ("https://a.example/", "https://b.example/", None),
            ("https://a.example/", "http://b.example/", Some(RedirectError::NotConfidential)),
            ("https://a.example/", "https://10.0.0.1/", Some(RedirectError::PrivateAddress)),
            ("https://a.example/", "https://localhost/", Some(RedirectError::PrivateAddress)),
            ("https://a.example/", "https://LOCALHOST/", Some(RedirectError::PrivateAddress)),
            ("https://a.example/", "https://localhost./", Some(RedirectError::PrivateAddress)),
            ("https://a.example/", "https://127.1/", Some(RedirectError::InvalidLocation)),
            ("https://a.example/", "https://2130706433/", Some(RedirectError::InvalidLocation)),
            ("https://a.example/", "https://0x7f.1/", Some(RedirectError::InvalidLocation)),
            ("https://9.9.9.9/", "https://[fd00::1]/", Some(RedirectError::PrivateAddress)),
            // Names are resolved once they are connected to.
            ("https://a.example/", "https://internal.b.example/", None),
            ("https://10.0.0.1/", "https://10.0.0.2/", None),
            ("http://127.0.0.1:1/", "http://localhost:2/", None),
            ("http://a.example:1/x", "/y", None),
            ("http://a.example:1/", "http://a.example:2/", Some(RedirectError::NotConfidential)),
            ("http://127.0.0.1:1/", "http://b.example/", Some(RedirectError::NotConfidential)),
            ("https://a.example/", "mailto:x", Some(RedirectError::InvalidLocation)),
        ] {
            let from: Uri = from.parse().unwrap();
            assert_eq!(destination(&from, &headers(to)).err(), expected, "{from} to {to}");
        }
    }

    #[test]
    fn a_server_leads_no_further_than_it_is_itself() {
        let origin = |url: &str, reach, address: Option<&str>| Origin {
            url: url.parse().unwrap(),
            reach,
            address: address.map(|address| address.parse().unwrap()),
        };
        let (any, public) = (Reach::Any, Reach::Public);
        for (from, to, expected) in [
            (origin("https://a.example/", any, Some("9.9.9.9")), "https://b.example/", public),
            (origin("https://a.example/", any, Some("9.9.9.9")), "https://A.example:443/x", any),
            // The operator's own network, and the names in it.
            (origin("https://a.example/", any, Some("10.0.0.1")), "https://b.example/", any),
            (origin("https://a.example/", any, Some("::ffff:10.0.0.1")), "https://b.example/", any),
            (origin("http://127.0.0.1:1/", any, Some("127.0.0.1")), "http://127.0.0.1:2/", any),
            // Through a proxy, or not connected to yet.
            (origin("https://a.example/", any, None), "https://b.example/", public),
            (origin("https://10.0.0.1/", any, None), "https://b.example/", any),
            // A public server that another one has named.
            (origin("https://b.example/", public, Some("9.9.9.9")), "https://b.example/x", public),
            (origin("https://b.example/", public, None), "https://a.example/", public),
        ] {
            assert_eq!(from.reach_of(&to.parse().unwrap()), expected, "{from:?} to {to}");
        }
    }

    proptest! {
        #[test]
        fn any_location_is_survived(text in "[ -~]{0,60}") {
            let _ = destination(&"https://a.example/".parse().unwrap(), &headers(&text));
        }
    }
}
