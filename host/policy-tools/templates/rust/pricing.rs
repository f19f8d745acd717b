//! A pricing policy: one size, so many sat an hour.

mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "pricing-policy" });
}
mod reader;

use bindings::exports::paygress::policy::{pricing, settings};
use bindings::paygress::policy::types::{Context, Offer, Order, Price, Problem, Purpose, Quote, Refusal, Resources};
use reader::Reader;
use std::cell::RefCell;

const TIER: &str = "standard";
const SIZE: Resources = Resources { cpu_millicores: 1_000, memory_mib: 1_024 };

const SCHEMA: &str = r#"{schema}"#;

#[derive(Clone)]
struct Settings {
    sats_per_hour: u64,
    minimum_sat: u64,
}

fn read(json: &str) -> Result<Settings, Vec<Problem>> {
    let mut reader = Reader::parse(json);
    let settings = Settings {
        sats_per_hour: reader.number("sats_per_hour", 60, 1..=10_000_000_000),
        minimum_sat: reader.number("minimum_sat", 1, 0..=10_000_000_000),
    };
    reader.end(settings)
}

struct Policy;

thread_local! {
    // Set by `configure`, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
    static SETTINGS: RefCell<Option<Settings>> = const { RefCell::new(None) };
}

impl settings::Guest for Policy {
    fn schema() -> String {
        SCHEMA.to_owned()
    }

    fn configure(json: String) -> Result<(), Vec<Problem>> {
        SETTINGS.set(Some(read(&json)?));
        Ok(())
    }
}

impl Settings {
    /// Exact: in thousandths of a sat, for an hour.
    fn price(&self) -> Price {
        Price { msat: self.sats_per_hour * 1_000, seconds: 3_600 }
    }
}

impl pricing::Guest for Policy {
    fn offers(_: Context) -> Vec<Offer> {
        let Some(settings) = SETTINGS.with_borrow(Clone::clone) else { return Vec::new() };
        vec![Offer {
            id: TIER.to_owned(),
            name: "Standard".to_owned(),
            description: "A pod with SSH".to_owned(),
            resources: SIZE,
            price: settings.price(),
            minimum_sat: settings.minimum_sat,
        }]
    }

    fn quote(order: Order, _: Context) -> Result<Quote, Refusal> {
        // More time for a running pod is of its tier.
        let tier = match order.purpose {
            Purpose::Spawn => order.tier,
            Purpose::Extend(lease) => Some(lease.tier),
        };
        match SETTINGS.with_borrow(Clone::clone) {
            Some(settings) if tier.is_none_or(|tier| tier == TIER) => {
                Ok(Quote { tier: TIER.to_owned(), resources: SIZE, price: settings.price(), minimum_sat: settings.minimum_sat })
            }
            _ => Err(Refusal { code: "invalid_spec".to_owned(), message: format!("there is no such tier; choose: {TIER}") }),
        }
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Policy with_types_in bindings);
