//! What an order knows in each of its states.
//!
//! ```text
//! Received ─▶ Decided ─▶ Redeeming ─▶ Provisioning ─▶ Active ─▶ Ended
//!             (Unpaid)   (Unpaid)     (Paid)          (Paid)    (Sale)
//! ```

use crate::model::decision::{Decision, Grant, Payment, PodDecision, PolicyTrace, Quote};
use crate::model::ids::PodName;
use crate::model::login::Login;
use crate::model::refusal::Refusal;
use crate::model::secret::Secret;
use crate::model::state::State;
use crate::model::token::RefundToken;
use crate::model::units::{Sat, Seconds, UnixTime};
use serde::{Deserialize, Serialize};

/// A state with what belongs to it. What a state lacks cannot be read from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderState {
    /// The password is that of a new pod.
    Received {
        token: Secret,
        password: Option<Secret>,
    },
    Decided(Unpaid),
    Redeeming(Unpaid),
    /// `abandoned`: the refusal that was sent when its port was needed. Once the mint answers, the
    /// token is either still good, or refunded.
    PaymentUnknown {
        unpaid: Unpaid,
        abandoned: Option<Refusal>,
    },
    /// Of earlier versions.
    Paid(Paid),
    /// `expires_at`: the pod takes logins, and its deadline is being set.
    Provisioning {
        paid: Paid,
        expires_at: Option<UnixTime>,
    },
    Active {
        paid: Paid,
        expires_at: UnixTime,
    },
    Ended {
        sale: Sale,
        expires_at: UnixTime,
    },
    Refused {
        refusal: Refusal,
        progress: DecisionProgress,
    },
    /// `password`: of a pod that may still run.
    RefundPending {
        sale: Sale,
        cause: RefundCause,
        password: Option<Secret>,
    },
    Refunded {
        sale: Sale,
        cause: RefundCause,
        refund: Refund,
    },
}

/// What was decided, and for what payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    pub payment: Payment,
    pub decision: Decision,
}

impl Agreement {
    /// Of a trace in which every policy granted: this price, and this time.
    #[must_use]
    pub fn of(trace: PolicyTrace, quote: Quote, grant: Grant) -> Self {
        let PolicyTrace { digests, order, context, payment, refund, .. } = trace;
        Self { payment, decision: Decision { digests, order, context, quote, grant, refund } }
    }
}

/// What is to be done for the money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    Spawn { planned: PlannedPod, login: Login },
    TopUp { pod: PodName },
}

impl Task {
    fn planned_pod(&self) -> Option<&PlannedPod> {
        match self {
            Self::Spawn { planned, .. } => Some(planned),
            Self::TopUp { .. } => None,
        }
    }

    fn login(&self) -> Option<&Login> {
        match self {
            Self::Spawn { login, .. } => Some(login),
            Self::TopUp { .. } => None,
        }
    }
}

/// The pod that was decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPod {
    pub decision: Box<PodDecision>,
    /// How often it was moved to another port.
    pub moves: u32,
}

/// Agreed, and not known to be paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpaid {
    pub token: Secret,
    pub agreement: Agreement,
    pub task: Task,
    /// Whether its pod may run already.
    pub launched: bool,
    /// With the payment unknown: whether it keeps its port, since the token cannot be forged.
    pub proven: bool,
}

impl Unpaid {
    /// As it was received.
    #[must_use]
    pub fn undecided(self) -> OrderState {
        let password = self.task.login().and_then(|login| login.password.clone());
        OrderState::Received { token: self.token, password }
    }
}

/// Agreed and paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paid {
    /// What the mint gave for the token.
    pub redeemed: Sat,
    pub agreement: Agreement,
    pub task: Task,
    /// Whether its pod was launched before that, with nothing to write to its customer.
    pub launched: bool,
}

/// What is kept of a paid order once there is nothing left to do for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sale {
    pub redeemed: Sat,
    pub agreement: Agreement,
    /// None for a top-up.
    pub planned: Option<PlannedPod>,
    /// How much of its time was used when its lease ended, where unused time is paid back. None of
    /// those that an earlier version has ended.
    pub used: Option<Seconds>,
}

impl From<Paid> for Sale {
    fn from(Paid { redeemed, agreement, task, .. }: Paid) -> Self {
        let planned = match task {
            Task::Spawn { planned, .. } => Some(planned),
            Task::TopUp { .. } => None,
        };
        Self { redeemed, agreement, planned, used: None }
    }
}

/// How far the decision of a refused order had come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecisionProgress {
    /// No policy was called.
    Nothing,
    /// One of the policies, or the host between them, refused it.
    Trace(Box<PolicyTrace>),
    /// It was agreed, and then refused by the cluster or the mint.
    Agreement { agreement: Box<Agreement>, planned: Option<PlannedPod> },
}

impl From<Unpaid> for DecisionProgress {
    fn from(Unpaid { agreement, task, .. }: Unpaid) -> Self {
        let planned = task.planned_pod().cloned();
        Self::Agreement { agreement: Box::new(agreement), planned }
    }
}

