//! Tests whether the admission policies are enforced: objects that they must refuse, and that no
//! service makes, are created with `dryRun=All`. No right to read the policies themselves is
//! needed.

use crate::connection::RequestError;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The name of the objects that are only dry-run.
const NAME: &str = "paygress-doctor";

/// The policies of `k8s/base/admission.yaml`.
pub(crate) const PODS: &str = "paygress-customers";
pub(crate) const SERVICES: &str = "paygress-customers-services";
pub(crate) const SECRETS: &str = "paygress-customers-secrets";
pub(crate) const CHANGES: &str = "paygress-customers-changes";
/// The policy of `k8s/overlays/egress`.
pub(crate) const EGRESS: &str = "paygress-customers-egress";

/// Whether one policy is enforced.
#[derive(Debug)]
pub struct AdmissionFinding {
    /// Its name, which is that of its binding too.
    pub policy: &'static str,
    pub outcome: AdmissionOutcome,
}

impl AdmissionFinding {
    /// The file of `k8s` that has the policy, and its binding.
    #[must_use]
    pub fn file(&self) -> &'static str {
        match self.policy {
            EGRESS => "overlays/egress/admission.yaml",
            _ => "base/admission.yaml",
        }
    }
}

/// Whether a policy is enforced.
#[derive(Debug)]
pub enum AdmissionOutcome {
    /// It has refused what it must.
    Enforced,
    /// What it must refuse was accepted.
    NotEnforced,
    /// The cluster has no object that it could be tried with.
    Untried,
    /// The object was refused by something else, or there was no answer.
    Failed(RequestError),
}

/// Whether the namespace's Pod Security Standard lets pods have ports of their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPorts {
    Permitted,
    Forbidden,
}

/// What the answer to [`pod_with_host_port`] means: Kubernetes checks the standard before the
/// policy.
pub(crate) fn host_ports<T>(answer: Result<T, RequestError>) -> Result<HostPorts, RequestError> {
    match answer {
        Ok(_) => Ok(HostPorts::Permitted),
        Err(error) if names(&error, PODS) => Ok(HostPorts::Permitted),
        Err(error) if error.to_string().contains("violates PodSecurity") => {
            Ok(HostPorts::Forbidden)
        }
        Err(error) => Err(error),
    }
}

/// What the answer to a request means that this policy must refuse.
pub(crate) fn finding<T>(
    policy: &'static str,
    answer: Result<T, RequestError>,
) -> AdmissionFinding {
    let outcome = match answer {
        Ok(_) => AdmissionOutcome::NotEnforced,
        Err(error) if names(&error, policy) => AdmissionOutcome::Enforced,
        Err(error) => AdmissionOutcome::Failed(error),
    };
    AdmissionFinding { policy, outcome }
}

fn names(error: &RequestError, policy: &str) -> bool {
    error.to_string().contains(&format!("'{policy}'"))
}

fn object<K: DeserializeOwned>(value: Value) -> Result<K, RequestError> {
    serde_json::from_value(value).map_err(|error| kube::Error::SerdeError(error).into())
}

/// A pod of no lease: without its labels.
pub(crate) fn bad_pod<K: DeserializeOwned>() -> Result<K, RequestError> {
    pod(&json!([]))
}

/// [`bad_pod`] with a port of its node, and nothing else that a Pod Security Standard forbids.
pub(crate) fn pod_with_host_port<K: DeserializeOwned>() -> Result<K, RequestError> {
    pod(&json!([{"containerPort": 2222, "hostPort": 20_000}]))
}

fn pod<K: DeserializeOwned>(ports: &Value) -> Result<K, RequestError> {
    let security = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": true,
        "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    let container = json!({
        "name": "none",
        "image": "paygress.invalid/none:1",
        "securityContext": security,
        "ports": ports,
    });
    object(json!({
        "metadata": {"name": NAME},
        "spec": {"automountServiceAccountToken": false, "containers": [container]},
    }))
}

