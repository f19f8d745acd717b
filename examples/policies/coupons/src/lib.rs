//! Coupons: a code that a customer writes after the tier, as in `standard+SUMMER-9f27c1`, gives a
//! discount until a given time. A top-up is at the full price.
//!
//! The settings have the SHA-256 of each code: whoever reads them cannot use the codes, if these are
//! long and random. A code may be used until it ends, by everybody or by one customer, since
//! nothing is kept from one call to the next. It is no signature of the operator's: a tier has 64
//! bytes, and a signature alone has more as text.

#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit/1.1", world: "pricing-policy" });
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{Coupons, bindings};
    bindings::export!(Coupons with_types_in bindings);
}

use bindings::exports::paygress::policy::{pricing, settings};
use bindings::paygress::policy::types::{
    Context, Offer, Order, Price, Problem, Purpose, Quote, Refusal, Resources,
};
use paygress_plugin_settings::SettingsReader;
use sha2::{Digest, Sha256};

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Coupons",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "sats_per_hour": {"type": "integer", "minimum": 1, "maximum": 1000000000, "default": 60, "description": "The price of an hour without a coupon, in sat."},
    "minimum_sat": {"type": "integer", "minimum": 0, "maximum": 1000000000, "default": 1, "description": "The smallest net amount that is accepted, in sat."},
    "coupons": {
      "type": "array", "maxItems": 256, "default": [],
      "items": {
        "type": "object", "additionalProperties": false, "required": ["sha256", "percent", "until"],
        "properties": {
          "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "The SHA-256 of the code, in hex."},
          "percent": {"type": "integer", "minimum": 1, "maximum": 99, "description": "The discount."},
          "until": {"type": "integer", "minimum": 1, "maximum": 9999999999, "description": "The first second in which it is not accepted, since the Unix epoch."},
          "customer": {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "The only customer who may use it, a public key in hex."}
        }
      }
    }
  }
}"#;

const TIER: &str = "standard";
const SIZE: Resources = Resources { cpu_millicores: 1_000, memory_mib: 1_024 };

struct Coupons;

#[derive(Clone, Debug)]
struct Coupon {
    sha256: String,
    percent: u64,
    until_unix_seconds: u64,
    customer: Option<String>,
}

#[derive(Clone, Debug)]
struct Settings {
    sats_per_hour: u64,
    minimum_sat: u64,
    coupons: Vec<Coupon>,
}

paygress_plugin_settings::export_settings!(Coupons, Settings, SCHEMA, parse_settings);

fn parse_settings(json: &str) -> Result<Settings, Vec<paygress_plugin_settings::Problem>> {
    let mut reader = SettingsReader::parse(json);
    let sats_per_hour = reader.number("sats_per_hour", 60, 1..=1_000_000_000);
    let minimum_sat = reader.number("minimum_sat", 1, 0..=1_000_000_000);
    let coupons = reader.objects("coupons", read_coupon).unwrap_or_default();
    if coupons.len() > 256 {
        reader.problem("coupons", "must hold at most 256 coupons");
    }
    for (index, coupon) in coupons.iter().enumerate() {
        if coupons.iter().take(index).any(|earlier| earlier.sha256 == coupon.sha256) {
            reader.problem("coupons", format!("coupon {index} has the code of an earlier one"));
        }
    }
    reader.finish(Settings { sats_per_hour, minimum_sat, coupons })
}

fn read_coupon(coupon: &mut SettingsReader) -> Coupon {
    let sha256 = coupon.string("sha256", "", 64);
    if !is_hex(&sha256) {
        coupon.problem("sha256", "must be 64 lower-case hex digits, the SHA-256 of the code");
    }
    // The defaults are out of range: both must be set.
    let percent = coupon.number("percent", 0, 1..=99);
    if percent == 0 {
        coupon.problem("percent", "is missing, or not from 1 to 99");
    }
    let until_unix_seconds = coupon.number("until", 0, 1..=9_999_999_999);
    if until_unix_seconds == 0 {
        coupon.problem("until", "is missing, or not a time in seconds since the Unix epoch");
    }
    let customer = Some(coupon.string("customer", "", 64)).filter(|key| !key.is_empty());
    if customer.as_deref().is_some_and(|key| !is_hex(key)) {
        coupon.problem("customer", "must be a public key of 64 lower-case hex digits");
    }
    Coupon { sha256, percent, until_unix_seconds, customer }
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

impl pricing::Guest for Coupons {
    fn offers(_: Context) -> Vec<Offer> {
        let offer = |settings: &Settings| Offer {
            id: TIER.to_owned(),
            name: "Standard".to_owned(),
            description: "1 CPU, 1 GiB of memory. With a coupon, order standard+CODE.".to_owned(),
            resources: SIZE,
            price: settings.price(0),
            minimum_sat: settings.minimum_sat,
        };
        SETTINGS.with_borrow(|settings| settings.iter().map(offer).collect())
    }

    fn quote(order: Order, context: Context) -> Result<Quote, Refusal> {
        SETTINGS.with_borrow(|settings| match settings {
            Some(settings) => settings.quote(&order, &context),
            None => Err(refuse("the pricing policy is not configured")),
        })
    }
}

fn refuse(message: &str) -> Refusal {
    Refusal { code: "invalid_spec".to_owned(), message: message.to_owned() }
}

impl Settings {
    /// Per hour, so that it is exact: at most 1e9 × 10 × 100 msat.
    fn price(&self, discount_percent: u64) -> Price {
        let share = 100_u64.saturating_sub(discount_percent);
        let msat = self.sats_per_hour.saturating_mul(10).saturating_mul(share);
        Price { msat, seconds: 3_600 }
    }

    fn quote(&self, order: &Order, context: &Context) -> Result<Quote, Refusal> {
        let requested = match &order.purpose {
            Purpose::Spawn => order.tier.as_deref().unwrap_or(TIER),
            Purpose::Extend(lease) => lease.tier.as_str(),
        };
        let (tier, code) = match requested.split_once('+') {
            Some((tier, code)) => (tier, Some(code)),
            None => (requested, None),
        };
        if tier != TIER {
            return Err(refuse("the only tier is: standard"));
        }
        let percent = code.map_or(Ok(0), |code| self.discount(code, order, context))?;
        Ok(Quote {
            tier: TIER.to_owned(),
            resources: SIZE,
            price: self.price(percent),
            minimum_sat: self.minimum_sat,
        })
    }

    /// A code that is another customer's is answered as one that does not exist.
    fn discount(&self, code: &str, order: &Order, context: &Context) -> Result<u64, Refusal> {
        let sha256 = format!("{:x}", Sha256::digest(code.as_bytes()));
        let is_for = |coupon: &&Coupon| {
            coupon.sha256 == sha256
                && coupon.customer.as_ref().is_none_or(|customer| *customer == order.customer)
        };
        let Some(coupon) = self.coupons.iter().find(is_for) else {
            return Err(refuse("there is no such coupon; order the tier standard without it"));
        };
        if context.now_unix_seconds >= coupon.until_unix_seconds {
            return Err(refuse("this coupon has ended; order the tier standard without it"));
        }
        Ok(coupon.percent)
    }
}
