//! What a customer who is root does inside stays inside. The pods are as the service makes them,
//! with a user namespace, and run under the admission policy.

use super::live::{JOBS, Jobs, job};
use super::root::{allow_root, root_pod};
use super::{Attacker, LEASE, SOON, patched};
use crate::in_workloads;
use crate::support::testbed::{AdmissionParameters, CLUSTER, kubectl, wait_for};
use serde_json::json;
use std::time::Duration;

const OF_JOB: &str = "batch.kubernetes.io/job-name=ssh-pod-aaaaaaaaaa";

/// A pod of root that runs a script, until it is dropped.
struct RootPod {
    _jobs: Jobs,
    _set: AdmissionParameters,
}

impl RootPod {
    /// Starts it, with these limits of memory and disk.
    fn start(memory: &str, disk: &str, script: &str) -> Self {
        let (jobs, set) = (Jobs, allow_root());
        let attacker = Attacker::new();
        wait_for("the parameter", SOON, || attacker.dry_run("pods", &root_pod()).is_ok());
        let amounts = |cpu: &str| json!({"cpu": cpu, "memory": memory, "ephemeral-storage": disk});
        let resources = json!({"limits": amounts("100m"), "requests": amounts("100m")});
        let command = json!(["/bin/busybox", "sh", "-c", script]);
        let container = json!({"command": command, "readinessProbe": null, "volumeMounts": null, "resources": resources, "ports": null});
        let spec = patched(root_pod()["spec"].clone(), "/containers/0", &container);
        let spec = patched(spec, "", &json!({"volumes": null}));
        attacker.create(JOBS, &job(LEASE, LEASE, &spec)).unwrap();
        Self { _jobs: jobs, _set: set }
    }

    fn field(&self, jsonpath: &str) -> String {
        in_workloads(&["get", "pods", "-l", OF_JOB, "-o", &format!("jsonpath={jsonpath}")])
    }

    fn log(&self) -> String {
        in_workloads(&["logs", "-l", OF_JOB, "--tail=-1"])
    }

    fn wait_for_phase(&self, phase: &str, limit: Duration) {
        wait_for(&format!("the phase {phase}"), limit, || {
            self.field("{.items[*].status.phase}") == phase
        });
    }

    /// What this prints in the pod.
    fn shell(&self, script: &str) -> String {
        let name = self.field("{.items[*].metadata.name}");
        in_workloads(&["exec", &name, "--", "/bin/busybox", "sh", "-c", script])
    }
}

/// The users of the node as whom programs with this argument run.
pub(crate) fn users_outside(argument: &str) -> Vec<u32> {
    let user = |process: std::fs::DirEntry| {
        let arguments = std::fs::read(process.path().join("cmdline")).ok()?;
        if !arguments.split(|byte| *byte == 0).any(|part| part == argument.as_bytes()) {
            return None;
        }
        let status = std::fs::read_to_string(process.path().join("status")).ok()?;
        let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        users.split_whitespace().next()?.parse().ok()
    };
    std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter_map(user).collect()
}

fn is_node_healthy() -> bool {
    let condition = |name: &str| {
        let path = format!("jsonpath={{.status.conditions[?(@.type==\"{name}\")].status}}");
        kubectl(&["get", "node", "testbed", "-o", &path])
    };
    condition("Ready") == "True"
        && condition("DiskPressure") == "False"
        && condition("PIDPressure") == "False"
        && condition("MemoryPressure") == "False"
}

