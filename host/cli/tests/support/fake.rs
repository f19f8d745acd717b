//! Fake backends for tests of policies: a wallet that accepts every token, and pods in memory only.

use async_trait::async_trait;
use paygress_core::backend::capacity::{
    Capacity, Demand, NoCapacity, Reservation, Tier, Utilisation,
};
use paygress_core::backend::cluster::{
    Cluster, ClusterError, ClusterEvent, EndReason, LeasePlan, Probe, ReadyPod, StartupPhase,
};
use paygress_core::backend::policy::{
    Context, Digests, Grant, Offer, Payment, Placement, Policy, PolicyError, PolicySet, Price,
    Quote, RefundTerms, Rendered, Resources, SlotStats,
};
use paygress_core::backend::responder::{PodReply, ReplyTo, Responder, SendError};
use paygress_core::backend::store::Repetition;
use paygress_core::backend::wallet::{
    Payments, ReceiveError, RecoveryError, RefundAmount, RefundIssuer, RefundState, RefundToken,
    Resolution, ResolveMode, TokenInfo, TokenReader, WalletError,
};
use paygress_core::model::ids::{Customer, MessageId, MintUrl, OrderId, PodName, ProofY};
use paygress_core::model::order::{Order, OrderView, Purchase};
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::run::{ProgramState, Run};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Msat, Sat, Seconds, UnixTime};
use paygress_core::orders::{
    Backends, Capture, NewOrder, OrderService, PodAccess, RefundFees, Settings, Submission,
};
use paygress_core::protocol::{Response, sorted};
use paygress_store::SqlStore;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, mpsc, watch};

/// A token is its amount and a number.
pub struct FakeWallet;

/// Tokens of this amount have no DLEQ proofs.
pub const UNPROVEN: Sat = Sat(11);

#[async_trait]
impl TokenReader for FakeWallet {
    async fn decode(&self, token: &Secret) -> Result<TokenInfo, Refusal> {
        let read = || {
            let (sat, number) = token.expose().split_once('-')?;
            Some((sat.parse().ok()?, number))
        };
        let (sat, number) =
            read().ok_or_else(|| Refusal::new(ErrorType::InvalidToken, "not a fake token"))?;
        Ok(TokenInfo {
            mint: MintUrl::parse("https://fake.invalid").unwrap(),
            gross: Sat(sat),
            ys: vec![ProofY::parse(format!("{number:0>66}")).unwrap()],
        })
    }
    async fn verify(&self, _: &Secret, token_info: &TokenInfo) -> Result<Payment, Refusal> {
        Ok(Payment {
            mint: token_info.mint.to_string(),
            gross: token_info.gross,
            fee: Sat(0),
            net: token_info.gross,
        })
    }
    async fn verify_dleq(
        &self,
        token: &Secret,
        token_info: &TokenInfo,
    ) -> Result<Payment, Refusal> {
        self.verify(token, token_info).await
    }
    async fn is_proven(&self, _: &Secret, token_info: &TokenInfo) -> bool {
        token_info.gross != UNPROVEN
    }
    async fn token_from_payload(&self, payload: &str) -> Result<Secret, Refusal> {
        Ok(Secret::new(payload.to_owned()))
    }
}

#[async_trait]
impl Payments for FakeWallet {
    async fn receive(
        &self,
        _: &OrderId,
        _: &Secret,
        token_info: &TokenInfo,
    ) -> Result<Sat, ReceiveError> {
        Ok(token_info.gross)
    }
    async fn resolve(&self, _: &OrderId, token_info: &TokenInfo, _: ResolveMode) -> Resolution {
        Resolution::Received(token_info.gross)
    }
    async fn recover(&self) -> Result<(), RecoveryError> {
        Ok(())
    }
}

#[async_trait]
impl RefundIssuer for FakeWallet {
    async fn refund(
        &self,
        order: &OrderId,
        _: &MintUrl,
        amount: RefundAmount,
    ) -> Result<RefundToken, WalletError> {
        let (RefundAmount::LessFee(amount) | RefundAmount::Whole { whole: amount, .. }) = amount;
        Ok(RefundToken { token: Secret::new(format!("{}-{order}", amount.0)), amount, fee: Sat(0) })
    }
    async fn refund_state(&self, _: &OrderId, _: &MintUrl) -> Result<RefundState, WalletError> {
        Ok(RefundState::Waiting)
    }
    async fn reclaim(&self, _: &OrderId, _: &MintUrl) -> Result<Option<Sat>, WalletError> {
        Ok(None)
    }
}

