//! The customer's side: finds offers, sends a request, waits for its response.

use crate::connection::{client_options, inbox_relays};
use crate::error::Error;
use crate::gift_wrap;
use crate::offers::{OFFER, identifier};
use crate::relay_auth::RelayAuthSigner;
use nostr_sdk::{
    Event, EventBuilder, EventId, Filter, Keys, Kind, PublicKey, RelayMessage,
    RelayPoolNotification, RelayUrl, SubscriptionId, Tag, Timestamp,
};
use paygress_core::model::secret::Secret;
use paygress_core::protocol::{OfferContent, PodAccessDetails, RequestBody, Response, sorted};
use std::time::Duration;
use tokio::sync::broadcast;

/// Connecting to the relays.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Fetching stored events from them.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a pod's own message may come after an answer that names its key: it was sent before,
/// perhaps through another relay.
const POD_MESSAGE_TIMEOUT: Duration = Duration::from_secs(3);
/// Messages in answer to one request that others than the service may have sent.
const POD_MESSAGES: usize = 8;

/// An offer that was found.
#[derive(Clone, Debug)]
pub struct DiscoveredOffer {
    /// The key of the service that signed it.
    pub service: PublicKey,
    /// In seconds since 1970.
    pub published_at: u64,
    pub content: OfferContent,
}

/// What a service answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// As it came. It may hold a token or a password.
    pub text: Secret,
    /// `None`: it cannot be read, since the service is newer than this client for instance. The
    /// text may hold a refund all the same.
    pub response: Option<Response>,
    /// Messages that answer the request and are not from the service. One of them is the pod's own
    /// if its author is the key that the response names.
    pub from_pods: Vec<PodMessage>,
}

/// A message from a pod, or from somebody else who knows the id of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodMessage {
    pub author: PublicKey,
    pub details: PodAccessDetails,
}

/// A message in answer to a request.
enum Received {
    Answer(Answer),
    Pod(PodMessage),
}

/// A customer on some relays.
pub struct Client {
    keys: Keys,
    relays: Vec<RelayUrl>,
    client: nostr_sdk::Client,
}

impl Client {
    /// Connects, and publishes where this customer reads private messages.
    ///
    /// # Errors
    /// When no relay can be reached.
    pub async fn connect(keys: Keys, relays: Vec<RelayUrl>) -> Result<Self, Error> {
        let client = nostr_sdk::Client::builder()
            .signer(RelayAuthSigner::new(keys.clone()))
            .opts(client_options())
            .build();
        for relay in &relays {
            client.add_relay(relay).await.map_err(Error::sdk)?;
        }
        let connected = client.try_connect(CONNECT_TIMEOUT).await;
        if connected.success.is_empty() {
            return Err(Error::NoRelay(connected.failed.into()));
        }
        let list = EventBuilder::new(Kind::InboxRelays, "")
            .tags(relays.iter().take(3).cloned().map(Tag::relay));
        let list = list.sign_with_keys(&keys).map_err(Error::sdk)?;
        client.send_event(&list).await.map_err(Error::sdk)?;
        Ok(Self { keys, relays, client })
    }

    /// The customer's keys: pods belong to them.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The offers on these relays, of one service or of all. Offers that cannot be read are left
    /// out.
    ///
    /// # Errors
    /// When the relays cannot be queried.
    pub async fn offers(&self, service: Option<PublicKey>) -> Result<Vec<DiscoveredOffer>, Error> {
        let mut filter = Filter::new().kind(Kind::Custom(OFFER)).hashtag("paygress");
        if let Some(service) = service {
            filter = filter.author(service);
        }
        let events = self.client.fetch_events(filter, FETCH_TIMEOUT).await.map_err(Error::sdk)?;
        // NIP-69 has the same kind: an offer of ours has our identifier, and its author's
        // signature.
        let is_offer = |event: &Event| {
            event.tags.identifier() == Some(identifier(&event.pubkey).as_str())
                && event.verify().is_ok()
        };
        let offers = events.into_iter().filter(is_offer).filter_map(|event| {
            let content = serde_json::from_str(&event.content).ok()?;
            let published_at = event.created_at.as_secs();
            Some(DiscoveredOffer { service: event.pubkey, published_at, content })
        });
        Ok(offers.collect())
    }

