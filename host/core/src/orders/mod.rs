//! The order service: takes an order from receipt to its end.
//!
//! An order is a state machine. `OrderService::step` moves it to the next state; every transition
//! is in the ledger before the effect that the new state announces. A process that dies leaves the
//! order in some state, and [`OrderService::resume`] continues from there with the same steps.
//!
//! ```text
//! submit ─▶ worker ─▶ decide ─▶ settle ─▶ provision ─▶ delivery
//!                       │         │          │
//!                    refused   refused    refunds       terminate, reconcile: the end of a lease
//! ```
//!
//! - `access`: how customers reach pods, and how many pods that allows.
//! - `submit`: new orders, repeated orders, and who waits for their response.
//! - `admission`: who is worked next, in turn. `waiting_memory`: what they hold until then.
//!   `unknown`: what payments may hold whose answer was lost.
//!   `mint_permit`: their turn, and what others learn from it (`sold_out`). `double_spends`: who has
//!   reserved for nothing.
//! - `worker`: the task of one order: steps and retries. `delivery`: sending its response.
//! - `decide`: verify, decide, dry run. Takes nothing; what fails here is refused. `capacity`: what
//!   the cluster has left (`free_capacity`), and who has reserved it. `probe`: whether pods start at
//!   all; `probe_state`: what follows from it.
//!   `image_starts`: whether the images that customers name do.
//! - `settle`: receive the payment. `unpaid_launch`: the pod that is launched before.
//!   `unpaid_failures`: who had one for nothing. `provision`: launch or extend. `refunds`: give
//!   money back.
//! - `terminate`: the end of a lease and what is due then. `notices`: before it, for those who want
//!   them. `reconcile`: what the cluster reports. `replacements`: pods that run in place of others.
//!   `host_key_proofs`: what it could not report yet.
//! - `sales`: whether anything is sold, and the end of a lease, by the operator.
//! - `queries`, `pricing`, `operator`, `lease_search`: what transports ask besides orders. Nothing
//!   there changes state. `pod_cache`: what is known of a pod for a moment. `gateway`: the ways to pods
//!   beside their ports. `apps`: their HTTP ports. `login_times`: how long orders took, for the
//!   operator. `receipts`: what answers carry, signed.

mod access;
mod admission;
mod apps;
mod capacity;
mod decide;
mod delivery;
mod double_spends;
mod extension;
mod free_capacity;
mod gateway;
mod host_key_proofs;
mod image_list;
mod image_starts;
mod in_flight;
mod lane;
mod lease_search;
mod limiter;
mod login_times;
mod mint_permit;
mod notices;
mod operator;
mod pod_cache;
mod pricing;
mod probe;
mod probe_state;
mod provision;
mod queries;
mod receipts;
mod reconcile;
mod refunds;
mod replaced_pods;
mod replacements;
mod sales;
mod set_identity;
mod settle;
mod sold_out;
mod submit;
mod terminate;
mod unknown;
mod unpaid_deliveries;
mod unpaid_failures;
mod unpaid_launch;
mod waiting_memory;
mod worker;

pub use crate::model::order_state::RefundFees;
pub use access::PodAccess;
pub use lease_search::{FoundLeases, LeaseQuery};
pub use login_times::{LOGIN_BUCKETS, LoginTimes};
pub use operator::{History, Overview};
pub use pricing::PriceEstimate;
pub use probe::ProbeFindings;
pub use queries::{OrderStatus, Progress, RunningLogin, Stage, order_named, pod_named};
pub use sales::EndedLease;
pub use submit::{NewOrder, Submission};
pub use unpaid_launch::Capture;

use crate::backend::apps::AppLinks;
use crate::backend::capacity::Tier;
use crate::backend::cluster::Cluster;
use crate::backend::gateway::GatewayInfo;
use crate::backend::policy::{Policy, RefundTerms};
use crate::backend::receipt::ReceiptSigner;
use crate::backend::responder::Responder;
use crate::backend::store::{Ledger, LedgerError};
use crate::backend::wallet::Wallet;
use crate::coalesced::Coalesced;
use crate::every_nth::EveryNth;
use crate::keyed_limit::KeyedLimit;
use crate::limits;
use crate::model::ids::{Customer, MintUrl, OrderId};
use crate::model::order::State;
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::run::ProgramState;
use crate::model::sales::Sales;
use crate::model::units::{Seconds, UnixTime};
use admission::{Admission, Source};
use double_spends::DoubleSpends;
use free_capacity::FreeCapacity;
use image_list::ImageList;
use image_starts::ImageStarts;
use in_flight::InFlight;
use lane::Lane;
use limiter::MintLimiter;
use pod_cache::PodCache;
use probe_state::Probed;
use replaced_pods::ReplacedPods;
use sold_out::SoldOut;
use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::{Semaphore, watch};
use unknown::UnknownPayments;
use unpaid_deliveries::UnpaidDeliveries;
use unpaid_failures::UnpaidFailures;

