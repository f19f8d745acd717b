//! A customer in another network than the node, each behind a router that translates addresses and
//! lets nothing in, with a network between them, where relays and the mint are.
//!
//! ```text
//! node (the test's namespace) ── router-a ── public ── router-b ── customer
//!    198.18.102.2        …102.1   …100.2   …100.1, …101.1  …101.2   198.18.103.2
//! ```

use crate::support::testbed::{in_namespace, output};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Of the node, behind its router.
pub(super) const NODE: &str = "198.18.102.2";
/// The node's router, from outside: what customers connect to, if it forwards that.
pub(super) const ROUTER: &str = "198.18.100.2";
/// Where relays and mint are.
pub(super) const PUBLIC: &str = "198.18.100.1";

/// The node's interface. Only one of these is in a namespace: tests of the cluster take turns.
const DEVICE: &str = "reach";
const NAMES: [&str; 4] = ["public", "router-a", "router-b", "customer"];
const ROUTING: [&str; 3] = ["public", "router-a", "router-b"];
/// Upper and lower network, the upper one's interface, and the addresses of both ends.
const LINKS: [[&str; 5]; 3] = [
    ["public", "router-a", "to-a", PUBLIC, ROUTER],
    ["public", "router-b", "to-b", "198.18.101.1", "198.18.101.2"],
    ["router-b", "customer", "lan", "198.18.103.1", "198.18.103.2"],
];

/// Network namespaces of this test; they are removed with this.
pub(super) struct Networks {
    prefix: String,
}

/// Something that the node's router forwards to the node; no longer, once this is dropped. What is
/// connected stays so.
pub(super) struct Forward {
    router: String,
    rule: String,
}

#[derive(Clone, Copy)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

fn run(command: &str) {
    let mut parts = command.split(' ');
    output(Command::new(parts.next().unwrap()).args(parts));
}

fn iptables(namespace: &str, rule: &str) -> Command {
    let mut command = in_namespace(Some(namespace), "iptables");
    // Others hold its lock now and then.
    command.args(["-w", "10"]).args(rule.split(' '));
    command
}

impl Networks {
    pub(super) fn start() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let networks = Self { prefix: format!("paygress-reach-{}-{number}", std::process::id()) };
        for name in NAMES {
            let network = networks.name(name);
            run(&format!("ip netns add {network}"));
            run(&format!("ip -n {network} link set dev lo up"));
        }
        for link in LINKS {
            networks.link(link);
        }
        networks.link_node();
        for name in ROUTING {
            let mut enter = in_namespace(Some(&networks.name(name)), "sh");
            output(enter.args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]));
        }
        for router in ["router-a", "router-b"] {
            for rule in [
                "-t nat -A POSTROUTING -o uplink -j MASQUERADE --random-fully",
                "-A FORWARD -i uplink -m conntrack --ctstate DNAT -j ACCEPT",
                "-A FORWARD -i uplink -m conntrack --ctstate NEW -j DROP",
            ] {
                output(&mut iptables(&networks.name(router), rule));
            }
        }
        networks
    }

    pub(super) fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub(super) fn customer(&self) -> String {
        self.name("customer")
    }

    fn link(&self, [upper, lower, device, above, below]: [&str; 5]) {
        let (upper, lower) = (self.name(upper), self.name(lower));
        for command in [
            format!("-n {upper} link add name {device} type veth peer name uplink netns {lower}"),
            format!("-n {upper} address add {above}/24 dev {device}"),
            format!("-n {lower} address add {below}/24 dev uplink"),
            format!("-n {upper} link set dev {device} up"),
            format!("-n {lower} link set dev uplink up"),
            format!("-n {lower} route add default via {above}"),
        ] {
            run(&format!("ip {command}"));
        }
    }

    /// The node's own uplink stays its default route.
    fn link_node(&self) {
        let router = self.name("router-a");
        // Of a run that was killed.
        let _ = Command::new("ip").args(["link", "delete", DEVICE]).output();
        for command in [
            format!("link add name {DEVICE} type veth peer name lan netns {router}"),
            format!("-n {router} address add 198.18.102.1/24 dev lan"),
            format!("-n {router} link set dev lan up"),
            format!("address add {NODE}/24 dev {DEVICE}"),
            format!("link set dev {DEVICE} up"),
            "route add 198.18.100.0/22 via 198.18.102.1".to_owned(),
        ] {
            run(&format!("ip {command}"));
        }
    }

    /// The node's router forwards these of its ports, `80` or `80:89`, to the same ports of the node.
    pub(super) fn forward(&self, protocol: Protocol, ports: &str) -> Forward {
        let protocol = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let rule = format!(
            "PREROUTING -i uplink -p {protocol} --dport {ports} -j DNAT --to-destination {NODE}"
        );
        let router = self.name("router-a");
        output(&mut iptables(&router, &format!("-t nat -A {rule}")));
        Forward { router, rule }
    }

    /// Adds addresses to the public network, and gives them.
    pub(super) fn add_public_addresses(&self, count: u8) -> Vec<String> {
        let public = self.name("public");
        let addresses = (11..).take(count.into()).map(|number| format!("198.18.100.{number}"));
        let addresses: Vec<String> = addresses.collect();
        for address in &addresses {
            run(&format!("ip -n {public} address add {address}/24 dev to-a"));
        }
        addresses
    }

    /// Whether the customer can open a TCP connection.
    pub(super) fn customer_connects(&self, host: &str, port: u16) -> bool {
        let mut connect = in_namespace(Some(&self.customer()), "timeout");
        connect.args(["2", "bash", "-c", &format!("exec 3<>/dev/tcp/{host}/{port}")]);
        connect.stderr(Stdio::null()).status().unwrap().success()
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", DEVICE]).output();
        for name in NAMES {
            let _ = Command::new("ip").args(["netns", "delete", &self.name(name)]).output();
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = iptables(&self.router, &format!("-t nat -D {}", self.rule)).output();
    }
}
