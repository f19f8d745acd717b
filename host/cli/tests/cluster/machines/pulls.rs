//! Images that are not on the node when ordered: their registry fails, or does not have them.

use super::{LoginKey, SoldPod, TINY, allow_server, images, start};
use crate::support::testbed::{CLUSTER, ImageTag, wait_for};
use crate::{now, pod_uid, pods, seconds};
use hyper::StatusCode;
use paygress_oci::testing::{Busy, RequiredAuth, TestRegistry};
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;
use tokio::runtime::Runtime;

const SOON: Duration = Duration::from_secs(60);
/// Why the customer's container does not run yet: `ErrImagePull`, then `ImagePullBackOff`.
const WAITING: &str = "jsonpath={.items[*].status.containerStatuses[*].state.waiting.reason}";

/// The kubelet tries again after some ten seconds.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn an_image_whose_first_pull_fails_is_waited_for() {
    let _alone = CLUSTER.lock();
    let _set = allow_server();
    images::distroless();
    let runtime = Runtime::new().unwrap();
    let registry = runtime.block_on(TestRegistry::open(RequiredAuth::None)).unwrap();
    let busy = StatusCode::SERVICE_UNAVAILABLE;
    registry.set_busy(Busy { requests: u32::MAX, status: busy, retry_after: None });
    let image = format!("{}/tests/distroless:1", registry.host());
    let testbed = start("machines-pull", TINY, &[image.as_str()], &[]);
    let (uid, machine, _tag) = thread::scope(|scope| {
        let buyer = scope.spawn(|| SoldPod::buy(&testbed, 25, &json!({"pod_image": image})));
        wait_for("a pull to fail", SOON, || pods(WAITING).contains("ImagePull"));
        let uid = pod_uid();
        // From now on the node has it, as after a pull.
        let tag = ImageTag::add(images::DISTROLESS, &image);
        (uid, buyer.join().unwrap(), tag)
    });
    let left = seconds(&machine.answer, "expires_at").saturating_sub(now());
    assert!((110..=121).contains(&left), "two minutes begin with the login, and {left} s are left");
    assert!(!registry.take_requests().is_empty(), "its registry was tried");
    assert_eq!(pod_uid(), uid, "it is the pod whose pull failed");
    assert_eq!(machine.run("/app"), "the program of the image\n");
    let request = json!({"type": "status", "pod_name": machine.answer["pod_name"]});
    let status = testbed.ask(&request);
    assert_eq!(status["status"], "running", "{status}");
    assert_eq!(
        (&status["refund_pending"], &status["refunded_sats"]),
        (&json!(false), &Value::Null)
    );
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn an_image_that_its_registry_does_not_have_is_refunded_at_once_and_then_refused() {
    let _alone = CLUSTER.lock();
    let _set = allow_server();
    let runtime = Runtime::new().unwrap();
    let registry = runtime.block_on(TestRegistry::open(RequiredAuth::None)).unwrap();
    let image = format!("{}/tests/missing:1", registry.host());
    let testbed = start("machines-missing", TINY, &[image.as_str()], &[]);
    let key = LoginKey::new();
    // Not the whole answers: they may hold a token.
    let order = |token: &str| testbed.ask(&key.order(token, &json!({"pod_image": image})));

    let token = testbed.token(25);
    let refunded = order(&token);
    let message = refunded["message"].as_str().unwrap();
    assert_eq!(refunded["error_type"], "provisioning_error", "{message}");
    assert_eq!(refunded["end_reason"], "image-failed", "{message}");
    // One that was waited for until POD_READY_SECONDS took too long.
    assert!(message.contains("ImagePull") && !message.contains("took too long"), "{message}");
    assert_eq!(testbed.state(&token), "SPENT");
    let refund = refunded["refund_token"].as_str().expect("a refund");
    assert_eq!(testbed.state(refund), "UNSPENT", "the refund is good");
    let status = testbed.ask(&json!({"type": "status", "pod_name": refunded["pod_name"]}));
    assert_eq!(status["end_reason"], "image-failed", "of a pod that is {}", status["status"]);

    let token = testbed.token(25);
    let refused = order(&token);
    assert_eq!(refused["error_type"], "resource_unavailable", "{}", refused["message"]);
    assert_eq!(refused["end_reason"], "image-failed", "{}", refused["message"]);
    assert_eq!(testbed.state(&token), "UNSPENT", "nobody pays to find out");
}
