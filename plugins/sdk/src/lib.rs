//! For policies in Rust. A policy is a struct of its settings, the function of its slot, and
//! [`export!`]:
//!
//! ```
//! use paygress_policy_sdk::{Context, Offer, Price, Pricing, Resources};
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(default, deny_unknown_fields)]
//! struct Settings {
//!     /// The price of an hour, in sat.
//!     #[schemars(range(min = 1, max = 1_000_000))]
//!     sats_per_hour: u64,
//! }
//!
//! impl Default for Settings {
//!     fn default() -> Self {
//!         Self { sats_per_hour: 60 }
//!     }
//! }
//!
//! impl Pricing for Settings {
//!     fn offers(&self, _: &Context) -> Vec<Offer> {
//!         vec![Offer {
//!             id: "standard".to_owned(),
//!             name: "Standard".to_owned(),
//!             description: "A pod with SSH".to_owned(),
//!             resources: Resources { cpu_millicores: 1_000, memory_mib: 1_024 },
//!             price: Price { msat: self.sats_per_hour * 1_000, seconds: 3_600 },
//!             minimum_sat: 1,
//!         }]
//!     }
//! }
//!
//! paygress_policy_sdk::export!(Pricing for Settings);
//!
//! let problems = paygress_policy_sdk::parse::<Settings>(r#"{"sats_per_hour": 0, "typo": 1}"#);
//! let problems = problems.err().unwrap();
//! assert_eq!(problems[0].path, "/sats_per_hour");
//! assert_eq!(problems[0].message, "must be a whole number from 1 to 1000000");
//! assert_eq!(problems[1].path, "/typo");
//! assert_eq!(problems[1].message, "is not a setting; known are: sats_per_hour");
//! ```
//!
//! The settings' JSON Schema is that of the struct, and what it says is checked before the struct is
//! made, all at once:
//!
//! ```text
//! configure(json) ─▶ validate by the schema ─▶ deserialize what is left ─▶ check of the policy ─▶ settings
//!                                         └───────── all problems, in the order of the fields ─▶ Err
//! ```
//!
//! Everything but the exports compiles for the machine it is built on too, so `cargo test` tests a
//! policy.

#[doc(hidden)]
#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction)]
pub mod contract;
mod export;
mod grant;
mod hex;
mod limits;
mod pod;
mod policy;
mod problem;
mod read;
mod refusal;
mod schema;
mod settings;
mod tier;
mod validate;

pub use contract::duration::exports::paygress::policy::duration::RefundTerms;
pub use contract::images::exports::paygress::policy::images::ImageOffer;
pub use contract::pod_template::exports::paygress::policy::pod_template::{
    AccessMode, EgressRule, PortRange, Protocol, RenderedPod,
};
pub use contract::types::paygress::policy::types::{
    Context, CustomerHistory, Grant, ImageRef, Lease, Offer, Order, Payment, Placement, Price,
    Problem, Purpose, Quote, Refusal, Rendered, Resources, Utilisation,
};
#[doc(hidden)]
pub use export::Exported;
pub use grant::{
    bought_seconds, check_least, check_owner, check_running, least_seconds, seconds_for,
};
pub use hex::{check_public_key, is_hex_of_32_bytes};
pub use limits::{MAX_CATALOG_BYTES, MAX_CATALOG_IMAGES, MAX_IMAGE_BYTES, MAX_SECONDS};
pub use pod::{PodPort, SshPod};
pub use policy::{Duration, Images, PodTemplate, Pricing};
pub use problem::{Problems, truncate_message};
pub use refusal::{RefusalCode, refuse};
pub use schema::schema;
pub use settings::{Configured, parse};
pub use tier::{check_tier_ids, refuse_tier};
