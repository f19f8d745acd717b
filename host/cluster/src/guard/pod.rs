//! The pod and its container.

use super::allowed::Allowed;
use super::error::GuardError;
use super::fields::Object;
use crate::ssh_server::{DIRECTORY, END_DIRECTORY, RESERVED_CONTAINERS, RESERVED_VOLUMES};
use paygress_core::backend::policy::{Placement, Resources};
use paygress_core::model::access::AccessMode;
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, GuardError>;

/// The longest grace period, in seconds: the port of a pod that is being stopped is not free.
const GRACE_SECONDS: i64 = 30;
/// The port that is none, for Kubernetes too: templates of contract 1.0 and 1.1 are given it where a
/// pod has no port.
const NO_PORT: u16 = 0;
const VOLUMES: usize = 8;
const VARIABLES: usize = 64;

/// Terms of affinity that the scheduler holds to, and those that it only prefers.
pub(super) const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
pub(super) const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
/// Labels that the host or the cluster's controllers select by.
const RESERVED_LABELS: [&str; 3] = ["app", "job-name", "controller-uid"];
const POD: [&str; 14] = [
    "affinity",
    "automountServiceAccountToken",
    "containers",
    "dnsPolicy",
    "enableServiceLinks",
    "hostUsers",
    "nodeSelector",
    "restartPolicy",
    "runtimeClassName",
    "securityContext",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
];
const POD_SECURITY: [&str; 7] = [
    "fsGroup",
    "fsGroupChangePolicy",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "seccompProfile",
    "supplementalGroups",
];
const CONTAINER: [&str; 17] = [
    "args",
    "command",
    "env",
    "image",
    "imagePullPolicy",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resources",
    "securityContext",
    "startupProbe",
    "stdin",
    "terminationMessagePolicy",
    "tty",
    "volumeMounts",
    "workingDir",
];
const CONTAINER_SECURITY: [&str; 8] = [
    "allowPrivilegeEscalation",
    "capabilities",
    "privileged",
    "readOnlyRootFilesystem",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "seccompProfile",
];
const PROBE: [&str; 7] = [
    "exec",
    "failureThreshold",
    "initialDelaySeconds",
    "periodSeconds",
    "successThreshold",
    "tcpSocket",
    "timeoutSeconds",
];

/// Checks and completes the pod; returns whether it has the reserved port as its hostPort.
pub(super) fn check(
    template: &mut Object<'_>,
    placement: &Placement,
    allowed: &Allowed,
) -> Result<bool> {
    template.only(&["metadata", "spec"])?;
    labels(&mut template.object("metadata"))?;
    let mut spec = template.object("spec");
    spec.only(&POD)?;
    spec.require("automountServiceAccountToken", json!(false))?;
    spec.require("enableServiceLinks", json!(false))?;
    spec.number("terminationGracePeriodSeconds", 0..=GRACE_SECONDS)?;
    if spec.get("hostUsers").is_some() {
        spec.require("hostUsers", json!(false))?;
    }
    scheduling(&mut spec, allowed)?;
    match spec.get("restartPolicy").and_then(Value::as_str) {
        Some("Never" | "OnFailure") => {}
        _ => return Err(spec.field_error("restartPolicy", "must be Never or OnFailure")),
    }
    match spec.get("dnsPolicy").map(Value::as_str) {
        None | Some(Some("ClusterFirst" | "Default")) => {}
        _ => return Err(spec.field_error("dnsPolicy", "must be ClusterFirst or Default")),
    }
    let mut context = spec.object("securityContext");
    security(&mut context, &POD_SECURITY)?;
    let has_user = context.get("runAsUser").is_some();
    volumes(&mut spec, placement)?;
    let mut containers = spec.list("containers")?;
    match containers.as_mut_slice() {
        [one] => {
            let host_port = container(one, placement, allowed)?;
            match has_user {
                true => Ok(host_port),
                false => user(&one.object("securityContext")).map(|()| host_port),
            }
        }
        _ => Err(spec.field_error("containers", "must have exactly one container")),
    }
}

/// The user of the image is not known before a node has pulled it. Where that is root, or has a name
/// and no number, the node refuses the pod, and only once it is paid for.
fn user(context: &Object<'_>) -> Result<()> {
    match context.get("runAsUser") {
        Some(_) => Ok(()),
        None => Err(context.field_error(
            "runAsUser",
            "must be set, here or for the pod: an image of root, or of a user by name, would not start",
        )),
    }
}

