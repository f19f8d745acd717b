//! Which crate may depend on what, over `cargo metadata`, and which must. Dependencies of tests and
//! benchmarks are free.

use crate::run::{cargo, output};
use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Libraries, and the only crates that may use them.
const LIBRARIES: [(&[&str], &[&str]); 9] = [
    (&["wasmtime", "wasmtime-wizer"], &["paygress-policy", "paygress-policy-tools"]),
    (
        &["cashu", "cdk", "cdk-axum", "cdk-common", "cdk-fake-wallet", "cdk-sqlite"],
        &["paygress-cashu", "paygress-sandbox"],
    ),
    (&["k8s-openapi", "kube"], &["paygress-cluster", "paygress-policy-controller"]),
    (&["nostr", "nostr-relay-builder", "nostr-sdk"], &["paygress-nostr", "paygress-sandbox"]),
    // The registry of the tests is a feature of paygress-oci.
    (&["axum"], &["paygress-http", "paygress-oci", "paygress-sandbox"]),
    (&["postgres", "r2d2", "r2d2_postgres", "rusqlite"], &["paygress-store"]),
    (&["russh"], &["paygress-gateway", "paygress-sshd"]),
    (&["iroh", "iroh-tickets"], &["paygress-gateway"]),
    (&["oci-client"], &["paygress-oci"]),
];

/// Crates, and the prefixes of what they may not depend on.
const FORBIDDEN: [(&str, &[&str]); 6] = [
    ("paygress-core", &["paygress-"]),
    ("paygress-gateway", BACKENDS),
    ("paygress-http", BACKENDS),
    ("paygress-nostr", BACKENDS),
    // It runs in customers' pods.
    ("paygress-pod-nostr", BACKENDS),
    ("paygress-cluster", &["paygress-nostr"]),
];
const BACKENDS: &[&str] =
    &["paygress-cashu", "paygress-cluster", "paygress-policy", "paygress-store"];

/// For the demo and tests: an option of what is deployed, never a part of it.
const DEVELOPMENT: &str = "paygress-sandbox";

/// The service shares its types. Its program, a client of relays, is the default feature, and runs
/// in pods alone.
const OF_PODS: &str = "paygress-pod-nostr";

/// Authors copy the examples in Rust, which are written with it.
const SDK: &str = "paygress-policy-sdk";
const EXAMPLES: &str = "/examples/policies/";

pub(crate) fn check() -> Result<()> {
    let metadata =
        output(&mut cargo(&["metadata", "--no-deps", "--format-version", "1", "--quiet"])?)?;
    let found = violations(&serde_json::from_str(&metadata)?)?;
    if found.is_empty() {
        return Ok(());
    }
    bail!("dependencies between layers:\n{}", found.join("\n"))
}

fn violations(metadata: &Value) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for package in array(metadata, "packages")? {
        let name = text(package, "name")?;
        let manifest = package.get("manifest_path").and_then(Value::as_str).unwrap_or_default();
        let mut needs_sdk = manifest.contains(EXAMPLES);
        for dependency in array(package, "dependencies")? {
            if !dependency.get("kind").is_none_or(Value::is_null) {
                continue;
            }
            let on = text(dependency, "name")?;
            needs_sdk &= on != SDK;
            let requirement = match dependency.get("optional").and_then(Value::as_bool) {
                Some(true) => Requirement::Optional,
                Some(false) | None => Requirement::Always,
            };
            if let Some(reason) = violation(name, on, requirement) {
                found.push(format!("{name} depends on {on}: {reason}"));
            }
            let with_program = dependency.get("uses_default_features").and_then(Value::as_bool);
            if on == OF_PODS && with_program != Some(false) {
                found.push(format!("{name} depends on the program of {on}: its types at most"));
            }
        }
        if needs_sdk {
            found.push(format!("{name} does not depend on {SDK}: examples in Rust do"));
        }
    }
    Ok(found)
}

/// Whether a crate can be built without a dependency.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Requirement {
    Always,
    Optional,
}

