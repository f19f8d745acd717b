//! Removing what a lease consists of.

use super::Kubernetes;
use crate::connection::with_timeout;
use crate::pod_reply::secret_name;
use crate::requests::{Result, cluster_error, is_gone, request};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};
use paygress_core::backend::cluster::ClusterError;
use paygress_core::model::ids::PodName;
use std::time::Duration;

/// How long a removal may take: the pod's grace period, and the controllers' work.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(60);
const REMOVAL_POLL: Duration = Duration::from_millis(250);

impl Kubernetes {
    /// Deletes the Job, but not a later one of the same name.
    pub(super) async fn delete_job(&self, pod: &PodName) -> Result<()> {
        let Some(job) = request(self.jobs.get_opt(pod.as_str())).await? else { return Ok(()) };
        let this_one = Preconditions { uid: job.uid(), ..Preconditions::default() };
        let params = DeleteParams::background().preconditions(this_one);
        match with_timeout(self.jobs.delete(pod.as_str(), &params)).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => {
                Err(cluster_error(error))
            }
            _ => Ok(()),
        }
    }

    /// Deletes the rest of a lease until nothing of it is left but a pod on a node that is lost: that
    /// one goes when its node is back. The login's Secret is garbage
    /// collected some time after its Job, and a new pod of the same name must not find the old one.
    /// It is deleted rather than looked up, since the service has no right to read Secrets.
    async fn delete_owned(&self, pod: &PodName) -> Result<()> {
        loop {
            let job = request(self.jobs.get_opt(pod.as_str())).await?;
            let params = DeleteParams::default();
            let mut secrets_gone = true;
            for secret in self.secrets_of(pod) {
                let deleted = with_timeout(self.secrets.delete(&secret, &params)).await;
                secrets_gone &= is_gone(deleted)?;
            }
            // Lists come last: each takes the API server time for all that the namespace has.
            let are_gone = |pods: &[Pod]| pods.iter().all(|pod| self.is_on_lost_node(pod));
            if job.is_none()
                && secrets_gone
                && are_gone(&self.named_pods(pod).await?)
                && self.delete_services(pod).await?
                && are_gone(&self.pods_of(pod).await?)
            {
                return Ok(());
            }
            tokio::time::sleep(REMOVAL_POLL).await;
        }
    }

    /// Whether there were none.
    async fn delete_services(&self, pod: &PodName) -> Result<bool> {
        let (services, params) = (self.services_of(pod).await?, DeleteParams::default());
        for service in &services {
            is_gone(with_timeout(self.services.delete(service, &params)).await)?;
        }
        Ok(services.is_empty())
    }

    /// The names of a lease's Secrets. What was written from a pod before that was turned off is
    /// collected with its Job: no new pod reads it.
    fn secrets_of(&self, pod: &PodName) -> Vec<String> {
        let login = pod.to_string();
        let reply = self.settings.reply_from_pod.then(|| secret_name(&login));
        std::iter::once(login).chain(reply).collect()
    }

    /// As [`Kubernetes::delete_owned`]; an error when it takes too long.
    pub(super) async fn delete_owned_in_time(&self, pod: &PodName) -> Result<()> {
        tokio::time::timeout(REMOVAL_TIMEOUT, self.delete_owned(pod))
            .await
            .unwrap_or_else(|_| Err(ClusterError::unavailable("the pod was not removed in time")))
    }
}
