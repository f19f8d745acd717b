//! A table of tiers, each with its size, its price and its smallest amount. The file with the table
//! is the settings. A tier that is no longer for sale stays in it for the pods that have it: they are
//! extended at its price.

#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit/1.1", world: "pricing-policy" });
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{PriceTable, bindings};
    bindings::export!(PriceTable with_types_in bindings);
}

use bindings::exports::paygress::policy::{pricing, settings};
use bindings::paygress::policy::types::{
    Context, Offer, Order, Price, Problem, Purpose, Quote, Refusal, Resources,
};
use paygress_plugin_settings::{SettingsReader, truncate_message};

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Price table",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "tiers": {
      "type": "array", "minItems": 1, "maxItems": 64,
      "description": "The tiers, the default first. If omitted: standard, at a sat a minute.",
      "items": {
        "type": "object", "additionalProperties": false, "required": ["id", "sats_per_hour"],
        "properties": {
          "id": {"type": "string", "minLength": 1, "maxLength": 64},
          "description": {"type": "string", "minLength": 1, "maxLength": 500},
          "cpu_millicores": {"type": "integer", "minimum": 1, "maximum": 1000000, "default": 1000},
          "memory_mib": {"type": "integer", "minimum": 1, "maximum": 16777216, "default": 1024},
          "sats_per_hour": {"type": "integer", "minimum": 1, "maximum": 10000000000},
          "minimum_sat": {"type": "integer", "minimum": 0, "maximum": 10000000000, "default": 1},
          "for_sale": {"type": "boolean", "default": true, "description": "If false, pods of this tier are extended, and no new ones are sold."}
        }
      }
    }
  }
}"#;

const MAX_SAT: u64 = 10_000_000_000;

struct PriceTable;

#[derive(Clone, Debug)]
struct Tier {
    id: String,
    description: String,
    size: Resources,
    sats_per_hour: u64,
    minimum_sat: u64,
    for_sale: bool,
}

#[derive(Clone, Debug)]
struct Settings {
    tiers: Vec<Tier>,
}

paygress_plugin_settings::export_settings!(PriceTable, Settings, SCHEMA, parse_settings);

fn parse_settings(json: &str) -> Result<Settings, Vec<paygress_plugin_settings::Problem>> {
    let mut reader = SettingsReader::parse(json);
    let standard = || Tier {
        id: "standard".to_owned(),
        description: "1 CPU, 1 GiB of memory".to_owned(),
        size: Resources { cpu_millicores: 1_000, memory_mib: 1_024 },
        sats_per_hour: 60,
        minimum_sat: 1,
        for_sale: true,
    };
    let tiers = reader.objects("tiers", read_tier).unwrap_or_else(|| vec![standard()]);
    if tiers.len() > 64 {
        reader.problem("tiers", "must hold at most 64 tiers");
    }
    if !tiers.iter().any(|tier| tier.for_sale) {
        reader.problem("tiers", "must hold at least one tier that is for sale");
    }
    for (index, tier) in tiers.iter().enumerate() {
        if tiers.iter().take(index).any(|earlier| earlier.id == tier.id) {
            reader.problem("tiers", format!("two tiers have the id {}", tier.id));
        }
    }
    reader.finish(Settings { tiers })
}

fn read_tier(tier: &mut SettingsReader) -> Tier {
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let id = tier.string("id", "", 64);
    if id.is_empty() {
        tier.problem("id", "is missing");
    }
    let size = Resources {
        cpu_millicores: small(tier.number("cpu_millicores", 1_000, 1..=1_000_000)),
        memory_mib: small(tier.number("memory_mib", 1_024, 1..=16_777_216)),
    };
    let plain = format!("{} mCPU, {} MiB of memory", size.cpu_millicores, size.memory_mib);
    // The default is out of range: a price must be set.
    let sats_per_hour = tier.number("sats_per_hour", 0, 1..=MAX_SAT);
    if sats_per_hour == 0 {
        tier.problem("sats_per_hour", "is missing, or not a price");
    }
    Tier {
        description: tier.string("description", &plain, 500),
        minimum_sat: tier.number("minimum_sat", 1, 0..=MAX_SAT),
        for_sale: tier.boolean("for_sale", true),
        id,
        size,
        sats_per_hour,
    }
}

impl pricing::Guest for PriceTable {
    fn offers(_: Context) -> Vec<Offer> {
        SETTINGS.with_borrow(|settings| settings.as_ref().map(Settings::offers).unwrap_or_default())
    }

    fn quote(order: Order, _: Context) -> Result<Quote, Refusal> {
        SETTINGS.with_borrow(|settings| match settings {
            Some(settings) => settings.quote(&order),
            None => Err(refuse("the pricing policy is not configured")),
        })
    }
}

fn refuse(message: &str) -> Refusal {
    Refusal { code: "invalid_spec".to_owned(), message: truncate_message(message) }
}

impl Tier {
    /// Per hour, so that it is exact.
    fn price(&self) -> Price {
        Price { msat: self.sats_per_hour.saturating_mul(1_000), seconds: 3_600 }
    }
}

impl Settings {
    fn for_sale(&self) -> impl Iterator<Item = &Tier> {
        self.tiers.iter().filter(|tier| tier.for_sale)
    }

    fn offers(&self) -> Vec<Offer> {
        let offer = |tier: &Tier| Offer {
            id: tier.id.clone(),
            name: tier.id.clone(),
            description: tier.description.clone(),
            resources: tier.size,
            price: tier.price(),
            minimum_sat: tier.minimum_sat,
        };
        self.for_sale().map(offer).collect()
    }

    fn quote(&self, order: &Order) -> Result<Quote, Refusal> {
        let tier = match (&order.purpose, &order.tier) {
            (Purpose::Extend(lease), _) => self.tiers.iter().find(|tier| tier.id == lease.tier),
            (Purpose::Spawn, Some(id)) => self.for_sale().find(|tier| tier.id == *id),
            (Purpose::Spawn, None) => self.for_sale().next(),
        };
        let Some(tier) = tier else {
            let known: Vec<&str> = self.for_sale().map(|tier| tier.id.as_str()).collect();
            let message = format!("there is no such tier; choose one of: {}", known.join(", "));
            return Err(refuse(&message));
        };
        Ok(Quote {
            tier: tier.id.clone(),
            resources: tier.size,
            price: tier.price(),
            minimum_sat: tier.minimum_sat,
        })
    }
}
