//! A template that asks for too much is refused with the path of the field.
#![cfg(test)]

use paygress_cluster::guard::{Allowed, Overcommit, check};
use paygress_core::backend::policy::{Placement, Rendered, Resources};
use paygress_core::model::access::AccessModes;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::num::NonZeroU32;

fn placement() -> Placement {
    Placement {
        pod_name: "ssh-pod-a".to_owned(),
        image: paygress_core::testing::image("example.com/ssh:1"),
        resources: Resources { cpu_millicores: 500, memory_mib: 64 },
        host_port: Some(31_000),
        access: AccessModes::default(),
        container_port: 2_222,
        secret_name: "ssh-pod-a".to_owned(),
        secret_mount_path: "/run/paygress/login".to_owned(),
    }
}

fn valid() -> Value {
    json!({"spec": {
        "restartPolicy": "Never",
        "securityContext": {"runAsUser": 1000},
        "containers": [{"name": "ssh", "image": "example.com/ssh:1", "ports": [{"containerPort": 2222, "hostPort": 31000}]}],
    }})
}

fn rendered(template: &Value, services: &[Value]) -> Rendered {
    Rendered {
        pod_template_json: template.to_string(),
        services_json: services.iter().map(Value::to_string).collect(),
        egress: None,
    }
}

/// The valid template with a value at a JSON Pointer; its last step is created if it is missing.
fn with(pointer: &str, value: Value) -> Value {
    let mut template = valid();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = template.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"));
    match parent {
        Value::Object(object) => drop(object.insert(field.to_owned(), value)),
        Value::Array(items) => items.push(value),
        _ => panic!("{pointer}"),
    }
    template
}

fn refusal(template: &Value, services: &[Value]) -> String {
    check(&rendered(template, services), &placement(), &Allowed::default()).unwrap_err().to_string()
}

#[test]
fn a_template_is_completed_with_the_values_that_every_pod_must_have() {
    let checked = check(&rendered(&valid(), &[]), &placement(), &Allowed::default()).unwrap();
    let spec = checked.template.spec.unwrap();
    let pod = spec.security_context.as_ref().unwrap();
    let container = &spec.containers[0];
    let security = container.security_context.as_ref().unwrap();
    assert_eq!(
        (spec.automount_service_account_token, spec.enable_service_links),
        (Some(false), Some(false))
    );
    assert_eq!(
        (pod.run_as_non_root, pod.seccomp_profile.as_ref().unwrap().type_.as_str()),
        (Some(true), "RuntimeDefault")
    );
    assert_eq!(
        (security.privileged, security.allow_privilege_escalation, security.run_as_non_root),
        (Some(false), Some(false), Some(true))
    );
    assert_eq!(
        security.capabilities.as_ref().unwrap().drop.as_deref(),
        Some(&["ALL".to_owned()][..])
    );
    for amounts in [
        container.resources.as_ref().unwrap().limits.as_ref(),
        container.resources.as_ref().unwrap().requests.as_ref(),
    ] {
        let amounts = amounts.unwrap();
        assert_eq!((amounts["cpu"].0.as_str(), amounts["memory"].0.as_str()), ("500m", "64Mi"));
    }
}

#[test]
fn requests_are_the_operators_part_of_what_was_sold() {
    let overcommit =
        Overcommit { cpu: NonZeroU32::new(3).unwrap(), memory: NonZeroU32::new(2).unwrap() };
    let allowed = Allowed { overcommit, ..Allowed::default() };
    let amounts = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    let checked = |resources: Value| {
        let template = with("/spec/containers/0/resources", resources);
        check(&rendered(&template, &[]), &placement(), &allowed)
    };
    // Left out, all of it, and the part: rounded up.
    for resources in [
        json!({}),
        json!({"limits": amounts("500m", "64Mi"), "requests": amounts("500m", "64Mi")}),
        json!({"requests": amounts("167m", "32Mi")}),
    ] {
        let spec = checked(resources).unwrap().template.spec.unwrap();
        let resources = spec.containers[0].resources.clone().unwrap();
        let (limits, requests) = (resources.limits.unwrap(), resources.requests.unwrap());
        assert_eq!((limits["cpu"].0.as_str(), limits["memory"].0.as_str()), ("500m", "64Mi"));
        assert_eq!((requests["cpu"].0.as_str(), requests["memory"].0.as_str()), ("167m", "32Mi"));
    }
    for (field, amount) in [("limits", "167m"), ("requests", "166m"), ("requests", "250m")] {
        let refused = checked(json!({field: {"cpu": amount}})).unwrap_err().to_string();
        assert!(refused.contains(&format!("resources.{field}.cpu")), "{refused}");
    }
}

