//! Plain data: ids, amounts, orders, leases, payments, decisions and error codes.

pub mod access;
pub mod apps_domain;
pub mod catalog;
pub mod decision;
pub mod egress;
pub mod gateway;
pub mod host_key;
pub mod http_port;
pub mod ids;
mod invalid_name;
pub mod later_name;
pub mod lease;
pub mod login;
mod mint_url;
mod npub;
pub mod order;
pub mod order_record;
pub mod order_state;
pub mod refusal;
pub mod reply_to;
pub mod run;
pub mod sales;
pub mod secret;
pub mod ssh_host;
pub mod state;
pub mod token;
pub mod units;
