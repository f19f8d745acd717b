//! What the orders of one customer are decided by: what they have ordered themselves, and not what
//! others have ordered in their name with forged tokens.

use crate::Service;
use crate::support::fake::{new_order, spawn};
use paygress_core::backend::policy::{Context, CustomerHistory};
use paygress_core::backend::store::{DecisionStore, LeaseUpdate, OrderStore};
use paygress_core::model::ids::{Customer, LeaseId, OrderId};
use paygress_core::model::order::{Lease, State};
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Sat, UnixTime};
use paygress_core::orders::{NewOrder, Submission};
use paygress_core::protocol::Response;
use paygress_core::testing;
use tokio::sync::Semaphore;

fn customer() -> Customer {
    Customer::of_bearer(&Secret::new("the bearer token of a customer"))
}

/// An order of the customer's own.
fn own(token: &str) -> NewOrder {
    new_order(customer(), token.to_owned(), spawn(None, None))
}

/// One that names them.
fn named(token: &str) -> NewOrder {
    let order = own(token);
    NewOrder { reply_to: order.reply_to.named_by_payer(), ..order }
}

impl Service {
    async fn order(&self, order: NewOrder) -> Submission {
        self.orders.submit(order).await.unwrap()
    }

    async fn history(&self) -> CustomerHistory {
        let customer = customer();
        let basis = self.ledger.decision_basis(Some(&customer), None, UnixTime::now()).await;
        basis.unwrap().customer.unwrap().history
    }

    /// What the policies have seen when they decided on this order.
    async fn context(&self, order: &OrderId) -> Context {
        let order = self.ledger.order(order).await.unwrap().unwrap();
        order.state.agreement().unwrap().decision.context.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_tokens_fill_no_history_but_their_senders_own() {
    let service = Service::closed(50).await;
    let forged = service.order(named("forged-a-1")).await;
    assert_eq!(service.history().await, CustomerHistory::default(), "before it is decided");
    service.mint.verifying.add_permits(Semaphore::MAX_PERMITS);
    service.until(State::Redeeming, 1).await;
    assert_eq!(service.history().await, CustomerHistory::default(), "and after");
    // It has a place.
    let own_order = service.order(own("plain-a-2")).await;
    service.until(State::Redeeming, 2).await;
    let seen = service.context(own_order.order()).await;
    assert_eq!(
        (seen.history, seen.customer_leases),
        (Some(CustomerHistory::default()), Vec::new())
    );
    // What the customer orders counts at once, also for a payer who names them.
    let paid = service.order(named("honest-a-3")).await;
    service.until(State::Redeeming, 3).await;
    let seen = service.context(paid.order()).await;
    let leases: Vec<String> = seen.customer_leases.into_iter().map(|lease| lease.id).collect();
    let id = LeaseId::of(own_order.order()).to_string();
    assert_eq!((seen.history.unwrap().orders, leases), (1, vec![id]));
    service.mint.swapping.add_permits(Semaphore::MAX_PERMITS);
    for submission in [own_order, paid] {
        let answer = submission.answer().await.unwrap();
        assert!(matches!(answer, Response::Access(_)), "{answer:?}");
    }
    assert!(forged.answer().await.unwrap().error().is_some());
    let history = service.history().await;
    assert_eq!((history.orders, history.last_day_paid), (2, Sat(20)), "what is paid for counts");
}

/// One that is decided again, after a restart, has a lease already.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_not_decided_by_its_own_lease() {
    let service = Service::closed(50).await;
    let submission = service.order(own("plain-a-1")).await;
    let id = submission.order().clone();
    let order = service.ledger.order(&id).await.unwrap().unwrap();
    let lease = Lease { customer: Some(customer()), ..testing::reserved_lease(&id) };
    let put = LeaseUpdate::Put(&lease);
    service.ledger.transition(&order, State::Received, put).await.unwrap();
    service.mint.verifying.add_permits(Semaphore::MAX_PERMITS);
    service.until(State::Redeeming, 1).await;
    assert!(service.context(&id).await.customer_leases.is_empty());
    service.mint.swapping.add_permits(Semaphore::MAX_PERMITS);
    let answer = submission.answer().await.unwrap();
    assert!(matches!(answer, Response::Access(_)), "{answer:?}");
}

/// As customers with a pod are served where forged tokens have shut a mint.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_names_a_customer_with_a_pod_takes_no_place_of_theirs() {
    let service = Service::fast().await;
    let answer = async |order| service.order(order).await.answer().await.unwrap();
    let bought = answer(own("honest-a-f0000")).await;
    assert!(matches!(bought, Response::Access(_)), "{bought:?}");
    for number in 0..100 {
        service.submit("lost", "a", number).await.unwrap();
    }
    service.until_unpaid(100).await;
    let refused = answer(named("plain-a-f0001")).await;
    assert_eq!(refused.error().unwrap().error_type, ErrorType::MintNetworkError);
    let served = answer(own("plain-a-f0002")).await;
    assert!(matches!(served, Response::Access(_)), "{served:?}");
}
