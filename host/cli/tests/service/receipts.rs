//! Receipts: those of every answer, verified with the program as a customer does, without the service;
//! and a service that does not grant what its policies decide.

use super::order;
use crate::support::command::{built, paygress, printed, published, text};
use crate::support::customer::{Buyer, Running, app_on, until};
use crate::support::fake::FakeCluster;
use crate::support::web::Web;
use async_trait::async_trait;
use paygress::app::App;
use paygress::sandbox::Sandbox;
use paygress_core::backend::policy::{
    Context, Decision, Digests, Grant, ImageOffer, Offer, Payment, Placement, Policy, PolicyError,
    PolicySet, Quote, RefundTerms, Rendered, Slot, SlotStats, Utilisation,
};
use paygress_core::backend::receipt::ReceiptSigner;
use paygress_core::model::ids::{ImageRef, MintUrl, OrderId};
use paygress_core::model::order::{Order, OrderView};
use paygress_core::model::order_state::Agreement;
use paygress_core::model::units::{Sat, Seconds, UnixTime};
use paygress_core::orders::Backends;
use paygress_core::protocol::{ReceiptKind, ReceiptOrder, sorted};
use paygress_core::testing;
use paygress_nostr::{Keys, ServiceReceipts, npub, verify_receipt};
use paygress_policy::{
    FieldDifference, PolicyEngine, Publisher, Recomputer, Source, Sources, check_amounts,
};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use tokio::sync::watch;

async fn verify(sandbox: &Sandbox, file: &str, arguments: &[&str]) -> Output {
    let command = ["receipt", "verify", file];
    paygress(sandbox, &[&command[..], arguments].concat()).await
}

/// Writes an answer, and verifies its receipt.
async fn verify_answer(sandbox: &Sandbox, answer: &Value, arguments: &[&str]) -> Output {
    let file = sandbox.directory.path().join("answer.json");
    std::fs::write(&file, answer.to_string()).unwrap();
    verify(sandbox, &file.to_string_lossy(), arguments).await
}

/// What the receipt says, once it is verified in these components.
async fn content(sandbox: &Sandbox, answer: &Value, components: &str) -> Value {
    assert!(answer["receipt"].is_object(), "{answer}");
    let service = npub(&sandbox.config.keys.public_key());
    let arguments = ["--service", &service, "--components", components];
    let output = verify_answer(sandbox, answer, &arguments).await;
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    assert!(printed.contains("good: the signature, and price"), "{printed}");
    for checked in ["signature: valid, and the service's", "terms: recomputed", "agrees with it"] {
        assert!(printed.contains(checked), "{checked}: {printed}");
    }
    let content = answer["receipt"]["content"].as_str().unwrap();
    for secret in ["cashu", "ssh_password", "bearer_token", "refund_token"] {
        assert!(!content.contains(secret), "{secret} is in {content}");
    }
    serde_json::from_str(content).unwrap()
}