/// Gives a fake wallet that has no mints what a wallet says of its mints.
macro_rules! without_mints {
    ($wallet:ty) => {
        #[async_trait::async_trait]
        impl paygress_core::backend::wallet::MintDirectory for $wallet {
            fn mints(&self) -> Vec<paygress_core::model::ids::MintUrl> {
                Vec::new()
            }
            fn p2pk_pubkey(&self) -> Option<paygress_core::model::ids::P2pkPubkey> {
                None
            }
            fn payment_request(
                &self,
                _: &paygress_core::backend::wallet::PaymentRequest,
            ) -> String {
                String::new()
            }
            async fn report(
                &self,
            ) -> Result<
                Vec<paygress_core::backend::wallet::MintReport>,
                paygress_core::backend::wallet::WalletError,
            > {
                Ok(Vec::new())
            }
        }
    };
}
#[allow(unused_imports, reason = "not every test has a wallet of its own")]
pub(crate) use without_mints;

without_mints!(FakeWallet);

/// A cluster that agrees to everything.
#[derive(Default)]
pub struct FakeCluster {
    /// How many pods it has room for; as many as there are ports if it is not known.
    pub room: Option<u32>,
    pub running: Mutex<HashSet<PodName>>,
    /// How many pods ran at the same time, at most.
    pub most: AtomicUsize,
    /// Pods that have ended, which it reports to whoever watches it.
    pub ended: Mutex<HashMap<PodName, EndReason>>,
    /// Pods that others run in place of, which it reports likewise.
    pub replaced: Mutex<Vec<(PodName, ReadyPod)>>,
    /// Pods whose node is lost, which was ready until 400; it reports them likewise.
    pub lost: Mutex<Vec<PodName>>,
    /// What is known of every pod.
    pub ready: ReadyPod,
    /// What each pod that was launched was to write.
    pub pod_replies: Mutex<Vec<Option<PodReply>>>,
    /// Holds up the pods that start.
    pub gate: Option<Arc<Gate>>,
    /// Finds out whether pods start; without it nothing keeps them from it.
    pub probe: Option<Arc<dyn Probe>>,
    /// Pods that are old, and nobody's.
    pub old: Vec<PodName>,
    /// Images that no node can pull…
    pub broken_images: Vec<&'static str>,
    /// …and the pods that were launched with them.
    pub broken: Mutex<HashSet<PodName>>,
    /// Whether its pods run their images' own programs.
    pub runs_images: bool,
    /// How often it was requested how these are.
    pub program_requests: AtomicU64,
    /// Whether pods that are ready are gone a moment later.
    pub gone: AtomicBool,
    /// The end that terminals of a pod show, and how long before they have notices.
    pub shown: Mutex<HashMap<PodName, (UnixTime, Vec<Seconds>)>>,
}

/// A test waits until it is reached, and lets it go on.
#[derive(Default)]
pub struct Gate {
    pub reached: Notify,
    pub go: Notify,
}

/// A tier that no node is large enough for.
pub const TOO_LARGE: &str = "huge";

/// Room for so many pods.
pub struct Room(pub u32);

impl Room {
    fn left(&self, reserved: &[Reservation]) -> u32 {
        let pods = reserved.iter().filter(|reserved| reserved.demand != Demand::default()).count();
        self.0.saturating_sub(u32::try_from(pods).unwrap())
    }
}

impl Capacity for Room {
    fn check(&self, reserved: &[Reservation], _: &Demand) -> Result<(), NoCapacity> {
        if self.left(reserved) == 0 { Err(NoCapacity::Nodes) } else { Ok(()) }
    }
    fn fits(&self, reserved: &[Reservation], tier: &Tier) -> Result<(), NoCapacity> {
        if tier.id == TOO_LARGE {
            return Err(NoCapacity::TooLarge);
        }
        self.check(reserved, &Demand::default())
    }
    fn count(&self, reserved: &[Reservation], _: &Tier, most: u32) -> u32 {
        self.left(reserved).min(most)
    }
    fn utilisation(&self) -> Utilisation {
        Utilisation { cpu: 0, memory: 0 }
    }
}

