//! The default pricing policy: a price per hour, times the multiplier of a tier.

#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit/1.0", world: "pricing-policy" });
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{Policy, bindings};
    bindings::export!(Policy with_types_in bindings);
}

use bindings::exports::paygress::policy::{pricing, settings};
use bindings::paygress::policy::types::{
    Context, Offer, Order, Price, Problem, Purpose, Quote, Refusal, Resources,
};
use paygress_plugin_settings::SettingsReader;

const HOUR: u64 = 3_600;
/// A hundred bitcoin an hour: more is a mistake in the settings.
const MAX_SATS_PER_HOUR: u64 = 10_000_000_000;

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Prices in tiers",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "sats_per_hour": {
      "type": "integer", "minimum": 1, "maximum": 10000000000, "default": 60,
      "description": "The price of an hour in a tier with the multiplier 1."
    },
    "minimum_sat": {
      "type": "integer", "minimum": 0, "maximum": 10000000000, "default": 1,
      "description": "The smallest net amount that is accepted, in sat."
    },
    "tiers": {
      "type": "array", "minItems": 1, "maxItems": 64,
      "description": "The tiers for sale, the default tier first. If omitted: basic, standard and premium.",
      "items": {
        "type": "object", "additionalProperties": false, "required": ["id"],
        "properties": {
          "id": {"type": "string", "minLength": 1, "maxLength": 64},
          "name": {"type": "string", "minLength": 1, "maxLength": 100},
          "description": {"type": "string", "minLength": 1, "maxLength": 500},
          "cpu_millicores": {"type": "integer", "minimum": 1, "maximum": 1000000, "default": 1000},
          "memory_mib": {"type": "integer", "minimum": 1, "maximum": 16777216, "default": 1024},
          "multiplier": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1}
        }
      }
    }
  }
}"#;

pub struct Policy;

#[derive(Clone, Debug)]
struct Tier {
    id: String,
    name: String,
    description: String,
    cpu_millicores: u32,
    memory_mib: u32,
    multiplier: u64,
}

#[derive(Clone, Debug)]
struct Settings {
    sats_per_hour: u64,
    minimum_sat: u64,
    tiers: Vec<Tier>,
}

paygress_plugin_settings::export_settings!(Policy, Settings, SCHEMA, parse_settings);

impl pricing::Guest for Policy {
    fn offers(_: Context) -> Vec<Offer> {
        SETTINGS.with_borrow(|settings| settings.as_ref().map(Settings::offers).unwrap_or_default())
    }

    fn quote(order: Order, _: Context) -> Result<Quote, Refusal> {
        let wanted = match &order.purpose {
            Purpose::Spawn => order.tier,
            Purpose::Extend(lease) => Some(lease.tier.clone()),
        };
        let settings = SETTINGS.with_borrow(Clone::clone);
        let settings = settings.ok_or_else(|| refuse("the pricing policy is not configured"))?;
        settings.quote(wanted.as_deref())
    }
}

fn refuse(message: impl Into<String>) -> Refusal {
    Refusal { code: "invalid_spec".to_owned(), message: message.into() }
}

fn default_tiers() -> Vec<Tier> {
    let tier = |id: &str, name: &str, cores: u32, gib: u32| Tier {
        id: id.to_owned(),
        name: name.to_owned(),
        description: format!("{cores} CPU, {gib} GiB of memory, SSH"),
        cpu_millicores: cores.saturating_mul(1_000),
        memory_mib: gib.saturating_mul(1_024),
        multiplier: u64::from(cores),
    };
    vec![
        tier("basic", "Basic", 1, 1),
        tier("standard", "Standard", 2, 2),
        tier("premium", "Premium", 4, 4),
    ]
}

fn parse_settings(json: &str) -> Result<Settings, Vec<paygress_plugin_settings::Problem>> {
    let mut reader = SettingsReader::parse(json);
    let sats_per_hour = reader.number("sats_per_hour", 60, 1..=MAX_SATS_PER_HOUR);
    let minimum_sat = reader.number("minimum_sat", 1, 0..=MAX_SATS_PER_HOUR);
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let tiers = reader.objects("tiers", |tier| {
        let id = tier.string("id", "", 64);
        if id.is_empty() {
            tier.problem("id", "is missing");
        }
        let cpu_millicores = small(tier.number("cpu_millicores", 1_000, 1..=1_000_000));
        let memory_mib = small(tier.number("memory_mib", 1_024, 1..=16_777_216));
        Tier {
            name: tier.string("name", if id.is_empty() { "?" } else { &id }, 100),
            description: tier.string(
                "description",
                &format!("{cpu_millicores} mCPU, {memory_mib} MiB of memory, SSH"),
                500,
            ),
            cpu_millicores,
            memory_mib,
            multiplier: tier.number("multiplier", 1, 1..=1_000),
            id,
        }
    });
    let tiers = tiers.unwrap_or_else(default_tiers);
    if tiers.is_empty() || tiers.len() > 64 {
        reader.problem("tiers", "must hold 1 to 64 tiers");
    }
    for (index, tier) in tiers.iter().enumerate() {
        if tiers.iter().take(index).any(|earlier| earlier.id == tier.id) {
            reader.problem("tiers", format!("two tiers have the id {}", tier.id));
        }
    }
    reader.finish(Settings { sats_per_hour, minimum_sat, tiers })
}

