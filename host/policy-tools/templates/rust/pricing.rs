//! A pricing policy: one size, so many sat an hour.

use paygress_policy_sdk::{Context, Offer, Price, Pricing, Resources};
use schemars::JsonSchema;
use serde::Deserialize;

/// More is a mistake in the settings.
const MOST: u64 = 10_000_000_000;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "One price")]
pub struct Settings {
    #[schemars(range(min = 1, max = MOST))]
    sats_per_hour: u64,
    /// The least net amount that is accepted, in sat.
    #[schemars(range(min = 0, max = MOST))]
    minimum_sat: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { sats_per_hour: 60, minimum_sat: 1 }
    }
}

impl Pricing for Settings {
    // What an order costs is the price of the offer with its tier.
    fn offers(&self, _: &Context) -> Vec<Offer> {
        vec![Offer {
            id: "standard".to_owned(),
            name: "Standard".to_owned(),
            description: "A pod with SSH".to_owned(),
            resources: Resources { cpu_millicores: 1_000, memory_mib: 1_024 },
            // Exact: in thousandths of a sat, for an hour.
            price: Price { msat: self.sats_per_hour * 1_000, seconds: 3_600 },
            minimum_sat: self.minimum_sat,
        }]
    }
}

paygress_policy_sdk::export!(Pricing for Settings);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_price_is_a_setting() {
        let settings = paygress_policy_sdk::parse::<Settings>(r#"{"sats_per_hour": 120}"#).unwrap();
        let now = Context { now_unix_seconds: 0, capacity_leases: 1, active_leases: 0, customer_leases: Vec::new(), history: None, utilisation: None };
        assert_eq!(settings.offers(&now)[0].price.msat, 120_000);
    }
}
