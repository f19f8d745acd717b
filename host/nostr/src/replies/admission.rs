//! Which responses that are not in the ledger are sent, and how many at the same time.
//!
//! Those that nobody has paid for are bounded in all, for each customer and in time, and dropped
//! beyond that. What holds money or a login is not: beyond the limit of its customer each refund,
//! login, top-up and stopped pod has a place of its own. So what a customer may have in flight grows
//! with what they have paid, and not with how often they request it: a repetition of what is on its
//! way has none.

use paygress_core::backend::responder::ReplyTo;
use paygress_core::keyed_limit::{KeyedLimit, Permit};
use paygress_core::model::ids::Customer;
use paygress_core::model::secret::Secret;
use paygress_core::protocol::Response;
use paygress_core::recent::Recent;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Responses in flight that are not in the ledger, to customers who have not paid: errors of
/// requests that never became orders. More are dropped.
const UNPAID_IN_FLIGHT: usize = 128;
/// Responses of one customer that are in flight or being made, and not in the ledger, beside those
/// with a place of their own.
const IN_FLIGHT_OF_CUSTOMER: usize = 32;
/// Responses to one customer within [`UNPAID_WINDOW`] that nobody has paid for; more are dropped.
const UNPAID_OF_CUSTOMER: u32 = 30;
const UNPAID_WINDOW: Duration = Duration::from_secs(60);
/// Customers whose unpaid responses are counted.
const CUSTOMERS_COUNTED: usize = 10_000;

pub(super) struct ReplyAdmission {
    unpaid: Arc<Semaphore>,
    of_customer: KeyedLimit<Customer>,
    own: KeyedLimit<(Customer, OwnPlace)>,
    unpaid_counts: Mutex<Recent<Customer>>,
}

/// What has a place of its own beyond the limit of its customer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum OwnPlace {
    /// A response, by a hash of what was paid for in it.
    Response(u64),
    /// The pod or the order whose response is being made.
    Wait(String),
}

/// A response's place among those in flight, until it is dropped.
#[derive(Default)]
pub(super) struct InFlight {
    _of_customer: Option<Permit<Customer>>,
    _own: Option<Permit<(Customer, OwnPlace)>>,
    _unpaid: Option<OwnedSemaphorePermit>,
}

impl ReplyAdmission {
    pub(super) fn new() -> Self {
        Self {
            unpaid: Arc::new(Semaphore::new(UNPAID_IN_FLIGHT)),
            of_customer: KeyedLimit::default(),
            own: KeyedLimit::default(),
            unpaid_counts: Mutex::new(Recent::new(CUSTOMERS_COUNTED, UNPAID_WINDOW)),
        }
    }

    /// `None`: it is dropped.
    pub(super) fn admit(&self, to: &ReplyTo, response: &Response) -> Option<InFlight> {
        let customer = to.customer.as_ref()?;
        let place = self.place(customer, paid_for(response).map(OwnPlace::Response))?;
        if response.is_paid() {
            return Some(place);
        }
        let mut counts = self.unpaid_counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.insert(customer) > UNPAID_OF_CUSTOMER {
            tracing::debug!("a customer who has not paid causes too many responses");
            return None;
        }
        let Ok(unpaid) = Arc::clone(&self.unpaid).try_acquire_owned() else {
            tracing::warn!(
                "too many responses are in flight; one that nobody paid for was dropped"
            );
            return None;
        };
        Some(InFlight { _unpaid: Some(unpaid), ..place })
    }

    /// A place for a response that is being made, about this pod or order. `None`: one about it is
    /// being made already, and the customer has too many others.
    pub(super) fn admit_wait(&self, to: &ReplyTo, about: String) -> Option<InFlight> {
        self.place(to.customer.as_ref()?, Some(OwnPlace::Wait(about)))
    }

