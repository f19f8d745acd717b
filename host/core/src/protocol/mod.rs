//! The messages that customers and the service exchange, as JSON. Both transports share them.
//!
//! Names of fields are those that existing customers use; unknown fields are ignored, unknown
//! values are not guessed.
//!
//! - `requests.rs`: requests; `shape.rs`: what is checked before they are parsed; `fields.rs`: how
//!   they are parsed, and the message for a field that is wrong; `token_text.rs`: the one form of a
//!   token, however it was passed on.
//! - `responses.rs`: responses; `render.rs` makes them of orders and leases. `pod_access.rs`: what a
//!   pod writes to its customer by itself. `access_way.rs`: the ways to a pod;
//!   `pod_http.rs`: to its HTTP port. `pod_status.rs`: how far it is. `offer.rs`: what is for sale.
//!   `receipt.rs`: what was decided, signed;
//!   `receipt_answer.rs`: whether it is of its answer.

mod access_way;
mod exposed;
mod fields;
mod offer;
mod pod_access;
mod pod_http;
mod pod_status;
mod receipt;
mod receipt_answer;
mod render;
mod requests;
mod responses;
mod shape;
#[cfg(test)]
mod tests;
mod token_text;

pub use access_way::{AccessWay, OfferedWay, access_ways, offered_ways};
pub use fields::{describe_field, duration_minutes, from_json, http_port, without_bom};
pub use offer::*;
pub use pod_access::{PodAccessDetails, PodAccessDetailsTag};
pub use pod_http::PodHttp;
pub use pod_status::PodStatus;
pub use receipt::*;
pub use receipt_answer::{is_receipt_of, receipt_contradicts};
pub use render::*;
pub use requests::*;
pub use responses::*;
pub use token_text::{hides_token, token_text};
