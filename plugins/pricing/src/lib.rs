//! The default pricing policy: a price per hour, times the multiplier of a tier.

use paygress_policy_sdk::{Context, Offer, Price, Pricing, Problems, Resources, check_tier_ids};
use schemars::JsonSchema;
use serde::Deserialize;

const HOUR: u64 = 3_600;
/// A hundred bitcoin an hour: more is a mistake in the settings.
const MAX_SATS_PER_HOUR: u64 = 10_000_000_000;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Prices in tiers")]
pub struct Settings {
    /// The price of an hour in a tier with the multiplier 1.
    #[schemars(range(min = 1, max = MAX_SATS_PER_HOUR))]
    sats_per_hour: u64,
    /// The smallest net amount that is accepted, in sat.
    #[schemars(range(min = 0, max = MAX_SATS_PER_HOUR))]
    minimum_sat: u64,
    /// The tiers for sale, the default tier first. If omitted: basic, standard and premium.
    #[schemars(length(min = 1, max = 64))]
    tiers: Option<Vec<Tier>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { sats_per_hour: 60, minimum_sat: 1, tiers: None }
    }
}

// Without doc comments: they would be part of the schema.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Tier {
    #[schemars(length(min = 1, max = 64))]
    id: String,
    #[schemars(length(min = 1, max = 100))]
    name: Option<String>,
    #[schemars(length(min = 1, max = 500))]
    description: Option<String>,
    #[serde(default = "one_core")]
    #[schemars(range(min = 1, max = 1_000_000))]
    cpu_millicores: u32,
    #[serde(default = "one_gib")]
    #[schemars(range(min = 1, max = 16_777_216))]
    memory_mib: u32,
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 1_000))]
    multiplier: u64,
}

fn one_core() -> u32 {
    1_000
}

fn one_gib() -> u32 {
    1_024
}

fn once() -> u64 {
    1
}

fn default_tiers() -> Vec<Tier> {
    let tier = |id: &str, name: &str, cores: u32, gib: u32| Tier {
        id: id.to_owned(),
        name: Some(name.to_owned()),
        description: Some(format!("{cores} CPU, {gib} GiB of memory, SSH")),
        cpu_millicores: cores.saturating_mul(1_000),
        memory_mib: gib.saturating_mul(1_024),
        multiplier: cores.into(),
    };
    vec![
        tier("basic", "Basic", 1, 1),
        tier("standard", "Standard", 2, 2),
        tier("premium", "Premium", 4, 4),
    ]
}

paygress_policy_sdk::export!(Pricing for Settings);

impl Pricing for Settings {
    fn check(&self, problems: &mut Problems) {
        let tiers = self.tiers.as_deref();
        if tiers.is_some_and(|tiers| tiers.is_empty() || tiers.len() > 64) {
            problems.add(&["tiers"], "must hold 1 to 64 tiers");
        }
        let tiers = tiers.unwrap_or_default();
        check_tier_ids(tiers.iter().map(|tier| tier.id.as_str()), problems);
    }

    fn offers(&self, _: &Context) -> Vec<Offer> {
        let tiers = self.tiers.clone().unwrap_or_else(default_tiers);
        tiers.into_iter().map(|tier| self.offer(tier)).collect()
    }
}

impl Settings {
    fn offer(&self, tier: Tier) -> Offer {
        let Tier { cpu_millicores, memory_mib, .. } = tier;
        Offer {
            price: self.price(tier.multiplier),
            name: tier.name.unwrap_or_else(|| tier.id.clone()),
            id: tier.id,
            description: tier.description.unwrap_or_else(|| {
                format!("{cpu_millicores} mCPU, {memory_mib} MiB of memory, SSH")
            }),
            resources: Resources { cpu_millicores, memory_mib },
            minimum_sat: self.minimum_sat,
        }
    }

