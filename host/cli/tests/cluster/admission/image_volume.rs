//! The image with the SSH server as a volume, in the place of an init container that copies it.

use super::init::{SERVER, init};
use super::{Attacker, Row, SOON, merge, patched, pod};
use crate::support::testbed::{AdmissionParameters, CLUSTER, wait_for};
use serde_json::{Value, json};

const WHY: &str = "mounts no image but SSH_SERVER_IMAGE";

/// The volumes of a pod as the service makes it, with this merged into that of the image.
fn volumes(patch: Value) -> Value {
    let mut volumes = pod()["spec"]["volumes"].clone();
    let image = json!({"reference": SERVER, "pullPolicy": "IfNotPresent"});
    let mut volume = json!({"name": "paygress", "image": image});
    merge(&mut volume, patch);
    let keys = json!({"medium": "Memory", "sizeLimit": "1Mi"});
    let keys = json!({"name": "paygress-keys", "emptyDir": keys});
    volumes.as_array_mut().unwrap().extend([volume, keys]);
    volumes
}

/// Its container, with this merged into the mount of the image.
fn containers(patch: Value) -> Value {
    let mut container = pod()["spec"]["containers"][0].clone();
    let mut mount = json!({"name": "paygress", "mountPath": "/.paygress", "readOnly": true});
    merge(&mut mount, patch);
    let keys = json!({"name": "paygress-keys", "mountPath": "/.paygress/host-keys"});
    container["volumeMounts"].as_array_mut().unwrap().extend([mount, keys]);
    json!([container])
}

fn mounted() -> Value {
    let spec = json!({"volumes": volumes(json!({})), "containers": containers(json!({}))});
    patched(pod(), "/spec", &spec)
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_operators_image_is_mounted_read_only_at_its_place_and_no_other_is() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    let _set = AdmissionParameters::set(&[("SSH_SERVER_IMAGE", SERVER)]);
    wait_for("the parameter", SOON, || attacker.dry_run("pods", &mounted()).is_ok());
    let of_image = |patch: Value| (json!({"volumes": volumes(json!({"image": patch}))}), WHY);
    let of_mount = |patch: Value| json!({"containers": containers(patch)});
    let mut second = volumes(json!({}));
    let other =
        json!({"name": "second", "image": {"reference": SERVER, "pullPolicy": "IfNotPresent"}});
    second.as_array_mut().unwrap().push(other);
    let rows: Vec<Row> = vec![
        of_image(json!({"reference": "example.com/server:2"})),
        of_image(json!({"reference": "paygress.local/ssh:1"})),
        of_image(json!({"pullPolicy": "Always"})),
        of_image(json!({"pullPolicy": "Never"})),
        (of_mount(json!({"readOnly": null})), WHY),
        (of_mount(json!({"mountPath": "/usr"})), WHY),
        (of_mount(json!({"subPath": "bin"})), "subPath"),
        (json!({"volumes": second}), WHY),
        (json!({"initContainers": [init(json!({}))]}), WHY),
    ];
    attacker.is_refused("pods", &mounted(), "/spec", &rows);
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn without_the_operators_image_none_is_mounted() {
    let _alone = CLUSTER.lock();
    let attacker = Attacker::new();
    let spec = mounted()["spec"].clone();
    let wanted = json!({"volumes": spec["volumes"], "containers": spec["containers"]});
    attacker.is_refused("pods", &pod(), "/spec", &[(wanted, WHY)]);
}
