//! How much one customer may have at a time: so many pods, and so much time ahead in all of them.
//!
//! It counts what runs: `daily-budget` counts what was paid. Somebody with several keys is several
//! customers.

use RefusalCode::ResourceUnavailable;
use paygress_policy_sdk::{
    Context, Duration, Grant, MAX_SECONDS, Order, Payment, Problems, Purpose, Quote, Refusal,
    RefusalCode, bought_seconds, check_least, check_owner, check_running, refuse,
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
    #[schemars(range(min = 1, max = MAX_SECONDS))]
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
        check_running(order)?;
        check_owner(order)?;
        if matches!(order.purpose, Purpose::Spawn) {
            self.check_pods(context)?;
        }
        let seconds = bought_seconds(order, quote, payment, self.minimum_seconds);
        check_least(order, payment, seconds, self.minimum_seconds)?;
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

    /// Refuses a new pod if there are as many as may be.
    fn check_pods(&self, context: &Context) -> Result<(), Refusal> {
        let pods = own_seconds(context).count();
        if u64::try_from(pods).unwrap_or(u64::MAX) < self.max_pods {
            return Ok(());
        }
        let message =
            format!("you have {pods} pods already; stop one, or order again when one has ended");
        Err(refuse(ResourceUnavailable, message))
    }
}

/// The remaining time of each pod of this customer that has not ended.
fn own_seconds(context: &Context) -> impl Iterator<Item = u64> {
    let own = context.customer_leases.iter().filter(|lease| lease.owned_by_customer);
    own.map(|lease| lease.remaining_seconds).filter(|seconds| *seconds > 0)
}
