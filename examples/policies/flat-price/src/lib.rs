//! A minimal pricing policy: one tier at two sat per minute, no settings.

use paygress_policy_sdk::{Context, Offer, Price, Pricing, Resources};

#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct Settings {}

impl Pricing for Settings {
    fn offers(&self, _: &Context) -> Vec<Offer> {
        vec![Offer {
            id: "flat".to_owned(),
            name: "Flat".to_owned(),
            description: "Half a CPU, half a GiB".to_owned(),
            resources: Resources { cpu_millicores: 500, memory_mib: 512 },
            price: Price { msat: 2_000, seconds: 60 },
            minimum_sat: 1,
        }]
    }
}

paygress_policy_sdk::export!(Pricing for Settings);
