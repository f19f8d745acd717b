//! A NodePort Service instead of a host port. The port range must be within that of the cluster's
//! node ports: SSH_PORT_RANGE_START=30000 SSH_PORT_RANGE_END=32767.
//!
//! `Local`, the default, keeps the customer's address, and the pod's own node answers. With
//! `Cluster` every node answers, and the pod sees all customers at the address of a node: its
//! limits cannot tell them apart.

use paygress_policy_sdk::{
    AccessMode, Grant, Order, Placement, PodTemplate, Refusal, RenderedPod, SshPod,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "SSH pod on a node port")]
pub struct Settings {
    /// Local: the pod's node answers. Cluster: every node does, and hides the customer's address.
    external_traffic_policy: TrafficPolicy,
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema, Serialize)]
enum TrafficPolicy {
    #[default]
    Local,
    Cluster,
}

impl PodTemplate for Settings {
    fn render(
        &self,
        _: &Order,
        _: &Grant,
        placement: &Placement,
        _: &[AccessMode],
        _: &str,
    ) -> Result<RenderedPod, Refusal> {
        // The host sets the name and the selector of the Service.
        let service = json!({"spec": {
            "type": "NodePort",
            "externalTrafficPolicy": self.external_traffic_policy,
            "ports": [{"name": "ssh", "port": 22, "nodePort": placement.host_port}],
        }});
        let pod = SshPod { host_port: None, ..SshPod::new(placement) };
        Ok(RenderedPod { objects: pod.render(&[service]), egress: None })
    }
}

paygress_policy_sdk::export!(PodTemplate for Settings);