fn violation(name: &str, on: &str, requirement: Requirement) -> Option<String> {
    for (libraries, users) in LIBRARIES {
        if libraries.contains(&on) && !users.contains(&name) {
            return Some(format!("only {} may", users.join(" and ")));
        }
    }
    for (package, prefixes) in FORBIDDEN {
        if package == name && prefixes.iter().any(|prefix| on.starts_with(prefix)) {
            return Some("its layer is below or beside that".to_owned());
        }
    }
    (on == DEVELOPMENT && requirement == Requirement::Always)
        .then(|| "an optional dependency at most".to_owned())
}

pub(crate) fn array<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value.get(key).and_then(Value::as_array).with_context(|| format!("cargo metadata: no {key}"))
}

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value.get(key).and_then(Value::as_str).with_context(|| format!("cargo metadata: no {key}"))
}

#[cfg(test)]
mod tests {
    use super::{check, violations};
    use serde_json::{Value, json};

    fn of(name: &str, dependency: Value) -> Vec<String> {
        let package = json!({"name": name, "dependencies": [dependency]});
        violations(&json!({"packages": [package]})).unwrap()
    }

    #[test]
    fn a_library_has_its_crate() {
        let wasmtime = json!({"name": "wasmtime", "kind": null});
        assert_eq!(of("paygress-policy", wasmtime.clone()), Vec::<String>::new());
        assert_eq!(
            of("paygress-http", wasmtime),
            [
                "paygress-http depends on wasmtime: only paygress-policy and paygress-policy-tools may"
            ]
        );
        let for_tests = json!({"name": "wasmtime", "kind": "dev"});
        assert_eq!(of("paygress-http", for_tests), Vec::<String>::new());
    }

    #[test]
    fn transports_have_no_backends_and_core_has_nothing() {
        assert_eq!(of("paygress-nostr", json!({"name": "paygress-cluster"})).len(), 1);
        assert_eq!(of("paygress-core", json!({"name": "paygress-oci"})).len(), 1);
    }

    #[test]
    fn the_sandbox_is_optional() {
        let sandbox = |optional| json!({"name": "paygress-sandbox", "optional": optional});
        assert_eq!(of("paygress", sandbox(false)).len(), 1);
        assert_eq!(of("paygress", sandbox(true)), Vec::<String>::new());
    }

    #[test]
    fn the_service_shares_the_types_of_what_runs_in_pods_and_not_the_program() {
        let of_pods = |with_program| {
            let mut dependency = json!({"name": "paygress-pod-nostr"});
            dependency["uses_default_features"] = Value::Bool(with_program);
            dependency
        };
        assert_eq!(of("paygress-cluster", of_pods(true)).len(), 1);
        assert_eq!(of("paygress-cluster", of_pods(false)), Vec::<String>::new());
        assert_eq!(of("paygress-cluster", json!({"name": "paygress-nostr"})).len(), 1);
    }

    #[test]
    fn an_example_in_rust_is_written_with_the_sdk() {
        let of = |manifest: &str, dependency: Value| {
            let package =
                json!({"name": "a", "manifest_path": manifest, "dependencies": [dependency]});
            violations(&json!({"packages": [package]})).unwrap().len()
        };
        let (example, other) = ("/p/examples/policies/a/Cargo.toml", "/p/plugins/a/Cargo.toml");
        let sdk = json!({"name": "paygress-policy-sdk", "kind": null});
        let for_tests = json!({"name": "paygress-policy-sdk", "kind": "dev"});
        assert_eq!(of(example, sdk), 0);
        assert_eq!(of(example, for_tests), 1);
        assert_eq!(of(example, json!({"name": "wit-bindgen"})), 1);
        assert_eq!(of(other, json!({"name": "wit-bindgen"})), 0);
    }

    /// Otherwise cargo does not list them.
    #[test]
    fn the_examples_in_rust_are_members() {
        let root = crate::run::root();
        let workspace = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
        let entries = std::fs::read_dir(root.join("examples/policies")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let examples: Vec<_> = paths.filter(|path| path.join("Cargo.toml").exists()).collect();
        assert!(!examples.is_empty());
        for path in examples {
            let name = path.file_name().unwrap().to_string_lossy();
            let member = format!("\"examples/policies/{name}\"");
            assert!(workspace.contains(&member), "{member} is no member");
        }
    }

    #[test]
    fn the_workspace_keeps_its_layers() {
        check().unwrap();
    }
}
