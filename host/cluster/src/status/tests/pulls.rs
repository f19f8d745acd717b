//! Pulls that fail, as containerd 2.1 and CRI-O 1.32 say it.

use super::*;

/// What the runtime says, and whether the registry has refused the image for good.
const PULLS: [(&str, bool); 13] = [
    ("x/y:1: not found", true),
    (
        "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
        true,
    ),
    ("no match for platform in manifest: not found", true),
    ("reading manifest 1 in x/y: manifest unknown", true),
    ("requested access to the resource is denied", true),
    (
        "failed to fetch anonymous token: unexpected status from GET request to https://x/token: 401 Unauthorized",
        true,
    ),
    ("unexpected status from HEAD request to https://x/v2/y/manifests/1: 403 Forbidden", true),
    ("reading manifest 1 in x/y: unauthorized: authentication required", true),
    ("parsing image reference: invalid reference format", true),
    ("dial tcp: lookup x on 10.96.0.10:53: no such host", false),
    (
        "unexpected status from HEAD request to https://x/v2/y/manifests/1: 429 Too Many Requests",
        false,
    ),
    (
        "unexpected status from HEAD request to https://x/v2/y/manifests/1: 503 Service Unavailable",
        false,
    ),
    ("dial tcp 192.0.2.1:443: i/o timeout", false),
];

#[test]
fn a_pull_that_its_registry_refuses_is_not_waited_for() {
    let of = |reason: &str, message: &str| {
        let mut pod = waiting_for(reason);
        let statuses = pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap();
        let waiting = statuses[0].state.as_mut().unwrap().waiting.as_mut().unwrap();
        waiting.message = Some(message.to_owned());
        readiness(&pod, Duration::ZERO, UNSCHEDULABLE)
    };
    let pull = "failed to pull and unpack image \"x/y:1\": failed to resolve reference \"x/y:1\": ";
    for (message, is_final) in PULLS {
        for (reason, before) in [
            ("ErrImagePull", ""),
            ("ImagePullBackOff", "Back-off pulling image \"x/y:1\": ErrImagePull: "),
        ] {
            let result = of(reason, &format!("{before}{pull}{message}"));
            let is_refused =
                result.as_ref().is_some_and(|result| is_of_image(result.as_ref().unwrap_err()));
            assert_eq!(is_refused, is_final, "{reason}: {message}: {result:?}");
        }
    }
    assert!(of("ContainerCreating", "x/y:1: not found").is_none());
    // It may pass, and until then its image counts as the reason.
    let pod = waiting_for("CreateContainerError");
    assert!(readiness(&pod, Duration::ZERO, UNSCHEDULABLE).is_none());
    assert!(is_of_image(&unready(Some(&pod))));
}

/// Else one moment of a registry, or a node whose disk is full, has every order of an image refused
/// that starts everywhere else.
#[test]
fn no_image_is_blamed_for_its_registry_or_for_a_full_disk() {
    let head = "failed to resolve reference \"x/y:503\": unexpected status from HEAD request to https://x/v2/y/manifests/503: ";
    let head = |status: &str| format!("{head}{status}");
    for (message, of_image) in [
        (head("429 Too Many Requests"), false),
        (head("500 Internal Server Error"), false),
        (head("503 Service Unavailable"), false),
        (head("522"), false),
        (head("404 Not Found"), true),
        (head("400 Bad Request"), true),
        (head("401 Unauthorized"), true),
        (head("403 Forbidden"), true),
        ("x/y:503: not found".to_owned(), true),
        ("manifest unknown".to_owned(), true),
        ("toomanyrequests: You have reached your pull rate limit.".to_owned(), false),
        (
            "reading manifest 1 in x/y: received unexpected HTTP status: 502 Bad Gateway"
                .to_owned(),
            false,
        ),
        ("dial tcp 192.0.2.1:443: i/o timeout".to_owned(), false),
        ("net/http: TLS handshake timeout".to_owned(), false),
        ("rpc error: code = DeadlineExceeded desc = context deadline exceeded".to_owned(), false),
        ("dial tcp 192.0.2.1:443: connect: connection timed out".to_owned(), false),
        ("dial tcp 192.0.2.1:443: connect: connection refused".to_owned(), false),
        ("failed to extract layer: write /var/lib/x: no space left on device".to_owned(), false),
        ("dial tcp: lookup x on 10.96.0.10:53: no such host".to_owned(), true),
        // Of a name that its customer has chosen.
        ("dial tcp: lookup x/timeout-503 on 10.96.0.10:53: no such host".to_owned(), true),
        ("Back-off pulling image \"x/y:503\"".to_owned(), true),
    ] {
        for reason in ["ErrImagePull", "ImagePullBackOff", "CreateContainerError"] {
            let mut pod = waiting_for(reason);
            let statuses = pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap();
            let waiting = statuses[0].state.as_mut().unwrap().waiting.as_mut().unwrap();
            waiting.message = Some(message.clone());
            let overdue = unready(Some(&pod));
            assert_eq!(is_of_image(&overdue), of_image, "{reason}: {message}: {overdue:?}");
        }
    }
    assert!(!is_of_image(&unready(Some(&waiting_for("RegistryUnavailable")))));
}

#[test]
fn no_image_is_blamed_for_a_node_on_which_no_container_starts() {
    let failed = |message: &str| {
        let mut pod = terminated("StartError", 128);
        let statuses = pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap();
        let state = statuses[0].state.as_mut().unwrap();
        state.terminated.as_mut().unwrap().message = Some(message.to_owned());
        is_of_image(&readiness(&pod, Duration::ZERO, UNSCHEDULABLE).unwrap().unwrap_err())
    };
    assert!(failed("exec: \"x\": executable file not found in $PATH"));
    assert!(!failed("mkdir /run/containerd/x: no space left on device"));
}
