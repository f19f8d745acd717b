//! The cluster decides what pods exist: its events are recorded, and missed events are made up for
//! by polling.

use super::OrderService;
use crate::backend::cluster::{ClusterError, ClusterEvent, EndReason, Ending};
use crate::backend::store::LedgerError;
use crate::limits;
use crate::model::ids::PodName;
use crate::model::order::{Lease, LeaseState};
use crate::model::units::{Seconds, UnixTime};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Events that may wait: the watcher stops reading when the order service is behind.
const EVENT_QUEUE: usize = 256;

impl OrderService {
    /// Follows the cluster and continues what is unfinished, until it is dropped. Run it once,
    /// beside the transports.
    pub async fn watch(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
        let observer = Arc::clone(&self.backends.cluster.observer);
        tasks.spawn(async move { observer.observe(sender).await });
        tasks.spawn(Arc::clone(&self).follow(receiver));
        tasks.spawn(Arc::clone(&self).reconcile());
        if self.settings.sweep {
            tasks.spawn(Arc::clone(&self).run_orphan_loop());
        }
        tasks.spawn(Arc::clone(&self).run_resume_loop());
        tasks.spawn(Arc::clone(&self).run_recovery_loop());
        tasks.spawn(Arc::clone(&self).run_refund_loop());
        tasks.spawn(Arc::clone(&self).run_probe_loop());
        tasks.spawn(Arc::clone(&self).run_notices());
        // None of them ends by itself; if one does, the caller ends.
        let _ = tasks.join_next().await;
    }

