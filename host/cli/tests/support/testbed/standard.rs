//! The Pod Security Standard of the customers' namespace.

use super::kubectl;

/// A standard that the namespace enforces; that of `k8s/base` again once this is dropped.
pub struct Standard(());

impl Standard {
    pub fn enforce(level: &str) -> Self {
        Self::label(level);
        Self(())
    }

    fn label(level: &str) {
        let label = format!("pod-security.kubernetes.io/enforce={level}");
        kubectl(&["label", "--overwrite", "namespace", "user-workloads", &label]);
    }
}

impl Drop for Standard {
    fn drop(&mut self) {
        Self::label("privileged");
    }
}
