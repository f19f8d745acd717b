//! Coupons: a code that a customer writes after the tier, as in `standard+ARlpVmHB…`, gives a
//! discount until a given time. A top-up is at the full price.
//!
//! A coupon is signed with a secret key of Nostr's that the operator has, and made without the
//! service; the settings have the public key alone:
//!
//! ```text
//! umask 077; paygress keys generate | head -1 > coupons.key
//! cargo run -q -p paygress-example-coupons --example sign -- \
//!   coupons.key 25 "$(date -d 2027-01-01 +%s)" 1
//! ```
//!
//! That is 25 % until 2027, the coupon with the number 1; the public key is printed beside the
//! code. With a customer's key after the number it is theirs alone. A code may be used until it
//! ends, since nothing is kept from one call to the next. One that has leaked is withdrawn by its
//! number, so give each its own. Take a key for coupons only: by taking it out of the settings,
//! all coupons that it has signed are withdrawn.

mod bip340;
mod coupon;

use bip340::PublicKey;
use coupon::{Coupon, Holder};
use paygress_policy_sdk::{
    Context, Offer, Order, Price, Pricing, Problems, Purpose, Quote, Refusal, RefusalCode,
    Resources, refuse,
};
use schemars::JsonSchema;
use serde::Deserialize;

const TIER: &str = "standard";
const SIZE: Resources = Resources { cpu_millicores: 1_000, memory_mib: 1_024 };

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
    /// The public keys in hex whose coupons are accepted. If omitted, none is.
    #[schemars(length(max = 4), inner(regex(pattern = r"^[0-9a-f]{64}$")))]
    keys: Vec<String>,
    /// The numbers of coupons that are no longer accepted, whichever key has signed them.
    #[schemars(length(max = 256))]
    withdrawn: Vec<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { sats_per_hour: 60, minimum_sat: 1, keys: Vec::new(), withdrawn: Vec::new() }
    }
}

/// Why a code gives no discount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CouponError {
    Malformed,
    Expired,
    Withdrawn,
    Forged,
    /// Or forged: only the signature knows the customer.
    OtherCustomer,
}

impl From<CouponError> for Refusal {
    fn from(error: CouponError) -> Self {
        let reason = match error {
            CouponError::Malformed => {
                "what follows the + is no coupon, which has 100 characters of base64url"
            }
            CouponError::Expired => "this coupon has ended",
            CouponError::Withdrawn => "the operator has withdrawn this coupon",
            CouponError::Forged => "this coupon is not signed by the operator",
            CouponError::OtherCustomer => {
                "this coupon is another customer's, or not signed by the operator"
            }
        };
        let message = format!("{reason}; order the tier {TIER} without it");
        refuse(RefusalCode::InvalidSpec, message)
    }
}

paygress_policy_sdk::export!(Pricing for Settings);

impl Pricing for Settings {
    fn check(&self, problems: &mut Problems) {
        for (index, key) in self.keys.iter().enumerate() {
            if PublicKey::from_hex(key).is_none() {
                let message = "must be a public key of Nostr's, of 64 lower-case hex digits";
                problems.add(&["keys", &index.to_string()], message);
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
            return Err(refuse(RefusalCode::InvalidSpec, "the only tier is: standard"));
        }
        let percent = match code {
            Some(code) => self.discount(code, &order.customer, context.now_unix_seconds)?,
            None => 0,
        };
        Ok(Quote {
            tier: TIER.to_owned(),
            resources: SIZE,
            price: self.price(percent),
            minimum_sat: self.minimum_sat,
        })
    }
}

impl Settings {
    /// Per hour, so that it is exact: at most 1e9 × 10 × 100 msat.
    fn price(&self, discount_percent: u8) -> Price {
        let share = 100_u64.saturating_sub(discount_percent.into());
        let msat = self.sats_per_hour.saturating_mul(10).saturating_mul(share);
        Price { msat, seconds: 3_600 }
    }

    /// In percent.
    fn discount(
        &self,
        code: &str,
        customer: &str,
        now_unix_seconds: u64,
    ) -> Result<u8, CouponError> {
        let coupon = Coupon::read(code).ok_or(CouponError::Malformed)?;
        // Before the signature, which takes longer.
        if now_unix_seconds >= u64::from(coupon.terms.until_unix_seconds) {
            return Err(CouponError::Expired);
        }
        if self.withdrawn.contains(&coupon.terms.id) {
            return Err(CouponError::Withdrawn);
        }
        let mut keys = self.keys.iter().filter_map(|key| PublicKey::from_hex(key));
        match (keys.any(|key| coupon.is_signed(&key, customer)), coupon.terms.holder) {
            (true, _) => Ok(coupon.terms.percent),
            (false, Holder::Everybody) => Err(CouponError::Forged),
            (false, Holder::OneCustomer) => Err(CouponError::OtherCustomer),
        }
    }
}

#[cfg(test)]
mod tests;