#[async_trait]
impl Cluster for FakeCluster {
    async fn dry_run(&self, _: &LeasePlan) -> Result<Demand, ClusterError> {
        Ok(Demand::new("a pod".to_owned()))
    }
    async fn capacity(&self) -> Option<Arc<dyn Capacity>> {
        Some(Arc::new(Room(self.room?)))
    }
    async fn launch(&self, plan: &LeasePlan) -> Result<(), ClusterError> {
        self.pod_replies.lock().unwrap().push(plan.pod_reply.clone());
        if self.broken_images.contains(&plan.placement.image.as_str()) {
            self.broken.lock().unwrap().insert(plan.lease.pod_name());
        }
        let mut running = self.running.lock().unwrap();
        running.insert(plan.lease.pod_name());
        self.most.fetch_max(running.len(), Ordering::Relaxed);
        Ok(())
    }
    fn runs_images(&self) -> bool {
        self.runs_images
    }
    fn probe(&self) -> Option<&dyn Probe> {
        self.probe.as_deref()
    }
    async fn ready(&self, pod: &PodName) -> Result<ReadyPod, ClusterError> {
        if self.broken.lock().unwrap().contains(pod) {
            return Err(ClusterError::image_failed("ErrImagePull"));
        }
        if let Some(gate) = &self.gate {
            gate.reached.notify_one();
            gate.go.notified().await;
        }
        Ok(self.ready.clone())
    }
    async fn startup_phase(&self, _: &PodName) -> Result<StartupPhase, ClusterError> {
        Ok(StartupPhase::Starting)
    }
    async fn image_program(&self, _: &PodName) -> Result<Option<ProgramState>, ClusterError> {
        self.program_requests.fetch_add(1, Ordering::Relaxed);
        Ok(Some(ProgramState::Running))
    }
    async fn check_running(&self, pod: &PodName, _: UnixTime) -> Result<(), ClusterError> {
        match self.ended.lock().unwrap().contains_key(pod) {
            true => Err(ClusterError::NotFound),
            false => Ok(()),
        }
    }
    async fn set_expiry(&self, _: &PodName, _: UnixTime) -> Result<(), ClusterError> {
        if self.gone.load(Ordering::Relaxed) { Err(ClusterError::NotFound) } else { Ok(()) }
    }
    async fn show_end(
        &self,
        pod: &PodName,
        at: UnixTime,
        notices: &[Seconds],
    ) -> Result<(), ClusterError> {
        self.shown.lock().unwrap().insert(pod.clone(), (at, notices.to_vec()));
        Ok(())
    }
    async fn remove(&self, pod: &PodName) -> Result<(), ClusterError> {
        self.running.lock().unwrap().remove(pod);
        Ok(())
    }
    async fn observe(&self, sink: mpsc::Sender<ClusterEvent>) {
        let replaced = self.replaced.lock().unwrap().clone();
        for (pod, running) in replaced {
            if sink.send(ClusterEvent::Replaced(pod, running)).await.is_err() {
                return;
            }
        }
        let ended = self.ended.lock().unwrap().clone();
        for (pod, reason) in ended {
            if sink.send(ClusterEvent::Ended(pod, reason)).await.is_err() {
                return;
            }
        }
        let lost = self.lost.lock().unwrap().clone();
        let _ = sink.send(ClusterEvent::NodeLost { pods: lost, ready_until: UnixTime(400) }).await;
        std::future::pending().await
    }
    async fn check(&self) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn list_orphan_candidates(&self) -> Result<Vec<PodName>, ClusterError> {
        Ok(self.old.clone())
    }
}

/// Policies that grant everything.
pub struct Generous;

