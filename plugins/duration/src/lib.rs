//! The default duration policy: sells the whole net amount at the quoted price, between a minimum
//! and a maximum duration.

use RefusalCode::{InsufficientPayment, InvalidRequest};
use paygress_policy_sdk::{
    Context, Duration, Grant, MAX_SECONDS, Order, Payment, Price, Problems, Purpose, Quote,
    RefundTerms, Refusal, RefusalCode, check_owner, check_running, least_seconds, refuse,
    seconds_for,
};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Duration rules")]
pub struct Settings {
    /// The shortest duration. A payment that buys less is refused.
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    minimum_seconds: u64,
    /// The longest remaining duration of a pod. A payment that would exceed it is refused.
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    maximum_seconds: u64,
    /// Durations are rounded down to a multiple of this; the customer gets a note.
    #[schemars(range(min = 1, max = 86_400))]
    round_to_seconds: u64,
    /// The duration that is suggested when a payment is too low, and granted when the price is zero.
    #[schemars(range(min = 1, max = 5_256_000))]
    suggested_minutes: u64,
    /// The share of the price of unused time that is refunded when the customer stops the pod; 0: no
    /// refund.
    #[schemars(range(min = 0, max = 100))]
    refund_percent: u8,
    /// When a pod is stopped, used time is charged in whole steps of this length.
    #[schemars(range(min = 1, max = 86_400))]
    refund_step_seconds: u64,
    /// If true, anyone may extend a pod; if false, only the customer who bought it.
    extend_by_others: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            minimum_seconds: 60,
            maximum_seconds: 2_592_000,
            round_to_seconds: 1,
            suggested_minutes: 60,
            refund_percent: 100,
            refund_step_seconds: 60,
            extend_by_others: false,
        }
    }
}

paygress_policy_sdk::export!(Duration for Settings);

impl Duration for Settings {
    fn check(&self, problems: &mut Problems) {
        let (minimum, maximum) = (self.minimum_seconds, self.maximum_seconds);
        if minimum > maximum {
            let message = format!("must not be more than maximum_seconds, {maximum}");
            problems.add_last(&["minimum_seconds"], message);
        }
        if self.round_to_seconds > minimum {
            let message = format!(
                "must not be more than minimum_seconds, {minimum}: a payment could buy nothing"
            );
            problems.add_last(&["round_to_seconds"], message);
        }
    }

    fn grant(
        &self,
        order: &Order,
        quote: &Quote,
        payment: &Payment,
        _: &Context,
    ) -> Result<Grant, Refusal> {
        self.grant_at(quote.price, order, payment)
    }

    fn refund(&self, _: &Order, _: &Quote, _: &Payment, _: &Grant, _: &Context) -> RefundTerms {
        RefundTerms { percent: self.refund_percent, step_seconds: self.refund_step_seconds }
    }
}

impl Settings {
    fn suggested_seconds(&self) -> u64 {
        self.suggested_minutes.saturating_mul(60)
    }

    fn grant_at(&self, price: Price, order: &Order, payment: &Payment) -> Result<Grant, Refusal> {
        check_running(order)?;
        if !self.extend_by_others {
            check_owner(order)?;
        }
        let remaining = match &order.purpose {
            Purpose::Spawn => 0,
            Purpose::Extend(lease) => lease.remaining_seconds,
        };
        let available = self.maximum_seconds.saturating_sub(remaining);
        // At a price of zero, the order says how long.
        let bought = seconds_for(price, payment.net_sat).unwrap_or_else(|| {
            order.wanted_seconds.unwrap_or(self.suggested_seconds()).min(available)
        });
        let seconds = bought.saturating_sub(bought.checked_rem(self.round_to_seconds).unwrap_or(0));
        let minimum = least_seconds(order, self.minimum_seconds);
        if seconds < minimum {
            let message = self.too_little(price, payment, seconds, minimum);
            return Err(refuse(InsufficientPayment, message));
        }
        if seconds.saturating_add(remaining) > self.maximum_seconds {
            let message = format!(
                "the token buys {seconds} s, and this pod may have at most {available} s more; send at most {} sat net",
                max_sat_for(price, available)
            );
            return Err(refuse(InvalidRequest, message));
        }
        let note = (seconds < bought)
            .then(|| format!("the payment bought {bought} s, rounded down to {seconds} s"));
        Ok(Grant { seconds, note })
    }

    /// What is needed: at least, and for the suggested duration if that is longer.
    fn too_little(&self, price: Price, payment: &Payment, seconds: u64, minimum: u64) -> String {
        let (net, fee, cost) = (payment.net_sat, payment.fee_sat, sat_for(price, minimum));
        let needed = format!(
            "the token is worth {net} sat after the mint's fee of {fee} sat and buys {seconds} s; {minimum} s cost {cost} sat"
        );
        if self.suggested_seconds() <= minimum {
            return needed;
        }
        let cost = sat_for(price, self.suggested_seconds());
        format!("{needed}, {} minutes cost {cost} sat", self.suggested_minutes)
    }
}

