//! What is due of a payment whose time is not used up. The service pays it back, and whoever verifies
//! a receipt recomputes it: both call these functions.

use crate::model::decision::RefundTerms;
use crate::model::order_state::RefundFees;
use crate::model::units::{Sat, Seconds, UnixTime};

/// The terms on which time goes back that we failed to serve: to the second, and to the last sat.
pub const LOSS_TERMS: RefundTerms = RefundTerms { step: Seconds(1), percent: 100 };

/// How long a pod was served until then. Its time begins when it is ready: that is when the order that
/// made it would end, less what that order bought.
#[must_use]
pub fn served(expires_at: UnixTime, granted: Seconds, until: UnixTime) -> Seconds {
    until.since(expires_at.minus(granted))
}

/// A payment, and how much of the time that it bought is used.
#[derive(Clone, Copy, Debug)]
pub struct PartlyUsed {
    /// What was sent.
    pub gross: Sat,
    /// What the mint gave for it.
    pub redeemed: Sat,
    pub granted: Seconds,
    pub used: Seconds,
}

impl PartlyUsed {
    /// What is due of it on these terms, and what the operator adds to that.
    #[must_use]
    pub fn refund_due(self, terms: RefundTerms, fees: RefundFees) -> (Sat, Option<Sat>) {
        let Self { gross, redeemed, granted, used } = self;
        let step = terms.step.0.max(1);
        let charged = used.0.checked_next_multiple_of(step).map_or(granted, Seconds);
        let share =
            |amount: Sat| amount.share(granted.minus(charged), granted).percent(terms.percent);
        let (due, sent) = (share(redeemed), share(gross));
        match fees {
            RefundFees::Customer => (due, None),
            RefundFees::Operator => {
                // There is no token over nothing, should the wallet hold no more than what is due.
                let due = due.max(sent.min(Sat(1)));
                (due, fees.added(sent, due))
            }
        }
    }
}
