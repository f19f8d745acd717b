//! The domain below which each pod has a name of its own, for its HTTP port.

use crate::model::ids::{InvalidName, PodName};
use std::fmt;

/// What a domain may have, so that a pod's name and a dot fit before it (RFC 1035).
const DOMAIN_BYTES: usize = 200;
/// A label of a name in DNS.
const LABEL_BYTES: usize = 63;

/// A wildcard name of the operator's without its `*.`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppsDomain(String);

/// What the host of a request is to the domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppHost {
    /// A name outside of the domain.
    Other,
    /// A name of the domain that is no pod's.
    NoPod,
    /// The name of what may be a pod.
    Pod(PodName),
}

impl AppsDomain {
    /// # Errors
    /// [`InvalidName`]: it is no name of DNS with two labels at least.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let text = text.to_ascii_lowercase();
        let is_label = |label: &str| {
            let is_plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
            (1..=LABEL_BYTES).contains(&label.len())
                && label.bytes().all(is_plain)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let is_number = |label: &str| label.bytes().all(|c| c.is_ascii_digit());
        let is_valid = text.len() <= DOMAIN_BYTES
            && text.contains('.')
            && text.split('.').all(is_label)
            && text.rsplit('.').next().is_some_and(|last| !is_number(last));
        match is_valid {
            true => Ok(Self(text)),
            false => Err(InvalidName {
                what: "a domain for apps",
                rule: "names such as apps.example.com, without *. and without a port,",
            }),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of this pod.
    #[must_use]
    pub fn host_of(&self, pod: &PodName) -> String {
        format!("{pod}.{}", self.0)
    }

    /// The URL of this pod. Its TLS is of a proxy before the service.
    #[must_use]
    pub fn url_of(&self, pod: &PodName) -> String {
        format!("https://{}", self.host_of(pod))
    }

    /// Whether this is a host of the domain: itself, or any name below it.
    #[must_use]
    pub fn contains(&self, host: &str) -> bool {
        self.app_host(host) != AppHost::Other
    }

    /// What a host is to the domain, as requests name it: with a port or without, in any case.
    #[must_use]
    pub fn app_host(&self, host: &str) -> AppHost {
        let name = host.split(':').next().unwrap_or_default().trim();
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let Some(rest) = name.strip_suffix(&self.0) else { return AppHost::Other };
        if rest.is_empty() {
            return AppHost::NoPod;
        }
        let Some(label) = rest.strip_suffix('.') else { return AppHost::Other };
        match PodName::parse(label) {
            Ok(pod) if pod.lease().is_some() => AppHost::Pod(pod),
            _ => AppHost::NoPod,
        }
    }
}

impl fmt::Display for AppsDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_a_name_of_dns_without_a_wildcard() {
        for good in ["apps.example", "Apps.Example.com", "a-b.c1.example"] {
            assert!(AppsDomain::parse(good).is_ok(), "{good}");
        }
        let long = format!("{}.example", "a".repeat(64));
        for bad in
            ["", "apps", "*.apps.example", ".apps.example", "apps.example.", "a b.example", &long]
        {
            assert!(AppsDomain::parse(bad).is_err(), "{bad}");
        }
        for bad in ["apps.example:443", "https://apps.example", "192.0.2.7", "-a.example"] {
            assert!(AppsDomain::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_name_of_the_domain_is_known_however_it_is_written() {
        let domain = AppsDomain::parse("apps.example").unwrap();
        let pod = PodName::parse("ssh-pod-abcdefg234").unwrap();
        assert_eq!(domain.url_of(&pod), "https://ssh-pod-abcdefg234.apps.example");
        for host in [
            "ssh-pod-abcdefg234.apps.example",
            "SSH-Pod-ABCDEFG234.Apps.Example:443",
            "ssh-pod-abcdefg234.apps.example.",
            "ssh-pod-abcdefg234.apps.example.:8443",
        ] {
            assert_eq!(domain.app_host(host), AppHost::Pod(pod.clone()), "{host}");
        }
        for host in [
            "apps.example",
            "ssh-pod-abcdefg23.apps.example",
            "a.ssh-pod-abcdefg234.apps.example",
            ".apps.example",
            "ssh-pod-abcdefg234@x.apps.example:1:2",
        ] {
            assert_eq!(domain.app_host(host), AppHost::NoPod, "{host}");
        }
        for host in ["", "pods.example", "xapps.example", "apps.example.net", "[::1]:80"] {
            assert_eq!(domain.app_host(host), AppHost::Other, "{host}");
        }
    }
}
