//! Dearer when the cluster fills up: the price rises in a straight line from a share of leased pods
//! on, up to a multiple of it when all are leased. What is bought keeps its price.

#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit/1.1", world: "pricing-policy" });
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{SurgePrice, bindings};
    bindings::export!(SurgePrice with_types_in bindings);
}

use bindings::exports::paygress::policy::{pricing, settings};
use bindings::paygress::policy::types::{
    Context, Offer, Order, Price, Problem, Quote, Refusal, Resources,
};
use paygress_plugin_settings::Reader;

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Surge pricing by utilisation",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "sats_per_hour": {"type": "integer", "minimum": 1, "maximum": 1000000000, "default": 60, "description": "The price of a quiet cluster."},
    "from_percent": {"type": "integer", "minimum": 0, "maximum": 99, "default": 50, "description": "The share of leased pods from which on it rises."},
    "minimum_sat": {"type": "integer", "minimum": 0, "maximum": 1000000000, "default": 1, "description": "The least net amount that is accepted, in sat."},
    "full_percent": {"type": "integer", "minimum": 100, "maximum": 10000, "default": 300, "description": "The price when all pods are leased, in percent of the quiet one."}
  }
}"#;

const SIZE: Resources = Resources { cpu_millicores: 1_000, memory_mib: 1_024 };

/// The policy.
struct SurgePrice;

#[derive(Clone, Copy, Debug)]
struct Settings {
    sats_per_hour: u64,
    from_percent: u64,
    full_percent: u64,
    minimum_sat: u64,
}

paygress_plugin_settings::kept!(SurgePrice, Settings, SCHEMA, read);

fn read(json: &str) -> Result<Settings, Vec<(String, String)>> {
    let mut reader = Reader::parse(json);
    let settings = Settings {
        sats_per_hour: reader.number("sats_per_hour", 60, 1..=1_000_000_000),
        from_percent: reader.number("from_percent", 50, 0..=99),
        full_percent: reader.number("full_percent", 300, 100..=10_000),
        minimum_sat: reader.number("minimum_sat", 1, 0..=1_000_000_000),
    };
    let problems = reader.problems();
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

impl Settings {
    /// For an hour, so that it is exact: at most 1e9 × 1e3 × 100 msat.
    fn price(self, context: &Context) -> Price {
        let (active, capacity) =
            (u64::from(context.active_leases), u64::from(context.capacity_leases.max(1)));
        let used = active.saturating_mul(100).checked_div(capacity).unwrap_or(100).min(100);
        let over = used.saturating_sub(self.from_percent);
        let room = 100_u64.saturating_sub(self.from_percent).max(1);
        let rise = self
            .full_percent
            .saturating_sub(100)
            .saturating_mul(over)
            .checked_div(room)
            .unwrap_or(0);
        let msat = self.sats_per_hour.saturating_mul(10).saturating_mul(rise.saturating_add(100));
        Price { msat, seconds: 3_600 }
    }
}

fn kept() -> Settings {
    let quiet = Settings { sats_per_hour: 60, from_percent: 50, full_percent: 300, minimum_sat: 1 };
    SETTINGS.with_borrow(|settings| settings.unwrap_or(quiet))
}

impl pricing::Guest for SurgePrice {
    fn offers(context: Context) -> Vec<Offer> {
        let (name, description) = (
            "Standard".to_owned(),
            "1 CPU, 1 GiB of memory; dearer when many are leased".to_owned(),
        );
        let (price, minimum_sat) = (kept().price(&context), kept().minimum_sat);
        vec![Offer {
            id: "standard".to_owned(),
            name,
            description,
            resources: SIZE,
            price,
            minimum_sat,
        }]
    }

    fn quote(order: Order, context: Context) -> Result<Quote, Refusal> {
        match order.tier.as_deref() {
            None | Some("standard") => {
                let (price, minimum_sat) = (kept().price(&context), kept().minimum_sat);
                Ok(Quote { tier: "standard".to_owned(), resources: SIZE, price, minimum_sat })
            }
            Some(_) => Err(Refusal {
                code: "invalid_spec".to_owned(),
                message: "the only tier is: standard".to_owned(),
            }),
        }
    }
}
