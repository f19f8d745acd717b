//! Plain data: ids, amounts, orders, leases, payments, decisions and error codes.

pub mod login;
pub mod order;
pub mod refusal;
pub mod secret;
pub mod units;
