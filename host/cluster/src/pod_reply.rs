//! What a pod writes to its customer by itself: a second init container, after the one that has made
//! the host keys, and before anything of the customer runs.
//!
//! It makes a Nostr key in its memory, reads what it is to write from a Secret that is mounted into no
//! other container, sends that with its public host keys, and leaves its public key and these host
//! keys as its termination message. Its key is gone with it, and the Secret with the Job. Without a
//! Secret, or when it cannot send, it ends as well: the pod starts, and the service answers as ever.

use crate::settings::Settings;
use crate::ssh_server::{
    DIRECTORY, HOST_KEYS, INIT_CONTAINER, REPLY_CONTAINER, REPLY_VOLUME, VOLUME, has_reply,
    is_root, mount, texts,
};
use crate::status::host_keys;
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Container, Pod, PodTemplateSpec, Secret, SecretVolumeSource, Volume, VolumeMount,
};
use paygress_core::backend::cluster::{LeasePlan, ReadyPod};
use paygress_core::backend::responder::PodReply;
use paygress_core::model::host_key::HostKey;
use paygress_core::model::ids::{PodName, PodUid, PublicKey};
use paygress_core::model::ssh_host::SshHost;
use paygress_pod_nostr::{ReplyFileError, ReplyReport, with_ssh_host};
use std::collections::{BTreeMap, BTreeSet};

const PROGRAM: [&str; 2] = ["/bin/paygress-nostr", "reply"];
/// Where the container finds what it is to write. No other has this volume.
const MOUNT_PATH: &str = "/.paygress-reply";
/// The one file there, and the one key of the Secret.
const MESSAGE: &str = "message.json";
/// The default of Kubernetes.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Whether a pod has the container that writes to its customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyStep {
    Absent,
    Present,
}

impl ReplyStep {
    /// That of a lease's pod.
    pub(crate) fn of_plan(plan: &LeasePlan) -> Self {
        if plan.pod_reply.is_some() { Self::Present } else { Self::Absent }
    }

    /// That of a pod that only shows whether pods with it are admitted and start.
    pub(crate) fn of_settings(settings: &Settings) -> Self {
        if settings.reply_from_pod { Self::Present } else { Self::Absent }
    }
}

/// The name of the Secret with what this pod is to write. It is another one than the login's, which
/// templates mount.
pub(crate) fn secret_name(pod: &str) -> String {
    format!("{pod}-reply")
}

/// What is in it.
pub(crate) fn secret_data(reply: &PodReply) -> BTreeMap<String, ByteString> {
    [(MESSAGE.to_owned(), ByteString(reply.expose().as_bytes().to_vec()))].into()
}

/// The Secret, with this host in its message; none if there is no message in it.
pub(crate) fn at_host(mut reply: Secret, host: &SshHost) -> Option<Secret> {
    let message = reply.data.as_mut()?.get_mut(MESSAGE)?;
    let text = std::str::from_utf8(&message.0).ok()?;
    let text = with_ssh_host(text, host).ok()?;
    *message = ByteString(text.expose().as_bytes().to_vec());
    Some(reply)
}