/// What the operator configures.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name or address that customers log in to.
    pub ssh_host: String,
    /// The port that the SSH server inside a pod listens on.
    pub container_port: u16,
    /// How customers reach pods.
    pub access: PodAccess,
    /// Whether to remove pods that the ledger does not know.
    pub sweep: bool,
    /// The refund terms of a customer's stop where the policy has none. `None`: a stop is never
    /// refunded, whatever the policy says.
    pub refund_on_stop: Option<RefundTerms>,
    /// Who bears the mint's fees of what fails through a fault of ours.
    pub refund_fees: RefundFees,
    /// How long a refund waits to be redeemed before it is reclaimed.
    pub refund_kept: Seconds,
    /// When the payment for a new pod is taken.
    pub capture: Capture,
    /// The duration that is quoted when a customer names none.
    pub suggested: Seconds,
    /// How long before the end of a pod there are notices.
    pub end_notices: Vec<Seconds>,
}

/// What the order service works with.
pub struct Backends {
    pub wallet: Arc<dyn Wallet>,
    pub policy: Arc<dyn Policy>,
    pub cluster: Cluster,
    pub ledger: Arc<dyn Ledger>,
    pub responder: Arc<dyn Responder>,
}

/// Why a step did not move the order.
#[derive(Debug)]
enum StepError {
    /// Try the same step again after a pause.
    Retry(Box<dyn Error + Send + Sync>),
    /// Somebody else works this order.
    Conflict,
}

impl From<LedgerError> for StepError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Conflict { .. } => Self::Conflict,
            error => Self::Retry(error.into()),
        }
    }
}

/// The order service. Every order runs in a task of its own.
pub struct OrderService {
    settings: Settings,
    backends: Backends,
    /// Orders that are not paid for yet.
    admission: Arc<Admission>,
    /// Those of each mint that have reserved what they need, and handed their slots over…
    reserved: KeyedLimit<MintUrl>,
    /// …and of these, those that go on.
    reserved_slots: MintLimiter,
    double_spends: DoubleSpends,
    sold_out: SoldOut,
    stored_sales: Coalesced<Result<Sales, Refusal>>,
    free_capacity: Coalesced<Result<Option<Arc<FreeCapacity>>, Refusal>>,
    /// Payments whose answer was lost.
    unknown: Arc<UnknownPayments>,
    /// Tokens that are verified at a mint without being redeemed.
    verify_slots: MintLimiter,
    /// Refunds to which the operator adds: when one is made, the next finds out what is left. Those
    /// of other replicas are not waited for; the wallet itself spares nothing twice.
    adding: MintLimiter,
    /// Refunds of leases that have ended: one that was extended often has many.
    ended_refunds: MintLimiter,
    delivering: UnpaidDeliveries,
    /// Pods that run before they are paid for, and whose they are.
    unpaid_launches: Semaphore,
    unpaid_customers: KeyedLimit<Option<Customer>>,
    unpaid_failures: UnpaidFailures,
    /// When refused orders are forgotten, by how many there are.
    refusals: EveryNth,
    /// The default tier, by the latest offers: capacity is counted in pods of it.
    default_tier: Mutex<Option<Tier>>,
    image_list: ImageList,
    image_starts: Arc<ImageStarts>,
    program_states: PodCache<Option<ProgramState>>,
    host_key_proofs: PodCache<()>,
    replaced: ReplacedPods,
    login_times: Mutex<LoginTimes>,
    /// Whether pods start.
    probe: watch::Sender<Probed>,
    probe_waits: Arc<Semaphore>,
    /// When the next notice is due at the earliest.
    next_notice: watch::Sender<Option<UnixTime>>,
    notice_slots: Semaphore,
    gateway: OnceLock<Arc<dyn GatewayInfo>>,
    apps: OnceLock<Arc<dyn AppLinks>>,
    receipts: OnceLock<Arc<dyn ReceiptSigner>>,
    lease_ends: watch::Sender<()>,
    in_flight: Mutex<HashMap<OrderId, InFlight>>,
}