/// A value at a JSON Pointer, and the path that the refusal begins with.
type Escape = (&'static str, Value, &'static str);

fn refused(escapes: impl IntoIterator<Item = Escape>) {
    for (pointer, value, path) in escapes {
        let message = refusal(&with(pointer, value), &[]);
        assert!(message.starts_with(path), "{pointer}: {message}");
    }
}

/// The same in the container: the field, and the path from there.
fn refused_in_container(escapes: impl IntoIterator<Item = Escape>) {
    for (field, value, path) in escapes {
        let message = refusal(&with(&format!("/spec/containers/0/{field}"), value), &[]);
        assert!(
            message.starts_with(&format!("template.spec.containers[0].{path}")),
            "{field}: {message}"
        );
    }
}

#[test]
fn a_pod_with_the_nodes_or_anothers_rights_is_refused() {
    refused([
        ("/spec/hostNetwork", json!(true), "template.spec.hostNetwork"),
        ("/spec/hostPID", json!(true), "template.spec.hostPID"),
        ("/spec/hostIPC", json!(true), "template.spec.hostIPC"),
        ("/spec/hostUsers", json!(true), "template.spec.hostUsers"),
        ("/spec/serviceAccountName", json!("paygress"), "template.spec.serviceAccountName"),
        (
            "/spec/automountServiceAccountToken",
            json!(true),
            "template.spec.automountServiceAccountToken",
        ),
        ("/spec/nodeName", json!("n"), "template.spec.nodeName"),
        ("/spec/activeDeadlineSeconds", json!(1), "template.spec.activeDeadlineSeconds"),
        ("/spec/initContainers", json!([{"image": "evil"}]), "template.spec.initContainers"),
        ("/spec/ephemeralContainers", json!([]), "template.spec.ephemeralContainers"),
        ("/spec/imagePullSecrets", json!([{"name": "x"}]), "template.spec.imagePullSecrets"),
        (
            "/spec/priorityClassName",
            json!("system-node-critical"),
            "template.spec.priorityClassName",
        ),
        ("/spec/hostAliases", json!([]), "template.spec.hostAliases"),
        ("/spec/restartPolicy", json!("Always"), "template.spec.restartPolicy"),
        (
            "/spec/terminationGracePeriodSeconds",
            json!(3_600),
            "template.spec.terminationGracePeriodSeconds",
        ),
        ("/spec/aFieldOfTheFuture", json!(1), "template.spec.aFieldOfTheFuture"),
        (
            "/spec/containers/-",
            json!({"name": "second", "image": "example.com/ssh:1"}),
            "template.spec.containers",
        ),
    ]);
}

#[test]
fn metadata_that_is_not_a_customers_is_refused() {
    refused([
        ("/metadata", json!({"namespace": "kube-system"}), "template.metadata.namespace"),
        ("/metadata", json!({"annotations": {"a": "b"}}), "template.metadata.annotations"),
        ("/metadata", json!({"ownerReferences": []}), "template.metadata.ownerReferences"),
        ("/metadata", json!({"labels": {"app": "mine"}}), "template.metadata.labels.app"),
        (
            "/metadata",
            json!({"labels": {"paygress.dev/lease": "b"}}),
            "template.metadata.labels.paygress.dev/lease",
        ),
    ]);
    // By which an operator's NetworkPolicy selects it.
    let labelled = with("/metadata", json!({"labels": {"paygress-egress": "web"}}));
    let checked = check(&rendered(&labelled, &[]), &placement(), &Allowed::default()).unwrap();
    assert_eq!(checked.template.metadata.unwrap().labels.unwrap()["paygress-egress"], "web");
}

