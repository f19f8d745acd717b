//! What duration policies have in common: what an amount buys, and which orders are refused.

use crate::contract::types::paygress::policy::types::{
    Order, Payment, Price, Purpose, Quote, Refusal,
};
use crate::refusal::{RefusalCode, refuse};

/// The whole seconds that an amount buys; `None` at a price of zero.
///
/// ```
/// use paygress_policy_sdk::{Price, seconds_for};
///
/// assert_eq!(seconds_for(Price { msat: 1_000, seconds: 60 }, 5), Some(300));
/// assert_eq!(seconds_for(Price { msat: 0, seconds: 60 }, 5), None);
/// ```
#[must_use]
pub fn seconds_for(price: Price, sat: u64) -> Option<u64> {
    let msat = u128::from(sat).saturating_mul(1_000);
    let seconds =
        msat.saturating_mul(u128::from(price.seconds)).checked_div(u128::from(price.msat))?;
    Some(u64::try_from(seconds).unwrap_or(u64::MAX))
}

/// The whole seconds that the net amount buys. At a price of zero, the order says how long; one that
/// does not gets the policy's minimum.
#[must_use]
pub fn bought_seconds(
    order: &Order,
    quote: &Quote,
    payment: &Payment,
    minimum_seconds: u64,
) -> u64 {
    seconds_for(quote.price, payment.net_sat)
        .unwrap_or_else(|| order.wanted_seconds.unwrap_or(minimum_seconds))
}

/// The shortest duration that an order may get: the policy's minimum, or what was requested if that
/// is longer.
#[must_use]
pub fn least_seconds(order: &Order, minimum_seconds: u64) -> u64 {
    minimum_seconds.max(order.wanted_seconds.unwrap_or(0))
}

/// Refuses a payment that buys less than [`least_seconds`].
///
/// # Errors
/// [`RefusalCode::InsufficientPayment`].
pub fn check_least(
    order: &Order,
    payment: &Payment,
    seconds: u64,
    minimum_seconds: u64,
) -> Result<(), Refusal> {
    let least = least_seconds(order, minimum_seconds);
    if seconds >= least {
        return Ok(());
    }
    let message = format!(
        "the token is worth {} sat after the mint's fee and buys {seconds} s; the least is {least} s",
        payment.net_sat
    );
    Err(refuse(RefusalCode::InsufficientPayment, message))
}

/// Refuses more time for a pod that has ended.
///
/// # Errors
/// [`RefusalCode::LeaseExpired`].
pub fn check_running(order: &Order) -> Result<(), Refusal> {
    match &order.purpose {
        Purpose::Extend(lease) if lease.remaining_seconds == 0 => {
            Err(refuse(RefusalCode::LeaseExpired, "this pod has ended; order a new one"))
        }
        Purpose::Extend(_) | Purpose::Spawn => Ok(()),
    }
}

/// Refuses more time for a pod that another customer has bought.
///
/// # Errors
/// [`RefusalCode::NotOwner`].
pub fn check_owner(order: &Order) -> Result<(), Refusal> {
    match &order.purpose {
        Purpose::Extend(lease) if !lease.owned_by_customer => {
            let message = "only the customer who bought this pod may extend it";
            Err(refuse(RefusalCode::NotOwner, message))
        }
        Purpose::Extend(_) | Purpose::Spawn => Ok(()),
    }
}
