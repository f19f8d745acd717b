//! An image's own program beside the SSH server (`run: image`).

use super::{SERVER, SoldPod, Tunnel, images, start};
use crate::in_workloads;
use crate::support::testbed::{
    AdmissionParameters, CLUSTER, Testbed, kill_container, sized, wait_for,
};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

/// Divided among the server, the program and what holds the pod.
const TIER: &str = "id = \"shared\", cpu_millicores = 300, memory_mib = 160";
const SOON: Duration = Duration::from_secs(60);
const PAGE: &str = "from the image's own program\n";

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn an_images_own_program_runs_beside_the_login_and_never_decides_its_end() {
    let _alone = CLUSTER.lock();
    let parameters = [("SSH_SERVER_IMAGE", SERVER), ("POD_RUN_IMAGE", "true")];
    let _set = AdmissionParameters::set(&parameters);
    images::serving();
    images::distroless();
    let names = [images::SERVING, images::DISTROLESS];
    let testbed = start("machines-program", TIER, &names, &[("POD_RUN_IMAGE", "true")]);
    serves_and_comes_back(&testbed);
    ends_at_once(&testbed);
}

/// A login that is left open, and answers with what it is sent.
struct Session {
    client: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn open(machine: &SoldPod) -> Self {
        let mut command = machine.client("ssh");
        command.args(["pod", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = command.spawn().unwrap();
        let input = client.stdin.take().unwrap();
        let output = BufReader::new(client.stdout.take().unwrap());
        Self { client, input, output }
    }

    fn echoes(&mut self, line: &str) {
        self.input.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        assert_eq!(answer, line);
    }

    fn close(mut self) {
        drop(self.input);
        assert!(self.client.wait().unwrap().success());
    }
}

/// A field of the program's container, as the kubelet reports it.
fn field(machine: &SoldPod, path: &str) -> String {
    let lease = machine.answer["pod_name"].as_str().unwrap().strip_prefix("ssh-pod-").unwrap();
    let of_lease = format!("paygress.dev/lease={lease}");
    let statuses = "{.items[0].status.initContainerStatuses[?(@.name=='paygress-image')]";
    let jsonpath = format!("jsonpath={statuses}{path}}}");
    in_workloads(&["get", "pods", "-l", &of_lease, "-o", &jsonpath])
}

/// What the customer learns of the program.
fn program(testbed: &Testbed, machine: &SoldPod) -> String {
    let pod_name = &machine.answer["pod_name"];
    let status = testbed.ask(&json!({"type": "status", "pod_name": pod_name}));
    assert_eq!(status["status"], "running", "{status}");
    status["image_program"].as_str().unwrap_or_default().to_owned()
}

fn serves_and_comes_back(testbed: &Testbed) {
    let order = json!({"pod_image": images::SERVING, "run": "image"});
    let machine = SoldPod::buy(testbed, 61, &order);
    let mut session = Session::open(&machine);
    session.echoes("before\n");
    let tunnel = Tunnel::open(&machine, 8_080);
    wait_for("the image's own program", SOON, || tunnel.get().ends_with(PAGE));
    wait_for("its state", SOON, || program(testbed, &machine) == "running");
    // Each has the image's files for itself.
    machine.run("echo changed > /srv/index.html");
    assert!(tunnel.get().ends_with(PAGE));

    let id = field(&machine, ".containerID");
    kill_container(id.strip_prefix("containerd://").unwrap());
    wait_for("another container", SOON, || field(&machine, ".restartCount") == "1");
    wait_for("the program again", SOON, || tunnel.get().ends_with(PAGE));
    assert_ne!(field(&machine, ".containerID"), id);
    session.echoes("after\n");
    session.close();
    assert_eq!(machine.run("echo a new login"), "a new login\n");
}

/// Its pod takes logins all the same, and goes on.
fn ends_at_once(testbed: &Testbed) {
    let order = json!({"pod_image": images::DISTROLESS, "run": "image"});
    let machine = SoldPod::buy(testbed, 61, &order);
    assert_eq!(machine.run("/app"), "the program of the image\n");
    wait_for("the end of the program", SOON, || program(testbed, &machine) == "failed");
    let restarts = || field(&machine, ".restartCount").parse::<u32>().unwrap_or(0);
    // The kubelet waits longer before each.
    let enough = sized(1, 2);
    wait_for("restarts of the program", SOON, || restarts() >= enough);
    assert_eq!(machine.run("echo still here"), "still here\n");
}
