//! Pods without ports, and customers in another network: nothing of theirs comes in at the node but
//! what its router forwards to the gateway. In `deployed`, both are pods of the cluster.
//!
//! The tests of `host/gateway` show in process what the short form leaves out.

mod crowd;
mod deployed;
mod figures;
mod leases;
mod networks;
mod process;
mod programs;
mod session;
mod ways;

use crate::machines::{LoginKey, SERVER};
use crate::support::testbed::{AdmissionParameters, Place, Testbed, wait_for};
use networks::{Forward, NODE, Networks, PUBLIC, Protocol, ROUTER};
use paygress_store::db::testing::Server;
use programs::{Program, RELAY, Settings};
use serde_json::{Value, json};
use session::{LONG, Pod};

const MNEMONIC: &str =
    "legal winner thank year wave sausage worth useful legal winner thank yellow";
/// The gateway's ports at the node.
const SSH_PORT: u16 = 2_222;
const IROH_PORT: u16 = 4_433;
/// Where the relay of iroh listens, in the public network.
const RELAY_PORT: u16 = 3_340;
/// Longer than a test: 600 seconds after the mint's fee.
const LONG_LEASE: u64 = 121;
const TINY: &str = "id = \"tiny\", cpu_millicores = 100, memory_mib = 64";

/// What serves the gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ServedBy {
    Service,
    Process,
}

/// What a site is started with.
struct Setup<'a> {
    name: &'a str,
    served_by: ServedBy,
    tier: &'a str,
    /// Settings that are parameters of the admission policy too.
    shared: &'a [(&'a str, &'a str)],
    /// Other settings.
    own: &'a [(&'a str, &'a str)],
}

impl<'a> Setup<'a> {
    /// Pods without ports.
    fn new(name: &'a str, served_by: ServedBy) -> Self {
        let (shared, own) =
            (&[("ACCESS", "gateway"), ("SSH_SERVER_IMAGE", SERVER)], &[("MAX_LEASES", "8")]);
        Self { name, served_by, tier: TINY, shared, own }
    }
}

/// A service behind a router, a relay of iroh, and customers elsewhere.
struct Site {
    /// None once it is dead.
    relay: Option<Program>,
    // In this order: the service before what it talks to.
    testbed: Testbed,
    _database: Option<Server>,
    _parameters: AdmissionParameters,
    networks: Networks,
}

/// As an operator behind a router has it: see docs/operating.md.
fn gateway_settings() -> Vec<(&'static str, String)> {
    vec![
        ("SSH_HOST", ROUTER.to_owned()),
        ("GATEWAY_SSH_LISTEN", format!("{NODE}:{SSH_PORT}")),
        ("GATEWAY_SSH_HOST", ROUTER.to_owned()),
        ("GATEWAY_IROH", "true".to_owned()),
        ("GATEWAY_IROH_BIND", format!("{NODE}:{IROH_PORT}")),
        ("GATEWAY_IROH_EXTERNAL", format!("{ROUTER}:{IROH_PORT}")),
        ("GATEWAY_IROH_RELAYS", format!("http://{PUBLIC}:{RELAY_PORT}")),
        ("GATEWAY_POD_NETWORK", "pod-network".to_owned()),
    ]
}

impl Site {
    fn start(setup: &Setup<'_>) -> Self {
        let networks = Networks::start();
        let address = format!("{PUBLIC}:{RELAY_PORT}");
        let listen = Settings { address: &address, ..Settings::default() };
        let mut relay = Program::start(RELAY, &networks.name("public"), &listen);
        assert_eq!(relay.number("bytes"), 0, "it listens");
        let parameters = AdmissionParameters::set(setup.shared);
        let database = (setup.served_by == ServedBy::Process).then(|| Server::start().unwrap());
        let mut settings: Vec<(&str, String)> = gateway_settings();
        let given = setup.shared.iter().chain(setup.own);
        settings.extend(given.map(|(name, value)| (*name, (*value).to_owned())));
        if let Some(database) = &database {
            settings.extend([
                ("GATEWAY_IN_SERVICE", "false".to_owned()),
                ("DATABASE_URL", database.url().expose().to_owned()),
                ("WALLET_MNEMONIC", MNEMONIC.to_owned()),
            ]);
        }
        let environment: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let place = Place {
            host: PUBLIC.to_owned(),
            servers: Some(networks.name("public")),
            customer: Some(networks.customer()),
        };
        let file = format!(
            "[policy.duration]\nminimum_seconds = 5\n[policy.pricing]\nsats_per_hour = 720\ntiers = [{{ {} }}]\n",
            setup.tier
        );
        let testbed = Testbed::start_in(place, setup.name, &file, &environment);
        let (relay, _database, _parameters) = (Some(relay), database, parameters);
        Self { relay, testbed, _database, _parameters, networks }
    }

    fn relay(&mut self) -> &mut Program {
        self.relay.as_mut().expect("it is there")
    }

    fn wait_for_relay(&mut self) {
        let relay = self.relay();
        wait_for("the gateway at its relay", LONG, || relay.number("clients") > 0);
    }

    /// The router forwards what the gateway needs, as long as these live.
    fn forward_gateway(&self) -> [Forward; 2] {
        [
            self.networks.forward(Protocol::Tcp, &SSH_PORT.to_string()),
            self.networks.forward(Protocol::Udp, &IROH_PORT.to_string()),
        ]
    }

    /// A pod for so many sats, ordered over Nostr from the customer's network.
    fn buy(&self, sat: u64) -> Pod {
        self.buy_by(sat, |order| self.testbed.ask(order))
    }

    fn buy_as_another(&self, sat: u64) -> Pod {
        self.buy_by(sat, |order| self.testbed.ask_as_another(order))
    }

    fn buy_by(&self, sat: u64, ask: impl FnOnce(&Value) -> Value) -> Pod {
        let key = LoginKey::new();
        let token = self.testbed.token(sat);
        let order =
            json!({"cashu_token": token, "ssh_username": "alice", "ssh_public_key": key.public()});
        let answer = ask(&order);
        assert_eq!(answer["error_type"], Value::Null, "{}", answer["message"]);
        Pod { answer, key, namespace: Some(self.networks.customer()) }
    }
}