fn labels(metadata: &mut Object<'_>) -> Result<()> {
    metadata.only(&["labels"])?;
    let is_reserved = |key: &str| RESERVED_LABELS.contains(&key) || key.contains('/');
    let labels = metadata.map("labels")?;
    match labels.and_then(|labels| labels.keys().find(|key| is_reserved(key)).cloned()) {
        Some(label) => Err(metadata.object("labels").field_error(
            &label,
            "is reserved for the host or the cluster; use another label, without a slash",
        )),
        None => Ok(()),
    }
}

fn is_one_of(value: &Value, names: &[String]) -> bool {
    value.as_str().is_some_and(|value| names.iter().any(|name| name == value))
}

fn scheduling(spec: &mut Object<'_>, allowed: &Allowed) -> Result<()> {
    if spec.get("runtimeClassName").is_some_and(|class| !is_one_of(class, &allowed.runtime_classes))
    {
        return Err(spec
            .field_error("runtimeClassName", "is not one of the operator's POD_RUNTIME_CLASSES"));
    }
    for mut toleration in spec.list("tolerations")? {
        toleration.only(&["effect", "key", "operator", "tolerationSeconds", "value"])?;
        if !toleration.get("key").is_some_and(|key| is_one_of(key, &allowed.tolerations)) {
            return Err(
                toleration.field_error("key", "is not one of the operator's POD_TOLERATIONS")
            );
        }
    }
    if spec.get("affinity").is_some() {
        affinity(&mut spec.object("affinity"))?;
    }
    for constraint in spec.list("topologySpreadConstraints")? {
        if constraint.get("whenUnsatisfiable") != Some(&json!("ScheduleAnyway")) {
            return Err(constraint.field_error(
                "whenUnsatisfiable",
                "must be ScheduleAnyway: whether a node has room is known before the payment only \
                 without DoNotSchedule",
            ));
        }
    }
    Ok(())
}

/// Capacity counts what nodes must have, and not which pods must be on them: a pod that other pods
/// keep from every node would be sold, and refunded when it has waited.
fn affinity(affinity: &mut Object<'_>) -> Result<()> {
    affinity.only(&["nodeAffinity", "podAffinity", "podAntiAffinity"])?;
    for kind in ["podAffinity", "podAntiAffinity"] {
        if affinity.get(kind).is_none() {
            continue;
        }
        let mut to_pods = affinity.object(kind);
        to_pods.only(&[PREFERRED, REQUIRED])?;
        if to_pods.get(REQUIRED).is_some_and(|terms| *terms != json!([])) {
            return Err(to_pods.field_error(
                REQUIRED,
                "is not allowed: whether a node has room is known before the payment only without \
                 it; prefer nodes instead, or require them by nodeAffinity",
            ));
        }
    }
    Ok(())
}

/// What pod and container have in common: a user other than root, and the runtime's default seccomp
/// profile.
fn security(context: &mut Object<'_>, known: &[&str]) -> Result<()> {
    context.only(known)?;
    context.require("runAsNonRoot", json!(true))?;
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        context.number(field, 1..=i64::from(i32::MAX))?;
    }
    if let Some(groups) = context.get("supplementalGroups")
        && !groups.as_array().is_some_and(|groups| {
            groups.iter().all(|group| group.as_i64().is_some_and(|id| id > 0))
        })
    {
        return Err(context.field_error("supplementalGroups", "must be a list of numbers above 0"));
    }
    context.require("seccompProfile", json!({"type": "RuntimeDefault"}))
}

fn volumes(spec: &mut Object<'_>, placement: &Placement) -> Result<()> {
    for mut volume in spec.list_of_at_most("volumes", VOLUMES)? {
        volume.only(&["name", "emptyDir", "secret"])?;
        let (empty_dir, secret) =
            (volume.get("emptyDir").is_some(), volume.get("secret").is_some());
        if empty_dir {
            volume.object("emptyDir").only(&["medium", "sizeLimit"])?;
        }
        if secret {
            let mut secret = volume.object("secret");
            secret.only(&["defaultMode", "items", "secretName"])?;
            secret.require("secretName", json!(placement.secret_name))?;
        }
        if empty_dir == secret {
            return Err(volume.error("must be either an emptyDir or the login's Secret"));
        }
    }
    Ok(())
}

