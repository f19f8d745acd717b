//! The customer chooses where a pod runs, by the tier: pods of `standard@eu` run on nodes with the
//! label of `eu`, those of a tier without `@` anywhere. The pricing policy sells these tiers; a
//! region that is not listed here is refused. The admission policy must allow the label:
//! `POD_NODE_LABELS=topology.kubernetes.io/region`.

#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit/1.2", world: "pod-template-policy" });
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{Regions, bindings};
    bindings::export!(Regions with_types_in bindings);
}

use bindings::exports::paygress::policy::pod_template::{AccessMode, RenderedPod};
use bindings::exports::paygress::policy::{pod_template, settings};
use bindings::paygress::policy::types::{Grant, Order, Placement, Problem, Refusal, Rendered};
use paygress_plugin_settings::{SettingsReader, SshPod, truncate_message};
use serde_json::json;

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "SSH pods in regions",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "label": {"type": "string", "minLength": 1, "maxLength": 317, "default": "topology.kubernetes.io/region", "description": "The label of nodes that says where they are."},
    "regions": {"type": "object", "default": {}, "additionalProperties": {"type": "string", "maxLength": 63}, "description": "What customers write after the @ of a tier, and the value of the label."}
  }
}"#;

struct Regions;

#[derive(Clone, Debug)]
struct Settings {
    label: String,
    /// Name and value of the label.
    regions: Vec<(String, String)>,
}

paygress_plugin_settings::export_settings!(Regions, Settings, SCHEMA, parse_settings);

fn parse_settings(json: &str) -> Result<Settings, Vec<paygress_plugin_settings::Problem>> {
    let mut reader = SettingsReader::parse(json);
    let label = reader.string("label", "topology.kubernetes.io/region", 317);
    let regions = reader.string_map("regions");
    for (name, value) in &regions {
        if name.is_empty() || name.contains('@') {
            reader.problem("regions", format!("{name:?} must be a name without @"));
        }
        if !is_label_value(value) {
            let message = format!(
                "the value of {name} must have 1 to 63 letters, digits and - _ . between them"
            );
            reader.problem("regions", message);
        }
    }
    reader.finish(Settings { label, regions })
}

fn is_label_value(text: &str) -> bool {
    let is_end = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && is_end(text.bytes().next())
        && is_end(text.bytes().next_back())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

impl pod_template::Guest for Regions {
    fn render(
        _: Order,
        _: Grant,
        placement: Placement,
        access: Vec<AccessMode>,
        tier: String,
    ) -> Result<RenderedPod, Refusal> {
        let Some(settings) = SETTINGS.with_borrow(Clone::clone) else {
            return Err(refuse("resource_unavailable", "the pod template is not configured"));
        };
        let node_selector = settings.node_selector(&tier)?;
        let with_host_port = access.contains(&AccessMode::HostPort);
        let with_node_port = !with_host_port && access.contains(&AccessMode::NodePort);
        let pod = SshPod {
            image: &placement.image,
            cpu_millicores: placement.resources.cpu_millicores,
            memory_mib: placement.resources.memory_mib,
            container_port: placement.container_port,
            host_port: with_host_port.then_some(placement.host_port),
            secret_name: &placement.secret_name,
            secret_mount_path: &placement.secret_mount_path,
            user_id: 1_000,
            node_selector: &node_selector,
        };
        // The host sets the name and the selector of the Service.
        let service = json!({
            "spec": {"type": "NodePort", "externalTrafficPolicy": "Local", "ports": [{"name": "ssh", "port": 22, "nodePort": placement.host_port}]}
        });
        let objects = Rendered {
            pod_template_json: pod.template().to_string(),
            services_json: with_node_port.then(|| service.to_string()).into_iter().collect(),
        };
        Ok(RenderedPod { objects, egress: None })
    }
}

fn refuse(code: &str, message: &str) -> Refusal {
    Refusal { code: code.to_owned(), message: truncate_message(message) }
}

impl Settings {
    /// The labels that a node must have for pods of this tier.
    fn node_selector(&self, tier: &str) -> Result<Vec<(String, String)>, Refusal> {
        let Some((_, region)) = tier.rsplit_once('@') else { return Ok(Vec::new()) };
        match self.regions.iter().find(|(name, _)| name == region) {
            Some((_, value)) => Ok(vec![(self.label.clone(), value.clone())]),
            None => {
                let known: Vec<&str> = self.regions.iter().map(|(name, _)| name.as_str()).collect();
                let message =
                    format!("there is no such region; choose one of: {}", known.join(", "));
                Err(refuse("invalid_spec", &message))
            }
        }
    }
}
