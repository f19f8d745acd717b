//! What a pod knows of the service that sold it: variables for `paygress-top-up`, which its
//! customer starts inside.

use k8s_openapi::api::core::v1::{EnvVar, PodTemplateSpec};
use paygress_core::model::ids::PodName;
use paygress_pod_nostr::ServiceContact;

/// Sets the variables in the pod of a checked template, whatever that says of them.
pub(crate) fn introduce(template: &mut PodTemplateSpec, contact: &ServiceContact, pod: &PodName) {
    let Some(spec) = &mut template.spec else { return };
    for container in &mut spec.containers {
        let variables = container.env.get_or_insert_default();
        for (name, value) in contact.variables(pod) {
            variables.retain(|variable| variable.name != name);
            let name = name.to_owned();
            variables.push(EnvVar { name, value: Some(value), ..EnvVar::default() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_pod_nostr::NostrContact;
    use serde_json::json;

    #[test]
    fn a_pod_knows_its_name_and_how_its_service_is_reached() {
        let template = json!({"spec": {"containers": [{
            "name": "ssh",
            "env": [{"name": "LANG", "value": "C.UTF-8"}, {"name": "PAYGRESS_POD", "value": "other"}],
        }]}});
        let mut template: PodTemplateSpec = serde_json::from_value(template).unwrap();
        let relays = vec!["wss://a.example".to_owned(), "wss://b.example".to_owned()];
        let contact = ServiceContact {
            nostr: Some(NostrContact { npub: "npub1abc".to_owned(), relays }),
            url: None,
        };
        introduce(&mut template, &contact, &PodName::parse("ssh-pod-abcdefghij").unwrap());
        let template = serde_json::to_value(template).unwrap();
        assert_eq!(
            template["spec"]["containers"][0]["env"],
            json!([
                {"name": "LANG", "value": "C.UTF-8"},
                {"name": "PAYGRESS_POD", "value": "ssh-pod-abcdefghij"},
                {"name": "PAYGRESS_NPUB", "value": "npub1abc"},
                {"name": "PAYGRESS_RELAYS", "value": "wss://a.example,wss://b.example"},
            ])
        );
    }
}
