//! Compares a pod's own message with the service's answer. An attacker who has the service's key,
//! or is between the customer and the service, does not have the key that was made in the pod.

use paygress_core::model::host_key::HostKey;
use paygress_core::protocol::{AccessDetails, Response};
use paygress_nostr::client::{Answer, PodMessage};
use paygress_nostr::{PublicKey, npub};
use std::collections::BTreeSet;

/// What is known of the pod's own message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PodCheck {
    /// The answer names no key of the pod, and nobody has written for it.
    None,
    /// The answer names a key of the pod, and nothing has come from it.
    Missing,
    /// It has come from the key of the answer, with the same host keys.
    Same(PublicKey),
    /// It differs from the answer.
    Differs(&'static str),
}

/// Compares an answer with the messages about the same request that are not from the service.
pub(super) fn check(answer: &Answer) -> PodCheck {
    match &answer.response {
        Some(Response::Access(access)) => compare(access, &answer.from_pods),
        _ => PodCheck::None,
    }
}

fn compare(access: &AccessDetails, messages: &[PodMessage]) -> PodCheck {
    let Ok(pod) = PublicKey::parse(&access.pod_npub) else {
        return match messages {
            [] => PodCheck::None,
            _ => PodCheck::Differs("somebody writes as the pod, and the service names no such key"),
        };
    };
    if messages.iter().any(|message| message.author != pod) {
        return PodCheck::Differs(
            "another key than the one that the service names writes as the pod",
        );
    }
    let [message] = messages else {
        return match messages {
            [] => PodCheck::Missing,
            _ => PodCheck::Differs("the pod's key has signed several messages that differ"),
        };
    };
    let details = &message.details;
    if details.pod_npub.as_ref().is_some_and(|named| *named != npub(&pod)) {
        return PodCheck::Differs(
            "the pod's message names another key than the one that signed it",
        );
    }
    if details.pod_name != access.pod_name {
        return PodCheck::Differs("the pod's message names another pod");
    }
    let (host, port) = (&access.ssh_host, access.ssh_port);
    if (&details.ssh_host, details.ssh_port) != (host, port) {
        return PodCheck::Differs("the pod's message names another address to log in to");
    }
    let (own, named) = (&details.ssh_host_keys, &access.identity.ssh_host_keys);
    match host_keys(own) == host_keys(named) && !own.is_empty() {
        true => PodCheck::Same(pod),
        false => PodCheck::Differs("the pod has other host keys than the service names"),
    }
}

/// In any order.
fn host_keys(lines: &[String]) -> BTreeSet<String> {
    HostKey::parse_all(lines.iter().map(String::as_str)).iter().map(HostKey::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_nostr::Keys;
    use serde_json::{Value, json};

    const KEYS: [&str; 2] = [
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMUaPK8AAnKX7VeYLedY7erYKc8I7KZxPAGCOqLSELzH",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMUaPK8AAnKX7VeYLedY7erYKc8I7KZxPAGCOqLSELzI",
    ];

    fn access(pod_npub: &str) -> AccessDetails {
        serde_json::from_value(json!({
            "type": "access_details", "pod_name": "ssh-pod-a", "pod_npub": pod_npub,
            "ssh_host": "h", "ssh_port": 1, "node_port": 1, "ssh_username": "u",
            "ssh_password": null, "ssh_host_keys": KEYS, "expires_at": "", "cpu_millicores": 1,
            "memory_mb": 1, "pod_spec_name": "basic", "pod_image": "i", "instructions": [],
        }))
        .unwrap()
    }

    /// The message of this key with something changed.
    fn message(author: PublicKey, field: &str, value: Value) -> PodMessage {
        let mut details = json!({
            "type": "pod_access_details", "pod_name": "ssh-pod-a", "order_id": "0",
            "pod_npub": npub(&author), "ssh_host": "h", "ssh_port": 1, "ssh_username": "u",
            "ssh_host_keys": KEYS,
        });
        details[field] = value;
        PodMessage { author, details: serde_json::from_value(details).unwrap() }
    }

    #[test]
    fn a_pods_message_is_of_the_key_and_has_the_host_keys_of_the_answer() {
        let [pod, other] = [Keys::generate(), Keys::generate()].map(|keys| keys.public_key());
        let named = access(&npub(&pod));
        let same = message(pod, "order_id", json!("1"));
        let reversed = message(pod, "ssh_host_keys", json!([KEYS[1], KEYS[0]]));
        assert_eq!(compare(&named, &[]), PodCheck::Missing);
        assert_eq!(compare(&named, std::slice::from_ref(&same)), PodCheck::Same(pod));
        assert_eq!(compare(&named, &[reversed]), PodCheck::Same(pod));
        let of_other = message(other, "order_id", json!("1"));
        for (messages, why) in [
            (vec![of_other.clone()], "another key than the one"),
            (vec![same.clone(), of_other.clone()], "another key than the one"),
            (vec![same.clone(), message(pod, "order_id", json!("2"))], "several"),
            (vec![message(pod, "pod_npub", json!(npub(&other)))], "names another key"),
            (vec![message(pod, "pod_name", json!("ssh-pod-b"))], "another pod"),
            (vec![message(pod, "ssh_host", json!("g"))], "another address"),
            (vec![message(pod, "ssh_port", json!(2))], "another address"),
            (vec![message(pod, "ssh_host_keys", json!([KEYS[0]]))], "other host keys"),
            (vec![message(pod, "ssh_host_keys", json!([]))], "other host keys"),
        ] {
            let PodCheck::Differs(found) = compare(&named, &messages) else { panic!("{why}") };
            assert!(found.contains(why), "{why}: {found}");
        }
        // A service that does not know the pod's key names the pod.
        let unnamed = access("ssh-pod-a");
        assert_eq!(compare(&unnamed, &[]), PodCheck::None);
        assert!(matches!(compare(&unnamed, &[same]), PodCheck::Differs(_)));
        let mut keyless = named;
        keyless.identity.ssh_host_keys.clear();
        let none = message(pod, "ssh_host_keys", json!([]));
        assert!(matches!(compare(&keyless, &[none]), PodCheck::Differs(_)), "of no key, too");
    }
}
