//! Notices before the end of a pod, at it, and when another pod takes its place, for customers who
//! want them.
//!
//! ```text
//! launch, extend, reconcile ─▶ next_notice ─▶ one task, asleep until then ─▶ ledger ─▶ responder
//! ```
//!
//! A notice is on disk before it is sent, so that it is sent once at most, whatever crashes: one that
//! nobody took is lost, and the next one, the status and the events have the same. A pod that is
//! extended has its notices before its new end.
//!
//! The terminals that are open in a pod show notices too: its SSH server knows the end, and when they
//! are due (`show_end`).

use super::OrderService;
use crate::backend::cluster::{ClusterError, PodExpiry};
use crate::backend::store::LedgerError;
use crate::backoff::doubling;
use crate::limits;
use crate::model::ids::{Customer, PodName};
use crate::model::lease::EndReason;
use crate::model::order::{Lease, LeaseState, Order, State};
use crate::model::reply_to::ReplyTo;
use crate::model::units::{Seconds, UnixTime};
use crate::protocol::{self, Response};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

impl OrderService {
    /// This lease has a new end: the next notice may be one of it.
    pub(super) fn expect_notice(&self, lease: &Lease) {
        let times = pending(lease, &self.settings.end_notices, UnixTime::now());
        self.expect_notice_at(times.min());
    }

    /// A pod was launched or extended: its customer and its open terminals have notices of its end.
    pub(super) fn publish_end(&self, lease: &Lease) {
        self.expect_notice(lease);
        self.show_end(lease);
    }

    /// Lets the pod's open terminals show its end, in the background: no response waits for it.
    pub(super) fn show_end(&self, lease: &Lease) {
        if let Some(shown) = self.shown_end(lease) {
            tokio::spawn(shown);
        }
    }

    /// The same for all of these, few at once: whoever launched or extended them may have died before
    /// their pods knew. A pod that shows its end already is left as it is.
    pub(super) fn show_ends(&self, leases: &[Lease]) {
        let permits = Arc::new(Semaphore::new(limits::ENDS_SHOWN_AT_ONCE));
        for shown in leases.iter().filter_map(|lease| self.shown_end(lease)) {
            let permits = Arc::clone(&permits);
            tokio::spawn(async move {
                let _permit = permits.acquire().await;
                shown.await;
            });
        }
    }

    fn shown_end(&self, lease: &Lease) -> Option<impl Future<Output = ()> + Send + use<>> {
        let end = lease.expires_at?;
        let times = times(lease, &self.settings.end_notices, UnixTime::now());
        let notices = times.into_iter().map(|(before, _)| before).collect();
        Some(show(Arc::clone(&self.backends.cluster.expiry), lease.pod(), end, notices))
    }

    fn expect_notice_at(&self, at: Option<UnixTime>) {
        let Some(at) = at else { return };
        self.next_notice.send_if_modified(|next| {
            let is_earlier = next.is_none_or(|next| at < next);
            if is_earlier {
                *next = Some(at);
            }
            is_earlier
        });
    }

    /// Gives each notice when it is due, until it is dropped.
    pub(super) async fn run_notices(self: Arc<Self>) {
        let mut next = self.next_notice.subscribe();
        loop {
            let at = *next.borrow_and_update();
            let due = async {
                match at {
                    Some(at) => sleep_until(at, limits::CLOCK_CHECK, UnixTime::now).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender is this service's own.
                _ = next.changed() => {}
                () = due => self.give_notices().await,
            }
        }
    }

    async fn give_notices(self: &Arc<Self>) {
        let now = UnixTime::now();
        // Before the leases are read: an end that is set meanwhile is not lost.
        self.next_notice.send_replace(None);
        for lease in self.live().await {
            let (due, later): (Vec<UnixTime>, Vec<UnixTime>) =
                pending(&lease, &self.settings.end_notices, now).partition(|at| *at <= now);
            self.expect_notice_at(later.into_iter().min());
            // Of several that were missed, the last one is as good as all of them.
            if let Some(at) = due.into_iter().max()
                && let Err(error) = self.give_notice(&lease, at).await
            {
                tracing::warn!(%error, pod = %lease.pod(), "a notice of an end could not be stored; it is tried again");
            }
        }
    }

    async fn give_notice(
        self: &Arc<Self>,
        lease: &Lease,
        due: UnixTime,
    ) -> Result<(), LedgerError> {
        let Some(end) = lease.expires_at else { return Ok(()) };
        if self.backends.ledger.mark_noticed(&lease.pod(), end, due).await? {
            let orders = self.backends.ledger.orders_of(&lease.id).await?;
            self.send_notices(lease, recipients(&orders, lease.customer.as_ref()));
        }
        Ok(())
    }

    /// Sends the notice of this lease. Whoever has stopped it gets a response.
    pub(super) fn send_notices(self: &Arc<Self>, lease: &Lease, recipients: Vec<ReplyTo>) {
        if lease.end == Some(EndReason::Stopped) {
            return;
        }
        let lease = lease.clone();
        self.send_to(recipients, move || protocol::end_notice(&lease, UnixTime::now()).into());
    }

    /// Sends what nobody waits for, few at once: each is made when it is sent, and tried once.
    pub(super) fn send_to(
        self: &Arc<Self>,
        recipients: Vec<ReplyTo>,
        notice: impl Fn() -> Response + Send + Sync + 'static,
    ) {
        let notice = Arc::new(notice);
        for to in recipients {
            let (orders, notice) = (Arc::clone(self), Arc::clone(&notice));
            tokio::spawn(async move {
                let Ok(_slot) = orders.notice_slots.acquire().await else { return };
                if let Err(error) = orders.backends.responder.send(&to, &notice()).await {
                    tracing::debug!(error = error.as_dyn(), "a notice was not delivered");
                }
            });
        }
    }
}

/// Sleeps until then by this clock, which is looked at now and then: a timer does not count the time
/// for which the machine slept, and knows nothing of a clock that is set.
async fn sleep_until(at: UnixTime, check: Duration, clock: impl Fn() -> UnixTime) {
    loop {
        let left = Duration::from_secs(at.since(clock()).0);
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(check)).await;
    }
}

