//! Pods that write to their customers by themselves, as the order service sees it: what they are
//! given to write, and that a pod is found by its key.

use crate::support::fake::{FakeCluster, FakeWallet, Generous, settings, spawn};
use async_trait::async_trait;
use paygress_core::backend::cluster::ReadyPod;
use paygress_core::backend::responder::{PodReply, ReplyTo, Responder, SendError};
use paygress_core::backend::store::{LeaseStore, Repetition};
use paygress_core::model::ids::{Customer, LeaseId, MessageId, OrderId, PodName, PublicKey};
use paygress_core::model::login::{Login, LoginFields};
use paygress_core::model::order::Purchase;
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::run::Run;
use paygress_core::model::secret::Secret;
use paygress_core::orders::{Backends, Capture, NewOrder, OrderService, Settings};
use paygress_core::protocol::{AccessDetails, PodAccessDetails, Response, TopUpResponse, sorted};
use paygress_core::testing;
use paygress_nostr::{Inbox, Keys, RelayUrl};
use paygress_pod_nostr::ReplyRequest;
use paygress_store::SqlStore;
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;

const PASSWORD: &str = "a good password";

/// Has the pods of one transport write.
struct WritingResponder;

#[async_trait]
impl Responder for WritingResponder {
    async fn send(&self, _: &ReplyTo, _: &Response) -> Result<(), SendError> {
        Ok(())
    }
    async fn pod_reply(&self, to: &ReplyTo, details: PodAccessDetails) -> Option<PodReply> {
        (to.transport == "nostr").then(|| PodReply::new(sorted(&details).to_string()))
    }
}

struct Service {
    orders: Arc<OrderService>,
    cluster: Arc<FakeCluster>,
    ledger: Arc<SqlStore>,
    _directory: TempDir,
}

impl Service {
    async fn start(pod_key: Option<PublicKey>, capture: Capture) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.sqlite");
        let ledger = Arc::new(SqlStore::sqlite(&path).await.unwrap());
        let ready = ReadyPod { pod_key, ..ReadyPod::default() };
        let cluster = FakeCluster { ready, runs_images: true, ..FakeCluster::default() };
        let cluster = Arc::new(cluster);
        let backends = Backends {
            wallet: Arc::new(FakeWallet),
            policy: Arc::new(Generous),
            cluster: cluster.clone().into(),
            ledger: ledger.clone(),
            responder: Arc::new(WritingResponder),
        };
        let settings = Settings { capture, refund_on_stop: None, ..settings() };
        let orders = OrderService::new(settings, backends);
        Self { orders, cluster, ledger, _directory: directory }
    }

    /// What the customer is answered to the order of this number.
    async fn order(&self, transport: &str, number: u64, purchase: Purchase) -> Response {
        let order = NewOrder {
            repetition: Repetition::ByContent,
            message: MessageId::parse(format!("{number:064x}")).unwrap(),
            reply_to: ReplyTo {
                transport: transport.to_owned(),
                customer: Some(customer()),
                address: BTreeMap::new(),
            },
            network: None,
            token: Secret::new(format!("10-{number:x}")),
            purchase,
            password: Some(Secret::new(PASSWORD)),
        };
        self.orders.submit(order).await.unwrap().answer().await.unwrap()
    }

    async fn spawn(&self, transport: &str, number: u64) -> AccessDetails {
        match self.order(transport, number, spawn(None, None)).await {
            Response::Access(access) => access,
            other => panic!("{other:?}"),
        }
    }

    async fn top_up(&self, number: u64, pod: &str) -> Result<TopUpResponse, ErrorType> {
        let pod = PodName::parse(pod).unwrap();
        match self.order("nostr", number, Purchase::TopUp { pod }).await {
            Response::ToppedUp(topped_up) => Ok(topped_up),
            Response::Error(error) => Err(error.error_type),
            other => panic!("{other:?}"),
        }
    }

    /// What the pods were to write, in the order of their launches.
    fn replies(&self) -> Vec<Option<PodReply>> {
        self.cluster.pod_replies.lock().unwrap().clone()
    }
}

fn customer() -> Customer {
    Customer::parse(&"c".repeat(64)).unwrap()
}

