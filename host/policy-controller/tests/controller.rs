//! The controller against a fake API server: which statuses it writes, and which not.
#![cfg(test)]

use async_trait::async_trait;
use http_body_util::BodyExt;
use hyper::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use paygress_core::backend::policy::{Configured, Slot};
use paygress_policy_controller::{
    ApplyStatus, Completeness, Controller, DesiredPolicy, FetchError, Mode, Reconcile,
    UntrustedComponent,
};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

const POLICIES: &str = "/apis/paygress.dev/v1/namespaces/ingress-system/policies";
const CONFIG_MAPS: &str = "/api/v1/namespaces/ingress-system/configmaps";

/// The `Policy` resources of one namespace, and the ConfigMap `components`.
#[derive(Default)]
struct FakeApi {
    policies: Mutex<Vec<Value>>,
    /// The names of the resources whose status was written.
    written: Mutex<Vec<String>>,
}

impl FakeApi {
    fn client(self: &Arc<Self>) -> Client {
        let api = Arc::clone(self);
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = Arc::clone(&api);
            async move { Ok::<_, Infallible>(api.respond(request).await) }
        });
        Client::new(service, "ingress-system")
    }

    async fn respond(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = parts.uri.path();
        let (status, body) = match (&parts.method, path.strip_prefix(POLICIES)) {
            (&Method::GET, Some("")) => (StatusCode::OK, self.list()),
            (&Method::PATCH, Some(rest)) => {
                self.patch(rest.trim_matches('/').trim_end_matches("/status"), &body)
            }
            _ if path == format!("{CONFIG_MAPS}/components") => (
                StatusCode::OK,
                // "component", in base64.
                json!({"metadata": {"name": "components"}, "binaryData": {"policy.wasm": "Y29tcG9uZW50"}}),
            ),
            _ => not_found(),
        };
        Response::builder().status(status).body(body.to_string().into_bytes().into()).unwrap()
    }

    fn list(&self) -> Value {
        json!({
            "apiVersion": "paygress.dev/v1", "kind": "PolicyList", "metadata": {},
            "items": *self.policies.lock().unwrap(),
        })
    }

    fn patch(&self, name: &str, body: &[u8]) -> (StatusCode, Value) {
        let patch: Value = serde_json::from_slice(body).unwrap();
        let mut policies = self.policies.lock().unwrap();
        let Some(policy) = policies.iter_mut().find(|policy| policy["metadata"]["name"] == name)
        else {
            return not_found();
        };
        assert_eq!(patch["metadata"]["uid"], policy["metadata"]["uid"]);
        policy["status"] = patch["status"].clone();
        self.written.lock().unwrap().push(name.to_owned());
        (StatusCode::OK, policy.clone())
    }

    fn add(&self, name: &str, age_seconds: u8, spec: Value) {
        let created = format!("2026-01-01T00:00:{:02}Z", 59_u8.checked_sub(age_seconds).unwrap());
        self.policies.lock().unwrap().push(json!({
            "apiVersion": "paygress.dev/v1", "kind": "Policy", "spec": spec,
            "metadata": {"name": name, "uid": format!("uid-{name}"), "generation": 1, "creationTimestamp": created},
        }));
    }

    /// The resources whose status was written since the last call.
    fn take_written(&self) -> Vec<String> {
        let mut written = std::mem::take(&mut *self.written.lock().unwrap());
        written.sort();
        written
    }

    fn condition(&self, name: &str, type_: &str) -> String {
        let policies = self.policies.lock().unwrap();
        let policy = policies.iter().find(|policy| policy["metadata"]["name"] == name).unwrap();
        let conditions = policy["status"]["conditions"].as_array().unwrap();
        let condition = conditions.iter().find(|condition| condition["type"] == type_).unwrap();
        assert_eq!(condition["observedGeneration"], policy["metadata"]["generation"]);
        format!(
            "{} {}",
            condition["status"].as_str().unwrap(),
            condition["reason"].as_str().unwrap()
        )
    }
}

fn not_found() -> (StatusCode, Value) {
    let body = json!({
        "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "not found",
    });
    (StatusCode::NOT_FOUND, body)
}

/// Accepts every component, and applies every policy that has one.
#[derive(Default)]
struct FakeReconciler {
    calls: Mutex<Vec<(Vec<DesiredPolicy>, Completeness)>>,
}

#[async_trait]
impl Reconcile for FakeReconciler {
    async fn fetch(
        &self,
        _: &str,
        component: UntrustedComponent,
        _: Option<&str>,
    ) -> Result<Vec<u8>, FetchError> {
        match component {
            UntrustedComponent::Inline { component, .. } => Ok(component),
            UntrustedComponent::Oci(reference) => Err(FetchError::NoConfigMap(reference)),
        }
    }

