//! What contract 1.1 adds to 1.0, converted into the types of `paygress-core`.

use crate::bindings::duration_1_1::exports::paygress::policy::duration::RefundTerms as Terms;
use crate::v1_0::{TEN_YEARS, invalid};
use paygress_core::backend::policy::{FaultKind, RefundTerms};
use paygress_core::model::units::Seconds;

pub(crate) fn checked_refund_terms(terms: Terms) -> Result<RefundTerms, FaultKind> {
    if !(1..=TEN_YEARS).contains(&terms.step_seconds) || terms.percent > 100 {
        return invalid(format!(
            "refund terms of {} % in steps of {} s",
            terms.percent, terms.step_seconds
        ));
    }
    Ok(RefundTerms { step: Seconds(terms.step_seconds), percent: terms.percent })
}
