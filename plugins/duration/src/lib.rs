//! The default duration policy: sells the whole net amount at the quoted price, between a minimum
//! and a maximum duration.

#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit/1.1", world: "duration-policy" });
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{Policy, bindings};
    bindings::export!(Policy with_types_in bindings);
}

use bindings::exports::paygress::policy::duration::{self, RefundTerms};
use bindings::exports::paygress::policy::settings;
use bindings::paygress::policy::types::{
    Context, Grant, Order, Payment, Price, Problem, Purpose, Quote, Refusal,
};
use paygress_plugin_settings::SettingsReader;

/// Ten years, the maximum of the contract.
const MAX_SECONDS: u64 = 315_360_000;

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Duration rules",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "minimum_seconds": {
      "type": "integer", "minimum": 1, "maximum": 315360000, "default": 60,
      "description": "The shortest duration. A payment that buys less is refused."
    },
    "maximum_seconds": {
      "type": "integer", "minimum": 1, "maximum": 315360000, "default": 2592000,
      "description": "The longest remaining duration of a pod. A payment that would exceed it is refused."
    },
    "round_to_seconds": {
      "type": "integer", "minimum": 1, "maximum": 86400, "default": 1,
      "description": "Durations are rounded down to a multiple of this; the customer gets a note."
    },
    "suggested_minutes": {
      "type": "integer", "minimum": 1, "maximum": 5256000, "default": 60,
      "description": "The duration that is suggested when a payment is too low, and granted when the price is zero."
    },
    "refund_percent": {
      "type": "integer", "minimum": 0, "maximum": 100, "default": 100,
      "description": "The share of the price of unused time that is refunded when the customer stops the pod; 0: no refund."
    },
    "refund_step_seconds": {
      "type": "integer", "minimum": 1, "maximum": 86400, "default": 60,
      "description": "When a pod is stopped, used time is charged in whole steps of this length."
    },
    "extend_by_others": {
      "type": "boolean", "default": false,
      "description": "If true, anyone may extend a pod; if false, only the customer who bought it."
    }
  }
}"#;

pub struct Policy;

#[derive(Clone, Debug)]
struct Settings {
    minimum: u64,
    maximum: u64,
    round_to: u64,
    suggested: u64,
    refund: RefundTerms,
    extend_by_others: bool,
}

paygress_plugin_settings::export_settings!(Policy, Settings, SCHEMA, parse_settings);

impl duration::Guest for Policy {
    fn grant(order: Order, quote: Quote, payment: Payment, _: Context) -> Result<Grant, Refusal> {
        let settings = SETTINGS.with_borrow(Clone::clone);
        let Some(settings) = settings else {
            return Err(refuse("resource_unavailable", "the duration policy is not configured"));
        };
        grant(&settings, &order, quote.price, &payment)
    }

    fn refund(_: Order, _: Quote, _: Payment, _: Grant, _: Context) -> RefundTerms {
        SETTINGS.with_borrow(|settings| {
            settings
                .as_ref()
                .map_or(RefundTerms { percent: 100, step_seconds: 60 }, |settings| settings.refund)
        })
    }
}

fn refuse(code: &str, message: impl Into<String>) -> Refusal {
    Refusal { code: code.to_owned(), message: message.into() }
}

fn parse_settings(json: &str) -> Result<Settings, Vec<paygress_plugin_settings::Problem>> {
    let mut reader = SettingsReader::parse(json);
    let settings = Settings {
        minimum: reader.number("minimum_seconds", 60, 1..=MAX_SECONDS),
        maximum: reader.number("maximum_seconds", 2_592_000, 1..=MAX_SECONDS),
        round_to: reader.number("round_to_seconds", 1, 1..=86_400),
        suggested: reader.number("suggested_minutes", 60, 1..=5_256_000).saturating_mul(60),
        refund: RefundTerms {
            percent: u8::try_from(reader.number("refund_percent", 100, 0..=100)).unwrap_or(100),
            step_seconds: reader.number("refund_step_seconds", 60, 1..=86_400),
        },
        extend_by_others: reader.boolean("extend_by_others", false),
    };
    if settings.minimum > settings.maximum {
        reader.problem(
            "minimum_seconds",
            format!("must not be more than maximum_seconds, {}", settings.maximum),
        );
    }
    if settings.round_to > settings.minimum {
        reader.problem(
            "round_to_seconds",
            format!(
                "must not be more than minimum_seconds, {}: a payment could buy nothing",
                settings.minimum
            ),
        );
    }
    reader.finish(settings)
}

