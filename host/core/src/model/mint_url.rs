//! The URL of a mint.

use crate::model::invalid_name::InvalidName;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use url::Url;

/// A mint's URL in its canonical form, whatever it was written as: lower-case scheme and host, no
/// default port, no slash at the end, an international host in Punycode. Two are the same mint only
/// if they are equal as a whole. The mint of a recorded payment is read in whatever form it has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct MintUrl(String);

impl MintUrl {
    /// Reads a URL, in any of its forms.
    ///
    /// # Errors
    /// [`InvalidName`] with the rule that it breaks.
    pub fn parse(text: impl AsRef<str>) -> Result<Self, InvalidName> {
        let rule = "http:// or https://, a host, and no blanks";
        canonical(text.as_ref()).map(Self).ok_or(InvalidName { what: "the URL of a mint", rule })
    }

    /// What policies see where nobody pays: in a dry run.
    #[must_use]
    pub fn of_dry_run() -> Self {
        Self("https://mint.invalid".to_owned())
    }

    /// What test cases of policies have if their author names no other mint.
    #[must_use]
    pub fn of_test_case() -> Self {
        Self("https://mint.example".to_owned())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads the mint of a payment that is stored, or that an author's test case has, as it is: what
/// policies have seen is what they see when they are called again.
pub(super) fn as_recorded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MintUrl, D::Error> {
    String::deserialize(deserializer).map(MintUrl)
}

fn canonical(text: &str) -> Option<String> {
    // The parser would skip blanks and control characters, and add slashes that are missing.
    let (scheme, _) = text.split_once("://")?;
    let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    if !is_http || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let is_path_last = url.query().is_none() && url.fragment().is_none();
    let text = url.as_str();
    Some(if is_path_last { text.trim_end_matches('/') } else { text }.to_owned())
}

impl TryFrom<String> for MintUrl {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(text)
    }
}

impl From<MintUrl> for String {
    fn from(url: MintUrl) -> Self {
        url.0
    }
}

impl fmt::Display for MintUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::decision::Payment;
    use crate::testing;

    #[test]
    fn every_way_to_write_a_mint_is_one_canonical_url() {
        for (canonical, ways) in [
            (
                "https://mint.example",
                &[
                    "https://mint.example",
                    "https://mint.example/",
                    "https://mint.example//",
                    "https://mint.example:443",
                    "https://mint.example:443/",
                    "HTTPS://MINT.Example",
                    "https://mint.example/.",
                    "https://mint.ex%61mple",
                ][..],
            ),
            ("http://mint.example", &["http://mint.example:80/", "HTTP://Mint.Example:80"]),
            ("http://mint.example:443", &["http://mint.example:443/"]),
            ("https://mint.example:80", &["https://mint.example:80"]),
            (
                "https://mint.example/Bitcoin",
                &["https://MINT.example:443/Bitcoin/", "https://mint.example/a/../Bitcoin"],
            ),
            ("https://xn--mnze-0ra.example", &["https://münze.example", "https://MÜNZE.example/"]),
            ("http://[2001:db8::1]:3338", &["http://[2001:DB8:0:0::1]:3338/"]),
            ("http://127.0.0.1:3338", &["http://127.0.0.1:03338", "http://0x7f.1:3338"]),
        ] {
            for way in ways {
                assert_eq!(MintUrl::parse(way).unwrap().as_str(), canonical, "{way}");
            }
            assert_eq!(MintUrl::parse(canonical).unwrap().as_str(), canonical);
        }
    }

    #[test]
    fn another_mint_stays_another_one() {
        let mint = MintUrl::parse("https://mint.example").unwrap();
        for other in [
            "http://mint.example",
            "https://mint.example:8443",
            "https://mint.example/Bitcoin",
            "https://mint.example.evil",
            "https://mint.example@evil",
            "https://evil/mint.example",
            "https://mint.example\\@evil",
            "https://mint.example/?a=/",
            "https://mint.example#x",
            "https://mint.example.",
        ] {
            assert_ne!(MintUrl::parse(other).unwrap(), mint, "{other}");
        }
        // The path's case is the mint's.
        assert_ne!(
            MintUrl::parse("https://mint.example/Bitcoin"),
            MintUrl::parse("https://mint.example/bitcoin")
        );
    }

    #[test]
    fn what_is_no_url_of_a_mint_is_refused() {
        for text in [
            "",
            "https://",
            "https:mint.example",
            "ftp://mint.example",
            "mint.example",
            " https://mint.example",
            "https://mint.example/a b",
            "https://mint\u{7}.example",
            "https://mint.example:99999",
        ] {
            assert!(MintUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_url_that_was_stored_in_another_form_reads_as_the_canonical_one() {
        let stored: MintUrl = serde_json::from_str(r#""https://MINT.example:443/""#).unwrap();
        assert_eq!(serde_json::to_string(&stored).unwrap(), r#""https://mint.example""#);
    }

    #[test]
    fn the_mint_of_a_recorded_payment_is_read_and_written_as_it_is() {
        let mut stored = serde_json::to_value(testing::agreement().payment).unwrap();
        for mint in ["https://mint.example", "https://MINT.example:443/", "", "a mint"] {
            stored["mint"] = mint.into();
            let payment: Payment = serde_json::from_value(stored.clone()).unwrap();
            assert_eq!(payment.mint.as_str(), mint);
            assert_eq!(serde_json::to_value(&payment).unwrap(), stored);
        }
        stored["mint"] = 7.into();
        assert!(serde_json::from_value::<Payment>(stored).is_err());
    }

    #[test]
    fn the_urls_without_a_mint_are_canonical() {
        for own in [MintUrl::of_dry_run(), MintUrl::of_test_case()] {
            assert_eq!(MintUrl::parse(own.as_str()), Ok(own));
        }
    }
}
