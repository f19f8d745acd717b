//! What a pod knows of the service that sold it: variables for `paygress-top-up`, which its
//! customer starts inside.

use k8s_openapi::api::core::v1::{EnvVar, PodTemplateSpec};
use paygress_core::model::ids::PodName;
use paygress_pod_nostr::ServiceContact;
use paygress_pod_nostr::service_contact::VARIABLES;

/// Sets the variables in the pod of a checked template, and no others of them: to whom a template's own
/// would lead, customers would send their tokens.
pub(crate) fn introduce(
    template: &mut PodTemplateSpec,
    contact: Option<&ServiceContact>,
    pod: &PodName,
) {
    let Some(spec) = &mut template.spec else { return };
    let known = contact.map(|contact| contact.variables(pod)).unwrap_or_default();
    for container in &mut spec.containers {
        let mut variables = container.env.take().unwrap_or_default();
        variables.retain(|variable| !VARIABLES.contains(&variable.name.as_str()));
        variables.extend(known.iter().map(|(name, value)| EnvVar {
            name: (*name).to_owned(),
            value: Some(value.clone()),
            ..EnvVar::default()
        }));
        container.env = (!variables.is_empty()).then_some(variables);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_pod_nostr::NostrContact;
    use serde_json::json;

    fn pod() -> PodName {
        PodName::parse("ssh-pod-abcdefghij").unwrap()
    }

    /// It names a service of its own.
    fn template() -> PodTemplateSpec {
        let template = json!({"spec": {"containers": [{
            "name": "ssh",
            "env": [
                {"name": "PAYGRESS_POD", "value": "other"},
                {"name": "LANG", "value": "C.UTF-8"},
                {"name": "PAYGRESS_NPUB", "value": "npub1thief"},
                {"name": "PAYGRESS_RELAYS", "value": "wss://thief.example"},
                {"name": "PAYGRESS_URL", "value": "https://thief.example"},
            ],
        }]}});
        serde_json::from_value(template).unwrap()
    }

    /// One that sells over HTTP alone has no npub, and one without a contact nothing.
    #[test]
    fn a_template_names_no_service_to_send_tokens_to() {
        let url = Some("https://pods.example.com".to_owned());
        let over_http = ServiceContact { nostr: None, url };
        let lang = json!({"name": "LANG", "value": "C.UTF-8"});
        let own = json!({"name": "PAYGRESS_POD", "value": "ssh-pod-abcdefghij"});
        let url = json!({"name": "PAYGRESS_URL", "value": "https://pods.example.com"});
        for (contact, expected) in
            [(None, json!([lang])), (Some(&over_http), json!([lang, own, url]))]
        {
            let mut template = template();
            introduce(&mut template, contact, &pod());
            let template = serde_json::to_value(template).unwrap();
            assert_eq!(template["spec"]["containers"][0]["env"], expected, "{contact:?}");
        }
    }

    #[test]
    fn a_pod_knows_its_name_and_how_its_service_is_reached() {
        let mut template = template();
        let relays = vec!["wss://a.example".to_owned(), "wss://b.example".to_owned()];
        let contact = ServiceContact {
            nostr: Some(NostrContact { npub: "npub1abc".to_owned(), relays }),
            url: None,
        };
        introduce(&mut template, Some(&contact), &pod());
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
