//! What is measured of each plugin system.

use crate::files::Prices;
use anyhow::{Result, anyhow};
use beside_decision::{Context, Input, Order, Output};
use std::fmt::Display;

/// A plugin system with the pricing policy in it.
pub(crate) trait Runtime: Sync {
    /// With its version.
    fn name(&self) -> String;

    /// Has the policy quote the default tier, in a fresh instance. Returns the price of a minute.
    fn quote(&self) -> Result<u64>;

    /// Has a policy spin. Returns when it was stopped; otherwise never, or with an error.
    fn spin(&self) -> Result<()>;

    /// Replaces the policy. Calls that begin afterwards have the new one.
    fn publish(&self, prices: Prices) -> Result<()>;
}

/// The order and context that the policy host passes, in JSON.
pub(crate) fn input(tier: Option<&str>) -> Input {
    Input {
        order: Order {
            id: "a".to_owned(),
            customer: "c".repeat(64),
            tier: tier.map(str::to_owned),
            username: "user".to_owned(),
            ..Order::default()
        },
        context: Context {
            now_unix_seconds: 1_800_000_000,
            capacity_leases: 100,
            active_leases: 0,
        },
    }
}

/// The price of a minute that a guest has returned.
pub(crate) fn price(output: &[u8]) -> Result<u64> {
    let quote = serde_json::from_slice::<Output>(output)?;
    let quote = quote.map_err(|refusal| anyhow!("refused: {}", refusal.message))?;
    Ok(quote.msat)
}

/// An error of a library whose type `anyhow` may not take.
pub(crate) fn failed(error: impl Display) -> anyhow::Error {
    anyhow!("{error:#}")
}
