//! Plain data: ids, amounts, orders, leases, payments, decisions and error codes.

pub mod decision;
pub mod lease;
pub mod login;
pub mod order;
pub mod refusal;
pub mod reply_to;
pub mod secret;
pub mod token;
pub mod units;
