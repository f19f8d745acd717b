//! What an operator wants to know of the cluster before anything is sold. Nothing is changed in it.

use super::{Kubernetes, patch_params};
use crate::admission::{
    AdmissionFinding, AdmissionOutcome, CHANGES, EGRESS, HostPorts, PODS, SECRETS, SERVICES,
    bad_change, bad_network_policy, bad_pod, bad_secret, bad_service, finding, host_ports,
    pod_with_host_port,
};
use crate::connection::{RequestError, with_timeout};
use crate::objects::APP;
use crate::rights::Right;
use futures::future::{join_all, try_join_all};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, Request};
use kube::client::Body;
use paygress_core::model::ids::PodName;
use paygress_core::model::units::{ClockOffset, UnixTime};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::PoisonError;

type Result<T> = std::result::Result<T, RequestError>;

/// Pods in one answer.
const PAGE: u32 = 500;

fn dry_run() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

fn is_allowed(review: &SelfSubjectAccessReview) -> bool {
    review.status.as_ref().is_some_and(|status| status.allowed)
}

/// The host ports of a pod that is not ours.
fn host_ports_of_others(pod: &Pod) -> impl Iterator<Item = u16> {
    let is_ours = pod.labels().get(APP.0).is_some_and(|app| app == APP.1);
    let containers = pod.spec.iter().filter(move |_| !is_ours).flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.filter_map(|port| u16::try_from(port.host_port?).ok())
}

