//! Pods with GPUs for some tiers, on nodes with given labels. The operator must allow the device
//! and the taint: POD_DEVICES=nvidia.com/gpu POD_TOLERATIONS=nvidia.com/gpu.

#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit/1.1", world: "pod-template-policy" });
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{GpuTemplate, bindings};
    bindings::export!(GpuTemplate with_types_in bindings);
}

use bindings::exports::paygress::policy::{pod_template, settings};
use bindings::paygress::policy::types::{Grant, Order, Placement, Problem, Refusal, Rendered};
use paygress_plugin_settings::{SettingsReader, SshPod};
use serde_json::{Value, json};

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "SSH pods with a GPU",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "gpu_tiers": {"type": "array", "items": {"type": "string"}, "default": [], "description": "The tiers with GPUs. They must be named explicitly: an order without a tier gets no GPU."},
    "device": {"type": "string", "minLength": 1, "maxLength": 63, "default": "nvidia.com/gpu", "description": "The extended resource, and the key of the taint on its nodes."},
    "gpus": {"type": "integer", "minimum": 1, "maximum": 16, "default": 1, "description": "The number of GPUs per pod."},
    "node_selector": {"type": "object", "additionalProperties": {"type": "string"}, "default": {}, "description": "The labels that a node must have, in tiers with GPUs."}
  }
}"#;

struct GpuTemplate;

#[derive(Clone, Debug)]
struct Settings {
    gpu_tiers: Vec<String>,
    device: String,
    gpus: u64,
    node_selector: Vec<(String, String)>,
}

paygress_plugin_settings::export_settings!(GpuTemplate, Settings, SCHEMA, parse_settings);

fn parse_settings(json: &str) -> Result<Settings, Vec<paygress_plugin_settings::Problem>> {
    let mut reader = SettingsReader::parse(json);
    let settings = Settings {
        gpu_tiers: reader.strings("gpu_tiers").unwrap_or_default(),
        device: reader.string("device", "nvidia.com/gpu", 63),
        gpus: reader.number("gpus", 1, 1..=16),
        node_selector: reader.string_map("node_selector"),
    };
    reader.finish(settings)
}

impl pod_template::Guest for GpuTemplate {
    fn render(order: Order, _: Grant, placement: Placement) -> Result<Rendered, Refusal> {
        let Some(settings) = SETTINGS.with_borrow(Clone::clone) else {
            return Err(Refusal {
                code: "resource_unavailable".to_owned(),
                message: "the pod template is not configured".to_owned(),
            });
        };
        let has_gpu = order.tier.as_ref().is_some_and(|tier| settings.gpu_tiers.contains(tier));
        let gpus = has_gpu.then_some(settings.gpus);
        Ok(Rendered {
            pod_template_json: render(&settings, &placement, gpus).to_string(),
            services_json: Vec::new(),
        })
    }
}

fn render(settings: &Settings, placement: &Placement, gpus: Option<u64>) -> Value {
    let node_selector: &[_] = if gpus.is_some() { &settings.node_selector } else { &[] };
    let pod = SshPod {
        image: &placement.image,
        cpu_millicores: placement.resources.cpu_millicores,
        memory_mib: placement.resources.memory_mib,
        container_port: placement.container_port,
        host_port: Some(placement.host_port),
        secret_name: &placement.secret_name,
        secret_mount_path: &placement.secret_mount_path,
        user_id: 1_000,
        node_selector,
    };
    let mut template = pod.template();
    if let Some(gpus) = gpus {
        // Kubernetes wants requests and limits of an extended resource to be equal.
        for kind in ["requests", "limits"] {
            let amounts = template
                .pointer_mut(&format!("/spec/containers/0/resources/{kind}"))
                .and_then(Value::as_object_mut);
            if let Some(amounts) = amounts {
                amounts.insert(settings.device.clone(), gpus.to_string().into());
            }
        }
        if let Some(spec) = template.pointer_mut("/spec").and_then(Value::as_object_mut) {
            spec.insert(
                "tolerations".to_owned(),
                json!([{"key": settings.device, "operator": "Exists", "effect": "NoSchedule"}]),
            );
        }
    }
    template
}
