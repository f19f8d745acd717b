//! The pod that the template policies start from: one container that serves SSH, without any
//! privilege.

use serde_json::{Map, Value, json};

/// The parameters of an SSH pod.
pub struct SshPod<'a> {
    /// The admitted image.
    pub image: &'a str,
    pub cpu_millicores: u32,
    pub memory_mib: u32,
    /// The port on which the SSH server listens.
    pub container_port: u16,
    /// The port of the node that is forwarded to it; `None` if a Service is used.
    pub host_port: Option<u16>,
    /// The Secret that holds the login.
    pub secret_name: &'a str,
    pub secret_mount_path: &'a str,
    /// The user and the group of the container.
    pub user_id: u64,
    /// Labels that the node must have.
    pub node_selector: &'a [(String, String)],
}

impl SshPod<'_> {
    /// Renders a PodTemplateSpec as JSON.
    #[must_use]
    pub fn template(&self) -> Value {
        let resources = json!({"cpu": format!("{}m", self.cpu_millicores), "memory": format!("{}Mi", self.memory_mib)});
        let node_selector: Map<String, Value> = self
            .node_selector
            .iter()
            .map(|(key, value)| (key.clone(), value.clone().into()))
            .collect();
        let mut port =
            json!({"name": "ssh", "containerPort": self.container_port, "protocol": "TCP"});
        if let (Some(host_port), Some(port)) = (self.host_port, port.as_object_mut()) {
            port.insert("hostPort".to_owned(), host_port.into());
        }
        json!({
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": 2,
                "nodeSelector": node_selector,
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": self.user_id,
                    "runAsGroup": self.user_id,
                    "fsGroup": self.user_id,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "ssh",
                    "image": self.image,
                    "imagePullPolicy": "IfNotPresent",
                    "ports": [port],
                    "resources": {"requests": resources, "limits": resources},
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                    "readinessProbe": {"tcpSocket": {"port": self.container_port}, "periodSeconds": 1, "failureThreshold": 600},
                    "volumeMounts": [{"name": "login", "mountPath": self.secret_mount_path, "readOnly": true}],
                }],
                "volumes": [{"name": "login", "secret": {"secretName": self.secret_name, "defaultMode": 0o440}}],
            }
        })
    }
}
