//! Replicas of the service, and nodes for all that they sell.

use crate::support::testbed::{AdmissionParameters, FakeNodes, ManyPods, Market, MarketSetup};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

const FIRST_PORT: usize = 20_000;
const POD_MILLICORES: u64 = 100;
/// More than the 110 of a kubelet: thousands of nodes would be measured otherwise.
const PODS_OF_NODE: usize = 700;

pub(super) struct Site {
    // In this order: the service before its pods, and these before their nodes.
    pub(super) market: Market,
    /// The first port beyond those that the service sells.
    pub(super) next_port: usize,
    places: usize,
    _pods: ManyPods,
    _nodes: FakeNodes,
    _parameters: AdmissionParameters,
}

impl Site {
    /// With places for so many leases, and for other pods beside them.
    pub(super) fn start(replicas: usize, places: usize, others: usize) -> Self {
        raise_file_limit();
        let next_port = FIRST_PORT + places;
        let [first, last, last_of_all] =
            [FIRST_PORT, next_port - 1, next_port + others].map(|port| port.to_string());
        let parameters = AdmissionParameters::set(&[
            ("SSH_PORT_RANGE_START", first.as_str()),
            ("SSH_PORT_RANGE_END", last_of_all.as_str()),
        ]);
        let allocatable = json!({
            "cpu": "100",
            "memory": "512Gi",
            "ephemeral-storage": "10Ti",
            "pods": PODS_OF_NODE.to_string(),
        });
        let nodes = FakeNodes::start((places + others).div_ceil(PODS_OF_NODE) + 1, &allocatable);
        let market = Market::start_with(&MarketSetup {
            name: &format!("scale-{replicas}"),
            replicas,
            cpu_millicores: POD_MILLICORES,
            // Longer than the test: a token buys hours.
            pricing: "sats_per_hour = 1",
            settings: &[
                ("SSH_PORT_RANGE_START", first.as_str()),
                ("SSH_PORT_RANGE_END", last.as_str()),
            ],
        });
        let site = Self {
            market,
            next_port,
            places,
            _pods: ManyPods,
            _nodes: nodes,
            _parameters: parameters,
        };
        site.wait_for_room(0);
        site
    }

    /// Waits until all replicas know how many places are left beside so many leases.
    pub(super) fn wait_for_room(&self, leases: usize) {
        self.market.wait_for_room(u64::try_from(self.places - leases).unwrap());
    }
}

/// Of this process, and of the replicas that it starts: each buyer has a connection.
fn raise_file_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}
