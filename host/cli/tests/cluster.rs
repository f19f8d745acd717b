//! The main job on the real thing: Kubernetes of the testbed, a Nutshell mint, a relay in Python, a
//! customer on nostr-tools and cashu-ts, OpenSSH's client. Run by `cargo xtask test`, which sets
//! all of that up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use paygress_core::backend::policy::Slot;
use paygress_oci::Digest;
use paygress_oci::testing::{RequiredAuth, TestRegistry};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::command::text;
use support::keys::key;
use support::testbed::{
    CLUSTER, Deployed, Outside, Ssh, Testbed, applied, apply, kubectl, root, wait_for,
};

/// What a shell, YAML, JSON and a password file would each stumble over.
const PASSWORD: &str = r#"it's "$HOME"; a:b `x` \ %s"#;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// An RFC 3339 time in UTC as seconds.
fn seconds(answer: &Value, field: &str) -> u64 {
    let text = answer[field].as_str().unwrap_or_else(|| panic!("no {field} in {answer}"));
    let output = Command::new("date").args(["-u", "-d", text, "+%s"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}

fn objects(kinds: &str) -> String {
    kubectl(&["-n", "user-workloads", "get", kinds, "-l", "app=paygress-ssh-pod", "-o", "name"])
}

/// A field of the customers' pods.
fn pods(jsonpath: &str) -> String {
    let label = "app=paygress-ssh-pod";
    kubectl(&["-n", "user-workloads", "get", "pod", "-l", label, "-o", jsonpath])
}

fn pod_uid() -> String {
    pods("jsonpath={.items[*].metadata.uid}")
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_customer_buys_logs_in_tops_up_and_the_pod_ends_in_time() {
    // long: one session with a running service; each step builds on the last.
    let _alone = CLUSTER.lock();
    let testbed = Testbed::start("main", &[]);
    // 6 sat net: 30 seconds. The mint keeps one sat for swapping.
    let token = testbed.token(7);
    let answer = testbed
        .ask(&json!({"cashu_token": token, "ssh_username": "alice", "ssh_password": PASSWORD}));
    assert!(answer["error_type"].is_null(), "refused: {answer}");
    assert_eq!(testbed.state(&token), "SPENT", "only a swap at the mint is payment");
    let pod = answer["pod_name"].as_str().unwrap().to_owned();
    let first_end = seconds(&answer, "expires_at");
    assert!((20..=31).contains(&(first_end - now())), "30 s from readiness: {answer}");
    assert_eq!(
        (answer["cpu_millicores"].as_u64(), answer["memory_mb"].as_u64()),
        (Some(100), Some(64))
    );
    let port = u16::try_from(answer["node_port"].as_u64().unwrap()).unwrap();

    let ssh = Ssh { port, username: "alice", password: PASSWORD };
    assert_eq!(
        ssh.run("echo hello from $USER; id -u; exit 3"),
        ("hello from alice\n1000\n".to_owned(), Some(3))
    );
    assert_eq!(
        Ssh { password: "wrong password", ..ssh }.run("true").1,
        Some(255),
        "a wrong password is refused"
    );
    let (env, _) = ssh.run("cat /proc/1/environ /proc/1/cmdline; env");
    assert!(
        env.contains("paygress-sshd") && !env.contains("it's"),
        "the password is in nobody's environment or arguments"
    );
    let object = kubectl(&[
        "-n",
        "user-workloads",
        "get",
        "job,pod",
        "-l",
        "app=paygress-ssh-pod",
        "-o",
        "json",
    ]);
    assert!(
        !object.contains("it's") && !object.contains("alice"),
        "the login is in no object but its Secret"
    );
    let uid = pod_uid();
    assert_eq!(uid.split(' ').count(), 1, "one pod: {uid}");

    // A session stays open while the second token comes.
    let mut session = ssh.open("while :; do sleep 1; done");
    let more = testbed.ask(&json!({"pod_name": pod, "cashu_token": testbed.token(5)}));
    assert_eq!(
        (more["success"].as_bool(), more["extended_duration_seconds"].as_u64()),
        (Some(true), Some(20)),
        "{more}"
    );
    let second_end = seconds(&more, "new_expires_at");
    assert_eq!(second_end - first_end, 20, "nothing of the first token is lost");
    let other = testbed.ask_as_another(&json!({"type": "status", "pod_name": pod}));
    assert_eq!(other["error_type"], "not_owner");
    let status = testbed.ask(&json!({"type": "status", "pod_name": pod}));
    assert_eq!(status["status"], "running");
    assert!(status.get("ssh_password").is_none(), "{status}");

    wait_for("the first deadline to pass", Duration::from_secs(60), || now() > first_end + 4);
    assert!(
        session.try_wait().unwrap().is_none(),
        "the session that was open lives past the first deadline"
    );
    assert_eq!(ssh.run("echo alive").0, "alive\n");
    assert_eq!(pod_uid(), uid, "the pod was not touched");

    wait_for("the pod to end", Duration::from_secs(60), || session.try_wait().unwrap().is_some());
    let seconds_off = now().abs_diff(second_end);
    assert!(seconds_off <= 10, "it ended {seconds_off} s from its second deadline");
    wait_for("logins to be refused", Duration::from_secs(20), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
    });
    wait_for("Job, pod and Secret to be gone", Duration::from_secs(90), || {
        objects("job,pod,secret,service").trim().is_empty()
    });
    let status = testbed.ask(&json!({"type": "status", "pod_name": pod}));
    assert_eq!(status["status"], "ended", "{status}");
    let late_token = testbed.token(3);
    let again = testbed.ask(&json!({"pod_name": pod, "cashu_token": late_token}));
    assert_eq!(again["error_type"], "lease_expired", "{again}");
    assert_eq!(testbed.state(&late_token), "UNSPENT");
    let log = testbed.log();
    assert!(log.contains("lease ended, port free"), "{log}");
    for secret in [PASSWORD, "cashuA", "cashuB", "it's"] {
        assert!(!log.contains(secret), "the log holds a secret");
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_customer_with_a_browser_buys_logs_in_adds_time_and_stops() {
    let _alone = CLUSTER.lock();
    let testbed = Testbed::start("browser", &[]);
    let seen = testbed.browse(&[testbed.token(121), testbed.token(61)]);
    assert!(seen["pod"].as_str().unwrap().starts_with("ssh-pod-"), "{seen}");
    assert_eq!(
        testbed.state(seen["refund"].as_str().unwrap().lines().next().unwrap()),
        "UNSPENT",
        "the refund is good"
    );
    wait_for("the pod to be gone", Duration::from_secs(60), || {
        objects("job,pod,secret").trim().is_empty()
    });
    let log = testbed.log();
    assert!(
        !log.contains("cashuB") && !log.contains("cashuA") && !log.contains("pg_"),
        "the log holds a secret"
    );
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_service_has_no_right_that_it_does_not_need() {
    // long: one session with a running service; each step builds on the last.
    let _alone = CLUSTER.lock();
    let kubeconfig = Testbed::kubeconfig_of_the_service();
    let service = |arguments: &[&str]| {
        Command::new(Testbed::kubectl())
            .env("KUBECONFIG", kubeconfig.path())
            .args(arguments)
            .output()
            .unwrap()
    };
    for arguments in [
        &["-n", "user-workloads", "get", "secrets"][..],
        &["-n", "user-workloads", "get", "secret", "any"],
        &["-n", "user-workloads", "delete", "pod", "any"],
        &["-n", "user-workloads", "create", "serviceaccount", "x"],
        &["-n", "kube-system", "get", "jobs"],
        &["-n", "default", "create", "job", "x", "--image=x"],
        &["get", "nodes"],
    ] {
        let output = service(arguments);
        let output_text = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(
            !output.status.success() && output_text.contains("forbidden"),
            "{arguments:?} was not denied: {output_text}"
        );
    }
    assert!(
        service(&["-n", "user-workloads", "get", "jobs"]).status.success(),
        "what it needs it may do"
    );
    // It may make pods, and even so none that breaks out.
    let tokenless =
        |more: &str| format!(r#"{{"spec":{{"automountServiceAccountToken":false{more}}}}}"#);
    let unprivileged =
        r#","securityContext":{"runAsNonRoot":true,"seccompProfile":{"type":"RuntimeDefault"}}"#;
    let privileged =
        r#","containers":[{"name":"x","image":"x","securityContext":{"privileged":true}}]"#;
    let overrides = [
        (tokenless(r#","hostNetwork":true"#), "namespaces"),
        (tokenless(r#","volumes":[{"name":"x","hostPath":{"path":"/"}}]"#), "volumes"),
        (tokenless(""), "without root"),
        (tokenless(&format!("{unprivileged}{privileged}")), "privileges"),
    ];
    for (spec, why) in overrides {
        let output = service(&[
            "-n",
            "user-workloads",
            "run",
            "x",
            "--image=x",
            "--restart=Never",
            "--overrides",
            &spec,
        ]);
        let output_text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success()
                && output_text.contains("paygress-customers")
                && output_text.contains(why),
            "{spec}: {output_text}"
        );
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_manifests_of_the_service_are_what_a_cluster_takes() {
    let overlay = support::testbed::root().join("k8s/overlays/cluster");
    let applied = kubectl(&["apply", "--dry-run=server", "-k", &overlay.to_string_lossy()]);
    for object in [
        "deployment.apps/paygress",
        "service/paygress",
        "resourcequota/customers",
        "validatingadmissionpolicy",
        "persistentvolumeclaim/paygress",
    ] {
        assert!(applied.contains(object), "{object} is missing: {applied}");
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_pod_that_is_evicted_is_paid_back() {
    let _alone = CLUSTER.lock();
    let testbed = Testbed::start("evicted", &[]);
    let answer = testbed.ask(&json!({"cashu_token": testbed.token(121)}));
    let pod = answer["pod_name"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    let running = kubectl(&[
        "-n",
        "user-workloads",
        "get",
        "pod",
        "-l",
        "app=paygress-ssh-pod",
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ]);
    let eviction = tempfile::NamedTempFile::new().unwrap();
    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": running, "namespace": "user-workloads"}});
    std::fs::write(eviction.path(), body.to_string()).unwrap();
    let path = format!("/api/v1/namespaces/user-workloads/pods/{running}/eviction");
    kubectl(&["create", "--raw", &path, "-f", &eviction.path().to_string_lossy()]);
    wait_for("the end of the lease", Duration::from_secs(90), || {
        testbed.log().contains("lease ended")
    });
    let (mut refund, mut n) = (None, 0);
    wait_for("the refund", Duration::from_secs(90), || {
        n += 1;
        // The same text in the same second is the same message, and is answered once.
        let status = testbed.ask(&json!({"type": "status", "pod_name": pod, "n": n}));
        refund = status["refund_token"].as_str().map(str::to_owned);
        refund.is_some()
    });
    assert_eq!(testbed.state(&refund.unwrap()), "UNSPENT");
    assert!(testbed.log().contains("Disrupted"), "{}", testbed.log());
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn what_the_cluster_would_refuse_is_refused_before_money_moves() {
    // long: one session with a running service; each step builds on the last.
    let _alone = CLUSTER.lock();
    let testbed = Testbed::start("refusals", &[]);
    let token = testbed.token(5);
    let mut n = 0;
    // The same text in the same second is the same message, and is answered once.
    let mut order = || {
        n += 1;
        json!({"cashu_token": token, "n": n})
    };
    let enforce = "pod-security.kubernetes.io/enforce";
    kubectl(&[
        "label",
        "--overwrite",
        "namespace",
        "user-workloads",
        &format!("{enforce}=baseline"),
    ]);
    let refused = testbed.ask(&order());
    kubectl(&[
        "label",
        "--overwrite",
        "namespace",
        "user-workloads",
        &format!("{enforce}=privileged"),
    ]);
    assert_eq!(refused["error_type"], "backend_error", "{refused}");
    assert_eq!(testbed.state(&token), "UNSPENT");

    kubectl(&["-n", "user-workloads", "create", "quota", "full", "--hard=pods=0"]);
    // The quota counts once its controller has seen it.
    wait_for("the quota", Duration::from_secs(30), || {
        kubectl(&[
            "-n",
            "user-workloads",
            "get",
            "quota",
            "full",
            "-o",
            "jsonpath={.status.hard.pods}",
        ]) == "0"
    });
    let refused = testbed.ask(&order());
    kubectl(&["-n", "user-workloads", "delete", "quota", "full"]);
    assert_eq!(refused["error_type"], "resource_unavailable", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("quota"));
    assert_eq!(testbed.state(&token), "UNSPENT");
    assert!(objects("job,pod,secret").trim().is_empty(), "nothing was left behind");

    // The same token still buys, as soon as the API server has forgotten the quota.
    wait_for("an order to go through", Duration::from_secs(60), || {
        let bought = testbed.ask(&order());
        assert!(
            bought["error_type"].is_null() || bought["error_type"] == "resource_unavailable",
            "{bought}"
        );
        bought["error_type"].is_null()
    });
    kubectl(&["-n", "user-workloads", "delete", "jobs", "--all", "--wait"]);
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn what_fails_after_payment_is_paid_back() {
    let _alone = CLUSTER.lock();
    // An image that no registry has: allowed, dry-run, paid, and never started.
    let testbed = Testbed::start("refund", &[("SSH_BASE_IMAGE", "paygress.local/missing:1")]);
    let token = testbed.token(9);
    let refunded = testbed.ask(&json!({"cashu_token": token}));
    assert_eq!(refunded["error_type"], "provisioning_error", "{}", refunded["message"]);
    assert_eq!(testbed.state(&token), "SPENT");
    let refund = refunded["refund_token"].as_str().expect("a refund");
    assert_eq!(testbed.state(refund), "UNSPENT", "the refund is good");
    wait_for("what was begun to be removed", Duration::from_secs(60), || {
        objects("job,pod,secret").trim().is_empty()
    });
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_pod_is_reached_by_a_node_port_where_the_template_says_so() {
    let _alone = CLUSTER.lock();
    let policies = tempfile::tempdir().unwrap();
    for (slot, file) in [
        ("images", "plugins/images.wasm"),
        ("pricing", "plugins/pricing.wasm"),
        ("duration", "plugins/duration.wasm"),
        ("pod-template", "plugins-examples/node-port.wasm"),
    ] {
        std::fs::copy(
            root().join("target").join(file),
            policies.path().join(format!("{slot}.wasm")),
        )
        .unwrap();
    }
    let testbed =
        Testbed::start("node-port", &[("POLICY_DIR", &policies.path().to_string_lossy())]);
    let answer = testbed.ask(&json!({"cashu_token": testbed.token(7), "ssh_username": "alice", "ssh_password": PASSWORD}));
    let port =
        u16::try_from(answer["node_port"].as_u64().unwrap_or_else(|| panic!("{answer}"))).unwrap();
    let services = kubectl(&[
        "-n",
        "user-workloads",
        "get",
        "service",
        "-o",
        "jsonpath={.items[*].spec.ports[*].nodePort}",
    ]);
    assert_eq!(services, port.to_string());
    let host_ports = "jsonpath={.items[*].spec.containers[*].ports[*].hostPort}";
    assert_eq!(pods(host_ports), "");
    let ssh = Ssh { port, username: "alice", password: PASSWORD };
    wait_for("the node port to lead to the pod", Duration::from_secs(20), || {
        ssh.run("echo hello").0 == "hello\n"
    });
}

/// The service where operators run it: its image, its rights, its volume, its probes; and what it
/// keeps over a restart.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_service_runs_in_the_cluster_as_its_manifests_say() {
    let _alone = CLUSTER.lock();
    // Pods reach this machine by the bridge.
    let outside = Outside::start("deployment", "10.88.0.1");
    let deployed = Deployed::start(&outside);
    let ask = |request: Value| outside.ask(&deployed.npub, &request);
    let token = outside.token(21);
    let answer =
        ask(json!({"cashu_token": token, "ssh_username": "alice", "ssh_password": PASSWORD}));
    assert!(answer["error_type"].is_null(), "{answer}");
    assert_eq!(outside.state(&token), "SPENT");
    let ssh = Ssh {
        port: u16::try_from(answer["node_port"].as_u64().unwrap()).unwrap(),
        username: "alice",
        password: PASSWORD,
    };
    assert_eq!(ssh.run("echo hello").0, "hello\n");

    let _applied = Applied;
    let file =
        format!("--from-file=policy.wasm={}", root().join("target/plugins/pricing.wasm").display());
    kubectl(&["-n", "ingress-system", "create", "configmap", "pricing-policy", &file]);
    apply(&policy(
        "pricing",
        in_config_map("pricing", "pricing-policy", json!({"sats_per_hour": 3_600})),
    ));
    condition("pricing", "Active", "True", "InForce");
    let history = deployed.paygress(&["policy", "history"]);
    assert!(
        history.lines().count() == 2 && history.contains("start") && history.contains("resource"),
        "{history}"
    );

    kubectl(&["-n", "ingress-system", "rollout", "restart", "deployment/paygress"]);
    deployed.wait();
    assert_eq!(deployed.paygress(&["policy", "history"]), history, "it is the same revision");
    assert_eq!(ask(json!({"type": "status", "pod_name": answer["pod_name"]}))["status"], "running");
    let refused = ask(json!({"cashu_token": outside.token(21)}));
    assert_eq!(
        refused["error_type"], "insufficient_payment",
        "a sat is a second now, and the least is a minute: {refused}"
    );
    let audit = deployed.paygress(&["ledger", "audit"]);
    assert!(!audit.contains("missing"), "{audit}");
}

/// A `Policy` resource as an operator would apply it.
fn policy(name: &str, spec: Value) -> String {
    json!({"apiVersion": "paygress.dev/v1", "kind": "Policy", "metadata": {"name": name, "namespace": "ingress-system"}, "spec": spec})
        .to_string()
}

fn in_config_map(slot: &str, map: &str, settings: Value) -> Value {
    json!({"slot": slot, "source": {"configMap": {"name": map, "key": "policy.wasm"}}, "settings": settings})
}

/// Waits for a condition of a `Policy`, seen for the resource as it is now; gives its message.
fn condition(name: &str, kind: &str, status: &str, reason: &str) -> String {
    let mut seen = Value::Null;
    wait_for(
        &format!("{kind} of {name} to be {status}, {reason}"),
        Duration::from_secs(60),
        || {
            let policy: Value = serde_json::from_str(&kubectl(&[
                "-n",
                "ingress-system",
                "get",
                "policy",
                name,
                "-o",
                "json",
            ]))
            .unwrap();
            let conditions = policy["status"]["conditions"].as_array().cloned().unwrap_or_default();
            seen = conditions
                .into_iter()
                .find(|condition| condition["type"] == kind)
                .unwrap_or_default();
            let current =
                policy["status"]["observedGeneration"] == policy["metadata"]["generation"];
            current && seen["status"] == status && seen["reason"] == reason
        },
    );
    seen["message"].as_str().unwrap().to_owned()
}

/// The policies of a test, gone with it.
struct Applied;

impl Drop for Applied {
    fn drop(&mut self) {
        kubectl(&["-n", "ingress-system", "delete", "policies", "--all", "--wait"]);
        kubectl(&[
            "-n",
            "ingress-system",
            "delete",
            "configmap",
            "pricing-policy",
            "images-policy",
            "--ignore-not-found",
        ]);
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_policy_resource_is_put_in_force_and_a_broken_one_is_refused() {
    // long: one session with a running service; each step builds on the last.
    let _alone = CLUSTER.lock();
    let testbed = Testbed::start("policies", &[]);
    let _applied = Applied;
    for slot in ["pricing", "images"] {
        let file = format!(
            "--from-file=policy.wasm={}",
            root().join(format!("target/plugins/{slot}.wasm")).display()
        );
        kubectl(&["-n", "ingress-system", "create", "configmap", &format!("{slot}-policy"), &file]);
    }
    let lives = || {
        let token = testbed.token(4);
        let answer = testbed.ask(&json!({"cashu_token": token}));
        (seconds(&answer, "expires_at") - now()).div_ceil(15) * 15
    };
    let tiers = json!([{"id": "tiny", "cpu_millicores": 100, "memory_mib": 64}]);
    let pricing = |rate: i64| {
        in_config_map("pricing", "pricing-policy", json!({"sats_per_hour": rate, "tiers": tiers}))
    };
    assert_eq!(lives(), 15, "3 sat net at 720 sat an hour");

    apply(&policy("pricing", pricing(360)));
    condition("pricing", "Active", "True", "InForce");
    assert_eq!(lives(), 30);
    let columns = kubectl(&["-n", "ingress-system", "get", "policies"]);
    assert!(columns.contains("InForce") && columns.contains("Enforce"), "{columns}");

    // Broken: refused with a reason, and the active one goes on.
    apply(&policy("pricing", pricing(-1)));
    let why = condition("pricing", "Valid", "False", "Refused");
    assert!(why.contains("/sats_per_hour"), "{why}");
    assert_eq!(lives(), 30);

    // Another component than the resource says, or none at all.
    let mut pinned = pricing(180);
    pinned["digest"] = json!(format!("sha256:{}", "0".repeat(64)));
    apply(&policy("pricing", pinned));
    assert!(condition("pricing", "Verified", "False", "Refused").contains("digest"));
    apply(&policy("pricing", in_config_map("pricing", "nowhere", json!({}))));
    assert!(condition("pricing", "Fetched", "False", "Unavailable").contains("nowhere"));

    // Together or not at all: the images slot is given the pricing component.
    apply(&policy("images", in_config_map("images", "pricing-policy", json!({}))));
    apply(&policy("pricing", pricing(180)));
    assert!(condition("images", "Valid", "False", "Refused").contains("pricing"));
    condition("pricing", "Active", "False", "Waiting");
    assert_eq!(lives(), 30);
    let mut shadow = in_config_map("images", "images-policy", json!({}));
    shadow["mode"] = json!("Shadow");
    apply(&policy("images", shadow));
    condition("images", "Active", "False", "Shadow");
    condition("pricing", "Active", "True", "InForce");
    assert_eq!(lives(), 60);
    apply(&policy("second", pricing(90)));
    condition("second", "Active", "False", "SlotTaken");

    // What Kubernetes itself refuses.
    for spec in [
        json!({"slot": "prices", "source": {"oci": "registry.example/pricing:1"}}),
        json!({"slot": "pricing", "source": {}}),
        json!({"slot": "pricing", "source": {"oci": "registry.example/pricing:1"}}),
    ] {
        assert!(!applied(&policy("wrong", spec.clone())), "{spec}");
    }

    // Deleted: the component of the directory is active again.
    kubectl(&["-n", "ingress-system", "delete", "policies", "--all", "--wait"]);
    wait_for("the default price to be back", Duration::from_secs(60), || lives() == 15);
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_policy_resource_may_name_an_artefact_and_is_verified() {
    // long: one session with a running service; each step builds on the last.
    let _alone = CLUSTER.lock();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let registry = runtime.block_on(TestRegistry::open(RequiredAuth::None)).unwrap();
    let policies = tempfile::tempdir().unwrap();
    let (private, public) = key(policies.path(), "operator");
    let paygress = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_paygress"))
            .args(arguments)
            .env_clear()
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    };
    for slot in Slot::ALL {
        let file = policies.path().join(format!("{slot}.wasm"));
        std::fs::copy(root().join(format!("target/plugins/{slot}.wasm")), &file).unwrap();
        paygress(&["policy", "sign", &file.to_string_lossy(), "--key", &private]);
    }
    let testbed = Testbed::start(
        "artefacts",
        &[("POLICY_DIR", &policies.path().to_string_lossy()), ("POLICY_KEYS", &public)],
    );
    let _applied = Applied;
    let flat =
        root().join("target/plugins-examples/flat-price.wasm").to_string_lossy().into_owned();
    let named = |name: &str| format!("{}/policies/{name}", registry.host());
    let apply_policy = |reference: &str| {
        apply(&policy("pricing", json!({"slot": "pricing", "source": {"oci": reference}})))
    };
    let buys_flat = || {
        testbed.ask(&json!({"cashu_token": testbed.token(4), "tier": "flat"}))["error_type"]
            .is_null()
    };

    let unsigned = paygress(&["policy", "push", &flat, &named("unsigned:1")]);
    apply_policy(&unsigned);
    assert!(condition("pricing", "Verified", "False", "Refused").contains("there is no signature"));
    let (other, _) = key(policies.path(), "unknown");
    apply_policy(&paygress(&["policy", "push", &flat, &named("unknown:1"), "--sign", &other]));
    assert!(condition("pricing", "Verified", "False", "Refused").contains("known key"));
    let signed = paygress(&["policy", "push", &flat, &named("flat:1"), "--sign", &private]);
    apply_policy(&signed.replace("flat:1", "elsewhere:1"));
    assert!(condition("pricing", "Fetched", "False", "Unavailable").contains("is not there"));
    assert!(!buys_flat(), "nothing of that was put in force");

    apply_policy(&signed);
    condition("pricing", "Verified", "True", "Verified");
    condition("pricing", "Active", "True", "InForce");
    assert!(buys_flat());

    // Changed in the registry afterwards: another resource for it is refused, and what is in force
    // goes on.
    let digest = Digest::of(&std::fs::read(&flat).unwrap());
    registry.replace_blob(&digest, b"something else");
    apply(&policy(
        "pricing",
        json!({"slot": "pricing", "source": {"oci": named("flat:1")}, "digest": digest.hex()}),
    ));
    assert!(condition("pricing", "Verified", "False", "Refused").contains("tampered"));
    assert!(buys_flat());
}