/// The smallest amount that buys at least this duration.
fn sat_for(price: Price, seconds: u64) -> u64 {
    let msat = u128::from(seconds)
        .saturating_mul(u128::from(price.msat))
        .div_ceil(u128::from(price.seconds.max(1)));
    u64::try_from(msat.div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// The largest amount that buys at most this duration.
fn max_sat_for(price: Price, seconds: u64) -> u64 {
    let msat = u128::from(seconds)
        .saturating_mul(u128::from(price.msat))
        .checked_div(u128::from(price.seconds))
        .unwrap_or(0);
    u64::try_from(msat.checked_div(1_000).unwrap_or(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_policy_sdk::{Lease, parse, schema};

    const MINUTE: Price = Price { msat: 1_000, seconds: 60 };

    fn order(purpose: Purpose, wanted_seconds: Option<u64>) -> Order {
        Order {
            id: String::new(),
            customer: String::new(),
            purpose,
            image: None,
            tier: None,
            username: String::new(),
            wanted_seconds,
        }
    }

    fn extend(remaining_seconds: u64, owned_by_customer: bool) -> Purpose {
        Purpose::Extend(Lease {
            id: String::new(),
            tier: String::new(),
            image: String::new(),
            created_at_unix_seconds: 0,
            expires_at_unix_seconds: 0,
            remaining_seconds,
            owned_by_customer,
        })
    }

    fn grant_for(json: &str, order: &Order, price: Price, net_sat: u64) -> Result<Grant, Refusal> {
        let gross_sat = net_sat.saturating_add(1);
        let payment = Payment { mint: String::new(), gross_sat, fee_sat: 1, net_sat };
        parse::<Settings>(json).unwrap().grant_at(price, order, &payment)
    }

    #[test]
    fn by_default_a_sat_buys_a_minute() {
        let granted = grant_for("{}", &order(Purpose::Spawn, None), MINUTE, 20).unwrap();
        assert_eq!((granted.seconds, granted.note), (1_200, None));
    }

    #[test]
    fn the_refusal_of_a_low_payment_says_what_is_needed() {
        let refused = grant_for("{}", &order(Purpose::Spawn, Some(600)), MINUTE, 9).unwrap_err();
        assert_eq!(refused.code, "insufficient_payment");
        assert!(
            refused.message.ends_with("; 600 s cost 10 sat, 60 minutes cost 60 sat"),
            "{}",
            refused.message
        );
        let refused = grant_for("{}", &order(Purpose::Spawn, Some(3_600)), MINUTE, 9).unwrap_err();
        assert!(refused.message.ends_with("; 3600 s cost 60 sat"), "{}", refused.message);
        assert_eq!(
            grant_for("{}", &order(Purpose::Spawn, None), MINUTE, 0).unwrap_err().code,
            "insufficient_payment"
        );
    }

    #[test]
    fn the_whole_payment_is_sold_even_if_less_was_wanted() {
        assert_eq!(
            grant_for("{}", &order(Purpose::Spawn, Some(60)), MINUTE, 5).unwrap().seconds,
            300
        );
    }

    #[test]
    fn rounding_is_noted_in_the_grant() {
        let granted = grant_for(
            r#"{"round_to_seconds": 60}"#,
            &order(Purpose::Spawn, None),
            Price { msat: 7, seconds: 1 },
            1,
        )
        .unwrap();
        assert_eq!(granted.seconds, 120);
        assert_eq!(granted.note.unwrap(), "the payment bought 142 s, rounded down to 120 s");
    }

    #[test]
    fn the_maximum_includes_the_remaining_time() {
        let json = r#"{"maximum_seconds": 600}"#;
        assert_eq!(
            grant_for(json, &order(extend(300, true), None), MINUTE, 5).unwrap().seconds,
            300
        );
        let refused = grant_for(json, &order(extend(301, true), None), MINUTE, 5).unwrap_err();
        assert_eq!(refused.code, "invalid_request");
        assert!(refused.message.contains("at most 4 sat"), "{}", refused.message);
    }

    #[test]
    fn other_customers_extend_only_if_allowed() {
        assert_eq!(
            grant_for("{}", &order(extend(300, false), None), MINUTE, 5).unwrap_err().code,
            "not_owner"
        );
        assert!(
            grant_for(r#"{"extend_by_others": true}"#, &order(extend(300, false), None), MINUTE, 5)
                .is_ok()
        );
        assert_eq!(
            grant_for("{}", &order(extend(0, true), None), MINUTE, 5).unwrap_err().code,
            "lease_expired"
        );
    }

    #[test]
    fn no_amount_overflows() {
        let refused = grant_for(
            "{}",
            &order(Purpose::Spawn, None),
            Price { msat: 1, seconds: 315_360_000 },
            u64::MAX - 1,
        )
        .unwrap_err();
        assert_eq!(refused.code, "invalid_request");
        assert!(
            grant_for("{}", &order(Purpose::Spawn, None), Price { msat: 0, seconds: 1 }, 0)
                .is_ok_and(|grant| grant.seconds == 3_600)
        );
    }

    /// As they have been reported, and the schema been published, since before there was an SDK.
    #[test]
    fn problems_and_schema_are_as_they_were() {
        let json = r#"{"minimum_seconds": 100, "maximum_seconds": 50, "round_to_seconds": 200, "refund_percent": 101, "typo": 1, "extend_by_others": 1}"#;
        let problems = parse::<Settings>(json).err().unwrap();
        let shown: Vec<_> = problems.iter().map(|it| (&*it.path, &*it.message)).collect();
        assert_eq!(
            shown,
            [
                ("/refund_percent", "must be a whole number from 0 to 100"),
                ("/extend_by_others", "must be true or false"),
                ("/minimum_seconds", "must not be more than maximum_seconds, 50"),
                (
                    "/round_to_seconds",
                    "must not be more than minimum_seconds, 100: a payment could buy nothing"
                ),
                (
                    "/typo",
                    "is not a setting; known are: minimum_seconds, maximum_seconds, round_to_seconds, suggested_minutes, refund_percent, refund_step_seconds, extend_by_others"
                ),
            ]
        );
        assert_eq!(parse::<Settings>("{}").unwrap().refund_percent, 100);
        let before: serde_json::Value =
            serde_json::from_str(include_str!("../schema.json")).unwrap();
        assert_eq!(schema::<Settings>(), before);
    }
}
