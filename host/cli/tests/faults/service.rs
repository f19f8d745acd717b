//! One life of the service after the other, and the messages of its customers.

use crate::backends::{BadLedger, FakeResponder, ScriptedCluster};
use crate::scenario::{Action, ProcessRun};
use crate::{World, fake};
use paygress_cashu::{CashuWallet, Seed, Settings as WalletSettings, WalletStore};
use paygress_core::backend::responder::ReplyTo;
use paygress_core::backend::store::Repetition;
use paygress_core::model::ids::{Customer, MessageId, MintUrl, PodName};
use paygress_core::model::order::Purchase;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Seconds;
use paygress_core::orders::{
    Backends, Capture, NewOrder, OrderService, PodAccess, Settings, Submission,
};
use paygress_core::protocol::Response;
use paygress_sandbox::token::{partial, relabelled};
use paygress_sandbox::{FaultProxy, TestWallet};
use paygress_store::SqlStore;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long everything may take to come right once nothing is wrong any more.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(90);

pub(crate) struct TestEnv {
    pub(crate) way: FaultProxy,
    pub(crate) wallet: TestWallet,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) cluster: Arc<ScriptedCluster>,
    pub(crate) responder: Arc<FakeResponder>,
    pub(crate) capture: Capture,
}

pub(crate) struct App {
    pub(crate) orders: Arc<OrderService>,
    pub(crate) ledger: SqlStore,
    pub(crate) wallet: Arc<CashuWallet>,
}

impl TestEnv {
    /// Opens the service on what is on its disk, as soon as the last one is gone.
    pub(crate) async fn app(
        &self,
        world: &World,
        run: Option<&ProcessRun>,
        killed: Arc<Notify>,
    ) -> App {
        let at = |name: &str| self.directory.path().join(name);
        let ledger = opened(&at("ledger.sqlite")).await;
        let wallet = Arc::new(self.cashu_wallet("wallet.sqlite").await);
        let fault = run.and_then(|run| run.write);
        let faulty_ledger = Arc::new(BadLedger {
            ledger: ledger.clone(),
            fault,
            writes: std::sync::Mutex::default(),
            killed,
        });
        let backends = Backends {
            wallet: wallet.clone(),
            policy: world.policy.clone(),
            cluster: self.cluster.clone().into(),
            ledger: faulty_ledger,
            responder: self.responder.clone(),
        };
        let settings = Settings {
            access: PodAccess::by_ports(40_000..=40_009),
            sweep: true,
            refund_kept: Seconds(30 * 86_400),
            capture: self.capture,
            ..fake::settings()
        };
        App { orders: OrderService::new(settings, backends), ledger, wallet }
    }

    /// The wallet of the mnemonic, in a database of this name.
    pub(crate) async fn cashu_wallet(&self, file: &str) -> CashuWallet {
        let at = |name: &str| self.directory.path().join(name);
        let settings = WalletSettings {
            mints: vec![MintUrl::parse(self.way.url()).unwrap()],
            max_balance: None,
            p2pk_secret_key: None,
        };
        let seed = Seed::load_or_create(&at("mnemonic")).await.unwrap();
        let store = WalletStore::sqlite(&at(file)).await.unwrap();
        CashuWallet::open(store, seed, &settings).await.unwrap()
    }
}

async fn opened(path: &Path) -> SqlStore {
    let begun = Instant::now();
    loop {
        match SqlStore::sqlite(path).await {
            Ok(ledger) => return ledger,
            Err(error) => assert!(begun.elapsed() < TIMEOUT, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A message of a customer.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) customer: Customer,
    pub(crate) token: Option<Secret>,
    pub(crate) purchase: Option<Purchase>,
}

/// A message, and what was answered.
pub(crate) type Sent = (Message, Option<Response>);

/// Submits a message, as a transport does, and waits for the response.
pub(crate) async fn hand_in(orders: &Arc<OrderService>, message: &Message) -> Option<Response> {
    let refused = |refusal| Some(Response::from(&refusal));
    match (&message.token, &message.purchase) {
        (Some(token), Some(purchase)) => {
            let reply_to = ReplyTo {
                transport: paygress_nostr::TRANSPORT.to_owned(),
                customer: Some(message.customer.clone()),
                address: [("request".to_owned(), Some(message.id.clone()))].into(),
            };
            let password =
                matches!(purchase, Purchase::Spawn { .. }).then(|| Secret::new("a password"));
            let incoming = NewOrder {
                repetition: Repetition::ByContent,
                message: MessageId::parse(message.id.as_str()).unwrap(),
                reply_to,
                network: None,
                token: token.clone(),
                purchase: purchase.clone(),
                password,
            };
            match orders.submit(incoming).await {
                Ok(ticket @ (Submission::InProgress(..) | Submission::Joined(..))) => {
                    ticket.answer().await
                }
                Ok(Submission::Completed(_, answer)) => Some(*answer),
                Ok(Submission::OnOtherReplica(_)) => None,
                Err(refusal) => refused(refusal),
            }
        }
        (None, Some(Purchase::TopUp { pod })) => match orders.stop(pod, &message.customer).await {
            Ok(stopped) => Some(stopped.into()),
            Err(refusal) => refused(refusal),
        },
        _ => None,
    }
}

pub(crate) fn customer(n: usize) -> Customer {
    Customer::parse(&format!("{n:064x}")).unwrap()
}

/// Does the actions one after the other, those of the same token at once; gives the messages with
/// what was answered.
pub(crate) async fn act(
    env: &TestEnv,
    orders: &Arc<OrderService>,
    actions: &[Action],
    sent: &mut Vec<Sent>,
) {
    for (n, action) in actions.iter().enumerate().skip(sent.len()) {
        let message = message(env, n, action, sent).await;
        let at = sent.len();
        sent.push((message.clone(), None));
        // The next one may want to be there at the same time.
        let together = matches!(actions.get(n + 1), Some(Action::SameToken | Action::SomeProofs));
        if together {
            let orders = Arc::clone(orders);
            tokio::spawn(async move { hand_in(&orders, &message).await });
        } else {
            let answer = hand_in(orders, &message).await;
            sent[at].1 = answer;
        }
    }
}

/// The message of the nth action.
async fn message(env: &TestEnv, n: usize, action: &Action, sent: &[Sent]) -> Message {
    let id = format!("message {n}");
    let spawn = || Some(fake::spawn(None, None));
    let pod = sent.iter().find_map(|(_, response)| match response {
        Some(Response::Access(access)) => Some(access.pod_name.clone()),
        _ => None,
    });
    let fresh = async |sat| {
        let token = env.wallet.token(sat).await.unwrap();
        Some(Secret::new(relabelled(&token, env.way.url(), "sat").unwrap()))
    };
    let last = sent.iter().rev().find_map(|(message, _)| message.token.clone());
    let (sender, token, purchase) = match action {
        Action::Spawn(sat) => (1, fresh(*sat).await, spawn()),
        Action::SameToken => (2, last, spawn()),
        Action::SomeProofs => {
            let token = last.and_then(|token| partial(token.expose()).ok()).map(Secret::new);
            (1, token, spawn())
        }
        Action::TopUp(sat) => {
            let pod = PodName::parse(pod.unwrap_or_else(|| "ssh-pod-none".to_owned())).unwrap();
            (1, fresh(*sat).await, Some(Purchase::TopUp { pod }))
        }
        Action::Stop => {
            (1, None, pod.map(|pod| Purchase::TopUp { pod: PodName::parse(pod).unwrap() }))
        }
    };
    Message { id, customer: customer(sender), token, purchase }
}
