//! Pods with GPUs for some tiers, on nodes with given labels. The operator must allow the device
//! and the taint: POD_DEVICES=nvidia.com/gpu POD_TOLERATIONS=nvidia.com/gpu.

use paygress_policy_sdk::{
    AccessMode, Grant, Order, Placement, PodTemplate, Refusal, Rendered, RenderedPod, SshPod,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "SSH pods with a GPU")]
pub struct Settings {
    /// The tiers with GPUs. They must be named explicitly: an order without a tier gets no GPU.
    gpu_tiers: Vec<String>,
    /// The extended resource, and the key of the taint on its nodes.
    #[schemars(length(min = 1, max = 63))]
    device: String,
    /// The number of GPUs per pod.
    #[schemars(range(min = 1, max = 16))]
    gpus: u64,
    /// The labels that a node must have, in tiers with GPUs.
    node_selector: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        let device = "nvidia.com/gpu".to_owned();
        Self { gpu_tiers: Vec::new(), device, gpus: 1, node_selector: BTreeMap::new() }
    }
}

impl PodTemplate for Settings {
    fn render(
        &self,
        order: &Order,
        _: &Grant,
        placement: &Placement,
        _: &[AccessMode],
        _: &str,
    ) -> Result<RenderedPod, Refusal> {
        let has_gpu = order.tier.as_ref().is_some_and(|tier| self.gpu_tiers.contains(tier));
        let template = match has_gpu {
            true => self.with_gpus(placement),
            false => SshPod::new(placement).template(),
        };
        let pod_template_json = template.to_string();
        let objects = Rendered { pod_template_json, services_json: Vec::new() };
        Ok(RenderedPod { objects, egress: None })
    }
}

impl Settings {
    fn with_gpus(&self, placement: &Placement) -> Value {
        let node_selector = self.node_selector.clone();
        let mut template = SshPod { node_selector, ..SshPod::new(placement) }.template();
        let mut insert = |object: &str, key: &str, value: Value| {
            if let Some(Value::Object(object)) = template.pointer_mut(object) {
                object.insert(key.to_owned(), value);
            }
        };
        // Kubernetes wants requests and limits of an extended resource to be equal.
        for kind in ["requests", "limits"] {
            let resources = format!("/spec/containers/0/resources/{kind}");
            insert(&resources, &self.device, self.gpus.to_string().into());
        }
        let toleration = json!({"key": self.device, "operator": "Exists", "effect": "NoSchedule"});
        insert("/spec", "tolerations", json!([toleration]));
        template
    }
}

paygress_policy_sdk::export!(PodTemplate for Settings);
