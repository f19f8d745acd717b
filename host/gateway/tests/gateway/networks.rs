//! A gateway and a customer behind two routers that let nothing in, in network namespaces: they
//! meet at a relay between them.

use crate::openssh::{Customer, command, output, text};
use crate::process::{self, CLIENT, GATEWAY, Process, RELAY, Settings};
use crate::support::alice;
use std::process::Command;

/// Where the relay is, the two routers, and what is behind each.
const NAMES: [&str; 5] = ["public", "router-a", "router-b", "gateway", "customer"];
const ROUTING: [&str; 3] = ["public", "router-a", "router-b"];
/// Upper and lower network, the upper one's interface, and the addresses of both ends.
const LINKS: [[&str; 5]; 4] = [
    ["public", "router-a", "to-a", "198.51.100.1", "198.51.100.2"],
    ["public", "router-b", "to-b", "203.0.113.1", "203.0.113.2"],
    ["router-a", "gateway", "lan", "10.1.0.1", "10.1.0.2"],
    ["router-b", "customer", "lan", "10.2.0.1", "10.2.0.2"],
];
const RELAY_ADDRESS: &str = "198.51.100.1:3340";
const BYTES: u64 = 1_000_000;

/// Network namespaces of this process; they are removed with this.
struct Networks {
    prefix: String,
}

fn run(command: &str) {
    let mut parts = command.split(' ');
    let done = Command::new(parts.next().unwrap()).args(parts).output().unwrap();
    assert!(done.status.success(), "{command}: {}", text(&done.stderr));
}

impl Networks {
    fn start() -> Self {
        let networks = Self { prefix: format!("paygress-{}", std::process::id()) };
        for name in NAMES {
            let network = networks.name(name);
            run(&format!("ip netns add {network}"));
            run(&format!("ip -n {network} link set dev lo up"));
        }
        for link in LINKS {
            networks.link(link);
        }
        for name in ROUTING {
            let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
            let mut enter = Command::new("nsenter");
            enter.arg(networks.file(name)).args(["sh", "-c", forward]);
            assert!(enter.status().unwrap().success(), "{forward}");
        }
        for router in ["router-a", "router-b"] {
            for rule in [
                "-t nat -A POSTROUTING -o uplink -j MASQUERADE --random-fully",
                "-A FORWARD -i uplink -m conntrack --ctstate NEW -j DROP",
            ] {
                run(&format!("nsenter {} iptables {rule}", networks.file(router)));
            }
        }
        networks
    }

    fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// As `nsenter` takes it.
    fn file(&self, name: &str) -> String {
        format!("--net=/var/run/netns/{}", self.name(name))
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

    /// Logs in with OpenSSH's client, from this network by a client of the gateway there, and gets
    /// bytes. The exit code, how many came, and what it printed.
    async fn login(&self, customer: &Customer, name: &str, ticket: &str) -> (i32, u64, String) {
        let network = self.name(name);
        let settings = Settings { network: Some(&network), ticket, ..Settings::default() };
        let mut client = Process::start(CLIENT, &settings);
        let port = client.value("port");
        let mut all = vec!["nsenter".to_owned(), self.file(name)];
        all.extend(customer.arguments(60, "ssh"));
        let mut ssh = command(&all);
        ssh.args(["-o", &format!("HostKeyAlias={}", alice()), "-p", &port, "alice@127.0.0.1"]);
        ssh.arg(format!("head -c {BYTES} /dev/zero; exit 3"));
        let done = output(ssh).await;
        let received = u64::try_from(done.stdout.len()).unwrap();
        (done.status.code().unwrap(), received, text(&done.stderr))
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for name in NAMES {
            let _ = Command::new("ip").args(["netns", "delete", &self.name(name)]).output();
        }
    }
}

/// Whether there can be networks; in CI there must.
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        assert!(std::env::var_os("CI").is_none(), "needs root");
        println!("NOT RUN: needs root");
    }
    is_root
}

#[tokio::test(flavor = "multi_thread")]
async fn two_behind_routers_meet_at_the_relay_and_two_of_one_network_need_none() {
    if !is_root() {
        return;
    }
    let networks = Networks::start();
    let customer = Customer::new();
    let pod_key = customer.own.to_openssh().unwrap();
    let (public, private) = (networks.name("public"), networks.name("gateway"));
    let settings =
        Settings { network: Some(&public), listen: RELAY_ADDRESS, ..Settings::default() };
    let mut relay = Process::start(RELAY, &settings);
    let url = relay.value("url");
    let settings =
        Settings { network: Some(&private), relay: &url, pod_key: &pod_key, ..Settings::default() };
    let mut gateway = Process::start(GATEWAY, &settings);
    let known = [(alice().to_string(), gateway.value("host-key"))];
    let known = known.each_ref().map(|(host, line)| (host.clone(), line.as_str()));
    customer.configure(&known, ["publickey"; 2], "own");
    process::until(&mut relay, "clients", |count| count > 0).await;
    let ticket = gateway.value("ticket");

    let done = networks.login(&customer, "customer", &ticket).await;
    assert_eq!((done.0, done.1), (3, BYTES), "{}", done.2);
    let relayed = relay.number("bytes");
    assert!(relayed > BYTES, "{relayed} bytes went by the relay");

    relay.kill();
    let done = networks.login(&customer, "gateway", &ticket).await;
    assert_eq!((done.0, done.1), (3, BYTES), "without the relay: {}", done.2);
}
