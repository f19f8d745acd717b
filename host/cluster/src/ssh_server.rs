//! The SSH server that the host puts into customers' images, after the guard has passed the
//! template.
//!
//! An init container of the operator's own image copies it, with its tools and new host keys, into
//! a volume that the customer's container has read-only, and starts with. As root of a user
//! namespace the customer is nobody on the node.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource,
    ObjectFieldSelector, Pod, PodSecurityContext, PodTemplateSpec, SecurityContext, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use paygress_core::backend::cluster::CONTAINER_PORT;
use paygress_sshd::END_FILE;

/// The init container.
pub(crate) const INIT_CONTAINER: &str = "paygress-ssh";
/// The one after it, where pods write to their customers (`pod_reply`).
pub(crate) const REPLY_CONTAINER: &str = "paygress-reply";
/// Beside an image's own program (`image_program`): the container with that…
pub(crate) const PROGRAM: &str = "paygress-image";
/// …and the one with the port of the node: the kubelet opens those of `containers` alone.
pub(crate) const HOLDER: &str = "paygress-pod";
/// Containers that the host adds after the guard. One of a template that has such a name would be
/// taken for it: what it reports would be the host's word.
pub(crate) const RESERVED_CONTAINERS: [&str; 4] =
    [INIT_CONTAINER, REPLY_CONTAINER, PROGRAM, HOLDER];
const INSTALL: [&str; 3] = ["/bin/paygress-sshd", "install", DIRECTORY];
/// Of root: nothing is installed, and no container starts, unless it is nobody on the node that the
/// pod was given. Runtimes that know no user namespaces may leave `hostUsers` out in silence.
const USER_NAMESPACE: &str = "--user-namespace";
pub(crate) const VOLUME: &str = "paygress";
/// What a pod is to write to its customer.
pub(crate) const REPLY_VOLUME: &str = "paygress-reply";
/// Volumes that the host adds after the guard: a mount of one would be a template's way into it.
pub(crate) const RESERVED_VOLUMES: [&str; 3] = [VOLUME, REPLY_VOLUME, END_VOLUME];
/// No template mounts anything there.
pub(crate) const DIRECTORY: &str = "/.paygress";
/// The server's keys, there.
pub(crate) const HOST_KEYS: &str = "host-keys";
/// A static server and a static busybox have a few MiB.
const VOLUME_SIZE: &str = "64Mi";
/// The annotation of a pod with the end of its lease, and the volume that shows it as a file. The
/// server looks there.
pub(crate) const LEASE_END: &str = "paygress.dev/lease-end";
const END_VOLUME: &str = "paygress-lease";
const END_DIRECTORY: &str = "/run/paygress/lease";
/// What root does not get of the runtime's default capabilities: raw sockets, device files, the
/// audit log, and capabilities of files.
const DROPPED: [&str; 4] = ["NET_RAW", "MKNOD", "AUDIT_WRITE", "SETFCAP"];

/// Who the customer is in the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PodUser {
    /// Whom the template names: never root.
    Template,
    /// Root of a user namespace.
    Root,
}

/// What is put into each pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SshServer<'a> {
    pub(crate) image: &'a str,
    pub(crate) user: PodUser,
}

impl SshServer<'_> {
    /// Puts the server into the pod of a checked template. One whose container has a command
    /// brings a server of its own, and stays as it is.
    pub(crate) fn install(&self, template: &mut PodTemplateSpec, port: u16) {
        let Some(spec) = &mut template.spec else { return };
        let [container] = spec.containers.as_mut_slice() else { return };
        if container.command.as_ref().is_some_and(|command| !command.is_empty()) {
            return;
        }
        if self.user == PodUser::Root {
            spec.host_users = Some(false);
            pod_as_root(spec.security_context.get_or_insert_default());
            as_root(container.security_context.get_or_insert_default());
        }
        container.command = Some(server_command(port));
        // Those of the image's own program.
        container.args = None;
        spec.init_containers = Some(vec![Container {
            name: INIT_CONTAINER.to_owned(),
            image: Some(self.image.to_owned()),
            image_pull_policy: Some("IfNotPresent".to_owned()),
            command: Some(self.install_command()),
            security_context: container.security_context.clone(),
            resources: container.resources.clone(),
            volume_mounts: Some(vec![mount(VOLUME, DIRECTORY, None)]),
            ..Container::default()
        }]);
        container.volume_mounts.get_or_insert_default().extend([
            mount(VOLUME, DIRECTORY, Some(true)),
            mount(END_VOLUME, END_DIRECTORY, Some(true)),
        ]);
        spec.volumes.get_or_insert_default().extend([server_volume(), end_volume()]);
    }

    fn install_command(&self) -> Vec<String> {
        let mut command = texts(&INSTALL);
        if self.user == PodUser::Root {
            command.push(USER_NAMESPACE.to_owned());
        }
        command
    }
}