/// Checks and completes the container; returns whether it has the reserved hostPort.
fn container(container: &mut Object<'_>, placement: &Placement, allowed: &Allowed) -> Result<bool> {
    container.only(&CONTAINER)?;
    // The host finds its own by their names, also what they report.
    if is_one_of_names(container.get("name"), &RESERVED_CONTAINERS) {
        return Err(container.field_error("name", "is a container of the host; name it otherwise"));
    }
    if container.get("image") != Some(&json!(placement.image)) {
        return Err(container.field_error("image", "must be the admitted image"));
    }
    let mut context = container.object("securityContext");
    security(&mut context, &CONTAINER_SECURITY)?;
    context.require("privileged", json!(false))?;
    context.require("allowPrivilegeEscalation", json!(false))?;
    context.require("capabilities", json!({"drop": ["ALL"]}))?;
    resources(&mut container.object("resources"), placement, allowed)?;
    for mut variable in container.list_of_at_most("env", VARIABLES)? {
        variable.only(&["name", "value"])?;
    }
    mounts(container)?;
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container.get(probe).is_some() {
            let mut probe = container.object(probe);
            probe.only(&PROBE)?;
            if probe.get("tcpSocket").is_some() {
                // With a host the kubelet would connect to wherever the template says.
                probe.object("tcpSocket").only(&["port"])?;
            }
        }
    }
    ports(container, placement)
}

fn mounts(container: &mut Object<'_>) -> Result<()> {
    for mut mount in container.list("volumeMounts")? {
        mount.only(&["mountPath", "name", "readOnly"])?;
        if mount.get("mountPath").and_then(Value::as_str).is_some_and(is_of_ssh_server) {
            return Err(mount.field_error(
                "mountPath",
                "is reserved for the SSH server of the host; mount the volume elsewhere",
            ));
        }
        // The host adds it later, and the mount would be good then.
        if is_one_of_names(mount.get("name"), &RESERVED_VOLUMES) {
            return Err(mount.field_error("name", "is a volume of the host; name another one"));
        }
    }
    Ok(())
}

fn is_one_of_names(name: Option<&Value>, names: &[&str]) -> bool {
    name.and_then(Value::as_str).is_some_and(|name| names.contains(&name))
}

/// At or below a directory of the host's SSH server, however it is written.
fn is_of_ssh_server(path: &str) -> bool {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let is_below = |directory: &str| {
        let directory: Vec<&str> = directory.split('/').skip(1).collect();
        parts.starts_with(&directory)
    };
    [DIRECTORY, END_DIRECTORY].into_iter().any(is_below)
}

fn ports(container: &mut Object<'_>, placement: &Placement) -> Result<bool> {
    let mut host_port = false;
    for mut port in container.list("ports")? {
        port.only(&["containerPort", "hostPort", "name", "protocol"])?;
        let Some(found) = port.get("hostPort") else { continue };
        let Some(reserved) = placement.port_by(AccessMode::HostPort) else {
            if *found != json!(NO_PORT) {
                return Err(port.field_error("hostPort", "is not allowed: ACCESS has no host-port"));
            }
            port.remove("hostPort");
            continue;
        };
        if host_port {
            return Err(port.field_error("hostPort", "is a second one; a pod has one"));
        }
        port.require("hostPort", json!(reserved))?;
        port.require("containerPort", json!(placement.container_port))?;
        port.require("protocol", json!("TCP"))?;
        host_port = true;
    }
    Ok(host_port)
}

/// The limits of CPU and memory are what was sold, the requests the operator's part of it. A template
/// may leave them out, or request all that was sold: it need not know of overcommit. It sets the
/// storage, and the devices that the operator allows.
fn resources(resources: &mut Object<'_>, placement: &Placement, allowed: &Allowed) -> Result<()> {
    resources.only(&["limits", "requests"])?;
    let quantities = |resources: Resources| {
        let Resources { cpu_millicores, memory_mib } = resources;
        [("cpu", format!("{cpu_millicores}m")), ("memory", format!("{memory_mib}Mi"))]
    };
    let sold = quantities(placement.resources);
    let requested = quantities(allowed.overcommit.requests(&placement.resources));
    for (field, quantities) in [("limits", &sold), ("requests", &requested)] {
        let mut amounts = resources.object(field);
        let unknown = amounts.unknown_field(|name| {
            matches!(name, "cpu" | "memory" | "ephemeral-storage")
                || allowed.devices.iter().any(|device| device == name)
        })?;
        if let Some(name) = unknown {
            return Err(amounts.field_error(
                &name,
                "is not allowed; devices are those of the operator's POD_DEVICES",
            ));
        }
        for ((name, quantity), (_, sold)) in quantities.iter().zip(&sold) {
            if amounts.get(name) == Some(&json!(sold)) {
                amounts.set(name, json!(quantity));
            }
            amounts.require(name, json!(quantity))?;
        }
    }
    Ok(())
}