impl Kubernetes {
    /// The verbs of this right that are not granted, in this namespace or the whole cluster.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn denied_verbs(
        &self,
        right: &Right,
        namespace: Option<&str>,
    ) -> Result<Vec<&'static str>> {
        let reviews = Api::<SelfSubjectAccessReview>::all(self.client.clone());
        let (resource, subresource) = match right.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (right.resource, None),
        };
        let attributes = ResourceAttributes {
            group: Some(right.group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource,
            namespace: namespace.map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let reviewed = right.verbs.iter().map(|verb| {
            let attributes =
                ResourceAttributes { verb: Some((*verb).to_owned()), ..attributes.clone() };
            let review = SelfSubjectAccessReview {
                spec: SelfSubjectAccessReviewSpec {
                    resource_attributes: Some(attributes),
                    ..SelfSubjectAccessReviewSpec::default()
                },
                ..SelfSubjectAccessReview::default()
            };
            let reviews = &reviews;
            async move {
                let params = PostParams::default();
                let reviewed = with_timeout(reviews.create(&params, &review)).await?;
                Ok::<_, RequestError>((!is_allowed(&reviewed)).then_some(*verb))
            }
        });
        Ok(try_join_all(reviewed).await?.into_iter().flatten().collect())
    }

    /// Whether each part of the admission policy refuses what it must. Everything is dry-run.
    pub async fn try_admission(&self) -> [AdmissionFinding; 4] {
        let (pods, services, secrets, changes) = tokio::join!(
            self.try_create(&self.pods, bad_pod()),
            self.try_create(&self.services, bad_service()),
            self.try_create(&self.secrets, bad_secret()),
            self.try_change(),
        );
        [finding(PODS, pods), finding(SERVICES, services), finding(SECRETS, secrets), changes]
    }

    /// Whether the policy over NetworkPolicies, of `k8s/overlays/egress`, refuses what it must; none
    /// where they may not be made. It is about the service's account alone.
    pub async fn try_egress_admission(&self) -> Option<AdmissionFinding> {
        let policies =
            Api::<NetworkPolicy>::namespaced(self.client.clone(), &self.settings.namespace);
        let tried = finding(EGRESS, self.try_create(&policies, bad_network_policy()).await);
        let is_denied = matches!(
            &tried.outcome,
            AdmissionOutcome::Failed(error) if error.is_forbidden()
        );
        (!is_denied).then_some(tried)
    }

    /// Whether the label of the pods' namespace forbids ports of nodes. A pod is dry-run: the
    /// service may not read namespaces.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn host_ports(&self) -> Result<HostPorts> {
        host_ports(self.try_create(&self.pods, pod_with_host_port()).await)
    }

    async fn try_create<K>(&self, api: &Api<K>, object: Result<K>) -> Result<()>
    where
        K: Serialize + DeserializeOwned + Clone + Debug,
    {
        let (params, object) = (dry_run(), object?);
        with_timeout(api.create(&params, &object)).await.map(drop)
    }

    /// A change of some pod of a lease, if there is one.
    async fn try_change(&self) -> AdmissionFinding {
        let untried = |outcome| AdmissionFinding { policy: CHANGES, outcome };
        let params = ListParams::default().labels(&format!("{}={}", APP.0, APP.1)).limit(1);
        let pod = match with_timeout(self.pods.list(&params)).await {
            Ok(pods) => pods.items.first().map(ResourceExt::name_any),
            Err(error) => return untried(AdmissionOutcome::Failed(error)),
        };
        let Some(pod) = pod else { return untried(AdmissionOutcome::Untried) };
        let params = PatchParams { dry_run: true, ..patch_params() };
        let patch = Patch::Merge(bad_change());
        match with_timeout(self.pods.patch(&pod, &params, &patch)).await {
            // It has ended meanwhile.
            Err(error) if error.is_not_found() => untried(AdmissionOutcome::Untried),
            answer => finding(CHANGES, answer),
        }
    }

    /// The names of the NetworkPolicies beside the customers' pods; none where they may not be
    /// listed, as the service may not.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn network_policies(&self) -> Result<Option<BTreeSet<String>>> {
        let policies =
            Api::<NetworkPolicy>::namespaced(self.client.clone(), &self.settings.namespace);
        match with_timeout(policies.list(&ListParams::default())).await {
            Ok(policies) => Ok(Some(policies.items.iter().map(ResourceExt::name_any).collect())),
            Err(error) if error.is_forbidden() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The ports among these that pods of others have on some node; none where pods of other
    /// namespaces may not be listed.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn host_ports_of_others(
        &self,
        ports: &RangeInclusive<u16>,
    ) -> Result<Option<BTreeSet<u16>>> {
        let pods = Api::<Pod>::all(self.client.clone());
        let mut params = ListParams::default()
            .fields("status.phase!=Succeeded,status.phase!=Failed")
            .limit(PAGE);
        let mut taken = BTreeSet::new();
        loop {
            let page = match with_timeout(pods.list(&params)).await {
                Err(error) if error.is_forbidden() => return Ok(None),
                page => page?,
            };
            let found = page.items.iter().flat_map(host_ports_of_others);
            taken.extend(found.filter(|port| ports.contains(port)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(Some(taken)),
            }
        }
    }

    /// The API server's clock, if it shows it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn clock(&self) -> Result<Option<ClockOffset>> {
        let request = Request::new(self.jobs.resource_url())
            .list(&ListParams::default().limit(1))
            .map_err(kube::Error::BuildRequest)?;
        let response = with_timeout(self.client.send(request.map(Body::from))).await?;
        let date = response.headers().get("date").and_then(|date| date.to_str().ok());
        Ok(date.and_then(|date| ClockOffset::of_http_date(date, UnixTime::now())))
    }

    /// Notes a probe pod that is launched, until it is removed.
    pub(crate) fn note_probe(&self, pod: &PodName) {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.clone());
    }

    pub(crate) fn forget_probe(&self, pod: &PodName) {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).remove(pod);
    }

    /// Removes the probe pods of this process that are left, since whoever waited for them has gone.
    pub async fn remove_probes(&self) {
        let left = self.probes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let removals = left.iter().map(|pod| self.remove_probe(pod));
        join_all(removals).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn host_ports_are_others_unless_their_pod_is_a_leases() {
        let containers = json!([{"name": "a", "ports": [{"containerPort": 1, "hostPort": 20_000}, {"containerPort": 2}]}, {"name": "b"}]);
        for (app, expected) in [("other", vec![20_000]), (APP.1, vec![])] {
            let pod: Pod = serde_json::from_value(
                json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": containers}}),
            )
            .unwrap();
            assert_eq!(host_ports_of_others(&pod).collect::<Vec<_>>(), expected, "{app}");
        }
    }
}
