//! The inbox over real relays: what is served once, what is warned of, what is published, and
//! relays that want more.
#![cfg(test)]

mod support;

use nostr_sdk::{Client, Event, EventBuilder, Filter, Keys, Kind, Tag, Timestamp};
use paygress::sandbox::Sandbox;
use paygress_core::ErrorType;
use paygress_core::backend::store::LeaseStore;
use paygress_core::protocol::{RequestBody, Response};
use paygress_nostr::client::Client as CustomerClient;
use paygress_nostr::gift_wrap::{gift_wrap, unwrap};
use paygress_sandbox::Relay;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::customer::{Buyer, Running, TIMEOUT};

/// A bare client, as an external program has it.
struct ExternalClient {
    keys: Keys,
    client: Client,
}

impl ExternalClient {
    async fn new(sandbox: &Sandbox) -> Self {
        let keys = Keys::generate();
        let client = Client::builder().signer(keys.clone()).build();
        for relay in &sandbox.config.relays {
            client.add_relay(relay).await.unwrap();
        }
        client.connect().await;
        client.wait_for_connection(TIMEOUT).await;
        Self { keys, client }
    }

    async fn publish(&self, event: &Event) {
        assert!(!self.client.send_event(event).await.unwrap().success.is_empty());
    }

    /// All responses to this client so far.
    async fn answers(&self) -> Vec<Value> {
        let wraps = self
            .client
            .fetch_events(
                Filter::new().kind(Kind::GiftWrap).pubkey(self.keys.public_key()),
                Duration::from_secs(5),
            )
            .await
            .unwrap();
        wraps
            .iter()
            .filter_map(|wrap| serde_json::from_str(&unwrap(&self.keys, wrap).ok()?.text).ok())
            .collect()
    }

