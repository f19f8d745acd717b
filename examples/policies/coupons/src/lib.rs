//! Coupons: a code that a customer writes after the tier, as in `standard+SUMMER-9f27c1`, gives a
//! discount until a given time. A top-up is at the full price.
//!
//! The settings have the SHA-256 of each code: whoever reads them cannot use the codes, if these are
//! long and random. A code may be used until it ends, by everybody or by one customer, since
//! nothing is kept from one call to the next. It is no signature of the operator's: a tier has 64
//! bytes, and a signature alone has more as text.

use paygress_policy_sdk::{
    Context, Offer, Order, Price, Pricing, Problems, Purpose, Quote, Refusal, RefusalCode,
    Resources, check_public_key, is_hex_of_32_bytes,
};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest, Sha256};

const TIER: &str = "standard";
const SIZE: Resources = Resources { cpu_millicores: 1_000, memory_mib: 1_024 };
const MAX_UNIX_SECONDS: u64 = 9_999_999_999;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Coupons")]
pub struct Settings {
    /// The price of an hour without a coupon, in sat.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    sats_per_hour: u64,
    /// The smallest net amount that is accepted, in sat.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    minimum_sat: u64,
    /// If omitted, there are none.
    #[schemars(length(max = 256))]
    coupons: Vec<Coupon>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { sats_per_hour: 60, minimum_sat: 1, coupons: Vec::new() }
    }
}

// Without a doc comment: it would be part of the schema.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Coupon {
    /// The SHA-256 of the code, in hex.
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"))]
    sha256: String,
    /// The discount.
    #[schemars(range(min = 1, max = 99))]
    percent: u64,
    /// The first second in which it is not accepted, since the Unix epoch.
    #[serde(rename = "until")]
    #[schemars(range(min = 1, max = MAX_UNIX_SECONDS))]
    until_unix_seconds: u64,
    /// The only customer who may use it, a public key in hex.
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"))]
    customer: Option<String>,
}

paygress_policy_sdk::export!(Pricing for Settings);

impl Pricing for Settings {
    fn check(&self, problems: &mut Problems) {
        for (index, coupon) in self.coupons.iter().enumerate() {
            let mut earlier = self.coupons.iter().take(index);
            let place = index.to_string();
            if !is_hex_of_32_bytes(&coupon.sha256) {
                let message = "must be 64 lower-case hex digits, the SHA-256 of the code";
                problems.add(&["coupons", &place, "sha256"], message);
            } else if earlier.any(|earlier| earlier.sha256 == coupon.sha256) {
                problems.add(&["coupons", &place, "sha256"], "is that of an earlier coupon");
            }
            if let Some(key) = &coupon.customer {
                check_public_key(key, &["coupons", &place, "customer"], problems);
            }
        }
    }

    fn offers(&self, _: &Context) -> Vec<Offer> {
        vec![Offer {
            id: TIER.to_owned(),
            name: "Standard".to_owned(),
            description: "1 CPU, 1 GiB of memory. With a coupon, order standard+CODE.".to_owned(),
            resources: SIZE,
            price: self.price(0),
            minimum_sat: self.minimum_sat,
        }]
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
}

fn refuse(message: &str) -> Refusal {
    paygress_policy_sdk::refuse(RefusalCode::InvalidSpec, message)
}

impl Settings {
    /// Per hour, so that it is exact: at most 1e9 × 10 × 100 msat.
    fn price(&self, discount_percent: u64) -> Price {
        let share = 100_u64.saturating_sub(discount_percent);
        let msat = self.sats_per_hour.saturating_mul(10).saturating_mul(share);
        Price { msat, seconds: 3_600 }
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
