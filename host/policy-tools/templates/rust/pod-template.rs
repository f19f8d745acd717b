//! A pod-template policy: one container that serves SSH on a port of its node, without any privilege.

mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "pod-template-policy" });
}
mod reader;

use bindings::exports::paygress::policy::{pod_template, settings};
use bindings::paygress::policy::types::{Grant, Order, Placement, Problem, Refusal, Rendered};
use reader::Reader;
use serde_json::json;
use std::cell::RefCell;

const SCHEMA: &str = r#"{schema}"#;

#[derive(Clone)]
struct Settings {
    user_id: u64,
}

fn read(json: &str) -> Result<Settings, Vec<Problem>> {
    let mut reader = Reader::parse(json);
    let settings = Settings { user_id: reader.number("user_id", 1_000, 1..=2_147_483_647) };
    reader.end(settings)
}

struct Policy;

thread_local! {
    // Set by `configure`, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
    static SETTINGS: RefCell<Option<Settings>> = const { RefCell::new(None) };
}

impl settings::Guest for Policy {
    fn schema() -> String {
        SCHEMA.to_owned()
    }

    fn configure(json: String) -> Result<(), Vec<Problem>> {
        SETTINGS.set(Some(read(&json)?));
        Ok(())
    }
}

impl pod_template::Guest for Policy {
    fn render(_: Order, _: Grant, placement: Placement) -> Result<Rendered, Refusal> {
        let Some(settings) = SETTINGS.with_borrow(Clone::clone) else {
            return Err(Refusal { code: "resource_unavailable".to_owned(), message: "the pod template is not configured".to_owned() });
        };
        let resources = json!({
            "cpu": format!("{}m", placement.resources.cpu_millicores),
            "memory": format!("{}Mi", placement.resources.memory_mib),
        });
        let template = json!({
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": 2,
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": settings.user_id,
                    "runAsGroup": settings.user_id,
                    "fsGroup": settings.user_id,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "ssh",
                    "image": placement.image,
                    "imagePullPolicy": "IfNotPresent",
                    "ports": [{"name": "ssh", "containerPort": placement.container_port, "hostPort": placement.host_port, "protocol": "TCP"}],
                    "resources": {"requests": resources, "limits": resources},
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                    "readinessProbe": {"tcpSocket": {"port": placement.container_port}, "periodSeconds": 1, "failureThreshold": 600},
                    "volumeMounts": [{"name": "login", "mountPath": placement.secret_mount_path, "readOnly": true}],
                }],
                "volumes": [{"name": "login", "secret": {"secretName": placement.secret_name, "defaultMode": 0o440}}],
            }
        });
        Ok(Rendered { pod_template_json: template.to_string(), services_json: Vec::new() })
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Policy with_types_in bindings);
