//! How full the nodes are, as the policies of an order see it.

use crate::support::fake::{
    FakeCluster, FakeWallet, Generous, NullResponder, new_order, settings, spawn,
};
use async_trait::async_trait;
use paygress_core::Cluster;
use paygress_core::backend::capacity::{
    Capacity, Demand, NoCapacity, Reservation, Tier, Utilisation,
};
use paygress_core::backend::cluster::CapacitySource;
use paygress_core::backend::store::OrderStore;
use paygress_core::model::ids::Customer;
use paygress_core::orders::{Backends, OrderService};
use paygress_core::protocol::Response;
use paygress_store::SqlStore;
use paygress_store::db::testing::fast_directory;
use std::sync::Arc;

/// How much of the nodes' CPU each reservation takes, in thousandths; none where only a quota is
/// known.
#[derive(Clone, Copy)]
struct Nodes(Option<u32>);

impl Capacity for Nodes {
    fn check(&self, _: &[Reservation], _: &Demand) -> Result<(), NoCapacity> {
        Ok(())
    }
    fn fits(&self, _: &[Reservation], _: &Tier) -> Result<(), NoCapacity> {
        Ok(())
    }
    fn count(&self, _: &[Reservation], _: &Tier, most: u32) -> u32 {
        most
    }
    fn utilisation(&self) -> Utilisation {
        Utilisation { cpu: 999, memory: 999 }
    }
    fn node_utilisation(&self, reserved: &[Reservation]) -> Option<Utilisation> {
        let pods = u32::try_from(reserved.len()).unwrap();
        self.0.map(|share| Utilisation { cpu: share.saturating_mul(pods), memory: 0 })
    }
}

#[async_trait]
impl CapacitySource for Nodes {
    async fn capacity(&self) -> Option<Arc<dyn Capacity>> {
        Some(Arc::new(*self))
    }
}

/// It is recorded with the decision, and counts what orders before it have reserved.
#[tokio::test(flavor = "multi_thread")]
async fn decisions_know_how_full_the_nodes_are() {
    for (share, expected) in [(Some(100), [Some(0), Some(100)]), (None, [None, None])] {
        let directory = fast_directory().unwrap();
        let ledger = SqlStore::sqlite(&directory.path().join("ledger.sqlite")).await.unwrap();
        let ledger = Arc::new(ledger.with_reserve(0));
        let pods = Cluster::from(Arc::new(FakeCluster::default()));
        let backends = Backends {
            wallet: Arc::new(FakeWallet),
            policy: Arc::new(Generous),
            cluster: Cluster { capacity: Arc::new(Nodes(share)), ..pods },
            ledger: ledger.clone(),
            responder: Arc::new(NullResponder),
        };
        let orders = OrderService::new(settings(), backends);
        for (number, expected) in expected.into_iter().enumerate() {
            let customer = Customer::parse(&format!("{number:064x}")).unwrap();
            let order = new_order(customer, format!("10-{number}"), spawn(None, None));
            let submission = orders.submit(order).await.unwrap();
            let id = submission.order().clone();
            let answer = submission.answer().await.unwrap();
            assert!(matches!(answer, Response::Access(_)), "{answer:?}");
            let order = ledger.order(&id).await.unwrap().unwrap();
            let context = &order.state.agreement().unwrap().decision.context;
            assert_eq!(context.utilisation.map(|nodes| nodes.cpu), expected, "order {number}");
        }
    }
}