/// Who bears the mint's fees of a sale that fails through a fault of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundFees {
    /// The refund is what was sent, as far as the wallet holds it.
    Operator,
    /// The refund is what was received, less the fee for making it.
    Customer,
}

impl RefundFees {
    /// What the operator adds to a refund of `due`, so that it is over `sent`.
    #[must_use]
    pub fn added(self, sent: Sat, due: Sat) -> Option<Sat> {
        match self {
            Self::Operator => Some(sent.minus(due)),
            Self::Customer => None,
        }
    }
}

/// Why money goes back, and how much of it.
///
/// `added`: what the operator adds to what is due, who bears the fee for making the token then;
/// `None`: nothing, and the customer bears that fee. It was decided when the money became due, and
/// the setting may have changed since. It is not added if the wallet does not hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefundCause {
    /// It was paid and not provisioned: all that was redeemed is due.
    NotProvisioned { refusal: Refusal, expires_at: Option<UnixTime>, added: Option<Sat> },
    /// The lease ended before its time: the unused part is due. A refusal tells the customer that
    /// they did not end it.
    /// `served_until`: until when the pod was served that ended by a fault of ours.
    LeaseEnded {
        due: Sat,
        expires_at: UnixTime,
        refusal: Option<Refusal>,
        added: Option<Sat>,
        served_until: Option<UnixTime>,
    },
}

impl RefundCause {
    /// What the operator adds to what is due.
    #[must_use]
    pub fn added(&self) -> Option<Sat> {
        match self {
            Self::NotProvisioned { added, .. } | Self::LeaseEnded { added, .. } => *added,
        }
    }
}

/// A refund that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// What it is worth, before the mint's fee on receiving it.
    pub amount: Sat,
    /// What making it cost the customer.
    pub fee: Sat,
    /// What making it cost the operator.
    pub fee_borne: Sat,
    pub made_at: UnixTime,
    pub outcome: RefundOutcome,
}

impl Refund {
    /// A refund of what was due, made now.
    #[must_use]
    pub fn made(made: RefundToken, due: Sat) -> Self {
        let fee = due.minus(made.amount);
        Self {
            amount: made.amount,
            fee,
            fee_borne: made.fee.minus(fee),
            made_at: UnixTime::now(),
            outcome: RefundOutcome::Waiting(made.token),
        }
    }

    /// How it ended, once it has.
    #[must_use]
    pub fn end(&self) -> Option<RefundEnd> {
        match self.outcome {
            RefundOutcome::Waiting(_) => None,
            RefundOutcome::Ended(end) => Some(end),
        }
    }
}

/// What became of a refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefundOutcome {
    /// This token waits for the customer.
    Waiting(Secret),
    Ended(RefundEnd),
}

/// How a refund ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundEnd {
    /// The customer has redeemed it.
    Redeemed,
    /// Not redeemed in time: reclaimed by the operator, this net amount.
    #[serde(rename = "taken_back")]
    Reclaimed(Sat),
}

impl OrderState {
    #[must_use]
    pub fn name(&self) -> State {
        match self {
            Self::Received { .. } => State::Received,
            Self::Decided(_) => State::Decided,
            Self::Redeeming(_) => State::Redeeming,
            Self::PaymentUnknown { .. } => State::PaymentUnknown,
            Self::Paid(_) => State::Paid,
            Self::Provisioning { .. } => State::Provisioning,
            Self::Active { .. } => State::Active,
            Self::Ended { .. } => State::Ended,
            Self::Refused { .. } => State::Refused,
            Self::RefundPending { .. } => State::RefundPending,
            Self::Refunded { .. } => State::Refunded,
        }
    }

    /// What was agreed and is not known to be paid.
    pub(crate) fn unpaid(&self) -> Option<&Unpaid> {
        match self {
            Self::Decided(unpaid)
            | Self::Redeeming(unpaid)
            | Self::PaymentUnknown { unpaid, .. } => Some(unpaid),
            _ => None,
        }
    }

    /// Whether there may be a pod of a new lease that is not known to be paid for.
    pub(crate) fn may_run_unpaid(&self) -> bool {
        self.unpaid()
            .is_some_and(|unpaid| unpaid.launched && matches!(unpaid.task, Task::Spawn { .. }))
    }

    pub(crate) fn paid(&self) -> Option<&Paid> {
        match self {
            Self::Paid(paid) | Self::Provisioning { paid, .. } | Self::Active { paid, .. } => {
                Some(paid)
            }
            _ => None,
        }
    }

    fn sale(&self) -> Option<&Sale> {
        match self {
            Self::Ended { sale, .. }
            | Self::RefundPending { sale, .. }
            | Self::Refunded { sale, .. } => Some(sale),
            _ => None,
        }
    }

    fn task(&self) -> Option<&Task> {
        let unpaid = self.unpaid().map(|unpaid| &unpaid.task);
        unpaid.or_else(|| self.paid().map(|paid| &paid.task))
    }

