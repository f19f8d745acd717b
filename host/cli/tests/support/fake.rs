//! Fake backends for tests of policies: a wallet that accepts every token, and pods in memory only.

#[path = "fake_cluster.rs"]
mod fake_cluster;

#[allow(unused_imports, reason = "not every test changes it")]
pub use fake_cluster::{FakeCluster, Gate, Room, TOO_LARGE};

use async_trait::async_trait;
use paygress_core::backend::policy::{
    Context, Digests, Grant, Offer, Payment, Placement, Policy, PolicyError, PolicySet, Price,
    Quote, RefundTerms, Rendered, Resources, SlotStats,
};
use paygress_core::backend::responder::{ReplyTo, Responder, SendError};
use paygress_core::backend::store::Repetition;
use paygress_core::backend::wallet::{
    Payments, ReceiveError, RecoveryError, RefundAmount, RefundIssuer, RefundState, RefundToken,
    Resolution, ResolveMode, TokenInfo, TokenReader, WalletError,
};
use paygress_core::model::ids::{
    Customer, ImageRef, MessageId, MintUrl, OrderId, ProofY, TierId, Username,
};
use paygress_core::model::order::{Order, OrderView, Purchase};
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::run::Run;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Msat, Sat, Seconds};
use paygress_core::orders::{
    Backends, Capture, NewOrder, OrderService, PodAccess, RefundFees, Settings, Submission,
};
use paygress_core::protocol::{Response, sorted};
use paygress_store::SqlStore;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

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
            mint: token_info.mint.clone(),
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
    async fn admit(&self, _: &OrderView, _: &Context) -> Result<ImageRef, PolicyError> {
        Ok(ImageRef::parse(self.0).unwrap())
    }
    async fn offers(&self, _: &Context) -> Result<Vec<Offer>, PolicyError> {
        Ok(Vec::new())
    }
    async fn quote(&self, order: &OrderView, _: &Context) -> Result<Quote, PolicyError> {
        let price = Price { msat: Msat(1_000), seconds: Seconds(60) };
        let tier = TierId::parse(order.tier.as_deref().unwrap_or("basic")).unwrap();
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
            cluster: Arc::new(FakeCluster::default()).into(),
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
        username: Username::parse("alice").unwrap(),
        public_key: None,
        wanted: None,
        run: Run::Ssh,
        http: None,
    }
}
