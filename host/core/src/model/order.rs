//! Orders: what is kept of a sale, and the states that it goes through.

pub use crate::model::decision::OrderView;
pub use crate::model::lease::{Lease, LeaseState};
pub use crate::model::order_state::{OrderState, RefundEnd};
pub use crate::model::state::State;

use crate::model::decision::LeaseView;
use crate::model::http_port::HttpPort;
use crate::model::ids::{Customer, LeaseId, MessageId, OrderId, PodName, Username};
use crate::model::reply_to::ReplyTo;
use crate::model::run::Run;
use crate::model::token::TokenInfo;
use crate::model::units::{Sat, Seconds, SignedSat, UnixTime};
use serde::{Deserialize, Serialize};

/// All bitcoin that there will be. Before it is looked at, a token may claim to be worth more.
const ALL_MONEY: Sat = Sat(2_100_000_000_000_000);

/// What is bought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purchase {
    /// A new pod.
    Spawn {
        /// The wanted image.
        image: Option<String>,
        /// The wanted tier.
        tier: Option<String>,
        /// The SSH user.
        username: Username,
        /// One public key.
        public_key: Option<String>,
        /// The wanted time.
        wanted: Option<Seconds>,
        /// What is to run in it.
        #[serde(default, skip_serializing_if = "Run::is_ssh")]
        run: Run,
        /// The HTTP port of the pod that browsers reach.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        http: Option<HttpPort>,
    },
    /// More time.
    TopUp {
        /// The pod to extend.
        pod: PodName,
    },
}

impl Purchase {
    /// What is to run in the pod, as far as this says.
    #[must_use]
    pub fn run(&self) -> Run {
        match self {
            Self::Spawn { run, .. } => *run,
            Self::TopUp { .. } => Run::Ssh,
        }
    }

    /// The HTTP port of the new pod, if there is to be one.
    #[must_use]
    pub fn http(&self) -> Option<HttpPort> {
        match self {
            Self::Spawn { http, .. } => *http,
            Self::TopUp { .. } => None,
        }
    }

    /// What a policy sees of an order of it.
    #[must_use]
    pub fn view(
        &self,
        order: &OrderId,
        customer: Option<&Customer>,
        extended: Option<LeaseView>,
    ) -> OrderView {
        let (image, tier, username, wanted) = match self {
            Self::Spawn { image, tier, username, wanted, .. } => {
                (image.clone(), tier.clone(), username.to_string(), *wanted)
            }
            Self::TopUp { .. } => (None, None, String::new(), None),
        };
        OrderView {
            id: order.to_string(),
            customer: customer.map(Customer::to_string).unwrap_or_default(),
            extends: extended,
            image,
            tier,
            username,
            wanted,
        }
    }
}

/// An order, from its receipt to its end. It is stored as an
/// [`OrderRecord`](crate::model::order_record::OrderRecord).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub id: OrderId,
    /// The id of the message that brought it: the same message is the same order.
    pub message: MessageId,
    /// Where the answer goes.
    pub reply_to: ReplyTo,
    pub purchase: Purchase,
    pub token_info: TokenInfo,
    pub created_at: UnixTime,
    pub state: OrderState,
    /// Whether the response was delivered.
    pub delivered: bool,
}

