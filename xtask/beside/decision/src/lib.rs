//! The decision of `plugins/pricing` with its default tiers, as the guests of other plugin systems
//! take it: JSON in, JSON out. The settings are built in, so that these guests spend no time on
//! them.

use serde::{Deserialize, Serialize};

/// What an order in this tier does instead of a decision: it never ends.
pub const SPIN: &str = "spin";

#[cfg(not(feature = "double"))]
const SATS_PER_HOUR: u64 = 60;
#[cfg(feature = "double")]
const SATS_PER_HOUR: u64 = 120;

/// Id, CPU in cores, which is the multiplier of the price too, and memory in GiB.
static TIERS: [(&str, u32, u32); 3] = [("basic", 1, 1), ("standard", 2, 2), ("premium", 4, 4)];

/// The fields that the contract's order has.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Order {
    pub id: String,
    pub customer: String,
    pub image: Option<String>,
    pub tier: Option<String>,
    pub username: String,
    pub wanted_seconds: Option<u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Context {
    pub now_unix_seconds: u64,
    pub capacity_leases: u32,
    pub active_leases: u32,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Input {
    pub order: Order,
    pub context: Context,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    pub tier: String,
    pub cpu_millicores: u32,
    pub memory_mib: u32,
    pub msat: u64,
    pub seconds: u64,
    pub minimum_sat: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub code: String,
    pub message: String,
}

/// What a guest returns.
pub type Output = Result<Quote, Refusal>;

/// Decides on an [`Input`] in JSON; returns an [`Output`] in JSON.
///
/// # Errors
/// It is none.
pub fn decide(input: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let input: Input = serde_json::from_slice(input)?;
    serde_json::to_vec(&quote(&input.order))
}

fn quote(order: &Order) -> Output {
    let wanted = order.tier.as_deref();
    if wanted == Some(SPIN) {
        spin();
    }
    let tier = match wanted {
        None => TIERS.first(),
        Some(id) => TIERS.iter().find(|(known, ..)| *known == id),
    };
    let Some((id, cores, gib)) = tier else {
        let known = TIERS.map(|(known, ..)| known).join(", ");
        let message = format!("there is no such tier; choose one of: {known}");
        return Err(Refusal { code: "invalid_spec".to_owned(), message });
    };
    // Whole numbers in a minute, with the tiers above.
    let msat_per_hour = SATS_PER_HOUR.saturating_mul(u64::from(*cores)).saturating_mul(1_000);
    Ok(Quote {
        tier: (*id).to_owned(),
        cpu_millicores: cores.saturating_mul(1_000),
        memory_mib: gib.saturating_mul(1_024),
        msat: msat_per_hour / 60,
        seconds: 60,
        minimum_sat: 1,
    })
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::{Input, Order, Output, decide};

    fn quoted(tier: Option<&str>) -> Output {
        let order = Order { tier: tier.map(str::to_owned), ..Order::default() };
        let input = Input { order, ..Input::default() };
        let output = decide(&serde_json::to_vec(&input).unwrap()).unwrap();
        serde_json::from_slice(&output).unwrap()
    }

    #[test]
    fn it_decides_as_the_policy_does() {
        let basic = quoted(None).unwrap();
        assert_eq!((basic.tier.as_str(), basic.msat, basic.seconds), ("basic", 1_000, 60));
        let premium = quoted(Some("premium")).unwrap();
        assert_eq!(
            (premium.cpu_millicores, premium.memory_mib, premium.msat),
            (4_000, 4_096, 4_000)
        );
        let refusal = quoted(Some("huge")).unwrap_err();
        assert_eq!(
            refusal.message,
            "there is no such tier; choose one of: basic, standard, premium"
        );
    }
}
