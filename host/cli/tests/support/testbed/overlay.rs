//! Overlays as operators write them.

use super::{kubectl, root};
use serde_json::{Value, json};

/// What a directory of `k8s` makes with these components of `k8s/overlays` and these generators.
pub fn kustomized(name: &str, base: &str, components: &[&str], generators: &[Value]) -> String {
    let overlay = root().join("target/e2e").join(name);
    std::fs::create_dir_all(&overlay).unwrap();
    let of_overlay = |component: &&str| format!("../../../k8s/overlays/{component}");
    let components: Vec<String> = components.iter().map(of_overlay).collect();
    let text = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [format!("../../../k8s/{base}")],
        "components": components,
        "configMapGenerator": generators,
    });
    std::fs::write(overlay.join("kustomization.yaml"), text.to_string()).unwrap();
    kubectl(&["kustomize", &overlay.to_string_lossy()])
}
