//! The watches. Their last state is kept while they fail: what was reserved since is counted
//! against it, and without the API server no order passes its dry run. A 403 is such a failure too,
//! until it has lasted for a while ([`RightsRetry`]).

use super::demand::{LeaseObjects, PodDemand};
use super::extra::ExtraCapacity;
use super::objects::{Objects, Scope};
use super::shapes::{Shapes, usable_nodes};
use super::snapshot::View;
use crate::connection::with_timeout;
use crate::guard::Allowed;
use crate::watches;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod, ResourceQuota, Service};
use kube::api::{Api, ListParams};
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};
use paygress_core::backend::capacity::{Capacity, Demand, Tier};
use paygress_core::backoff::{Doubling, doubling};
use paygress_core::error_chain;
use paygress_core::logged_failures::LoggedFailures;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long orders wait for the first lists, from the begin of the watches on.
const FIRST_LISTS: Duration = Duration::from_secs(5);
/// A watch that has lasted longer than this had its rights: a 403 after it is a new one.
const STEADY: Duration = Duration::from_secs(60);
/// A watch that was forbidden is tried again so often, until its right counts as missing.
const SOON: usize = 5;
/// The longest of the pauses before, in units of the first: they double, with jitter.
const SOON_LONGEST: u32 = 32;
/// Pods that have ended use nothing.
const NOT_ENDED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// When a watch is tried again for which a right is missing.
#[derive(Clone, Copy, Debug)]
pub(super) struct RightsRetry {
    /// The first pause: an API server that has just started answers 403 until it has read the roles.
    pub(super) first: Duration,
    /// After [`SOON`] attempts the right is missing, until the operator grants it.
    pub(super) later: Duration,
}

impl Default for RightsRetry {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), later: Duration::from_secs(300) }
    }
}

/// The times that a watch was forbidden.
struct Denials {
    retry: RightsRetry,
    soon: std::iter::Take<Doubling>,
}

impl Denials {
    fn new(retry: RightsRetry) -> Self {
        let longest = retry.first.saturating_mul(SOON_LONGEST);
        Self { retry, soon: doubling(retry.first, longest).take(SOON) }
    }

    /// When to try again after a watch of this length. None: the right is missing.
    fn retry_soon(&mut self, watched: Duration) -> Option<Duration> {
        if watched > STEADY {
            *self = Self::new(self.retry);
        }
        self.soon.next()
    }
}

/// Whether everything has been listed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Listing,
    Listed,
}

/// Watches the cluster until it is dropped.
pub(crate) struct CapacityWatch {
    objects: Arc<Mutex<Objects>>,
    shapes: Mutex<Shapes>,
    allowed: Allowed,
    progress: watch::Receiver<Progress>,
    task: JoinHandle<()>,
}

impl Drop for CapacityWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CapacityWatch {
    /// Begins the watches, on the runtime of the caller.
    pub(crate) fn begin(
        client: Client,
        namespace: &str,
        allowed: &Allowed,
        extra: Option<ExtraCapacity>,
    ) -> Self {
        Self::begin_with(client, namespace, allowed, extra, RightsRetry::default())
    }

    pub(super) fn begin_with(
        client: Client,
        namespace: &str,
        allowed: &Allowed,
        extra: Option<ExtraCapacity>,
        retry: RightsRetry,
    ) -> Self {
        let objects = Objects::new(namespace, extra, usable_nodes(allowed));
        let objects = Arc::new(Mutex::new(objects));
        let (sender, progress) = watch::channel(Progress::Listing);
        let watches = Watches {
            client,
            namespace: namespace.to_owned(),
            objects: Arc::clone(&objects),
            progress: sender,
            retry,
        };
        Self {
            objects,
            shapes: Mutex::default(),
            allowed: allowed.clone(),
            progress,
            task: tokio::spawn(watches.run()),
        }
    }

    fn shapes(&self) -> MutexGuard<'_, Shapes> {
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a pod with these Services needs that the API server has admitted; remembered for the
    /// offers of its tier.
    pub(crate) fn demand(&self, tier: &Tier, admitted: &Pod, services: &[Service]) -> Demand {
        let objects = LeaseObjects::of(admitted, services);
        let demand = PodDemand { objects, ..PodDemand::of(admitted) };
        self.shapes().learn(tier, &demand, Instant::now());
        demand.to_demand()
    }

    /// Whether it is not known yet.
    pub(crate) fn is_pending(&self) -> bool {
        !lock(&self.objects).is_listed()
    }

    /// The names of the nodes that are not ready; none while nodes cannot be watched.
    pub(crate) fn unready_nodes(&self) -> Vec<String> {
        lock(&self.objects).unready_nodes()
    }

    /// None while it is not known, and where no right permits counting it.
    pub(crate) async fn capacity(&self) -> Option<Arc<dyn Capacity>> {
        let mut progress = self.progress.clone();
        let listing_since = lock(&self.objects).listing_since();
        let left = FIRST_LISTS.saturating_sub(listing_since.elapsed());
        let listed =
            async { progress.wait_for(|progress| *progress == Progress::Listed).await.is_ok() };
        // Unlisted objects give no snapshot.
        let _ = tokio::time::timeout(left, listed).await;
        let snapshot = lock(&self.objects).snapshot()?;
        let (shapes, allowed) = (self.shapes().clone(), self.allowed.clone());
        Some(Arc::new(View { snapshot, shapes, allowed }))
    }
}

fn lock(objects: &Mutex<Objects>) -> MutexGuard<'_, Objects> {
    objects.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right to list and watch something is missing.