fn grant(
    settings: &Settings,
    order: &Order,
    price: Price,
    payment: &Payment,
) -> Result<Grant, Refusal> {
    let remaining = match &order.purpose {
        Purpose::Spawn => 0,
        Purpose::Extend(lease) if lease.remaining_seconds == 0 => {
            return Err(refuse("lease_expired", "this pod has ended; order a new one"));
        }
        Purpose::Extend(lease) if !lease.owned_by_customer && !settings.extend_by_others => {
            return Err(refuse("not_owner", "only the customer who bought this pod may extend it"));
        }
        Purpose::Extend(lease) => lease.remaining_seconds,
    };
    let bought = match seconds_for(price, payment.net_sat) {
        Some(seconds) => seconds,
        // At a price of zero, the order says how long.
        None => order
            .wanted_seconds
            .unwrap_or(settings.suggested)
            .min(settings.maximum.saturating_sub(remaining)),
    };
    let seconds = bought.saturating_sub(bought.checked_rem(settings.round_to).unwrap_or(0));
    let minimum = settings.minimum.max(order.wanted_seconds.unwrap_or(0));
    if seconds < minimum {
        let message = too_little(settings, price, payment, seconds, minimum);
        return Err(refuse("insufficient_payment", message));
    }
    if seconds.saturating_add(remaining) > settings.maximum {
        let available = settings.maximum.saturating_sub(remaining);
        let message = format!(
            "the token buys {seconds} s, and this pod may have at most {available} s more; send at most {} sat net",
            max_sat_for(price, available)
        );
        return Err(refuse("invalid_request", message));
    }
    let note = (seconds < bought)
        .then(|| format!("the payment bought {bought} s, rounded down to {seconds} s"));
    Ok(Grant { seconds, note })
}

/// What is needed: at least, and for the suggested duration if that is longer.
fn too_little(
    settings: &Settings,
    price: Price,
    payment: &Payment,
    seconds: u64,
    minimum: u64,
) -> String {
    let (net, fee, cost) = (payment.net_sat, payment.fee_sat, sat_for(price, minimum));
    let needed = format!(
        "the token is worth {net} sat after the mint's fee of {fee} sat and buys {seconds} s; {minimum} s cost {cost} sat"
    );
    if settings.suggested <= minimum {
        return needed;
    }
    let (minutes, cost) = (settings.suggested.div_ceil(60), sat_for(price, settings.suggested));
    format!("{needed}, {minutes} minutes cost {cost} sat")
}

/// The whole seconds that an amount buys; `None` at a price of zero.
fn seconds_for(price: Price, sat: u64) -> Option<u64> {
    let msat = u128::from(sat).saturating_mul(1_000);
    let seconds =
        msat.saturating_mul(u128::from(price.seconds)).checked_div(u128::from(price.msat))?;
    Some(u64::try_from(seconds).unwrap_or(u64::MAX))
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
    use bindings::paygress::policy::types::Lease;

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
        grant(
            &parse_settings(json).unwrap(),
            order,
            price,
            &Payment {
                mint: String::new(),
                gross_sat: net_sat.saturating_add(1),
                fee_sat: 1,
                net_sat,
            },
        )
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

    #[test]
    fn all_problems_of_the_settings_are_reported_at_once() {
        let problems =
            parse_settings(r#"{"minimum_seconds": 100, "maximum_seconds": 50, "round_to_seconds": 200, "extend_by_others": 1}"#).unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(parse_settings("{}").unwrap().refund.percent, 100);
        assert_eq!(paths, ["/extend_by_others", "/minimum_seconds", "/round_to_seconds"]);
        assert!(serde_json::from_str::<serde_json::Value>(SCHEMA).is_ok());
    }
}