impl Order {
    /// The name of its state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.name()
    }

    /// The customer who placed the order.
    #[must_use]
    pub fn customer(&self) -> Option<&Customer> {
        self.reply_to.customer.as_ref()
    }

    /// Whether its customer is named by whoever pays, and its token not known to be good: until then
    /// it does not count for them.
    #[must_use]
    pub fn is_named_and_unpaid(&self) -> bool {
        self.reply_to.is_named_by_payer() && self.state.redeemed().is_none()
    }

    /// The customer whose limits hold for it.
    #[must_use]
    pub fn limited_customer(&self) -> Option<Customer> {
        match self.is_named_and_unpaid() {
            true => self.reply_to.limited_customer(),
            false => self.customer().cloned(),
        }
    }

    /// The lease that it makes or extends. A top-up has none before it is agreed, and none when it
    /// is refused.
    #[must_use]
    pub fn lease(&self) -> Option<LeaseId> {
        match (&self.purchase, &self.state) {
            (Purchase::Spawn { .. }, _) => Some(LeaseId::of(&self.id)),
            (Purchase::TopUp { .. }, OrderState::Received { .. } | OrderState::Refused { .. }) => {
                None
            }
            (Purchase::TopUp { pod }, _) => pod.lease(),
        }
    }

    /// The pod that it makes or extends.
    #[must_use]
    pub fn pod(&self) -> PodName {
        match &self.purchase {
            Purchase::TopUp { pod } => pod.clone(),
            Purchase::Spawn { .. } => LeaseId::of(&self.id).pod_name(),
        }
    }

    /// Whether it is making its pod, perhaps for the second time: whoever does that finds out what
    /// becomes of it.
    #[must_use]
    pub fn is_making_pod(&self) -> bool {
        matches!(self.purchase, Purchase::Spawn { .. }) && self.state() == State::Provisioning
    }

    /// What a policy sees of it.
    #[must_use]
    pub fn view(&self, extended: Option<LeaseView>) -> OrderView {
        self.purchase.view(&self.id, self.customer(), extended)
    }

    /// The revenue of it so far: what was received, less what was paid back and what that cost. A
    /// refund whose fees the operator bears is a loss.
    #[must_use]
    pub fn earned(&self) -> SignedSat {
        let redeemed = SignedSat::default().plus(self.state.redeemed().unwrap_or_default());
        let Some(refund) = self.state.refund() else { return redeemed };
        let kept = redeemed.minus(refund.amount).minus(refund.fee).minus(refund.fee_borne);
        match refund.end() {
            Some(RefundEnd::Reclaimed(again)) => kept.plus(again),
            _ => kept,
        }
    }

    /// What counts of it in its customer's history: the money, less what goes back, and the time that
    /// this bought. One that is still to be decided counts with what its token is worth, so that two
    /// orders at the same time see each other, and its time is none yet. None: it names no customer,
    /// was refused, or all of it goes back; or its payer has named the customer, and has not paid.
    #[must_use]
    pub fn counted(&self) -> Option<(Sat, Option<Seconds>)> {
        self.customer()?;
        if self.is_named_and_unpaid() {
            return None;
        }
        if matches!(self.state, OrderState::Received { .. }) {
            return Some((self.token_info.gross.min(ALL_MONEY), None));
        }
        if matches!(self.state, OrderState::Refused { .. }) {
            return None;
        }
        let agreement = self.state.agreement()?;
        let paid = self.state.redeemed().unwrap_or(agreement.payment.net);
        let bought = agreement.decision.grant.seconds;
        let Some(due) = self.state.refund_due() else { return Some((paid, Some(bought))) };
        let kept = paid.minus(due);
        (kept > Sat(0)).then(|| (kept, Some(bought.share(kept, paid))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::http_port::HttpAccess;
    use crate::model::order_state::{Refund, RefundCause, RefundOutcome};
    use crate::model::secret::Secret;
    use crate::model::token::RefundToken;
    use crate::testing;

    /// What version 0.1.0 stored, and what is stored of such an order now.
    #[test]
    fn what_runs_is_stored_only_where_it_is_not_the_server_alone() {
        let stored = r#"{"spawn":{"image":null,"tier":null,"username":"user","public_key":null,"wanted":null}}"#;
        let read: Purchase = serde_json::from_str(stored).unwrap();
        assert_eq!((&read, read.run()), (&testing::spawn(), Run::Ssh));
        assert_eq!(serde_json::to_string(&read).unwrap(), stored);
        let mut with_program = read.clone();
        let Purchase::Spawn { run, .. } = &mut with_program else { panic!("no spawn") };
        *run = Run::Image;
        let json = serde_json::to_string(&with_program).unwrap();
        assert!(json.ends_with(r#","run":"image"}}"#), "{json}");
        assert_eq!(serde_json::from_str::<Purchase>(&json).unwrap(), with_program);
        assert_ne!(with_program, read, "another purchase than without it");
    }

    #[test]
    fn a_port_is_stored_only_where_there_is_one() {
        let mut with_port = testing::spawn();
        let Purchase::Spawn { http, .. } = &mut with_port else { panic!("no spawn") };
        *http = HttpPort::new(8_080, HttpAccess::Owner);
        let json = serde_json::to_string(&with_port).unwrap();
        assert!(json.ends_with(r#","http":{"port":8080,"access":"owner"}}}"#), "{json}");
        assert_eq!(serde_json::from_str::<Purchase>(&json).unwrap(), with_port);
        assert_ne!(with_port, testing::spawn(), "another purchase than without it");
    }

    #[test]
    fn what_goes_back_does_not_count_in_a_history() {
        let customer = Customer::parse(&"c".repeat(64)).unwrap();
        let mut order = testing::order(testing::spawn(), State::Received).unwrap();
        assert_eq!(order.counted(), None, "of no customer");
        order.reply_to.customer = Some(customer);
        let bought = testing::agreement().decision.grant.seconds;
        let whole = Some((Sat(10), Some(bought)));
        for (state, counted) in [
            (State::Received, Some((Sat(10), None))),
            (State::Decided, whole),
            (State::Redeeming, whole),
            (State::PaymentUnknown, whole),
            (State::Paid, whole),
            (State::Provisioning, whole),
            (State::Active, whole),
            (State::Ended, whole),
            (State::Refused, None),
            (State::RefundPending, None),
            (State::Refunded, None),
        ] {
            order.state = testing::order_state(&order.purchase, state);
            assert_eq!(order.counted(), counted, "{state:?}");
        }
        let OrderState::Refunded { cause, .. } = &mut order.state else { panic!("no refund") };
        let (expires_at, refusal, added, served_until) = (UnixTime(700), None, None, None);
        let due = Sat(5);
        *cause = RefundCause::LeaseEnded { due, expires_at, refusal, added, served_until };
        assert_eq!(order.counted(), Some((Sat(5), Some(Seconds(300)))));
        order.state = testing::order_state(&order.purchase, State::Received);
        order.token_info.gross = Sat(u64::MAX);
        assert_eq!(order.counted(), Some((ALL_MONEY, None)));
    }

    #[test]
    fn whom_a_payer_names_has_no_order_before_it_is_paid_for() {
        let customer = Customer::parse(&"c".repeat(64)).unwrap();
        let mut order = testing::order(testing::spawn(), State::Received).unwrap();
        order.reply_to.customer = Some(customer.clone());
        order.reply_to = order.reply_to.named_by_payer();
        for (state, is_theirs) in [
            (State::Received, false),
            (State::Decided, false),
            (State::Redeeming, false),
            (State::PaymentUnknown, false),
            (State::Refused, false),
            (State::Paid, true),
            (State::Provisioning, true),
            (State::Active, true),
        ] {
            order.state = testing::order_state(&order.purchase, state);
            assert_eq!(order.counted().is_some(), is_theirs, "{state:?}");
            assert_eq!(order.is_named_and_unpaid(), !is_theirs, "{state:?}");
            assert_eq!(order.limited_customer() == Some(customer.clone()), is_theirs, "{state:?}");
            assert_eq!(order.customer(), Some(&customer));
        }
    }

    /// An order of 10 sat, all of which were due, with a refund token of this amount and fee.
    fn refunded(amount: u64, fee: u64) -> Order {
        let made =
            RefundToken { token: Secret::new("cashuBx"), amount: Sat(amount), fee: Sat(fee) };
        let mut order = testing::order(testing::spawn(), State::Refunded).unwrap();
        let OrderState::Refunded { refund, .. } = &mut order.state else { panic!("no refund") };
        *refund = Refund::made(made, Sat(10));
        order
    }

    #[test]
    fn a_fee_is_lost_by_whoever_bears_it() {
        for (amount, fee, of_customer, of_operator, earned) in [
            (10, 0, 0, 0, 0),
            (9, 1, 1, 0, 0),
            // An amount that the fee would take is made whole.
            (10, 1, 0, 1, -1),
            (12, 0, 0, 0, -2),
            (12, 1, 0, 1, -3),
        ] {
            let mut order = refunded(amount, fee);
            let refund = order.state.refund().unwrap();
            assert_eq!((refund.fee, refund.fee_borne), (Sat(of_customer), Sat(of_operator)));
            assert_eq!(order.earned(), SignedSat(earned), "{amount} for {fee}");
            let OrderState::Refunded { refund, .. } = &mut order.state else { panic!() };
            refund.outcome = RefundOutcome::Ended(RefundEnd::Reclaimed(Sat(8)));
            assert_eq!(order.earned(), SignedSat(earned).plus(Sat(8)));
        }
    }
}
