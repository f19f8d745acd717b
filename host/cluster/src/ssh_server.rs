//! The SSH server that the host puts into customers' images, after the guard has passed the
//! template.
//!
//! The customer's container has it read-only, with its tools, and starts with it. An init container of
//! the operator's own image copies all of that into a volume, with new host keys; or that image is
//! itself the volume, and the server makes the host keys in another one, in memory. As root of a user
//! namespace the customer is nobody on the node.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource,
    ImageVolumeSource, ObjectFieldSelector, Pod, PodSecurityContext, PodSpec, PodTemplateSpec,
    SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use paygress_core::backend::cluster::CONTAINER_PORT;
use paygress_sshd::END_FILE;

/// The init container.
pub(crate) const INIT_CONTAINER: &str = "paygress-ssh";
/// The one after it, where pods write to their customers (`pod_reply`).
pub(crate) const REPLY_CONTAINER: &str = "paygress-reply";
/// That of an image's own program, and the one beside it that has the port of the node
/// (`image_program`).
pub(crate) const PROGRAM_CONTAINER: &str = "paygress-image";
pub(crate) const HOLDER_CONTAINER: &str = "paygress-pod";
/// Containers that the host adds after the guard, and finds by these names.
pub(crate) const RESERVED_CONTAINERS: [&str; 4] =
    [INIT_CONTAINER, REPLY_CONTAINER, PROGRAM_CONTAINER, HOLDER_CONTAINER];
const INSTALL: [&str; 3] = ["/bin/paygress-sshd", "install", DIRECTORY];
/// Of root: nothing is installed, and no container starts, or else the server does not, unless root
/// is nobody on the node that the pod was given. Runtimes that know no user namespaces may leave
/// `hostUsers` out in silence.
const USER_NAMESPACE: &str = "--user-namespace";
pub(crate) const VOLUME: &str = "paygress";
/// What a pod is to write to its customer.
pub(crate) const REPLY_VOLUME: &str = "paygress-reply";
/// Volumes that the host adds after the guard: a mount of one would be a template's way into it.
pub(crate) const RESERVED_VOLUMES: [&str; 4] = [VOLUME, REPLY_VOLUME, END_VOLUME, KEYS_VOLUME];
/// No template mounts anything there, nor at [`END_DIRECTORY`].
pub(crate) const DIRECTORY: &str = "/.paygress";
/// The server's keys, there.
pub(crate) const HOST_KEYS: &str = "host-keys";
/// A static server and a static busybox have a few MiB.
const VOLUME_SIZE: &str = "64Mi";
/// That with the host keys alone, where the server is not copied: the image has a place for it.
const KEYS_VOLUME: &str = "paygress-keys";
const KEYS_SIZE: &str = "1Mi";
const IF_NOT_PRESENT: &str = "IfNotPresent";
const LISTEN: &str = "--listen";
/// The annotation of a pod with the end of its lease, and the volume that shows it as a file. The
/// server looks there.
pub(crate) const LEASE_END: &str = "paygress.dev/lease-end";
const END_VOLUME: &str = "paygress-lease";
pub(crate) const END_DIRECTORY: &str = "/run/paygress/lease";
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

/// How the server comes into a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerVolume {
    /// An init container copies it.
    Copy,
    /// Its image is mounted.
    Image,
}

/// What pods are like that are launched now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PodForm {
    pub(crate) user: PodUser,
    pub(crate) volume: ServerVolume,
}

/// What is put into each pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SshServer<'a> {
    pub(crate) image: &'a str,
    pub(crate) form: PodForm,
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
        let is_root = self.form.user == PodUser::Root;
        if is_root {
            spec.host_users = Some(false);
            pod_as_root(spec.security_context.get_or_insert_default());
            as_root(container.security_context.get_or_insert_default());
        }
        let mut command = server_command(port);
        let mounts = container.volume_mounts.get_or_insert_default();
        let volumes = spec.volumes.get_or_insert_default();
        mounts.push(mount(VOLUME, DIRECTORY, Some(true)));
        match self.form.volume {
            ServerVolume::Copy => volumes.push(empty_dir(VOLUME, VOLUME_SIZE, None)),
            ServerVolume::Image => {
                volumes.push(self.image_volume());
                let host_keys = format!("{DIRECTORY}/{HOST_KEYS}");
                mounts.push(mount(KEYS_VOLUME, &host_keys, None));
                volumes.push(empty_dir(KEYS_VOLUME, KEYS_SIZE, Some("Memory")));
                command.extend(is_root.then(|| USER_NAMESPACE.to_owned()));
            }
        }
        mounts.push(mount(END_VOLUME, END_DIRECTORY, Some(true)));
        volumes.push(end_volume());
        container.command = Some(command);
        // Those of the image's own program.
        container.args = None;
        if self.form.volume == ServerVolume::Copy {
            spec.init_containers = Some(vec![self.installer(container)]);
        }
    }

    /// With the user and the resources of this container.
    fn installer(&self, container: &Container) -> Container {
        let mut command = texts(&INSTALL);
        if self.form.user == PodUser::Root {
            command.push(USER_NAMESPACE.to_owned());
        }
        Container {
            name: INIT_CONTAINER.to_owned(),
            image: Some(self.image.to_owned()),
            image_pull_policy: Some(IF_NOT_PRESENT.to_owned()),
            command: Some(command),
            security_context: container.security_context.clone(),
            resources: container.resources.clone(),
            volume_mounts: Some(vec![mount(VOLUME, DIRECTORY, None)]),
            ..Container::default()
        }
    }

    fn image_volume(&self) -> Volume {
        Volume {
            name: VOLUME.to_owned(),
            image: Some(ImageVolumeSource {
                reference: Some(self.image.to_owned()),
                pull_policy: Some(IF_NOT_PRESENT.to_owned()),
            }),
            ..Volume::default()
        }
    }
}

