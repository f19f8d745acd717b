//! The desk: takes an order from the first word to the last.
//!
//! An order is a state machine. `OrderService::step` moves it one state on; every move is in the
//! ledger before the effect that the new state announces. A process that dies leaves the order in
//! some state, and [`OrderService::resume`] goes on from there with the very same steps.
//!
//! - `decide.rs`: appraise, decide, rehearse. Takes nothing; what fails here is refused.
//! - `fulfil.rs`: redeem, launch, extend, refund. From here on every failure gives the money back.
//! - `end.rs`: what is due when a lease ends, by whomever; refunds that nobody redeems.
//! - `watch.rs`: what the cluster tells, and what it forgot to tell.
//! - `inquire.rs`: what doors ask besides orders.

mod decide;
mod provision;
mod queries;
mod reconcile;
mod terminate;

pub use queries::{OrderStatus, Overview, PriceEstimate, Progress, Stage};

use crate::Cluster;
use crate::backend::policy::{Context, Offer, Policy, PolicyError, PolicySet, RefundTerms};
use crate::backend::responder::{ReplyTo, Responder, Transport};
use crate::backend::store::{LeaseUpdate, Ledger, LedgerError, OpenOutcome};
use crate::backend::wallet::Wallet;
use crate::limits;
use crate::model::order::{Lease, Order, OrderSecrets, Purchase, State};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::secret::Secret;
use crate::model::units::{Customer, LeaseId, MintUrl, OrderId, PodName, Seconds, UnixTime};
use crate::protocol::{self, Response, StatusResponse};
use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch as channel};
use tracing::Instrument;

/// What the operator decides about the desk.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name or address that customers log in to.
    pub ssh_host: String,
    /// The port that the SSH server inside a pod listens on.
    pub container_port: u16,
    /// The node ports that pods may have.
    pub ports: RangeInclusive<u16>,
    /// Whether to remove pods that the ledger does not know.
    pub sweep: bool,
    /// The terms on which who stops a pod is paid back where the policy has none of its own; none:
    /// nobody is, whatever the policy says.
    pub refund_on_stop: Option<RefundTerms>,
    /// How long a refund waits to be redeemed before it is taken back.
    pub refund_kept: Seconds,
    /// The time that is suggested to who does not say how much he wants.
    pub suggested: Seconds,
}

/// The rooms that the desk works with.
pub struct Backends {
    /// The money.
    pub wallet: Arc<dyn Wallet>,
    /// The decisions.
    pub policy: Arc<dyn Policy>,
    /// The pods.
    pub cluster: Arc<dyn Cluster>,
    /// The book.
    pub ledger: Arc<dyn Ledger>,
    /// The way back to customers.
    pub responder: Arc<dyn Responder>,
}

/// An order as a door hands it in.
#[derive(Clone, Debug)]
pub struct NewOrder {
    /// The id of the message that brought it: the same message is the same order.
    pub message: String,
    /// Where the answer goes.
    pub reply_to: ReplyTo,
    /// The token that pays.
    pub token: Secret,
    /// What is bought.
    pub purchase: Purchase,
    /// The password of a new pod.
    pub password: Option<Secret>,
}

/// What a door gets for an order that was taken.
#[derive(Debug)]
pub enum Submission {
    /// It is being worked; the courier brings the answer, and whoever waits here sees it too.
    InProgress(OrderId, channel::Receiver<Option<Response>>),
    /// It is being worked for an earlier message: the courier answers that one, and whoever waits
    /// here sees the answer.
    Joined(OrderId, channel::Receiver<Option<Response>>),
    /// It is being worked by another process, which answers.
    OnOtherReplica(OrderId),
    /// It was answered before: this is the answer again.
    Completed(OrderId, Response),
}

impl Submission {
    /// The order.
    #[must_use]
    pub fn order(&self) -> &OrderId {
        match self {
            Self::InProgress(order, _)
            | Self::Joined(order, _)
            | Self::OnOtherReplica(order)
            | Self::Completed(order, _) => order,
        }
    }

    /// Waits for the answer. `None` if this process stops working on the order: a later one brings
    /// the answer.
    pub async fn answer(self) -> Option<Response> {
        match self {
            Self::Completed(_, answer) => Some(answer),
            Self::OnOtherReplica(_) => None,
            Self::InProgress(_, mut receiver) | Self::Joined(_, mut receiver) => {
                receiver.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone())
            }
        }
    }
}

