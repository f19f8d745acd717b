//! What both ways to a pod have in common: the leases, the pods, and what is counted.

use crate::access::{LeaseAccess, LeaseLogin, LookupError};
use crate::greeting::open_greeted;
use crate::limits;
use crate::metrics::{Counts, OpenSession, Rejection, Way};
use crate::origin::Origin;
use crate::sessions::{Place, Sessions};
use paygress_core::backend::pod_streams::{ByteStream, PodStreams};
use paygress_core::error_chain;
use paygress_core::logged_failures::LoggedFailures;
use paygress_core::model::ids::PodName;
use std::sync::Arc;

pub(crate) struct Shared {
    pub(crate) access: Arc<dyn LeaseAccess>,
    pub(crate) streams: Arc<dyn PodStreams>,
    pub(crate) counts: Arc<Counts>,
    /// By both ways together.
    sessions: Sessions,
    /// Each session needs a lookup, and whoever knocks causes one.
    lookup_failures: LoggedFailures,
}

/// Held by a session of a lease.
pub(crate) struct SessionPermit {
    pub(crate) place: Place,
    _open: OpenSession,
}

impl Shared {
    pub(crate) fn new(access: Arc<dyn LeaseAccess>, streams: Arc<dyn PodStreams>) -> Self {
        Self {
            access,
            streams,
            counts: Arc::default(),
            sessions: Sessions::default(),
            lookup_failures: LoggedFailures::default(),
        }
    }

    /// The name of a pod, if a lease can have it; other names are not looked up.
    pub(crate) fn pod_name(text: &str) -> Option<PodName> {
        PodName::parse(text).ok().filter(|pod| pod.lease().is_some())
    }

    /// The login of a live lease.
    pub(crate) async fn login(&self, pod: &PodName) -> Option<LeaseLogin> {
        self.look_up(pod, self.access.login(pod)).await.flatten()
    }

    /// Whether the lease is live; none if that cannot be known.
    pub(crate) async fn is_live(&self, pod: &PodName) -> Option<bool> {
        self.look_up(pod, self.access.is_live(pod)).await
    }

    async fn look_up<T>(
        &self,
        pod: &PodName,
        lookup: impl Future<Output = Result<T, LookupError>>,
    ) -> Option<T> {
        let failure = match tokio::time::timeout(limits::LOOKUP, lookup).await {
            Ok(Ok(found)) => return Some(found),
            Ok(Err(error)) => error_chain(&error),
            Err(_) => "it takes too long".to_owned(),
        };
        if let Some(error) = self.lookup_failures.admit(failure) {
            tracing::warn!(%pod, error, "a lease cannot be looked up");
        }
        self.counts.reject(Rejection::Lookup);
        None
    }

    /// One more session of a client whom the jump host has logged in, unless the lease has as many as
    /// it may.
    pub(crate) fn begin_session(&self, pod: &PodName) -> Option<SessionPermit> {
        self.permit(self.sessions.begin(pod), Way::JumpHost)
    }

    /// One more over iroh, of anybody: another may lose its place to it.
    pub(crate) fn begin_unproven(&self, pod: &PodName, origin: Origin) -> Option<SessionPermit> {
        let is_full = self.counts.open_sessions(Way::Iroh) >= limits::SESSIONS_OVER_IROH;
        let place = self.sessions.begin_unproven(pod, origin);
        if is_full && place.is_some() {
            // Its own, if no other is left.
            self.sessions.drop_unproven();
        }
        self.permit(place, Way::Iroh)
    }

    fn permit(&self, place: Option<Place>, way: Way) -> Option<SessionPermit> {
        if place.is_none() {
            self.counts.reject(Rejection::TooMany);
        }
        Some(SessionPermit { place: place?, _open: self.counts.open(way) })
    }

