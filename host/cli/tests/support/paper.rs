//! Rooms of paper: a till that takes every token at its word, and pods that are only remembered. For tests of policies,
//! which need many orders and no money.

use async_trait::async_trait;
use paygress_core::Policy;
use paygress_core::cluster::{Cluster, ClusterError, Launch, LeasePlan, Observation};
use paygress_core::courier::{Courier, ReplyTo};
use paygress_core::desk::{Desk, Incoming, Rooms, Settings, Ticket};
use paygress_core::order::Purchase;
use paygress_core::policy::{Payment, RefundTerms};
use paygress_core::refusal::{ErrorType, Refusal};
use paygress_core::secret::Secret;
use paygress_core::till::{MintReport, NotRedeemed, PaymentAsked, RefundState, RefundToken, Settlement, Till, TokenFacts};
use paygress_core::units::{Customer, MintUrl, OrderId, PodName, ProofY, Sat, Seconds, UnixTime};
use paygress_ledger::Book;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// A token is its amount and a number.
pub struct PaperTill;

#[async_trait]
impl Till for PaperTill {
    fn decode(&self, token: &Secret) -> Result<TokenFacts, Refusal> {
        let read = || {
            let (sat, number) = token.expose().split_once('-')?;
            Some((sat.parse().ok()?, number))
        };
        let (sat, number) = read().ok_or_else(|| Refusal::new(ErrorType::InvalidToken, "not of paper"))?;
        Ok(TokenFacts { mint: MintUrl("https://paper.invalid".to_owned()), gross: Sat(sat), ys: vec![ProofY(format!("{number:0>66}"))] })
    }
    async fn appraise(&self, _: &Secret, facts: &TokenFacts) -> Result<Payment, Refusal> {
        Ok(Payment { mint: facts.mint.0.clone(), gross: facts.gross, fee: Sat(0), net: facts.gross })
    }
    async fn vouch(&self, token: &Secret, facts: &TokenFacts) -> Result<Payment, Refusal> {
        self.appraise(token, facts).await
    }
    async fn redeem(&self, _: &OrderId, _: &Secret, facts: &TokenFacts) -> Result<Sat, NotRedeemed> {
        Ok(facts.gross)
    }
    async fn settle(&self, _: &OrderId, facts: &TokenFacts) -> Settlement {
        Settlement::Received(facts.gross)
    }
    async fn refund(&self, order: &OrderId, _: &MintUrl, amount: Sat) -> Result<RefundToken, String> {
        Ok(RefundToken { token: Secret::new(format!("{}-{order}", amount.0)), amount, fee: Sat(0) })
    }
    async fn refund_state(&self, _: &OrderId, _: &MintUrl) -> Result<RefundState, String> {
        Ok(RefundState::Waiting)
    }
    async fn take_back(&self, _: &OrderId, _: &MintUrl) -> Result<Option<Sat>, String> {
        Ok(None)
    }
    async fn recover(&self) -> Result<(), String> {
        Ok(())
    }
    fn mints(&self) -> Vec<MintUrl> {
        Vec::new()
    }
    fn lock(&self) -> Option<String> {
        None
    }
    fn ask(&self, _: &PaymentAsked) -> String {
        String::new()
    }
    fn token_of(&self, payload: &str) -> Result<Secret, Refusal> {
        Ok(Secret::new(payload.to_owned()))
    }
    async fn report(&self) -> Result<Vec<MintReport>, String> {
        Ok(Vec::new())
    }
}

/// A cluster that agrees to everything.
pub struct PaperCluster;

#[async_trait]
impl Cluster for PaperCluster {
    async fn rehearse(&self, _: &LeasePlan) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn launch(&self, _: &LeasePlan) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn ready(&self, _: &PodName) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn launching(&self, _: &PodName) -> Result<Launch, ClusterError> {
        Ok(Launch::Starting)
    }
    async fn rehearse_expiry(&self, _: &PodName, _: UnixTime) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn set_expiry(&self, _: &PodName, _: UnixTime) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn remove(&self, _: &PodName) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn observe(&self, _: mpsc::Sender<Observation>) {
        std::future::pending().await
    }
    async fn check(&self) -> Result<(), ClusterError> {
        Ok(())
    }
    async fn aged(&self) -> Result<Vec<PodName>, ClusterError> {
        Ok(Vec::new())
    }
}

struct Nowhere;

#[async_trait]
impl Courier for Nowhere {
    async fn deliver(&self, _: &ReplyTo, _: &Value) -> Result<(), String> {
        Ok(())
    }
}

/// A desk in rooms of paper, with a real ledger.
pub struct Paper {
    pub desk: Arc<Desk>,
    pub book: Arc<Book>,
    tokens: AtomicU64,
}

impl Paper {
    pub fn new(directory: &Path, policy: Arc<dyn Policy>) -> Self {
        let book = Arc::new(Book::sqlite(&directory.join("paper.sqlite")).unwrap());
        let settings = Settings {
            suggested: Seconds(3_600),
            ssh_host: "127.0.0.1".to_owned(),
            container_port: 2_222,
            ports: 1_024..=65_000,
            sweep: false,
            refund_on_stop: Some(RefundTerms { step: Seconds(60), percent: 100 }),
            refund_kept: Seconds(86_400),
        };
        let rooms =
            Rooms { till: Arc::new(PaperTill), policy, cluster: Arc::new(PaperCluster), ledger: book.clone(), courier: Arc::new(Nowhere) };
        Self { desk: Desk::new(settings, rooms), book, tokens: AtomicU64::new(0) }
    }

    /// What is answered to an order over so many sat.
    pub async fn order(&self, sat: u64, purchase: Purchase) -> Value {
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        let incoming = Incoming {
            message: format!("{number:064x}"),
            reply_to: ReplyTo { customer: Customer(format!("{:064x}", number % 1_000)), ..ReplyTo::default() },
            token: Secret::new(format!("{sat}-{number:x}")),
            purchase,
            password: Some(Secret::new("a password of paper".to_owned())),
        };
        match self.desk.submit(incoming).await.map(Ticket::answer) {
            Ok(answer) => answer.await.expect("an answer"),
            Err(refusal) => panic!("the order was not taken: {refusal:?}"),
        }
    }
}

/// A new pod.
pub fn spawn(tier: Option<&str>, image: Option<&str>) -> Purchase {
    Purchase::Spawn {
        image: image.map(str::to_owned),
        tier: tier.map(str::to_owned),
        username: "alice".to_owned(),
        public_key: None,
        wanted: None,
    }
}