/// A Service that leads out of the cluster.
pub(crate) fn bad_service<K: DeserializeOwned>() -> Result<K, RequestError> {
    let spec = json!({"type": "ExternalName", "externalName": "paygress.invalid"});
    object(json!({"metadata": {"name": NAME}, "spec": spec}))
}

/// A Secret that would get the token of a ServiceAccount.
pub(crate) fn bad_secret<K: DeserializeOwned>() -> Result<K, RequestError> {
    let annotations = json!({"kubernetes.io/service-account.name": "default"});
    object(json!({
        "metadata": {"name": NAME, "annotations": annotations},
        "type": "kubernetes.io/service-account-token",
    }))
}

/// A NetworkPolicy of no lease: without its label. It opens nothing.
pub(crate) fn bad_network_policy<K: DeserializeOwned>() -> Result<K, RequestError> {
    let selector = json!({"matchLabels": {"paygress.dev/lease": NAME}});
    let spec = json!({"podSelector": selector, "policyTypes": ["Egress"]});
    object(json!({"metadata": {"name": NAME}, "spec": spec}))
}

/// A change of a pod's specification that Kubernetes itself would accept.
pub(crate) fn bad_change() -> Value {
    json!({"spec": {"activeDeadlineSeconds": i32::MAX}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Pod, Secret, Service};
    use k8s_openapi::api::networking::v1::NetworkPolicy;
    use kube::core::Status;

    fn refused(message: &str) -> RequestError {
        let status = Status { code: 403, message: message.to_owned(), ..Status::default() };
        kube::Error::Api(status.boxed()).into()
    }

    #[test]
    fn a_policy_is_enforced_when_it_is_the_one_that_refuses() {
        let denied = |policy: &str| {
            refused(&format!(
                "pods \"x\" is forbidden: ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: no"
            ))
        };
        let outcome = |answer| finding(PODS, answer).outcome;
        assert!(matches!(outcome(Err(denied(PODS))), AdmissionOutcome::Enforced));
        assert!(matches!(outcome(Ok(())), AdmissionOutcome::NotEnforced));
        for (policy, file) in
            [(PODS, "base/admission.yaml"), (EGRESS, "overlays/egress/admission.yaml")]
        {
            assert_eq!(finding(policy, Ok(())).file(), file);
            let found = finding(policy, Err::<(), _>(denied(policy)));
            assert!(matches!(found.outcome, AdmissionOutcome::Enforced), "{found:?}");
        }
        for other in [denied(SERVICES), refused("exceeded quota"), RequestError::TimedOut] {
            assert!(matches!(outcome(Err(other)), AdmissionOutcome::Failed(_)));
        }
    }

    #[test]
    fn the_standard_of_the_namespace_shows_in_what_refuses_a_host_port() {
        let violates = "pods \"paygress-doctor\" is forbidden: violates PodSecurity \"baseline:latest\": hostPort (container \"none\" uses hostPort 20000)";
        let denied =
            format!("ValidatingAdmissionPolicy '{PODS}' with binding '{PODS}' denied request");
        assert_eq!(host_ports(Err::<(), _>(refused(violates))).unwrap(), HostPorts::Forbidden);
        assert_eq!(host_ports(Err::<(), _>(refused(&denied))).unwrap(), HostPorts::Permitted);
        assert_eq!(host_ports(Ok(())).unwrap(), HostPorts::Permitted);
        assert!(host_ports(Err::<(), _>(refused("exceeded quota"))).is_err());
        assert!(host_ports(Err::<(), _>(RequestError::TimedOut)).is_err());
    }

    #[test]
    fn what_is_tried_can_be_written() {
        pod_with_host_port::<Pod>().unwrap();
        bad_pod::<Pod>().unwrap();
        bad_service::<Service>().unwrap();
        bad_secret::<Secret>().unwrap();
        bad_network_policy::<NetworkPolicy>().unwrap();
    }
}