/// An order's place among those that are worked here; free when this is dropped.
struct InFlightGuard {
    orders: Arc<OrderService>,
    id: OrderId,
    sender: channel::Sender<Option<Response>>,
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.orders.in_flight.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// What is in the shop window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// What is for sale, the default tier first.
    pub offers: Vec<Offer>,
    /// The mints whose tokens are accepted.
    pub mints: Vec<MintUrl>,
    /// The public key that tokens may be locked to.
    pub lock: Option<String>,
}

/// Turns at the mints: few at once at each, so that one that hangs holds up its own only.
struct MintLimiter {
    // One for each accepted mint.
    all: Mutex<HashMap<MintUrl, Arc<Semaphore>>>,
    each: usize,
}

impl MintLimiter {
    fn of(each: usize) -> Self {
        Self { all: Mutex::default(), each }
    }

    async fn acquire(&self, mint: &MintUrl) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(
                all.entry(mint.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.each))),
            )
        };
        turns.acquire_owned().await.ok()
    }
}

/// Why a step did not move the order.
#[derive(Debug)]
enum StepError {
    /// Try the same step again after a pause.
    Retry(String),
    /// Somebody else works this order.
    Conflict,
}

impl From<LedgerError> for StepError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Conflict { .. } => Self::Conflict,
            error => Self::Retry(error.to_string()),
        }
    }
}

/// The desk. Cheap to share; every order runs in a task of its own.
pub struct OrderService {
    settings: Settings,
    backends: Backends,
    at_once: MintLimiter,
    verify_slots: MintLimiter,
    waiting: Arc<Semaphore>,
    delivering: Semaphore,
    in_flight: Mutex<HashMap<OrderId, channel::Receiver<Option<Response>>>>,
}

impl OrderService {
    /// A desk with these rooms. Call [`OrderService::resume`] before the doors open.
    #[must_use]
    pub fn new(settings: Settings, backends: Backends) -> Arc<Self> {
        Arc::new(Self {
            settings,
            backends,
            at_once: MintLimiter::of(limits::ORDERS_AT_ONCE),
            verify_slots: MintLimiter::of(limits::VOUCHING),
            waiting: Arc::new(Semaphore::new(limits::ORDERS_WAITING)),
            delivering: Semaphore::new(limits::DELIVERIES_AT_ONCE),
            in_flight: Mutex::default(),
        })
    }

