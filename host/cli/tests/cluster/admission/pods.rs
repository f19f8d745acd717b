//! Pods.

use super::{Attacker, Created, LEASE, merge, patched, pod};
use crate::in_workloads;
use crate::support::testbed::{CLUSTER, apply};
use serde_json::{Value, json};

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_pod_with_the_nodes_or_anothers_rights_is_refused() {
    let _alone = CLUSTER.lock();
    let _created = Created(&["serviceaccount/other", "runtimeclass/other"]);
    in_workloads(&["create", "serviceaccount", "other"]);
    apply(&json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "other"}, "handler": "runc"}).to_string());
    let hostname =
        json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": ["testbed"]}]);
    let everywhere = json!([{"topologyKey": "zone", "namespaceSelector": {}}]);
    Attacker::new().is_refused(
        "pods",
        &pod(),
        "/spec",
        &[
            (json!({"hostNetwork": true, "containers": [{"name": "ssh", "image": "x"}]}), "hostNetwork"),
            (json!({"hostPID": true}), "hostPID"),
            (json!({"hostIPC": true}), "hostIPC"),
            (json!({"hostUsers": true}), "hostUsers"),
            (json!({"shareProcessNamespace": true}), "shareProcessNamespace"),
            (json!({"nodeName": "testbed"}), "nodeName"),
            (json!({"nodeSelector": {"kubernetes.io/hostname": "testbed"}}), "POD_NODE_LABELS"),
            (json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": hostname}]}}}}), "POD_NODE_LABELS"),
            (json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {"matchExpressions": hostname}}]}}}), "POD_NODE_LABELS"),
            (json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["testbed"]}]}]}}}}), "POD_NODE_LABELS"),
            (json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": everywhere}}}), "affinity"),
            (json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": everywhere}}}), "affinity"),
            (json!({"priorityClassName": "system-node-critical"}), "POD_PRIORITY_CLASSES"),
            (json!({"schedulerName": "other"}), "scheduler"),
            (json!({"schedulingGates": [{"name": "a.example/b"}]}), "schedulingGates"),
            (json!({"tolerations": [{"operator": "Exists"}]}), "POD_TOLERATIONS"),
            (json!({"tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]}), "POD_TOLERATIONS"),
            (json!({"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]}), "POD_TOLERATIONS"),
            (json!({"runtimeClassName": "other"}), "POD_RUNTIME_CLASSES"),
            (json!({"serviceAccountName": "other"}), "ServiceAccount"),
            (json!({"automountServiceAccountToken": true}), "ServiceAccount"),
            (json!({"automountServiceAccountToken": null}), "ServiceAccount"),
            (json!({"imagePullSecrets": [{"name": "other"}]}), "POD_IMAGE_PULL_SECRETS"),
            (json!({"enableServiceLinks": null}), "enableServiceLinks"),
            (json!({"restartPolicy": "Always"}), "restartPolicy"),
            (json!({"terminationGracePeriodSeconds": 31}), "grace"),
            (json!({"activeDeadlineSeconds": 60}), "activeDeadlineSeconds"),
            (json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"]}}), "dnsConfig"),
            (json!({"hostAliases": [{"ip": "192.0.2.1", "hostnames": ["x"]}]}), "hostAliases"),
            (json!({"hostname": "x"}), "may not have hostname"),
            (json!({"subdomain": "y"}), "may not have subdomain"),
            (json!({"readinessGates": [{"conditionType": "x"}]}), "readinessGates"),
            (json!({"os": {"name": "linux"}}), "os"),
        ],
    );
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_pod_with_other_volumes_is_refused() {
    let _alone = CLUSTER.lock();
    let volume = |source: Value| {
        let mut volume = json!({"name": "x"});
        merge(&mut volume, source);
        (
            json!({"volumes": [{"name": "login", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}, volume]}),
            "volumes",
        )
    };
    let of = |volume: &str| json!({volume: {"name": "x"}});
    let field = |item: Value| volume(json!({"downwardAPI": {"items": [item]}}));
    let annotation = |name: &str| json!({"fieldPath": format!("metadata.annotations['{name}']")});
    let end = json!({"path": "end.json", "fieldRef": annotation("paygress.dev/lease-end")});
    let attacker = Attacker::new();
    attacker.is_refused(
        "pods",
        &pod(),
        "/spec",
        &[
            volume(json!({"hostPath": {"path": "/"}})),
            volume(json!({"secret": {"secretName": "ssh-pod-bbbbbbbbbb"}})),
            volume(json!({"secret": {"secretName": format!("ssh-pod-{LEASE}"), "optional": true}})),
            volume(of("configMap")),
            volume(json!({"persistentVolumeClaim": {"claimName": "x"}})),
            volume(json!({"projected": {"sources": [{"serviceAccountToken": {"path": "x"}}]}})),
            field(json!({"path": "x", "fieldRef": {"fieldPath": "metadata.name"}})),
            field(json!({"path": "x", "fieldRef": annotation("example.com/x")})),
            field(json!({"path": "x", "resourceFieldRef": {"containerName": "ssh", "resource": "limits.cpu"}})),
            field(json!({"path": "x", "fieldRef": annotation("paygress.dev/lease-end"), "mode": 511})),
            volume(json!({"csi": {"driver": "x.example"}})),
            volume(json!({"nfs": {"server": "192.0.2.1", "path": "/"}})),
            volume(json!({"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}})),
        ],
    );
    let accepted = attacker.dry_run("pods", &patched(pod(), "/spec", &field(end).0));
    assert!(accepted.is_ok(), "the end of its own lease: {accepted:?}");
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_pod_with_another_user_or_profile_is_refused() {
    let _alone = CLUSTER.lock();
    Attacker::new().is_refused(
        "pods",
        &pod(),
        "/spec/securityContext",
        &[
            (json!({"runAsNonRoot": null}), "without root"),
            (json!({"runAsUser": 0}), "without root"),
            (json!({"runAsGroup": 0}), "without root"),
            (json!({"fsGroup": 0}), "without root"),
            (json!({"supplementalGroups": [1000, 0]}), "without root"),
            (json!({"seccompProfile": null}), "seccomp"),
            (json!({"seccompProfile": {"type": "Unconfined"}}), "seccomp"),
            (json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "x"}}), "seccomp"),
            (json!({"appArmorProfile": {"type": "Unconfined"}}), "AppArmor"),
            (json!({"seLinuxOptions": {"type": "spc_t"}}), "SELinux"),
            (
                json!({"sysctls": [{"name": "net.ipv4.ping_group_range", "value": "0 0"}]}),
                "sysctls",
            ),
            (json!({"supplementalGroupsPolicy": "Strict"}), "without root"),
        ],
    );
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_pod_of_another_lease_or_with_annotations_is_refused() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    attacker.is_refused(
        "pods",
        &pod(),
        "/metadata",
        &[
            (json!({"labels": {"paygress.dev/lease": null}}), "labels"),
            (json!({"labels": {"app": "other"}}), "labels"),
            (json!({"labels": {"paygress.dev/lease": "bbbbbbbbbb"}}), "volumes"),
            (json!({"labels": {"paygress.dev/other": "x"}}), "but lease, instance and probe"),
            (json!({"annotations": {"k8s.v1.cni.cncf.io/networks": "other"}}), "annotations"),
            (json!({"finalizers": ["example.com/x"]}), "finalizers"),
        ],
    );
    // A webhook of the cluster may add labels of its own, and so may the service's probe pods.
    for label in ["example.com/seen", "paygress.dev/probe"] {
        let labelled = patched(pod(), "/metadata", &json!({"labels": {label: "yes"}}));
        attacker.dry_run("pods", &labelled).unwrap();
    }
    // Another lease's second Secret would be this one's first.
    let lease = format!("{LEASE}-reply");
    let login = json!({"name": "login", "secret": {"secretName": format!("ssh-pod-{lease}"), "defaultMode": 0o440}});
    let patch = json!({
        "metadata": {"labels": {"paygress.dev/lease": lease}},
        "spec": {"volumes": [login, {"name": "tmp", "emptyDir": {}}]},
    });
    attacker.is_refused("pods", &pod(), "", &[(patch, "labels")]);
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_container_with_privileges_is_refused() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    let why = "no privileges and no capabilities";
    let place = "/spec/containers/0/securityContext";
    attacker.is_refused(
        "pods",
        &pod(),
        place,
        &[
            (json!({"privileged": true, "allowPrivilegeEscalation": true}), why),
            (json!({"allowPrivilegeEscalation": true}), why),
            (json!({"allowPrivilegeEscalation": null}), why),
            (json!({"runAsNonRoot": false}), why),
            (json!({"runAsUser": 0}), why),
            (json!({"runAsGroup": 0}), why),
            (json!({"capabilities": null}), why),
            (json!({"capabilities": {"drop": ["NET_RAW"]}}), why),
            (json!({"capabilities": {"add": ["NET_ADMIN"]}}), why),
            (json!({"seccompProfile": {"type": "Unconfined"}}), "seccomp"),
            (json!({"appArmorProfile": {"type": "Unconfined"}}), "AppArmor"),
            (json!({"seLinuxOptions": {"type": "spc_t"}}), "SELinux"),
        ],
    );
    // The API server takes it with a user namespace only.
    let namespaced = patched(pod(), "/spec", &json!({"hostUsers": false}));
    let unmasked = json!({"procMount": "Unmasked"});
    attacker.is_refused("pods", &namespaced, place, &[(unmasked, "procMount")]);
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_container_with_other_fields_is_refused() {
    let _alone = CLUSTER.lock();
    let env = |from: Value| json!({"env": [{"name": "X", "valueFrom": from}]});
    let mount = |option: Value| {
        let mut mount = json!({"name": "tmp", "mountPath": "/tmp"});
        merge(&mut mount, option);
        json!({"volumeMounts": [mount]})
    };
    let exec = json!({"exec": {"command": ["true"]}});
    Attacker::new().is_refused(
        "pods",
        &pod(),
        "/spec/containers/0",
        &[
            (json!({"envFrom": [{"secretRef": {"name": "x"}}]}), "envFrom"),
            (env(json!({"secretKeyRef": {"name": "x", "key": "y"}})), "valueFrom"),
            (env(json!({"configMapKeyRef": {"name": "x", "key": "y"}})), "valueFrom"),
            (env(json!({"fieldRef": {"fieldPath": "status.hostIP"}})), "valueFrom"),
            (json!({"lifecycle": {"postStart": exec}}), "lifecycle"),
            (json!({"terminationMessagePath": "/tmp/x"}), "not allowed"),
            (json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]}), "not allowed"),
            (mount(json!({"subPath": "x"})), "subPath"),
            (mount(json!({"mountPropagation": "HostToContainer"})), "mountPropagation"),
            (json!({"livenessProbe": {"httpGet": {"port": 80, "host": "169.254.169.254"}}}), "probes"),
            (json!({"livenessProbe": {"tcpSocket": {"port": 80, "host": "10.96.0.1"}}}), "probes"),
            (json!({"livenessProbe": {"grpc": {"port": 80}}}), "probes"),
            (json!({"resources": {"limits": {"cpu": null}, "requests": {"cpu": null}}}), "limits of CPU"),
            (json!({"resources": null}), "limits of CPU"),
            (json!({"resources": {"limits": {"example.com/gpu": "1"}, "requests": {"example.com/gpu": "1"}}}), "POD_DEVICES"),
            (json!({"resources": {"limits": {"hugepages-2Mi": "2Mi"}}}), "POD_DEVICES"),
            (json!({"resources": {"requests": {"cpu": "99m"}}}), "POD_CPU_OVERCOMMIT"),
            (json!({"resources": {"requests": {"memory": "63Mi"}}}), "POD_MEMORY_OVERCOMMIT"),
        ],
    );
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_host_port_outside_of_the_range_is_refused() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    let ports = |ports: Value| (json!({"ports": ports}), "one host port");
    attacker.is_refused(
        "pods",
        &pod(),
        "/spec/containers/0",
        &[
            ports(json!([{"containerPort": 2222, "hostPort": 22}])),
            ports(json!([{"containerPort": 2222, "hostPort": 19999}])),
            ports(json!([{"containerPort": 2222, "hostPort": 21001}])),
            ports(json!([{"containerPort": 2222, "hostPort": 30000}])),
            ports(json!([{"containerPort": 22, "hostPort": 20500}])),
            ports(json!([{"containerPort": 2222, "hostPort": 20500, "hostIP": "127.0.0.1"}])),
            ports(json!([{"containerPort": 2222, "hostPort": 20500, "protocol": "UDP"}])),
            ports(json!([{"containerPort": 2222, "hostPort": 20500}, {"containerPort": 2222, "hostPort": 20501}])),
        ],
    );
    for hostless in [json!([]), json!([{"containerPort": 8080}])] {
        let without = patched(pod(), "/spec/containers/0", &json!({"ports": hostless}));
        assert_eq!(attacker.dry_run("pods", &without), Ok(()));
    }
}
