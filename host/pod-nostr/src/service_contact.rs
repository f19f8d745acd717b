//! What a pod knows of the service that sold it: variables of the customer's container.

use paygress_core::model::ids::PodName;

/// The pod's name.
const POD: &str = "PAYGRESS_POD";
/// The service's public key.
const NPUB: &str = "PAYGRESS_NPUB";
/// The service's relays, separated by commas.
const RELAYS: &str = "PAYGRESS_RELAYS";
/// The URL of its HTTP API.
const URL: &str = "PAYGRESS_URL";

/// All of the variables. Nobody but the service sets them: who they name gets tokens.
pub const VARIABLES: [&str; 4] = [POD, NPUB, RELAYS, URL];

/// How the service is reached. Nothing of it is a secret: its offers say the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceContact {
    /// None: it takes no messages.
    pub nostr: Option<NostrContact>,
    /// The URL of its HTTP API, if it has one for customers.
    pub url: Option<String>,
}

/// Where messages to the service go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NostrContact {
    /// Its public key, as npub or hex.
    pub npub: String,
    /// At least one.
    pub relays: Vec<String>,
}

/// Why a pod does not know its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContactError {
    #[error(
        "PAYGRESS_POD is not set: run this in a login of a pod; programs such as sudo drop variables"
    )]
    NoPod,
}

impl ServiceContact {
    /// The variables of this pod.
    #[must_use]
    pub fn variables(&self, pod: &PodName) -> Vec<(&'static str, String)> {
        let mut variables = vec![(POD, pod.to_string())];
        if let Some(nostr) = &self.nostr {
            variables.push((NPUB, nostr.npub.clone()));
            variables.push((RELAYS, nostr.relays.join(",")));
        }
        variables.extend(self.url.clone().map(|url| (URL, url)));
        variables
    }

    /// Reads what [`ServiceContact::variables`] has set.
    ///
    /// # Errors
    /// [`ContactError::NoPod`].
    pub fn read(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<(PodName, Self), ContactError> {
        let text = |name: &str| variable(name).filter(|text| !text.is_empty());
        let pod = text(POD).and_then(|pod| PodName::parse(pod).ok()).ok_or(ContactError::NoPod)?;
        let relays: Vec<String> = text(RELAYS)
            .iter()
            .flat_map(|relays| relays.split(','))
            .map(|relay| relay.trim().to_owned())
            .filter(|relay| !relay.is_empty())
            .collect();
        let nostr =
            text(NPUB).filter(|_| !relays.is_empty()).map(|npub| NostrContact { npub, relays });
        Ok((pod, Self { nostr, url: text(URL) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_reads_what_the_service_has_set() {
        let pod = PodName::parse("ssh-pod-abcdefghij").unwrap();
        let relays = vec!["wss://a.example".to_owned(), "ws://b.example:7777".to_owned()];
        let nostr = Some(NostrContact { npub: "npub1abc".to_owned(), relays });
        let url = Some("https://pods.example.com".to_owned());
        for contact in [
            ServiceContact { nostr: nostr.clone(), url: url.clone() },
            ServiceContact { nostr, url: None },
            ServiceContact { nostr: None, url },
            ServiceContact::default(),
        ] {
            let variables = contact.variables(&pod);
            let of_name = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.clone())
            };
            assert_eq!(ServiceContact::read(of_name), Ok((pod.clone(), contact)));
        }
        assert_eq!(ServiceContact::read(|_| None), Err(ContactError::NoPod));
        assert_eq!(ServiceContact::read(|_| Some(String::new())), Err(ContactError::NoPod));
    }
}
