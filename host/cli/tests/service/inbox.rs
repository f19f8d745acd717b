//! The inbox over real relays: what is served once, what is warned of, what is published, relays
//! that want more, and messages as people and other clients send them.

use crate::support::crashing::{Stop, crashing};
use crate::support::customer::{Buyer, Running, TIMEOUT, until};
use nostr_sdk::nips::nip44;
use nostr_sdk::{Client, Event, EventBuilder, Filter, JsonUtil, Keys, Kind, Tag, Timestamp};
use paygress::app::App;
use paygress::sandbox::Sandbox;
use paygress_core::ErrorType;
use paygress_core::backend::store::{LeaseStore, MessageLog};
use paygress_core::model::ids::MessageId;
use paygress_core::model::units::UnixTime;
use paygress_core::protocol::{RequestBody, Response};
use paygress_nostr::client::Client as CustomerClient;
use paygress_nostr::gift_wrap::{gift_wrap, unwrap};
use paygress_sandbox::Relay;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

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
async fn a_submission_that_hangs_holds_up_no_other_customer_and_is_not_completed() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let reached = Arc::new(Notify::new());
    let hanging =
        |backends| crashing(Stop::BeforeTheFirstIsDecoded)(backends, Arc::clone(&reached));
    let app = App::build(&sandbox.config, sandbox.cluster(), hanging).await.unwrap();
    let ledger = Arc::clone(&app.ledger);
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let order = async |external: &ExternalClient| {
        let request = json!({"cashu_token": buyer.token(5).await}).to_string();
        let service = sandbox.config.keys.public_key();
        let (id, wrap) = gift_wrap(&external.keys, &service, &request, None).unwrap();
        external.publish(&wrap).await;
        id.to_hex()
    };
    let is_completed = async |id: &str| {
        let id = MessageId::parse(id).unwrap();
        !ledger.claim_message(&id, UnixTime::now()).await.unwrap()
    };
    let first = ExternalClient::new(&sandbox).await;
    let first_id = order(&first).await;
    tokio::time::timeout(TIMEOUT, reached.notified()).await.unwrap();
    let second = ExternalClient::new(&sandbox).await;
    let begun = Instant::now();
    let second_id = order(&second).await;
    assert!(second.answer().await["pod_name"].is_string());
    println!("served beside a submission that hangs: in {:.2?}", begun.elapsed());
    until("it was not completed", async || is_completed(&second_id).await.then_some(())).await;
    assert!(!is_completed(&first_id).await, "it would be lost if the process were killed now");
    assert!(first.answers().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_are_sent_to_customers_who_want_them() {
    let settings = [("PAYMENT_RATE_SATS_PER_HOUR", "3600"), ("END_NOTICES", "10")];
    let sandbox =
        Sandbox::new(&settings, "[policy.duration]\nminimum_seconds = 5\n").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let (buyer, service) = (Buyer::new(&sandbox).await, sandbox.config.keys.public_key());
    let (wanting, quiet) =
        (ExternalClient::new(&sandbox).await, ExternalClient::new(&sandbox).await);
    for (client, notices) in [(&quiet, json!(null)), (&wanting, json!(true))] {
        let request = json!({"cashu_token": buyer.token(26).await, "notices": notices}).to_string();
        client.publish(&gift_wrap(&client.keys, &service, &request, None).unwrap().1).await;
    }
    let notices = until("the end is not sent", async || {
        let mut answers = wanting.answers().await;
        answers.retain(|answer| answer["type"] == "end_notice");
        answers.iter().any(|notice| notice["end_reason"] == "expired").then_some(answers)
    })
    .await;
    let before: Vec<&Value> =
        notices.iter().filter(|notice| notice.get("end_reason").is_none()).collect();
    assert!(notices.len() == 2 && before.len() == 1, "{notices:?}");
    assert!(before[0]["time_remaining_seconds"].as_u64().unwrap() <= 10, "{notices:?}");
    let answers = quiet.answers().await;
    assert!(answers.iter().all(|answer| answer["type"] == "access_details"), "{answers:?}");
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
    let seal =
        nip44::decrypt(sandbox.config.keys.secret_key(), &wrap.pubkey, &wrap.content).unwrap();
    let content =
        nip44::encrypt(one_time.secret_key(), &service, seal, Default::default()).unwrap();
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
    assert_eq!(offer["images"], json!([{"reference": "paygress.local/ssh:1"}]));
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

/// A client's request, sent three times in a row: at least two of them in the same second.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_in_the_same_second_has_its_answer_too() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let relays = sandbox.config.relays.clone();
    let customer = CustomerClient::connect(Keys::generate(), relays).await.unwrap();
    let pod_name = Some("ssh-pod-unknown".to_owned());
    let request = RequestBody { pod_name, ..RequestBody::default() };
    let service = sandbox.config.keys.public_key();
    for _ in 0..3 {
        let answer = customer.ask(service, &request, TIMEOUT, |_| ()).await.unwrap();
        assert!(
            matches!(&answer.response, Some(Response::Error(error)) if error.error_type == ErrorType::NotFound),
            "{answer:?}"
        );
    }
}

/// As clients with disappearing messages write it: both the seal and the wrap expire (NIP-40).
fn disappearing(from: &Keys, to: &Keys, text: &str, at: Timestamp) -> Event {
    let encrypt = |keys: &Keys, text: String| {
        nip44::encrypt(keys.secret_key(), &to.public_key(), text, nip44::Version::V2).unwrap()
    };
    let mut rumor = EventBuilder::private_msg_rumor(to.public_key(), text).build(from.public_key());
    rumor.ensure_id();
    let seal = EventBuilder::new(Kind::Seal, encrypt(from, rumor.as_json()))
        .tag(Tag::expiration(at))
        .sign_with_keys(from)
        .unwrap();
    let one_time = Keys::generate();
    EventBuilder::new(Kind::GiftWrap, encrypt(&one_time, seal.as_json()))
        .tags([Tag::public_key(to.public_key()), Tag::expiration(at)])
        .sign_with_keys(&one_time)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_disappears_is_served() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let external = ExternalClient::new(&sandbox).await;
    let at = Timestamp::from_secs(Timestamp::now().as_secs() + 3_600);
    let request = r#"{"cashu_token": "cashuBgarbage"}"#;
    external.publish(&disappearing(&external.keys, &sandbox.config.keys, request, at)).await;
    assert_eq!(external.answer().await["error_type"], "invalid_token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_is_served_or_answered_with_the_limit() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let service = sandbox.config.keys.public_key();
    for (bytes, code, part) in [
        // Its seal is longer than the 65,535 bytes that NIP-44 once allowed.
        (47_000, "invalid_token", ""),
        (62_000, "invalid_token", "longer than 60000 bytes"),
        (70_000, "invalid_request", "longer than 65536 bytes"),
    ] {
        let external = ExternalClient::new(&sandbox).await;
        let request = json!({"cashu_token": format!("cashuB{}", "o".repeat(bytes))}).to_string();
        let (_, wrap) = gift_wrap(&external.keys, &service, &request, None).unwrap();
        external.publish(&wrap).await;
        let answer = external.answer().await;
        assert_eq!(answer["error_type"], code, "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(part), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_alone_buys_the_default_pod_and_a_greeting_is_answered_with_an_example() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let service = sandbox.config.keys.public_key();
    let buyer = Buyer::new(&sandbox).await;
    let ask = async |text: &str| {
        let external = ExternalClient::new(&sandbox).await;
        let (_, wrap) = gift_wrap(&external.keys, &service, text, None).unwrap();
        external.publish(&wrap).await;
        external.answer().await
    };
    let greeted = ask("hi").await;
    assert_eq!(greeted["error_type"], "invalid_request");
    assert!(greeted["message"].as_str().unwrap().contains(r#"{"cashu_token": "cashuB…"}"#));
    let token = buyer.token(5).await;
    let answer = ask(&format!("my token is {token}")).await;
    assert!(answer["message"].as_str().unwrap().contains("not alone"), "{answer}");
    let bought = ask(&format!("{token}\n")).await;
    assert!(
        bought["pod_name"].is_string() && bought["pod_spec_name"] == "basic",
        "the token was good still: {bought}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_pays_nothing_has_a_few_answers_a_minute_and_who_pays_has_theirs() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let external = ExternalClient::new(&sandbox).await;
    let service = sandbox.config.keys.public_key();
    let buyer = Buyer::new(&sandbox).await;
    let token = buyer.token(5).await;
    let greetings = (0..60).map(|n| format!("hi {n}"));
    for text in greetings.chain([token]) {
        let (_, wrap) = gift_wrap(&external.keys, &service, &text, None).unwrap();
        external.publish(&wrap).await;
    }
    let begun = Instant::now();
    let answers = loop {
        let answers = external.answers().await;
        if answers.iter().any(|answer| answer["pod_name"].is_string()) {
            break answers;
        }
        assert!(begun.elapsed() < TIMEOUT, "the order was not answered");
    };
    println!("{} answers to 60 greetings, and one to an order", answers.len() - 1);
    assert!((2..=31).contains(&answers.len()), "{} answers", answers.len());
}
