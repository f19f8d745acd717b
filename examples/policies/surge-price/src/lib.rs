//! Surge pricing: above a given utilisation the price rises linearly, up to a multiple of the base
//! price when nothing is left; below it, it falls to a share of the base price when nothing is used, if
//! the operator wants that. A running lease keeps the price at which it was bought.
//!
//! The utilisation is that of the leases, or of the nodes' CPU or memory where the host knows these
//! and one of them is higher: other programs fill nodes too.

use paygress_policy_sdk::{Context, Offer, Price, Pricing, Resources};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Surge pricing by utilisation")]
pub struct Settings {
    /// The base price of an hour, in sat.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    sats_per_hour: u64,
    /// The utilisation above which the price rises.
    #[schemars(range(min = 0, max = 99))]
    from_percent: u64,
    /// The price when nothing is used, in percent of the base price.
    #[schemars(range(min = 1, max = 100))]
    empty_percent: u64,
    /// The price when nothing is left, in percent of the base price.
    #[schemars(range(min = 100, max = 10_000))]
    full_percent: u64,
    /// The smallest net amount that is accepted, in sat.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    minimum_sat: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sats_per_hour: 60,
            from_percent: 50,
            empty_percent: 100,
            full_percent: 300,
            minimum_sat: 1,
        }
    }
}

impl Settings {
    /// Per hour, so that it is exact: at most 1e9 × 1e3 × 100 msat.
    fn price(&self, context: &Context) -> Price {
        let used = used_percent(context);
        let percent = match used.checked_sub(self.from_percent) {
            Some(above) => {
                let range = 100_u64.saturating_sub(self.from_percent);
                share(self.full_percent.saturating_sub(100), above, range).saturating_add(100)
            }
            None => {
                let rise = 100_u64.saturating_sub(self.empty_percent);
                share(rise, used, self.from_percent).saturating_add(self.empty_percent)
            }
        };
        let msat = self.sats_per_hour.saturating_mul(10).saturating_mul(percent);
        Price { msat, seconds: 3_600 }
    }
}

/// How much is used of what is scarcest, rounded down: 0 to 100.
fn used_percent(context: &Context) -> u64 {
    let leases = share(100, context.active_leases.into(), context.capacity_leases.max(1).into());
    let nodes = context
        .utilisation
        .as_ref()
        .map_or(0, |nodes| nodes.cpu_per_mille.max(nodes.memory_per_mille));
    leases.max(share(100, nodes.into(), 1_000)).min(100)
}

/// What a part of a range is of the whole, rounded down.
fn share(whole: u64, part: u64, range: u64) -> u64 {
    whole.saturating_mul(part).checked_div(range).unwrap_or(0)
}

impl Pricing for Settings {
    fn offers(&self, context: &Context) -> Vec<Offer> {
        vec![Offer {
            id: "standard".to_owned(),
            name: "Standard".to_owned(),
            description: "1 CPU, 1 GiB of memory; the price rises with utilisation".to_owned(),
            resources: Resources { cpu_millicores: 1_000, memory_mib: 1_024 },
            price: self.price(context),
            minimum_sat: self.minimum_sat,
        }]
    }
}

paygress_policy_sdk::export!(Pricing for Settings);