/// Tries for as long as it may be of use.
async fn show(expiry: Arc<dyn PodExpiry>, pod: PodName, end: UnixTime, notices: Vec<Seconds>) {
    let pauses = doubling(limits::RETRY_FIRST, limits::SHOW_END_PAUSE);
    for pause in pauses.take(limits::SHOW_END_ATTEMPTS) {
        match expiry.show_end(&pod, end, &notices).await {
            Ok(()) | Err(ClusterError::NotFound) => return,
            Err(error @ ClusterError::Unavailable(_)) => {
                tracing::debug!(%error, %pod, "the end of a pod is not known in it yet");
            }
            Err(error) => {
                tracing::warn!(%error, %pod, "terminals of a pod do not show its end");
                return;
            }
        }
        tokio::time::sleep(pause).await;
    }
    tracing::warn!(%pod, "terminals of a pod do not show its end: the cluster was not reached");
}

/// The times of a lease's notices that were not given yet.
fn pending(
    lease: &Lease,
    notices: &[Seconds],
    now: UnixTime,
) -> impl Iterator<Item = UnixTime> + use<> {
    let noticed_at = lease.noticed_at;
    let times = times(lease, notices, now);
    times.into_iter().map(|(_, at)| at).filter(move |at| noticed_at.is_none_or(|last| last < *at))
}

/// How long before the end of a lease there are notices, and when that is. One before the first half
/// of its time is over says no more than the login does.
fn times(lease: &Lease, notices: &[Seconds], now: UnixTime) -> Vec<(Seconds, UnixTime)> {
    let is_ending = lease.state != LeaseState::Live || lease.end.is_some();
    let Some(end) = lease.expires_at.filter(|end| !is_ending && *end > now) else {
        return Vec::new();
    };
    let half = Seconds(end.since(lease.created_at).0.checked_div(2).unwrap_or(0));
    let fitting = notices.iter().filter(|before| **before <= half);
    fitting.map(|before| (*before, end.minus(*before))).collect()
}

/// The latest notice whose time has come: the pod ends within so many seconds.
pub(super) fn latest(lease: &Lease, notices: &[Seconds], now: UnixTime) -> Option<Seconds> {
    let times = times(lease, notices, now).into_iter();
    times.filter(|(_, at)| *at <= now).map(|(before, _)| before).min()
}

