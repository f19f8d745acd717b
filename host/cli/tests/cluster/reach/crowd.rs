//! Connections to `paygress gateway` that do not log in: it serves on, and its memory is bounded.

use super::networks::ROUTER;
use super::programs::{CROWD, Program, Settings, raise_file_limit};
use super::session::{Pod, Way};
use super::{LONG_LEASE, SSH_PORT, ServedBy, Setup, Site};
use crate::support::testbed::{CLUSTER, is_left_out};
use std::time::{Duration, Instant};

/// From the customer's own network, and as many from others.
const HALF: usize = 5_000;
const OTHER_SOURCES: u8 = 8;
/// What a crowd may cost, in KiB: if each had its 40 kB, it would be 400 MB.
const MEMORY: u64 = 100 << 10;
/// A login may take so much longer than without a crowd.
const SLOWER: Duration = Duration::from_secs(3);

fn login(pod: &Pod, way: Way) -> Duration {
    let started = Instant::now();
    pod.run(way, "true");
    started.elapsed()
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn ten_thousand_idle_connections_leave_the_process_serving() {
    if is_left_out("ten_thousand_idle_connections_leave_the_jump_host_serving of host/gateway") {
        return;
    }
    let _alone = CLUSTER.lock();
    raise_file_limit();
    let site = Site::start(&Setup::new("reach-crowd", ServedBy::Process));
    let _forwarded = site.forward_gateway();
    let gateway = site.testbed.start_gateway();
    let pod = site.buy(LONG_LEASE);
    let usual = [Way::JumpHost, Way::Iroh].map(|way| login(&pod, way));
    let before = gateway.memory("VmRSS:");

    let address = format!("{ROUTER}:{SSH_PORT}");
    let sources = site.networks.add_public_addresses(OTHER_SOURCES).join(",");
    let networks = [
        (site.networks.customer(), "198.18.103.2"),
        (site.networks.name("public"), sources.as_str()),
    ];
    let started = Instant::now();
    let mut crowds = networks.map(|(namespace, sources)| {
        let settings = Settings { address: &address, sources, count: HALF, ..Settings::default() };
        Program::start(CROWD, &namespace, &settings)
    });
    let opened: u64 = crowds.iter_mut().map(|crowd| crowd.number("opened")).sum();
    println!("{opened} connections in {:?}", started.elapsed());
    assert_eq!(opened, 2 * u64::try_from(HALF).unwrap());

    for (way, usual) in [Way::JumpHost, Way::Iroh].into_iter().zip(usual) {
        let during = login(&pod, way);
        println!("{}: a login takes {usual:?}, and {during:?} meanwhile", way.as_str());
        assert!(during < usual + SLOWER, "{way:?}: {during:?}");
    }
    let (after, most) = (gateway.memory("VmRSS:"), gateway.memory("VmHWM:"));
    println!("the gateway's memory: {before} KiB before, {most} at most, {after} with the crowd");
    assert!(most.saturating_sub(before) < MEMORY, "{most} KiB");
    let opened: u64 = crowds.iter_mut().map(|crowd| crowd.number("opened")).sum();
    assert_eq!(opened, 2 * u64::try_from(HALF).unwrap(), "they are there to the end");
}
