//! Init containers: one of the operator's image, held to what the container is held to.

use super::{Attacker, LEASE, SOON, merge, patched, pod};
use crate::support::testbed::{AdmissionParameters, CLUSTER, wait_for};
use serde_json::{Value, json};

pub(super) const SERVER: &str = "example.com/server:1";

/// An init container as the service makes it, with this changed.
pub(super) fn init(patch: Value) -> Value {
    let changed = json!({"name": "paygress-ssh", "image": SERVER, "ports": null, "readinessProbe": null, "env": null});
    let mut init = patched(pod()["spec"]["containers"][0].clone(), "", &changed);
    merge(&mut init, patch);
    init
}

fn of(containers: &[Value]) -> Value {
    json!({"initContainers": containers})
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_second_container_is_refused_and_an_init_container_is_checked() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    let _set = AdmissionParameters::set(&[("SSH_SERVER_IMAGE", SERVER)]);
    let with_init = patched(pod(), "/spec", &of(&[init(json!({}))]));
    wait_for("the parameter", SOON, || attacker.dry_run("pods", &with_init).is_ok());
    let one = |patch: Value| of(&[init(patch)]);
    let second = init(json!({"name": "second"}));
    let both = json!([pod()["spec"]["containers"][0], second]);
    let image = "no init container but one of SSH_SERVER_IMAGE";
    attacker.is_refused(
        "pods",
        &with_init,
        "/spec",
        &[
            (json!({"containers": both}), "one container"),
            (one(json!({"image": "example.com/server:2"})), image),
            (one(json!({"image": "paygress.local/ssh:1"})), image),
            (of(&[init(json!({})), second]), "a second init container"),
            (one(json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": true}})), "no privileges"),
            (one(json!({"securityContext": {"runAsUser": 0}})), "no privileges"),
            (one(json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}})), "seccomp"),
            (one(json!({"envFrom": [{"secretRef": {"name": "x"}}]})), "envFrom"),
            (one(json!({"restartPolicy": "Always"})), "not allowed"),
            (one(json!({"ports": [{"containerPort": 2222, "hostPort": 20501}]})), "one host port"),
            (one(json!({"resources": null})), "limits of CPU"),
        ],
    );
}

/// How the container that writes to the customer mounts what it writes.
fn reply_mount() -> Value {
    json!({"name": "paygress-reply", "mountPath": "/.paygress-reply", "readOnly": true})
}

/// That container as the service makes it, with this changed.
fn reply(patch: Value) -> Value {
    let command = [
        "/bin/paygress-nostr",
        "reply",
        "--message",
        "/.paygress-reply/message.json",
        "--host-keys",
        "/.paygress/host-keys",
        "--termination-message",
        "/dev/termination-log",
    ];
    let own =
        json!({"name": "paygress-reply", "command": command, "volumeMounts": [reply_mount()]});
    let mut reply = init(own);
    merge(&mut reply, patch);
    reply
}

/// The volume with what is written, of this Secret.
fn reply_volume(secret: &str) -> Value {
    json!({"name": "paygress-reply", "secret": {"secretName": secret, "optional": true}})
}