    fn place(&self, customer: &Customer, own: Option<OwnPlace>) -> Option<InFlight> {
        let of_customer = self.of_customer.try_acquire(customer.clone(), IN_FLIGHT_OF_CUSTOMER);
        if of_customer.is_some() {
            return Some(InFlight { _of_customer: of_customer, ..InFlight::default() });
        }
        let own = own.and_then(|own| self.own.try_acquire((customer.clone(), own), 1));
        if own.is_none() {
            tracing::warn!("too many responses to one customer are in flight; one was dropped");
        }
        own.map(|own| InFlight { _own: Some(own), ..InFlight::default() })
    }
}

/// What of a response was paid for, as a hash: requesting it again adds none. `None`: it holds
/// neither money nor a login, and can be requested again for nothing.
fn paid_for(response: &Response) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    match response {
        Response::Access(access) => ("login", &access.pod_name).hash(&mut hasher),
        Response::ToppedUp(topped_up) => {
            ("top-up", &topped_up.pod_name, &topped_up.new_expires_at).hash(&mut hasher);
        }
        Response::Stopped(stopped) => {
            ("stop", &stopped.pod_name).hash(&mut hasher);
            hash_tokens(&stopped.refunds.refund_tokens, &mut hasher);
        }
        Response::Status(status) => {
            let tokens = status.refund_tokens.as_ref().filter(|tokens| !tokens.is_empty())?;
            hash_tokens(tokens, &mut hasher);
        }
        Response::Error(error) => {
            hash_tokens([error.refund.as_ref()?.refund_token.as_ref()?], &mut hasher);
        }
        Response::Notice(_) => return None,
    }
    Some(hasher.finish())
}

