//! Pods with a GPU, for the tiers that have one, on nodes with the right labels. The operator
//! allows the device and the taint: POD_DEVICES=nvidia.com/gpu POD_TOLERATIONS=nvidia.com/gpu.

#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
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
use paygress_plugin_settings::{Pod, Reader};
use serde_json::{Value, json};

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "SSH pods with a GPU",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "gpu_tiers": {"type": "array", "items": {"type": "string"}, "default": [], "description": "The tiers that have GPUs. Name them so that customers ask for them: an order that names no tier gets none."},
    "device": {"type": "string", "minLength": 1, "maxLength": 63, "default": "nvidia.com/gpu", "description": "The extended resource, and the taint of its nodes."},
    "gpus": {"type": "integer", "minimum": 1, "maximum": 16, "default": 1, "description": "GPUs a pod."},
    "node_selector": {"type": "object", "additionalProperties": {"type": "string"}, "default": {}, "description": "Labels that a node with a GPU must have."}
  }
}"#;

/// The policy.
struct GpuTemplate;

#[derive(Clone, Debug)]
struct Settings {
    gpu_tiers: Vec<String>,
    device: String,
    gpus: u64,
    node_selector: Vec<(String, String)>,
}

paygress_plugin_settings::kept!(GpuTemplate, Settings, SCHEMA, read);

fn read(json: &str) -> Result<Settings, Vec<(String, String)>> {
    let mut reader = Reader::parse(json);
    let settings = Settings {
        gpu_tiers: reader.texts("gpu_tiers").unwrap_or_default(),
        device: reader.text("device", "nvidia.com/gpu", 63),
        gpus: reader.number("gpus", 1, 1..=16),
        node_selector: reader.table("node_selector"),
    };
    let problems = reader.problems();
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

impl pod_template::Guest for GpuTemplate {
    fn render(order: Order, _: Grant, placement: Placement) -> Result<Rendered, Refusal> {
        let Some(settings) = SETTINGS.with_borrow(Clone::clone) else {
            return Err(Refusal {
                code: "resource_unavailable".to_owned(),
                message: "the pod template is not configured".to_owned(),
            });
        };
        let gpu = order.tier.as_ref().is_some_and(|tier| settings.gpu_tiers.contains(tier));
        Ok(Rendered {
            pod_template_json: render(&settings, &placement, gpu).to_string(),
            services_json: Vec::new(),
        })
    }
}

fn render(settings: &Settings, placement: &Placement, gpu: bool) -> Value {
    let node_selector: &[_] = if gpu { &settings.node_selector } else { &[] };
    let pod = Pod {
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
    if gpu {
        // Requests and limits of a device must be the same.
        for kind in ["requests", "limits"] {
            let amounts = template
                .pointer_mut(&format!("/spec/containers/0/resources/{kind}"))
                .and_then(Value::as_object_mut);
            if let Some(amounts) = amounts {
                amounts.insert(settings.device.clone(), settings.gpus.to_string().into());
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
