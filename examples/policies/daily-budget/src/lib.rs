//! A budget: how much one customer may pay, and how much time they may buy, in 24 hours.
//!
//! An order counts for 24 hours from its arrival; what was refunded of it does not count. Orders at
//! the same time count for each other: one that is still to be decided with its sat. How much time
//! it buys is not known, so with a limit of time the others are refused until it is decided.
//! Somebody with several keys has several budgets: set `new_sat_per_day` low, or admit only customers
//! that somebody knows, as `web-of-trust` does.

use RefusalCode::{InvalidRequest, ResourceUnavailable};
use paygress_policy_sdk::{
    Context, CustomerHistory, Duration, Grant, MAX_SECONDS, Order, Payment, Problems, Quote,
    Refusal, RefusalCode, bought_seconds, check_least, check_public_key, check_running, refuse,
};
use schemars::JsonSchema;
use serde::Deserialize;

const DAY: u64 = 86_400;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Daily budget")]
pub struct Settings {
    /// How much a customer may pay in 24 hours, in sat.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    sat_per_day: u64,
    /// The same for a new customer; if omitted, they have no other budget.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    new_sat_per_day: Option<u64>,
    /// For how many days after their first order a customer is new.
    #[schemars(range(min = 1, max = 3_650))]
    new_days: u64,
    /// How much time a customer may buy in 24 hours, in hours; if omitted, only the sat are limited.
    #[schemars(range(min = 1, max = 87_600))]
    hours_per_day: Option<u64>,
    /// Customers without a limit: public keys in hex.
    #[schemars(length(max = 256), inner(regex(pattern = r"^[0-9a-f]{64}$")))]
    unlimited: Vec<String>,
    /// The shortest duration. A payment that buys less is refused.
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    minimum_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sat_per_day: 1_000,
            new_sat_per_day: None,
            new_days: 7,
            hours_per_day: None,
            unlimited: Vec::new(),
            minimum_seconds: 60,
        }
    }
}

paygress_policy_sdk::export!(Duration for Settings);

impl Duration for Settings {
    fn check(&self, problems: &mut Problems) {
        for (index, key) in self.unlimited.iter().enumerate() {
            check_public_key(key, &["unlimited", &index.to_string()], problems);
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
        let seconds = bought_seconds(order, quote, payment, self.minimum_seconds);
        check_least(order, payment, seconds, self.minimum_seconds)?;
        if !self.unlimited.contains(&order.customer) {
            self.check_limits(payment.net_sat, seconds, context.history.as_ref())?;
        }
        Ok(Grant { seconds, note: None })
    }
}

impl Settings {
    fn check_limits(
        &self,
        sat: u64,
        seconds: u64,
        history: Option<&CustomerHistory>,
    ) -> Result<(), Refusal> {
        let Some(history) = history else {
            let message = "a budget is a customer's; order with a Nostr key or a bearer token";
            return Err(refuse(InvalidRequest, message));
        };
        let first_seconds_ago = history.last_day_first_seconds_ago;
        let limit = self.sat_for(history);
        let (used, wanted) = (history.last_day_sat, sat);
        let sat = Budget { verbs: ["pay", "is worth"], unit: "sat", limit, used, wanted };
        sat.check(first_seconds_ago)?;
        let Some(hours) = self.hours_per_day else { return Ok(()) };
        if history.last_day_undecided > 0 {
            let message = "another order of yours is still to be decided; try again in a minute";
            return Err(refuse(ResourceUnavailable, message));
        }
        let limit = hours.saturating_mul(3_600);
        let (used, wanted) = (history.last_day_seconds, seconds);
        let time = Budget { verbs: ["buy", "buys"], unit: "s", limit, used, wanted };
        time.check(first_seconds_ago)
    }

    fn sat_for(&self, history: &CustomerHistory) -> u64 {
        let new_for = self.new_days.saturating_mul(DAY);
        match self.new_sat_per_day {
            Some(sat) if history.first_order_seconds_ago.is_none_or(|ago| ago < new_for) => sat,
            _ => self.sat_per_day,
        }
    }
}

/// What a customer may spend in 24 hours, has spent, and wants to spend.
struct Budget {
    /// What a customer does with it, and a token.
    verbs: [&'static str; 2],
    unit: &'static str,
    limit: u64,
    used: u64,
    wanted: u64,
}

impl Budget {
    fn check(&self, first_seconds_ago: Option<u64>) -> Result<(), Refusal> {
        let Self { verbs: [customer, token], unit, limit, used, wanted } = self;
        let left = limit.saturating_sub(*used);
        if *wanted <= left {
            return Ok(());
        }
        // With its first order of these 24 hours, what was spent on it is left again.
        let more = match first_seconds_ago {
            Some(ago) if wanted <= limit => {
                format!(", or wait: more is left in {}", time(DAY.saturating_sub(ago)))
            }
            _ => String::new(),
        };
        let message = format!(
            "a customer may {customer} {limit} {unit} in 24 hours; {left} {unit} are left, and this token {token} {wanted} {unit}; send less{more}"
        );
        Err(refuse(ResourceUnavailable, message))
    }
}

/// Rounded up to minutes.
fn time(seconds: u64) -> String {
    let minutes = seconds.div_ceil(60);
    match (minutes.checked_div(60), minutes.checked_rem(60)) {
        (Some(hours), Some(minutes)) if hours > 0 => format!("{hours} h {minutes} min"),
        _ => format!("{minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_how_much_is_left_and_when_more_is() {
        let history = |day_sat, first_ago| CustomerHistory {
            orders: 1,
            first_order_seconds_ago: first_ago,
            last_day_sat: day_sat,
            last_day_seconds: 0,
            last_day_first_seconds_ago: first_ago,
            last_day_undecided: 0,
        };
        let settings = Settings { sat_per_day: 100, ..Settings::default() };
        let refusal = |sat, history: CustomerHistory| {
            settings.check_limits(sat, 60, Some(&history)).map_err(|refusal| refusal.message)
        };
        assert_eq!(refusal(60, history(40, Some(7_200))), Ok(()));
        let message = "a customer may pay 100 sat in 24 hours; 60 sat are left, and this token is worth 61 sat; send less";
        let wait = format!("{message}, or wait: more is left in 22 h 0 min");
        assert_eq!(refusal(61, history(40, Some(7_200))), Err(wait));
        // No waiting makes room for it.
        let never = message.replace("60 sat are", "100 sat are").replace("61", "101");
        assert_eq!(refusal(101, history(0, None)), Err(never));
    }

    #[test]
    fn a_time_is_rounded_up_to_minutes() {
        for (seconds, text) in
            [(0, "0 min"), (1, "1 min"), (3_599, "1 h 0 min"), (3_661, "1 h 2 min")]
        {
            assert_eq!(time(seconds), text);
        }
    }
}