    fn price(&self, multiplier: u64) -> Price {
        // At most 1e10 × 1e3 × 1e3, which fits in 64 bits.
        let msat = self.sats_per_hour.saturating_mul(multiplier).saturating_mul(1_000);
        // Per minute if that is a whole number, since it is easier to read; per hour is always
        // exact.
        match msat.checked_rem(60) {
            Some(0) => Price { msat: msat.checked_div(60).unwrap_or(msat), seconds: 60 },
            _ => Price { msat, seconds: HOUR },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_policy_sdk::{Lease, Order, Problem, Purpose, Quote, Refusal, parse, schema};

    const NOW: Context = Context {
        now_unix_seconds: 0,
        capacity_leases: 1,
        active_leases: 0,
        customer_leases: Vec::new(),
        history: None,
        utilisation: None,
    };

    fn order(tier: Option<&str>, purpose: Purpose) -> Order {
        Order {
            id: String::new(),
            customer: String::new(),
            purpose,
            image: None,
            tier: tier.map(str::to_owned),
            username: String::new(),
            wanted_seconds: None,
        }
    }

    fn settings(json: &str) -> Settings {
        parse(json).unwrap()
    }

    fn quote(json: &str, tier: Option<&str>) -> Result<Quote, Refusal> {
        settings(json).quote(&order(tier, Purpose::Spawn), &NOW)
    }

    #[test]
    fn by_default_a_minute_costs_a_sat() {
        let quote = quote("{}", None).unwrap();
        assert_eq!(
            (quote.tier.as_str(), quote.price.msat, quote.price.seconds, quote.minimum_sat),
            ("basic", 1_000, 60, 1)
        );
        assert_eq!((quote.resources.cpu_millicores, quote.resources.memory_mib), (1_000, 1_024));
        let offers = settings("{}").offers(&NOW);
        let sizes: Vec<_> = offers
            .iter()
            .map(|offer| (&*offer.id, offer.resources.cpu_millicores, offer.resources.memory_mib))
            .collect();
        assert_eq!(
            sizes,
            [("basic", 1_000, 1_024), ("standard", 2_000, 2_048), ("premium", 4_000, 4_096)]
        );
    }

    #[test]
    fn more_time_is_of_the_tier_of_the_pod() {
        let lease = Lease {
            id: String::new(),
            tier: "premium".to_owned(),
            image: String::new(),
            created_at_unix_seconds: 0,
            expires_at_unix_seconds: 0,
            remaining_seconds: 1,
            owned_by_customer: true,
        };
        let order = order(Some("basic"), Purpose::Extend(lease));
        assert_eq!(settings("{}").quote(&order, &NOW).unwrap().tier, "premium");
    }

    #[test]
    fn what_a_tier_leaves_out_has_a_default() {
        let offers = settings(r#"{"tiers": [{"id": "a", "memory_mib": 7}]}"#).offers(&NOW);
        let texts = (offers[0].name.as_str(), offers[0].description.as_str());
        assert_eq!(texts, ("a", "1000 mCPU, 7 MiB of memory, SSH"));
    }

    #[test]
    fn prices_are_exact_and_do_not_overflow() {
        let json = r#"{"sats_per_hour": 7, "tiers": [{"id": "a", "multiplier": 3}]}"#;
        let price = quote(json, Some("a")).unwrap().price;
        assert_eq!(u128::from(price.msat) * 3_600, 21_000 * u128::from(price.seconds));
        let json = r#"{"sats_per_hour": 10000000000, "tiers": [{"id": "a", "multiplier": 1000}]}"#;
        let price = quote(json, None).unwrap().price;
        assert_eq!(
            u128::from(price.msat) * 3_600,
            10_000_000_000_000_000 * u128::from(price.seconds)
        );
    }

    #[test]
    fn the_refusal_of_an_unknown_tier_lists_the_tiers() {
        let refusal = quote("{}", Some("huge")).unwrap_err();
        assert_eq!(
            (refusal.code.as_str(), refusal.message.as_str()),
            ("invalid_spec", "there is no such tier; choose one of: basic, standard, premium")
        );
    }

    fn shown(problems: &[Problem]) -> Vec<(&str, &str)> {
        problems.iter().map(|it| (&*it.path, &*it.message)).collect()
    }

    /// As they have been reported, and the schema been published, since before there was an SDK.
    #[test]
    fn problems_and_schema_are_as_they_were() {
        let json = r#"{"sats_per_hour": 0, "minimum_sat": -1, "tiers": [{"cpu_millicores": 0, "size": 1}, {"id": "a"}, {"id": "a", "name": ""}], "x": 1}"#;
        assert_eq!(
            shown(&parse::<Settings>(json).err().unwrap()),
            [
                ("/sats_per_hour", "must be a whole number from 1 to 10000000000"),
                ("/minimum_sat", "must be a whole number from 0 to 10000000000"),
                ("/tiers/0/id", "is missing"),
                ("/tiers/0/cpu_millicores", "must be a whole number from 1 to 1000000"),
                (
                    "/tiers/0/size",
                    "is not a setting; known are: id, name, description, cpu_millicores, memory_mib, multiplier"
                ),
                ("/tiers/2/name", "must be a text of 1 to 100 bytes"),
                ("/tiers", "two tiers have the id a"),
                ("/x", "is not a setting; known are: sats_per_hour, minimum_sat, tiers"),
            ]
        );
        for (json, expected) in [
            (r#"{"tiers": []}"#, vec![("/tiers", "must hold 1 to 64 tiers")]),
            (r#"{"tiers": null}"#, vec![("/tiers", "must be a list of objects")]),
            (
                r#"{"tiers": [1]}"#,
                vec![("/tiers/0", "must be a JSON object"), ("/tiers/0/id", "is missing")],
            ),
            ("[]", vec![("", "must be a JSON object")]),
        ] {
            assert_eq!(shown(&parse::<Settings>(json).err().unwrap()), expected, "{json}");
        }
        let problems = parse::<Settings>("nonsense").err().unwrap();
        assert!(problems.len() == 1 && problems[0].message.starts_with("is not JSON: "));
        let before: serde_json::Value =
            serde_json::from_str(include_str!("../schema.json")).unwrap();
        assert_eq!(schema::<Settings>(), before);
    }
}
