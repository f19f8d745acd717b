//! A table of tiers, each with its size, its price and its smallest amount. The file with the table
//! is the settings. A tier that is no longer for sale stays in it for the pods that have it: they are
//! extended at its price.

use paygress_policy_sdk::{
    Context, Offer, Order, Price, Pricing, Problems, Purpose, Quote, Refusal, Resources,
    check_tier_ids, refuse_tier,
};
use schemars::JsonSchema;
use serde::Deserialize;

const MAX_SAT: u64 = 10_000_000_000;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Price table")]
pub struct Settings {
    /// The tiers, the default first. If omitted: standard, at a sat a minute.
    #[schemars(length(min = 1, max = 64))]
    tiers: Vec<Tier>,
}

// Without a doc comment: it would be part of the schema.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Tier {
    #[schemars(length(min = 1, max = 64))]
    id: String,
    #[schemars(length(min = 1, max = 500))]
    description: Option<String>,
    #[serde(default = "one_core")]
    #[schemars(range(min = 1, max = 1_000_000))]
    cpu_millicores: u32,
    #[serde(default = "one_gib")]
    #[schemars(range(min = 1, max = 16_777_216))]
    memory_mib: u32,
    #[schemars(range(min = 1, max = MAX_SAT))]
    sats_per_hour: u64,
    #[serde(default = "one_sat")]
    #[schemars(range(min = 0, max = MAX_SAT))]
    minimum_sat: u64,
    /// If false, pods of this tier are extended, and no new ones are sold.
    #[serde(default = "yes")]
    for_sale: bool,
}

fn one_core() -> u32 {
    1_000
}

fn one_gib() -> u32 {
    1_024
}

fn one_sat() -> u64 {
    1
}

fn yes() -> bool {
    true
}

impl Default for Settings {
    fn default() -> Self {
        let standard = Tier {
            id: "standard".to_owned(),
            description: Some("1 CPU, 1 GiB of memory".to_owned()),
            cpu_millicores: one_core(),
            memory_mib: one_gib(),
            sats_per_hour: 60,
            minimum_sat: one_sat(),
            for_sale: yes(),
        };
        Self { tiers: vec![standard] }
    }
}

paygress_policy_sdk::export!(Pricing for Settings);

impl Pricing for Settings {
    fn check(&self, problems: &mut Problems) {
        if self.for_sale().next().is_none() {
            problems.add(&["tiers"], "must hold at least one tier that is for sale");
        }
        check_tier_ids(self.tiers.iter().map(|tier| tier.id.as_str()), problems);
    }

    fn offers(&self, _: &Context) -> Vec<Offer> {
        self.for_sale().map(Tier::offer).collect()
    }

    fn quote(&self, order: &Order, _: &Context) -> Result<Quote, Refusal> {
        let tier = match (&order.purpose, &order.tier) {
            (Purpose::Extend(lease), _) => self.tiers.iter().find(|tier| tier.id == lease.tier),
            (Purpose::Spawn, Some(id)) => self.for_sale().find(|tier| tier.id == *id),
            (Purpose::Spawn, None) => self.for_sale().next(),
        };
        let Some(tier) = tier else {
            return Err(refuse_tier(self.for_sale().map(|tier| tier.id.as_str())));
        };
        Ok(Quote::from(&tier.offer()))
    }
}

impl Settings {
    fn for_sale(&self) -> impl Iterator<Item = &Tier> {
        self.tiers.iter().filter(|tier| tier.for_sale)
    }
}

impl Tier {
    /// Priced per hour, so that it is exact.
    fn offer(&self) -> Offer {
        let (cpu_millicores, memory_mib) = (self.cpu_millicores, self.memory_mib);
        let size = || format!("{cpu_millicores} mCPU, {memory_mib} MiB of memory");
        Offer {
            id: self.id.clone(),
            name: self.id.clone(),
            description: self.description.clone().unwrap_or_else(size),
            resources: Resources { cpu_millicores, memory_mib },
            price: Price { msat: self.sats_per_hour.saturating_mul(1_000), seconds: 3_600 },
            minimum_sat: self.minimum_sat,
        }
    }
}