struct Forbidden(&'static str);

struct Watches {
    client: Client,
    /// The customers'.
    namespace: String,
    objects: Arc<Mutex<Objects>>,
    progress: watch::Sender<Progress>,
    retry: RightsRetry,
}

impl Watches {
    async fn run(self) {
        tokio::join!(self.watch_quotas(), self.watch_pods());
    }

    /// Changes what is known.
    fn update(&self, change: impl FnOnce(&mut Objects)) {
        let mut objects = lock(&self.objects);
        change(&mut objects);
        let progress = match objects.is_listed() {
            true => Progress::Listed,
            false => Progress::Listing,
        };
        drop(objects);
        self.progress.send_if_modified(|current| std::mem::replace(current, progress) != progress);
    }

    fn is_known(&self, listed: impl FnOnce(&Objects) -> bool) -> bool {
        listed(&lock(&self.objects))
    }

    async fn watch_quotas(&self) {
        let quotas: Api<ResourceQuota> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut denials = Denials::new(self.retry);
        let mut is_reported = false;
        loop {
            let begun = Instant::now();
            let change = |event| self.update(|objects| objects.quota_event(event));
            let config = watcher::Config::default();
            let Forbidden(_) = follow("resourcequotas", quotas.clone(), config, change).await;
            let soon = denials.retry_soon(begun.elapsed());
            if soon.is_none() || !self.is_known(Objects::are_quotas_listed) {
                self.update(Objects::without_quotas);
                if !std::mem::replace(&mut is_reported, true) {
                    tracing::warn!(
                        namespace = self.namespace,
                        "the ResourceQuotas of the pods' namespace cannot be watched: orders under way are not counted against them; apply k8s/base/rbac.yaml"
                    );
                }
            }
            tokio::time::sleep(soon.unwrap_or(self.retry.later)).await;
        }
    }

    /// The pods and nodes of the cluster; as long as a right is missing, the pods of the namespace.
    async fn watch_pods(&self) {
        let mut denials = Denials::new(self.retry);
        loop {
            let begun = Instant::now();
            let Forbidden(missing) = self.watch_cluster().await;
            if let Some(soon) = denials.retry_soon(begun.elapsed())
                && self.is_known(Objects::are_pods_listed)
            {
                tracing::warn!(missing, "forbidden: the last state is kept, and it is tried again");
                tokio::time::sleep(soon).await;
                continue;
            }
            self.update(|objects| objects.set_scope(Scope::Namespace));
            tracing::warn!(
                missing,
                "the cluster's nodes and pods cannot be watched: only quotas are counted, not what the nodes have left, and a pod that gets no place is refunded; apply k8s/base/capacity.yaml (ClusterRole paygress-capacity)"
            );
            tokio::select! {
                () = self.watch_namespace() => {}
                () = self.await_rights(&mut denials) => {}
            }
            tracing::info!("what the nodes have left is counted from now on");
            self.update(|objects| objects.set_scope(Scope::Cluster));
        }
    }

    async fn await_rights(&self, denials: &mut Denials) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let pods: Api<Pod> = Api::all(self.client.clone());
        let one = ListParams::default().limit(1);
        loop {
            let soon = denials.retry_soon(Duration::ZERO);
            tokio::time::sleep(soon.unwrap_or(self.retry.later)).await;
            if with_timeout(nodes.list(&one)).await.is_ok()
                && with_timeout(pods.list(&one)).await.is_ok()
            {
                return;
            }
        }
    }

    async fn watch_cluster(&self) -> Forbidden {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let pods: Api<Pod> = Api::all(self.client.clone());
        let config = watcher::Config::default();
        tokio::select! {
            forbidden = follow("nodes", nodes, config, |event| {
                self.update(|objects| objects.node_event(event));
            }) => forbidden,
            forbidden = self.follow_pods(pods) => forbidden,
        }
    }

    /// Does not return.
    async fn watch_namespace(&self) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut denials = Denials::new(self.retry);
        loop {
            let begun = Instant::now();
            let Forbidden(missing) = self.follow_pods(pods.clone()).await;
            let soon = denials.retry_soon(begun.elapsed());
            if soon.is_none() || !self.is_known(Objects::are_pods_listed) {
                self.update(Objects::forget_pods);
                tracing::warn!(
                    namespace = self.namespace,
                    missing,
                    "the pods of the namespace cannot be watched: nothing is counted; apply k8s/base/rbac.yaml"
                );
            }
            tokio::time::sleep(soon.unwrap_or(self.retry.later)).await;
        }
    }

    async fn follow_pods(&self, pods: Api<Pod>) -> Forbidden {
        let config = watcher::Config::default().fields(NOT_ENDED);
        follow("pods", pods, config, |event| self.update(|objects| objects.pod_event(event))).await
    }
}

/// Passes events on until a right is missing. Everything else is tried again.
async fn follow<K>(
    what: &'static str,
    api: Api<K>,
    config: watcher::Config,
    mut pass_on: impl FnMut(Event<K>),
) -> Forbidden
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = std::pin::pin!(watches::watch(api, config));
    let failures = LoggedFailures::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => pass_on(event),
            Err(error) if is_forbidden(&error) => return Forbidden(what),
            Err(error) => {
                if let Some(error) = failures.admit(error_chain(&error)) {
                    tracing::warn!(what, error, "a watch for capacity failed");
                }
            }
        }
    }
    // A watch does not end.
    std::future::pending().await
}

fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.code == 403,
        _ => false,
    }
}
