//! Services, and Secrets.

use super::{Attacker, merge, service};
use crate::support::testbed::CLUSTER;
use serde_json::{Value, json};

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_service_that_leads_elsewhere_is_refused() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    let node_port = |port: Value| {
        let mut ssh = json!({"name": "ssh", "port": 22, "targetPort": 2222});
        merge(&mut ssh, port);
        (json!({"type": "NodePort", "ports": [ssh]}), "one node port")
    };
    let two = json!([{"name": "a", "port": 22, "targetPort": 2222}, {"name": "b", "port": 23, "targetPort": 2222}]);
    let many: Vec<_> = (1..=17).map(|n| json!({"name": format!("p-{n}"), "port": n})).collect();
    attacker.is_refused(
        "services",
        &service(),
        "/spec",
        &[
            (json!({"type": "LoadBalancer"}), "ClusterIP or a NodePort"),
            (json!({"type": "ExternalName", "externalName": "example.com", "selector": null, "ports": null}), "ClusterIP or a NodePort"),
            (json!({"externalIPs": ["192.0.2.1"]}), "externalIPs"),
            (json!({"publishNotReadyAddresses": true}), "publishNotReadyAddresses"),
            (json!({"sessionAffinity": "ClientIP"}), "sessionAffinity"),
            (json!({"clusterIP": "None"}), "ClusterIP or a NodePort"),
            (json!({"selector": {"paygress.dev/lease": "bbbbbbbbbb"}}), "its own lease"),
            (json!({"selector": {"app": "paygress-ssh-pod", "paygress.dev/lease": null}}), "its own lease"),
            (json!({"selector": null}), "its own lease"),
            // One that the API server chooses, and one of somebody else's.
            node_port(json!({})),
            node_port(json!({"nodePort": 32000})),
            (json!({"type": "NodePort", "ports": two}), "one node port"),
            (json!({"ports": many}), "at most 16 ports"),
        ],
    );
    attacker.is_refused(
        "services",
        &service(),
        "/metadata",
        &[
            (json!({"name": "kubernetes"}), "named and labelled"),
            (json!({"labels": {"paygress.dev/lease": null}}), "named and labelled"),
            (json!({"annotations": {"service.beta.kubernetes.io/x": "y"}}), "annotations"),
        ],
    );
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ssh-pod-aaaaaaaaaa", "annotations": {"kubernetes.io/service-account.name": "default"}}, "data": {}});
    let token = json!({"type": "kubernetes.io/service-account-token"});
    attacker.is_refused("secrets", &secret, "", &[(token, "token of a ServiceAccount")]);
}
