//! New orders, and the same order sent again.

use super::admission::{Place, Source};
use super::in_flight::InFlight;
use super::lane::Lane;
use super::login_times::StartTime;
use super::waiting_memory::held_bytes;
use super::{OrderService, internal};
use crate::backend::store::{LedgerError, OpenOutcome, Repetition};
use crate::model::ids::{MessageId, OrderId};
use crate::model::order::{Order, OrderState, Purchase};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::reply_to::ReplyTo;
use crate::model::secret::Secret;
use crate::model::token::TokenInfo;
use crate::model::units::UnixTime;
use crate::protocol::Response;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// An order as a transport submits it.
#[derive(Clone, Debug)]
pub struct NewOrder {
    pub repetition: Repetition,
    /// The id of the message that brought it: the same message is the same order.
    pub message: MessageId,
    /// Where the answer goes.
    pub reply_to: ReplyTo,
    /// The network that it came from; none: the customer stands for it. Orders of one source wait
    /// for each other rather than for those of others.
    pub network: Option<IpAddr>,
    /// The token that pays.
    pub token: Secret,
    /// What is bought.
    pub purchase: Purchase,
    /// The password of a new pod.
    pub password: Option<Secret>,
}

/// What a transport gets for an order that was accepted.
#[derive(Debug)]
pub enum Submission {
    /// In progress: the responder sends the response, and the receiver gets it too.
    InProgress(OrderId, watch::Receiver<Option<Response>>),
    /// In progress for an earlier message: the responder answers that one, and the receiver gets
    /// the response too.
    Joined(OrderId, watch::Receiver<Option<Response>>),
    /// In progress on another replica, which sends the response.
    OnOtherReplica(OrderId),
    /// Already answered: the same response again.
    Completed(OrderId, Box<Response>),
}

impl Submission {
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
            Self::Completed(_, answer) => Some(*answer),
            Self::OnOtherReplica(_) => None,
            Self::InProgress(_, mut receiver) | Self::Joined(_, mut receiver) => {
                receiver.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone())
            }
        }
    }
}

