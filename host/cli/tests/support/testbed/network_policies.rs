//! The NetworkPolicies of `k8s/base`, and those that the service makes.

use super::{apply, kubectl, root};

/// A cluster whose customers' pods have no NetworkPolicies; they have them again once this is dropped.
pub struct NetworkPolicies(());

impl NetworkPolicies {
    /// With the node's address among those that pods do not reach, as its operator must have it where
    /// it is public: that of the testbed may be.
    pub fn text() -> String {
        let text = std::fs::read_to_string(root().join("k8s/base/network.yaml")).unwrap();
        let except = "except: [0.0.0.0/8, ";
        assert_eq!(text.matches(except).count(), 1, "{text}");
        text.replace(except, &format!("{except}{}/32, ", node_address()))
    }

    pub fn apply() {
        apply(&Self::text());
    }

    pub fn removed() -> Self {
        let policies = ["networkpolicy", "customers", "customers-dns", "customers-ingress"];
        let delete = ["-n", "user-workloads", "delete", "--ignore-not-found"];
        kubectl(&[&delete[..], &policies[..]].concat());
        Self(())
    }
}

impl Drop for NetworkPolicies {
    fn drop(&mut self) {
        Self::apply();
    }
}

/// Where the kubelet listens, and the ports of the node are.
pub fn node_address() -> String {
    let path = r#"jsonpath={.status.addresses[?(@.type=="InternalIP")].address}"#;
    kubectl(&["get", "node", "testbed", "-o", path])
}

/// A cluster with `k8s/overlays/egress`, until this is dropped.
pub struct EgressOverlay(());

impl EgressOverlay {
    pub fn apply() -> Self {
        Self::run("apply");
        Self(())
    }

    fn run(verb: &str) {
        let directory = root().join("k8s/overlays/egress");
        for file in ["rbac.yaml", "admission.yaml"] {
            kubectl(&[verb, "-f", &directory.join(file).to_string_lossy()]);
        }
    }
}

impl Drop for EgressOverlay {
    fn drop(&mut self) {
        Self::run("delete");
    }
}
