//! Requests of a customer's client.

use paygress_core::protocol::RequestBody;

/// A request of this kind about a pod.
pub(super) fn of_pod(kind: &str, pod: &str) -> RequestBody {
    RequestBody {
        kind: Some(kind.to_owned()),
        pod_name: Some(pod.to_owned()),
        ..RequestBody::default()
    }
}