/// Those that admit this image.
pub struct GenerousSet(pub &'static str);

impl Policy for Generous {
    fn current(&self) -> Arc<dyn PolicySet> {
        Arc::new(GenerousSet("image:1"))
    }
    fn report(&self) -> Vec<SlotStats> {
        Vec::new()
    }
    fn changes(&self) -> watch::Receiver<()> {
        watch::channel(()).1
    }
    fn observe(&self, _: &Order) {}
}

/// Policies that admit one image, which the operator changes.
pub struct Images {
    active: Mutex<Arc<GenerousSet>>,
    changes: watch::Sender<()>,
}

impl Images {
    pub fn new(image: &'static str) -> Self {
        let active = Mutex::new(Arc::new(GenerousSet(image)));
        Self { active, changes: watch::Sender::new(()) }
    }

    pub fn publish(&self, image: &'static str) {
        *self.active.lock().unwrap() = Arc::new(GenerousSet(image));
        self.changes.send_replace(());
    }
}

impl Policy for Images {
    fn current(&self) -> Arc<dyn PolicySet> {
        self.active.lock().unwrap().clone()
    }
    fn report(&self) -> Vec<SlotStats> {
        Vec::new()
    }
    fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
    fn observe(&self, _: &Order) {}
}

#[async_trait]
impl PolicySet for GenerousSet {
    fn digests(&self) -> Digests {
        Digests::default()
    }
    async fn admit(&self, _: &OrderView, _: &Context) -> Result<String, PolicyError> {
        Ok(self.0.to_owned())
    }
    async fn offers(&self, _: &Context) -> Result<Vec<Offer>, PolicyError> {
        Ok(Vec::new())
    }
    async fn quote(&self, order: &OrderView, _: &Context) -> Result<Quote, PolicyError> {
        let price = Price { msat: Msat(1_000), seconds: Seconds(60) };
        let tier = order.tier.clone().unwrap_or_else(|| "basic".to_owned());
        Ok(Quote { tier, resources: Resources::default(), price, minimum: Sat(1) })
    }
    async fn grant(
        &self,
        _: &OrderView,
        _: &Quote,
        _: &Payment,
        _: &Context,
    ) -> Result<Grant, PolicyError> {
        Ok(Grant { seconds: Seconds(600), note: None })
    }
    async fn refund(
        &self,
        _: &OrderView,
        _: &Quote,
        _: &Payment,
        _: &Grant,
        _: &Context,
    ) -> Result<Option<RefundTerms>, PolicyError> {
        Ok(None)
    }
    async fn render(
        &self,
        _: &OrderView,
        _: &Quote,
        _: &Grant,
        _: &Placement,
    ) -> Result<Rendered, PolicyError> {
        // As long as that of the default policies.
        Ok(Rendered { pod_template_json: "x".repeat(2_000), ..Rendered::default() })
    }
}

pub struct NullResponder;

#[async_trait]
impl Responder for NullResponder {
    async fn send(&self, _: &ReplyTo, _: &Response) -> Result<(), SendError> {
        Ok(())
    }
}

/// Of a service with pods that are not real; refunds go by the minute.
pub fn settings() -> Settings {
    Settings {
        suggested: Seconds(3_600),
        end_notices: Vec::new(),
        ssh_host: "127.0.0.1".to_owned(),
        container_port: 2_222,
        access: PodAccess::by_ports(1_024..=65_000),
        sweep: false,
        refund_on_stop: Some(RefundTerms { step: Seconds(60), percent: 100 }),
        refund_fees: RefundFees::Operator,
        refund_kept: Seconds(86_400),
        capture: Capture::BeforeLaunch,
    }
}

/// An order service on fake backends, with a real ledger.
pub struct FakeBackends {
    pub orders: Arc<OrderService>,
    pub ledger: Arc<SqlStore>,
    tokens: AtomicU64,
}

impl FakeBackends {
    pub async fn new(directory: &Path, policy: Arc<dyn Policy>) -> Self {
        let ledger = Arc::new(SqlStore::sqlite(&directory.join("fake.sqlite")).await.unwrap());
        let backends = Backends {
            wallet: Arc::new(FakeWallet),
            policy,
            cluster: Arc::new(FakeCluster::default()),
            ledger: ledger.clone(),
            responder: Arc::new(NullResponder),
        };
        Self { orders: OrderService::new(settings(), backends), ledger, tokens: AtomicU64::new(0) }
    }

    /// What is answered to an order over so many sat.
    pub async fn order(&self, sat: u64, purchase: Purchase) -> Value {
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        let customer = Customer::parse(&format!("{:064x}", number % 1_000)).unwrap();
        let incoming = NewOrder {
            message: MessageId::parse(format!("{number:064x}")).unwrap(),
            ..new_order(customer, format!("{sat}-{number:x}"), purchase)
        };
        match self.orders.submit(incoming).await.map(Submission::answer) {
            Ok(response) => sorted(&response.await.expect("a response")),
            Err(refusal) => panic!("the order was not taken: {refusal:?}"),
        }
    }
}

/// A message of its own, by this customer.
pub fn new_order(customer: Customer, token: String, purchase: Purchase) -> NewOrder {
    NewOrder {
        repetition: Repetition::ByContent,
        message: MessageId::parse(OrderId::random()).unwrap(),
        reply_to: ReplyTo {
            transport: "fake".to_owned(),
            customer: Some(customer),
            address: BTreeMap::new(),
        },
        network: None,
        token: Secret::new(token),
        purchase,
        password: Some(Secret::new("a fake password")),
    }
}

pub fn spawn(tier: Option<&str>, image: Option<&str>) -> Purchase {
    Purchase::Spawn {
        image: image.map(str::to_owned),
        tier: tier.map(str::to_owned),
        username: "alice".to_owned(),
        public_key: None,
        wanted: None,
        run: Run::Ssh,
        http: None,
    }
}
