//! The customer chooses where a pod runs, by the tier: pods of `standard@eu` run on nodes with the
//! label of `eu`, those of a tier without `@` anywhere. The pricing policy sells these tiers; a
//! region that is not listed here is refused. The admission policy must allow the label:
//! `POD_NODE_LABELS=topology.kubernetes.io/region`.

use paygress_policy_sdk::{
    AccessMode, Grant, Order, Placement, PodPort, PodTemplate, Problems, Refusal, RefusalCode,
    RenderedPod, SshPod, refuse,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "SSH pods in regions")]
pub struct Settings {
    /// The label of nodes that says where they are.
    #[schemars(length(min = 1, max = 317))]
    label: String,
    /// What customers write after the @ of a tier, and the value of the label.
    regions: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { label: "topology.kubernetes.io/region".to_owned(), regions: BTreeMap::new() }
    }
}

paygress_policy_sdk::export!(PodTemplate for Settings);

impl PodTemplate for Settings {
    fn check(&self, problems: &mut Problems) {
        for (name, value) in &self.regions {
            if name.is_empty() || name.contains('@') {
                problems.add(&["regions"], format!("{name:?} must be a name without @"));
            }
            if !is_label_value(value) {
                let message = format!(
                    "the value of {name} must have 1 to 63 letters, digits and - _ . between them"
                );
                problems.add(&["regions"], message);
            }
        }
    }

    fn render(
        &self,
        _: &Order,
        _: &Grant,
        placement: &Placement,
        access: &[AccessMode],
        tier: &str,
    ) -> Result<RenderedPod, Refusal> {
        let node_selector = self.node_selector(tier)?;
        let (port, placed) = (PodPort::new(placement, access), SshPod::new(placement));
        let pod = SshPod { host_port: port.host_port(), node_selector, ..placed };
        let objects = pod.render(port.service().as_slice());
        Ok(RenderedPod { objects, egress: None })
    }
}

fn is_label_value(text: &str) -> bool {
    let is_end = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && is_end(text.bytes().next())
        && is_end(text.bytes().next_back())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

impl Settings {
    /// The labels that a node must have for pods of this tier.
    fn node_selector(&self, tier: &str) -> Result<BTreeMap<String, String>, Refusal> {
        let Some((_, region)) = tier.rsplit_once('@') else { return Ok(BTreeMap::new()) };
        let Some(value) = self.regions.get(region) else {
            let known: Vec<&str> = self.regions.keys().map(String::as_str).collect();
            let message = format!("there is no such region; choose one of: {}", known.join(", "));
            return Err(refuse(RefusalCode::InvalidSpec, message));
        };
        Ok(BTreeMap::from([(self.label.clone(), value.clone())]))
    }
}
