//! The guard over rendered templates: which fields a pod may have, and the values that it must
//! have.
//!
//! It is an allowlist: a field that is not named here is refused, and with it every field that
//! future versions of Kubernetes add. What passes satisfies the `restricted` Pod Security Standard,
//! except for the one host port, if the operator sells any.

mod allowed;
mod egress;
mod error;
mod fields;
mod pod;
mod service;
#[cfg(test)]
mod tests;

pub use allowed::{Allowed, Overcommit};
pub(crate) use egress::EGRESS_LABEL;
pub use error::{GuardError, Violation};

use fields::Object;
use k8s_openapi::api::core::v1::{PodTemplateSpec, Service};
use k8s_openapi::api::networking::v1::NetworkPolicyEgressRule;
use paygress_core::backend::policy::{Placement, Rendered};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A template that passed, completed with the values that every pod must have.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    pub template: PodTemplateSpec,
    pub services: Vec<Service>,
    /// What the pod may connect to, in place of what all pods may; none: as all.
    pub egress: Option<Vec<NetworkPolicyEgressRule>>,
}

/// Parses, checks and completes a rendered template.
///
/// # Errors
/// The first violation, with the path of its field.
pub fn check(
    rendered: &Rendered,
    placement: &Placement,
    allowed: &Allowed,
) -> Result<Checked, GuardError> {
    let mut template = parse(&rendered.pod_template_json, "pod template")?;
    let mut services = rendered
        .services_json
        .iter()
        .map(|service| parse(service, "Service"))
        .collect::<Result<Vec<Value>, _>>()?;
    let host_port = pod::check(&mut Object::root("template", &mut template), placement, allowed)?;
    let mut node_port = false;
    for (index, value) in services.iter_mut().enumerate() {
        let path = format!("services[{index}]");
        let reserved = service::check(&mut Object::root(&path, value), placement, index)?;
        if reserved && node_port {
            return Err(GuardError::SecondNodePort { path });
        }
        node_port |= reserved;
    }
    match (placement.host_port, host_port, node_port) {
        (Some(port), true, true) => return Err(GuardError::PortTwice(port)),
        (Some(port), false, false) => return Err(GuardError::Unreachable(port)),
        _ => {}
    }
    let egress = match &rendered.egress {
        None => None,
        Some(rules) => {
            egress::check_label(&template)?;
            Some(egress::check(rules, &allowed.egress_except)?)
        }
    };
    // Only now: deserialising drops unknown fields, and these must be refused.
    Ok(Checked {
        template: typed(template)?,
        services: services.into_iter().map(typed).collect::<Result<_, _>>()?,
        egress,
    })
}

fn parse(json: &str, what: &'static str) -> Result<Value, GuardError> {
    serde_json::from_str(json).map_err(|source| GuardError::NotJson { what, source })
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, GuardError> {
    serde_json::from_value(value).map_err(GuardError::WrongType)
}
