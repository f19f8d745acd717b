//! How full the nodes are, as the policies of an order see it.

use crate::support::fake::{
    FakeCluster, FakeWallet, Generous, NullResponder, new_order, settings, spawn,
};
use paygress_core::Cluster;
use paygress_core::backend::store::OrderStore;
use paygress_core::model::ids::Customer;
use paygress_core::model::units::UnixTime;
use paygress_core::orders::{Backends, OrderService};
use paygress_core::protocol::Response;
use paygress_core::testing::SharedNodes;
use paygress_store::SqlStore;
use paygress_store::db::testing::fast_directory;
use std::sync::Arc;

/// It is recorded with the decision, and counts what orders before it have reserved. The operator sees
/// the same.
#[tokio::test(flavor = "multi_thread")]
async fn decisions_know_how_full_the_nodes_are() {
    for (share, expected, last) in
        [(Some(100), [Some(0), Some(100)], Some(200)), (None, [None, None], None)]
    {
        let directory = fast_directory().unwrap();
        let ledger = SqlStore::sqlite(&directory.path().join("ledger.sqlite")).await.unwrap();
        let ledger = Arc::new(ledger.with_reserve(0));
        let pods = Cluster::from(Arc::new(FakeCluster::default()));
        let backends = Backends {
            wallet: Arc::new(FakeWallet),
            policy: Arc::new(Generous),
            cluster: Cluster { capacity: Arc::new(SharedNodes(share)), ..pods },
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
        let overview = orders.overview(UnixTime(0)).await.unwrap();
        assert_eq!(overview.utilisation.map(|nodes| nodes.cpu), last);
    }
}
