//! The form in which an order is stored and exported: one flat record for all states, as version
//! 0.1.0 wrote it. Only here can something that a state promises be missing.

use crate::model::decision::{Decision, Payment, PodDecision, PolicyTrace};
use crate::model::ids::{Customer, LeaseId, MessageId, MintUrl, OrderId, PodName, Username};
use crate::model::login::Login;
use crate::model::order::{Order, Purchase};
use crate::model::order_state::{
    Agreement, DecisionProgress, OrderState, Paid, PlannedPod, Refund, RefundCause, RefundEnd,
    RefundOutcome, Sale, Task, Unpaid,
};
use crate::model::refusal::Refusal;
use crate::model::reply_to::ReplyTo;
use crate::model::run::Run;
use crate::model::secret::Secret;
use crate::model::state::State;
use crate::model::token::TokenInfo;
use crate::model::units::{Sat, Seconds, UnixTime};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;

/// A record that is not an order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("order {order} is {} and has no {missing}", state.as_str())]
pub struct RecordError {
    order: OrderId,
    state: State,
    missing: &'static str,
}

/// The secrets of an order: they are stored in columns of their own, and not exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderSecrets {
    /// The customer's token, until it is redeemed or the order refused.
    pub token: Option<Secret>,
    /// The password of the new pod, until it ends.
    pub password: Option<Secret>,
    /// The refund, until it is redeemed or reclaimed.
    pub refund_token: Option<Secret>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct DecisionRecord {
    #[serde(flatten)]
    decision: Decision,
    /// None for a top-up.
    pod: Option<Box<PodDecision>>,
}

/// An order as it is stored, without its secrets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OrderRecord {
    id: OrderId,
    message: MessageId,
    reply_to: ReplyTo,
    purchase: Purchase,
    #[serde(rename = "facts")]
    token_info: TokenInfo,
    created_at: UnixTime,
    state: State,
    payment: Option<Payment>,
    #[serde(default, rename = "considered", skip_serializing_if = "Option::is_none")]
    policy_trace: Option<PolicyTrace>,
    decision: Option<DecisionRecord>,
    lease: Option<LeaseId>,
    launches: u32,
    /// Of an order that is not paid for: whether its pod may run. None: it may, as of those that an
    /// earlier version has stored. Of one that is paid for: whether its pod was launched before. None:
    /// it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    launched_unpaid: Option<bool>,
    /// Of an order whose payment is unknown: whether the token could not be forged. None: it could
    /// not, as of those that an earlier version has stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proven: Option<bool>,
    redeemed: Option<Sat>,
    expires_at: Option<UnixTime>,
    refusal: Option<Refusal>,
    #[serde(default)]
    due: Option<Sat>,
    /// What the operator adds to what is due; none: they bear no fees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refund_added: Option<Sat>,
    /// Of a pod that ended by a fault of ours; those that an earlier version has stored do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    served_until: Option<UnixTime>,
    /// Of a lease that ended so that unused time is paid back; the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used: Option<Seconds>,
    refunded: Option<Sat>,
    refund_fee: Option<Sat>,
    /// None: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refund_fee_borne: Option<Sat>,
    #[serde(default)]
    refunded_at: Option<UnixTime>,
    #[serde(default)]
    refund_end: Option<RefundEnd>,
}

impl From<&Order> for OrderRecord {
    fn from(order: &Order) -> Self {
        let state = &order.state;
        let (agreement, planned, refund) = (state.agreement(), state.planned_pod(), state.refund());
        let due = match state.refund_cause() {
            Some(RefundCause::LeaseEnded { due, .. }) => Some(*due),
            _ => None,
        };
        Self {
            id: order.id.clone(),
            message: order.message.clone(),
            reply_to: order.reply_to.clone(),
            purchase: order.purchase.clone(),
            token_info: order.token_info.clone(),
            created_at: order.created_at,
            state: state.name(),
            payment: agreement.map(|agreement| agreement.payment.clone()),
            policy_trace: state.trace().cloned(),
            decision: agreement.map(|agreement| DecisionRecord {
                decision: agreement.decision.clone(),
                pod: planned.map(|planned| planned.decision.clone()),
            }),
            lease: order.lease(),
            launches: planned.map_or(0, |planned| planned.moves),
            launched_unpaid: match (state.unpaid(), state.paid()) {
                (Some(unpaid), _) => (!unpaid.launched).then_some(false),
                (None, paid) => paid.and_then(|paid| paid.launched.then_some(true)),
            },
            proven: state.unpaid().and_then(|unpaid| (!unpaid.proven).then_some(false)),
            redeemed: state.redeemed(),
            expires_at: state.expires_at(),
            refusal: state.refusal().cloned(),
            due,
            refund_added: state.refund_cause().and_then(RefundCause::added),
            served_until: state.served_until(),
            used: state.used(),
            refunded: refund.map(|refund| refund.amount),
            refund_fee: refund.map(|refund| refund.fee),
            refund_fee_borne: refund
                .map(|refund| refund.fee_borne)
                .filter(|fee_borne| *fee_borne != Sat(0)),
            refunded_at: refund.map(|refund| refund.made_at),
            refund_end: refund.and_then(Refund::end),
        }
    }
}