#[test]
fn volumes_and_security_contexts_that_reach_outside_are_refused() {
    refused([
        (
            "/spec/volumes",
            json!([{"name": "x", "hostPath": {"path": "/"}}]),
            "template.spec.volumes[0].hostPath",
        ),
        (
            "/spec/volumes",
            json!([{"name": "x", "projected": {"sources": []}}]),
            "template.spec.volumes[0].projected",
        ),
        (
            "/spec/volumes",
            json!([{"name": "x", "secret": {"secretName": "ssh-pod-b"}}]),
            "template.spec.volumes[0].secret.secretName",
        ),
        ("/spec/volumes", json!([{"name": "x"}]), "template.spec.volumes[0]"),
        (
            "/spec/securityContext",
            json!({"runAsNonRoot": false}),
            "template.spec.securityContext.runAsNonRoot",
        ),
        (
            "/spec/securityContext",
            json!({"runAsUser": 0}),
            "template.spec.securityContext.runAsUser",
        ),
        (
            "/spec/securityContext",
            json!({"supplementalGroups": [0]}),
            "template.spec.securityContext.supplementalGroups",
        ),
        ("/spec/securityContext", json!({"sysctls": []}), "template.spec.securityContext.sysctls"),
        (
            "/spec/securityContext",
            json!({"seccompProfile": {"type": "Unconfined"}}),
            "template.spec.securityContext.seccompProfile",
        ),
    ]);
}

