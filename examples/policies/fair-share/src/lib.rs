//! How much one customer may have at a time: so many pods, and so much time ahead in all of them.
//!
//! It counts what runs: `daily-budget` counts what was paid. Somebody with several keys is several
//! customers.

use RefusalCode::{InsufficientPayment, LeaseExpired, NotOwner, ResourceUnavailable};
use paygress_policy_sdk::{
    Context, Duration, Grant, Order, Payment, Price, Problems, Purpose, Quote, Refusal,
    RefusalCode, refuse,
};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Fair share")]
pub struct Settings {
    // The context has 64 of a customer's pods: all that count are in it.
    /// How many pods a customer may have at a time.
    #[schemars(range(min = 1, max = 63))]
    max_pods: u64,
    /// The remaining time of all pods of a customer together, with what is bought, in hours.
    #[schemars(range(min = 1, max = 87_600))]
    max_hours: u64,
    /// The shortest duration. A payment that buys less is refused.
    #[schemars(range(min = 1, max = 315_360_000))]
    minimum_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_pods: 3, max_hours: 168, minimum_seconds: 60 }
    }
}

paygress_policy_sdk::export!(Duration for Settings);

impl Duration for Settings {
    fn check(&self, problems: &mut Problems) {
        let max_seconds = self.max_seconds();
        if self.minimum_seconds > max_seconds {
            let message = format!("must not be more than max_hours, {max_seconds} s");
            problems.add_last(&["minimum_seconds"], message);
        }
    }

    fn grant(
        &self,
        order: &Order,
        quote: &Quote,
        payment: &Payment,
        context: &Context,
    ) -> Result<Grant, Refusal> {
        self.check_purpose(&order.purpose, context)?;
        // At a price of zero, the order says how long.
        let seconds = seconds_for(quote.price, payment.net_sat)
            .unwrap_or_else(|| order.wanted_seconds.unwrap_or(self.minimum_seconds));
        let minimum = self.minimum_seconds.max(order.wanted_seconds.unwrap_or(0));
        if seconds < minimum {
            let message = format!(
                "the token is worth {} sat after the mint's fee and buys {seconds} s; the least is {minimum} s",
                payment.net_sat
            );
            return Err(refuse(InsufficientPayment, message));
        }
        let remaining = own_seconds(context).fold(0, u64::saturating_add);
        let available = self.max_seconds().saturating_sub(remaining);
        if seconds > available {
            let message = format!(
                "the token buys {seconds} s, and your pods may have {available} s more in all; send less, or later"
            );
            return Err(refuse(ResourceUnavailable, message));
        }
        Ok(Grant { seconds, note: None })
    }
}

impl Settings {
    fn max_seconds(&self) -> u64 {
        self.max_hours.saturating_mul(3_600)
    }

    fn check_purpose(&self, purpose: &Purpose, context: &Context) -> Result<(), Refusal> {
        match purpose {
            Purpose::Extend(lease) if lease.remaining_seconds == 0 => {
                Err(refuse(LeaseExpired, "this pod has ended; order a new one"))
            }
            Purpose::Extend(lease) if !lease.owned_by_customer => {
                Err(refuse(NotOwner, "only the customer who bought this pod may extend it"))
            }
            Purpose::Extend(_) => Ok(()),
            Purpose::Spawn => {
                let pods = own_seconds(context).count();
                if u64::try_from(pods).unwrap_or(u64::MAX) < self.max_pods {
                    return Ok(());
                }
                let message = format!(
                    "you have {pods} pods already; stop one, or order again when one has ended"
                );
                Err(refuse(ResourceUnavailable, message))
            }
        }
    }
}

/// The remaining time of each pod of this customer that has not ended.
fn own_seconds(context: &Context) -> impl Iterator<Item = u64> {
    let own = context.customer_leases.iter().filter(|lease| lease.owned_by_customer);
    own.map(|lease| lease.remaining_seconds).filter(|seconds| *seconds > 0)
}

/// The whole seconds that an amount buys; `None` at a price of zero.
fn seconds_for(price: Price, sat: u64) -> Option<u64> {
    let msat = u128::from(sat).saturating_mul(1_000);
    let seconds =
        msat.saturating_mul(u128::from(price.seconds)).checked_div(u128::from(price.msat))?;
    Some(u64::try_from(seconds).unwrap_or(u64::MAX))
}
