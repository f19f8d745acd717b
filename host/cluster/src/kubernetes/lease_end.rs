//! The end of a lease, as its pod's SSH server reads it.
//!
//! It is an annotation of the pod, which a downwardAPI volume shows as a file: the kubelet updates it
//! as soon as the annotation changes. To change the login's Secret instead would need a right that
//! reads all logins.

use super::{Kubernetes, patch_params};
use crate::connection::with_timeout;
use crate::lease_end::lease_end;
use crate::requests::{Result, cluster_error};
use crate::ssh_server::{LEASE_END, shows_end};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Patch;
use paygress_core::backend::cluster::ClusterError;
use paygress_core::model::ids::PodName;
use paygress_core::model::units::{Seconds, UnixTime};
use paygress_sshd::LeaseEnd;
use serde_json::{Value, json};

/// What changes the annotation of a pod; none if it has this end or a later one, or if nothing in
/// it reads the annotation.
fn change(pod: &Pod, end: &LeaseEnd) -> Option<Value> {
    let annotation = pod.annotations().get(LEASE_END);
    let known = annotation.and_then(|text| LeaseEnd::parse(text.as_bytes()).ok());
    if !shows_end(pod) || known.is_some_and(|known| known.expires_at() >= end.expires_at()) {
        return None;
    }
    Some(json!({
        // With the resourceVersion an extension at the same time is a conflict, and the later counts.
        "metadata": {"resourceVersion": pod.resource_version(), "annotations": {LEASE_END: end.to_json()}},
    }))
}

impl Kubernetes {
    pub(super) async fn annotate_end(
        &self,
        pod: &PodName,
        at: UnixTime,
        notices: &[Seconds],
    ) -> Result<()> {
        let Some(end) = lease_end(at, notices) else { return Ok(()) };
        for pod in self.known_pods(pod).await? {
            let Some(change) = change(&pod, &end) else { continue };
            let (name, change) = (pod.name_any(), Patch::Merge(change));
            match with_timeout(self.pods.patch(&name, &patch_params(), &change)).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) if error.is_conflict() => {
                    return Err(ClusterError::unavailable("the pod was changed meanwhile"));
                }
                Err(error) => return Err(cluster_error(error)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh_server::{PodForm, PodUser, ServerVolume, SshServer};
    use k8s_openapi::api::core::v1::PodTemplateSpec;

    /// A pod of this command with this annotation.
    fn pod(command: &Value, annotation: Option<&str>) -> Pod {
        let container = json!({"name": "ssh", "image": "debian:13", "command": command});
        let template = json!({"spec": {"containers": [container]}});
        let mut template: PodTemplateSpec = serde_json::from_value(template).unwrap();
        let user = PodUser::Template;
        let form = PodForm { user, volume: ServerVolume::Copy };
        SshServer { image: "example.com/server:1", form }.install(&mut template, 2_222);
        let mut pod = Pod { spec: template.spec, ..Pod::default() };
        pod.metadata.resource_version = Some("7".to_owned());
        let annotation = annotation.map(|text| (LEASE_END.to_owned(), text.to_owned()));
        pod.metadata.annotations = Some(annotation.into_iter().collect());
        pod
    }

    #[test]
    fn the_annotation_is_only_ever_a_later_end() {
        let end = |at| LeaseEnd::new(at, vec![600, 60]).unwrap();
        let written = end(1_000).to_json();
        let expected = json!({"metadata": {"resourceVersion": "7", "annotations": {"paygress.dev/lease-end": written}}});
        for (known, is_changed) in [
            (None, true),
            (Some(""), true),
            (Some("broken"), true),
            (Some(end(999).to_json().as_str()), true),
            (Some(written.as_str()), false),
            (Some(end(1_001).to_json().as_str()), false),
        ] {
            let changed = change(&pod(&Value::Null, known), &end(1_000));
            assert_eq!(changed, is_changed.then(|| expected.clone()), "{known:?}");
        }
    }

    #[test]
    fn a_pod_with_a_server_of_its_own_is_left_alone() {
        let own = pod(&json!(["/usr/sbin/sshd", "-D"]), None);
        assert_eq!(change(&own, &LeaseEnd::new(1_000, Vec::new()).unwrap()), None);
    }
}