/// Where the notices of a lease go: to the customers of its orders who want them, few of them. Its owner
/// is the first, however often others have extended it since.
pub(super) fn recipients(orders: &[Order], owner: Option<&Customer>) -> Vec<ReplyTo> {
    let mut found: Vec<ReplyTo> = Vec::new();
    // The newest first: its address is the one that was used last.
    let (own, others): (Vec<&Order>, Vec<&Order>) =
        orders.iter().rev().partition(|order| order.customer() == owner);
    for order in own.into_iter().chain(others) {
        let is_known = found.iter().any(|to| to.customer == order.reply_to.customer);
        if order.state() == State::Active
            && order.reply_to.wants_notices()
            && !is_known
            && found.len() < limits::NOTICES_OF_POD
        {
            found.push(order.reply_to.clone());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{LeaseId, OrderId};
    use crate::testing;
    use std::sync::atomic::{AtomicU64, Ordering};

    const DEFAULT: [Seconds; 2] = [Seconds(600), Seconds(60)];

    fn lease(created_at: u64, expires_at: u64) -> Lease {
        testing::lease(LeaseId::of(&OrderId::random()), created_at, expires_at)
    }

    fn pending_at(lease: &Lease, now: u64) -> Vec<u64> {
        pending(lease, &DEFAULT, UnixTime(now)).map(|at| at.0).collect()
    }

    #[test]
    fn a_notice_is_due_before_the_end_and_once() {
        let mut lease = lease(0, 3_600);
        assert_eq!(pending_at(&lease, 10), [3_000, 3_540]);
        lease.noticed_at = Some(UnixTime(3_000));
        assert_eq!(pending_at(&lease, 3_000), [3_540]);
        lease.noticed_at = Some(UnixTime(3_540));
        assert_eq!(pending_at(&lease, 3_540), [0; 0]);
        // Extended, five seconds before its end, by a minute and by an hour.
        lease.noticed_at = Some(UnixTime(3_595));
        lease.expires_at = Some(UnixTime(3_660));
        assert_eq!(pending_at(&lease, 3_595), [3_600]);
        lease.expires_at = Some(UnixTime(7_200));
        assert_eq!(pending_at(&lease, 3_595), [6_600, 7_140]);
    }

    #[test]
    fn there_are_none_of_a_short_pod_and_of_one_that_has_ended() {
        assert_eq!(pending_at(&lease(0, 1_199), 1), [1_139], "ten minutes are more than half");
        assert_eq!(pending_at(&lease(0, 1_200), 1), [600, 1_140]);
        assert_eq!(pending_at(&lease(0, 119), 1), [0; 0]);
        assert_eq!(pending_at(&lease(0, 3_600), 3_600), [0; 0], "its time is over");
        let stopped = Lease { end: Some(EndReason::Stopped), ..lease(0, 3_600) };
        let ended = Lease { state: LeaseState::Ended, ..lease(0, 3_600) };
        for over in [stopped, ended] {
            assert_eq!(pending_at(&over, 1), [0; 0]);
        }
        assert_eq!(pending(&lease(0, 3_600), &[], UnixTime(1)).count(), 0);
    }

    /// It has slept an hour, or its clock was set.
    #[tokio::test]
    async fn a_notice_is_due_by_the_clock_and_not_by_a_timer() {
        let times = AtomicU64::new(0);
        let clock = || UnixTime(times.fetch_add(1, Ordering::Relaxed).saturating_mul(3_600));
        let due = sleep_until(UnixTime(3_600), Duration::from_millis(1), clock);
        assert!(tokio::time::timeout(Duration::from_secs(10), due).await.is_ok());
        assert_eq!(times.load(Ordering::Relaxed), 2, "it is looked at again, and no more");
    }

    #[test]
    fn the_latest_notice_is_a_fact_whether_it_was_given_or_not() {
        let lease = Lease { noticed_at: Some(UnixTime(3_540)), ..lease(0, 3_600) };
        let latest = |now| latest(&lease, &DEFAULT, UnixTime(now)).map(|before| before.0);
        let found = [2_999, 3_000, 3_539, 3_540, 3_600].map(latest);
        assert_eq!(found, [None, Some(600), Some(600), Some(60), None]);
    }

    #[test]
    fn few_customers_are_notified_and_each_of_them_once() {
        let order = |customer: usize, state| {
            let mut order = testing::order(testing::spawn(), state).unwrap();
            order.reply_to.customer = Customer::parse(&format!("{customer:064x}")).ok();
            order
        };
        let wanting = |customer, state| {
            let order = order(customer, state);
            Order { reply_to: order.reply_to.clone().with_notices(), ..order }
        };
        let orders = [
            order(1, State::Active),
            wanting(2, State::Active),
            wanting(3, State::Refunded),
            wanting(2, State::Active),
        ];
        let notified = |orders: &[Order], owner: usize| -> Vec<_> {
            let owner = Customer::parse(&format!("{owner:064x}")).ok();
            recipients(orders, owner.as_ref()).into_iter().map(|to| to.customer).collect()
        };
        assert_eq!(notified(&orders, 1), [orders[1].reply_to.customer.clone()]);
        // The owner among them, who has paid first.
        let many: Vec<Order> = (0..1_000).map(|n| wanting(n, State::Active)).collect();
        let customers = notified(&many, 0);
        assert_eq!(customers.len(), limits::NOTICES_OF_POD);
        assert!(customers.contains(&many[0].reply_to.customer), "{customers:?}");
        assert!(customers.contains(&many[999].reply_to.customer), "{customers:?}");
    }
}
