//! The probe pod: nothing is sold before a pod like those of customers has started.
//!
//! It is what an order of nobody's gets: the default image, the default tier, the template. Another
//! one is launched when the policies make another pod of such an order, and, while something is
//! wrong, a minute later, or an hour later if only root is missing.

use super::OrderService;
use super::probe_state::ProbeState;
use crate::backend::capacity::Tier;
use crate::backend::cluster::{LeasePlan, Probe, ProbeProblem};
use crate::backend::policy::Grant;
use crate::limits;
use crate::model::ids::{LeaseId, OrderId};
use crate::model::login::Login;
use crate::model::order::Purchase;
use crate::model::refusal::Refusal;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl OrderService {
    fn probe_state(&self) -> ProbeState {
        *self.probe.borrow()
    }

    /// Whether no pods are sold since one did not start.
    pub(super) fn are_sales_stopped(&self) -> bool {
        matches!(self.probe_state(), ProbeState::Done(Some(problem)) if problem.stops_sales())
    }

    pub(super) fn probe_unready_reason(&self) -> Option<&'static str> {
        self.probe_state().unready_reason()
    }

    /// What the latest probe pod has less than it might, for the operator.
    #[must_use]
    pub fn probe_warning(&self) -> Option<&'static str> {
        self.probe_state().warning()
    }

    /// Refuses a new pod unless pods are known to start, or nothing is known that keeps them from
    /// it.
    pub(super) fn check_probe(&self) -> Result<(), Refusal> {
        self.probe_state().check()
    }

    /// As [`OrderService::check_probe`], after the probe under way.
    pub(super) async fn await_probe(&self, purchase: &Purchase) -> Result<(), Refusal> {
        let Purchase::Spawn { .. } = purchase else { return Ok(()) };
        let mut state = self.probe.subscribe();
        let done = state.wait_for(|state| matches!(state, ProbeState::Done(_)));
        if tokio::time::timeout(limits::PROBE_WAIT, done).await.is_err() {
            tracing::info!("an order has waited for the probe pod in vain");
        }
        self.check_probe()
    }

    /// Waits for the first probe of this process, if it is under way: who customers are in pods that
    /// were paid for before a restart is not known earlier. They are launched in any case.
    pub(super) async fn first_probe(&self) {
        let mut state = self.probe.subscribe();
        let done = state.wait_for(|state| *state != ProbeState::First);
        if tokio::time::timeout(limits::PROBE_WAIT, done).await.is_err() {
            tracing::warn!("a pod is launched before it is known whether its customer may be root");
        }
    }

    /// Launches probe pods when they are due, until it is dropped.
    pub(super) async fn run_probe_loop(self: Arc<Self>) {
        let Some(probe) = self.backends.cluster.probe() else {
            return std::future::pending().await;
        };
        let mut changes = self.backends.policy.changes();
        // Those of the plans that are compared, with the same names in each.
        let (order, lease) = (OrderId::random(), LeaseId::of_probe());
        let (mut probed, mut problem, mut is_due) = (None, None, true);
        let mut ended = Instant::now();
        loop {
            changes.mark_unchanged();
            let plan = self.probe_plan(&order, &lease).await;
            let is_changed = match (&plan, &probed) {
                (Ok(plan), Some(probed)) => is_another_pod(plan, probed),
                (Ok(_), None) => true,
                (Err(_), _) => false,
            };
            if is_changed {
                self.probe.send_if_modified(|state| {
                    let is_done = matches!(state, ProbeState::Done(_));
                    if is_done {
                        *state = ProbeState::Changed;
                    }
                    is_done
                });
            }
            if is_changed || is_due {
                problem = self.run_probe(probe, &order, plan.as_ref()).await;
                self.probe.send_replace(ProbeState::Done(problem));
                ended = Instant::now();
            }
            probed = plan.ok().or(probed);
            is_due = tokio::select! {
                changed = changes.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return std::future::pending().await,
                },
                () = due_again(problem, ended) => true,
            };
        }
    }

    /// One probe of a pod like this one, and what the log says of it.
    async fn run_probe(
        &self,
        probe: &dyn Probe,
        order: &OrderId,
        plan: Result<&LeasePlan, &Refusal>,
    ) -> Option<ProbeProblem> {
        let problem = match plan {
            Ok(plan) => match self.is_full(plan).await {
                true => Some(ProbeProblem::Full),
                // Of another name: what is left of the last one, on a node that died, is not in its
                // way.
                false => match self.probe_plan(order, &LeaseId::of_probe()).await {
                    Ok(plan) => probe.run(&plan).await,
                    Err(refusal) => Some(without_pod(&refusal)),
                },
            },
            Err(refusal) => Some(without_pod(refusal)),
        };
        match problem.map(|problem| (problem.stops_sales(), problem.message())) {
            None => tracing::info!("a probe pod has started: pods are sold"),
            Some((true, message)) => tracing::error!(message, "no pods are sold"),
            Some((false, message)) => tracing::warn!(message, "pods are sold"),
        }
        problem
    }

    /// Whether a probe pod would take a place that is sold, or find none.
    async fn is_full(&self, plan: &LeasePlan) -> bool {
        match self.free_capacity().await {
            Ok(Some(free)) => free.fits(&Tier::from(plan)).is_err(),
            Ok(None) | Err(_) => false,
        }
    }

    /// What an order of nobody's would get.
    async fn probe_plan(&self, order: &OrderId, lease: &LeaseId) -> Result<LeasePlan, Refusal> {
        let login = Login::check(None, None, None)?;
        let purchase = Purchase::Spawn {
            image: None,
            tier: None,
            username: login.username.clone(),
            public_key: None,
            wanted: None,
        };
        let (set, context) = (self.backends.policy.current(), self.context(None).await?);
        let view = purchase.view(order, None, None);
        let image = set.admit(&view, &context).await?;
        let quote = set.quote(&view, &context).await?;
        let grant = Grant { seconds: limits::PROBE_LIFE, note: None };
        // No port is reserved: the pod does not take the one that its template names.
        let placement = self.placement(lease, &image, &quote, *self.settings.ports.start());
        let rendered = set.render(&view, &grant, &placement).await?;
        let sold = grant.seconds;
        let (lease, tier, pod_reply) = (lease.clone(), quote.tier, None);
        Ok(LeasePlan { lease, tier, placement, rendered, login, sold, pod_reply })
    }
}