    /// A connection to the pod's SSH server.
    pub(crate) async fn open(&self, pod: &PodName) -> Option<Box<dyn ByteStream>> {
        match tokio::time::timeout(limits::OPEN, open_greeted(&*self.streams, pod)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => {
                tracing::info!(%pod, error = %error_chain(&error), "a pod cannot be reached");
            }
            Err(_) => tracing::info!(%pod, "a pod cannot be reached in time"),
        }
        self.counts.reject(Rejection::Unreachable);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use paygress_core::backend::pod_streams::{OpenError, PodPort};
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    /// Neither leases nor pods.
    struct Nothing;

    #[async_trait]
    impl LeaseAccess for Nothing {
        async fn login(&self, _: &PodName) -> Result<Option<LeaseLogin>, LookupError> {
            Err(LookupError::new("the store is away"))
        }

        async fn ended(&self, _: &PodName) {}
    }

    #[async_trait]
    impl PodStreams for Nothing {
        async fn open(&self, _: &PodName, _: PodPort) -> Result<Box<dyn ByteStream>, OpenError> {
            Err(OpenError::new("no route"))
        }
    }

    fn shared() -> Shared {
        Shared::new(Arc::new(Nothing), Arc::new(Nothing))
    }

    fn pod(name: &str) -> PodName {
        Shared::pod_name(name).unwrap()
    }

    /// Whoever knows its name begins sessions over iroh.
    #[test]
    fn a_customer_gets_in_by_each_way_however_many_others_begin_sessions() {
        let (shared, pod) = (shared(), pod("ssh-pod-aaaaaaaaaa"));
        let others: Vec<SessionPermit> =
            std::iter::repeat_with(|| shared.begin_unproven(&pod, None).expect("a newcomer"))
                .take(2 * limits::SESSIONS_OF_LEASE)
                .collect();
        assert!(shared.begin_unproven(&pod, None).is_some());
        assert_eq!(shared.counts.rejections(Rejection::TooMany), 0);
        let customers: Vec<SessionPermit> =
            std::iter::from_fn(|| shared.begin_session(&pod)).collect();
        assert_eq!(customers.len(), limits::SESSIONS_OF_LEASE);
        assert!(shared.begin_unproven(&pod, None).is_none(), "no place of these is taken");
        assert_eq!(shared.counts.rejections(Rejection::TooMany), 2);
        drop((others, customers));
        assert_eq!(Way::ALL.map(|way| shared.counts.open_sessions(way)), [0, 0]);
    }

    #[tokio::test]
    async fn whoever_begins_as_many_sessions_as_there_may_be_keeps_no_customer_out() {
        let shared = shared();
        let pods: Vec<PodName> = ('a'..='z')
            .flat_map(|first| ('a'..='z').map(move |second| format!("{first}{second}")))
            .map(|end| pod(&format!("ssh-pod-aaaaaaaa{end}")))
            .collect();
        let all = usize::try_from(limits::SESSIONS_OVER_IROH).unwrap();
        let mut others: Vec<SessionPermit> = (0..all)
            .map(|number| shared.begin_unproven(&pods[number % pods.len()], None).unwrap())
            .collect();
        let origin = Some([192, 0, 2, 7].into());
        let mut customer = shared.begin_unproven(&pods[0], origin).expect("a newcomer");
        others[0].place.lost(pending()).await;
        others.push(shared.begin_unproven(&pods[1], None).expect("another newcomer"));
        others[1].place.lost(pending()).await;
        let full = pod("ssh-pod-bbbbbbbbbb");
        let _proven: Vec<SessionPermit> =
            std::iter::from_fn(|| shared.begin_session(&full)).collect();
        assert!(shared.begin_unproven(&full, None).is_none(), "it costs nobody a place");
        for stays in [&mut others[2], &mut customer] {
            tokio::select! {
                biased;
                () = stays.place.lost(pending()) => panic!("it has lost its place"),
                () = ready(()) => {}
            }
        }
        assert_eq!(shared.counts.rejections(Rejection::TooMany), 2);
    }

    #[tokio::test]
    async fn what_cannot_be_known_or_reached_is_counted() {
        let (shared, pod) = (shared(), pod("ssh-pod-aaaaaaaaaa"));
        assert!(shared.login(&pod).await.is_none() && shared.is_live(&pod).await.is_none());
        assert!(shared.open(&pod).await.is_none());
        assert_eq!(shared.counts.rejections(Rejection::Lookup), 2);
        assert_eq!(shared.counts.rejections(Rejection::Unreachable), 1);
    }

    /// Counts warnings.
    struct Warnings(Arc<AtomicUsize>);

    impl Subscriber for Warnings {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            if *event.metadata().level() == Level::WARN {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_logged_once_and_not_for_each_lookup() {
        let (shared, warnings) = (shared(), Arc::default());
        let _logged = tracing::subscriber::set_default(Warnings(Arc::clone(&warnings)));
        for pod in ["ssh-pod-aaaaaaaaaa", "ssh-pod-bbbbbbbbbb"].into_iter().cycle().take(100) {
            assert!(shared.login(&self::pod(pod)).await.is_none());
        }
        assert_eq!(warnings.load(Ordering::Relaxed), 1);
        assert_eq!(shared.counts.rejections(Rejection::Lookup), 100);
    }

    #[test]
    fn only_names_of_pods_are_looked_up() {
        for other in ["", "root", "ssh-pod-", "ssh-pod-other", "ssh-pod-aaaaaaaaaaa"] {
            assert_eq!(Shared::pod_name(other), None, "{other}");
        }
    }
}
