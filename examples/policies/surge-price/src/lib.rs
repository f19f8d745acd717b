//! Surge pricing: above a given utilisation the price rises linearly, up to a multiple of the base
//! price when all pods are leased; below it, it falls to a share of the base price when none is, if
//! the operator wants that. A running lease keeps the price at which it was bought.

#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
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
use paygress_plugin_settings::SettingsReader;

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Surge pricing by utilisation",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "sats_per_hour": {"type": "integer", "minimum": 1, "maximum": 1000000000, "default": 60, "description": "The base price of an hour, in sat."},
    "from_percent": {"type": "integer", "minimum": 0, "maximum": 99, "default": 50, "description": "The utilisation above which the price rises."},
    "minimum_sat": {"type": "integer", "minimum": 0, "maximum": 1000000000, "default": 1, "description": "The smallest net amount that is accepted, in sat."},
    "empty_percent": {"type": "integer", "minimum": 1, "maximum": 100, "default": 100, "description": "The price when no pod is leased, in percent of the base price."},
    "full_percent": {"type": "integer", "minimum": 100, "maximum": 10000, "default": 300, "description": "The price when all pods are leased, in percent of the base price."}
  }
}"#;

const SIZE: Resources = Resources { cpu_millicores: 1_000, memory_mib: 1_024 };

struct SurgePrice;

#[derive(Clone, Copy, Debug)]
struct Settings {
    sats_per_hour: u64,
    from_percent: u64,
    empty_percent: u64,
    full_percent: u64,
    minimum_sat: u64,
}

paygress_plugin_settings::export_settings!(SurgePrice, Settings, SCHEMA, parse_settings);

fn parse_settings(json: &str) -> Result<Settings, Vec<paygress_plugin_settings::Problem>> {
    let mut reader = SettingsReader::parse(json);
    let settings = Settings {
        sats_per_hour: reader.number("sats_per_hour", 60, 1..=1_000_000_000),
        from_percent: reader.number("from_percent", 50, 0..=99),
        empty_percent: reader.number("empty_percent", 100, 1..=100),
        full_percent: reader.number("full_percent", 300, 100..=10_000),
        minimum_sat: reader.number("minimum_sat", 1, 0..=1_000_000_000),
    };
    reader.finish(settings)
}

impl Settings {
    /// Per hour, so that it is exact: at most 1e9 × 1e3 × 100 msat.
    fn price(self, context: &Context) -> Price {
        let (active, capacity) =
            (u64::from(context.active_leases), u64::from(context.capacity_leases.max(1)));
        let used = active.saturating_mul(100).checked_div(capacity).unwrap_or(100).min(100);
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

/// What a part of a range is of the whole, rounded down.
fn share(whole: u64, part: u64, range: u64) -> u64 {
    whole.saturating_mul(part).checked_div(range).unwrap_or(0)
}

fn settings() -> Settings {
    let defaults = Settings {
        sats_per_hour: 60,
        from_percent: 50,
        empty_percent: 100,
        full_percent: 300,
        minimum_sat: 1,
    };
    SETTINGS.with_borrow(|settings| settings.unwrap_or(defaults))
}

impl pricing::Guest for SurgePrice {
    fn offers(context: Context) -> Vec<Offer> {
        let (name, description) = (
            "Standard".to_owned(),
            "1 CPU, 1 GiB of memory; the price rises with utilisation".to_owned(),
        );
        let (price, minimum_sat) = (settings().price(&context), settings().minimum_sat);
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
                let (price, minimum_sat) = (settings().price(&context), settings().minimum_sat);
                Ok(Quote { tier: "standard".to_owned(), resources: SIZE, price, minimum_sat })
            }
            Some(_) => Err(Refusal {
                code: "invalid_spec".to_owned(),
                message: "the only tier is: standard".to_owned(),
            }),
        }
    }
}
