//! The parameters of the admission policy.

use super::{apply, kubectl};
use serde_json::{Value, json};

const CONFIG_MAP: [&str; 4] = ["-n", "ingress-system", "configmap", "paygress-admission"];

/// Parameters of the admission policy that a test has changed; as before once this is dropped.
pub struct AdmissionParameters {
    before: Value,
}

impl AdmissionParameters {
    fn read() -> Self {
        let [option, namespace, kind, name] = CONFIG_MAP;
        let text = kubectl(&[option, namespace, "get", kind, name, "-o", "json"]);
        let data = serde_json::from_str::<Value>(&text).unwrap()["data"].clone();
        let metadata = json!({"name": name, "namespace": namespace});
        Self {
            before: json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}),
        }
    }

    pub fn set(parameters: &[(&str, &str)]) -> Self {
        let before = Self::read();
        let mut changed = before.before.clone();
        for (name, value) in parameters {
            changed["data"][*name] = json!(value);
        }
        apply(&changed.to_string());
        before
    }

    /// As a ConfigMap of a version that did not have these.
    pub fn without(parameters: &[&str]) -> Self {
        let before = Self::read();
        let mut changed = before.before.clone();
        for name in parameters {
            changed["data"].as_object_mut().unwrap().remove(*name);
        }
        apply(&changed.to_string());
        before
    }

    pub fn removed() -> Self {
        let before = Self::read();
        let [option, namespace, kind, name] = CONFIG_MAP;
        kubectl(&[option, namespace, "delete", kind, name]);
        before
    }
}

impl Drop for AdmissionParameters {
    fn drop(&mut self) {
        apply(&self.before.to_string());
    }
}