/// Adds the container to a pod into which the host's SSH server was installed. One with a server of
/// its own stays as it is: its host keys are not known.
pub(crate) fn add(template: &mut PodTemplateSpec, pod: &str) {
    let Some(spec) = &mut template.spec else { return };
    let Some(inits) = &mut spec.init_containers else { return };
    let [install] = inits.as_slice() else { return };
    if install.name != INIT_CONTAINER {
        return;
    }
    // Of the same image, as the same user, with the same resources.
    let reply = Container {
        name: REPLY_CONTAINER.to_owned(),
        command: Some(command()),
        volume_mounts: Some(vec![mount(VOLUME, DIRECTORY, Some(true)), message_mount()]),
        ..install.clone()
    };
    inits.push(reply);
    spec.volumes.get_or_insert_default().push(Volume {
        name: REPLY_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret_name(pod)),
            // A pod that has nothing to write starts all the same.
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
}

fn command() -> Vec<String> {
    let message = format!("{MOUNT_PATH}/{MESSAGE}");
    let host_keys = format!("{DIRECTORY}/{HOST_KEYS}");
    let options = ["--message", &message, "--host-keys", &host_keys];
    let report = ["--termination-message", TERMINATION_LOG];
    texts(&[&PROGRAM[..], &options[..], &report[..]].concat())
}

fn message_mount() -> VolumeMount {
    VolumeMount {
        name: REPLY_VOLUME.to_owned(),
        mount_path: MOUNT_PATH.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

/// Whether the pods of this Job have the container: what it was launched with, which may have been
/// before a restart of the service.
pub(crate) fn is_in(job: &Job) -> bool {
    let spec = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    spec.is_some_and(has_reply)
}

/// Whether the pod has the container.
pub(crate) fn is_in_pod(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(has_reply)
}

/// Whether the pod has the container, and it is not known yet how it has ended.
pub(crate) fn is_pending(pod: &Pod) -> bool {
    is_in_pod(pod) && report_of(pod).is_none()
}

/// The termination message of the container, once it has ended.
fn report_of(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let mut inits = status.init_container_statuses.iter().flatten();
    let reply = inits.find(|container| container.name == REPLY_CONTAINER)?;
    let terminated = reply.state.as_ref()?.terminated.as_ref()?;
    Some(terminated.message.as_deref().unwrap_or_default())
}

/// Why a pod has no key of its own.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NoKey {
    #[error("its report cannot be read: {0}")]
    Unreadable(#[from] ReplyFileError),
    #[error("no relay has taken its message: {0}")]
    NotSent(String),
    #[error("its report names other host keys than were made for it")]
    OtherHostKeys,
}

/// What customers are answered of the pod of this name, which takes logins; where they reach it is
/// its node's to say.
pub(crate) fn ready_pod(name: &PodName, pod: &Pod) -> ReadyPod {
    let host_keys = host_keys(pod);
    // A probe pod has nobody to write to.
    let is_probe = name.lease().is_some_and(|lease| lease.is_probe());
    let pod_key = if is_probe { None } else { pod_key(pod, &host_keys) };
    let uid = pod.metadata.uid.clone().and_then(|uid| PodUid::parse(uid).ok());
    ReadyPod { uid, host_keys, root: is_root(pod), pod_key, ssh_host: None }
}

/// The key with which the pod has written to its customer; none where it has not, or has not reported
/// it with the host keys that were made for it.
fn pod_key(pod: &Pod, host_keys: &[HostKey]) -> Option<PublicKey> {
    let report = report_of(pod)?;
    match read(report, host_keys) {
        Ok(key) => Some(key),
        Err(error) => {
            let pod = pod.metadata.name.as_deref();
            tracing::warn!(%error, pod, "a pod did not write to its customer; the service answers alone");
            None
        }
    }
}

fn read(report: &str, host_keys: &[HostKey]) -> Result<PublicKey, NoKey> {
    let report = ReplyReport::parse(report)?;
    if report.accepted.is_empty() {
        let error = report.error.unwrap_or_else(|| "it gives no reason".to_owned());
        return Err(NoKey::NotSent(error));
    }
    let texts = |keys: &[HostKey]| -> BTreeSet<String> {
        keys.iter().map(|key| key.as_str().to_owned()).collect()
    };
    let is_same = !host_keys.is_empty() && texts(host_keys) == texts(&report.host_keys);
    if is_same { Ok(report.public_key) } else { Err(NoKey::OtherHostKeys) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh_server::{PodForm, PodUser, ServerVolume, SshServer};
    use paygress_core::testing::HOST_KEY;
    use serde_json::{Value, json};

    const OTHER_HOST_KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMUaPK8AAnKX7VeYLedY7erYKc8I7KZxPAGCOqLSELzI";

    /// A pod of this user with the container, and one with a server of its own if it has a command.
    fn added(user: PodUser, command: &Value) -> Value {
        let template = json!({"spec": {
            "containers": [{
                "name": "ssh",
                "image": "debian:13",
                "command": command,
                "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
                "securityContext": {"runAsNonRoot": true, "runAsUser": 1000},
                "volumeMounts": [{"name": "login", "mountPath": "/run/paygress/login", "readOnly": true}],
            }],
            "volumes": [{"name": "login", "secret": {"secretName": "ssh-pod-a"}}],
        }});
        let mut template: PodTemplateSpec = serde_json::from_value(template).unwrap();
        let form = PodForm { user, volume: ServerVolume::Copy };
        SshServer { image: "example.com/server:1", form }.install(&mut template, 2_222);
        add(&mut template, "ssh-pod-a");
        serde_json::to_value(template).unwrap()
    }

    #[test]
    fn what_a_pod_writes_is_mounted_into_the_container_that_writes_it_alone() {
        for user in [PodUser::Template, PodUser::Root] {
            let spec = &added(user, &Value::Null)["spec"];
            let (container, inits) = (&spec["containers"][0], &spec["initContainers"]);
            let (install, reply) = (&inits[0], &inits[1]);
            assert_eq!((&install["name"], &inits[2]), (&json!("paygress-ssh"), &Value::Null));
            assert_eq!(reply["name"], "paygress-reply");
            assert_eq!(
                reply["command"],
                json!([
                    "/bin/paygress-nostr",
                    "reply",
                    "--message",
                    "/.paygress-reply/message.json",
                    "--host-keys",
                    "/.paygress/host-keys",
                    "--termination-message",
                    "/dev/termination-log",
                ])
            );
            assert_eq!(
                reply["volumeMounts"],
                json!([
                    {"name": "paygress", "mountPath": "/.paygress", "readOnly": true},
                    {"name": "paygress-reply", "mountPath": "/.paygress-reply", "readOnly": true},
                ]),
                "and not the login"
            );
            for field in ["image", "imagePullPolicy", "securityContext", "resources"] {
                assert_eq!(reply[field], install[field], "{field}");
            }
            for other in [container, install] {
                let mounts = other["volumeMounts"].as_array().unwrap();
                assert!(mounts.iter().all(|mount| mount["name"] != "paygress-reply"), "{other}");
            }
            assert_eq!(
                spec["volumes"][3],
                json!({"name": "paygress-reply", "secret": {"secretName": "ssh-pod-a-reply", "optional": true}})
            );
            assert_eq!(spec["shareProcessNamespace"], Value::Null);
        }
    }

    #[test]
    fn a_pod_with_a_server_of_its_own_writes_nothing() {
        let own = added(PodUser::Template, &json!(["/usr/sbin/sshd", "-D"]));
        assert_eq!(own["spec"]["initContainers"], Value::Null);
        assert_eq!(own["spec"]["volumes"].as_array().unwrap().len(), 1);
        let job = |template: &Value| -> Job {
            serde_json::from_value(json!({"spec": {"template": template}})).unwrap()
        };
        assert!(!is_in(&job(&own)) && !is_in(&Job::default()));
        assert!(is_in(&job(&added(PodUser::Template, &Value::Null))));
    }

    #[test]
    fn what_is_written_is_in_a_secret_of_its_own() {
        let data = secret_data(&PodReply::new("{}"));
        assert_eq!(
            data.into_iter().collect::<Vec<_>>(),
            [("message.json".to_owned(), ByteString(b"{}".to_vec()))]
        );
        assert_eq!(secret_name("ssh-pod-a"), "ssh-pod-a-reply");
    }

    #[test]
    fn what_is_written_names_the_host_of_the_node() {
        let message = json!({
            "recipient": "a".repeat(64), "relays": ["wss://r.example"],
            "reply": {"ssh_host": "setting.example", "ssh_port": 20_427},
        });
        let reply = |text: &str| Secret {
            data: Some(secret_data(&PodReply::new(text))),
            ..Secret::default()
        };
        let host = SshHost::parse("[2001:db8::1]").unwrap();
        let placed = at_host(reply(&message.to_string()), &host).unwrap();
        let data = placed.data.unwrap();
        let written = &data["message.json"].0;
        let mut expected = message;
        expected["reply"]["ssh_host"] = json!("2001:db8::1");
        assert_eq!(serde_json::from_slice::<Value>(written).unwrap(), expected);
        assert_eq!(at_host(reply("{}"), &host), None);
        assert_eq!(at_host(Secret::default(), &host), None);
    }

    /// Whose containers have ended, the reply's in this state.
    fn pod(state: &Value) -> Pod {
        let status = |name: &str, state: &Value| json!({"name": name, "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": state});
        let made = json!({"terminated": {"exitCode": 0, "message": HOST_KEY}});
        let install = status(INIT_CONTAINER, &made);
        let statuses = json!([install, status(REPLY_CONTAINER, state)]);
        let inits = json!([{"name": INIT_CONTAINER}, {"name": REPLY_CONTAINER}]);
        serde_json::from_value(json!({
            "spec": {"containers": [], "initContainers": inits},
            "status": {"initContainerStatuses": statuses},
        }))
        .unwrap()
    }

    #[test]
    fn its_end_is_waited_for_where_there_is_one() {
        let ended = |message: Value| json!({"terminated": {"exitCode": 0, "message": message}});
        for (state, pending) in [
            (json!({"waiting": {"reason": "PodInitializing"}}), true),
            (json!({"running": {}}), true),
            (ended(Value::Null), false),
            (ended(json!("noise")), false),
        ] {
            assert_eq!(is_pending(&pod(&state)), pending, "{state}");
        }
        let without =
            json!({"spec": {"containers": [], "initContainers": [{"name": INIT_CONTAINER}]}});
        assert!(!is_pending(&serde_json::from_value(without).unwrap()));
        assert!(!is_pending(&Pod::default()));
        let host_keys = [HostKey::parse(HOST_KEY).unwrap()];
        assert_eq!(pod_key(&pod(&ended(json!("noise"))), &host_keys), None);
        assert_eq!(pod_key(&Pod::default(), &host_keys), None);
        let report = json!({"public_key": "a".repeat(64), "host_keys": [HOST_KEY], "accepted": ["wss://r.example"]});
        let reported = pod(&ended(json!(report.to_string())));
        let key = |name: &str| {
            let name = PodName::parse(name).unwrap();
            ready_pod(&name, &reported).pod_key.map(String::from)
        };
        assert_eq!(key("ssh-pod-abcdefghij"), Some("a".repeat(64)));
        assert_eq!(key("ssh-pod-0bcdefghij"), None, "of a probe");
    }

    #[test]
    fn a_report_counts_if_it_was_sent_and_names_the_host_keys_that_were_made() {
        let made = [HostKey::parse(HOST_KEY).unwrap()];
        let both = [HOST_KEY, OTHER_HOST_KEY].map(|key| HostKey::parse(key).unwrap());
        let good = json!({
            "public_key": "a".repeat(64), "host_keys": [HOST_KEY], "accepted": ["wss://r.example"],
            "event": "b".repeat(64),
        });
        let with = |field: &str, value: Value| {
            let mut report = good.clone();
            report[field] = value;
            report.to_string()
        };
        let key = PublicKey::parse("a".repeat(64)).unwrap();
        assert_eq!(read(&good.to_string(), &made), Ok(key.clone()));
        assert_eq!(read(&format!("{good}\n"), &made), Ok(key.clone()));
        assert_eq!(read(&with("error", json!("of another relay")), &made), Ok(key.clone()));
        // In any order.
        let reversed = with("host_keys", json!([OTHER_HOST_KEY, HOST_KEY]));
        assert_eq!(read(&reversed, &both), Ok(key));
        let not_sent = |reason: &str| NoKey::NotSent(reason.to_owned());
        for (report, host_keys, expected) in [
            (with("accepted", json!([])), &made[..], not_sent("it gives no reason")),
            (
                json!({"public_key": "a".repeat(64), "error": "a\u{1b}[2Jb"}).to_string(),
                &made,
                not_sent("a\\u{1b}[2Jb"),
            ),
            (with("host_keys", json!([OTHER_HOST_KEY])), &made, NoKey::OtherHostKeys),
            (with("host_keys", json!([])), &made, NoKey::OtherHostKeys),
            (good.to_string(), &both, NoKey::OtherHostKeys),
            (good.to_string(), &[], NoKey::OtherHostKeys),
            (with("host_keys", json!([])), &[], NoKey::OtherHostKeys),
        ] {
            assert_eq!(read(&report, host_keys), Err(expected), "{report}");
        }
        for report in [HOST_KEY.to_owned(), with("public_key", json!("npub1")), String::new()] {
            assert!(matches!(read(&report, &made), Err(NoKey::Unreadable(_))), "{report}");
        }
    }
}