fn without_pod(refusal: &Refusal) -> ProbeProblem {
    tracing::warn!(%refusal, "no probe pod can be made");
    ProbeProblem::Policies
}

fn is_another_pod(plan: &LeasePlan, probed: &LeasePlan) -> bool {
    (&plan.placement, &plan.rendered) != (&probed.placement, &probed.rendered)
}

/// Ends when the same pod is to be probed again. It counts from the end of the last probe, however
/// often other policies that change nothing of the pod are published since.
async fn due_again(problem: Option<ProbeProblem>, ended: Instant) {
    match again_after(problem) {
        Some(delay) => tokio::time::sleep(delay.saturating_sub(ended.elapsed())).await,
        None => std::future::pending().await,
    }
}

fn again_after(problem: Option<ProbeProblem>) -> Option<Duration> {
    match problem?.may_pass() {
        true => Some(limits::PROBE_AGAIN),
        false => Some(limits::PROBE_SELDOM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One bad moment of a node must not keep customers from being root until the next restart.
    #[test]
    fn whatever_is_wrong_is_looked_at_again() {
        for (problem, expected) in [
            (None, None),
            (Some(ProbeProblem::Image), Some(limits::PROBE_AGAIN)),
            (Some(ProbeProblem::Unavailable), Some(limits::PROBE_AGAIN)),
            (Some(ProbeProblem::NoUserNamespaces), Some(limits::PROBE_SELDOM)),
        ] {
            assert_eq!(again_after(problem), expected, "{problem:?}");
        }
    }

    #[tokio::test]
    async fn it_is_due_so_long_after_the_last_probe_whatever_is_published_since() {
        let long_ago = Instant::now().checked_sub(limits::PROBE_AGAIN).unwrap();
        let due = due_again(Some(ProbeProblem::Image), long_ago);
        assert!(tokio::time::timeout(Duration::from_secs(10), due).await.is_ok());
    }
}