fn key(byte: u8) -> PublicKey {
    PublicKey::from_bytes([byte; 32])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_given_its_login_and_its_key_is_in_the_answer() {
    let service = Service::start(Some(key(2)), Capture::BeforeLaunch).await;
    let access = service.spawn("nostr", 1).await;
    assert_eq!(access.pod_npub, key(2).npub());
    let replies = service.replies();
    let [Some(reply)] = replies.as_slice() else { panic!("nothing to write: {replies:?}") };
    let written: PodAccessDetails = serde_json::from_str(reply.expose()).unwrap();
    assert_eq!(written.pod_name, access.pod_name);
    assert_eq!((&written.ssh_host, written.ssh_port), (&access.ssh_host, access.ssh_port));
    assert_eq!(written.ssh_username, access.ssh_username);
    assert_eq!(written.ssh_password, Some(Secret::new(PASSWORD)));
    assert_eq!((written.pod_npub, written.ssh_host_keys), (None, Vec::new()), "the pod adds them");
    assert!(!format!("{reply:?}").contains(PASSWORD));
    let pod = PodName::parse(access.pod_name).unwrap();
    let stored = service.ledger.lease(&pod).await.unwrap().unwrap();
    assert_eq!(stored.pod_key, Some(key(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_has_not_written_is_named_by_its_name() {
    let service = Service::start(None, Capture::BeforeLaunch).await;
    let access = service.spawn("nostr", 1).await;
    assert_eq!(access.pod_npub, access.pod_name);
    let topped_up = service.top_up(2, &access.pod_name).await.unwrap();
    assert_eq!(topped_up.pod_npub, access.pod_name);
    // Of another transport.
    let service = Service::start(None, Capture::BeforeLaunch).await;
    service.spawn("http", 1).await;
    assert_eq!(service.replies(), [None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_found_by_its_key() {
    let service = Service::start(Some(key(2)), Capture::BeforeLaunch).await;
    let access = service.spawn("nostr", 1).await;
    let [npub, other] = [2, 3].map(|byte| key(byte).npub());
    let topped_up = service.top_up(2, &npub).await.unwrap();
    assert_eq!((&topped_up.pod_name, &topped_up.pod_npub), (&access.pod_name, &npub));
    assert_eq!(service.top_up(3, &other).await.unwrap_err(), ErrorType::NotFound);

    let pod = |name: &str| PodName::parse(name).unwrap();
    let (by_key, customer) = (pod(&npub), customer());
    let status = service.orders.status(&by_key, &customer).await.unwrap();
    assert_eq!(
        (&status.pod_name, status.expires_at.as_ref()),
        (&access.pod_name, Some(&topped_up.new_expires_at))
    );
    service.orders.progress(&by_key, &customer).await.unwrap();
    let shown = service.orders.access(&by_key, &customer).await.unwrap();
    assert_eq!((shown.pod_name, shown.pod_npub), (access.pod_name.clone(), npub));
    let missing = service.orders.status(&pod(&other), &customer).await.unwrap_err();
    assert_eq!(missing.code, ErrorType::NotFound);
    let thief = Customer::parse(&"d".repeat(64)).unwrap();
    let refused = service.orders.stop(&by_key, &thief).await.unwrap_err();
    assert_eq!(refused.code, ErrorType::NotOwner);

    let stopped = service.orders.stop(&by_key, &customer).await.unwrap();
    assert_eq!(stopped.pod_name, access.pod_name);
    assert!(service.cluster.running.lock().unwrap().is_empty());
    // A refund would be found when it is over, too.
    service.orders.status(&by_key, &customer).await.unwrap();
}

/// Beside the program there is no place for the container.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_runs_its_images_own_program_has_nothing_to_write() {
    let service = Service::start(None, Capture::BeforeLaunch).await;
    let mut with_program = spawn(None, None);
    let Purchase::Spawn { run, .. } = &mut with_program else { panic!("no spawn") };
    *run = Run::Image;
    let answer = service.order("nostr", 1, with_program).await;
    let Response::Access(access) = answer else { panic!("{answer:?}") };
    assert_eq!(access.pod_npub, access.pod_name);
    assert_eq!(service.replies(), [None]);
    service.spawn("nostr", 2).await;
    assert!(service.replies()[1].is_some(), "the next one has");
}

/// It would have its login before anybody has paid for it. So no relay is looked up for it afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_launched_before_the_payment_has_nothing_to_write() {
    let service = Service::start(None, Capture::OnceReady).await;
    service.spawn("nostr", 1).await;
    assert_eq!(service.replies(), [None, None], "before the payment, and after it");
}

/// The service writes it without the type that the program reads: neither knows the other.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_is_given_is_what_its_program_reads() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = SqlStore::sqlite(&directory.path().join("ledger.sqlite")).await.unwrap();
    let settings = paygress_nostr::Settings {
        keys: Keys::generate(),
        relays: vec![RelayUrl::parse("wss://relay.example.com").unwrap()],
        private_relays: false,
        name: String::new(),
        about: String::new(),
    };
    // Nothing is connected: nobody's list of relays is found.
    let (_inbox, _connection, replies) = Inbox::new(settings, Arc::new(ledger));
    let (customer, request) = (Keys::generate().public_key().to_hex(), "a".repeat(64));
    let to = ReplyTo {
        transport: "nostr".to_owned(),
        customer: Some(Customer::parse(&customer).unwrap()),
        address: BTreeMap::from([("request".to_owned(), Some(request.clone()))]),
    };
    let fields = LoginFields { password: Some(PASSWORD), ..LoginFields::default() };
    let (order, login) = (OrderId::random(), Login::check(fields).unwrap());
    let lease = testing::lease(LeaseId::of(&order), 1, 2);
    let details = PodAccessDetails::new(&order, &lease, &login, "node.example.com");
    let reply = replies.pod_reply(&to, details).await.unwrap();
    let read = ReplyRequest::parse(reply.expose()).unwrap();
    assert_eq!((read.recipient.as_str(), read.request.as_ref()), (&*customer, Some(&request)));
    assert!(read.usable_relays().eq(["wss://relay.example.com"]), "{:?}", read.relays);
    assert_eq!(read.reply["ssh_password"], PASSWORD);
    assert_eq!(read.reply["ssh_port"], lease.login_port());
}
