//! The operator's commands: `ledger` and `wallet` on the stores, beside which the service may be
//! running; `lease` and `sales` on the running service, over its admin socket.

pub mod lease;
pub mod ledger;
mod request;
pub mod sales;
pub mod wallet;
