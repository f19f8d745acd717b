//! A customer of another network orders over Nostr, and logs in by each way.

use super::networks::{NODE, PUBLIC, Protocol, ROUTER};
use super::session::{Client, LONG, Pod, Way};
use super::{IROH_PORT, LONG_LEASE, RELAY_PORT, SSH_PORT, ServedBy, Setup, Site};
use crate::in_workloads;
use crate::machines::LoginKey;
use crate::support::testbed::{CLUSTER, is_left_out};
use paygress_gateway::{EndpointKey, EndpointOptions};
use std::time::{Duration, Instant};

const BYTES: u64 = 1_000_000;
/// A session by a relay would be given up by then.
const AFTERWARDS: Duration = Duration::from_secs(6);
/// Either end of iroh notices within five seconds that the other is gone, and says so.
const GIVEN_UP: Duration = Duration::from_secs(6);

fn gets_bytes(pod: &Pod, way: Way) {
    let received = pod.run(way, &format!("head -c {BYTES} /dev/zero"));
    assert_eq!(u64::try_from(received.len()).unwrap(), BYTES, "{way:?}");
}

/// A field of this pod's object.
fn field(pod: &Pod, path: &str) -> String {
    let job = format!("batch.kubernetes.io/job-name={}", pod.name());
    let path = format!("jsonpath={{.items[*]{path}}}");
    in_workloads(&["get", "pods", "-l", &job, "-o", &path])
}

/// Nothing of a pod is at the node, and the customer reaches nothing there.
fn nothing_comes_in(site: &Site, pod: &Pod) {
    assert_eq!(field(pod, ".spec.containers[*].ports[*].hostPort"), "");
    assert_eq!(in_workloads(&["get", "service", "-o", "name"]), "");
    let address = field(pod, ".status.podIP");
    for (host, port) in [(ROUTER, SSH_PORT), (NODE, SSH_PORT), (address.as_str(), 2_222)] {
        assert!(!site.networks.customer_connects(host, port), "{host}:{port}");
    }
    // That it could, where something listens.
    assert!(site.networks.customer_connects(PUBLIC, RELAY_PORT));
}

/// The session of a direct path outlives the relay, and who comes then needs none.
fn the_relay_dies(site: &mut Site, pod: &Pod) {
    let mut session = pod.session(Way::Iroh);
    let started = Instant::now();
    loop {
        let before = site.relay().number("bytes");
        session.echoes(&[7; 100_000]);
        if site.relay().number("bytes") - before < 50_000 {
            break;
        }
        assert!(started.elapsed() < LONG, "there is no direct path");
    }
    site.relay.take().unwrap().kill();
    let killed = Instant::now();
    // The subject is time: what goes by the relay would be given up meanwhile.
    while killed.elapsed() < AFTERWARDS {
        session.echoes(b"still here");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Lines of `known_hosts` where this host has another key.
fn with_another_key(known_hosts: &str, of_host: impl Fn(&str) -> bool) -> String {
    let other = LoginKey::new().public();
    let lines = known_hosts.lines().map(|line| {
        let (host, _) = line.split_once(' ').unwrap();
        if of_host(host) { format!("{host} {other}") } else { line.to_owned() }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The ticket of another endpoint that claims to be where the gateway is.
fn forged_ticket() -> String {
    let mut options = EndpointOptions::new(EndpointKey::generate());
    options.external = vec![format!("{ROUTER}:{IROH_PORT}").parse().unwrap()];
    options.ticket().to_string()
}

fn others_are_refused(pod: &Pod, other: &Pod) {
    let (jump, iroh) = (pod.client(Way::JumpHost), pod.client(Way::Iroh));
    // The login of a live lease, which is another customer's.
    other.run(Way::JumpHost, "true");
    pod.refuses(&Client { key: &other.key, ..jump }, "Permission denied");
    // By iroh the gateway knows no logins: the pod does.
    pod.refuses(&Client { key: &other.key, ..iroh }, "Permission denied");

    let failed = "Host key verification failed";
    let is_gateway = |host: &str| host.contains(ROUTER);
    let is_pod = |host: &str| host == pod.name();
    for (client, known_hosts) in [
        (&jump, with_another_key(jump.known_hosts, is_gateway)),
        (&jump, with_another_key(jump.known_hosts, is_pod)),
        (&iroh, with_another_key(iroh.known_hosts, is_pod)),
    ] {
        assert_ne!(known_hosts, client.known_hosts);
        pod.refuses(&Client { known_hosts: &known_hosts, ..*client }, failed);
    }

    let ticket = pod.way(Way::Iroh)["ticket"].as_str().unwrap();
    let forged = iroh.command.replace(ticket, &forged_ticket());
    assert_ne!(forged, iroh.command);
    pod.refuses(&Client { command: &forged, ..iroh }, "the gateway does not answer");
    let damaged = iroh.command.replace(ticket, &ticket[..ticket.len() - 4]);
    pod.refuses(&Client { command: &damaged, ..iroh }, "not a gateway's ticket");
    let unknown = iroh.command.replace(pod.name(), "ssh-pod-zzzzzzzzzz");
    pod.refuses(&Client { command: &unknown, ..iroh }, "the gateway knows no such pod");
}

/// Where the service serves the gateway, its end is that of the sessions. The pod stays.
fn the_end_of_the_service_is_shown(site: &mut Site, pod: &Pod) {
    let (iroh, jump) = (pod.session(Way::Iroh), pod.session(Way::JumpHost));
    site.testbed.stop_service();
    let shown = iroh.end(GIVEN_UP);
    println!("the service was stopped; a customer of iroh reads: {shown}");
    assert!(shown.contains("connect again"), "{shown}");
    let shown = jump.end(GIVEN_UP);
    println!("and one of the jump host: {shown}");
    assert!(shown.contains("the gateway is being stopped: connect again"), "{shown}");
    assert_eq!(field(pod, ".status.phase"), "Running");
    site.testbed.restart_service();
    gets_bytes(pod, Way::JumpHost);
    gets_bytes(pod, Way::Iroh);
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn customers_of_another_network_reach_their_pods_by_each_way_and_no_others() {
    let _alone = CLUSTER.lock();
    let mut site = Site::start(&Setup::new("reach-ways", ServedBy::Service));
    let pod = site.buy(LONG_LEASE);
    site.wait_for_relay();

    // Both behind routers that let nothing in: by the relay of iroh.
    nothing_comes_in(&site, &pod);
    let before = site.relay().number("bytes");
    gets_bytes(&pod, Way::Iroh);
    let relayed = site.relay().number("bytes") - before;
    assert!(relayed > BYTES, "{relayed} bytes went by the relay");

    // One UDP port is forwarded: directly.
    let udp = site.networks.forward(Protocol::Udp, &IROH_PORT.to_string());
    if is_left_out("a_relay_s_death_leaves_a_direct_session_alone of host/gateway") {
        site.relay.take().unwrap().kill();
    } else {
        the_relay_dies(&mut site, &pod);
    }
    gets_bytes(&pod, Way::Iroh);

    // One TCP port is: by the jump host.
    drop(udp);
    let tcp = site.networks.forward(Protocol::Tcp, &SSH_PORT.to_string());
    gets_bytes(&pod, Way::JumpHost);

    drop(tcp);
    let _forwarded = site.forward_gateway();
    others_are_refused(&pod, &site.buy_as_another(LONG_LEASE));
    if !is_left_out("the_end_of_a_lease_cuts_its_sessions_and_no_others of host/gateway") {
        the_end_of_the_service_is_shown(&mut site, &pod);
    }
}
