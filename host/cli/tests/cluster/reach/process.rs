//! The gateway as a process of its own, `paygress gateway`.

use super::session::{Pod, Session, Way};
use super::{LONG_LEASE, ServedBy, Setup, Site};
use crate::support::testbed::CLUSTER;
use std::time::{Duration, Instant};

pub(super) const WAYS: [Way; 2] = [Way::JumpHost, Way::Iroh];
/// From a gateway's death to the end of its sessions.
pub(super) const GIVEN_UP: Duration = Duration::from_secs(5);
/// A login at a gateway that has just started: the testbed shares its cores with other programs.
const AT_ONCE: Duration = Duration::from_secs(5);

pub(super) fn sessions(pod: &Pod) -> [Session; 2] {
    WAYS.map(|way| pod.session(way))
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_restart_of_the_service_leaves_sessions_alone_and_a_killed_gateway_s_end_soon() {
    let _alone = CLUSTER.lock();
    let mut site = Site::start(&Setup::new("reach-process", ServedBy::Process));
    let _forwarded = site.forward_gateway();
    let gateway = site.testbed.start_gateway();
    let pod = site.buy(LONG_LEASE);
    let mut open = sessions(&pod);

    site.testbed.restart_service();
    for session in &mut open {
        session.echoes(b"still here");
    }

    gateway.kill();
    let killed = Instant::now();
    // As docs/buying.md has it.
    let texts = ["closed", "the connection to the gateway was lost: connect again"];
    for ((way, session), text) in WAYS.into_iter().zip(open).zip(texts) {
        let shown = session.end(GIVEN_UP.saturating_sub(killed.elapsed()));
        println!("{}: ended after {:?}: {shown}", way.as_str(), killed.elapsed());
        assert!(shown.contains(text), "{}: {shown}", way.as_str());
    }

    // With the same keys: the ticket, the addresses and the host keys of the first answer are good.
    let _gateway = site.testbed.start_gateway();
    for way in WAYS {
        let started = Instant::now();
        assert_eq!(pod.run(way, "echo $USER is here"), b"alice is here\n", "{way:?}");
        let took = started.elapsed();
        println!("{}: logged in after {took:?}", way.as_str());
        assert!(took < AT_ONCE, "{way:?}: {took:?}");
    }
}