/// What a pod writes to its customer has the login, and is for one container's eyes.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_second_init_container_writes_to_the_customer_and_does_nothing_else() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    let _set = AdmissionParameters::set(&[("SSH_SERVER_IMAGE", SERVER)]);
    let first = || init(json!({"name": "paygress-ssh"}));
    let mut replying = patched(pod(), "/spec", &of(&[first(), reply(json!({}))]));
    let volumes = replying["spec"]["volumes"].as_array_mut().unwrap();
    volumes.push(reply_volume(&format!("ssh-pod-{LEASE}-reply")));
    wait_for("the parameter", SOON, || attacker.dry_run("pods", &replying).is_ok());
    let two = |patch: Value| of(&[first(), reply(patch)]);
    let image = "no init container but one of SSH_SERVER_IMAGE";
    let own = "is paygress-reply, with its own command";
    let mounted = "mounted by its init container paygress-reply alone";
    let mut container = pod()["spec"]["containers"][0].clone();
    container["volumeMounts"].as_array_mut().unwrap().push(reply_mount());
    let writable = json!([reply_mount(), {"name": "tmp", "mountPath": "/tmp"}]);
    attacker.is_refused(
        "pods",
        &replying,
        "/spec",
        &[
            (two(json!({"image": "example.com/server:2"})), image),
            (of(&[first(), reply(json!({})), init(json!({"name": "third"}))]), mounted),
            (two(json!({"name": "other", "volumeMounts": null})), own),
            (of(&[init(json!({"name": "other"})), reply(json!({}))]), own),
            (two(json!({"command": ["/bin/sh", "-c", "sleep 60"]})), own),
            (two(json!({"args": ["x"]})), own),
            (two(json!({"env": [{"name": "LD_PRELOAD", "value": "/tmp/x"}]})), own),
            (two(json!({"volumeMounts": writable})), own),
            (two(json!({"securityContext": {"runAsUser": 0}})), "no privileges"),
            (two(json!({"resources": null})), "limits of CPU"),
            (json!({"containers": [container]}), mounted),
            (of(&[init(json!({"volumeMounts": [reply_mount()]})), reply(json!({}))]), mounted),
            // Alone it would have any command.
            (of(&[reply(json!({"command": ["/bin/sh", "-c", "sleep 60"]}))]), mounted),
        ],
    );
    // Nor is it another lease's.
    let mut of_other = replying;
    of_other["spec"]["volumes"][2] = reply_volume("ssh-pod-bbbbbbbbbb-reply");
    let refused = attacker.dry_run("pods", &of_other).unwrap_err();
    assert!(refused.contains("Secrets of its own lease"), "{refused}");
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn without_the_operators_image_there_are_no_init_containers() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    let image = "no init container but one of SSH_SERVER_IMAGE";
    let rows = [
        (of(&[init(json!({}))]), image),
        (of(&[init(json!({"image": ""}))]), image),
        (of(&[init(json!({"image": "paygress.local/ssh:1"}))]), image),
    ];
    // The API server itself refuses an empty name, before or after the policy.
    let (named, empty) = ([rows[0].clone(), rows[2].clone()], &rows[1].0);
    attacker.is_refused("pods", &pod(), "/spec", &named);
    assert!(attacker.dry_run("pods", &patched(pod(), "/spec", empty)).is_err());
    // A ConfigMap of before has no such parameter.
    let _without = AdmissionParameters::without(&["SSH_SERVER_IMAGE"]);
    wait_for("pods to be accepted", SOON, || attacker.dry_run("pods", &pod()).is_ok());
    attacker.is_refused("pods", &pod(), "/spec", &named);
}