/// Those that the service's offer on its relays names.
async fn policies_on_nostr(buyer: &Buyer) -> Value {
    let offer = until("no offer is published", async || {
        buyer.client.offers(Some(buyer.service)).await.unwrap().pop()
    });
    json!(offer.await.content.policies)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_of_each_answer_verifies_without_the_service() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let (components, web) =
        (published(&sandbox, &app.policies), Web::new(app.http_address().unwrap()));
    let running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let offers = web.ask("GET", "/offers", &[], "").await.json();
    assert_eq!(policies_on_nostr(&buyer).await, offers["policies"]);
    let (token, more) = (buyer.token(9).await, buyer.token(5).await);
    let access = buyer.ask(json!({"cashu_token": token, "ssh_username": "alice"})).await;
    let pod = access["pod_name"].clone();
    let topped_up = buyer.ask(json!({"cashu_token": more, "pod_name": pod})).await;
    let again = buyer.ask(json!({"cashu_token": more, "pod_name": pod})).await;
    assert_eq!(again["receipt"], topped_up["receipt"], "the same order has the same receipt");
    let stopped = buyer.ask(json!({"type": "stop", "pod_name": pod})).await;
    let bought = web.spawn(json!({"cashu_token": buyer.token(9).await})).await.good();
    let login = format!("/pods/{}/access", bought["pod_name"].as_str().unwrap());
    let login = web.get(&login, bought["bearer_token"].as_str().unwrap()).await.good();
    assert_eq!(login["receipt"], bought["receipt"]);
    drop(running);

    let receipt = content(&sandbox, &access, &components).await;
    assert_eq!((&receipt["answer"], &receipt["pod_name"]), (&json!("access"), &pod));
    assert_eq!(receipt["ssh_host_keys"], access["ssh_host_keys"]);
    let decision = &receipt["orders"][0]["decision"];
    for slot in ["images", "pricing", "duration", "pod_template"] {
        let offered = &offers["policies"][slot];
        assert_eq!(offered["component"], decision["digests"][slot], "{slot}");
        assert_eq!(offered["settings"], decision["digests"]["settings"][slot], "{slot}");
    }
    let password = access["ssh_password"].as_str().unwrap();
    assert!(!access["receipt"].to_string().contains(password));
    let receipt = content(&sandbox, &topped_up, &components).await;
    assert_eq!((&receipt["answer"], &receipt["pod_name"]), (&json!("top_up"), &pod));
    let receipt = content(&sandbox, &stopped, &components).await;
    assert_eq!((&receipt["answer"], &receipt["pod_name"]), (&json!("stop"), &pod));
    let refunds = receipt["orders"].as_array().unwrap().iter();
    let refunded: u64 = refunds.filter_map(|order| order["refund"]["amount"].as_u64()).sum();
    assert_eq!(json!(refunded), stopped["refunded_sats"]);
    a_sat_too_little_is_named(&sandbox, &stopped).await;
    let receipt = content(&sandbox, &bought, &components).await;
    assert_eq!(receipt["pod_name"], bought["pod_name"]);
    refused(&sandbox, &access, &components).await;
    what_was_not_checked_is_printed(&sandbox, &access, &bought).await;
}

async fn what_was_not_checked_is_printed(sandbox: &Sandbox, access: &Value, bought: &Value) {
    let alone = verify_answer(sandbox, &access["receipt"], &[]).await;
    let printed = text(&alone.stdout);
    assert!(alone.status.success(), "{printed}");
    for unchecked in [
        "whose it is was not compared, name --service",
        "not recomputed, name --components",
        "not compared, the file is the receipt alone",
        "own statements: nobody else can check",
    ] {
        assert!(printed.contains(unchecked), "{unchecked}: {printed}");
    }
    let mut exchanged = access.clone();
    exchanged["receipt"] = bought["receipt"].clone();
    let other = verify_answer(sandbox, &exchanged, &[]).await;
    let (printed, notes) = (text(&other.stdout), text(&other.stderr));
    assert_eq!(other.status.code(), Some(1), "{printed}{notes}");
    assert!(notes.contains("not of the answer that it came with: pod_name"), "{notes}");
    assert!(!printed.contains("good:"), "{printed}");
}

/// The receipt of a refund, and the same of a sat less, which the service has signed too.
async fn a_sat_too_little_is_named(sandbox: &Sandbox, answer: &Value) {
    let honest = verify_answer(sandbox, &answer["receipt"], &[]).await;
    let printed = text(&honest.stdout);
    assert!(honest.status.success(), "{printed}{}", text(&honest.stderr));
    assert!(printed.contains("what is due: recomputed"), "{printed}");
    let content = answer["receipt"]["content"].as_str().unwrap();
    let mut content: Value = serde_json::from_str(content).unwrap();
    let refund = &mut content["orders"][0]["refund"];
    let due = refund["due"].as_u64().unwrap();
    for field in ["due", "amount"] {
        refund[field] = json!(refund[field].as_u64().unwrap().checked_sub(1).unwrap());
    }
    let expected = format!("refund.due: the receipt has {}, and must have {due}", refund["due"]);
    let signer = ServiceReceipts::new(sandbox.config.keys.clone());
    let receipt = signer.sign(content.to_string(), UnixTime(7)).unwrap();
    let caught = verify_answer(sandbox, &json!(receipt), &[]).await;
    let printed = text(&caught.stdout);
    assert_eq!(caught.status.code(), Some(1), "{printed}{}", text(&caught.stderr));
    assert!(printed.contains(&expected), "{expected}: {printed}");
}