/// Whether the customer of this pod is root in it.
pub(crate) fn is_root(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| {
        let user = spec.security_context.as_ref().and_then(|context| context.run_as_user);
        spec.host_users == Some(false) && user == Some(0)
    })
}

/// Whether this container is the host's, so that nothing of the customer runs before it has ended.
pub(crate) fn is_hosts(container: &str) -> bool {
    [INIT_CONTAINER, REPLY_CONTAINER].contains(&container)
}

pub(crate) fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn server_command(port: u16) -> Vec<String> {
    let server = format!("{DIRECTORY}/paygress-sshd");
    let host_keys = format!("{DIRECTORY}/{HOST_KEYS}");
    let mut command = texts(&[&server, "--tools", DIRECTORY, "--host-keys", &host_keys]);
    if port != CONTAINER_PORT {
        command.extend(["--listen".to_owned(), format!("[::]:{port}")]);
    }
    command
}

/// Whether terminals in this pod show the end of its lease.
pub(crate) fn shows_end(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter(|volume| volume.downward_api.is_some()).any(|volume| volume.name == END_VOLUME)
}

fn server_volume() -> Volume {
    Volume {
        name: VOLUME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity(VOLUME_SIZE.to_owned())),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// The file is empty until the pod has the annotation.
fn end_volume() -> Volume {
    let file = DownwardAPIVolumeFile {
        path: END_FILE.to_owned(),
        field_ref: Some(ObjectFieldSelector {
            field_path: format!("metadata.annotations['{LEASE_END}']"),
            ..ObjectFieldSelector::default()
        }),
        ..DownwardAPIVolumeFile::default()
    };
    Volume {
        name: END_VOLUME.to_owned(),
        downward_api: Some(DownwardAPIVolumeSource {
            items: Some(vec![file]),
            ..DownwardAPIVolumeSource::default()
        }),
        ..Volume::default()
    }
}

pub(crate) fn mount(volume: &str, path: &str, read_only: Option<bool>) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only,
        ..VolumeMount::default()
    }
}

fn pod_as_root(context: &mut PodSecurityContext) {
    context.run_as_user = Some(0);
    context.run_as_group = Some(0);
    context.run_as_non_root = Some(false);
    // Root reads the login as its owner.
    context.fs_group = None;
    context.fs_group_change_policy = None;
}

