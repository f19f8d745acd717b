//! The watch of the Jobs: what becomes of their pods.

use super::{Kubernetes, pod_of};
use crate::objects::selector;
use crate::status::{cause_in, finished, is_replaced};
use crate::watches::watch;
use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use kube::runtime::watcher::{self, Event};
use paygress_core::backend::cluster::{ClusterEvent, EndReason};
use paygress_core::error_chain;
use paygress_core::logged_failures::LoggedFailures;
use tokio::sync::mpsc;

impl Kubernetes {
    /// Reports what becomes of pods, by their Jobs, until the receiver is dropped.
    pub(super) async fn observe_jobs(&self, sink: &mpsc::Sender<ClusterEvent>) {
        let selector = watcher::Config::default().labels(&selector(&self.settings.instance));
        let mut events = std::pin::pin!(watch(self.jobs.clone(), selector));
        let (mut listed, failures) = (Vec::new(), LoggedFailures::default());
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(Event::Init) => {
                    listed.clear();
                    None
                }
                Ok(Event::InitApply(job)) => {
                    listed.extend(pod_of(&job));
                    self.event(&job).await
                }
                Ok(Event::InitDone) => Some(ClusterEvent::Resync(std::mem::take(&mut listed))),
                Ok(Event::Apply(job)) => self.event(&job).await,
                Ok(Event::Delete(job)) => {
                    pod_of(&job).map(|pod| ClusterEvent::Ended(pod, EndReason::Removed))
                }
                Err(error) => {
                    if let Some(error) = failures.admit(error_chain(&error)) {
                        tracing::warn!(error, "the watch of the Jobs failed");
                    }
                    None
                }
            };
            if let Some(event) = event
                && sink.send(event).await.is_err()
            {
                return;
            }
        }
    }

    /// The end of a finished Job.
    async fn end(&self, job: &Job) -> Option<ClusterEvent> {
        let pod = pod_of(job)?;
        let reason = finished(job)?;
        let pods = match reason {
            EndReason::Exited | EndReason::Disrupted => self.known_pods(&pod).await.ok(),
            _ => None,
        };
        Some(ClusterEvent::Ended(pod, cause_in(job, reason, pods.as_deref())))
    }

    /// What a Job says of its pod that customers must know. Another pod runs in place of one that
    /// has failed or was deleted where the template has its containers restarted (`OnFailure`).
    async fn event(&self, job: &Job) -> Option<ClusterEvent> {
        match is_replaced(job) {
            true => pod_of(job).map(ClusterEvent::Replaced),
            false => self.end(job).await,
        }
    }
}
