//! `paygress-policy-controller`: applies `Policy` resources, and writes their status.
//!
//! ```text
//! kubectl apply ─▶ watch ─▶ list ─▶ fetch every component ─▶ apply the whole set ─▶ write statuses
//!                          ▲        (ConfigMap or registry)  (Publisher::publish_desired)
//!                          └─ resync every 30 s
//! ```
//!
//! A resource is desired state: it is applied again whenever something else is active in its slot,
//! unless the operator did that by hand (`paygress policy rollback`, `promote`, `swap`). When a
//! resource is deleted, its slot returns to what POLICY_DIR has.
//!
//! - `resource.rs`: the resource as types, from which `cargo xtask generate` derives
//!   `k8s/base/policy-crd.yaml`.
//! - `controller.rs`: [`Controller`], which talks to the API server.
//! - `conditions.rs`: the status: `Fetched`, `Verified`, `Valid`, `Active`, and `Ready`, which is
//!   what kstatus, Argo CD and `kubectl wait --for=condition=Ready` read.
//! - `desired.rs`: the [`Reconcile`] trait between the controller and the policies, and its types.
//! - `reconciler.rs`: [`PolicyReconciler`], which fetches components and implements that trait.
//!   `applier.rs`: what it applies, and when.
//!
//! # Why not `kube::runtime::Controller`
//!
//! That controller reconciles one object at a time. Here all resources of the namespace are one
//! desired set: those with mode `Enforce` are applied together or not at all, the oldest resource
//! wins a slot, and a deletion, after which there is no object left to reconcile, restores
//! POLICY_DIR. So a watcher triggers one reconciliation of the whole set; the rest has the shape of
//! a kube-rs controller: a context, `reconcile`, and `error_policy`.
//!
//! # Example
//!
//! ```no_run
//! use paygress_oci::{ComponentFetcher, Keys, Registry, SignatureMode, VerificationPolicy};
//! use paygress_policy::{COMPONENT_BYTES, Publisher};
//! use paygress_policy_controller::{Controller, PolicyReconciler};
//! use std::sync::Arc;
//!
//! # async fn example(publisher: Arc<Publisher>) -> Result<(), Box<dyn std::error::Error>> {
//! let verification = VerificationPolicy::new(Keys::default(), SignatureMode::Off);
//! let fetcher = ComponentFetcher::new(Registry::new(None)?, Arc::new(verification), COMPONENT_BYTES);
//! let reconciler = Arc::new(PolicyReconciler::new(publisher, Arc::new(fetcher)));
//! let controller = Controller::connect(None, "ingress-system", reconciler).await?;
//! controller.reconcile_once().await;
//! controller.run().await;
//! # Ok(())
//! # }
//! ```

mod applier;
mod conditions;
mod controller;
mod desired;
mod reconciler;
mod resource;

pub use controller::Controller;
pub use desired::{
    ApplyStatus, Completeness, DesiredPolicy, FetchError, Reconcile, UntrustedComponent,
};
pub use reconciler::PolicyReconciler;
pub use resource::{ComponentSource, Mode, Policy, PolicySpec, PolicyStatus};