/// Marks an order as worked on here, until it is dropped.
pub(super) struct InFlightGuard {
    orders: Arc<OrderService>,
    pub(super) id: OrderId,
    pub(super) sender: watch::Sender<Option<Response>>,
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.orders.in_flight.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl OrderService {
    /// Takes an order: once this returns a submission the order is in the ledger and will be
    /// answered, whatever happens to this process.
    ///
    /// # Errors
    /// The refusal to send to the customer when nothing was written: the token cannot be read, pays
    /// for another order, or too many orders are waiting.
    pub async fn submit(self: &Arc<Self>, incoming: NewOrder) -> Result<Submission, Refusal> {
        let (token_info, place) = self.admit(&incoming).await?;
        let purchase = match incoming.purchase {
            Purchase::TopUp { pod } => Purchase::TopUp { pod: self.pod_of(pod).await? },
            spawn @ Purchase::Spawn { .. } => spawn,
        };
        // Before the order has its date, so that its time is measured here alone.
        let id = OrderId::random();
        let guard =
            self.claim(&id).ok_or_else(|| Refusal::new(ErrorType::InternalError, "try again"))?;
        let order = Order {
            id,
            message: incoming.message,
            reply_to: incoming.reply_to,
            purchase,
            token_info,
            created_at: UnixTime::now(),
            state: OrderState::Received { token: incoming.token, password: incoming.password },
            delivered: false,
        };
        match self.open(&order, incoming.repetition).await.map_err(|error| internal(&error))? {
            OpenOutcome::Created => Ok(self.spawn(order, guard, Some(place))),
            OpenOutcome::Duplicate(known) => {
                let is_same = match incoming.repetition {
                    Repetition::ByContent => order.customer() == known.customer(),
                    Repetition::ByChosenId => same_purchase(&order, &known),
                };
                match is_same {
                    true => self.replay(*known).await,
                    false => Err(Refusal::new(
                        ErrorType::InvalidRequest,
                        "this request's id was used for another request; choose a new one",
                    )),
                }
            }
            OpenOutcome::ProofConflict(other) if same_purchase(&order, &other) => {
                self.replay(*other).await
            }
            OpenOutcome::ProofConflict(other) => Err(already_paying(&other)),
        }
    }

    /// Stores a new order. A database whose answer was lost may have stored it, and then it will be
    /// served: the second attempt finds it.
    async fn open(
        &self,
        order: &Order,
        repetition: Repetition,
    ) -> Result<OpenOutcome, LedgerError> {
        let ledger = &self.backends.ledger;
        let error = match ledger.open(order, repetition).await {
            Err(LedgerError::Database(error)) => error,
            known => return known,
        };
        tracing::warn!(%error, "it is not known whether an order was stored; it is tried again");
        match ledger.open(order, repetition).await? {
            OpenOutcome::Duplicate(known) if known.id == order.id => Ok(OpenOutcome::Created),
            outcome => Ok(outcome),
        }
    }

    /// A place for this order, if there is one, and what its token says. Writes nothing.
    async fn admit(&self, incoming: &NewOrder) -> Result<(TokenInfo, Place), Refusal> {
        let source = match incoming.network {
            Some(network) => Source::Network(network),
            None => Source::Customer(incoming.reply_to.limited_customer()),
        };
        let entrant = self.admission.accept(source)?;
        let token_info = self.backends.wallet.decode(&incoming.token).await?;
        let lane = match self.admission.is_crowded(&token_info.mint)
            && self.backends.wallet.is_proven(&incoming.token, &token_info).await
        {
            true => Lane::Proven,
            false => Lane::Unproven,
        };
        let (lane, probe_wait) = match self.claim_probe_wait(&incoming.purchase, lane) {
            Err(_) if self.backends.wallet.is_proven(&incoming.token, &token_info).await => {
                (Lane::Proven, None)
            }
            claimed => (lane, claimed?),
        };
        let bytes = held_bytes(&incoming.token, &token_info);
        let mut place = self.admission.claim_place(entrant, &token_info.mint, lane, bytes)?;
        place.begin_probe_wait(probe_wait);
        match self.has_room().await {
            true => Ok((token_info, place)),
            false => Err(no_room()),
        }
    }

    /// Whether the disks have room for one more order, and for what is paid already.
    pub(super) async fn has_room(&self) -> bool {
        let (ledger, wallet) = (&self.backends.ledger, &self.backends.wallet);
        let (ledger, wallet) = tokio::join!(ledger.has_room(), wallet.has_room());
        ledger && wallet
    }

    /// The same order, for a customer who sent it again.
    async fn replay(self: &Arc<Self>, order: Order) -> Result<Submission, Refusal> {
        let answer = {
            let in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
            in_flight.get(&order.id).map(|it| it.answer.clone())
        };
        match answer {
            Some(receiver) => Ok(Submission::Joined(order.id, receiver)),
            None => {
                // Since it was read, the work on it may have ended here.
                let latest = self.backends.ledger.order(&order.id).await.ok().flatten();
                let order = latest.unwrap_or(order);
                Ok(match self.answer(&order).await {
                    Some(answer) => Submission::Completed(order.id, Box::new(answer)),
                    None => Submission::OnOtherReplica(order.id),
                })
            }
        }
    }

    /// Marks the order as worked on, before anybody can find it; `None` if it is already.
    pub(super) fn claim(self: &Arc<Self>, id: &OrderId) -> Option<InFlightGuard> {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        if in_flight.contains_key(id) {
            return None;
        }
        let (sender, answer) = watch::channel(None);
        in_flight.insert(id.clone(), InFlight { answer, begun: StartTime::now() });
        Some(InFlightGuard { orders: Arc::clone(self), id: id.clone(), sender })
    }

    /// How long ago this order came, which is worked on here.
    pub(super) fn time_of(&self, order: &Order) -> Duration {
        let begun = {
            let in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
            in_flight.get(&order.id).map(|it| it.begun)
        };
        begun.unwrap_or_else(StartTime::now).since(order.created_at, Instant::now())
    }
}

fn no_room() -> Refusal {
    tracing::error!("a disk is nearly full: new orders are refused");
    Refusal::new(
        ErrorType::ResourceUnavailable,
        "the service's disk is nearly full; your token was not taken, try again later",
    )
}

/// Whether the same customer buys the same: a message sent twice, or again after silence.
fn same_purchase(a: &Order, b: &Order) -> bool {
    // A token may name its proofs in any order.
    let proofs = |order: &Order| order.token_info.ys.iter().cloned().collect::<BTreeSet<_>>();
    a.customer().is_some()
        && a.customer() == b.customer()
        && a.purchase == b.purchase
        && proofs(a) == proofs(b)
}

/// The refusal of a token that pays for this other order. Whoever has seen its proofs may send it:
/// they are shown the order's state and nothing else.
fn already_paying(other: &Order) -> Refusal {
    let (code, what) = match other.state().is_final() {
        true => (ErrorType::TokenAlreadySpent, "has paid for another order; send a fresh one"),
        false => (ErrorType::TokenPending, "is paying for another order right now"),
    };
    let message = format!(
        "this token {what}. If that order is yours, send it again with the same options and the \
         credential that it was placed with"
    );
    Refusal::new(code, message).with_details(format!("order state: {}", other.state().as_str()))
}