fn hash_tokens<'a>(tokens: impl IntoIterator<Item = &'a Secret>, hasher: &mut DefaultHasher) {
    for token in tokens {
        token.expose().hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::model::ids::{LeaseId, OrderId, PodName};
    use paygress_core::model::order::{Order, OrderState, State};
    use paygress_core::model::order_state::RefundOutcome;
    use paygress_core::model::refusal::{ErrorType, Refusal};
    use paygress_core::model::units::{Seconds, UnixTime};
    use paygress_core::protocol::{access, refused, status, stopped, topped_up};
    use paygress_core::testing;
    use std::collections::BTreeMap;

    /// More than any limit of one customer.
    const MANY: u64 = 1_000;

    fn to(customer: u64) -> ReplyTo {
        let customer = Some(Customer::parse(&format!("{customer:064x}")).unwrap());
        ReplyTo { transport: "nostr".to_owned(), customer, address: BTreeMap::new() }
    }

    /// A refunded order with this token.
    fn refunded(n: u64) -> Order {
        let mut order = testing::order(testing::spawn(), State::Refunded).unwrap();
        if let OrderState::Refunded { refund, .. } = &mut order.state {
            refund.outcome = RefundOutcome::Waiting(Secret::new(format!("cashuB{n}")));
        }
        order
    }

    fn lease(n: u64) -> LeaseId {
        LeaseId::of(&OrderId::parse(format!("{n:016x}")).unwrap())
    }

    fn pod(n: u64) -> PodName {
        lease(n).pod_name()
    }

    fn refusal() -> Refusal {
        Refusal::new(ErrorType::ProvisioningError, "no")
    }

    type Respond = fn(u64) -> Response;

    /// Responses that were paid for, one for each number.
    const PAID: [(&str, Respond); 6] = [
        ("logins", |n| {
            let lease = testing::lease(lease(n), 0, 9);
            access(&lease, None, UnixTime(9), "host", None).into()
        }),
        ("top-ups", |n| topped_up(&pod(0), Seconds(1), UnixTime(n), None)),
        ("stopped pods", |n| stopped(&pod(n), &[], None).into()),
        ("refunds of a stopped pod", |n| stopped(&pod(0), &[&refunded(n)], None).into()),
        ("refunds in a status", |n| {
            status(&testing::lease(lease(0), 0, 9), &[&refunded(n)], "host", UnixTime(1)).into()
        }),
        ("refunds in an error", |n| refused(&refunded(n), &refusal())),
    ];

    /// Responses that cost nothing to request again, and how many of them one customer gets.
    const FREE: [(&str, Respond, usize); 2] = [
        (
            "a status without a refund",
            |n| status(&testing::lease(lease(0), 0, n), &[], "host", UnixTime(1)).into(),
            IN_FLIGHT_OF_CUSTOMER,
        ),
        ("errors", |_| Response::from(&refusal()), 30),
    ];

    fn admitted(admission: &ReplyAdmission, to: &ReplyTo, respond: Respond) -> Vec<InFlight> {
        (0..MANY).filter_map(|n| admission.admit(to, &respond(n))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_paid_for_is_not_dropped_and_all_else_is_bounded() {
        for (name, respond) in PAID {
            let admission = ReplyAdmission::new();
            let all = admitted(&admission, &to(1), respond);
            assert_eq!(all.len(), 1_000, "{name}");
        }
        for (name, respond, most) in FREE {
            let admission = ReplyAdmission::new();
            let in_flight = admitted(&admission, &to(1), respond);
            assert_eq!(in_flight.len(), most, "{name}");
            assert!(admission.admit(&to(2), &respond(0)).is_some(), "{name}: another customer");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requesting_it_again_takes_one_place_beyond_the_limit() {
        for (name, respond) in PAID {
            let admission = ReplyAdmission::new();
            let mut in_flight: Vec<_> =
                (0..MANY).filter_map(|_| admission.admit(&to(1), &respond(0))).collect();
            assert_eq!(in_flight.len(), IN_FLIGHT_OF_CUSTOMER + 1, "{name}");
            assert!(admission.admit(&to(1), &respond(1)).is_some(), "{name}: another one");
            // When it has ended, it may be requested again.
            in_flight.pop();
            assert!(admission.admit(&to(1), &respond(0)).is_some(), "{name}");
            drop(in_flight);
            let key = (to(1).customer.unwrap(), OwnPlace::Response(paid_for(&respond(0)).unwrap()));
            assert_eq!(admission.own.count(&key), 0, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_paid_for_is_dropped_first() {
        let admission = ReplyAdmission::new();
        let error = Response::from(&refusal());
        // Ten of each customer: their own limits leave more.
        let mut in_flight: Vec<_> =
            (0..MANY).filter_map(|n| admission.admit(&to(n / 10), &error)).collect();
        assert_eq!(in_flight.len(), UNPAID_IN_FLIGHT);
        assert!(admission.admit(&to(MANY), &error).is_none());
        for (name, respond) in PAID {
            assert!(admission.admit(&to(0), &respond(0)).is_some(), "{name}");
            assert!(admission.admit(&to(MANY), &respond(0)).is_some(), "{name}: another customer");
        }
        in_flight.pop();
        assert!(admission.admit(&to(MANY), &error).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_paid_for_is_counted_for_a_while() {
        let admission = ReplyAdmission::new();
        let error = Response::from(&refusal());
        // Each has been sent before the next one.
        let count = || (0..MANY).filter(|_| admission.admit(&to(1), &error).is_some()).count();
        assert_eq!(count(), 30);
        tokio::time::advance(UNPAID_WINDOW - Duration::from_secs(1)).await;
        assert_eq!(count(), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(count(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn each_pod_has_one_response_that_is_being_made() {
        let admission = ReplyAdmission::new();
        let wait = |n: u64| admission.admit_wait(&to(1), pod(n).to_string());
        let mut waiting: Vec<_> = (0..MANY).filter_map(wait).collect();
        assert_eq!(waiting.len(), 1_000, "pods that are stopped at once");
        assert!(wait(MANY - 1).is_none(), "the same once more");
        waiting.pop();
        assert!(wait(MANY - 1).is_some());
        let nobody = ReplyTo { customer: None, ..to(1) };
        assert!(admission.admit_wait(&nobody, String::new()).is_none());
    }
}