/// What root of a machine may do, and root of a pod may not.
pub(crate) const REFUSED: [&str; 15] = [
    "mount -t tmpfs none /mnt",
    "mount -t proc none /mnt",
    "mount -o remount,rw /proc/sys",
    "unshare -m true",
    "ip link add x type dummy",
    "mknod /mnt/disk b 8 0",
    "mknod /mnt/memory c 1 1",
    "head -c 1 /dev/mem",
    "head -c 1 /dev/kmsg",
    "head -c 1 /dev/sda",
    "head -c 1 /proc/kcore | grep .",
    // Opened for writing, with nothing written.
    ": >> /proc/sys/kernel/panic",
    ": >> /proc/sys/kernel/core_pattern",
    ": >> /proc/sysrq-trigger",
    // Of both versions of cgroups; the first one's directory of them is the pod's own.
    "for f in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do test -e $f && true >> $f && exit; done; false",
];

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn root_inside_is_an_unprivileged_user_outside_and_reaches_no_part_of_the_node() {
    const ARGUMENT: &str = "31536001";
    let _alone = CLUSTER.lock();
    let pod = RootPod::start("64Mi", "64Mi", &format!("exec /bin/busybox sleep {ARGUMENT}"));
    pod.wait_for_phase("Running", SOON.saturating_mul(2));
    let own = "id -u; mkdir -p /mnt; touch /mnt/a; chown 1234 /mnt/a; stat -c %u /mnt/a";
    assert_eq!(pod.shell(own), "0\n1234\n", "it is root inside");
    let outside = users_outside(ARGUMENT);
    assert!(matches!(outside[..], [user] if user >= 65_536), "{outside:?}");
    let succeeds = |attempt: &&str| {
        pod.shell(&format!("({attempt}) >/dev/null 2>&1 && echo done || echo refused"))
            != "refused\n"
    };
    let succeeded: Vec<&str> = REFUSED.into_iter().filter(succeeds).collect();
    assert!(succeeded.is_empty(), "{succeeded:?}");
    println!("root is the user {} outside; {} attempts are refused", outside[0], REFUSED.len());
}

/// `podPidsLimit` of the testbed's kubelet is 512.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_fork_bomb_of_root_ends_at_the_pods_own_limit() {
    let _alone = CLUSTER.lock();
    let bomb = "i=0; while [ $i -lt 2000 ]; do /bin/busybox sleep 300 & i=$((i+1)); echo $i; done";
    let pod = RootPod::start("512Mi", "64Mi", bomb);
    pod.wait_for_phase("Failed", SOON.saturating_mul(4));
    let log = pod.log();
    let started = log.lines().filter_map(|line| line.parse::<u32>().ok()).max().unwrap();
    assert!(log.contains("can't fork") && (400..=512).contains(&started), "{started} started");
    assert!(is_node_healthy());
    println!("{started} of 2000 processes started");
}

/// Whoever fills more than their share is evicted; the node does not run out of disk.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_full_disk_of_root_ends_the_pod_and_not_the_node() {
    let _alone = CLUSTER.lock();
    let fill =
        "dd if=/dev/zero of=/full bs=1M count=256; echo written; exec /bin/busybox sleep 3600";
    let pod = RootPod::start("64Mi", "64Mi", fill);
    // The kubelet measures disks every now and then.
    pod.wait_for_phase("Failed", SOON.saturating_mul(6));
    let reason = pod.field("{.items[*].status.reason}: {.items[*].status.message}");
    assert!(reason.starts_with("Evicted: ") && reason.contains("64Mi"), "{reason}");
    assert!(is_node_healthy());
    println!("{reason}");
}

/// `singleProcessOOMKill` of the testbed's kubelet is true, as docs/operating.md advises.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn who_runs_out_of_memory_loses_the_program_and_not_the_lease() {
    let _alone = CLUSTER.lock();
    // It reads 256 MiB into memory that the pod does not have.
    let script = "/bin/busybox dd if=/dev/zero of=/dev/null bs=256M count=1; echo ended by $?; exec /bin/busybox sleep 3600";
    let pod = RootPod::start("64Mi", "64Mi", script);
    pod.wait_for_phase("Running", SOON.saturating_mul(2));
    wait_for("the end of the program", SOON.saturating_mul(3), || pod.log().contains("ended by"));
    assert!(pod.log().contains("ended by 137"), "{}", pod.log());
    assert_eq!(pod.field("{.items[*].status.phase}"), "Running");
    assert_eq!(pod.field("{.items[*].status.containerStatuses[*].restartCount}"), "0");
    assert_eq!(pod.shell("echo alive"), "alive\n");
}
