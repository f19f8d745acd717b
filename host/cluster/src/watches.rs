//! The watches, and how soon one that has failed begins again.
//!
//! kube's own pauses are reset by each event that is no error. `Event::Init` is one, and comes before
//! each list, so that they stay at a second for as long as an API server is away.

use futures::{Stream, TryStreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use paygress_core::backoff::{Doubling, doubling};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The first pause, before jitter…
const FIRST: Duration = Duration::from_millis(800);
/// …and the longest: so much later is known what has happened while the API server was away.
const LONGEST: Duration = Duration::from_secs(10);
/// A watch that has not failed for so long was well, also where nothing has happened.
const STEADY: Duration = Duration::from_secs(120);

/// Watches until it is dropped. What fails is tried again after pauses that double until something is
/// received.
pub fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    with_pauses(watcher(api, config))
}

fn with_pauses<K, S>(events: S) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    S: Stream<Item = watcher::Result<Event<K>>> + Send,
{
    let has_received = Arc::new(AtomicBool::new(false));
    let pauses = Pauses::new(Arc::clone(&has_received));
    let note = move |event: &Event<K>| {
        if !matches!(event, Event::Init) {
            has_received.store(true, Ordering::Relaxed);
        }
    };
    events.inspect_ok(note).backoff(pauses)
}

/// The pauses of one watch.
struct Pauses {
    next: Doubling,
    /// Whether the API server has sent something since the last failure.
    has_received: Arc<AtomicBool>,
    last_failure: Option<Instant>,
}

impl Pauses {
    fn new(has_received: Arc<AtomicBool>) -> Self {
        Self { next: doubling(FIRST, LONGEST), has_received, last_failure: None }
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let since = self.last_failure.replace(now).map(|last| now.saturating_duration_since(last));
        let has_received = self.has_received.swap(false, Ordering::Relaxed);
        if has_received || since.is_some_and(|since| since > STEADY) {
            self.next = doubling(FIRST, LONGEST);
        }
        self.next.next()
    }
}

impl Backoff for Pauses {
    /// After each event that is no error; which one it was is not known here.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{StreamExt, stream};
    use k8s_openapi::api::core::v1::Pod;
    use watcher::Error;

    type Events = Vec<watcher::Result<Event<Pod>>>;

    /// As of an API server that is away: a list is begun, and fails.
    fn away(times: usize) -> Events {
        (0..times).flat_map(|_| [Ok(Event::Init), Err(Error::NoResourceVersion)]).collect()
    }

    /// The pauses after all failures but the last.
    async fn pauses(events: Events) -> Vec<Duration> {
        let mut events = std::pin::pin!(with_pauses(stream::iter(events)));
        let (mut pauses, mut failed) = (Vec::new(), None::<Instant>);
        while let Some(event) = events.next().await {
            pauses.extend(failed.take().map(|failed| failed.elapsed()));
            failed = event.is_err().then(Instant::now);
        }
        pauses
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_while_nothing_but_the_begin_of_lists_comes() {
        let pauses = pauses(away(9)).await;
        let within = |pause: Duration, least: u64, most: u64| {
            // A timer may be a millisecond late.
            let milliseconds = least..=most.saturating_add(1);
            assert!(milliseconds.contains(&u64::try_from(pause.as_millis()).unwrap()), "{pause:?}");
        };
        for (pause, least) in pauses.iter().zip([800, 1_600, 3_200, 5_000, 5_000, 5_000, 5_000]) {
            within(*pause, least, least.saturating_mul(2));
        }
        assert_eq!(pauses.len(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_received_resets_them() {
        for received in
            [Event::InitDone, Event::Apply(Pod::default()), Event::Delete(Pod::default())]
        {
            let events = away(9).into_iter().chain([Ok(received)]).chain(away(2)).collect();
            let pauses = pauses(events).await;
            let longest_of_first = Duration::from_millis(1_601);
            assert!(pauses[8] > longest_of_first && pauses[9] <= longest_of_first, "{pauses:?}");
        }
    }
}
