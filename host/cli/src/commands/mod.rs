//! The operator's commands on the stores. The service may be running.

pub mod ledger;
pub mod wallet;
