//! A duration policy of contract 1.0, as it was built before 1.1: one second per sat.

#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../../wit/1.0", world: "duration-policy" });
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{Policy, bindings};
    bindings::export!(Policy with_types_in bindings);
}

use bindings::exports::paygress::policy::{duration, settings};
use bindings::paygress::policy::types::{Context, Grant, Order, Payment, Problem, Quote, Refusal};

/// The policy.
pub struct Policy;

impl settings::Guest for Policy {
    fn schema() -> String {
        "{}".to_owned()
    }

    fn configure(_: String) -> Result<(), Vec<Problem>> {
        Ok(())
    }
}

impl duration::Guest for Policy {
    fn grant(_: Order, _: Quote, payment: Payment, _: Context) -> Result<Grant, Refusal> {
        Ok(Grant { seconds: payment.net_sat, note: None })
    }
}