    async fn answer(&self) -> Value {
        let begun = Instant::now();
        loop {
            if let Some(answer) = self.answers().await.into_iter().next() {
                return answer;
            }
            assert!(begun.elapsed() < TIMEOUT, "no answer came");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_encrypted_is_refused_with_a_warning() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    for (kind, word) in
        [(Kind::PrivateDirectMessage, "exposed"), (Kind::EncryptedDirectMessage, "NIP-04")]
    {
        let external = ExternalClient::new(&sandbox).await;
        let event = EventBuilder::new(kind, r#"{"cashu_token":"cashuBx"}"#)
            .tag(Tag::public_key(sandbox.config.keys.public_key()));
        external.publish(&event.sign_with_keys(&external.keys).unwrap()).await;
        let warning = external.answer().await;
        assert_eq!(warning["error_type"], "invalid_request");
        assert!(warning["message"].as_str().unwrap().contains(word), "{warning}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_served_once_however_often_it_is_wrapped_and_whoever_restarts() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let ledger = Arc::clone(&app.ledger);
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let external = ExternalClient::new(&sandbox).await;
    let service = sandbox.config.keys.public_key();
    let request = json!({"cashu_token": buyer.token(5).await}).to_string();
    // The same message, in three wraps: sealed anew each time, one of them without the message's
    // id.
    let mut rumor = nostr_sdk::UnsignedEvent::new(
        external.keys.public_key(),
        Timestamp::now(),
        Kind::PrivateDirectMessage,
        [Tag::public_key(service)],
        request,
    );
    for n in 0..3 {
        if n == 1 {
            rumor.ensure_id();
        }
        let wrap =
            EventBuilder::gift_wrap(&external.keys, &service, rumor.clone(), []).await.unwrap();
        external.publish(&wrap).await;
        external.publish(&wrap).await;
    }
    assert!(external.answer().await["pod_name"].is_string());
    // One more after those: when it is answered, the three were read.
    let last = gift_wrap(&external.keys, &service, "{}", None).unwrap().1;
    external.publish(&last).await;
    let begun = Instant::now();
    while external.answers().await.len() < 2 {
        assert!(begun.elapsed() < TIMEOUT, "the last message was not answered");
    }
    assert_eq!(external.answers().await.len(), 2, "one answer for three wraps");
    assert_eq!(ledger.live_leases(None).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_order_behind_many_newer_wraps_is_still_read() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let external = ExternalClient::new(&sandbox).await;
    let service = sandbox.config.keys.public_key();
    let buyer = Buyer::new(&sandbox).await;
    // An order whose wrap is dated back as far as may be, sent while the service is offline…
    let request = json!({"cashu_token": buyer.token(5).await}).to_string();
    let (_, wrap) = gift_wrap(&external.keys, &service, &request, None).unwrap();
    let back = Timestamp::from_secs(Timestamp::now().as_secs() - 172_800);
    let one_time = Keys::generate();
    let seal = nostr_sdk::nips::nip44::decrypt(
        sandbox.config.keys.secret_key(),
        &wrap.pubkey,
        &wrap.content,
    )
    .unwrap();
    let content =
        nostr_sdk::nips::nip44::encrypt(one_time.secret_key(), &service, seal, Default::default())
            .unwrap();
    let to_service =
        |content: &str| EventBuilder::new(Kind::GiftWrap, content).tag(Tag::public_key(service));
    external
        .publish(&to_service(&content).custom_created_at(back).sign_with_keys(&one_time).unwrap())
        .await;
    // …behind more than a relay gives at once.
    for n in 0..620 {
        let junk = to_service("junk")
            .custom_created_at(Timestamp::from_secs(Timestamp::now().as_secs() - n));
        external.publish(&junk.sign_with_keys(&Keys::generate()).unwrap()).await;
    }
    let filter = Filter::new().kind(Kind::GiftWrap).pubkey(service);
    let at_once = external.client.fetch_events(filter, Duration::from_secs(10)).await.unwrap();
    assert!(
        at_once.len() < 621 && at_once.iter().all(|wrap| wrap.created_at > back),
        "the relay caps what it gives"
    );
    let _running = Running::start(sandbox.app().await.unwrap());
    assert!(external.answer().await["pod_name"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_publishes_its_profile_its_relays_and_its_offers() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let external = ExternalClient::new(&sandbox).await;
    let service = sandbox.config.keys.public_key();
    let kinds = [0, 999, 10_002, 10_050, 30_402, 38_383].map(Kind::from);
    let begun = Instant::now();
    let published = loop {
        let found = external
            .client
            .fetch_events(Filter::new().author(service).kinds(kinds), Duration::from_secs(5))
            .await
            .unwrap();
        if found.len() == kinds.len() {
            break found;
        }
        assert!(
            begun.elapsed() < TIMEOUT,
            "only {} of {} kinds were published",
            found.len(),
            kinds.len()
        );
    };
    let of = |kind: u16| published.iter().find(|event| event.kind == Kind::from(kind)).unwrap();
    let offer: Value = serde_json::from_str(&of(38_383).content).unwrap();
    assert_eq!(offer["minimum_duration_seconds"], 60);
    assert_eq!(offer["whitelisted_mints"], json!([sandbox.mint.url()]));
    assert_eq!(
        (&offer["pod_specs"][0]["id"], &offer["pod_specs"][0]["rate_msats_per_sec"]),
        (&json!("basic"), &json!(17))
    );
    let has = |event: &Event, tag: [&str; 2]| {
        event.tags.iter().any(|found| found.as_slice().starts_with(&tag.map(str::to_owned)))
    };
    for kind in [30_402, 38_383] {
        assert!(has(of(kind), ["d", &format!("paygress:offer:v1:{}", service.to_hex())]), "{kind}");
        assert!(
            has(of(kind), ["t", "paygress"])
                && has(of(kind), ["t", "compute"])
                && has(of(kind), ["v", "1"]),
            "{kind}"
        );
    }
    assert!(has(of(30_402), ["price", "60"]) && has(of(999), ["t", "offer"]));
    assert!(
        has(of(10_050), ["relay", sandbox.relay.url().await.as_str()])
            && has(of(10_002), ["r", sandbox.relay.url().await.as_str()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_with_authentication_is_read_and_another_one_may_be_offline() {
    let private = Relay::start_private().await.unwrap();
    // Nothing listens there.
    let relays = format!("{},ws://127.0.0.1:1", private.url().await);
    let sandbox = Sandbox::new(&[("NOSTR_RELAYS", &relays)], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let customer =
        CustomerClient::connect(Keys::generate(), vec![private.url().await]).await.unwrap();
    let request =
        RequestBody { cashu_token: Some("cashuBnothing".to_owned()), ..RequestBody::default() };
    let service = sandbox.config.keys.public_key();
    let answer = customer.ask(service, &request, TIMEOUT, |_| ()).await.unwrap();
    assert!(
        matches!(&answer.response, Some(Response::Error(error)) if error.error_type == ErrorType::InvalidToken),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_and_own_messages_are_not_answered() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let external = ExternalClient::new(&sandbox).await;
    let service = &sandbox.config.keys;
    let answer = json!({"type": "error", "error_type": "invalid_request", "message": "from another service"}).to_string();
    external
        .publish(&gift_wrap(&external.keys, &service.public_key(), &answer, None).unwrap().1)
        .await;
    external.publish(&gift_wrap(service, &service.public_key(), "{}", None).unwrap().1).await;
    // What comes after them is answered, they are not.
    external
        .publish(&gift_wrap(&external.keys, &service.public_key(), "{}", None).unwrap().1)
        .await;
    assert_eq!(external.answer().await["error_type"], "invalid_token");
    assert_eq!(external.answers().await.len(), 1);
}
