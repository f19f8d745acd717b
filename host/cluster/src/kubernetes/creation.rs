//! Creating what a lease consists of, or only validating it.

use super::{FIELD_MANAGER, Kubernetes, patch_params};
use crate::connection::with_timeout;
use crate::objects::{Objects, STARTED};
use crate::pod_reply;
use crate::requests::{Answer, Result, cluster_error, request};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::{Api, Patch, PostParams, Request};
use kube::core::NamespaceResourceScope;
use paygress_core::backend::cluster::ClusterError;
use paygress_core::model::ids::LeaseId;
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
        self.dry_run_create(&self.jobs, &objects.job).await?;
        // The dry run of a Job is not checked against quota and Pod Security; that of its pod is.
        let pod = objects.pod();
        let admitted = self.dry_run_create(&self.pods, &pod).await?;
        let host_users = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.host_users);
        if host_users(&pod) == Some(false) && host_users(&admitted) != Some(false) {
            // Its root would be that of the node.
            tracing::error!("the API server does not know user namespaces (hostUsers)");
            let text = "the cluster does not isolate this pod as it must";
            return Err(Refusal::new(ErrorType::BackendError, text).into());
        }
        self.dry_run_create(&self.secrets, &objects.secret).await?;
        for service in &objects.services {
            self.dry_run_create(&self.services, service).await?;
        }
        Ok(admitted)
    }

    /// Creates the objects of a lease, and starts its Job. It needs all but what the pod is to write
    /// to its customer.
    pub(crate) async fn create_all(&self, lease: &LeaseId, mut objects: Objects) -> Result<()> {
        self.ensure(&self.jobs, &objects.job).await?;
        let pod = lease.pod_name();
        let job = self.running(&pod).await?;
        let owner = job.controller_owner_ref(&()).ok_or(ClusterError::NotFound)?;
        objects.set_owner(&owner);
        self.ensure(&self.secrets, &objects.secret).await?;
        // A pod that was launched before its payment has nobody to write to.
        if let Some(reply) = objects.reply.as_ref().filter(|_| pod_reply::is_in(&job)) {
            match self.ensure(&self.secrets, reply).await {
                // The pod starts without it, and writes nothing.
                Err(ClusterError::Refused(refusal)) => {
                    tracing::warn!(%refusal, %pod, "a pod gets nothing to write to its customer");
                }
                ensured => ensured?,
            }
        }
        for service in &objects.services {
            self.ensure(&self.services, service).await?;
        }
        if job.spec.as_ref().is_none_or(|spec| spec.suspend != Some(true)) {
            return Ok(());
        }
        let resume = Patch::Merge(json!({
            "metadata": {"annotations": {STARTED: UnixTime::now().0.to_string()}},
            "spec": {"suspend": false},
        }));
        request(self.jobs.patch(pod.as_str(), &patch_params(), &resume)).await.map(drop)
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

    /// Creates an object unless it exists.
    async fn ensure<K>(&self, api: &Api<K>, object: &K) -> Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope> + Serialize + DeserializeOwned,
    {
        match self.create(api, object, Commit::Apply).await {
            Err(error) if error.is_already_exists() => Ok(()),
            created => created.map(drop).map_err(cluster_error),
        }
    }
}