    /// Sends a request and waits for its answer. `progress` is called with each step.
    ///
    /// # Errors
    /// When the request could not be sent, or no answer came in time.
    pub async fn ask(
        &self,
        service: PublicKey,
        request: &RequestBody,
        timeout: Duration,
        progress: impl Fn(&str),
    ) -> Result<Answer, Error> {
        progress("looking up the service's relays");
        let targets = self.connect_to_inbox_of(service).await?;
        // Subscribed before sending: the response may be quick.
        let mut notifications = self.client.notifications();
        let id = SubscriptionId::generate();
        let inbox = self.inbox_filter();
        self.client.subscribe_with_id(id.clone(), inbox.clone(), None).await.map_err(Error::sdk)?;
        progress("sending the request");
        let text = sorted(request).to_string();
        let (request_id, wrap) = gift_wrap::gift_wrap(&self.keys, &service, &text, None)?;
        let sent = self.client.send_event_to(&targets, &wrap).await.map_err(Error::sdk)?;
        if sent.success.is_empty() {
            return Err(Error::NotSent(sent.failed.into()));
        }
        progress("sent; waiting for the answer");
        let read = |event: &Event| read_message(&self.keys, event, service, request_id);
        let received = self.receive(&mut notifications, &inbox, read, timeout).await;
        self.client.unsubscribe(&id).await;
        received
    }

    /// Waits for the answer, and for a moment for the message of the pod whose key it names.
    async fn receive(
        &self,
        notifications: &mut broadcast::Receiver<RelayPoolNotification>,
        inbox: &Filter,
        read: impl Fn(&Event) -> Option<Received>,
        timeout: Duration,
    ) -> Result<Answer, Error> {
        let mut from_pods = Vec::new();
        let answer = self.wait(notifications, inbox, |event| match read(event)? {
            Received::Answer(answer) => Some(answer),
            Received::Pod(message) => {
                add(&mut from_pods, message);
                None
            }
        });
        let answer = tokio::time::timeout(timeout, answer).await;
        let answer = answer.unwrap_or(Err(Error::NoResponse { seconds: timeout.as_secs() }))?;
        if let Some(pod) = pod_key(&answer)
            && !from_pods.iter().any(|message| message.author == pod)
        {
            let message = self.wait(notifications, inbox, |event| match read(event)? {
                Received::Answer(_) => None,
                Received::Pod(message) => {
                    let is_its_own = message.author == pod;
                    add(&mut from_pods, message);
                    is_its_own.then_some(())
                }
            });
            // It is missed if it does not come.
            let _ = tokio::time::timeout(POD_MESSAGE_TIMEOUT, message).await;
        }
        Ok(Answer { from_pods, ..answer })
    }

    /// Connects to the relays where the service reads private messages; ours if it does not say.
    async fn connect_to_inbox_of(&self, service: PublicKey) -> Result<Vec<RelayUrl>, Error> {
        let mut targets =
            inbox_relays(&self.client, service, FETCH_TIMEOUT).await.map_err(Error::sdk)?;
        if targets.is_empty() {
            targets.clone_from(&self.relays);
        }
        for target in &targets {
            if self.client.add_relay(target).await.map_err(Error::sdk)? {
                self.client.connect_relay(target).await.map_err(Error::sdk)?;
            }
        }
        Ok(targets)
    }

    fn inbox_filter(&self) -> Filter {
        let since = Timestamp::now().as_secs().saturating_sub(gift_wrap::BACKDATED_SECONDS);
        Filter::new()
            .kind(Kind::GiftWrap)
            .pubkey(self.keys.public_key())
            .since(Timestamp::from_secs(since))
    }

