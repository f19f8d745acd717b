//! Free time with a customer's first order: it is added to what they buy. An order needs a token, so
//! everybody pays something: at a sat a minute, one sat is an hour and a minute.
//!
//! A key costs nothing, so this is free time for each key. What it costs to come with a new key is
//! `minimum_sat`; to give it only to those whom somebody knows, admit customers by `web-of-trust`.
//! Of two first orders at the same time, one has the free time, or none.

use paygress_policy_sdk::{
    Context, Duration, Grant, MAX_SECONDS, Order, Payment, Purpose, Quote, Refusal, bought_seconds,
    check_least, check_owner, check_running,
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
    #[schemars(range(min = 1, max = MAX_SECONDS))]
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
        check_running(order)?;
        check_owner(order)?;
        let free = self.free_seconds(order, payment, context);
        let bought = bought_seconds(order, quote, payment, self.minimum_seconds);
        let seconds = bought.saturating_add(free);
        check_least(order, payment, seconds, self.minimum_seconds)?;
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
