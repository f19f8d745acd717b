//! Probe pods, and what they decide: whether anything is sold, and who customers are in their pods.

use crate::admission::isolation::{REFUSED, users_outside};
use crate::admission::root::root_pod;
use crate::doctor::Role;
use crate::support::testbed::{
    AdmissionParameters, CLUSTER, NetworkPolicies, Ssh, Testbed, is_left_out, load, output,
    remove_pods, root, sized, wait_for,
};
use crate::{PASSWORD, objects, pods};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SERVER: &str = "paygress.local/ssh:1";
/// The same server, with a login of its own.
const OTHER_LOGIN: &str = "paygress.local/other-login:1";
/// How long the probes of a test may take: two pods that do not become ready.
const PROBES: Duration = Duration::from_secs(90);
/// How long the API server may take to see other rights.
const SEEN: Duration = Duration::from_secs(60);

/// What the runtime gives root by default (capabilities(7)), but for NET_RAW, MKNOD, AUDIT_WRITE
/// and SETFCAP: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP,
/// NET_BIND_SERVICE, SYS_CHROOT.
const CAPABILITIES: [u32; 10] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 18];

/// A service that probes pods, with these settings.
fn start(name: &str, settings: &[(&str, &str)]) -> Testbed {
    let probing = [("POD_PROBE", "true"), ("POD_READY_SECONDS", "15")];
    Testbed::start(name, &[&probing[..], settings].concat())
}

