//! A duration policy: the whole amount at the quoted price, between a minimum and a maximum.

use paygress_policy_sdk::{
    Context, Duration, Grant, MAX_SECONDS, Order, Payment, Problems, Purpose, Quote, RefundTerms, Refusal, RefusalCode,
    check_owner, check_running, least_seconds, refuse, seconds_for,
};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "A minimum and a maximum")]
pub struct Settings {
    /// A payment that buys less is refused.
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    minimum_seconds: u64,
    /// A pod never has more than this before it; a payment that would exceed it is refused.
    #[schemars(range(min = 1, max = MAX_SECONDS))]
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

impl Duration for Settings {
    // What the schema does not say.
    fn check(&self, problems: &mut Problems) {
        if self.minimum_seconds > self.maximum_seconds {
            problems.add_last(&["minimum_seconds"], "must not be more than maximum_seconds");
        }
    }

    fn grant(&self, order: &Order, quote: &Quote, payment: &Payment, _: &Context) -> Result<Grant, Refusal> {
        check_running(order)?;
        check_owner(order)?;
        let remaining = match &order.purpose {
            Purpose::Spawn => 0,
            Purpose::Extend(lease) => lease.remaining_seconds,
        };
        let room = self.maximum_seconds.saturating_sub(remaining);
        let least = least_seconds(order, self.minimum_seconds);
        // Free time lasts as long as requested, or an hour.
        let free = order.wanted_seconds.unwrap_or(3_600).max(self.minimum_seconds).min(room);
        let seconds = seconds_for(quote.price, payment.net_sat).unwrap_or(free);
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
    fn a_minimum_above_the_maximum_is_reported() {
        let json = r#"{"minimum_seconds": 9, "maximum_seconds": 8}"#;
        let problems = paygress_policy_sdk::parse::<Settings>(json).err().unwrap();
        assert_eq!(problems[0].path, "/minimum_seconds");
    }
}
