//! What pricing policies with several tiers have in common.

use crate::contract::types::paygress::policy::types::Refusal;
use crate::problem::Problems;
use crate::refusal::{RefusalCode, refuse};

/// Reports each id in the setting `tiers` that an earlier tier has.
pub fn check_tier_ids<'a>(ids: impl Iterator<Item = &'a str> + Clone, problems: &mut Problems) {
    for (index, id) in ids.clone().enumerate() {
        if ids.clone().take(index).any(|earlier| earlier == id) {
            problems.add(&["tiers"], format!("two tiers have the id {id}"));
        }
    }
}

/// The refusal of an order for a tier that there is not. It names those for sale.
#[must_use]
pub fn refuse_tier<'a>(for_sale: impl Iterator<Item = &'a str>) -> Refusal {
    let known: Vec<&str> = for_sale.collect();
    let message = format!("there is no such tier; choose one of: {}", known.join(", "));
    refuse(RefusalCode::InvalidSpec, message)
}
