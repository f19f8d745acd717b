//! A SHA-256 digest in hex.

use crate::model::checked_text::{checked_text, is_hex};
use crate::model::invalid_name::InvalidName;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// The SHA-256 of a policy's component, or of its settings, in hex. One that is stored, or that a
/// receipt has, is read as it is. The default is that of nothing that is known: empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HexDigest(String);

checked_text!(HexDigest, "a SHA-256 digest", "64 lower-case hex digits", |text| is_hex(text, 64));

impl HexDigest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(hex::encode(Sha256::digest(bytes)))
    }
}

impl fmt::Display for HexDigest {
    /// As short and as wide as the format says.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::decision::{Digests, SettingsDigests};
    use serde_json::json;

    #[test]
    fn it_is_64_lower_case_hex_digits() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest = HexDigest::of(b"");
        assert_eq!((digest.as_str(), digest.to_string()), (empty, empty.to_owned()));
        assert_eq!(HexDigest::parse(empty), Ok(digest.clone()));
        assert_eq!(String::from(digest), empty);
        let prefixed = format!("sha256:{empty}");
        for bad in ["", "e3b0", &empty.to_uppercase(), &empty.replace('e', "g"), &prefixed] {
            assert!(HexDigest::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn it_is_written_as_short_and_as_wide_as_the_format_says() {
        let digest = HexDigest::of(b"");
        assert_eq!(format!("{digest:.12}"), "e3b0c44298fc");
        assert_eq!(format!("{digest:<14.12}|"), "e3b0c44298fc  |");
    }

    #[test]
    fn stored_digests_are_read_and_written_as_they_are() {
        let names = ["images", "pricing", "duration", "pod_template"];
        for text in ["e3b0c44298fc", "", "an earlier form"] {
            let of_slots: serde_json::Map<String, serde_json::Value> =
                names.iter().map(|name| ((*name).to_owned(), json!(text))).collect();
            let mut stored = json!(of_slots);
            stored["settings"] = json!(of_slots);
            let digests: Digests = serde_json::from_value(stored.clone()).unwrap();
            assert_eq!(digests.pod_template.as_str(), text);
            let settings: Option<SettingsDigests> = digests.settings.clone();
            assert_eq!(settings.unwrap().pricing.as_str(), text);
            assert_eq!(serde_json::to_value(&digests).unwrap(), stored);
        }
        assert!(serde_json::from_value::<HexDigest>(json!(7)).is_err());
    }
}
