//! What a pod writes to its customer by itself. It is no response: another key has signed it than the
//! service's, and whoever takes the first `access_details` for theirs is not confused.

use crate::model::ids::OrderId;
use crate::model::lease::Lease;
use crate::model::login::Login;
use crate::model::secret::Secret;
use serde::{Deserialize, Serialize};

/// The value of `type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodAccessDetailsTag {
    #[default]
    PodAccessDetails,
}

/// How to log in to a pod, from the pod itself. The service writes it, but for what the pod adds: its
/// own key and its host keys. Who compares them with the service's answer knows that both are of one
/// pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodAccessDetails {
    /// `pod_access_details`.
    #[serde(rename = "type")]
    pub tag: PodAccessDetailsTag,
    /// The pod's name, for top-ups and status.
    pub pod_name: String,
    /// The order that has made the pod.
    pub order_id: String,
    /// The service that was paid for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_npub: Option<String>,
    /// The host to log in to.
    pub ssh_host: String,
    /// Its port.
    pub ssh_port: u16,
    /// The user to log in as.
    pub ssh_username: String,
    /// The password; left out if only the key logs in that came with the order.
    #[serde(default, with = "super::exposed::option", skip_serializing_if = "Option::is_none")]
    pub ssh_password: Option<Secret>,
    /// The pod's own key, which has signed the message: the pod adds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_npub: Option<String>,
    /// The public host keys of its SSH server, as the pod has them: it adds them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_host_keys: Vec<String>,
    /// The same as lines of a `known_hosts` file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<String>,
}

impl PodAccessDetails {
    /// Those of the pod of this order, as far as they are known before it runs.
    #[must_use]
    pub fn new(order: &OrderId, lease: &Lease, login: &Login, ssh_host: &str) -> Self {
        Self {
            tag: PodAccessDetailsTag::PodAccessDetails,
            pod_name: lease.pod().into(),
            order_id: order.to_string(),
            service_npub: None,
            ssh_host: lease.login_host(ssh_host),
            ssh_port: lease.login_port(),
            ssh_username: login.username.to_string(),
            ssh_password: login.password.clone(),
            pod_npub: None,
            ssh_host_keys: Vec::new(),
            known_hosts: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{LeaseId, PublicKey};
    use crate::model::login::LoginFields;
    use crate::model::units::UnixTime;
    use crate::protocol::{Request, Response, access, is_response, sorted};
    use crate::testing;
    use serde_json::json;

    fn lease() -> Lease {
        testing::lease(LeaseId::of(&OrderId::random()), 1, 2)
    }

    #[test]
    fn a_pods_message_has_the_login_and_is_no_response() {
        let (order, lease) = (OrderId::random(), lease());
        let fields = LoginFields { username: Some("alice"), ..LoginFields::default() };
        let with_password = LoginFields { password: Some("a good password"), ..fields };
        let login = Login::check(with_password).unwrap();
        let details = PodAccessDetails::new(&order, &lease, &login, "node.example.com");
        let written = sorted(&details);
        assert_eq!(
            written,
            json!({
                "type": "pod_access_details", "pod_name": lease.pod().as_str(),
                "order_id": order.as_str(), "ssh_host": "node.example.com", "ssh_port": 1,
                "ssh_username": "alice", "ssh_password": "a good password",
            })
        );
        assert!(!format!("{details:?}").contains("good password"));
        let text = written.to_string();
        assert_eq!(serde_json::from_str::<PodAccessDetails>(&text).unwrap(), details);
        assert!(serde_json::from_str::<Response>(&text).is_err(), "it is another type");
        assert!(is_response(&text), "a service does not answer it");
        let with_key = LoginFields { public_key: Some("ssh-ed25519 AAAA"), ..fields };
        let login = Login::check(with_key).unwrap();
        let by_key = sorted(&PodAccessDetails::new(&order, &lease, &login, "h"));
        assert!(by_key.get("ssh_password").is_none(), "{by_key}");
    }

    #[test]
    fn the_answer_names_the_pods_key_or_its_name() {
        let mut lease = lease();
        let npub = |lease: &Lease| access(lease, None, UnixTime(2), "h", None).pod_npub;
        assert_eq!(npub(&lease), lease.pod().as_str());
        let key = PublicKey::from_bytes([2; 32]);
        lease.pod_key = Some(key.clone());
        assert_eq!(PublicKey::from_npub(&npub(&lease)), Some(key));
    }

    #[test]
    fn a_pod_is_named_by_its_key_as_well() {
        let [key, other] = [2, 3].map(|byte| PublicKey::from_bytes([byte; 32]).npub());
        for (request, pod) in [
            (json!({"type": "status", "pod_npub": key}), Some(key.as_str())),
            (json!({"type": "stop", "pod_name": key}), Some(key.as_str())),
            // As an answer has both: the name decides.
            (json!({"type": "stop", "pod_name": "ssh-pod-a", "pod_npub": key}), Some("ssh-pod-a")),
            (json!({"type": "stop", "pod_name": other, "pod_npub": key}), None),
        ] {
            let parsed = Request::parse(&request.to_string());
            let found = match &parsed {
                Ok(Request::Status { pod } | Request::Stop { pod }) => Some(pod.as_str()),
                _ => None,
            };
            assert_eq!(found, pod, "{request}: {parsed:?}");
        }
    }
}
