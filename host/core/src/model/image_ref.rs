//! The reference of an image.

use crate::limits;
use crate::model::checked_text::{checked_text, display_text, is_plain_within};
use crate::model::invalid_name::InvalidName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The image of a pod, as an images policy admits it. The rule holds for what a policy returns. A
/// reference that is stored, or that an author's test case has, is read as it is: a row of an earlier
/// version stays readable, and is written again unchanged. What a customer asks for is text until a
/// policy has admitted it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageRef(String);

checked_text!(
    ImageRef,
    "the reference of an image",
    "1 to 512 bytes without control characters",
    |text| is_plain_within(text, limits::IMAGE_BYTES)
);
display_text!(ImageRef);

impl ImageRef {
    /// What a template is rendered with where an images policy refuses the sample order of a dry
    /// run.
    #[must_use]
    pub fn of_dry_run() -> Self {
        Self("example.invalid/image:1".to_owned())
    }

    /// What test cases of policies have if their author names no other image.
    #[must_use]
    pub fn of_test_case() -> Self {
        Self("registry.example/ssh:1".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{LeaseId, OrderId};
    use crate::model::lease::Lease;
    use crate::testing;

    #[test]
    fn the_rule_is_that_of_the_contract() {
        let long = "x".repeat(limits::IMAGE_BYTES);
        for good in ["debian:13", "registry.example:5000/a/b@sha256:0", "a b", &long] {
            let image = ImageRef::parse(good).unwrap();
            assert_eq!((image.as_str(), image.to_string()), (good, good.to_owned()));
            assert_eq!(String::from(image), good);
        }
        let longer = "x".repeat(limits::IMAGE_BYTES + 1);
        for bad in ["", "a\nb", "\u{1b}[2J", "a\u{202e}b", &longer] {
            let error = ImageRef::parse(bad).unwrap_err().to_string();
            assert!(error.contains(&limits::IMAGE_BYTES.to_string()), "{bad:?}: {error}");
        }
        for own in [ImageRef::of_dry_run(), ImageRef::of_test_case()] {
            assert_eq!(ImageRef::parse(own.as_str()), Ok(own));
        }
    }

    #[test]
    fn a_stored_reference_is_read_and_written_as_it_is() {
        let lease = testing::lease(LeaseId::of(&OrderId::random()), 1, 2);
        let mut stored = serde_json::to_value(&lease).unwrap();
        for reference in ["debian:13", "", "a\u{7}b", &"x".repeat(600)] {
            stored["image"] = reference.into();
            let lease: Lease = serde_json::from_value(stored.clone()).unwrap();
            assert_eq!(lease.image.as_str(), reference);
            assert_eq!(serde_json::to_value(&lease).unwrap(), stored);
        }
        stored["image"] = 7.into();
        assert!(serde_json::from_value::<Lease>(stored).is_err());
    }
}