    /// Waits until something is read.
    async fn wait<T>(
        &self,
        notifications: &mut broadcast::Receiver<RelayPoolNotification>,
        inbox: &Filter,
        mut read: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T, Error> {
        loop {
            match notifications.recv().await {
                // Not `Event`: an event that was seen before is not notified as one.
                Ok(RelayPoolNotification::Message {
                    message: RelayMessage::Event { event, .. },
                    ..
                }) => {
                    if let Some(answer) = read(&event) {
                        return Ok(answer);
                    }
                }
                Ok(RelayPoolNotification::Event { .. } | RelayPoolNotification::Message { .. }) => {
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let missed = self.client.fetch_events(inbox.clone(), FETCH_TIMEOUT).await;
                    if let Some(answer) = missed.map_err(Error::sdk)?.iter().find_map(&mut read) {
                        return Ok(answer);
                    }
                }
                Ok(RelayPoolNotification::Shutdown) | Err(broadcast::error::RecvError::Closed) => {
                    return Err(Error::Closed);
                }
            }
        }
    }
}

/// The key of the pod that the answer is about, if it has one.
fn pod_key(answer: &Answer) -> Option<PublicKey> {
    match &answer.response {
        Some(Response::Access(access)) => PublicKey::parse(&access.pod_npub).ok(),
        _ => None,
    }
}

/// Relays send the same message each.
fn add(messages: &mut Vec<PodMessage>, message: PodMessage) {
    if messages.len() < POD_MESSAGES && !messages.contains(&message) {
        messages.push(message);
    }
}

/// The answer to this request, of the service or of a pod; `None` for every other event, also for a
/// notice of the pod that it has bought.
fn read_message(
    keys: &Keys,
    event: &Event,
    service: PublicKey,
    request: EventId,
) -> Option<Received> {
    let message = gift_wrap::unwrap(keys, event).ok()?;
    if message.answers != Some(request) {
        return None;
    }
    if message.sender != service {
        let details = serde_json::from_str(&message.text).ok()?;
        return Some(Received::Pod(PodMessage { author: message.sender, details }));
    }
    let response: Option<Response> = serde_json::from_str(&message.text).ok();
    if matches!(response, Some(Response::Notice(_))) {
        return None;
    }
    let text = Secret::new(message.text);
    Some(Received::Answer(Answer { text, response, from_pods: Vec::new() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_a_newer_service_is_not_lost() {
        let (service, customer) = (Keys::generate(), Keys::generate());
        let request = EventId::all_zeros();
        let read = |text: &str, sender: &Keys| {
            let wrapped = gift_wrap::gift_wrap(sender, &customer.public_key(), text, Some(request));
            let (_, wrap) = wrapped.unwrap();
            match read_message(&customer, &wrap, service.public_key(), request)? {
                Received::Answer(answer) => Some(answer),
                Received::Pod(message) => panic!("of a pod: {message:?}"),
            }
        };
        let refund = r#"{"type":"error","error_type":"a_new_code","message":"new","refund_token":"cashuBx","refunded_sats":1,"refund_fee_sats":0}"#;
        let unknown = refund.replace(r#""type":"error""#, r#""type":"a_new_answer""#);
        let answer = read(&unknown, &service).unwrap();
        assert!(answer.response.is_none());
        assert_eq!(answer.text.expose(), unknown);
        assert!(read(refund, &Keys::generate()).is_none());
        let notice = r#"{"type":"end_notice","pod_name":"a","expires_at":"","time_remaining_seconds":9,"message":""}"#;
        assert!(read(notice, &service).is_none(), "the answer is another message");
        for code in ["a_new_code", "internal_error"] {
            let answer = read(&refund.replace("a_new_code", code), &service).unwrap();
            let response = answer.response.unwrap();
            let error = response.error().unwrap();
            assert_eq!(error.error_type.as_str(), code);
            let token = error.refund.as_ref().unwrap().refund_token.as_ref().unwrap();
            assert_eq!(token.expose(), "cashuBx");
        }
    }

    #[test]
    fn a_pods_message_is_another_authors_and_answers_the_same_request() {
        let (service, pod, customer) = (Keys::generate(), Keys::generate(), Keys::generate());
        let request = EventId::all_zeros();
        let read = |text: &str, sender: &Keys, answers: Option<EventId>| {
            let wrapped = gift_wrap::gift_wrap(sender, &customer.public_key(), text, answers);
            let (_, wrap) = wrapped.unwrap();
            match read_message(&customer, &wrap, service.public_key(), request)? {
                Received::Answer(answer) => Some(Err(answer)),
                Received::Pod(message) => Some(Ok(message)),
            }
        };
        let text = r#"{"type":"pod_access_details","pod_name":"ssh-pod-a","order_id":"0","ssh_host":"h","ssh_port":1,"ssh_username":"u","ssh_host_keys":["k"]}"#;
        let message = read(text, &pod, Some(request)).unwrap().unwrap();
        assert_eq!(message.author, pod.public_key());
        assert_eq!(message.details.ssh_host_keys, ["k"]);
        assert!(read(text, &pod, None).is_none(), "it answers nothing");
        assert!(read(&text.replace("pod_access", "access"), &pod, Some(request)).is_none());
        // The service writes nothing for a pod.
        let answer = read(text, &service, Some(request)).unwrap().unwrap_err();
        assert!(answer.response.is_none());
        let mut messages = Vec::new();
        for number in 0..20 {
            let mut other = message.clone();
            other.details.ssh_port = number / 2;
            add(&mut messages, other);
        }
        assert_eq!(messages.len(), POD_MESSAGES, "each once, and not any number");
    }
}
