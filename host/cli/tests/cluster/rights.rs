//! The rights of the service's own account, and of a gateway's in a process of its own.

use crate::support::testbed::{CLUSTER, Testbed};
use std::process::{Command, Output};
use tempfile::NamedTempFile;

/// `kubectl` with the rights of an account.
fn kubectl_with(kubeconfig: NamedTempFile) -> impl Fn(&[&str]) -> Output {
    move |arguments| {
        Command::new(Testbed::kubectl())
            .env("KUBECONFIG", kubeconfig.path())
            .args(arguments)
            .output()
            .unwrap()
    }
}

fn assert_denied(kubectl: impl Fn(&[&str]) -> Output, arguments: &[&str]) {
    let output = kubectl(arguments);
    let output_text = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(
        !output.status.success() && output_text.contains("forbidden"),
        "{arguments:?} was not denied: {output_text}"
    );
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_service_has_no_right_that_it_does_not_need() {
    let _alone = CLUSTER.lock();
    let service = kubectl_with(Testbed::kubeconfig_of_the_service());
    for arguments in [
        &["-n", "user-workloads", "get", "secrets"][..],
        &["-n", "user-workloads", "get", "secret", "any"],
        &["-n", "user-workloads", "delete", "pod", "any"],
        &["-n", "user-workloads", "create", "serviceaccount", "x"],
        &["-n", "user-workloads", "annotate", "service", "any", "x=y"],
        &["-n", "ingress-system", "create", "configmap", "x"],
        &["-n", "ingress-system", "delete", "configmap", "paygress-admission"],
        &["-n", "kube-system", "get", "jobs"],
        &["-n", "default", "create", "job", "x", "--image=x"],
        &["get", "node", "testbed"],
        &["delete", "node", "any"],
        &["label", "node", "testbed", "x=y"],
        &["-n", "kube-system", "get", "pod", "any"],
        &["-n", "kube-system", "delete", "pod", "any"],
        &["-n", "user-workloads", "delete", "resourcequota", "any"],
        // Without them pods reach everything.
        &["-n", "user-workloads", "delete", "networkpolicy", "any"],
        &["-n", "user-workloads", "label", "networkpolicy", "customers", "x=y"],
        &["-n", "kube-system", "get", "resourcequotas"],
    ] {
        assert_denied(&service, arguments);
    }
    for arguments in [
        &["-n", "user-workloads", "get", "jobs"][..],
        &["-n", "user-workloads", "get", "resourcequotas"],
        // For the capacity.
        &["get", "nodes"],
        &["get", "pods", "--all-namespaces"],
        // For the gateway.
        &["-n", "user-workloads", "auth", "can-i", "create", "pods", "--subresource=portforward"],
        &["-n", "user-workloads", "auth", "can-i", "get", "pods", "--subresource=portforward"],
    ] {
        assert!(service(arguments).status.success(), "{arguments:?}: what it needs it may do");
    }
}

/// It is open to the outside: whoever takes it over makes and ends no pod.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_gateway_finds_pods_and_connects_to_them_and_has_no_other_right() {
    let _alone = CLUSTER.lock();
    let gateway = kubectl_with(Testbed::kubeconfig_of_the_gateway());
    for arguments in [
        &["-n", "user-workloads", "get", "secrets"][..],
        &["-n", "user-workloads", "create", "job", "x", "--image=x"],
        &["-n", "user-workloads", "run", "x", "--image=x"],
        &["-n", "user-workloads", "delete", "job", "any"],
        &["-n", "user-workloads", "annotate", "pod", "any", "x=y"],
        &["-n", "user-workloads", "get", "services"],
        &["-n", "ingress-system", "get", "secrets"],
        &["-n", "ingress-system", "get", "pods"],
        &["get", "nodes"],
        &["get", "pods", "--all-namespaces"],
    ] {
        assert_denied(&gateway, arguments);
    }
    for arguments in [
        &["-n", "user-workloads", "get", "jobs"][..],
        &["-n", "user-workloads", "get", "pods"],
        &["-n", "user-workloads", "auth", "can-i", "create", "pods", "--subresource=portforward"],
        &["-n", "user-workloads", "auth", "can-i", "get", "pods", "--subresource=portforward"],
    ] {
        assert!(gateway(arguments).status.success(), "{arguments:?}: what it needs it may do");
    }
}