    /// Why money goes back, or has gone back.
    pub(crate) fn refund_cause(&self) -> Option<&RefundCause> {
        match self {
            Self::RefundPending { cause, .. } | Self::Refunded { cause, .. } => Some(cause),
            _ => None,
        }
    }

    /// What was agreed, if the order came so far.
    #[must_use]
    pub fn agreement(&self) -> Option<&Agreement> {
        match self {
            Self::Refused { progress: DecisionProgress::Agreement { agreement, .. }, .. } => {
                Some(agreement)
            }
            _ => (self.unpaid().map(|unpaid| &unpaid.agreement))
                .or_else(|| self.paid().map(|paid| &paid.agreement))
                .or_else(|| self.sale().map(|sale| &sale.agreement)),
        }
    }

    /// The policy calls of an order that was not agreed.
    #[must_use]
    pub fn trace(&self) -> Option<&PolicyTrace> {
        match self {
            Self::Refused { progress: DecisionProgress::Trace(trace), .. } => Some(trace),
            _ => None,
        }
    }

    /// The pod that was decided on; none for a top-up.
    #[must_use]
    pub fn planned_pod(&self) -> Option<&PlannedPod> {
        match self {
            Self::Refused { progress: DecisionProgress::Agreement { planned, .. }, .. } => {
                planned.as_ref()
            }
            _ => {
                (self.task().and_then(Task::planned_pod)).or_else(|| self.sale()?.planned.as_ref())
            }
        }
    }

    /// What the mint gave for the token, once it is paid.
    #[must_use]
    pub fn redeemed(&self) -> Option<Sat> {
        let paid = self.paid().map(|paid| paid.redeemed);
        paid.or_else(|| self.sale().map(|sale| sale.redeemed))
    }

    /// Until when the pod lives, or lived, through this order.
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixTime> {
        match self {
            Self::Provisioning { expires_at, .. } => *expires_at,
            Self::Active { expires_at, .. } | Self::Ended { expires_at, .. } => Some(*expires_at),
            _ => match self.refund_cause()? {
                RefundCause::NotProvisioned { expires_at, .. } => *expires_at,
                RefundCause::LeaseEnded { expires_at, .. } => Some(*expires_at),
            },
        }
    }

    /// Why it was refused, given up or refunded.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::PaymentUnknown { abandoned, .. } => abandoned.as_ref(),
            Self::Refused { refusal, .. } => Some(refusal),
            _ => match self.refund_cause()? {
                RefundCause::NotProvisioned { refusal, .. } => Some(refusal),
                RefundCause::LeaseEnded { refusal, .. } => refusal.as_ref(),
            },
        }
    }

    /// What must go back, or has gone back, without what the operator adds to it.
    #[must_use]
    pub fn refund_due(&self) -> Option<Sat> {
        match self.refund_cause()? {
            RefundCause::NotProvisioned { .. } => self.redeemed(),
            RefundCause::LeaseEnded { due, .. } => Some(*due),
        }
    }

    /// Until when the pod was served, if it ended by a fault of ours.
    #[must_use]
    pub fn served_until(&self) -> Option<UnixTime> {
        match self.refund_cause()? {
            RefundCause::NotProvisioned { .. } => None,
            RefundCause::LeaseEnded { served_until, .. } => *served_until,
        }
    }

    /// How much of its time was used, where unused time is paid back.
    #[must_use]
    pub fn used(&self) -> Option<Seconds> {
        self.sale()?.used
    }

    /// The refund, once it is made.
    #[must_use]
    pub fn refund(&self) -> Option<&Refund> {
        match self {
            Self::Refunded { refund, .. } => Some(refund),
            _ => None,
        }
    }

    /// The customer's token, until it is redeemed or the order refused.
    #[must_use]
    pub fn token(&self) -> Option<&Secret> {
        match self {
            Self::Received { token, .. } => Some(token),
            _ => self.unpaid().map(|unpaid| &unpaid.token),
        }
    }

    /// The password of the new pod, until it ends; none if only a key logs in.
    #[must_use]
    pub fn password(&self) -> Option<&Secret> {
        match self {
            Self::Received { password, .. } | Self::RefundPending { password, .. } => {
                password.as_ref()
            }
            _ => self.task().and_then(Task::login).and_then(|login| login.password.as_ref()),
        }
    }

    /// The login of the new pod while it runs.
    #[must_use]
    pub fn login(&self) -> Option<&Login> {
        match self {
            Self::Provisioning { paid, .. } | Self::Active { paid, .. } => paid.task.login(),
            _ => None,
        }
    }

    /// The token of a refund that nobody has redeemed yet.
    #[must_use]
    pub fn refund_token(&self) -> Option<&Secret> {
        match self.refund().map(|refund| &refund.outcome) {
            Some(RefundOutcome::Waiting(token)) => Some(token),
            _ => None,
        }
    }
}
