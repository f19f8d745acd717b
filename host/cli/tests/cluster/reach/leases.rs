//! Leases and the sessions of their pods.

use super::session::{Pod, Session, Way};
use super::{LONG_LEASE, ServedBy, Setup, Site};
use crate::support::testbed::{CLUSTER, is_left_out, wait_for};
use crate::{now, seconds};
use serde_json::{Value, json};
use std::time::Duration;

/// 50 seconds after the mint's fee.
const SHORT_LEASE: u64 = 11;
/// From its deadline to the end of a pod, and of its sessions.
const SOON: Duration = Duration::from_secs(20);
/// What `ssh` shows then: its pod or its gateway has closed the connection, whichever is first.
const ENDS: [&str; 2] = ["closed", "the lease of the pod has ended: order a new pod"];
const WAYS: [Way; 2] = [Way::JumpHost, Way::Iroh];

fn sessions(pod: &Pod) -> [Session; 2] {
    WAYS.map(|way| pod.session(way))
}

fn are_there(sessions: &mut [Session; 2]) {
    for session in sessions {
        session.echoes(b"still here");
    }
}

/// Extends it; gives the new end.
fn top_up(site: &Site, pod: &Pod) -> u64 {
    let token = site.testbed.token(LONG_LEASE);
    let answer = site.testbed.ask(&json!({"pod_name": pod.name(), "cashu_token": token}));
    assert_eq!(answer["success"], Value::Bool(true), "{answer}");
    let status = json!({"type": "status", "pod_name": pod.name()});
    seconds(&site.testbed.ask(&status), "expires_at")
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_top_up_leaves_sessions_alone_and_the_end_of_a_lease_cuts_its_own() {
    if is_left_out("a_terminal_shows_the_end… and host/gateway") {
        return;
    }
    let _alone = CLUSTER.lock();
    let site = Site::start(&Setup::new("reach-leases", ServedBy::Service));
    let _forwarded = site.forward_gateway();
    let ending = site.buy(SHORT_LEASE);
    let mut cut = sessions(&ending);
    let staying = site.buy(SHORT_LEASE);
    let mut kept = sessions(&staying);
    let [end_of_one, end_of_other] =
        [&ending, &staying].map(|pod| seconds(&pod.answer, "expires_at"));

    let extended = top_up(&site, &staying);
    assert!(extended > end_of_other + 300, "{extended}");
    are_there(&mut kept);
    are_there(&mut cut);
    let limit = Duration::from_secs(90);
    wait_for("the first deadline", limit, || now() >= end_of_one);
    for (way, session) in WAYS.into_iter().zip(cut) {
        let shown = session.end(SOON);
        println!("{}: a session of a lease that has ended shows: {shown}", way.as_str());
        assert!(ENDS.iter().any(|text| shown.contains(text)), "{}: {shown}", way.as_str());
    }
    are_there(&mut kept);
    wait_for("what was the other deadline to pass", limit, || now() > end_of_other + 4);
    are_there(&mut kept);
    for (way, message) in [(Way::JumpHost, "Permission denied"), (Way::Iroh, "no such pod")] {
        ending.refuses(&ending.client(way), message);
    }
}
