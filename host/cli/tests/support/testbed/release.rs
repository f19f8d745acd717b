//! The service as a release of Helm.

use super::{Deployed, Outside, helm, kubectl, kubectl_command, output, root, wait_for};
use serde_json::json;
use std::time::Duration;
use tempfile::NamedTempFile;

/// Of the Service: there is no DNS that would lead the pod of `helm test` to it.
const ADDRESS: &str = "10.96.0.80";

/// The service in a pod of the cluster, as the chart installs it, and gone with this. `k8s/base` is
/// then as it was.
pub struct Release {
    // In this order: what it has left, then what it has taken.
    pub service: Deployed,
    values: NamedTempFile,
    _base: Base,
}

impl Release {
    pub fn install(outside: &Outside, sats_per_hour: u64) -> Self {
        Deployed::prepare(outside);
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), values(outside, sats_per_hour)).unwrap();
        let base = Base;
        // The testbed has `k8s/base`.
        let service = Deployed::deploy(|| with_values("install", &file, &["--take-ownership"]));
        Self { service, values: file, _base: base }
    }

    /// With the same arguments, where the file of values has another price.
    pub fn upgrade(&self, outside: &Outside, sats_per_hour: u64) {
        std::fs::write(self.values.path(), values(outside, sats_per_hour)).unwrap();
        self.service.search_log();
        with_values("upgrade", &self.values, &[]);
        self.service.wait();
    }

    /// What `helm test` prints.
    pub fn test(&self) -> String {
        of_release(&["test", "--logs"])
    }

    pub fn uninstall(&mut self) {
        self.service.remove(|| {
            of_release(&["uninstall", "--wait"]);
        });
    }
}

/// A command of docs/operating.md; gives what it prints.
fn of_release(arguments: &[&str]) -> String {
    output(&mut helm(&[arguments, &["paygress", "--namespace", "ingress-system"]].concat()))
}

fn with_values(verb: &str, values: &NamedTempFile, others: &[&str]) {
    let chart = root().join("k8s/chart");
    let (chart, values) = (chart.to_string_lossy(), values.path().to_string_lossy());
    let place = ["--namespace", "ingress-system", "--values", &*values];
    output(&mut helm(&[&[verb, "paygress", &*chart][..], &place, others].concat()));
}

/// What is the operator's own, and closed networks for once.
fn values(outside: &Outside, sats_per_hour: u64) -> String {
    let names = json!([{"ip": ADDRESS, "hostnames": ["paygress.ingress-system.svc"]}]);
    json!({
        "config": {
            "NOSTR_RELAYS": outside.relay,
            "ALLOW_PRIVATE_RELAYS": true,
            "WHITELISTED_MINTS": outside.mint,
            "SSH_HOST": "127.0.0.1",
        },
        "files": {"paygress.toml": format!("[policy.pricing]\nsats_per_hour = {sats_per_hour}\n")},
        "service": {"spec": {"clusterIP": ADDRESS}},
        // It has busybox.
        "test": {"image": "paygress.local/ssh:1", "pod": {"hostAliases": names}},
    })
    .to_string()
}

/// `k8s/base`, which a release takes and removes: it is there again once this is dropped.
struct Base;

impl Drop for Base {
    fn drop(&mut self) {
        of_release(&["uninstall", "--wait", "--ignore-not-found"]);
        let delete = ["-n", "ingress-system", "delete", "--ignore-not-found"];
        kubectl(&[&delete[..], &["pod/paygress-test"]].concat());
        kubectl(&["apply", "-k", &root().join("k8s/base").to_string_lossy()]);
        let pod = ["-n", "user-workloads", "run", "any", "--image", "any", "--dry-run=server"];
        wait_for("the admission policy", Duration::from_secs(60), || {
            let refused = kubectl_command(&pod).output().unwrap().stderr;
            let refused = String::from_utf8_lossy(&refused);
            refused.contains("ValidatingAdmissionPolicy") && !refused.contains("no params found")
        });
    }
}
