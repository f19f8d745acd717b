//! A pod-template policy: one container that serves SSH on a port of its node, without any privilege.

use paygress_policy_sdk::{AccessMode, Grant, Order, Placement, PodTemplate, Refusal, RenderedPod, SshPod};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "A pod with SSH")]
pub struct Settings {
    /// The user and group that the pod runs as.
    #[schemars(range(min = 1, max = i32::MAX))]
    user_id: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { user_id: 1_000 }
    }
}

impl PodTemplate for Settings {
    fn render(&self, _: &Order, _: &Grant, placement: &Placement, access: &[AccessMode], _: &str) -> Result<RenderedPod, Refusal> {
        let host_port = access.contains(&AccessMode::HostPort).then_some(placement.host_port);
        // To change more of the pod, change the JSON of `pod.template()`.
        let pod = SshPod { user_id: self.user_id, host_port, ..SshPod::new(placement) };
        Ok(RenderedPod { objects: pod.render(&[]), egress: None })
    }
}

paygress_policy_sdk::export!(PodTemplate for Settings);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_reported() {
        let problems = paygress_policy_sdk::parse::<Settings>(r#"{"user_id": 0}"#).err().unwrap();
        assert_eq!(problems[0].path, "/user_id");
    }
}
