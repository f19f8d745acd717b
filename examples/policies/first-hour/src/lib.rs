//! Free time with a customer's first order: it is added to what they buy. An order needs a token, so
//! everybody pays something: at a sat a minute, one sat is an hour and a minute.
//!
//! A key costs nothing, so this is free time for each key. What it costs to come with a new key is
//! `minimum_sat`; to give it only to those whom somebody knows, admit customers by `web-of-trust`.
//! Of two first orders at the same time, one has the free time, or none.

use RefusalCode::{InsufficientPayment, LeaseExpired, NotOwner};
use paygress_policy_sdk::{
    Context, Duration, Grant, Order, Payment, Price, Purpose, Quote, Refusal, RefusalCode, refuse,
};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "First hour")]
pub struct Settings {
    /// The time that is added to a customer's first order, in seconds.
    #[schemars(range(min = 1, max = 31_536_000))]
    free_seconds: u64,
    /// The smallest net amount of a first order that has it, in sat.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    minimum_sat: u64,
    /// The shortest duration, with the free time. A payment that buys less is refused.
    #[schemars(range(min = 1, max = 315_360_000))]
    minimum_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { free_seconds: 3_600, minimum_sat: 1, minimum_seconds: 60 }
    }
}

paygress_policy_sdk::export!(Duration for Settings);

impl Duration for Settings {
    fn grant(
        &self,
        order: &Order,
        quote: &Quote,
        payment: &Payment,
        context: &Context,
    ) -> Result<Grant, Refusal> {
        check_purpose(&order.purpose)?;
        let free = self.free_seconds(order, payment, context);
        // At a price of zero, the order says how long.
        let bought = seconds_for(quote.price, payment.net_sat)
            .unwrap_or_else(|| order.wanted_seconds.unwrap_or(self.minimum_seconds));
        let seconds = bought.saturating_add(free);
        let minimum = self.minimum_seconds.max(order.wanted_seconds.unwrap_or(0));
        if seconds < minimum {
            let message = format!(
                "the token is worth {} sat after the mint's fee and buys {seconds} s; the least is {minimum} s",
                payment.net_sat
            );
            return Err(refuse(InsufficientPayment, message));
        }
        let note = (free > 0).then(|| format!("{free} s of it are free: this is your first order"));
        Ok(Grant { seconds, note })
    }
}

impl Settings {
    /// Nothing for a customer who is not known, who has ordered before, or who extends a pod.
    fn free_seconds(&self, order: &Order, payment: &Payment, context: &Context) -> u64 {
        let is_first = context.history.as_ref().is_some_and(|history| history.orders == 0);
        let is_spawn = matches!(order.purpose, Purpose::Spawn);
        match is_first && is_spawn && payment.net_sat >= self.minimum_sat {
            true => self.free_seconds,
            false => 0,
        }
    }
}

fn check_purpose(purpose: &Purpose) -> Result<(), Refusal> {
    match purpose {
        Purpose::Extend(lease) if lease.remaining_seconds == 0 => {
            Err(refuse(LeaseExpired, "this pod has ended; order a new one"))
        }
        Purpose::Extend(lease) if !lease.owned_by_customer => {
            Err(refuse(NotOwner, "only the customer who bought this pod may extend it"))
        }
        Purpose::Extend(_) | Purpose::Spawn => Ok(()),
    }
}

/// The whole seconds that an amount buys; `None` at a price of zero.
fn seconds_for(price: Price, sat: u64) -> Option<u64> {
    let msat = u128::from(sat).saturating_mul(1_000);
    let seconds =
        msat.saturating_mul(u128::from(price.seconds)).checked_div(u128::from(price.msat))?;
    Some(u64::try_from(seconds).unwrap_or(u64::MAX))
}