/// The pod of an order with `run: image`, as the service makes it.
fn with_program() -> Value {
    let container = pod()["spec"]["containers"][0].clone();
    let changed = |patch: Value| patched(container.clone(), "", &patch);
    let ports = json!([{"name": "ssh", "containerPort": 2222}]);
    let server = changed(json!({"image": "nginx:1", "ports": ports, "restartPolicy": "Always"}));
    let program = changed(json!({
        "name": "paygress-image", "image": "nginx:1", "ports": null, "readinessProbe": null,
        "restartPolicy": "Always", "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }));
    let holder = changed(json!({
        "name": "paygress-pod", "image": SERVER, "command": ["/bin/paygress-sshd", "hold"],
        "env": null, "readinessProbe": null, "volumeMounts": null,
    }));
    let inits = json!([init(json!({})), server, program]);
    patched(pod(), "/spec", &json!({"initContainers": inits, "containers": [holder]}))
}

/// The pod, with this merged into what is at the JSON Pointer, as a patch of its `spec`.
fn changed(place: &str, patch: Value) -> Value {
    let mut pod = with_program();
    merge(pod.pointer_mut(place).unwrap(), patch);
    let spec = &pod["spec"];
    json!({"initContainers": spec["initContainers"], "containers": spec["containers"]})
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn sidecars_are_the_server_and_the_images_own_program_and_nothing_else() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    let set = [("SSH_SERVER_IMAGE", SERVER), ("POD_RUN_IMAGE", "true")];
    let _set = AdmissionParameters::set(&set);
    wait_for("the parameters", SOON, || attacker.dry_run("pods", &with_program()).is_ok());
    let (why, [install, server, program], holder) = (
        "three for an image's own program",
        ["/spec/initContainers/0", "/spec/initContainers/1", "/spec/initContainers/2"],
        "/spec/containers/0",
    );
    let two = with_program()["spec"]["initContainers"].as_array().unwrap()[..2].to_vec();
    let login = json!([{"name": "login", "mountPath": "/run/paygress/login", "readOnly": true}]);
    let root = json!({"securityContext": {"runAsUser": 0}});
    attacker.is_refused(
        "pods",
        &with_program(),
        "/spec",
        &[
            (of(&two), why),
            (json!({"restartPolicy": "OnFailure"}), why),
            (changed(install, json!({"image": "example.com/server:2"})), why),
            (changed(install, json!({"restartPolicy": "Always"})), why),
            (changed(server, json!({"image": "nginx:2"})), why),
            (changed(server, json!({"restartPolicy": null, "readinessProbe": null})), why),
            (changed(program, json!({"name": "other"})), why),
            (changed(program, json!({"image": "nginx:2"})), why),
            (changed(program, json!({"restartPolicy": null})), why),
            (changed(program, json!({"command": ["sh"]})), why),
            (changed(program, json!({"args": ["sh"]})), why),
            (changed(program, json!({"ports": [{"containerPort": 80}]})), why),
            (changed(program, json!({"volumeMounts": login})), why),
            (changed(holder, json!({"image": "nginx:1"})), why),
            (changed(holder, json!({"volumeMounts": login})), why),
            (changed(holder, json!({"name": "other"})), why),
            (changed(holder, json!({"command": ["/bin/sh", "-c", "sleep 60"]})), why),
            (changed(holder, json!({"command": null})), why),
            (changed(holder, json!({"args": ["x"]})), why),
            (changed(holder, json!({"env": [{"name": "A", "value": "b"}]})), why),
            // What holds for every container holds for these.
            (changed(program, root.clone()), "no privileges"),
            (changed(server, root), "no privileges"),
            (changed(program, json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": true}})), "no privileges"),
            (changed(program, json!({"envFrom": [{"secretRef": {"name": "x"}}]})), "envFrom"),
            (changed(program, json!({"resources": null})), "limits of CPU"),
            (changed(program, json!({"resources": {"requests": {"cpu": "1m"}}})), "POD_CPU_OVERCOMMIT"),
            (json!({"shareProcessNamespace": true}), "shareProcessNamespace"),
        ],
    );
}

/// Whatever it is called.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_sidecar_does_not_get_what_the_pod_writes_to_its_customer() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    let _set = AdmissionParameters::set(&[("SSH_SERVER_IMAGE", SERVER), ("POD_RUN_IMAGE", "true")]);
    wait_for("the parameters", SOON, || attacker.dry_run("pods", &with_program()).is_ok());
    let reads = json!({"name": "paygress-reply", "volumeMounts": [reply_mount()]});
    let mut reading = changed("/spec/initContainers/1", reads);
    let mut volumes = with_program()["spec"]["volumes"].clone();
    volumes.as_array_mut().unwrap().push(reply_volume(&format!("ssh-pod-{LEASE}-reply")));
    reading["volumes"] = volumes;
    let why = "mounted by its init container paygress-reply alone";
    attacker.is_refused("pods", &with_program(), "/spec", &[(reading, why)]);
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn without_the_operators_leave_there_are_no_sidecars() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    let why = "where POD_RUN_IMAGE is true";
    for refused in [&[("SSH_SERVER_IMAGE", SERVER)][..], &[("POD_RUN_IMAGE", "true")]] {
        let _set = AdmissionParameters::set(refused);
        wait_for("the refusal", SOON, || {
            attacker.dry_run("pods", &with_program()).is_err_and(|text| text.contains(why))
        });
    }
}