    /// Takes an order: once this returns a ticket the order is in the ledger and will be answered,
    /// come what may.
    ///
    /// # Errors
    /// The refusal to send to the customer when nothing was written: the token cannot be read, pays
    /// for another order, or the desk is full.
    pub async fn submit(self: &Arc<Self>, incoming: NewOrder) -> Result<Submission, Refusal> {
        let token_info = self.backends.wallet.decode(&incoming.token).await?;
        let place = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| {
            Refusal::new(
                ErrorType::ResourceUnavailable,
                "too many orders are waiting; this one was not looked at, try again in a minute",
            )
        })?;
        let mut order = Order {
            message: incoming.message,
            reply_to: incoming.reply_to,
            token_info,
            secrets: OrderSecrets {
                token: Some(incoming.token),
                password: incoming.password,
                refund_token: None,
            },
            ..Order::blank(incoming.purchase)
        };
        if let Purchase::Spawn { .. } = &order.purchase {
            order.lease = Some(LeaseId::of(&order.id));
        }
        let entry = self
            .claim(&order.id)
            .ok_or_else(|| Refusal::new(ErrorType::InternalError, "try again"))?;
        match self.backends.ledger.open(&order).await.map_err(|error| internal(&error))? {
            OpenOutcome::Created => Ok(self.spawn(order, entry, Some(place))),
            // The words of a message are its id; a request's id is whatever its sender chose.
            OpenOutcome::Duplicate(known)
                if known.reply_to.door == Transport::Nostr || same_purchase(&order, &known) =>
            {
                self.replay(*known).await
            }
            OpenOutcome::Duplicate(_) => Err(Refusal::new(
                ErrorType::InvalidRequest,
                "this request's id was used for another request; choose a new one",
            )),
            OpenOutcome::ProofConflict(other) if same_purchase(&order, &other) => {
                self.replay(*other).await
            }
            OpenOutcome::ProofConflict(other) if other.state.is_final() => Err(Refusal::new(
                ErrorType::TokenAlreadySpent,
                "this token has paid for another order; send a fresh one",
            )),
            OpenOutcome::ProofConflict(_) => Err(Refusal::new(
                ErrorType::TokenPending,
                "this token is paying for another order right now",
            )),
        }
    }

    /// How a pod is, for the customer who bought it: also the refunds that wait for him.
    ///
    /// # Errors
    /// `not_found`, `not_owner`, `internal_error`.
    pub async fn status(
        &self,
        pod: &PodName,
        customer: &Customer,
    ) -> Result<StatusResponse, Refusal> {
        let lease = self.own_lease(pod, customer).await?;
        let orders =
            self.backends.ledger.orders_of(&lease.id).await.map_err(|error| unreadable(&error))?;
        let refunds: Vec<&Order> =
            orders.iter().filter(|order| order.customer() == customer).collect();
        Ok(protocol::status(&lease, &refunds, &self.settings.ssh_host, UnixTime::now()))
    }

    /// The lease of that pod, for the customer who bought it.
    async fn own_lease(&self, pod: &PodName, customer: &Customer) -> Result<Lease, Refusal> {
        let lease = self.find_lease(pod).await?;
        match !customer.0.is_empty() && lease.customer == *customer {
            true => Ok(lease),
            false => Err(queries::not_owner()),
        }
    }

    /// Tells when other policies are published.
    #[must_use]
    pub fn policy_changes(&self) -> channel::Receiver<()> {
        self.backends.policy.changes()
    }

    /// What is for sale now, and how it is paid for.
    ///
    /// # Errors
    /// [`PolicyError`] when the pricing policy fails.
    pub async fn offers(&self) -> Result<Catalog, PolicyError> {
        let context = self.context(&Customer::default()).await?;
        let offers = self.backends.policy.current().offers(&context).await?;
        Ok(Catalog {
            offers,
            mints: self.backends.wallet.mints(),
            lock: self.backends.wallet.p2pk_pubkey(),
        })
    }

    /// Finishes what an earlier process began: first the wallets, then the orders.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn resume(self: &Arc<Self>) -> Result<(), LedgerError> {
        if let Err(why) = self.backends.wallet.recover().await {
            tracing::warn!(%why, "a wallet could not be recovered yet; its orders wait");
        }
        self.resume_unfinished().await
    }

    /// Takes up the orders that are unfinished and worked by no living process.
    async fn resume_unfinished(self: &Arc<Self>) -> Result<(), LedgerError> {
        for mut order in self.backends.ledger.unfinished().await? {
            let Some(entry) = self.claim(&order.id) else { continue };
            tracing::info!(order = %order.id, state = order.state.as_str(), "resuming an order");
            if order.state == State::Decided {
                // Nothing was taken, and the world has moved on: decide again.
                order.state = State::Received;
                match self
                    .backends
                    .ledger
                    .transition(&order, State::Decided, LeaseUpdate::Keep)
                    .await
                {
                    // It was finished between the reading and now.
                    Err(LedgerError::Conflict { .. }) => continue,
                    moved => moved?,
                }
            }
            self.spawn(order, entry, None);
        }
        Ok(())
    }

    /// The order again, for a customer who sent it again.
    async fn replay(self: &Arc<Self>, order: Order) -> Result<Submission, Refusal> {
        let in_flight =
            self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).get(&order.id).cloned();
        match in_flight {
            Some(receiver) => Ok(Submission::Joined(order.id, receiver)),
            None if order.state.is_final() => {
                Ok(Submission::Completed(order.id.clone(), self.answer(&order).await))
            }
            None => Ok(Submission::OnOtherReplica(order.id)),
        }
    }

    /// Says that this task works the order, before anybody can find it; `None` when another one
    /// does.
    fn claim(self: &Arc<Self>, id: &OrderId) -> Option<InFlightGuard> {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        if in_flight.contains_key(id) {
            return None;
        }
        let (sender, receiver) = channel::channel(None);
        in_flight.insert(id.clone(), receiver);
        Some(InFlightGuard { orders: Arc::clone(self), id: id.clone(), sender })
    }

    /// Works an order in a task of its own.
    fn spawn(
        self: &Arc<Self>,
        order: Order,
        entry: InFlightGuard,
        place: Option<OwnedSemaphorePermit>,
    ) -> Submission {
        let (id, receiver) = (order.id.clone(), entry.sender.subscribe());
        let orders = Arc::clone(self);
        let span = tracing::info_span!("order", id = %id);
        tokio::spawn(
            async move {
                if let Some(order) = orders.drive(order, place).await {
                    let answer = orders.answer(&order).await;
                    entry.sender.send_replace(Some(answer.clone()));
                    if !order.delivered {
                        orders.send(&order, &answer).await;
                    }
                }
                drop(entry);
            }
            .instrument(span),
        );
        Submission::InProgress(id, receiver)
    }

    /// Steps until the order is settled; `None` when somebody else has it.
    async fn drive(
        &self,
        mut order: Order,
        mut place: Option<OwnedSemaphorePermit>,
    ) -> Option<Order> {
        let mut pause = Pause::new();
        // Taken once and kept to the end: no order is decided by two sets.
        let set = self.backends.policy.current();
        let mut acquire = None;
        while !order.state.is_final() {
            acquire = match acquire.take() {
                None if order.state.is_awaiting_payment() => {
                    self.at_once.acquire(&order.token_info.mint).await
                }
                acquire => acquire.filter(|_| order.state.is_awaiting_payment()),
            };
            if order.state == State::PaymentUnknown {
                // It may wait for days.
                place = None;
            }
            let state = order.state;
            let span = tracing::info_span!("step", state = state.as_str());
            match self.step(&mut order, &*set).instrument(span).await {
                Ok(()) => pause = Pause::new(),
                Err(StepError::Conflict) => {
                    tracing::info!("another process works this order");
                    return None;
                }
                Err(StepError::Retry(why)) => {
                    tracing::warn!(
                        why,
                        state = state.as_str(),
                        "a step failed and will be tried again"
                    );
                    // Whoever waits does not keep the others waiting.
                    acquire = None;
                    pause.wait().await;
                    order = self.read_again(&order, &mut pause).await?;
                }
            }
        }
        drop(place);
        tracing::info!(
            state = order.state.as_str(),
            refusal = order.refusal.as_ref().map(|r| r.code.as_str()),
            "settled"
        );
        Some(order)
    }

    /// The order as the ledger holds it: what memory holds may never have been written.
    async fn read_again(&self, order: &Order, pause: &mut Pause) -> Option<Order> {
        loop {
            match self.backends.ledger.order(&order.id).await {
                Ok(stored) => return stored,
                Err(error) => {
                    tracing::warn!(%error, "the order cannot be read; the ledger is tried again")
                }
            }
            pause.wait().await;
        }
    }

    /// Moves the order one state on.
    async fn step(&self, order: &mut Order, set: &dyn PolicySet) -> Result<(), StepError> {
        match order.state {
            State::Received => self.decide(order, set).await,
            State::Decided => self.receive(order).await,
            State::Redeeming | State::PaymentUnknown => self.resolve(order).await,
            State::Paid => self.start_provisioning(order).await,
            State::Provisioning => self.provision(order, set).await,
            State::RefundPending => self.refund(order).await,
            State::Active | State::Ended | State::Refused | State::Refunded => Ok(()),
        }
    }

    /// Writes the move from `from` to the order's state.
    async fn transition(
        &self,
        order: &Order,
        from: State,
        lease: LeaseUpdate<'_>,
    ) -> Result<(), StepError> {
        tracing::debug!(from = from.as_str(), to = order.state.as_str(), "advance");
        Ok(self.backends.ledger.transition(order, from, lease).await?)
    }

    /// What is said of a settled order.
    async fn answer(&self, order: &Order) -> Response {
        if let Some(refusal) = &order.refusal {
            return protocol::refused(order, refusal);
        }
        let pod = order.pod();
        let lease = match self.find_lease(&pod).await {
            Ok(lease) => lease,
            Err(refusal) => return Response::from(&refusal),
        };
        if order.state == State::Refunded {
            return protocol::stopped(&pod, &[order]).into();
        }
        if order.state == State::Ended {
            let ended = order.expires_at.unwrap_or_default().rfc3339();
            return Response::from(&Refusal::new(
                ErrorType::LeaseExpired,
                format!("{pod} has ended; it was paid until {ended}"),
            ));
        }
        let grant = order.decision.as_ref().map(|decision| &decision.grant);
        let note = grant.and_then(|grant| grant.note.as_deref());
        match &order.purchase {
            Purchase::Spawn { .. } => {
                protocol::access(order, &lease, &self.settings.ssh_host, note).into()
            }
            Purchase::TopUp { pod } => protocol::topped_up(
                pod,
                grant.map_or(Seconds(0), |grant| grant.seconds),
                order.expires_at.unwrap_or_default(),
                note,
            ),
        }
    }

    /// Brings the answer. What nobody takes is tried again at the next look around.
    async fn send(&self, order: &Order, answer: &Response) {
        let Ok(_place) = self.delivering.acquire().await else { return };
        let (mut pause, mut attempts) = (Pause::new(), 0..limits::DELIVERY_ATTEMPTS);
        while let Err(why) = self.backends.responder.send(&order.reply_to, answer).await {
            tracing::warn!(why, "the answer could not be delivered and will be tried again");
            let since = order.refunded_at.unwrap_or(order.created_at);
            if UnixTime::now().since(since) > limits::DELIVERY_PATIENCE {
                tracing::error!("nobody takes the answer; it is not brought any more");
                break;
            }
            if attempts.next().is_none() {
                return;
            }
            pause.wait().await;
        }
        match self.backends.ledger.delivered(&order.id, order.state).await {
            Ok(()) => tracing::info!("answered"),
            Err(error) => {
                tracing::warn!(%error, "the delivery could not be noted; it is made again")
            }
        }
    }

    async fn find_lease(&self, pod: &PodName) -> Result<Lease, Refusal> {
        self.backends
            .ledger
            .lease(pod)
            .await
            .map_err(|error| unreadable(&error))?
            .ok_or_else(queries::no_such_pod)
    }

    /// How many pods can be leased at the same time.
    fn capacity(&self) -> u32 {
        let range = &self.settings.ports;
        u32::from(range.end().saturating_sub(*range.start())).saturating_add(1)
    }

    async fn context(&self, customer: &Customer) -> Result<Context, Refusal> {
        let now = UnixTime::now();
        let failed = |error: LedgerError| internal(&error);
        let leases = match customer.0.is_empty() {
            true => Vec::new(),
            false => self.backends.ledger.live_leases(Some(customer)).await.map_err(failed)?,
        };
        Ok(Context {
            now,
            capacity_leases: self.capacity(),
            active_leases: self.backends.ledger.ports_in_use().await.map_err(failed)?,
            customer_leases: leases
                .iter()
                .take(limits::CUSTOMER_LEASES_SHOWN)
                .map(|lease| lease.view(customer, now))
                .collect(),
        })
    }
}

/// The same customer buying the same thing: a message that was sent twice, or sent again after
/// silence.
fn same_purchase(a: &Order, b: &Order) -> bool {
    // A token may name its proofs in any order.
    let proofs = |order: &Order| order.token_info.ys.iter().cloned().collect::<BTreeSet<_>>();
    !a.customer().0.is_empty()
        && a.customer() == b.customer()
        && a.purchase == b.purchase
        && proofs(a) == proofs(b)
}

fn internal(error: &LedgerError) -> Refusal {
    tracing::error!(%error, "the ledger failed");
    Refusal::new(
        ErrorType::InternalError,
        "the service cannot keep its books right now; your token was not taken, try again later",
    )
}

/// For who only asks: whether anything was taken is another question.
fn unreadable(error: &LedgerError) -> Refusal {
    tracing::error!(%error, "the ledger failed");
    Refusal::new(
        ErrorType::InternalError,
        "the service cannot read its books right now; ask again later",
    )
}

/// A pause that doubles.
struct Pause(Duration);

impl Pause {
    fn new() -> Self {
        Self(limits::RETRY_FIRST)
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = self.0.saturating_mul(2).min(limits::RETRY_LONGEST);
    }
}
