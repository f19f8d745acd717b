//! The id of a tier.

use crate::limits;
use crate::model::checked_text::{checked_text, display_text, is_plain_within};
use crate::model::invalid_name::InvalidName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The id of a tier, as a pricing policy names it. The rule holds for what a policy returns. An id
/// that is stored, or that an author's test case has, is read as it is: a row of an earlier version
/// stays readable, and is written again unchanged. What a customer asks for is text until a policy
/// has found its tier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TierId(String);

checked_text!(TierId, "the id of a tier", "1 to 64 bytes without control characters", |text| {
    is_plain_within(text, limits::TIER_BYTES)
});
display_text!(TierId);

impl TierId {
    /// What the host quotes where a pricing policy refuses the sample order of a dry run.
    #[must_use]
    pub fn of_dry_run() -> Self {
        Self("sample".to_owned())
    }

    /// What test cases of policies have if their author names no other tier.
    #[must_use]
    pub fn of_test_case() -> Self {
        Self("standard".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::decision::Quote;
    use crate::testing;

    #[test]
    fn the_rule_is_that_of_the_contract() {
        let long = "x".repeat(limits::TIER_BYTES);
        for good in ["basic", "a b", "\u{1f980}", &long] {
            let tier = TierId::parse(good).unwrap();
            assert_eq!((tier.as_str(), tier.to_string()), (good, good.to_owned()));
            assert_eq!(String::from(tier), good);
        }
        let longer = "x".repeat(limits::TIER_BYTES + 1);
        for bad in ["", "a\nb", "\u{1b}[2J", "a\u{202e}b", &longer] {
            let error = TierId::parse(bad).unwrap_err().to_string();
            assert!(error.contains(&limits::TIER_BYTES.to_string()), "{bad:?}: {error}");
        }
        for own in [TierId::of_dry_run(), TierId::of_test_case()] {
            assert_eq!(TierId::parse(own.as_str()), Ok(own));
        }
    }

    #[test]
    fn a_stored_id_is_read_and_written_as_it_is() {
        let mut stored = serde_json::to_value(testing::agreement().decision.quote).unwrap();
        for id in ["basic", "", "a\u{7}b", &"x".repeat(500)] {
            stored["tier"] = id.into();
            let quote: Quote = serde_json::from_value(stored.clone()).unwrap();
            assert_eq!(quote.tier.as_str(), id);
            assert_eq!(serde_json::to_value(&quote).unwrap(), stored);
        }
        stored["tier"] = 7.into();
        assert!(serde_json::from_value::<Quote>(stored).is_err());
    }
}
