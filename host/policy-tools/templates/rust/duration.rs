//! A duration policy: the whole amount at the quoted price, between a minimum and a maximum.

use paygress_policy_sdk::{
    Context, Duration, Grant, Order, Payment, Price, Problems, Purpose, Quote, RefundTerms, Refusal, RefusalCode, refuse,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// Ten years, the contract's maximum.
const LONGEST: u64 = 315_360_000;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "A minimum and a maximum")]
pub struct Settings {
    /// A payment that buys less is refused.
    #[schemars(range(min = 1, max = LONGEST))]
    minimum_seconds: u64,
    /// A pod never has more than this before it; a payment that would exceed it is refused.
    #[schemars(range(min = 1, max = LONGEST))]
    maximum_seconds: u64,
    /// The part of the price of unused time that is refunded when a customer stops a pod.
    #[schemars(range(min = 0, max = 100))]
    refund_percent: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self { minimum_seconds: 60, maximum_seconds: 2_592_000, refund_percent: 100 }
    }
}

/// The whole seconds that an amount buys; `None` when time costs nothing.
fn buys(price: Price, sat: u64) -> Option<u64> {
    let seconds = (u128::from(sat) * 1_000 * u128::from(price.seconds)).checked_div(u128::from(price.msat))?;
    Some(u64::try_from(seconds).unwrap_or(u64::MAX))
}

impl Duration for Settings {
    // What the schema does not say.
    fn check(&self, problems: &mut Problems) {
        if self.minimum_seconds > self.maximum_seconds {
            problems.add_last(&["minimum_seconds"], "must not be more than maximum_seconds");
        }
    }

    fn grant(&self, order: &Order, quote: &Quote, payment: &Payment, _: &Context) -> Result<Grant, Refusal> {
        let remaining = match &order.purpose {
            Purpose::Spawn => 0,
            Purpose::Extend(lease) if lease.remaining_seconds == 0 => {
                return Err(refuse(RefusalCode::LeaseExpired, "this pod has ended; order a new one"));
            }
            Purpose::Extend(lease) if !lease.owned_by_customer => {
                return Err(refuse(RefusalCode::NotOwner, "only the customer who bought this pod may extend it"));
            }
            Purpose::Extend(lease) => lease.remaining_seconds,
        };
        let room = self.maximum_seconds.saturating_sub(remaining);
        let least = self.minimum_seconds.max(order.wanted_seconds.unwrap_or(0));
        // Free time lasts as long as requested, or an hour.
        let free = order.wanted_seconds.unwrap_or(3_600).max(self.minimum_seconds).min(room);
        let seconds = buys(quote.price, payment.net_sat).unwrap_or(free);
        if seconds < least {
            let message = format!("the token is worth {} sat and buys {seconds} s; the least is {least} s", payment.net_sat);
            return Err(refuse(RefusalCode::InsufficientPayment, message));
        }
        if seconds > room {
            let message = format!("the token buys {seconds} s, and this pod may have at most {room} s more");
            return Err(refuse(RefusalCode::InvalidRequest, message));
        }
        Ok(Grant { seconds, note: None })
    }

    // Used minutes are charged whole.
    fn refund(&self, _: &Order, _: &Quote, _: &Payment, _: &Grant, _: &Context) -> RefundTerms {
        RefundTerms { step_seconds: 60, percent: self.refund_percent }
    }
}

paygress_policy_sdk::export!(Duration for Settings);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sat_at_a_sat_a_minute_is_a_minute() {
        assert_eq!(buys(Price { msat: 1_000, seconds: 60 }, 1), Some(60));
    }
}