impl Serialize for Order {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        OrderRecord::from(self).serialize(serializer)
    }
}

impl From<&Order> for OrderSecrets {
    fn from(order: &Order) -> Self {
        Self {
            token: order.state.token().cloned(),
            password: order.state.password().cloned(),
            refund_token: order.state.refund_token().cloned(),
        }
    }
}

impl OrderRecord {
    /// The order, with the secrets that are stored beside the record. Whether its response was
    /// delivered is stored there too; here it is not yet.
    ///
    /// # Errors
    /// [`RecordError`]: the record lacks what its state promises.
    pub fn into_order(self, secrets: OrderSecrets) -> Result<Order, RecordError> {
        let mut reader = Reader { record: self, secrets };
        let state = reader.state()?;
        let OrderRecord { id, message, reply_to, purchase, token_info, created_at, .. } =
            reader.record;
        let delivered = false;
        Ok(Order { id, message, reply_to, purchase, token_info, created_at, state, delivered })
    }
}

/// What is kept of a refused order when there are many newer ones: enough to answer again. The rest
/// of it is in columns of its own. Its JSON is a list of these fields, since thousands are kept; a
/// map of them, as it was written before, is read as well.
#[derive(Clone, Debug, Deserialize)]
pub struct RefusedRecord {
    refused: Refusal,
    mint: MintUrl,
    gross: Sat,
    #[serde(rename = "door")]
    transport: String,
    /// The pod that was to be extended.
    #[serde(default)]
    pod: Option<PodName>,
}

impl Serialize for RefusedRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { refused, mint, gross, transport, pod } = self;
        let refused = (refused.code, &refused.message);
        match pod {
            None => (refused, mint, gross, transport).serialize(serializer),
            Some(pod) => (refused, mint, gross, transport, pod).serialize(serializer),
        }
    }
}

impl RefusedRecord {
    /// How its JSON begins; no [`OrderRecord`] does.
    const BEGINNINGS: [&str; 2] = ["[", r#"{"refused":"#];

    /// Whether this JSON is one, and not an [`OrderRecord`].
    #[must_use]
    pub fn is_written_in(json: &str) -> bool {
        Self::BEGINNINGS.iter().any(|beginning| json.starts_with(beginning))
    }

    /// Of a refused order; none of any other.
    #[must_use]
    pub fn of(order: &Order) -> Option<Self> {
        let OrderState::Refused { refusal, .. } = &order.state else { return None };
        Some(Self {
            refused: Refusal { details: None, ..refusal.clone() },
            mint: order.token_info.mint.clone(),
            gross: order.token_info.gross,
            transport: order.reply_to.transport.clone(),
            pod: match &order.purchase {
                Purchase::TopUp { pod } => Some(pod.clone()),
                Purchase::Spawn { .. } => None,
            },
        })
    }

    /// The order, without what is not kept. It was answered, or will not be any more.
    #[must_use]
    pub fn into_order(
        self,
        id: OrderId,
        message: MessageId,
        customer: Option<Customer>,
        created_at: UnixTime,
    ) -> Order {
        let purchase = match self.pod {
            Some(pod) => Purchase::TopUp { pod },
            None => Purchase::Spawn {
                image: None,
                tier: None,
                username: Username::not_kept(),
                public_key: None,
                wanted: None,
                run: Run::Ssh,
                http: None,
            },
        };
        let progress = DecisionProgress::Nothing;
        Order {
            id,
            message,
            reply_to: ReplyTo { transport: self.transport, customer, address: BTreeMap::new() },
            purchase,
            token_info: TokenInfo { mint: self.mint, gross: self.gross, ys: Vec::new() },
            created_at,
            state: OrderState::Refused { refusal: self.refused, progress },
            delivered: true,
        }
    }
}

/// Takes a record apart.
struct Reader {
    record: OrderRecord,
    secrets: OrderSecrets,
}

impl Reader {
    fn require<T>(&self, value: Option<T>, missing: &'static str) -> Result<T, RecordError> {
        let (order, state) = (&self.record.id, self.record.state);
        value.ok_or_else(|| RecordError { order: order.clone(), state, missing })
    }

