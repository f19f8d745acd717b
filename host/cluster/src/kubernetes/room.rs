//! The room of probe pods: they have it only as long as no order needs it.

use super::Kubernetes;
use crate::objects::{Objects, PROBE, pod_of_lease, selector};
use crate::requests::{Result, request};
use crate::status::unschedulable;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use paygress_core::backend::cluster::ClusterError;
use paygress_core::model::ids::PodName;
use paygress_core::model::refusal::ErrorType;
use std::time::Duration;
use tokio::time::Instant;

/// How long a quota may count probe pods that were ended: their removal, and the controllers' work.
const QUOTA_WAIT: Duration = Duration::from_secs(10);
const QUOTA_POLL: Duration = Duration::from_secs(1);
/// How often probe pods are ended while a pod of an order has no place: another process of this
/// installation may launch more of them.
const ROOM_POLL: Duration = Duration::from_secs(5);

impl Kubernetes {
    /// Validates all objects of an order; what probe pods use of a quota does not count.
    pub(super) async fn dry_run_of_order(&self, objects: &Objects) -> Result<Pod> {
        validate_with_room(|| self.dry_run_all(objects), self.end_probes()).await
    }

    /// Ends the probe pods if no node has a place for this pod of an order; from `next` on, which is
    /// moved then.
    pub(super) async fn make_room(&self, name: &PodName, pod: &Pod, next: &mut Instant) {
        let now = Instant::now();
        if now < *next || !needs_room(name, pod) {
            return;
        }
        *next = now.checked_add(ROOM_POLL).unwrap_or(now);
        if let Err(error) = self.end_probes().await {
            tracing::warn!(%error, pod = %name, "no probe pods are ended for a pod without a place");
        }
    }

    /// Ends the probe pods of this installation, whichever process has launched them; whether there
    /// are any.
    async fn end_probes(&self) -> Result<bool> {
        let selector = format!("{},{}", selector(&self.settings.instance), PROBE);
        let params = ListParams::default().labels(&selector);
        let pods = request(self.pods.list(&params)).await?.items;
        for pod in pods.iter().filter_map(pod_of_lease) {
            tracing::info!(%pod, "a probe pod is ended: an order needs its room");
            self.delete_job(&pod).await?;
        }
        Ok(!pods.is_empty())
    }

    /// Whether this probe pod, which was launched, was ended by another than whoever waits for it.
    pub(crate) async fn has_given_way(&self, pod: &PodName) -> bool {
        match request(self.jobs.get_opt(pod.as_str())).await {
            Ok(job) => job.is_none_or(|job| job.metadata.deletion_timestamp.is_some()),
            Err(_) => false,
        }
    }
}

/// Validates again and again what a quota refuses while it counts probe pods that were ended, if there
/// were any.
async fn validate_with_room<T, V: Future<Output = Result<T>>>(
    validate: impl Fn() -> V,
    end_probes: impl Future<Output = Result<bool>>,
) -> Result<T> {
    let refused = match validate().await {
        Err(error) if is_of_quota(&error) => error,
        validated => return validated,
    };
    if !end_probes.await? {
        return Err(refused);
    }
    let begun = Instant::now();
    loop {
        tokio::time::sleep(QUOTA_POLL).await;
        match validate().await {
            Err(error) if is_of_quota(&error) && begun.elapsed() < QUOTA_WAIT => {}
            validated => return validated,
        }
    }
}

/// Whether this is a pod of an order for which the scheduler has found no node.
fn needs_room(name: &PodName, pod: &Pod) -> bool {
    let is_probe = name.lease().is_some_and(|lease| lease.is_probe());
    !is_probe && pod.status.as_ref().and_then(unschedulable).is_some()
}

fn is_of_quota(error: &ClusterError) -> bool {
    matches!(error, ClusterError::Refused(refusal) if refusal.code == ErrorType::ResourceUnavailable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::model::ids::{LeaseId, OrderId};
    use paygress_core::model::refusal::Refusal;
    use serde_json::{Value, json};
    use std::cell::Cell;
    use std::future::ready;

    /// How often an order is validated whose quota counts a probe pod for so long after its end, and
    /// whether it is accepted; none: no probe fills the quota.
    async fn outcome(counted: Option<Duration>) -> (u32, bool) {
        let (times, ended) = (Cell::new(0_u32), Cell::new(None::<Instant>));
        let validate = || async {
            times.set(times.get().saturating_add(1));
            if ended.get().zip(counted).is_some_and(|(at, kept)| at.elapsed() >= kept) {
                return Ok(());
            }
            Err(ClusterError::Refused(Refusal::new(ErrorType::ResourceUnavailable, "a test")))
        };
        let end_probes = async {
            ended.set(Some(Instant::now()));
            Ok(counted.is_some())
        };
        let validated = validate_with_room(validate, end_probes).await;
        assert!(validated.as_ref().err().is_none_or(is_of_quota), "{validated:?}");
        (times.get(), validated.is_ok())
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_is_validated_again_while_its_quota_counts_a_probe_that_was_ended() {
        for (counted, expected) in [
            (Some(Duration::ZERO), (2, true)),
            (Some(Duration::from_millis(2_500)), (4, true)),
            (Some(Duration::from_secs(3_600)), (11, false)),
            (None, (1, false)),
        ] {
            assert_eq!(outcome(counted).await, expected, "{counted:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_of_a_quota_ends_no_probe() {
        let is_ended = Cell::new(false);
        let end_probes = || async {
            is_ended.set(true);
            Ok(true)
        };
        let away = || ready(Err::<(), _>(ClusterError::unavailable("a test")));
        let refused = validate_with_room(away, end_probes()).await;
        assert!(matches!(refused, Err(ClusterError::Unavailable(_))), "{refused:?}");
        let accepted = validate_with_room(|| ready(Ok(())), end_probes()).await;
        assert!(matches!(accepted, Ok(())) && !is_ended.get(), "{accepted:?}");
    }

    #[test]
    fn a_pod_of_an_order_without_a_place_needs_that_of_a_probe() {
        let pod = |conditions: &Value| -> Pod {
            serde_json::from_value(json!({"status": {"conditions": conditions}})).unwrap()
        };
        let scheduled = |status: &str| {
            let message = "0/1 nodes are available: 1 Insufficient cpu.";
            json!([{"type": "PodScheduled", "status": status, "message": message}])
        };
        let (order, probe) = (LeaseId::of(&OrderId::random()), LeaseId::of_probe());
        for (lease, conditions, expected) in [
            (&order, scheduled("False"), true),
            (&order, scheduled("True"), false),
            // The scheduler has not looked at it yet.
            (&order, json!([]), false),
            (&probe, scheduled("False"), false),
        ] {
            let found = needs_room(&lease.pod_name(), &pod(&conditions));
            assert_eq!(found, expected, "{lease}: {conditions}");
        }
        assert!(!needs_room(&order.pod_name(), &Pod::default()));
    }
}
