//! What a pod is given to write to its customer: to whom, through which relays, and what. The program
//! in the pod adds what is the pod's own: its key, and its host keys.

use crate::connection::{Connection, inbox_relays};
use crate::delivery::LOOKUP_TIMEOUT;
use crate::npub;
use nostr_sdk::{EventId, PublicKey, RelayUrl};
use paygress_core::backend::responder::PodReply;
use paygress_core::protocol::PodAccessDetails;
use serde_json::json;
use std::time::Duration;

/// How long a paid pod waits for the relays of its customer to be found.
const TIMEOUT: Duration = Duration::from_secs(5);

impl Connection {
    /// The request that the pod's program reads; none if there is no relay.
    pub(crate) async fn pod_reply(
        &self,
        customer: PublicKey,
        request: Option<EventId>,
        receipt: Option<&RelayUrl>,
        details: PodAccessDetails,
    ) -> Option<PodReply> {
        let service_npub = Some(npub(&self.settings.keys.public_key()));
        let reply = PodAccessDetails { service_npub, ..details };
        let relays = self.relays_of_pod(customer, receipt).await;
        if relays.is_empty() {
            return None;
        }
        let relays: Vec<String> = relays.iter().map(ToString::to_string).collect();
        let mut written = json!({"recipient": customer.to_hex(), "relays": relays, "reply": reply});
        if let (Some(request), Some(fields)) = (request, written.as_object_mut()) {
            fields.insert("request".to_owned(), request.to_hex().into());
        }
        Some(PodReply::new(written.to_string()))
    }

    /// Where the service's answer goes: our relay that has brought the order, and those of the
    /// customer's list. They are checked as if the service connected to them; the pod's network
    /// keeps it from private addresses as well.
    async fn relays_of_pod(
        &self,
        customer: PublicKey,
        receipt: Option<&RelayUrl>,
    ) -> Vec<RelayUrl> {
        let ours = &self.settings.relays;
        let first = receipt.filter(|relay| ours.contains(relay)).or(ours.first());
        let listed = tokio::time::timeout(TIMEOUT, self.allowed_inbox(customer)).await;
        let mut relays: Vec<RelayUrl> = first.cloned().into_iter().collect();
        for relay in listed.unwrap_or_default() {
            if !relays.contains(&relay) {
                relays.push(relay);
            }
        }
        relays
    }

    /// The relays of the customer's list that we would connect to.
    async fn allowed_inbox(&self, customer: PublicKey) -> Vec<RelayUrl> {
        let listed =
            inbox_relays(&self.sending, customer, LOOKUP_TIMEOUT).await.unwrap_or_default();
        let checked = listed.into_iter().map(|relay| async move {
            let is_allowed =
                self.settings.relays.contains(&relay) || self.external.is_allowed(&relay).await;
            is_allowed.then_some(relay)
        });
        futures::future::join_all(checked).await.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use nostr_sdk::{Client, Keys};
    use paygress_core::model::ids::{LeaseId, OrderId};
    use paygress_core::model::login::{Login, LoginFields};
    use paygress_core::testing;
    use serde_json::Value;

    fn details() -> PodAccessDetails {
        let order = OrderId::random();
        let (username, password) = (Some("alice"), Some("a good password"));
        let login = LoginFields { username, password, public_key: None };
        let login = Login::check(login).unwrap();
        PodAccessDetails::new(&order, &testing::lease(LeaseId::of(&order), 1, 2), &login, "h")
    }

    /// The client of this connection has no relay, so that no customer's list of relays is found.
    fn connection(relays: &[&str]) -> Connection {
        let relays = relays.iter().map(|url| RelayUrl::parse(url).unwrap()).collect();
        let settings = Settings {
            keys: Keys::generate(),
            relays,
            private_relays: false,
            name: String::new(),
            about: String::new(),
        };
        Connection::new(settings, Client::builder().build())
    }

    #[tokio::test]
    async fn a_pod_writes_to_the_relay_that_has_brought_the_order() {
        let connection = connection(&["wss://a.example", "wss://b.example"]);
        let (customer, request) = (Keys::generate().public_key(), EventId::all_zeros());
        for (receipt, expected) in [
            (Some("wss://b.example"), "wss://b.example"),
            (None, "wss://a.example"),
            // A relay that is not ours any more is anybody's.
            (Some("wss://c.example"), "wss://a.example"),
        ] {
            let receipt = receipt.map(|url| RelayUrl::parse(url).unwrap());
            let reply =
                connection.pod_reply(customer, Some(request), receipt.as_ref(), details()).await;
            let reply: Value = serde_json::from_str(reply.unwrap().expose()).unwrap();
            assert_eq!(reply["recipient"], customer.to_hex());
            assert_eq!(reply["relays"], json!([expected]));
            assert_eq!(reply["request"], request.to_hex());
            let reply = &reply["reply"];
            assert_eq!(reply["type"], "pod_access_details");
            assert_eq!(reply["ssh_password"], "a good password");
            assert_eq!(reply["service_npub"], npub(&connection.settings.keys.public_key()));
        }
        let reply = connection.pod_reply(customer, None, None, details()).await.unwrap();
        assert!(!reply.expose().contains("\"request\""), "{}", reply.expose());
        assert!(!format!("{reply:?}").contains("password"));
        let alone = self::connection(&[]);
        assert_eq!(alone.pod_reply(customer, Some(request), None, details()).await, None);
    }
}