/// The image with the server that is mounted into a pod; none where it is copied, or the image's own.
pub(crate) fn mounted_image(spec: &PodSpec) -> Option<&str> {
    let volume = spec.volumes.iter().flatten().find(|volume| volume.name == VOLUME)?;
    volume.image.as_ref()?.reference.as_deref()
}

/// The port in the pod of the server that this container starts with.
pub(crate) fn server_port(container: &Container) -> Option<u16> {
    let command = container.command.as_deref()?;
    match command.iter().skip_while(|argument| *argument != LISTEN).nth(1) {
        Some(address) => address.rsplit(':').next()?.parse().ok(),
        None => Some(CONTAINER_PORT),
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

/// Whether a pod of this has the container that writes to its customer.
pub(crate) fn has_reply(spec: &PodSpec) -> bool {
    spec.init_containers.iter().flatten().any(|init| init.name == REPLY_CONTAINER)
}

pub(crate) fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn server_command(port: u16) -> Vec<String> {
    let server = format!("{DIRECTORY}/paygress-sshd");
    let host_keys = format!("{DIRECTORY}/{HOST_KEYS}");
    let mut command = texts(&[&server, "--tools", DIRECTORY, "--host-keys", &host_keys]);
    if port != CONTAINER_PORT {
        command.extend([LISTEN.to_owned(), format!("[::]:{port}")]);
    }
    command
}

/// Whether terminals in this pod show the end of its lease.
pub(crate) fn shows_end(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter(|volume| volume.downward_api.is_some()).any(|volume| volume.name == END_VOLUME)
}

fn empty_dir(name: &str, size: &str, medium: Option<&str>) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: medium.map(str::to_owned),
            size_limit: Some(Quantity(size.to_owned())),
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
        with_server(template, PodForm { user, volume: ServerVolume::Copy }, port)
    }

    fn with_server(template: Value, form: PodForm, port: u16) -> Value {
        let mut typed: PodTemplateSpec = serde_json::from_value(template).unwrap();
        SshServer { image: "example.com/server:1", form }.install(&mut typed, port);
        serde_json::to_value(typed).unwrap()
    }

    fn mounted(user: PodUser, port: u16) -> Value {
        with_server(template(), PodForm { user, volume: ServerVolume::Image }, port)
    }

    #[test]
    fn or_its_image_is_the_volume_and_there_is_one_for_the_host_keys() {
        let spec = &mounted(PodUser::Template, 2_222)["spec"];
        let copied = installed(template(), PodUser::Template, 2_222);
        let copied = &copied["spec"];
        assert_eq!(spec["initContainers"], Value::Null);
        let container = &spec["containers"][0];
        for field in ["command", "args", "securityContext", "resources"] {
            assert_eq!(container[field], copied["containers"][0][field], "{field}");
        }
        assert_eq!(
            container["volumeMounts"],
            json!([
                {"name": "login", "mountPath": "/run/paygress/login", "readOnly": true},
                {"name": "paygress", "mountPath": "/.paygress", "readOnly": true},
                {"name": "paygress-keys", "mountPath": "/.paygress/host-keys"},
                {"name": "paygress-lease", "mountPath": "/run/paygress/lease", "readOnly": true},
            ])
        );
        let image = json!({"reference": "example.com/server:1", "pullPolicy": "IfNotPresent"});
        assert_eq!(spec["volumes"][1], json!({"name": "paygress", "image": image}));
        let keys = json!({"medium": "Memory", "sizeLimit": "1Mi"});
        assert_eq!(spec["volumes"][2], json!({"name": "paygress-keys", "emptyDir": keys}));
        assert_eq!(spec["volumes"][3], copied["volumes"][2], "the end of the lease");
        for name in [VOLUME, KEYS_VOLUME, END_VOLUME] {
            assert!(RESERVED_VOLUMES.contains(&name), "{name}");
        }
    }

    /// No init container has shown before that root is nobody on the node.
    #[test]
    fn a_mounted_server_requires_the_user_namespace_of_root_by_itself() {
        let command = |user| mounted(user, 2_222)["spec"]["containers"][0]["command"].to_string();
        assert!(command(PodUser::Root).contains("\"--user-namespace\""));
        assert!(!command(PodUser::Template).contains("--user-namespace"));
        let (mounted, copied) =
            (mounted(PodUser::Root, 22), installed(template(), PodUser::Root, 22));
        for pointer in
            ["/spec/hostUsers", "/spec/securityContext", "/spec/containers/0/securityContext"]
        {
            assert_eq!(mounted.pointer(pointer), copied.pointer(pointer), "{pointer}");
        }
    }

    #[test]
    fn the_image_and_the_port_of_a_server_are_read_from_its_pod() {
        for (pod, image, port) in [
            (mounted(PodUser::Template, 2_222), Some("example.com/server:1"), Some(2_222)),
            (mounted(PodUser::Root, 22), Some("example.com/server:1"), Some(22)),
            (installed(template(), PodUser::Root, 22), None, Some(22)),
            (template(), None, None),
        ] {
            let spec: PodSpec = serde_json::from_value(pod["spec"].clone()).unwrap();
            assert_eq!(mounted_image(&spec), image, "{pod}");
            assert_eq!(server_port(&spec.containers[0]), port, "{pod}");
        }
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