/// Whatever image it is of: its own user may be root, which its node alone finds out, and refuses
/// (`CreateContainerConfigError`) after the payment.
#[test]
fn a_template_names_the_user_of_the_pod_or_of_its_container() {
    let mut template = with("/spec/securityContext", json!({}));
    let path = "template.spec.containers[0].securityContext.runAsUser must be set";
    for unnamed in [json!({}), Value::Null, json!({"runAsUser": null}), json!({"runAsGroup": 7})] {
        template["spec"]["securityContext"] = unnamed;
        let message = refusal(&template, &[]);
        assert!(message.starts_with(path), "{message}");
    }
    let named = |template: &Value| {
        check(&rendered(template, &[]), &placement(), &Allowed::default()).unwrap().template.spec
    };
    template["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 7});
    let container = named(&template).unwrap().containers.remove(0);
    assert_eq!(container.security_context.unwrap().run_as_user, Some(7));
    assert_eq!(named(&valid()).unwrap().security_context.unwrap().run_as_user, Some(1_000));
}

/// Only the host makes a pod root, after this: see `ssh_server`.
#[test]
fn a_template_is_not_root_in_a_user_namespace_either() {
    let mut namespaced = with("/spec/hostUsers", json!(false));
    let checked = check(&rendered(&namespaced, &[]), &placement(), &Allowed::default()).unwrap();
    assert_eq!(checked.template.spec.unwrap().host_users, Some(false));
    for (context, path) in [
        (json!({"runAsUser": 0}), "template.spec.securityContext.runAsUser"),
        (json!({"runAsNonRoot": false}), "template.spec.securityContext.runAsNonRoot"),
    ] {
        namespaced["spec"]["securityContext"] = context;
        let message = refusal(&namespaced, &[]);
        assert!(message.starts_with(path), "{message}");
    }
}

#[test]
fn a_container_with_more_rights_or_secrets_is_refused() {
    refused_in_container([
        ("image", json!("example.com/ssh:2"), "image"),
        ("securityContext", json!({"privileged": true}), "securityContext.privileged"),
        (
            "securityContext",
            json!({"allowPrivilegeEscalation": true}),
            "securityContext.allowPrivilegeEscalation",
        ),
        (
            "securityContext",
            json!({"capabilities": {"add": ["SYS_ADMIN"], "drop": ["ALL"]}}),
            "securityContext.capabilities",
        ),
        ("securityContext", json!({"runAsUser": 0}), "securityContext.runAsUser"),
        ("securityContext", json!({"procMount": "Unmasked"}), "securityContext.procMount"),
        ("envFrom", json!([{"secretRef": {"name": "x"}}]), "envFrom"),
        (
            "env",
            json!([{"name": "X", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]),
            "env[0].valueFrom",
        ),
        ("lifecycle", json!({}), "lifecycle"),
        ("volumeDevices", json!([]), "volumeDevices"),
        (
            "volumeMounts",
            json!([{"name": "x", "mountPath": "/x", "subPath": ".."}]),
            "volumeMounts[0].subPath",
        ),
    ]);
}

/// Over its host keys, for instance: the server would have others than the pod has reported.
#[test]
fn a_mount_over_the_hosts_ssh_server_is_refused() {
    for path in [
        "/.paygress",
        "/.paygress/",
        "//.paygress/host-keys",
        "/x/.././.paygress/bin",
        // Where it reads when the lease ends.
        "/run/paygress/lease",
        "/run//paygress/./lease/x",
    ] {
        let mounts = json!([{"name": "x", "mountPath": path}]);
        refused_in_container([("volumeMounts", mounts, "volumeMounts[0].mountPath")]);
    }
}

/// The host adds them after this: what a pod is to write to its customer has the login.
#[test]
fn a_mount_of_the_hosts_volumes_is_refused() {
    for name in ["paygress", "paygress-reply", "paygress-lease", "paygress-keys"] {
        let mounts = json!([{"name": name, "mountPath": "/x"}]);
        refused_in_container([("volumeMounts", mounts, "volumeMounts[0].name")]);
    }
}

/// What one of these reports is the host's own: a pod's key for instance.
#[test]
fn a_container_with_a_name_of_the_hosts_is_refused() {
    for name in ["paygress-ssh", "paygress-reply", "paygress-image", "paygress-pod"] {
        refused_in_container([("name", json!(name), "name is a container of the host")]);
    }
}

#[test]
fn probes_resources_and_ports_that_are_not_the_leases_are_refused() {
    refused_in_container([
        (
            "readinessProbe",
            json!({"httpGet": {"host": "169.254.169.254", "port": 80}}),
            "readinessProbe.httpGet",
        ),
        (
            "readinessProbe",
            json!({"tcpSocket": {"host": "10.0.0.1", "port": 80}}),
            "readinessProbe.tcpSocket.host",
        ),
        ("resources", json!({"limits": {"cpu": "64"}}), "resources.limits.cpu"),
        (
            "resources",
            json!({"limits": {"hugepages-2Mi": "1Gi"}}),
            "resources.limits.hugepages-2Mi",
        ),
        ("ports", json!([{"containerPort": 2222, "hostPort": 22}]), "ports[0].hostPort"),
        ("ports", json!([{"containerPort": 22, "hostPort": 31000}]), "ports[0].containerPort"),
        (
            "ports",
            json!([{"containerPort": 2222, "hostPort": 31000, "hostIP": "0.0.0.0"}]),
            "ports[0].hostIP",
        ),
        (
            "ports",
            json!([{"containerPort": 2222, "hostPort": 31000}, {"containerPort": 2222, "hostPort": 31000}]),
            "ports[1].hostPort",
        ),
    ]);
}

#[test]
fn a_pod_is_reachable_by_one_port_which_is_the_reserved_one() {
    let mut unreachable = valid();
    unreachable["spec"]["containers"][0]["ports"] = json!([]);
    assert!(refusal(&unreachable, &[]).contains("nobody could log in"));
    let node_port = json!({"spec": {"type": "NodePort", "ports": [{"port": 22}]}});
    let checked = check(
        &rendered(&unreachable, std::slice::from_ref(&node_port)),
        &placement(),
        &Allowed::default(),
    )
    .unwrap();
    let spec = checked.services[0].spec.as_ref().unwrap();
    let port = &spec.ports.as_ref().unwrap()[0];
    assert_eq!(
        (checked.services[0].metadata.name.as_deref(), port.node_port),
        (Some("ssh-pod-a"), Some(31_000))
    );
    assert!(refusal(&valid(), std::slice::from_ref(&node_port)).contains("use one of them"));
    for (service, path) in [
        (json!({"metadata": {"name": "kubernetes"}, "spec": {}}), "services[0].metadata.name"),
        (json!({"spec": {"type": "LoadBalancer"}}), "services[0].spec.type"),
        (json!({"spec": {"externalIPs": ["1.1.1.1"]}}), "services[0].spec.externalIPs"),
        (json!({"spec": {"ipFamilyPolicy": "DualStack"}}), "services[0].spec.ipFamilyPolicy"),
        (json!({"spec": {"ipFamilyPolicy": 2}}), "services[0].spec.ipFamilyPolicy"),
        (json!({"spec": {"ipFamilies": ["IPv6"]}}), "services[0].spec.ipFamilies"),
        (json!({"spec": {"selector": {"app": "other"}}}), "services[0].spec.selector"),
        (
            json!({"spec": {"type": "NodePort", "ports": [{"port": 22, "nodePort": 30001}]}}),
            "services[0].spec.ports[0].nodePort",
        ),
        (json!([]), "services[0]"),
    ] {
        let message = refusal(&unreachable, &[service]);
        assert!(message.starts_with(path), "{path}: {message}");
    }
}

#[test]
fn a_service_has_addresses_of_each_family_that_the_cluster_has() {
    for (given, expected) in [
        (Value::Null, "PreferDualStack"),
        (json!("PreferDualStack"), "PreferDualStack"),
        (json!("RequireDualStack"), "RequireDualStack"),
        (json!("SingleStack"), "SingleStack"),
    ] {
        let service = json!({"spec": {"ipFamilyPolicy": given, "ports": [{"port": 80}]}});
        let rendered = rendered(&valid(), &[service]);
        let checked = check(&rendered, &placement(), &Allowed::default()).unwrap();
        let spec = checked.services[0].spec.as_ref().unwrap();
        assert_eq!(spec.ip_family_policy.as_deref(), Some(expected));
    }
}

#[test]
fn malformed_templates_are_refused() {
    for text in [
        "",
        "null",
        "[]",
        "7",
        "{\"spec\": 7}",
        "{\"spec\": {\"restartPolicy\": \"Never\", \"containers\": 7}}",
        "{\"spec\": {\"restartPolicy\": \"Never\", \"containers\": [7]}}",
    ] {
        let rendered = Rendered { pod_template_json: text.to_owned(), ..Rendered::default() };
        assert!(check(&rendered, &placement(), &Allowed::default()).is_err(), "{text}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let names = [
        "spec",
        "metadata",
        "containers",
        "image",
        "ports",
        "hostPort",
        "securityContext",
        "volumes",
        "name",
        "labels",
        "x",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zA-Z:/.]{0,12}".prop_map(Value::from)
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((proptest::sample::select(names.to_vec()), inner), 0..6)
                .prop_map(|fields| fields
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect::<serde_json::Map<_, _>>()
                    .into()),
        ]
    })
}

proptest! {
    #[test]
    fn no_template_panics(template in any_json(), service in any_json()) {
        let _ = check(&rendered(&template, &[service]), &placement(), &Allowed::default());
    }

    /// Whatever is added anywhere, a template that passes is as restricted as the valid one.
    #[test]
    fn a_template_that_passes_is_restricted(field in "[a-zA-Z]{1,12}", value in any_json(), place in proptest::sample::select(vec!["/spec", "/spec/containers/0", ""])) {
        let mut template = valid();
        if let Some(object) = template.pointer_mut(place).and_then(Value::as_object_mut) {
            object.entry(field).or_insert(value);
        }
        if let Ok(checked) = check(&rendered(&template, &[]), &placement(), &Allowed::default()) {
            let spec = checked.template.spec.unwrap();
            prop_assert_eq!(spec.automount_service_account_token, Some(false));
            prop_assert_eq!(spec.containers.len(), 1);
            prop_assert_eq!(spec.containers[0].image.as_deref(), Some("example.com/ssh:1"));
            prop_assert_eq!(spec.host_network, None);
        }
    }
}
