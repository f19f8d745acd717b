//! A duration policy: the whole amount at the quoted price, between a minimum and a maximum.

mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "duration-policy" });
}
mod reader;

use bindings::exports::paygress::policy::duration::{self, RefundTerms};
use bindings::exports::paygress::policy::settings;
use bindings::paygress::policy::types::{Context, Grant, Order, Payment, Price, Problem, Purpose, Quote, Refusal};
use reader::Reader;
use std::cell::RefCell;

/// Ten years, the contract's maximum.
const LONGEST: u64 = 315_360_000;

const SCHEMA: &str = r#"{schema}"#;

#[derive(Clone)]
struct Settings {
    minimum: u64,
    maximum: u64,
    refund_percent: u64,
}

fn read(json: &str) -> Result<Settings, Vec<Problem>> {
    let mut reader = Reader::parse(json);
    let settings = Settings {
        minimum: reader.number("minimum_seconds", 60, 1..=LONGEST),
        maximum: reader.number("maximum_seconds", 2_592_000, 1..=LONGEST),
        refund_percent: reader.number("refund_percent", 100, 0..=100),
    };
    if settings.minimum > settings.maximum {
        reader.problem("minimum_seconds", "must not be more than maximum_seconds");
    }
    reader.end(settings)
}

struct Policy;

thread_local! {
    // Set by `configure`, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
    static SETTINGS: RefCell<Option<Settings>> = const { RefCell::new(None) };
}

impl settings::Guest for Policy {
    fn schema() -> String {
        SCHEMA.to_owned()
    }

    fn configure(json: String) -> Result<(), Vec<Problem>> {
        SETTINGS.set(Some(read(&json)?));
        Ok(())
    }
}

fn refuse(code: &str, message: impl Into<String>) -> Refusal {
    Refusal { code: code.to_owned(), message: message.into() }
}

/// The whole seconds that an amount buys; `None` when time costs nothing.
fn buys(price: Price, sat: u64) -> Option<u64> {
    let seconds = (u128::from(sat) * 1_000 * u128::from(price.seconds)).checked_div(u128::from(price.msat))?;
    Some(u64::try_from(seconds).unwrap_or(u64::MAX))
}

impl duration::Guest for Policy {
    fn grant(order: Order, quote: Quote, payment: Payment, _: Context) -> Result<Grant, Refusal> {
        let Some(settings) = SETTINGS.with_borrow(Clone::clone) else {
            return Err(refuse("resource_unavailable", "the duration policy is not configured"));
        };
        let remaining = match &order.purpose {
            Purpose::Spawn => 0,
            Purpose::Extend(lease) if lease.remaining_seconds == 0 => {
                return Err(refuse("lease_expired", "this pod has ended; order a new one"));
            }
            Purpose::Extend(lease) if !lease.owned_by_customer => {
                return Err(refuse("not_owner", "only the customer who bought this pod may extend it"));
            }
            Purpose::Extend(lease) => lease.remaining_seconds,
        };
        let room = settings.maximum.saturating_sub(remaining);
        let least = settings.minimum.max(order.wanted_seconds.unwrap_or(0));
        // Free time lasts as long as requested, or an hour.
        let seconds = buys(quote.price, payment.net_sat).unwrap_or(order.wanted_seconds.unwrap_or(3_600).max(settings.minimum).min(room));
        if seconds < least {
            let message = format!("the token is worth {} sat and buys {seconds} s; the least is {least} s", payment.net_sat);
            return Err(refuse("insufficient_payment", message));
        }
        if seconds > room {
            let message = format!("the token buys {seconds} s, and this pod may have at most {room} s more");
            return Err(refuse("invalid_request", message));
        }
        Ok(Grant { seconds, note: None })
    }

    fn refund(_: Order, _: Quote, _: Payment, _: Grant, _: Context) -> RefundTerms {
        let percent = SETTINGS.with_borrow(|settings| settings.as_ref().map_or(100, |settings| settings.refund_percent));
        // Used minutes are charged whole.
        RefundTerms { step_seconds: 60, percent: u8::try_from(percent).unwrap_or(100) }
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Policy with_types_in bindings);
