//! The default pod-template policy: one unprivileged container that serves SSH, on a host port, or by a
//! Service with a node port, or for the gateway alone, as the operator sells it. What it may connect to
//! may be set by tier.

#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings;

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{Policy, bindings};
    bindings::export!(Policy with_types_in bindings);
}

mod egress;

use bindings::exports::paygress::policy::pod_template::{AccessMode, EgressRule, RenderedPod};
use bindings::exports::paygress::policy::{pod_template, settings};
use bindings::paygress::policy::types::{Grant, Order, Placement, Problem, Refusal, Rendered};
use paygress_plugin_settings::{SettingsReader, SshPod};
use serde_json::{Value, json};

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "SSH pod",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "node_selector": {
      "type": "object", "additionalProperties": {"type": "string"}, "default": {},
      "description": "The labels that a node must have."
    },
    "user_id": {
      "type": "integer", "minimum": 1, "maximum": 2147483647, "default": 1000,
      "description": "The user and group id that the container runs as."
    },
    "egress": {
      "type": "object", "default": {},
      "description": "By tier, what its pods may connect to besides DNS, in place of what all pods may. TCP port 25, private networks and the cluster stay closed.",
      "additionalProperties": {
        "type": "object", "additionalProperties": false,
        "properties": {
          "cidrs": {
            "type": "array", "items": {"type": "string"}, "maxItems": 32,
            "description": "Networks, as 192.0.2.0/24. Left out: the whole internet; empty: nothing."
          },
          "ports": {
            "type": "array", "items": {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?/(tcp|udp)$"}, "maxItems": 32,
            "description": "Ports, as 443/tcp or 8000-8100/udp. Left out or empty: all."
          }
        }
      }
    }
  }
}"#;

pub struct Policy;

#[derive(Clone, Debug)]
struct Settings {
    node_selector: Vec<(String, String)>,
    user_id: u64,
    egress: Vec<(String, Vec<EgressRule>)>,
}

paygress_plugin_settings::export_settings!(Policy, Settings, SCHEMA, parse_settings);

impl pod_template::Guest for Policy {
    fn render(
        _: Order,
        _: Grant,
        placement: Placement,
        access: Vec<AccessMode>,
        tier: String,
    ) -> Result<RenderedPod, Refusal> {
        let settings = SETTINGS.with_borrow(Clone::clone);
        let Some(settings) = settings else {
            return Err(Refusal {
                code: "resource_unavailable".to_owned(),
                message: "the pod template is not configured".to_owned(),
            });
        };
        let port = PodPort::new(&placement, &access);
        let objects = Rendered {
            pod_template_json: render(&settings, &placement, port).to_string(),
            services_json: port.service().into_iter().map(|service| service.to_string()).collect(),
        };
        let of_tier = settings.egress.into_iter().find(|(id, _)| *id == tier);
        Ok(RenderedPod { objects, egress: of_tier.map(|(_, rules)| rules) })
    }
}

/// What the pod does with the port of the nodes that is reserved for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PodPort {
    Host(u16),
    Node(u16),
    /// There is none.
    None,
}

impl PodPort {
    /// A host port needs no Service: it is preferred.
    fn new(placement: &Placement, access: &[AccessMode]) -> Self {
        if access.contains(&AccessMode::HostPort) {
            Self::Host(placement.host_port)
        } else if access.contains(&AccessMode::NodePort) {
            Self::Node(placement.host_port)
        } else {
            Self::None
        }
    }

    /// The host sets its name and its selector.
    fn service(self) -> Option<Value> {
        let Self::Node(port) = self else { return None };
        Some(json!({"spec": {
            "type": "NodePort",
            // The customer's address is kept, and the pod's own node answers.
            "externalTrafficPolicy": "Local",
            "ports": [{"name": "ssh", "port": 22, "nodePort": port}],
        }}))
    }
}

fn parse_settings(json: &str) -> Result<Settings, Vec<paygress_plugin_settings::Problem>> {
    let mut reader = SettingsReader::parse(json);
    let settings = Settings {
        node_selector: reader.string_map("node_selector"),
        user_id: reader.number("user_id", 1_000, 1..=2_147_483_647),
        egress: reader.object_map("egress", egress::rules),
    };
    reader.finish(settings)
}

fn render(settings: &Settings, placement: &Placement, port: PodPort) -> Value {
    let host_port = match port {
        PodPort::Host(port) => Some(port),
        PodPort::Node(_) | PodPort::None => None,
    };
    let pod = SshPod {
        image: &placement.image,
        cpu_millicores: placement.resources.cpu_millicores,
        memory_mib: placement.resources.memory_mib,
        container_port: placement.container_port,
        host_port,
        secret_name: &placement.secret_name,
        secret_mount_path: &placement.secret_mount_path,
        user_id: settings.user_id,
        node_selector: &settings.node_selector,
    };
    pod.template()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bindings::paygress::policy::types::Resources;

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

    #[test]
    fn the_template_follows_the_placement() {
        let template = render(
            &parse_settings(r#"{"node_selector": {"pool": "leases"}, "user_id": 7}"#).unwrap(),
            &placement(),
            PodPort::Host(31_000),
        );
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
        let settings = parse_settings("{}").unwrap();
        for (access, host_port, node_port) in [
            (&[HostPort, NodePort][..], json!(31_000), None),
            (&[HostPort, Gateway], json!(31_000), None),
            (&[NodePort, Gateway], Value::Null, Some(json!(31_000))),
            (&[NodePort], Value::Null, Some(json!(31_000))),
            (&[Gateway], Value::Null, None),
        ] {
            let port = PodPort::new(&placement(), access);
            let template = render(&settings, &placement(), port);
            let ports = &template["spec"]["containers"][0]["ports"][0];
            assert_eq!((&ports["containerPort"], &ports["hostPort"]), (&json!(2_222), &host_port));
            let service = port.service();
            let opened = service.map(|service| service["spec"]["ports"][0]["nodePort"].clone());
            assert_eq!(opened, node_port, "{access:?}");
        }
    }

    #[test]
    fn all_problems_of_the_settings_are_reported_at_once() {
        let problems = parse_settings(r#"{"node_selector": [], "user_id": 0}"#).unwrap_err();
        assert_eq!(problems.len(), 2);
        assert!(serde_json::from_str::<Value>(SCHEMA).is_ok());
    }
}