/// The same receipt of no order, signed by somebody.
fn without_orders(answer: &Value) -> Value {
    let content = answer["receipt"]["content"].as_str().unwrap();
    let mut content: Value = serde_json::from_str(content).unwrap();
    content["orders"] = json!([]);
    let signer = ServiceReceipts::new(Keys::generate());
    json!({"receipt": signer.sign(content.to_string(), UnixTime(7)).unwrap()})
}

/// Receipts that are forged, truncated, another service's, of other settings, or of nothing.
async fn refused(sandbox: &Sandbox, access: &Value, components: &str) {
    let mut forged = access.clone();
    let content = access["receipt"]["content"].as_str().unwrap();
    forged["receipt"]["content"] = json!(content.replace("\"seconds\":", "\"seconds\":1"));
    let other = npub(&Keys::generate().public_key());
    let file = sandbox.directory.path().join("truncated.json");
    let whole = access["receipt"].to_string();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let settings = sandbox.directory.path().join("other.json");
    std::fs::write(&settings, r#"{"sats_per_hour": 1}"#).unwrap();
    let settings = format!("pricing={}", settings.display());
    let other_settings = ["--components", components, "--settings", &settings];
    for (output, reason) in [
        (verify_answer(sandbox, &forged, &[]).await, "its id or its signature is forged"),
        (verify(sandbox, &file.to_string_lossy(), &[]).await, "it is not JSON"),
        (verify_answer(sandbox, access, &["--service", &other]).await, "another key"),
        (verify_answer(sandbox, access, &other_settings).await, "settings for the slot pricing"),
        (verify_answer(sandbox, &json!({"type": "error"}), &[]).await, "not a Nostr event"),
        (verify_answer(sandbox, &without_orders(access), &[]).await, "it has no order"),
    ] {
        let error = text(&output.stderr);
        assert!(!output.status.success() && error.contains(reason), "{reason}: {error}");
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_with_a_refund_has_a_receipt_and_one_without_has_none() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let cluster = FakeCluster::without_images(&["paygress.local/ssh:1"]);
    let app = app_on(&sandbox, cluster).await;
    let components = published(&sandbox, &app.policies);
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let refunded = buyer.ask(json!({"cashu_token": buyer.token(9).await})).await;
    assert!(refunded["refund_token"].is_string(), "{refunded}");
    let receipt = content(&sandbox, &refunded, &components).await;
    assert_eq!(receipt["answer"], "refusal");
    let order = &receipt["orders"][0];
    assert_eq!(order["refusal"], refunded["error_type"]);
    assert_eq!(order["refund"]["amount"], refunded["refunded_sats"]);
    let unpaid = buyer.ask(json!({"cashu_token": buyer.token(9).await, "tier": "none"})).await;
    assert_eq!(unpaid["type"], "error", "{unpaid}");
    assert!(unpaid.get("refund_token").is_none(), "{unpaid}");
    assert!(unpaid.get("receipt").is_none(), "{unpaid}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_the_operator_ends_has_a_receipt_of_what_is_paid_back() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let components = published(&sandbox, &app.policies);
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let token = buyer.token(9).await;
    let bought = buyer.ask(json!({"cashu_token": token})).await;
    let pod = bought["pod_name"].as_str().unwrap_or_else(|| panic!("{bought}"));
    printed(&sandbox, &["lease", "end", pod]).await;
    until("nothing is paid back", async || {
        let status = buyer.ask(json!({"type": "status", "pod_name": pod})).await;
        status["refund_token"].is_string().then_some(())
    })
    .await;
    // The same order, and another message even within the same second.
    let lost = buyer.ask(json!({"cashu_token": token, "ssh_password": "of the same order"})).await;
    let receipt = content(&sandbox, &lost, &components).await;
    assert_eq!((&receipt["answer"], &receipt["pod_name"]), (&json!("lost"), &bought["pod_name"]));
    let order = &receipt["orders"][0];
    assert_eq!(order["end_reason"], "ended-by-operator");
    assert_eq!(order["refusal"], lost["error_type"]);
    assert_eq!(order["refund"]["amount"], lost["refunded_sats"]);
    a_sat_too_little_is_named(&sandbox, &lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_receipts_answers_and_offers_are_as_they_were() {
    let sandbox = Sandbox::new(&[("RECEIPTS", "false")], "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let web = Web::new(app.http_address().unwrap());
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let answer = buyer.ask(json!({"cashu_token": buyer.token(5).await})).await;
    assert!(answer["ssh_host"].is_string() && answer.get("receipt").is_none(), "{answer}");
    let offers = web.ask("GET", "/offers", &[], "").await.json();
    assert!(offers.get("policies").is_none(), "{offers}");
    assert_eq!(policies_on_nostr(&buyer).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_stores_receipts_beside_the_key() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let components = published(&sandbox, &app.policies);
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let service = npub(&buyer.service);
    let spawn = ["order", "--service", &service, "spawn", "--token", "-"];
    let bought = order::paygress(&sandbox, &spawn, &buyer.token(5).await).await;
    let notes = text(&bought.stderr);
    assert!(bought.status.success(), "{notes}");
    let directory = sandbox.directory.path().join("customer/receipts");
    let stored: Vec<_> = std::fs::read_dir(&directory).unwrap().collect();
    let [Ok(stored)] = stored.as_slice() else { panic!("{stored:?}") };
    let file = stored.path().to_string_lossy().into_owned();
    assert!(notes.contains(&file), "{notes}");
    let verified = verify(&sandbox, &file, &["--components", &components]).await;
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    assert!(is_private(&directory));
}

fn is_private(directory: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    directory.metadata().unwrap().permissions().mode().trailing_zeros() >= 6
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_overcharges_is_caught() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let app = App::build(&sandbox.config, sandbox.cluster(), |backends| Backends {
        policy: Arc::new(Overcharging(Arc::clone(&backends.policy))),
        ..backends
    })
    .await
    .unwrap();
    let components = published(&sandbox, &app.policies);
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let answer = buyer.ask(json!({"cashu_token": buyer.token(9).await})).await;
    let signature = verify_answer(&sandbox, &answer, &[]).await;
    assert!(signature.status.success(), "it has signed that: {}", text(&signature.stderr));
    let caught = verify_answer(&sandbox, &answer, &["--components", &components]).await;
    let printed = text(&caught.stdout);
    assert_eq!(caught.status.code(), Some(1), "{printed}{}", text(&caught.stderr));
    let different: Vec<&str> = printed.lines().filter(|line| line.contains("must have")).collect();
    let [seconds] = different.as_slice() else { panic!("{printed}") };
    assert!(seconds.contains("decision.grant.seconds: the receipt has 420"), "{printed}");
    assert!(seconds.contains("must have 480"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_orders_the_one_that_is_overcharged_is_named() {
    const OVERCHARGED: u64 = 617;
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let honest = Policy::current(&**app.policies.host());
    let overcharging: Arc<dyn PolicySet> = Arc::new(OverchargingSet(Arc::clone(&honest)));
    let signer = ServiceReceipts::new(sandbox.config.keys.clone());
    let mut receipts = Vec::new();
    for number in 0..1_000 {
        let set = if number == OVERCHARGED { &overcharging } else { &honest };
        let orders = vec![decided(&**set, number).await];
        let content = testing::receipt(ReceiptKind::Access, "ssh-pod-aaaaaaaaaa", orders);
        let receipt = signer.sign(sorted(&content).to_string(), UnixTime(number)).unwrap();
        receipts.push(sorted(&receipt).to_string());
    }

    // As `paygress receipt verify` does.
    let service = sandbox.config.keys.public_key();
    let engine = PolicyEngine::start(Some(&sandbox.config.policy_cache)).unwrap();
    let mut recomputer = Recomputer::new(engine, sources(&app.policies));
    let mut found = Vec::new();
    for receipt in &receipts {
        let content = verify_receipt(receipt, Some(&service)).unwrap().content;
        let order = &content.orders[0];
        let amounts = check_amounts(content.answer, order);
        let decisions = recomputer.recompute(order).unwrap();
        let fields = amounts.into_iter().chain(decisions);
        let now = order.decision.context.now;
        found.extend(fields.map(|FieldDifference { field, .. }| (now, field)));
    }
    assert_eq!(found, [(UnixTime(OVERCHARGED), "decision.grant.seconds".to_owned())]);
}

/// An order as this set decides it, as its receipt has it.
async fn decided(set: &dyn PolicySet, number: u64) -> ReceiptOrder {
    let order = OrderView {
        id: OrderId::random().to_string(),
        username: "user".to_owned(),
        ..OrderView::default()
    };
    let utilisation = Some(Utilisation { cpu: 750, memory: 100 });
    let now = UnixTime(number);
    let context = Context { now, capacity_leases: 10, utilisation, ..Context::default() };
    let net = Sat(number.saturating_add(10));
    let mint = MintUrl::of_dry_run();
    let payment = Payment { mint, gross: net, fee: Sat(0), net };
    let image = set.admit(&order, &context).await.unwrap();
    let quote = set.quote(&order, &context).await.unwrap();
    let grant = set.grant(&order, &quote, &payment, &context).await.unwrap();
    let refund = set.refund(&order, &quote, &payment, &grant, &context).await.unwrap();
    let decision = Decision { digests: set.digests(), order, context, quote, grant, refund };
    let agreement = Agreement { payment, decision };
    ReceiptOrder { image: Some(image), stop_terms: refund, ..testing::receipt_order(agreement) }
}

/// The active components with their settings.
fn sources(policies: &Publisher) -> Sources {
    let active = policies.history().pop().unwrap().set;
    let source = |slot: Slot| {
        let component = std::fs::read(built(&format!("plugins/{slot}.wasm"))).unwrap();
        (slot, Source { component, settings: active[&slot].settings.clone() })
    };
    Slot::ALL.into_iter().map(source).collect()
}

/// Policies whose service grants a minute less than they do.
struct Overcharging(Arc<dyn Policy>);

struct OverchargingSet(Arc<dyn PolicySet>);

impl Policy for Overcharging {
    fn current(&self) -> Arc<dyn PolicySet> {
        Arc::new(OverchargingSet(self.0.current()))
    }
    fn report(&self) -> Vec<SlotStats> {
        self.0.report()
    }
    fn changes(&self) -> watch::Receiver<()> {
        self.0.changes()
    }
    fn observe(&self, order: &Order) {
        self.0.observe(order);
    }
}

#[async_trait]
impl PolicySet for OverchargingSet {
    fn digests(&self) -> Digests {
        self.0.digests()
    }
    async fn admit(&self, order: &OrderView, context: &Context) -> Result<ImageRef, PolicyError> {
        self.0.admit(order, context).await
    }
    async fn catalog(&self, context: &Context) -> Result<Vec<ImageOffer>, PolicyError> {
        self.0.catalog(context).await
    }
    async fn offers(&self, context: &Context) -> Result<Vec<Offer>, PolicyError> {
        self.0.offers(context).await
    }
    async fn quote(&self, order: &OrderView, context: &Context) -> Result<Quote, PolicyError> {
        self.0.quote(order, context).await
    }
    async fn grant(
        &self,
        order: &OrderView,
        quote: &Quote,
        payment: &Payment,
        context: &Context,
    ) -> Result<Grant, PolicyError> {
        let honest = self.0.grant(order, quote, payment, context).await?;
        Ok(Grant { seconds: honest.seconds.minus(Seconds(60)), ..honest })
    }
    async fn refund(
        &self,
        order: &OrderView,
        quote: &Quote,
        payment: &Payment,
        _: &Grant,
        context: &Context,
    ) -> Result<Option<RefundTerms>, PolicyError> {
        let honest = self.0.grant(order, quote, payment, context).await?;
        self.0.refund(order, quote, payment, &honest, context).await
    }
    async fn render(
        &self,
        order: &OrderView,
        quote: &Quote,
        grant: &Grant,
        placement: &Placement,
    ) -> Result<Rendered, PolicyError> {
        self.0.render(order, quote, grant, placement).await
    }
}
