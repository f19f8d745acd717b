//! The default pod-template policy: one unprivileged container that serves SSH, on a host port, or by a
//! Service with a node port, or for the gateway alone, as the operator sells it. What it may connect to
//! may be set by tier.

mod egress;

use egress::Egress;
use paygress_policy_sdk::{
    AccessMode, Grant, Order, Placement, PodPort, PodTemplate, Problems, Refusal, Rendered,
    RenderedPod, SshPod,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "SSH pod")]
pub struct Settings {
    /// The labels that a node must have.
    node_selector: BTreeMap<String, String>,
    /// The user and group id that the container runs as.
    #[schemars(range(min = 1, max = i32::MAX))]
    user_id: u64,
    /// By tier, what its pods may connect to besides DNS, in place of what all pods may. TCP port 25,
    /// private networks and the cluster stay closed.
    egress: BTreeMap<String, Egress>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { node_selector: BTreeMap::new(), user_id: 1_000, egress: BTreeMap::new() }
    }
}

paygress_policy_sdk::export!(PodTemplate for Settings);

impl PodTemplate for Settings {
    fn check(&self, problems: &mut Problems) {
        for (tier, egress) in &self.egress {
            egress.check(tier, problems);
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
        let objects = self.objects(placement, PodPort::new(placement, access));
        Ok(RenderedPod { objects, egress: self.egress.get(tier).map(Egress::rules) })
    }
}

impl Settings {
    fn objects(&self, placement: &Placement, port: PodPort) -> Rendered {
        let pod = SshPod {
            placement,
            host_port: port.host_port(),
            user_id: self.user_id,
            node_selector: self.node_selector.clone(),
        };
        pod.render(port.service().as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_policy_sdk::{Resources, parse, schema};
    use serde_json::{Value, json};

    fn placement() -> Placement {
        Placement {
            pod_name: "ssh-pod-a".to_owned(),
            image: "example.com/ssh:1".to_owned(),
            resources: Resources { cpu_millicores: 500, memory_mib: 64 },
            host_port: 31_000,
            container_port: 2_222,
            secret_name: "ssh-pod-a".to_owned(),
            secret_mount_path: "/run/paygress/login".to_owned(),
        }
    }

    fn template(rendered: &Rendered) -> Value {
        serde_json::from_str(&rendered.pod_template_json).unwrap()
    }

    #[test]
    fn the_template_follows_the_placement() {
        let json = r#"{"node_selector": {"pool": "leases"}, "user_id": 7}"#;
        let settings = parse::<Settings>(json).unwrap();
        let template = template(&settings.objects(&placement(), PodPort::Host(31_000)));
        let container = &template["spec"]["containers"][0];
        assert_eq!(container["image"], "example.com/ssh:1");
        assert_eq!(container["ports"][0]["hostPort"], 31_000);
        assert_eq!(container["resources"]["limits"], json!({"cpu": "500m", "memory": "64Mi"}));
        assert_eq!(template["spec"]["nodeSelector"]["pool"], "leases");
        assert_eq!(template["spec"]["securityContext"]["runAsUser"], 7);
    }

    #[test]
    fn a_pod_has_the_port_that_is_sold() {
        use AccessMode::{Gateway, HostPort, NodePort};
        let settings = parse::<Settings>("{}").unwrap();
        for (access, host_port, node_port) in [
            (&[HostPort, NodePort][..], json!(31_000), None),
            (&[HostPort, Gateway], json!(31_000), None),
            (&[NodePort, Gateway], Value::Null, Some(json!(31_000))),
            (&[NodePort], Value::Null, Some(json!(31_000))),
            (&[Gateway], Value::Null, None),
        ] {
            let port = PodPort::new(&placement(), access);
            let template = template(&settings.objects(&placement(), port));
            let ports = &template["spec"]["containers"][0]["ports"][0];
            assert_eq!((&ports["containerPort"], &ports["hostPort"]), (&json!(2_222), &host_port));
            let service = port.service();
            let opened = service.map(|service| service["spec"]["ports"][0]["nodePort"].clone());
            assert_eq!(opened, node_port, "{access:?}");
        }
    }

    /// As they have been reported, and the schema been published, since before there was an SDK.
    #[test]
    fn problems_and_schema_are_as_they_were() {
        let whole_number = "must be a whole number from 1 to 2147483647";
        for (json, expected) in [
            (
                r#"{"node_selector": [], "user_id": 0, "egress": 1}"#,
                vec![
                    ("/node_selector", "must be an object whose values are texts"),
                    ("/user_id", whole_number),
                    ("/egress", "must be an object whose values are objects"),
                ],
            ),
            (
                r#"{"node_selector": {"a": 1}, "user": 7}"#,
                vec![
                    ("/node_selector", "the value of a must be a text"),
                    ("/user", "is not a setting; known are: node_selector, user_id, egress"),
                ],
            ),
        ] {
            let problems = parse::<Settings>(json).err().unwrap();
            let shown: Vec<_> = problems.iter().map(|it| (&*it.path, &*it.message)).collect();
            assert_eq!(shown, expected, "{json}");
        }
        let before: Value = serde_json::from_str(include_str!("../schema.json")).unwrap();
        assert_eq!(schema::<Settings>(), before);
    }
}