    async fn reconcile(
        &self,
        desired: Vec<DesiredPolicy>,
        completeness: Completeness,
    ) -> Vec<ApplyStatus> {
        let status = |policy: &DesiredPolicy| match (&policy.component, policy.mode) {
            (None, _) => ApplyStatus::Waiting("no component".to_owned()),
            (Some(_), Mode::Enforce) => ApplyStatus::Active(Configured::Snapshot),
            (Some(_), Mode::Shadow) => ApplyStatus::Shadowing(Configured::EachCall),
        };
        let statuses = desired.iter().map(status).collect();
        self.calls.lock().unwrap().push((desired, completeness));
        statuses
    }
}

fn start() -> (Arc<FakeApi>, Arc<FakeReconciler>, Controller) {
    let (api, reconciler) = (Arc::new(FakeApi::default()), Arc::new(FakeReconciler::default()));
    let controller = Controller::new(api.client(), "ingress-system", reconciler.clone());
    (api, reconciler, controller)
}

fn in_config_map(slot: &str, map: &str) -> Value {
    json!({"slot": slot, "source": {"configMap": {"name": map, "key": "policy.wasm"}}})
}

#[tokio::test]
async fn all_resources_are_one_desired_set() {
    let (api, reconciler, controller) = start();
    let mut shadow = in_config_map("pricing", "components");
    shadow["mode"] = json!("Shadow");
    api.add("younger", 1, in_config_map("pricing", "components"));
    api.add("older", 2, in_config_map("pricing", "components"));
    api.add("shadow", 0, shadow);
    api.add("missing", 0, in_config_map("images", "nowhere"));
    controller.reconcile_once().await;

    let calls = std::mem::take(&mut *reconciler.calls.lock().unwrap());
    let [(desired, completeness)] = calls.as_slice() else { panic!("one call for all") };
    assert_eq!(*completeness, Completeness::Complete);
    let mut found: Vec<_> = desired
        .iter()
        .map(|policy| {
            let component = policy.component.as_deref();
            (policy.version.as_str(), policy.slot, policy.mode, component, policy.settings.as_str())
        })
        .collect();
    found.sort_by_key(|(version, ..)| *version);
    let component = Some(&b"component"[..]);
    assert_eq!(
        found,
        [
            ("uid-missing 1", Slot::Images, Mode::Enforce, None, "{}"),
            ("uid-older 1", Slot::Pricing, Mode::Enforce, component, "{}"),
            ("uid-shadow 1", Slot::Pricing, Mode::Shadow, component, "{}"),
        ]
    );
    for (name, type_, expected) in [
        ("older", "Active", "True InForce"),
        ("older", "Ready", "True InForce"),
        ("younger", "Active", "False SlotTaken"),
        ("younger", "Ready", "False SlotTaken"),
        ("shadow", "Active", "False Shadow"),
        ("shadow", "Ready", "True Shadow"),
        ("missing", "Fetched", "False Unavailable"),
        ("missing", "Ready", "False Unavailable"),
    ] {
        assert_eq!(api.condition(name, type_), expected, "{type_} of {name}");
    }
}

#[tokio::test]
async fn one_invalid_spec_makes_the_set_partial_and_does_not_hide_the_others() {
    let (api, reconciler, controller) = start();
    api.add("future", 0, json!({"slot": "colour", "source": {"oci": "registry.example/x:1"}}));
    api.add("pricing", 0, in_config_map("pricing", "components"));
    controller.reconcile_once().await;
    let calls = std::mem::take(&mut *reconciler.calls.lock().unwrap());
    assert_eq!((calls.len(), calls[0].0.len(), calls[0].1), (1, 1, Completeness::Partial));
    assert_eq!(api.condition("future", "Valid"), "False InvalidSpec");
    assert_eq!(api.condition("future", "Ready"), "False InvalidSpec");
    assert_eq!(api.condition("pricing", "Ready"), "True InForce");
}

#[tokio::test]
async fn only_a_status_that_changes_is_written() {
    let (api, _, controller) = start();
    api.add("pricing", 0, in_config_map("pricing", "components"));
    api.add("images", 0, in_config_map("images", "nowhere"));
    controller.reconcile_once().await;
    assert_eq!(api.take_written(), ["images", "pricing"]);
    controller.reconcile_once().await;
    assert!(api.take_written().is_empty());
    // Another generation of the resource.
    {
        let mut policies = api.policies.lock().unwrap();
        policies[1]["metadata"]["generation"] = json!(2);
        policies[1]["spec"] = in_config_map("images", "components");
    }
    controller.reconcile_once().await;
    assert_eq!(api.take_written(), ["images"]);
    assert_eq!(api.condition("images", "Ready"), "True InForce");
}
