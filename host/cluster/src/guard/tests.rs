//! Which ports a template may open, by what the operator sells. What else it may have is tested from
//! outside of the crate.

use super::*;
use paygress_core::backend::policy::Resources;
use paygress_core::model::access::AccessMode::{self, Gateway, HostPort, NodePort};
use paygress_core::model::access::AccessModes;
use serde_json::json;

fn placement(access: &[AccessMode]) -> Placement {
    let access = AccessModes::new(access.iter().copied()).unwrap();
    Placement {
        pod_name: "ssh-pod-a".to_owned(),
        image: "example.com/ssh:1".to_owned(),
        resources: Resources { cpu_millicores: 500, memory_mib: 64 },
        host_port: access.has_port().then_some(31_000),
        access,
        container_port: 2_222,
        secret_name: "ssh-pod-a".to_owned(),
        secret_mount_path: "/run/paygress/login".to_owned(),
    }
}

/// With this port of the node, or a Service of this type.
fn checked(
    access: &[AccessMode],
    host_port: Option<u16>,
    service: Option<&str>,
) -> Result<Checked, GuardError> {
    let template = json!({"spec": {
        "restartPolicy": "Never",
        "securityContext": {"runAsUser": 1000},
        "containers": [{"name": "ssh", "image": "example.com/ssh:1", "ports": [{"containerPort": 2222, "hostPort": host_port}]}],
    }});
    let service = service.map(|kind| json!({"spec": {"type": kind, "ports": [{"port": 22}]}}));
    let rendered = Rendered {
        pod_template_json: template.to_string(),
        services_json: service.iter().map(Value::to_string).collect(),
        egress: None,
    };
    check(&rendered, &placement(access), &Allowed::default())
}

#[test]
fn a_template_opens_the_port_that_is_sold_and_no_other() {
    for (access, host_port, service, refused) in [
        (&[HostPort][..], Some(31_000), None, None),
        (&[HostPort], None, Some("NodePort"), Some("services[0].spec.type must be ClusterIP")),
        (&[HostPort, Gateway], Some(31_000), None, None),
        (&[HostPort, Gateway], None, None, Some("nobody could log in")),
        (&[NodePort], None, Some("NodePort"), None),
        (&[NodePort], Some(31_000), None, Some("hostPort is not allowed: ACCESS has no host-port")),
        (&[NodePort, Gateway], Some(0), Some("NodePort"), None),
        (&[Gateway], None, None, None),
        (&[Gateway], None, Some("ClusterIP"), None),
        (&[Gateway], Some(31_000), None, Some("hostPort is not allowed: ACCESS has no host-port")),
        (&[Gateway], None, Some("NodePort"), Some("ACCESS has no node-port")),
    ] {
        let message = checked(access, host_port, service).err().map(|error| error.to_string());
        match refused {
            None => assert_eq!(message, None, "{access:?} {host_port:?} {service:?}"),
            Some(reason) => {
                let message = message.unwrap_or_default();
                assert!(message.contains(reason), "{access:?}: {message}");
            }
        }
    }
}

/// What templates of contract 1.0 and 1.1 make of a placement without a port.
#[test]
fn the_port_0_is_none() {
    let Checked { template, .. } = checked(&[Gateway], Some(0), None).unwrap();
    let container = &template.spec.unwrap().containers[0];
    let port = &container.ports.as_ref().unwrap()[0];
    assert_eq!((port.container_port, port.host_port), (2_222, None));
    let message = checked(&[HostPort], Some(0), None).err().unwrap().to_string();
    assert!(message.contains("hostPort must be 31000"), "{message}");
}