/// Waits until `/readyz` gives this reason, and checks that nothing is sold, and that the page of the
/// operator and the log say so.
fn assert_closed(testbed: &Testbed, reason: &str) {
    wait_for(reason, PROBES, || testbed.readyz()["ailments"].to_string().contains(reason));
    let overview = testbed.overview();
    assert!(overview.contains(reason), "{overview}");
    let token = testbed.token(7);
    let refused = testbed.ask(&json!({"cashu_token": token}));
    assert_eq!(refused["error_type"], "resource_unavailable", "{refused}");
    assert_eq!(testbed.state(&token), "UNSPENT", "nobody pays to find out");
    wait_for("the probe pod to be gone", PROBES, || {
        objects("job,pod,secret,service").trim().is_empty()
    });
    let log = testbed.log();
    assert!(log.contains("no pods are sold: ") && log.contains(reason), "{log}");
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn nothing_is_sold_that_does_not_start() {
    let _alone = CLUSTER.lock();
    let rows = [
        ("probe-port", ("SSH_PORT", "2223"), "nothing listens on SSH_PORT"),
        // The admission policy does not have it.
        ("probe-refused", ("SSH_SERVER_IMAGE", SERVER), "the cluster refuses a probe pod"),
        (
            "probe-image",
            ("SSH_BASE_IMAGE", "paygress.local/missing:1"),
            "the default image cannot be pulled",
        ),
    ];
    // The next test has another image that cannot be pulled.
    for (name, settings, reason) in rows.into_iter().take(sized(2, 3)) {
        let testbed = start(name, &[settings]);
        assert_closed(&testbed, reason);
        println!("{reason}");
    }
}

fn may_create_jobs(kubeconfig: &Path) -> bool {
    let mut command = Command::new(Testbed::kubectl());
    command.args(["-n", "user-workloads", "auth", "can-i", "create", "jobs", "--quiet"]);
    command.env("KUBECONFIG", kubeconfig).status().unwrap().success()
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn nothing_is_sold_while_a_right_is_missing_and_the_log_names_it() {
    let _alone = CLUSTER.lock();
    let kubeconfig = Testbed::kubeconfig_of_the_service();
    let role = Role::with_verbs_of_jobs(&["get", "list", "watch", "patch", "delete"]);
    wait_for("the right to be gone", SEEN, || !may_create_jobs(kubeconfig.path()));
    let testbed = start("probe-right", &[]);
    assert_closed(&testbed, "the cluster refuses a probe pod");
    let log = testbed.log();
    let is_right = |line: &str| line.contains("cannot create resource") && line.contains("jobs");
    assert!(log.lines().any(is_right), "{log}");
    drop(role);
    // The next test relies on it.
    wait_for("the right to be back", SEEN, || may_create_jobs(kubeconfig.path()));
    // Another probe comes a minute after the first.
    if sized(false, true) {
        wait_for("another probe pod", PROBES, || testbed.readyz()["ready"] == true);
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_server_image_that_cannot_be_pulled_is_named() {
    let _alone = CLUSTER.lock();
    let missing = ("SSH_SERVER_IMAGE", "paygress.local/missing:1");
    let _set = AdmissionParameters::set(&[missing]);
    let testbed = start("probe-server", &[missing]);
    assert_closed(&testbed, "the image of SSH_SERVER_IMAGE cannot be pulled");
}

/// Makes it of the files of the other one, and loads it.
fn load_other_login() {
    let directory = tempfile::tempdir().unwrap();
    let [rootfs, archive] = ["rootfs", "image.tar"].map(|name| directory.path().join(name));
    let login = rootfs.join("other");
    std::fs::create_dir_all(&login).unwrap();
    let unpack = |archive: &Path, into: &Path| {
        output(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(into));
    };
    unpack(&root().join("target/images/ssh.tar"), directory.path());
    unpack(&directory.path().join("layer.tar"), &rootfs);
    for (name, content) in [("username", "alice"), ("password", "of the image")] {
        std::fs::write(login.join(name), content).unwrap();
    }
    let mut pack = Command::new(root().join("k8s/testbed/oci-image"));
    pack.arg(&archive).arg(OTHER_LOGIN).arg(&rootfs).args(["--user", "1000"]);
    output(pack.args(["--entrypoint", r#"["/bin/paygress-sshd", "--login", "/other"]"#]));
    load(&archive);
}

/// Its pods are ready: something listens.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn nothing_is_sold_whose_server_refuses_the_login() {
    let _alone = CLUSTER.lock();
    load_other_login();
    let settings = [("SSH_BASE_IMAGE", OTHER_LOGIN), ("POD_READY_SECONDS", "60")];
    let testbed = start("probe-login", &settings);
    assert_closed(&testbed, "its SSH server refuses its login");
}

/// A pod that was bought of this service, by SSH.
fn bought(testbed: &Testbed) -> Ssh<'static> {
    let token = testbed.token(25);
    let order = json!({"cashu_token": token, "ssh_username": "alice", "ssh_password": PASSWORD});
    let answer = testbed.ask(&order);
    let port = answer["node_port"].as_u64().unwrap_or_else(|| panic!("{answer}"));
    Ssh { port: u16::try_from(port).unwrap(), username: "alice", password: PASSWORD }
}

/// The image that is mounted into the pod with the server in it, and the pod's init containers.
fn server_of_pod() -> [String; 2] {
    let volume = "{.items[*].spec.volumes[?(@.name=='paygress')].image.reference}";
    let inits = "{.items[*].spec.initContainers[*].name}";
    [volume, inits].map(|path| pods(&format!("jsonpath={path}")))
}

/// An order at once waits for the probe.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn customers_are_root_where_a_probe_pod_was() {
    let _alone = CLUSTER.lock();
    let _set = AdmissionParameters::set(&[("SSH_SERVER_IMAGE", SERVER)]);
    NetworkPolicies::apply();
    let settings = [("SSH_SERVER_IMAGE", SERVER), ("POD_READY_SECONDS", "60")];
    let testbed = start("probe-root", &settings);
    let ssh = bought(&testbed);
    assert_eq!(ssh.run("id -u").0, "0\n");
    let map = ssh.run("cat /proc/self/uid_map").0;
    let map: Vec<u64> = map.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert!(matches!(map[..], [0, outside, 65_536] if outside >= 65_536), "{map:?}");
    assert_eq!(ssh.run("touch /.paygress/x 2>/dev/null || echo refused").0, "refused\n");
    assert_eq!(server_of_pod(), [SERVER, ""]);
    // Each in its own: the server makes the keys, and the image is never written to.
    let script = "ls /.paygress/host-keys; test -w /.paygress/host-keys && echo for its server";
    let keys = "ssh_host_ecdsa_key\nssh_host_ecdsa_key.pub\nssh_host_ed25519_key\nssh_host_ed25519_key.pub\n";
    assert_eq!(ssh.run(script).0, format!("{keys}for its server\n"));
    assert_bounded(ssh);
    assert_isolated(ssh);
    assert_outlives_memory(&testbed, ssh);
    let ready = testbed.readyz();
    assert_eq!(ready, json!({"ready": true, "ailments": []}));
    let log = testbed.log();
    assert!(log.contains("a probe pod has started"), "{log}");
    assert!(!log.contains("whether it takes logins is not known"), "{log}");
}

/// Root of a pod that was sold has ten of the runtime's capabilities, and can get no other.
fn assert_bounded(ssh: Ssh) {
    let set = ssh.run("grep CapBnd /proc/self/status").0;
    let set = set.trim().strip_prefix("CapBnd:").unwrap_or_else(|| panic!("{set}"));
    let set = u64::from_str_radix(set.trim(), 16).unwrap();
    let ten: u64 = CAPABILITIES.iter().map(|number| 1_u64 << number).sum();
    assert_eq!(set, ten, "{set:x} and not {ten:x}");
    let (shown, _) = ssh.run("mount -t tmpfs none /tmp 2>&1 || echo refused");
    let is_denied = ["ermission denied", "not permitted"].iter().any(|why| shown.contains(why));
    assert!(is_denied && shown.ends_with("refused\n"), "{shown}");
}

/// Root of a pod that was sold is an unprivileged user of the node, and reaches no part of it.
fn assert_isolated(ssh: Ssh) {
    const ARGUMENT: &str = "31536002";
    ssh.run(&format!("/bin/busybox sleep {ARGUMENT} </dev/null >/dev/null 2>&1 &"));
    wait_for("a program of root of the pod", SEEN, || {
        let outside = users_outside(ARGUMENT);
        matches!(outside[..], [user] if user >= 65_536)
    });
    let attempts = REFUSED.iter().enumerate();
    let attempts: String = attempts
        .map(|(number, attempt)| format!("({attempt}) >/dev/null 2>&1 && echo done {number}\n"))
        .collect();
    let script = format!("mkdir -p /mnt && touch /mnt/a && echo writable\n{attempts}");
    let (shown, _) = ssh.run(&format!("/bin/busybox sh -c '{script}'"));
    assert_eq!(shown, "writable\n", "what is done is one of REFUSED");
    // What is shown of the test's own pod of root holds for those that are sold.
    let context = pods("jsonpath={.items[0].spec.containers[0].securityContext}");
    let context: Value = serde_json::from_str(&context).unwrap();
    assert_eq!(context, root_pod()["spec"]["containers"][0]["securityContext"]);
    assert_eq!(pods("jsonpath={.items[0].spec.hostUsers}"), "false");
}

/// A program that needs more memory than the pod has is ended, and the lease goes on.
fn assert_outlives_memory(testbed: &Testbed, ssh: Ssh) {
    // It reads 256 MiB into memory.
    let program = "/bin/busybox dd if=/dev/zero of=/dev/null bs=256M count=1";
    let (shown, _) = ssh.run(&format!("{program} 2>/dev/null; echo ended by $?"));
    assert_eq!(shown, "ended by 137\n");
    let job = objects("job");
    let pod = job.trim().strip_prefix("job.batch/").unwrap_or_else(|| panic!("{job}"));
    let status = testbed.ask(&json!({"type": "status", "pod_name": pod}));
    assert_eq!(status["status"], "running", "{status}");
    assert_eq!(pods("jsonpath={.items[*].status.containerStatuses[*].restartCount}"), "0");
    assert_eq!(ssh.run("id -u").0, "0\n");
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn an_operator_can_keep_customers_from_being_root() {
    if is_left_out("the_same_images_are_sold_where_nobody_is_root") {
        return;
    }
    let _alone = CLUSTER.lock();
    let never = [("SSH_SERVER_IMAGE", SERVER), ("POD_ROOT", "never")];
    let _set = AdmissionParameters::set(&never);
    NetworkPolicies::apply();
    let testbed = start("probe-never", &[&never[..], &[("POD_READY_SECONDS", "60")]].concat());
    assert_eq!(bought(&testbed).run("id -u").0, "1000\n");
    assert_eq!(server_of_pod(), [SERVER, ""]);
    assert_eq!(testbed.readyz(), json!({"ready": true, "ailments": []}));
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn an_operator_can_have_the_server_copied() {
    let _alone = CLUSTER.lock();
    let _set = AdmissionParameters::set(&[("SSH_SERVER_IMAGE", SERVER)]);
    for (name, root, uid) in
        [("probe-copy", "auto", "0\n"), ("probe-copy-never", "never", "1000\n")]
    {
        let settings = [
            ("SSH_SERVER_IMAGE", SERVER),
            ("SSH_SERVER_VOLUME", "copy"),
            ("POD_READY_SECONDS", "60"),
            ("POD_ROOT", root),
        ];
        let testbed = start(name, &settings);
        assert_eq!(bought(&testbed).run("id -u").0, uid);
        assert_eq!(server_of_pod(), ["", "paygress-ssh"]);
        remove_pods();
    }
}
