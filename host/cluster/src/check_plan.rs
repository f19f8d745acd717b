//! The checks of a plan that do not depend on where pods run.

use crate::guard::{self, Allowed, Checked};
use paygress_core::backend::cluster::LeasePlan;
use paygress_core::model::refusal::{ErrorType, Refusal};

/// Checks that the template passes the guard, and that the pod's SSH server can read the public
/// key.
///
/// # Errors
/// The refusal that the customer gets.
pub fn check_plan(plan: &LeasePlan, allowed: &Allowed) -> Result<Checked, Refusal> {
    if let Some(key) = &plan.login.public_key {
        paygress_sshd::parse_key(key).map_err(|error| {
            Refusal::new(ErrorType::InvalidRequest, format!("ssh_public_key: {error}"))
        })?;
    }
    // The customer cannot fix this; the operator finds it in the log.
    guard::check(&plan.rendered, &plan.placement, allowed).map_err(|error| {
        tracing::error!(%error, "the guard refused a rendered template");
        Refusal::new(
            ErrorType::PolicyUnavailable,
            "the operator's pod-template policy asks for what is not allowed",
        )
        .with_details(error.to_string())
    })
}
