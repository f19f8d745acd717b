//! The traits that the order service needs, split by caller.

pub mod apps;
pub mod capacity;
pub mod cluster;
pub mod gateway;
pub mod http_auth;
pub mod pod_streams;
pub mod policy;
pub mod probe;
pub mod receipt;
pub mod responder;
pub mod store;
pub mod terminal;
pub mod wallet;
