//! The pod that every template policy begins with: one container that serves SSH, without any
//! privilege.

use serde_json::{Map, Value, json};

/// What is in it.
pub struct Pod<'a> {
    /// The admitted image.
    pub image: &'a str,
    /// CPU, in thousandths of a core.
    pub cpu_millicores: u32,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// The port of its SSH server.
    pub container_port: u16,
    /// The node's port that leads there; none: a Service does.
    pub host_port: Option<u16>,
    /// The Secret with its login.
    pub secret_name: &'a str,
    /// Where it finds the login.
    pub secret_mount_path: &'a str,
    /// The user and group that it runs as.
    pub user_id: u64,
    /// Labels that its node must have.
    pub node_selector: &'a [(String, String)],
}

impl Pod<'_> {
    /// A PodTemplateSpec as JSON.
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
