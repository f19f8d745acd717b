//! The probe pod: nothing is sold before a pod like those of customers has started and has not refused
//! its login.
//!
//! It is the pod that an order without a customer and without options gets: the default image, the
//! default tier, the template. Another one is launched when the policies render another pod for
//! such an order, and, while something is wrong, a minute later; an hour later if only root is
//! missing, or if pods reach what they must not.

use super::OrderService;
use super::admission::ProbeWait;
use super::lane::Lane;
use super::probe_state::{ProbeState, Probed, being_tested};
use crate::backend::capacity::Tier;
use crate::backend::cluster::{LeasePlan, NetworkIsolation, Probe, ProbeProblem};
use crate::backend::policy::{Grant, PolicySet};
use crate::limits;
use crate::model::ids::{LeaseId, OrderId};
use crate::model::login::{Login, LoginFields};
use crate::model::order::Purchase;
use crate::model::refusal::Refusal;
use crate::model::run::Run;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What probe pods have shown that were launched once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeFindings {
    /// None: nothing is wrong.
    pub problem: Option<ProbeProblem>,
    /// Whether customers would be root in their pods.
    pub root: bool,
}

/// One pod that tries what no customer may reach.
type NetworkProbe<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl OrderService {
    pub(super) fn probe_state(&self) -> ProbeState {
        self.probe.borrow().state
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

    /// That pods reach what no customer may, for the operator.
    #[must_use]
    pub fn network_warning(&self) -> Option<&'static str> {
        self.backends.cluster.features.probe()?.network_isolation().warning()
    }

    /// Refuses a new pod of these policies unless such pods are known to start, or nothing is known
    /// that keeps them from it. Nobody waits for a probe here; whether policies that were published a
    /// moment ago make the same pod is known as soon as that is rendered.
    pub(super) async fn check_probe(&self, set: &Arc<dyn PolicySet>) -> Result<(), Refusal> {
        let mut changes = self.probe.subscribe();
        let compared = changes.wait_for(|probed| !probed.is_of_others(set));
        let _ = tokio::time::timeout(limits::PROBE_COMPARE, compared).await;
        self.probe.borrow().state_of(set).check()
    }

    /// The right of a new order to wait for the probe under way; none if it needs none. Many orders
    /// without proven tokens would fill their lane while none of them goes on, and top-ups, which
    /// wait for no probe, would find no place there. Those with proven ones have paid for theirs.
    ///
    /// # Errors
    /// `resource_unavailable`: enough of them wait.
    pub(super) fn claim_probe_wait(
        &self,
        purchase: &Purchase,
        lane: Lane,
    ) -> Result<Option<ProbeWait>, Refusal> {
        let Purchase::Spawn { .. } = purchase else { return Ok(None) };
        let set = self.backends.policy.current();
        let is_done = self.probe.borrow().state_of(&set).is_done();
        if is_done || lane == Lane::Proven {
            return Ok(None);
        }
        let waits = Arc::clone(&self.probe_waits).try_acquire_owned();
        waits.map(Some).map_err(|_| being_tested())
    }

    /// The policies that decide an order, once it is known that their pods start. A new pod waits for
    /// the probe under way. Policies that are published meanwhile take the place of those before.
    ///
    /// # Errors
    /// As [`OrderService::check_probe`].
    pub(super) async fn await_probe(
        &self,
        purchase: &Purchase,
    ) -> Result<Arc<dyn PolicySet>, Refusal> {
        let Purchase::Spawn { .. } = purchase else { return Ok(self.backends.policy.current()) };
        let mut changes = self.probe.subscribe();
        let known = async {
            loop {
                // Before the policies are read: what becomes known of them later is a change.
                let probed = changes.borrow_and_update().clone();
                let set = self.backends.policy.current();
                let state = probed.state_of(&set);
                // The sender is this service's own.
                if state.is_done() || changes.changed().await.is_err() {
                    return state.check().map(|()| set);
                }
            }
        };
        let Ok(checked) = tokio::time::timeout(limits::PROBE_WAIT, known).await else {
            tracing::info!("an order has waited for the probe pod in vain");
            return Err(being_tested());
        };
        checked
    }

    /// Waits for the first probe of this process, if it is under way: who customers are in pods that
    /// were paid for before a restart is not known earlier. They are launched in any case.
    pub(super) async fn first_probe(&self) {
        let mut state = self.probe.subscribe();
        let done = state.wait_for(|probed| probed.state != ProbeState::First);
        if tokio::time::timeout(limits::PROBE_WAIT, done).await.is_err() {
            tracing::warn!("a pod is launched before it is known whether its customer may be root");
        }
    }

    /// Launches probe pods when they are due, until it is dropped.
    pub(super) async fn run_probe_loop(self: Arc<Self>) {
        let Some(probe) = self.backends.cluster.features.probe() else {
            return std::future::pending().await;
        };
        let mut changes = self.backends.policy.changes();
        // Those of the plans that are compared, with the same names in each.
        let (order, lease) = (OrderId::random(), LeaseId::of_probe());
        let (mut probed, mut problem, mut is_due) = (None, None, true);
        let mut ended = Instant::now();
        let mut network: NetworkProbe<'_> = Box::pin(std::future::pending());
        loop {
            changes.mark_unchanged();
            // What is found is known of these, whatever is published while the probe runs.
            let set = self.backends.policy.current();
            let plan = self.probe_plan(&*set, &order, &lease).await;
            let is_another = self.is_another(plan.as_ref().ok(), probed.as_ref(), &set);
            let is_changed = is_another || plan.is_err();
            if is_changed {
                self.probe.send_if_modified(Probed::set_changed);
            }
            if is_changed || is_due {
                let known = problem.filter(|_| !is_another);
                problem = self.run_probe(probe, &*set, &order, plan.as_ref(), known).await;
                ended = Instant::now();
                if !problem.is_some_and(ProbeProblem::stops_sales) {
                    network = Box::pin(self.probe_network(probe, Arc::clone(&set), &order));
                }
            }
            self.probe.send_replace(Probed::done(problem, &set));
            if plan.is_ok() || is_another {
                probed = plan.ok();
            }
            is_due = loop {
                tokio::select! {
                    changed = changes.changed() => match changed {
                        Ok(()) => break false,
                        Err(_) => return std::future::pending().await,
                    },
                    () = due_again(problem, probe.network_isolation(), ended) => break true,
                    () = &mut network => network = Box::pin(std::future::pending()),
                }
            };
        }
    }

    /// Whether what is known of the pod that was probed says nothing of this one. No plan: what it needs
    /// could not be read for a moment, or these policies make none.
    fn is_another(
        &self,
        plan: Option<&LeasePlan>,
        probed: Option<&LeasePlan>,
        set: &Arc<dyn PolicySet>,
    ) -> bool {
        match (plan, probed) {
            (Some(plan), Some(probed)) => is_another_pod(plan, probed),
            (Some(_), None) => true,
            (None, _) => self.probe.borrow().is_of_others(set),
        }
    }

    /// What a pod of these policies reaches, another one of them included. Pods are sold meanwhile,
    /// and have the room if they need it: then it is tried again later.
    async fn probe_network(&self, probe: &dyn Probe, set: Arc<dyn PolicySet>, order: &OrderId) {
        while self.try_network(probe, &*set, order).await == Some(ProbeProblem::GaveWay) {
            tokio::time::sleep(limits::PROBE_AGAIN).await;
        }
    }

    async fn try_network(
        &self,
        probe: &dyn Probe,
        set: &dyn PolicySet,
        order: &OrderId,
    ) -> Option<ProbeProblem> {
        let plan = self.probe_plan(set, order, &LeaseId::of_probe()).await;
        let neighbour = self.probe_plan(set, order, &LeaseId::of_probe()).await;
        match (plan, neighbour) {
            (Ok(plan), Ok(neighbour)) => match self.room_of_two(&plan).await {
                0 => Some(ProbeProblem::GaveWay),
                1 => probe.try_network(&plan, None).await,
                _ => probe.try_network(&plan, Some(&neighbour)).await,
            },
            (Err(refusal), _) | (_, Err(refusal)) => {
                tracing::info!(%refusal, "no pod can be made that tries the network");
                Some(ProbeProblem::Policies)
            }
        }
    }

    /// How many of two such pods find a place that is not sold.
    async fn room_of_two(&self, plan: &LeasePlan) -> u32 {
        match self.free_capacity().await {
            Ok(Some(free)) => free.count(&Tier::from(plan), 2),
            Ok(None) | Err(_) => 2,
        }
    }

    /// Launches the probe pods of the current policies once, beside those of a service that runs,
    /// and removes them. Nothing follows from what they show. None: this cluster has none.
    pub async fn probe_once(&self) -> Option<ProbeFindings> {
        let probe = self.backends.cluster.features.probe()?;
        let (set, order) = (self.backends.policy.current(), OrderId::random());
        let plan = self.probe_plan(&*set, &order, &LeaseId::of_probe()).await;
        let problem = self.try_probe(probe, &*set, &order, plan.as_ref()).await;
        if !problem.is_some_and(ProbeProblem::stops_sales) {
            self.try_network(probe, &*set, &order).await;
        }
        Some(ProbeFindings { problem, root: self.backends.cluster.features.root() })
    }

    /// One probe of a pod like this one, of which this is known, and what the log says of it.
    async fn run_probe(
        &self,
        probe: &dyn Probe,
        set: &dyn PolicySet,
        order: &OrderId,
        plan: Result<&LeasePlan, &Refusal>,
        known: Option<ProbeProblem>,
    ) -> Option<ProbeProblem> {
        let problem = known_after(known, self.try_probe(probe, set, order, plan).await);
        match problem.map(|problem| (problem.stops_sales(), problem.message())) {
            None => tracing::info!("a probe pod has started: pods are sold"),
            Some((true, message)) => tracing::error!("no pods are sold: {message}"),
            Some((false, message)) => tracing::warn!("pods are sold, but {message}"),
        }
        problem
    }

    async fn try_probe(
        &self,
        probe: &dyn Probe,
        set: &dyn PolicySet,
        order: &OrderId,
        plan: Result<&LeasePlan, &Refusal>,
    ) -> Option<ProbeProblem> {
        match plan {
            Ok(plan) => match self.is_full(plan).await {
                true => Some(ProbeProblem::Full),
                // Of another name: what is left of the last one, on a node that died, is not in its
                // way.
                false => match self.probe_plan(set, order, &LeaseId::of_probe()).await {
                    Ok(plan) => probe.run(&plan).await,
                    Err(refusal) => Some(without_pod(&refusal)),
                },
            },
            Err(refusal) => Some(without_pod(refusal)),
        }
    }

    /// Whether a probe pod would take a place that is sold, or find none.
    async fn is_full(&self, plan: &LeasePlan) -> bool {
        match self.free_capacity().await {
            Ok(Some(free)) => free.fits(&Tier::from(plan)).is_err(),
            Ok(None) | Err(_) => false,
        }
    }

    /// The pod that these policies give an order without a customer and without options.
    async fn probe_plan(
        &self,
        set: &dyn PolicySet,
        order: &OrderId,
        lease: &LeaseId,
    ) -> Result<LeasePlan, Refusal> {
        let login = Login::check(LoginFields::default())?;
        let purchase = Purchase::Spawn {
            image: None,
            tier: None,
            username: login.username.clone(),
            public_key: None,
            wanted: None,
            run: Run::Ssh,
            http: None,
        };
        let (context, _) = self.context(None, None).await?;
        let view = purchase.view(order, None, None);
        let image = set.admit(&view, &context).await?;
        let quote = set.quote(&view, &context).await?;
        let grant = Grant { seconds: limits::PROBE_LIFE, note: None };
        // No port is reserved: the pod does not take the one that its template names.
        let port = self.settings.access.ports().map(|ports| *ports.start());
        let placement = self.placement(lease, &image, &quote, port);
        let rendered = set.render(&view, &quote, &grant, &placement).await?;
        let sold = grant.seconds;
        Ok(LeasePlan {
            lease: lease.clone(),
            tier: quote.tier,
            placement,
            rendered,
            login,
            sold,
            pod_reply: None,
            run: Run::Ssh,
        })
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
async fn due_again(problem: Option<ProbeProblem>, isolation: NetworkIsolation, ended: Instant) {
    match again_after(problem, isolation) {
        Some(delay) => tokio::time::sleep(delay.saturating_sub(ended.elapsed())).await,
        None => std::future::pending().await,
    }
}

fn again_after(problem: Option<ProbeProblem>, isolation: NetworkIsolation) -> Option<Duration> {
    match (problem, isolation) {
        (Some(problem), _) if problem.may_pass() => Some(limits::PROBE_AGAIN),
        (Some(_), _) | (None, NetworkIsolation::NotEnforced) => Some(limits::PROBE_SELDOM),
        (None, NetworkIsolation::Enforced(_) | NetworkIsolation::Unknown) => None,
    }
}

/// What is known of a pod of which this was known, once a probe of it has found this.
fn known_after(known: Option<ProbeProblem>, found: Option<ProbeProblem>) -> Option<ProbeProblem> {
    let says_nothing = found.is_some_and(ProbeProblem::says_nothing);
    known.filter(|known| says_nothing && known.stops_sales()).or(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cluster::Neighbours;

    /// One bad moment of a node must not keep customers from being root until the next restart.
    #[test]
    fn whatever_is_wrong_is_looked_at_again() {
        use NetworkIsolation::{Enforced, NotEnforced, Unknown};
        for (problem, isolation, expected) in [
            (None, Enforced(Neighbours::Tried), None),
            (None, Enforced(Neighbours::NoRoom), None),
            (None, Unknown, None),
            (None, NotEnforced, Some(limits::PROBE_SELDOM)),
            (Some(ProbeProblem::Image), Unknown, Some(limits::PROBE_AGAIN)),
            (Some(ProbeProblem::Image), NotEnforced, Some(limits::PROBE_AGAIN)),
            (Some(ProbeProblem::Unavailable), Unknown, Some(limits::PROBE_AGAIN)),
            (Some(ProbeProblem::GaveWay), Unknown, Some(limits::PROBE_AGAIN)),
            (
                Some(ProbeProblem::NoUserNamespaces),
                Enforced(Neighbours::Tried),
                Some(limits::PROBE_SELDOM),
            ),
            (Some(ProbeProblem::NoImagePrograms), Unknown, Some(limits::PROBE_AGAIN)),
        ] {
            assert_eq!(again_after(problem, isolation), expected, "{problem:?}, {isolation:?}");
        }
    }

    /// A customer whose pod takes a probe's room must not have pods sold that do not start.
    #[test]
    fn a_probe_that_finds_nothing_leaves_what_was_found_before() {
        use ProbeProblem::{Full, GaveWay, Image, NoUserNamespaces, NotStarted, Unavailable};
        for (known, found, expected) in [
            (Some(Image), Some(GaveWay), Some(Image)),
            (Some(Image), Some(Full), Some(Image)),
            (Some(Image), Some(Unavailable), Some(Image)),
            (Some(Image), Some(NotStarted), Some(NotStarted)),
            (Some(Image), Some(NoUserNamespaces), Some(NoUserNamespaces)),
            (Some(Image), None, None),
            (Some(Full), Some(GaveWay), Some(GaveWay)),
            (None, Some(GaveWay), Some(GaveWay)),
        ] {
            assert_eq!(known_after(known, found), expected, "{known:?}, {found:?}");
        }
    }

    #[tokio::test]
    async fn it_is_due_so_long_after_the_last_probe_whatever_is_published_since() {
        let long_ago = Instant::now().checked_sub(limits::PROBE_AGAIN).unwrap();
        let image = Some(ProbeProblem::Image);
        let due = due_again(image, NetworkIsolation::Unknown, long_ago);
        assert!(tokio::time::timeout(Duration::from_secs(10), due).await.is_ok());
    }
}
