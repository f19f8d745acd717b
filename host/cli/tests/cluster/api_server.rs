//! The API server is away for ten minutes, in the short form for half of one: a proxy before it
//! refuses. Orders are refused before they are paid, pods are kept, and what has ended meanwhile is
//! recorded afterwards, once.

use crate::pods;
use crate::support::testbed::{CLUSTER, Proxy, Testbed, sized, wait_for};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A sat buys so many seconds.
const SECONDS_OF_A_SAT: u64 = 5;
/// What a pod costs that has ended before the API server is back.
const SHORT: u64 = 7;

/// How long it is away.
fn away() -> Duration {
    sized(Duration::from_secs(30), Duration::from_secs(600))
}

fn running() -> usize {
    pods("jsonpath={.items[?(@.status.phase=='Running')].metadata.uid}").split_whitespace().count()
}

fn buy(testbed: &Testbed, sat: u64) -> String {
    let sold = testbed.ask(&json!({"cashu_token": testbed.token(sat)}));
    sold["pod_name"].as_str().unwrap_or_else(|| panic!("{sold}")).to_owned()
}

fn status(testbed: &Testbed, pod: &str) -> Value {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    // The same text in the same second is the same message, and is answered once.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    testbed.ask(&json!({"type": "status", "pod_name": pod, "n": number}))
}

/// How many ends of leases were recorded.
fn ends(testbed: &Testbed) -> usize {
    testbed.log().matches("lease ended").count()
}

/// Nothing is taken.
fn assert_refused(testbed: &Testbed, token: &str) {
    let refused = testbed.ask(&json!({"cashu_token": token}));
    assert_eq!(refused["error_type"], "backend_error", "{refused}");
    assert_eq!(testbed.state(token), "UNSPENT");
}

/// What happens meanwhile, until it is over.
fn outage(testbed: &Testbed, stopped: &str, tokens: &[String]) {
    let begun = Instant::now();
    assert_refused(testbed, &tokens[0]);
    let unstopped = testbed.ask(&json!({"type": "stop", "pod_name": stopped}));
    assert_eq!(unstopped["error_type"], "backend_error", "{unstopped}");
    wait_for("the service to be not ready", Duration::from_secs(30), || {
        testbed.readyz().to_string().contains("the cluster does not answer")
    });
    wait_for("the end of a pod that nobody can report", Duration::from_secs(60), || running() == 2);
    wait_for("the end of the outage", away() + Duration::from_secs(60), || {
        assert_eq!(ends(testbed), 0, "an end was guessed");
        begun.elapsed() >= away()
    });
    assert_refused(testbed, &tokens[1]);
    assert_eq!(running(), 2, "a pod was removed");
}

/// The refund of a pod whose stop could not be carried out: it is made once, whoever asks again.
fn assert_refunded_once(testbed: &Testbed, stopped: &str) {
    let mut refund = None;
    wait_for("the refund", Duration::from_secs(60), || {
        let status = status(testbed, stopped);
        assert_eq!(status["end_reason"], "stopped", "{status}");
        refund = status["refund_token"].as_str().map(str::to_owned);
        refund.is_some()
    });
    let again = testbed.ask(&json!({"type": "stop", "pod_name": stopped}));
    assert_eq!(again["refund_token"].as_str(), refund.as_deref(), "another refund was made");
    assert_eq!(testbed.state(&refund.unwrap()), "UNSPENT");
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn while_the_api_server_is_away_pods_are_kept_and_nothing_is_taken() {
    let _alone = CLUSTER.lock();
    let kubeconfig = Testbed::kubeconfig_of_the_service();
    let api_server = Proxy::before_the_api_server(kubeconfig.path());
    let path = kubeconfig.path().to_str().unwrap();
    let testbed = Testbed::start("api-server-away", &[("KUBECONFIG", path)]);
    // Two outlive the outage, the mint's fees considered; the third does not.
    let long = 121 + away().as_secs() / SECONDS_OF_A_SAT;
    // First what takes a while: the third may not end before the outage.
    let tokens = [SHORT, SHORT].map(|sat| testbed.token(sat));
    let [kept, stopped, over] = [long, long, SHORT].map(|sat| buy(&testbed, sat));
    assert_eq!(running(), 3);

    api_server.refuse();
    outage(&testbed, &stopped, &tokens);
    api_server.pass();
    wait_for("the ends of two leases", Duration::from_secs(90), || ends(&testbed) == 2);
    assert_eq!(status(&testbed, &over)["status"], "ended");
    let is_running = status(&testbed, &kept);
    assert_eq!(is_running["status"], "running", "{is_running}");
    assert_refunded_once(&testbed, &stopped);
    for pod in [&kept, &over] {
        let status = status(&testbed, pod);
        assert!(status["refund_token"].is_null(), "it is not due: {status}");
    }

    // What was refused is served now, and ends in time.
    for token in &tokens {
        let sold = testbed.ask(&json!({"cashu_token": token}));
        assert!(sold["pod_name"].is_string(), "{sold}");
    }
    let sold = Duration::from_secs(SHORT * SECONDS_OF_A_SAT);
    wait_for("the ends of what was sold since", sold + Duration::from_secs(60), || {
        ends(&testbed) == 4
    });
    assert_eq!(running(), 1);
    println!(
        "an API server away for {} s: 2 orders refused and served, 1 refund",
        away().as_secs()
    );
}
