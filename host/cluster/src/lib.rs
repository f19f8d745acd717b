//! `paygress-cluster`: where pods run. Two implementations of `paygress_core::Cluster`, which pass
//! one suite.
//!
//! - [`Kubernetes`]: a lease is a Job that owns its Secret and Services. Kubernetes ends it
//!   (`activeDeadlineSeconds`) and
//!   cleans up after it (`ttlSecondsAfterFinished`), with or without us; we raise the deadline and
//! watch.
//! - [`Local`]: for the demo and for tests: an SSH server on 127.0.0.1 instead of a pod. No
//!   isolation.
//!
//! [`Policies`] watches the `Policy` resources of the operator's namespace, and writes their
//! status.
//!
//! Either way the template that the policy rendered passes [`guard::check`] first, which trusts
//! nothing of it.
//!
//! This is the only room that knows kube.

pub mod guard;
mod kubernetes;
mod local;
mod objects;
mod policies;

pub use kubernetes::{ConnectError, Kubernetes, Settings};
pub use local::Local;
pub use policies::{ApplyStatus, DesiredPolicy, FetchError, Fetched, Mode, Policies, Reconcile};

use guard::Checked;
use paygress_core::backend::cluster::LeasePlan;
use paygress_core::model::refusal::{ErrorType, Refusal};

/// What any cluster checks of a plan before it runs anything: the template, and a key that the
/// pod's server can read.
fn checked(plan: &LeasePlan, allowed: &guard::Allowed) -> Result<Checked, Refusal> {
    if let Some(key) = &plan.login.public_key {
        paygress_sshd::parse_key(key).map_err(|error| {
            Refusal::new(ErrorType::InvalidRequest, format!("ssh_public_key: {error}"))
        })?;
    }
    // The customer cannot mend it, and the operator finds it in the log.
    guard::check(&plan.rendered, &plan.placement, allowed).map_err(|why| {
        tracing::error!(why, "the rendered template was refused");
        Refusal::new(
            ErrorType::PolicyUnavailable,
            "the operator's pod-template policy asks for what is not allowed",
        )
        .with_details(why)
    })
}
