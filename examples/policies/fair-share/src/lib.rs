//! How much one customer may have at a time: so many pods, and so much time ahead in all of them.
//!
//! It counts what runs, since the contract gives nothing else of a customer: neither their payments
//! nor pods that have ended. Somebody with several keys is several customers.

#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit/1.1", world: "duration-policy" });
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{FairShare, bindings};
    bindings::export!(FairShare with_types_in bindings);
}

use bindings::exports::paygress::policy::duration::{self, RefundTerms};
use bindings::exports::paygress::policy::settings;
use bindings::paygress::policy::types::{
    Context, Grant, Order, Payment, Price, Problem, Purpose, Quote, Refusal,
};
use paygress_plugin_settings::SettingsReader;

/// 63 at most: the context has 64 of a customer's pods, so that all that count are in it.
const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Fair share",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "max_pods": {"type": "integer", "minimum": 1, "maximum": 63, "default": 3, "description": "How many pods a customer may have at a time."},
    "max_hours": {"type": "integer", "minimum": 1, "maximum": 87600, "default": 168, "description": "The remaining time of all pods of a customer together, with what is bought, in hours."},
    "minimum_seconds": {"type": "integer", "minimum": 1, "maximum": 315360000, "default": 60, "description": "The shortest duration. A payment that buys less is refused."}
  }
}"#;

struct FairShare;

#[derive(Clone, Copy, Debug)]
struct Settings {
    max_pods: u64,
    max_seconds: u64,
    minimum_seconds: u64,
}

paygress_plugin_settings::export_settings!(FairShare, Settings, SCHEMA, parse_settings);

fn parse_settings(json: &str) -> Result<Settings, Vec<paygress_plugin_settings::Problem>> {
    let mut reader = SettingsReader::parse(json);
    let settings = Settings {
        max_pods: reader.number("max_pods", 3, 1..=63),
        max_seconds: reader.number("max_hours", 168, 1..=87_600).saturating_mul(3_600),
        minimum_seconds: reader.number("minimum_seconds", 60, 1..=315_360_000),
    };
    if settings.minimum_seconds > settings.max_seconds {
        let message = format!("must not be more than max_hours, {} s", settings.max_seconds);
        reader.problem("minimum_seconds", message);
    }
    reader.finish(settings)
}

impl duration::Guest for FairShare {
    fn grant(
        order: Order,
        quote: Quote,
        payment: Payment,
        context: Context,
    ) -> Result<Grant, Refusal> {
        let Some(settings) = SETTINGS.with_borrow(|settings| *settings) else {
            return Err(refuse("resource_unavailable", "the duration policy is not configured"));
        };
        check_purpose(settings, &order.purpose, &context)?;
        // At a price of zero, the order says how long.
        let seconds = seconds_for(quote.price, payment.net_sat)
            .unwrap_or_else(|| order.wanted_seconds.unwrap_or(settings.minimum_seconds));
        let minimum = settings.minimum_seconds.max(order.wanted_seconds.unwrap_or(0));
        if seconds < minimum {
            let message = format!(
                "the token is worth {} sat after the mint's fee and buys {seconds} s; the least is {minimum} s",
                payment.net_sat
            );
            return Err(refuse("insufficient_payment", message));
        }
        let available = settings.max_seconds.saturating_sub(remaining(&context));
        if seconds > available {
            let message = format!(
                "the token buys {seconds} s, and your pods may have {available} s more in all; send less, or later"
            );
            return Err(refuse("resource_unavailable", message));
        }
        Ok(Grant { seconds, note: None })
    }

    fn refund(_: Order, _: Quote, _: Payment, _: Grant, _: Context) -> RefundTerms {
        RefundTerms { step_seconds: 60, percent: 100 }
    }
}

fn refuse(code: &str, message: impl Into<String>) -> Refusal {
    Refusal { code: code.to_owned(), message: message.into() }
}

fn check_purpose(settings: Settings, purpose: &Purpose, context: &Context) -> Result<(), Refusal> {
    match purpose {
        Purpose::Extend(lease) if lease.remaining_seconds == 0 => {
            Err(refuse("lease_expired", "this pod has ended; order a new one"))
        }
        Purpose::Extend(lease) if !lease.owned_by_customer => {
            Err(refuse("not_owner", "only the customer who bought this pod may extend it"))
        }
        Purpose::Extend(_) => Ok(()),
        Purpose::Spawn => {
            let pods = own_seconds(context).count();
            if u64::try_from(pods).unwrap_or(u64::MAX) < settings.max_pods {
                return Ok(());
            }
            let message = format!(
                "you have {pods} pods already; stop one, or order again when one has ended"
            );
            Err(refuse("resource_unavailable", message))
        }
    }
}

/// The remaining time of each pod of this customer that has not ended.
fn own_seconds(context: &Context) -> impl Iterator<Item = u64> {
    let own = context.customer_leases.iter().filter(|lease| lease.owned_by_customer);
    own.map(|lease| lease.remaining_seconds).filter(|seconds| *seconds > 0)
}

fn remaining(context: &Context) -> u64 {
    own_seconds(context).fold(0, u64::saturating_add)
}

/// The whole seconds that an amount buys; `None` at a price of zero.
fn seconds_for(price: Price, sat: u64) -> Option<u64> {
    let msat = u128::from(sat).saturating_mul(1_000);
    let seconds =
        msat.saturating_mul(u128::from(price.seconds)).checked_div(u128::from(price.msat))?;
    Some(u64::try_from(seconds).unwrap_or(u64::MAX))
}