fn as_root(context: &mut SecurityContext) {
    context.run_as_user = Some(0);
    context.run_as_group = Some(0);
    context.run_as_non_root = Some(false);
    context.allow_privilege_escalation = Some(true);
    context.capabilities = Some(Capabilities { add: None, drop: Some(texts(&DROPPED)) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// As the guard completes it.
    fn template() -> Value {
        let none = json!({"drop": ["ALL"]});
        json!({"spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000, "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "ssh",
                "image": "debian:13",
                "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
                "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "allowPrivilegeEscalation": false, "privileged": false, "capabilities": none, "seccompProfile": {"type": "RuntimeDefault"}},
                "volumeMounts": [{"name": "login", "mountPath": "/run/paygress/login", "readOnly": true}],
            }],
            "volumes": [{"name": "login", "secret": {"secretName": "ssh-pod-a"}}],
        }})
    }

    fn installed(template: Value, user: PodUser, port: u16) -> Value {
        let mut typed: PodTemplateSpec = serde_json::from_value(template).unwrap();
        SshServer { image: "example.com/server:1", user }.install(&mut typed, port);
        serde_json::to_value(typed).unwrap()
    }

    #[test]
    fn an_init_container_brings_the_server_and_the_container_starts_with_it() {
        let spec = &installed(template(), PodUser::Template, 2_222)["spec"];
        let (container, init) = (&spec["containers"][0], &spec["initContainers"][0]);
        let host_keys = "/.paygress/host-keys";
        assert_eq!(
            container["command"],
            json!(["/.paygress/paygress-sshd", "--tools", "/.paygress", "--host-keys", host_keys])
        );
        assert_eq!(
            container["volumeMounts"][1],
            json!({"name": "paygress", "mountPath": "/.paygress", "readOnly": true})
        );
        assert_eq!(init["name"], "paygress-ssh");
        assert_eq!(init["image"], "example.com/server:1");
        assert_eq!(init["command"], json!(["/bin/paygress-sshd", "install", "/.paygress"]));
        assert_eq!(
            init["volumeMounts"],
            json!([{"name": "paygress", "mountPath": "/.paygress"}]),
            "and not the login"
        );
        for field in ["securityContext", "resources"] {
            assert_eq!(init[field], container[field], "{field}");
        }
        assert_eq!(
            spec["volumes"][1],
            json!({"name": "paygress", "emptyDir": {"sizeLimit": "64Mi"}})
        );
        // The end of the lease, for the server alone.
        assert_eq!(
            container["volumeMounts"][2],
            json!({"name": "paygress-lease", "mountPath": "/run/paygress/lease", "readOnly": true})
        );
        let annotation = json!({"fieldPath": "metadata.annotations['paygress.dev/lease-end']"});
        let files = json!([{"path": "end.json", "fieldRef": annotation}]);
        assert_eq!(
            spec["volumes"][2],
            json!({"name": "paygress-lease", "downwardAPI": {"items": files}})
        );
        // The user stays as the guard has it.
        let before = template();
        for context in ["/spec/securityContext", "/spec/containers/0/securityContext"] {
            let after = json!({"spec": spec});
            assert_eq!(after.pointer(context), before.pointer(context), "{context}");
        }
        assert_eq!(spec["hostUsers"], Value::Null);
    }

    #[test]
    fn another_port_is_named_and_the_images_own_arguments_are_left_out() {
        let mut given = template();
        given["spec"]["containers"][0]["args"] = json!(["--serve"]);
        let spec = &installed(given, PodUser::Template, 22)["spec"];
        let container = &spec["containers"][0];
        assert_eq!(container["command"][5], "--listen");
        assert_eq!(container["command"][6], "[::]:22");
        assert_eq!(container["args"], Value::Null);
    }

    #[test]
    fn root_is_root_of_a_user_namespace_and_lacks_four_capabilities() {
        let spec = &installed(template(), PodUser::Root, 2_222)["spec"];
        assert_eq!(spec["hostUsers"], json!(false));
        assert_eq!(
            spec["securityContext"],
            json!({"runAsNonRoot": false, "runAsUser": 0, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}})
        );
        // On whatever node it is, and before the customer's container starts.
        let install = ["/bin/paygress-sshd", "install", "/.paygress", "--user-namespace"];
        assert_eq!(spec["initContainers"][0]["command"], json!(install));
        let dropped = json!({"drop": ["NET_RAW", "MKNOD", "AUDIT_WRITE", "SETFCAP"]});
        for kind in ["containers", "initContainers"] {
            assert_eq!(
                spec[kind][0]["securityContext"],
                json!({"runAsNonRoot": false, "runAsUser": 0, "runAsGroup": 0, "allowPrivilegeEscalation": true, "privileged": false, "capabilities": dropped, "seccompProfile": {"type": "RuntimeDefault"}}),
                "{kind}"
            );
        }
    }

    /// Whatever a probe pod has shown since it was launched.
    #[test]
    fn a_pod_tells_whether_its_customer_is_root() {
        let namespaced = json!({"spec": {"hostUsers": false, "containers": []}});
        for (pod, expected) in [
            (installed(template(), PodUser::Root, 2_222), true),
            (installed(template(), PodUser::Template, 2_222), false),
            (namespaced, false),
            (json!({}), false),
        ] {
            let typed: Pod = serde_json::from_value(pod.clone()).unwrap();
            assert_eq!(is_root(&typed), expected, "{pod}");
        }
    }

    /// Not root either: its server is not ours.
    #[test]
    fn a_template_with_a_command_brings_its_own_server() {
        let mut given = template();
        given["spec"]["containers"][0]["command"] = json!(["/usr/sbin/sshd", "-D"]);
        assert_eq!(installed(given.clone(), PodUser::Root, 2_222), given);
    }
}
