//! The pod that the template policies start from: one container that serves SSH, without any
//! privilege.

use crate::contract::pod_template::exports::paygress::policy::pod_template::AccessMode;
use crate::contract::types::paygress::policy::types::{Placement, Rendered};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the pod does with the port of the nodes that is reserved for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPort {
    Host(u16),
    Node(u16),
    /// There is none.
    None,
}

impl PodPort {
    /// A host port needs no Service: it is preferred.
    #[must_use]
    pub fn new(placement: &Placement, access: &[AccessMode]) -> Self {
        if access.contains(&AccessMode::HostPort) {
            Self::Host(placement.host_port)
        } else if access.contains(&AccessMode::NodePort) {
            Self::Node(placement.host_port)
        } else {
            Self::None
        }
    }

    /// The port of the node that is forwarded to the pod, if it is one.
    #[must_use]
    pub fn host_port(self) -> Option<u16> {
        match self {
            Self::Host(port) => Some(port),
            Self::Node(_) | Self::None => None,
        }
    }

    /// The Service of a node port, of which the host sets the name and the selector.
    #[must_use]
    pub fn service(self) -> Option<Value> {
        let Self::Node(port) = self else { return None };
        Some(json!({"spec": {
            "type": "NodePort",
            // The customer's address is kept, and the pod's own node answers.
            "externalTrafficPolicy": "Local",
            "ports": [{"name": "ssh", "port": 22, "nodePort": port}],
        }}))
    }
}

/// An SSH pod with the placement's image, resources, port and login.
pub struct SshPod<'a> {
    pub placement: &'a Placement,
    /// The port of the node that is forwarded to it; `None` if a Service is used, or there is none.
    pub host_port: Option<u16>,
    /// The user and the group of the container.
    pub user_id: u64,
    /// Labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
}

impl<'a> SshPod<'a> {
    /// On the placement's port, as user 1000, on any node.
    #[must_use]
    pub fn new(placement: &'a Placement) -> Self {
        let host_port = (placement.host_port != 0).then_some(placement.host_port);
        Self { placement, host_port, user_id: 1_000, node_selector: BTreeMap::new() }
    }

    /// Renders it and these Services.
    #[must_use]
    pub fn render(&self, services: &[Value]) -> Rendered {
        Rendered {
            pod_template_json: self.template().to_string(),
            services_json: services.iter().map(Value::to_string).collect(),
        }
    }

    /// Renders a PodTemplateSpec as JSON.
    #[must_use]
    pub fn template(&self) -> Value {
        let Placement { image, resources, container_port, secret_name, secret_mount_path, .. } =
            self.placement;
        let resources = json!({
            "cpu": format!("{}m", resources.cpu_millicores),
            "memory": format!("{}Mi", resources.memory_mib),
        });
        let mut port = json!({"name": "ssh", "containerPort": container_port, "protocol": "TCP"});
        if let (Some(host_port), Some(port)) = (self.host_port, port.as_object_mut()) {
            port.insert("hostPort".to_owned(), host_port.into());
        }
        json!({
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": 2,
                "nodeSelector": self.node_selector,
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": self.user_id,
                    "runAsGroup": self.user_id,
                    "fsGroup": self.user_id,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "ssh",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "ports": [port],
                    "resources": {"requests": resources, "limits": resources},
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                    "readinessProbe": {"tcpSocket": {"port": container_port}, "periodSeconds": 1, "failureThreshold": 600},
                    "volumeMounts": [{"name": "login", "mountPath": secret_mount_path, "readOnly": true}],
                }],
                "volumes": [{"name": "login", "secret": {"secretName": secret_name, "defaultMode": 0o440}}],
            }
        })
    }
}
