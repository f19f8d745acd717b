//! Prints the definition of the `Policy` resource. `cargo xtask generate` writes it to
//! `k8s/base/policy-crd.yaml`.
#![allow(clippy::print_stdout)]

use kube::CustomResourceExt;
use paygress_policy_controller::Policy;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    print!("{}", serde_saphyr::to_string(&Policy::crd())?);
    Ok(())
}
