//! How much one customer may have at a time: so many pods, and so much time ahead in all of them.
//!
//! It counts what runs, and what is being made: `daily-budget` counts what was paid. How much time an
//! order has bought is not known before its pod runs, so while one is under way the customer's others
//! are refused. Somebody with several keys is several customers.

use RefusalCode::ResourceUnavailable;
use paygress_policy_sdk::{
    Context, Duration, Grant, Lease, MAX_SECONDS, Order, Payment, Problems, Purpose, Quote,
    Refusal, RefusalCode, bought_seconds, check_least, check_owner, check_running, refuse,
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
        check_none_under_way(context)?;
        let seconds = bought_seconds(order, quote, payment, self.minimum_seconds);
        check_least(order, payment, seconds, self.minimum_seconds)?;
        let seconds_ahead = own_leases(context).map(|lease| lease.remaining_seconds);
        let remaining = seconds_ahead.fold(0, u64::saturating_add);
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
        let pods = own_leases(context).count();
        if u64::try_from(pods).unwrap_or(u64::MAX) < self.max_pods {
            return Ok(());
        }
        let message =
            format!("you have {pods} pods already; stop one, or order again when one has ended");
        Err(refuse(ResourceUnavailable, message))
    }
}

/// Refuses while it is not known how much time another order of this customer has.
fn check_none_under_way(context: &Context) -> Result<(), Refusal> {
    let history = context.history.as_ref();
    let is_undecided = history.is_some_and(|history| history.last_day_undecided > 0);
    if is_undecided || own_leases(context).any(|lease| lease.remaining_seconds == 0) {
        let message = "another order of yours is under way, and its time counts once its pod runs; try again then";
        return Err(refuse(ResourceUnavailable, message));
    }
    Ok(())
}

/// The pods of this customer that are not over. One that is being made ends at the time of the
/// decision, as far as the context knows.
fn own_leases(context: &Context) -> impl Iterator<Item = &Lease> {
    let now = context.now_unix_seconds;
    let own = context.customer_leases.iter().filter(|lease| lease.owned_by_customer);
    own.filter(move |lease| lease.expires_at_unix_seconds >= now)
}
