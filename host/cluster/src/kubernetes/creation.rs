//! Creating what a lease consists of, or only validating it.

use super::{FIELD_MANAGER, Kubernetes, patch_params};
use crate::connection::with_timeout;
use crate::objects::{Objects, STARTED};
use crate::pod_reply;
use crate::pod_watch::JobOrigin;
use crate::requests::{Answer, Result, cluster_error, request};
use crate::settings::SshHostFrom;
use crate::ssh_server::mounted_image;
use futures::future::try_join_all;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Resource;
use kube::api::{Api, Patch, PostParams, Request};
use kube::core::NamespaceResourceScope;
use paygress_core::backend::cluster::ClusterError;
use paygress_core::model::ids::{LeaseId, PodName};
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::units::UnixTime;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// Whether a request is carried out, or only validated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Commit {
    Apply,
    DryRun,
}

impl Kubernetes {
    /// Validates all objects of a lease; returns the pod as it would be admitted: with the defaults
    /// of LimitRanges and runtime classes.
    pub(crate) async fn dry_run_all(&self, objects: &Objects) -> Result<Pod> {
        // The dry run of a Job is not checked against quota and Pod Security; that of its pod is.
        let pod = objects.pod();
        let services = objects.services.iter();
        let services =
            try_join_all(services.map(|service| self.dry_run_create(&self.services, service)));
        let policy = objects.egress.iter();
        let policy = try_join_all(policy.map(|policy| self.dry_run_create(&self.policies, policy)));
        let (job, admitted, secret, services, policy) = tokio::join!(
            self.dry_run_create(&self.jobs, &objects.job),
            self.dry_run_create(&self.pods, &pod),
            self.dry_run_create(&self.secrets, &objects.secret),
            services,
            policy,
        );
        job?;
        let admitted = admitted?;
        check_kept(&pod, &admitted)?;
        secret?;
        services?;
        policy?;
        Ok(admitted)
    }

    /// Creates the objects of a lease, and starts its Job. It needs all but what the pod is to write
    /// to its customer. Its pod is not made before: nothing runs that may connect to more than it is to.
    pub(crate) async fn create_all(&self, lease: &LeaseId, objects: Objects) -> Result<()> {
        let pod = lease.pod_name();
        let (job, origin) = match self.ensure(&self.jobs, &objects.job).await? {
            Some(created) => (created, JobOrigin::Now),
            None => (self.running(&pod).await?, JobOrigin::Before),
        };
        self.pod_watch.awaited().expect(&pod, &job, origin);
        let completed = self.complete(&pod, &job, objects).await;
        if completed.is_err() {
            self.pod_watch.awaited().forget(&pod);
        }
        completed
    }