impl Settings {
    fn price(&self, tier: &Tier) -> Price {
        // At most 1e10 × 1e3 × 1e3, which fits in 64 bits.
        let msat = self.sats_per_hour.saturating_mul(tier.multiplier).saturating_mul(1_000);
        // Per minute if that is a whole number, since it is easier to read; per hour is always
        // exact.
        match msat.checked_rem(60) {
            Some(0) => Price { msat: msat.checked_div(60).unwrap_or(msat), seconds: 60 },
            _ => Price { msat, seconds: HOUR },
        }
    }

    fn offers(&self) -> Vec<Offer> {
        let offer = |tier: &Tier| Offer {
            id: tier.id.clone(),
            name: tier.name.clone(),
            description: tier.description.clone(),
            resources: Resources {
                cpu_millicores: tier.cpu_millicores,
                memory_mib: tier.memory_mib,
            },
            price: self.price(tier),
            minimum_sat: self.minimum_sat,
        };
        self.tiers.iter().map(offer).collect()
    }

    fn quote(&self, wanted: Option<&str>) -> Result<Quote, Refusal> {
        let tier = match wanted {
            None => self.tiers.first(),
            Some(id) => self.tiers.iter().find(|tier| tier.id == id),
        };
        let Some(tier) = tier else {
            let known: Vec<&str> = self.tiers.iter().map(|tier| tier.id.as_str()).collect();
            let known = known.join(", ");
            return Err(refuse(format!("there is no such tier; choose one of: {known}")));
        };
        Ok(Quote {
            tier: tier.id.clone(),
            resources: Resources {
                cpu_millicores: tier.cpu_millicores,
                memory_mib: tier.memory_mib,
            },
            price: self.price(tier),
            minimum_sat: self.minimum_sat,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_a_minute_costs_a_sat() {
        let settings = parse_settings("{}").unwrap();
        let quote = settings.quote(None).unwrap();
        assert_eq!(
            (quote.tier.as_str(), quote.price.msat, quote.price.seconds, quote.minimum_sat),
            ("basic", 1_000, 60, 1)
        );
        assert_eq!((quote.resources.cpu_millicores, quote.resources.memory_mib), (1_000, 1_024));
        let offers = settings.offers();
        let cpus: Vec<_> = offers
            .iter()
            .map(|offer| {
                (offer.id.as_str(), offer.resources.cpu_millicores, offer.resources.memory_mib)
            })
            .collect();
        assert_eq!(
            cpus,
            [("basic", 1_000, 1_024), ("standard", 2_000, 2_048), ("premium", 4_000, 4_096)]
        );
    }

    #[test]
    fn prices_are_exact_and_do_not_overflow() {
        let settings =
            parse_settings(r#"{"sats_per_hour": 7, "tiers": [{"id": "a", "multiplier": 3}]}"#)
                .unwrap();
        let price = settings.quote(Some("a")).unwrap().price;
        assert_eq!(u128::from(price.msat) * 3_600, 21_000 * u128::from(price.seconds));
        let expensive = parse_settings(
            r#"{"sats_per_hour": 10000000000, "tiers": [{"id": "a", "multiplier": 1000}]}"#,
        )
        .unwrap();
        let price = expensive.quote(None).unwrap().price;
        assert_eq!(
            u128::from(price.msat) * 3_600,
            10_000_000_000_000_000 * u128::from(price.seconds)
        );
    }

    #[test]
    fn the_refusal_of_an_unknown_tier_lists_the_tiers() {
        assert_eq!(
            parse_settings("{}").unwrap().quote(Some("huge")).unwrap_err().message,
            "there is no such tier; choose one of: basic, standard, premium"
        );
    }

    #[test]
    fn all_problems_of_the_settings_are_reported_at_once() {
        let problems =
            parse_settings(r#"{"sats_per_hour": 0, "minimum_sat": -1, "tiers": [{"cpu_millicores": 0}, {"id": "a"}, {"id": "a"}], "x": 1}"#)
                .unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/sats_per_hour",
                "/minimum_sat",
                "/tiers/0/id",
                "/tiers/0/cpu_millicores",
                "/tiers",
                "/x"
            ]
        );
        assert!(parse_settings("nonsense").is_err());
        assert!(serde_json::from_str::<serde_json::Value>(SCHEMA).is_ok());
    }
}