    fn state(&mut self) -> Result<OrderState, RecordError> {
        Ok(match self.record.state {
            State::Received => {
                let (token, password) = (self.token()?, self.secrets.password.take());
                OrderState::Received { token, password }
            }
            State::Decided => OrderState::Decided(self.unpaid()?),
            State::Redeeming => OrderState::Redeeming(self.unpaid()?),
            State::PaymentUnknown => {
                let abandoned = self.record.refusal.take();
                OrderState::PaymentUnknown { unpaid: self.unpaid()?, abandoned }
            }
            State::Paid => OrderState::Paid(self.paid()?),
            State::Provisioning => {
                let expires_at = self.record.expires_at;
                OrderState::Provisioning { paid: self.paid()?, expires_at }
            }
            State::Active => {
                let expires_at = self.expires_at()?;
                OrderState::Active { paid: self.paid()?, expires_at }
            }
            State::Ended => {
                let expires_at = self.expires_at()?;
                OrderState::Ended { sale: self.sale()?, expires_at }
            }
            State::Refused => {
                let refusal = self.refusal()?;
                OrderState::Refused { refusal, progress: self.progress()? }
            }
            State::RefundPending => OrderState::RefundPending {
                cause: self.cause()?,
                sale: self.sale()?,
                password: self.secrets.password.take(),
            },
            State::Refunded => OrderState::Refunded {
                cause: self.cause()?,
                sale: self.sale()?,
                refund: self.refund()?,
            },
        })
    }

    fn token(&mut self) -> Result<Secret, RecordError> {
        let token = self.secrets.token.take();
        self.require(token, "token")
    }

    fn expires_at(&self) -> Result<UnixTime, RecordError> {
        self.require(self.record.expires_at, "end")
    }

    fn redeemed(&self) -> Result<Sat, RecordError> {
        self.require(self.record.redeemed, "redeemed amount")
    }

    fn refusal(&mut self) -> Result<Refusal, RecordError> {
        let refusal = self.record.refusal.take();
        self.require(refusal, "refusal")
    }

    fn agreement(&mut self) -> Result<(Agreement, Option<PlannedPod>), RecordError> {
        let (payment, decision) = (self.record.payment.take(), self.record.decision.take());
        let payment = self.require(payment, "payment")?;
        let DecisionRecord { decision, pod } = self.require(decision, "decision")?;
        let moves = self.record.launches;
        Ok((Agreement { payment, decision }, pod.map(|decision| PlannedPod { decision, moves })))
    }

    fn task(&mut self, planned: Option<PlannedPod>) -> Result<Task, RecordError> {
        match &self.record.purchase {
            Purchase::TopUp { pod } => Ok(Task::TopUp { pod: pod.clone() }),
            Purchase::Spawn { username, public_key, .. } => {
                let (username, public_key) = (username.clone(), public_key.clone());
                let password = self.secrets.password.take();
                if public_key.is_none() {
                    self.require(password.as_ref(), "password")?;
                }
                let login = Login { username, password, public_key };
                Ok(Task::Spawn { planned: self.require(planned, "pod")?, login })
            }
        }
    }

    fn unpaid(&mut self) -> Result<Unpaid, RecordError> {
        let token = self.token()?;
        let (agreement, planned) = self.agreement()?;
        let launched = self.record.launched_unpaid.unwrap_or(true);
        let proven = self.record.proven.unwrap_or(true);
        Ok(Unpaid { token, agreement, task: self.task(planned)?, launched, proven })
    }

    fn paid(&mut self) -> Result<Paid, RecordError> {
        let redeemed = self.redeemed()?;
        let (agreement, planned) = self.agreement()?;
        let launched = self.record.launched_unpaid.unwrap_or(false);
        Ok(Paid { redeemed, agreement, task: self.task(planned)?, launched })
    }

    fn sale(&mut self) -> Result<Sale, RecordError> {
        let redeemed = self.redeemed()?;
        let (agreement, planned) = self.agreement()?;
        Ok(Sale { redeemed, agreement, planned, used: self.record.used })
    }

    fn progress(&mut self) -> Result<DecisionProgress, RecordError> {
        if let Some(trace) = self.record.policy_trace.take() {
            return Ok(DecisionProgress::Trace(Box::new(trace)));
        }
        if self.record.decision.is_none() {
            return Ok(DecisionProgress::Nothing);
        }
        let (agreement, planned) = self.agreement()?;
        Ok(DecisionProgress::Agreement { agreement: Box::new(agreement), planned })
    }

    fn cause(&mut self) -> Result<RefundCause, RecordError> {
        let added = self.record.refund_added;
        Ok(match self.record.due {
            Some(due) => RefundCause::LeaseEnded {
                due,
                expires_at: self.expires_at()?,
                refusal: self.record.refusal.take(),
                added,
                served_until: self.record.served_until,
            },
            None => {
                let expires_at = self.record.expires_at;
                RefundCause::NotProvisioned { refusal: self.refusal()?, expires_at, added }
            }
        })
    }

    fn refund(&mut self) -> Result<Refund, RecordError> {
        let outcome = match (self.record.refund_end, self.secrets.refund_token.take()) {
            (Some(end), _) => RefundOutcome::Ended(end),
            (None, token) => RefundOutcome::Waiting(self.require(token, "refund token")?),
        };
        Ok(Refund {
            amount: self.require(self.record.refunded, "refunded amount")?,
            fee: self.record.refund_fee.unwrap_or_default(),
            fee_borne: self.record.refund_fee_borne.unwrap_or_default(),
            made_at: self.require(self.record.refunded_at, "time of the refund")?,
            outcome,
        })
    }
}

#[cfg(test)]
mod tests;