    async fn follow(self: Arc<Self>, mut events: mpsc::Receiver<ClusterEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                ClusterEvent::Ended(pod, reason) => match self.backends.ledger.lease(&pod).await {
                    // An event may be older than the pod: the cluster decides.
                    Ok(Some(lease)) if lease.state == LeaseState::Live => {
                        self.check(lease, Some(reason)).await
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, %pod, "the end of a pod could not be recorded; it is polled again")
                    }
                },
                ClusterEvent::Replaced(pod) => self.expect_replacement(pod),
                ClusterEvent::NodeLost { pods, ready_until } => self.lose(pods, ready_until).await,
                ClusterEvent::Resync(pods) => {
                    let there: HashSet<PodName> = pods.into_iter().collect();
                    for lease in self.live().await {
                        if !there.contains(&lease.pod()) {
                            self.check(lease, None).await;
                        }
                    }
                }
            }
        }
    }

    async fn run_resume_loop(self: Arc<Self>) {
        let mut tick = tokio::time::interval(limits::RESUME_EVERY);
        loop {
            tick.tick().await;
            if let Err(error) = self.resume_unfinished().await {
                tracing::warn!(%error, "unfinished orders could not be listed");
            }
        }
    }

    /// Apart from refunds, of which there may be as many as customers do not redeem.
    async fn run_recovery_loop(self: Arc<Self>) {
        let mut tick = tokio::time::interval(limits::REFUNDS_EVERY);
        loop {
            tick.tick().await;
            if let Err(error) = self.backends.wallet.recover().await {
                tracing::warn!(%error, "something that was begun at a mint is still open");
            }
        }
    }

    async fn run_refund_loop(self: Arc<Self>) {
        let mut tick = tokio::time::interval(limits::REFUNDS_EVERY);
        loop {
            tick.tick().await;
            if let Err(error) = self.sweep_refunds().await {
                tracing::warn!(%error, "refunds could not be swept");
            }
        }
    }

    /// Ends the leases whose pods should have ended.
    async fn reconcile(self: Arc<Self>) {
        let mut tick = tokio::time::interval(limits::RECONCILE_EVERY);
        let mut are_ends_shown = false;
        loop {
            tick.tick().await;
            let leases = self.live().await;
            // Those that an earlier process has sold; what is sold from now on is shown then.
            if !are_ends_shown && !leases.is_empty() {
                self.show_ends(&leases);
                are_ends_shown = true;
            }
            let permits = Arc::new(Semaphore::new(limits::REMOVALS_AT_ONCE));
            let mut tasks = JoinSet::new();
            for lease in leases {
                // Sold before this process, or by another replica.
                self.expect_notice(&lease);
                if !is_due(&lease, UnixTime::now()) {
                    continue;
                }
                let (orders, permits) = (Arc::clone(&self), Arc::clone(&permits));
                tasks.spawn(async move {
                    let _permit = permits.acquire().await;
                    orders.enforce_deadline(lease).await;
                });
            }
            while tasks.join_next().await.is_some() {}
        }
    }

    /// Removes the pods that nobody knows.
    async fn run_orphan_loop(self: Arc<Self>) {
        let mut tick = tokio::time::interval(limits::ORPHANS_EVERY);
        loop {
            tick.tick().await;
            let permits = Arc::new(Semaphore::new(limits::REMOVALS_AT_ONCE));
            let mut tasks = JoinSet::new();
            for pod in self.orphans().await {
                let (orders, permits) = (Arc::clone(&self), Arc::clone(&permits));
                tasks.spawn(async move {
                    let _permit = permits.acquire().await;
                    orders.sweep(&pod).await;
                });
            }
            while tasks.join_next().await.is_some() {}
        }
    }

    /// A lease past its end, or announced to end, is ended.
    async fn enforce_deadline(self: &Arc<Self>, lease: Lease) {
        let over = lease.expires_at.map_or(Seconds(0), |at| UnixTime::now().since(at));
        if over > Seconds(limits::OVERDUE) || lease.end.is_some() {
            match self.backends.cluster.remover.remove(&lease.pod()).await {
                Ok(()) => self.record_end(&lease.pod(), EndReason::Expired).await,
                Err(error) => {
                    tracing::warn!(%error, pod = %lease.pod(), "a pod past its end could not be removed")
                }
            }
        } else if over > Seconds(0) {
            self.check(lease, None).await;
        }
    }

    /// Ends the leases of pods whose node is lost, in the background: other events do not wait.
    async fn lose(self: &Arc<Self>, pods: Vec<PodName>, ready_until: UnixTime) {
        let permits = Arc::new(Semaphore::new(limits::REMOVALS_AT_ONCE));
        for pod in pods {
            let lease = match self.mark_lost(&pod, ready_until).await {
                Ok(Some(lease)) => lease,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(%error, %pod, "the loss of a node could not be recorded; it is reported again");
                    continue;
                }
            };
            let (orders, permits) = (Arc::clone(self), Arc::clone(&permits));
            tokio::spawn(async move {
                let _permit = permits.acquire().await;
                orders.enforce_deadline(lease).await;
            });
        }
    }

    /// Announces the end of a lease, on disk first: should the pod not be removed now, it is later. None:
    /// it was announced before, or there is nothing to end.
    async fn mark_lost(
        &self,
        pod: &PodName,
        ready_until: UnixTime,
    ) -> Result<Option<Lease>, LedgerError> {
        let lease = self.backends.ledger.lease(pod).await?;
        let is_live = |lease: &Lease| lease.state == LeaseState::Live && lease.end.is_none();
        let Some(lease) = lease.filter(is_live) else { return Ok(None) };
        let lost = Ending { reason: EndReason::NodeLost, served_until: Some(ready_until) };
        self.backends.ledger.mark_ending(pod, lost).await?;
        Ok(Some(Lease { end: Some(lost.reason), served_until: lost.served_until, ..lease }))
    }

    /// Ends the lease if its pod is really gone: an event may be older than the pod.
    async fn check(self: &Arc<Self>, lease: Lease, reported: Option<EndReason>) {
        let at = lease.expires_at.unwrap_or_else(UnixTime::now);
        if let Err(ClusterError::NotFound) =
            self.backends.cluster.expiry.check_running(&lease.pod(), at).await
        {
            let guess = if at <= UnixTime::now() { EndReason::Expired } else { EndReason::Removed };
            self.record_end(&lease.pod(), reported.unwrap_or(guess)).await;
        }
    }

    async fn record_end(self: &Arc<Self>, pod: &PodName, reason: EndReason) {
        if let Err(error) = self.end(pod, reason).await {
            tracing::warn!(%error, %pod, "the end of a lease could not be stored; it is polled again");
        }
    }

    /// Pods without a lease: of orders that were refunded while the cluster was away, for instance. The
    /// ledger is not read for those that were live a moment ago.
    async fn orphans(&self) -> Vec<PodName> {
        let live: HashSet<PodName> = self.live().await.iter().map(Lease::pod).collect();
        let aged = match self.backends.cluster.observer.list_orphan_candidates().await {
            Ok(aged) => aged,
            Err(error) => {
                tracing::warn!(%error, "the sweep could not list pods");
                return Vec::new();
            }
        };
        let mut orphans = Vec::new();
        for pod in aged.into_iter().filter(|pod| !live.contains(pod)) {
            let owned = self.backends.ledger.lease(&pod).await;
            if matches!(&owned, Ok(None))
                || matches!(&owned, Ok(Some(lease)) if lease.state == LeaseState::Ended)
            {
                orphans.push(pod);
            }
        }
        orphans
    }

    async fn sweep(&self, pod: &PodName) {
        match self.backends.cluster.remover.remove(pod).await {
            Ok(()) => tracing::info!(%pod, "swept a pod that has no lease"),
            Err(error) => tracing::warn!(%error, %pod, "a pod without a lease could not be swept"),
        }
    }

    pub(super) async fn live(&self) -> Vec<Lease> {
        match self.backends.ledger.live_leases(None).await {
            Ok(leases) => {
                leases.into_iter().filter(|lease| lease.state == LeaseState::Live).collect()
            }
            Err(error) => {
                tracing::warn!(%error, "the leases could not be read");
                Vec::new()
            }
        }
    }
}

/// Whether the pod of a live lease should have ended by now, or its end is announced.
fn is_due(lease: &Lease, now: UnixTime) -> bool {
    lease.end.is_some() || lease.expires_at.is_some_and(|at| now.since(at) > Seconds(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{LeaseId, OrderId};
    use crate::testing;

    #[test]
    fn a_lease_is_due_after_its_end_or_once_that_is_announced() {
        let lease = testing::lease(LeaseId::of(&OrderId::random()), 0, 3_600);
        let due_at = |lease: &Lease| [0, 3_600, 3_601].map(|now| is_due(lease, UnixTime(now)));
        assert_eq!(due_at(&lease), [false, false, true]);
        let announced = Lease { end: Some(EndReason::Stopped), ..lease.clone() };
        assert_eq!(due_at(&announced), [true; 3]);
        let reserved = Lease { expires_at: None, ..lease };
        assert_eq!(due_at(&reserved), [false; 3]);
    }
}
