//! The Services of a pod.

use super::error::GuardError;
use super::fields::Object;
use paygress_core::backend::policy::Placement;
use paygress_core::model::access::AccessMode;
use serde_json::{Value, json};

/// Each is a rule, or several, in every node's network.
const PORTS: usize = 16;

/// Customers come by either family, and the cluster's first may be IPv6: without a policy a Service
/// has addresses of that one alone.
fn check_families(spec: &mut Object<'_>) -> Result<(), GuardError> {
    match spec.get("ipFamilyPolicy").map(Value::as_str) {
        None => spec.set("ipFamilyPolicy", json!("PreferDualStack")),
        Some(Some("PreferDualStack" | "RequireDualStack" | "SingleStack")) => {}
        Some(_) => {
            let violation = "must be PreferDualStack, RequireDualStack or SingleStack";
            return Err(spec.field_error("ipFamilyPolicy", violation));
        }
    }
    Ok(())
}

/// Checks and completes a Service; returns whether it has the reserved port as its nodePort.
pub(super) fn check(
    service: &mut Object<'_>,
    placement: &Placement,
    index: usize,
) -> Result<bool, GuardError> {
    service.only(&["apiVersion", "kind", "metadata", "spec"])?;
    service.require("apiVersion", json!("v1"))?;
    service.require("kind", json!("Service"))?;
    // The host chooses the name: it must not collide with another lease's.
    service.object("metadata").only(&[])?;
    let name = if index == 0 {
        placement.pod_name.clone()
    } else {
        format!("{}-{index}", placement.pod_name)
    };
    service.object("metadata").set("name", json!(name));
    let mut spec = service.object("spec");
    spec.only(&["externalTrafficPolicy", "ipFamilyPolicy", "ports", "type"])?;
    check_families(&mut spec)?;
    let is_node_port = match spec.get("type").map(Value::as_str) {
        None | Some(Some("ClusterIP")) => false,
        Some(Some("NodePort")) => true,
        _ => return Err(spec.field_error("type", "must be ClusterIP or NodePort")),
    };
    let node_port = placement.port_by(AccessMode::NodePort);
    if is_node_port && node_port.is_none() {
        return Err(spec.field_error("type", "must be ClusterIP: ACCESS has no node-port"));
    }
    let mut reserved = false;
    for mut port in spec.list_of_at_most("ports", PORTS)? {
        port.only(&["name", "nodePort", "port", "protocol", "targetPort"])?;
        if is_node_port {
            if reserved {
                return Err(port.field_error("nodePort", "is a second one; a pod has one"));
            }
            port.require("nodePort", json!(node_port))?;
            port.require("targetPort", json!(placement.container_port))?;
            port.require("protocol", json!("TCP"))?;
            reserved = true;
        }
    }
    Ok(reserved)
}