impl OrderService {
    /// A service with these backends. Call [`OrderService::resume`] before a transport is served.
    #[must_use]
    pub fn new(settings: Settings, backends: Backends) -> Arc<Self> {
        let probe = watch::Sender::new(Probed::new(backends.cluster.features.probe()));
        Arc::new(Self {
            settings,
            backends,
            admission: Arc::default(),
            reserved: KeyedLimit::default(),
            reserved_slots: MintLimiter::of(limits::ORDERS_AT_ONCE),
            double_spends: DoubleSpends::default(),
            sold_out: SoldOut::default(),
            stored_sales: Coalesced::default(),
            free_capacity: Coalesced::default(),
            unknown: Arc::default(),
            verify_slots: MintLimiter::of(limits::VERIFICATIONS_AT_ONCE),
            adding: MintLimiter::of(1),
            ended_refunds: MintLimiter::of(limits::ENDED_REFUNDS),
            delivering: UnpaidDeliveries::default(),
            unpaid_launches: Semaphore::new(limits::UNPAID_LAUNCHES),
            unpaid_customers: KeyedLimit::default(),
            unpaid_failures: UnpaidFailures::default(),
            refusals: EveryNth::new(limits::REFUSED_CHECK_EVERY),
            default_tier: Mutex::default(),
            image_list: ImageList::default(),
            image_starts: Arc::default(),
            program_states: PodCache::default(),
            host_key_proofs: PodCache::default(),
            replaced: ReplacedPods::default(),
            login_times: Mutex::default(),
            probe,
            probe_waits: Arc::new(Semaphore::new(limits::PROBE_WAITS)),
            next_notice: watch::Sender::new(None),
            notice_slots: Semaphore::new(limits::NOTICES_AT_ONCE),
            gateway: OnceLock::new(),
            apps: OnceLock::new(),
            receipts: OnceLock::new(),
            lease_ends: watch::Sender::new(()),
            in_flight: Mutex::default(),
        })
    }

    /// Notifies when other policies are published.
    #[must_use]
    pub fn policy_changes(&self) -> watch::Receiver<()> {
        self.backends.policy.changes()
    }

    /// Finishes what an earlier process began: first the wallets, then the orders.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn resume(self: &Arc<Self>) -> Result<(), LedgerError> {
        if let Err(error) = self.backends.wallet.recover().await {
            tracing::warn!(%error, "a wallet could not be recovered yet; its orders wait");
        }
        self.resume_unfinished().await
    }

    /// Takes over unfinished orders that no living process works on.
    async fn resume_unfinished(self: &Arc<Self>) -> Result<(), LedgerError> {
        match self.backends.ledger.release_unused_ports().await {
            Ok(0) => {}
            Ok(released) => tracing::warn!(released, "ports without a lease were released"),
            Err(error) => tracing::warn!(%error, "ports without a lease could not be released"),
        }
        for order in self.backends.ledger.unfinished().await? {
            if order.state() == State::Refused && self.delivering.is_full() {
                // Only its response is left to be sent, and too many wait already.
                continue;
            }
            let Some(guard) = self.claim(&order.id) else { continue };
            tracing::info!(order = %order.id, state = order.state().as_str(), "resuming an order");
            let source = Source::Customer(order.limited_customer());
            let lane = match order.state() {
                State::Received | State::Decided => Lane::Unproven,
                _ => Lane::Proven,
            };
            let place = self.admission.resume(source, &order.token_info.mint, lane);
            self.spawn(order, guard, place);
        }
        Ok(())
    }
}

fn internal(error: &LedgerError) -> Refusal {
    tracing::error!(%error, "the ledger failed");
    Refusal::new(
        ErrorType::InternalError,
        "the service cannot store orders right now; your token was not taken, try again later",
    )
}

/// For a query: it does not say whether anything was taken.
fn unreadable(error: &LedgerError) -> Refusal {
    tracing::error!(%error, "the ledger failed");
    unread()
}

/// What was to be read is not known.
fn unread() -> Refusal {
    Refusal::new(
        ErrorType::InternalError,
        "the service cannot read its orders right now; try again later",
    )
}
