//! A NodePort Service instead of a host port. The port range must be within that of the cluster's
//! node ports: SSH_PORT_RANGE_START=30000 SSH_PORT_RANGE_END=32767.
//!
//! `Local`, the default, keeps the customer's address, and the pod's own node answers. With
//! `Cluster` every node answers, and the pod sees all customers at the address of a node: its
//! limits cannot tell them apart.

#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit/1.1", world: "pod-template-policy" });
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{NodePort, bindings};
    bindings::export!(NodePort with_types_in bindings);
}

use bindings::exports::paygress::policy::{pod_template, settings};
use bindings::paygress::policy::types::{Grant, Order, Placement, Problem, Refusal, Rendered};
use paygress_plugin_settings::{SettingsReader, SshPod};
use serde_json::json;

struct NodePort;

#[derive(Clone, Debug)]
struct Settings {
    external_traffic_policy: String,
}

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "SSH pod on a node port",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "external_traffic_policy": {
      "enum": ["Local", "Cluster"], "default": "Local",
      "description": "Local: the pod's node answers. Cluster: every node does, and hides the customer's address."
    }
  }
}"#;

paygress_plugin_settings::export_settings!(NodePort, Settings, SCHEMA, parse_settings);

fn parse_settings(json: &str) -> Result<Settings, Vec<paygress_plugin_settings::Problem>> {
    let mut reader = SettingsReader::parse(json);
    let external_traffic_policy = reader.string("external_traffic_policy", "Local", 16);
    if !matches!(external_traffic_policy.as_str(), "Local" | "Cluster") {
        reader.problem("external_traffic_policy", "must be Local or Cluster");
    }
    reader.finish(Settings { external_traffic_policy })
}

impl pod_template::Guest for NodePort {
    fn render(_: Order, _: Grant, placement: Placement) -> Result<Rendered, Refusal> {
        let settings = SETTINGS.with_borrow(Clone::clone);
        let Some(settings) = settings else {
            return Err(Refusal {
                code: "resource_unavailable".to_owned(),
                message: "the pod template is not configured".to_owned(),
            });
        };
        let pod = pod(&placement).to_string();
        // The host sets the name and the selector of the Service.
        let service = json!({
            "spec": {"type": "NodePort", "externalTrafficPolicy": settings.external_traffic_policy, "ports": [{"name": "ssh", "port": 22, "nodePort": placement.host_port}]}
        });
        Ok(Rendered { pod_template_json: pod, services_json: vec![service.to_string()] })
    }
}

fn pod(placement: &Placement) -> serde_json::Value {
    let pod = SshPod {
        image: &placement.image,
        cpu_millicores: placement.resources.cpu_millicores,
        memory_mib: placement.resources.memory_mib,
        container_port: placement.container_port,
        host_port: None,
        secret_name: &placement.secret_name,
        secret_mount_path: &placement.secret_mount_path,
        user_id: 1_000,
        node_selector: &[],
    };
    pod.template()
}
