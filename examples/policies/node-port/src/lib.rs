//! A NodePort Service instead of a host port: a pod is reachable at every node, wherever it runs.
//! The port range must be that of the cluster's node ports: SSH_PORT_RANGE_START=30000
//! SSH_PORT_RANGE_END=32767.

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

#[derive(Clone, Copy, Debug)]
struct Settings;

paygress_plugin_settings::export_settings!(
    NodePort,
    Settings,
    r#"{"type": "object", "additionalProperties": false}"#,
    parse_settings
);

fn parse_settings(json: &str) -> Result<Settings, Vec<paygress_plugin_settings::Problem>> {
    SettingsReader::parse(json).finish(Settings)
}

impl pod_template::Guest for NodePort {
    fn render(_: Order, _: Grant, placement: Placement) -> Result<Rendered, Refusal> {
        let pod = pod(&placement).to_string();
        // The host sets the name and the selector of the Service.
        let service = json!({
            "spec": {"type": "NodePort", "ports": [{"name": "ssh", "port": 22, "nodePort": placement.host_port}]}
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