    /// Creates what else a lease consists of beside its Job, and starts that.
    async fn complete(&self, pod: &PodName, job: &Job, mut objects: Objects) -> Result<()> {
        let owner = job.controller_owner_ref(&()).ok_or(ClusterError::NotFound)?;
        objects.set_owner(&owner);
        // A pod that was launched before its payment has nobody to write to.
        let reply = objects.reply.take().filter(|_| pod_reply::is_in(job));
        let (reply, held) = match self.settings.ssh_host_from {
            SshHostFrom::Setting => (reply, None),
            SshHostFrom::Node => (None, reply),
        };
        let services = objects.services.iter();
        let services = try_join_all(services.map(|service| self.ensure(&self.services, service)));
        let policy = objects.egress.iter();
        let policy = try_join_all(policy.map(|policy| self.ensure(&self.policies, policy)));
        let (secret, reply, services, policy) = tokio::join!(
            self.ensure(&self.secrets, &objects.secret),
            self.ensure_reply(reply.as_ref(), pod),
            services,
            policy,
        );
        secret?;
        reply?;
        services?;
        policy?;
        if job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true)) {
            self.resume(pod).await?;
        }
        if let Some(held) = held {
            self.hold_reply(pod, held);
        }
        Ok(())
    }

    async fn resume(&self, pod: &PodName) -> Result<()> {
        let resume = Patch::Merge(json!({
            "metadata": {"annotations": {STARTED: UnixTime::now().0.to_string()}},
            "spec": {"suspend": false},
        }));
        request(self.jobs.patch(pod.as_str(), &patch_params(), &resume)).await.map(drop)
    }

    /// Creates what a pod is to write. It starts without it as well, and writes nothing.
    pub(super) async fn ensure_reply(&self, reply: Option<&Secret>, pod: &PodName) -> Result<()> {
        let Some(reply) = reply else { return Ok(()) };
        match self.ensure(&self.secrets, reply).await {
            Err(ClusterError::Refused(refusal)) => {
                tracing::warn!(%refusal, %pod, "a pod gets nothing to write to its customer");
                Ok(())
            }
            ensured => ensured.map(drop),
        }
    }

    /// Creates an object with strict field validation, which `Api::create` has no parameter for.
    async fn create<K>(&self, api: &Api<K>, object: &K, commit: Commit) -> Answer<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + Serialize + DeserializeOwned,
    {
        let params = PostParams {
            dry_run: commit == Commit::DryRun,
            field_manager: Some(FIELD_MANAGER.to_owned()),
        };
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let mut request = Request::new(api.resource_url())
            .create(&params, body)
            .map_err(kube::Error::BuildRequest)?;
        if let Ok(strict) = format!("{}&fieldValidation=Strict", request.uri()).parse() {
            *request.uri_mut() = strict;
        }
        with_timeout(self.client.request(request)).await
    }

    /// The object as it would be created.
    async fn dry_run_create<K>(&self, api: &Api<K>, object: &K) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + Serialize + DeserializeOwned,
    {
        self.create(api, object, Commit::DryRun).await.map_err(cluster_error)
    }

    /// Creates an object; none if it exists.
    async fn ensure<K>(&self, api: &Api<K>, object: &K) -> Result<Option<K>>
    where
        K: Resource<Scope = NamespaceResourceScope> + Serialize + DeserializeOwned,
    {
        match self.create(api, object, Commit::Apply).await {
            Err(error) if error.is_already_exists() => Ok(None),
            created => created.map(Some).map_err(cluster_error),
        }
    }
}

/// Whether the API server has left out what it does not know, or what is turned off there.
fn check_kept(pod: &Pod, admitted: &Pod) -> Result<()> {
    let host_users = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.host_users);
    let has_image = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| mounted_image(spec).is_some());
    if host_users(pod) == Some(false) && host_users(admitted) != Some(false) {
        // Its root would be that of the node.
        tracing::error!("the API server does not know user namespaces (hostUsers)");
        return Err(refused("the cluster does not isolate this pod as it must"));
    }
    if has_image(pod) && !has_image(admitted) {
        tracing::warn!("the API server does not know volumes of images (ImageVolume)");
        return Err(refused("the cluster does not put the SSH server into this pod"));
    }
    Ok(())
}

fn refused(text: &str) -> ClusterError {
    Refusal::new(ErrorType::BackendError, text).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn what_an_api_server_leaves_out_in_silence_is_noticed() {
        let of = |volumes: Value, host_users: Value| -> Pod {
            let spec = json!({"containers": [], "volumes": volumes, "hostUsers": host_users});
            serde_json::from_value(json!({"spec": spec})).unwrap()
        };
        let image = json!([{"name": "paygress", "image": {"reference": "server:1"}}]);
        let empty_dir = json!([{"name": "paygress", "emptyDir": {}}]);
        for (volumes, left) in [(&image, &image), (&empty_dir, &empty_dir)] {
            for users in [json!(false), Value::Null] {
                let pod = of(volumes.clone(), users.clone());
                assert!(check_kept(&pod, &of(left.clone(), users)).is_ok());
            }
        }
        let namespaced = of(image.clone(), json!(false));
        for admitted in [of(image.clone(), Value::Null), of(json!([]), json!(false))] {
            let refused = check_kept(&namespaced, &admitted);
            assert!(matches!(refused, Err(ClusterError::Refused(_))), "{refused:?}");
        }
    }
}
