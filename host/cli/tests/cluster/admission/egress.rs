//! NetworkPolicies of leases, where the service may make any.

use super::{Attacker, LEASE, SOON, labels, patched, path_of};
use crate::support::testbed::{AdmissionParameters, CLUSTER, EgressOverlay, kustomized, wait_for};
use serde_json::{Value, json};

const KIND: &str = "networkpolicies";

/// As the service makes it, for networks with exceptions.
fn policy() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": format!("ssh-pod-{LEASE}-0a1b2c3d"), "labels": labels(LEASE)},
        "spec": {
            "podSelector": {"matchLabels": {"paygress.dev/lease": LEASE}},
            "policyTypes": ["Egress"],
            "egress": [{
                "ports": [
                    {"protocol": "TCP", "port": 26, "endPort": 443},
                    {"protocol": "TCP", "port": 24},
                    {"protocol": "UDP"},
                ],
                "to": [
                    {"ipBlock": {"cidr": "192.0.0.0/8", "except": ["192.0.0.0/24", "192.88.99.0/24", "192.168.0.0/16"]}},
                    {"ipBlock": {"cidr": "2000::/3", "except": ["2001::/23", "2002::/16"]}},
                    {"ipBlock": {"cidr": "2001:db8::/32"}},
                ],
            }],
        },
    })
}

/// With this network alone.
fn to(block: &Value) -> Value {
    let port = json!({"protocol": "TCP", "port": 443});
    json!({"egress": [{"ports": [port], "to": [{"ipBlock": block}]}]})
}

/// With this port alone.
fn by(port: &Value) -> Value {
    json!({"egress": [{"ports": [port], "to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]})
}

/// With a policy that only this refuses.
fn wait_for_the_rules(attacker: &Attacker) {
    let other = patched(policy(), "/spec", &json!({"podSelector": {"matchLabels": null}}));
    wait_for("the rules to be in force", SOON, || {
        attacker.dry_run(KIND, &other).is_err_and(|text| text.contains("its own lease"))
    });
}

// long: one line for each rule.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_network_policy_that_opens_a_wall_is_refused() {
    let _alone = CLUSTER.lock();
    let _overlay = EgressOverlay::apply();
    let attacker = Attacker::new();
    wait_for_the_rules(&attacker);
    let closed = "closed to all pods";
    let peer = |peer: Value| json!({"egress": [{"ports": [{"protocol": "UDP"}], "to": [peer]}]});
    let all = json!([{"ipBlock": {"cidr": "192.0.2.0/24"}}]);
    let three_holes = json!(["0.0.0.0/8", "10.0.0.0/8", "192.168.0.0/16"]);
    attacker.is_refused(
        KIND,
        &policy(),
        "/spec",
        &[
            (json!({"podSelector": {"matchLabels": {"paygress.dev/lease": "bbbbbbbbbb"}}}), "its own lease"),
            (json!({"podSelector": {"matchLabels": null}}), "its own lease"),
            (json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}), "its own lease"),
            (json!({"policyTypes": ["Egress", "Ingress"]}), "egress alone"),
            (json!({"policyTypes": ["Ingress"], "egress": null, "ingress": [{}]}), "egress alone"),
            (json!({"egress": [{}]}), "networks (ipBlock)"),
            (json!({"egress": [{"to": all}]}), "ports of TCP and UDP"),
            (json!({"egress": [{"ports": [{"protocol": "UDP"}]}]}), "networks (ipBlock)"),
            (peer(json!({"podSelector": {}})), "networks (ipBlock)"),
            (peer(json!({"namespaceSelector": {}})), "networks (ipBlock)"),
            (to(&json!({"cidr": "0.0.0.0/0"})), closed),
            (to(&json!({"cidr": "0.0.0.0/0", "except": three_holes})), closed),
            (to(&json!({"cidr": "10.0.0.0/8"})), closed),
            (to(&json!({"cidr": "10.96.0.1/32"})), closed),
            (to(&json!({"cidr": "169.254.169.254/32"})), closed),
            (to(&json!({"cidr": "168.63.129.16/32"})), closed),
            (to(&json!({"cidr": "192.0.0.0/8"})), closed),
            (to(&json!({"cidr": "192.0.0.0/8", "except": ["192.0.0.0/24", "192.88.99.0/24", "192.168.0.0/17"]})), closed),
            (to(&json!({"cidr": "2000::/3"})), closed),
            (to(&json!({"cidr": "2000::/3", "except": ["2001::/23"]})), closed),
            (to(&json!({"cidr": "2002:a00:1::/48"})), closed),
            (to(&json!({"cidr": "::/0"})), "outside of 2000::/3"),
            (to(&json!({"cidr": "fd00::/8"})), "outside of 2000::/3"),
            (by(&json!({"protocol": "TCP"})), "TCP port 25"),
            (by(&json!({"protocol": "TCP", "port": 25})), "TCP port 25"),
            (by(&json!({"protocol": "TCP", "port": 1, "endPort": 65535})), "TCP port 25"),
            (by(&json!({"protocol": "TCP", "port": "smtp"})), "TCP port 25"),
            (by(&json!({"protocol": "SCTP", "port": 26})), "ports of TCP and UDP"),
        ],
    );
    attacker.is_refused(
        KIND,
        &policy(),
        "/metadata",
        &[
            (json!({"name": "customers"}), "named and labelled"),
            (json!({"name": format!("ssh-pod-{LEASE}x")}), "named and labelled"),
            (json!({"labels": {"paygress.dev/lease": null}}), "named and labelled"),
            (json!({"annotations": {"example.com/x": "y"}}), "annotations"),
        ],
    );
    let made = attacker.create(&path_of(KIND), &policy()).unwrap_err();
    assert!(made.contains("owned by the Job"), "{made}");
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn what_the_operator_has_closed_besides_is_left_out() {
    let _alone = CLUSTER.lock();
    let _overlay = EgressOverlay::apply();
    let attacker = Attacker::new();
    wait_for_the_rules(&attacker);
    let named = |block: Value| patched(policy(), "/spec", &to(&block));
    let (whole, part) = (json!({"cidr": "192.0.2.0/24"}), json!({"cidr": "192.0.2.8/32"}));
    let without = json!({"cidr": "192.0.2.0/24", "except": ["192.0.2.0/28"]});
    assert_eq!(attacker.dry_run(KIND, &named(whole.clone())), Ok(()));
    let _set = AdmissionParameters::set(&[("POD_EGRESS_EXCEPT", "203.0.113.7/32, 192.0.2.0/28")]);
    for block in [whole, part] {
        wait_for("the parameter to be seen", SOON, || {
            let refused = attacker.dry_run(KIND, &named(block.clone()));
            refused.is_err_and(|text| text.contains("closed to all pods"))
        });
    }
    assert_eq!(attacker.dry_run(KIND, &named(without)), Ok(()));
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_component_adds_one_right() {
    let built = kustomized("egress", "base", &["egress"], &[]);
    let objects = built.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap());
    let objects: Vec<Value> = objects.collect();
    let is_it = |object: &&Value| object["metadata"]["name"] == "paygress-egress";
    let mut roles = objects.iter().filter(is_it).filter(|object| object["kind"] == "Role");
    let rules = json!([{"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["create"]}]);
    assert_eq!(roles.next().unwrap()["rules"], rules);
}
