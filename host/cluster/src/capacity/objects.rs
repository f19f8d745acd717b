//! What is kept of the watched objects: no more than is counted.

use super::demand::NodeRules;
use super::extra::ExtraCapacity;
use super::nodes::Node;
use super::pods::{Owner, Pod};
use super::quota::Quota;
use super::snapshot::Snapshot;
use k8s_openapi::api::core::v1;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// The objects of one watch: complete once they have been listed.
struct Listing<T> {
    current: Option<BTreeMap<String, T>>,
    /// Of a list that is not complete yet.
    next: BTreeMap<String, T>,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self { current: None, next: BTreeMap::new() }
    }
}

/// Whether an event changed what is counted. Most updates of nodes are heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    Relevant,
}

impl<T: PartialEq> Listing<T> {
    fn apply<K: ResourceExt>(&mut self, event: Event<K>, read: impl Fn(&K) -> T) -> Change {
        let key = |object: &K| {
            format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
        };
        match event {
            Event::Init => self.next.clear(),
            Event::InitApply(object) => {
                self.next.insert(key(&object), read(&object));
            }
            Event::InitDone => {
                self.current = Some(std::mem::take(&mut self.next));
                return Change::Relevant;
            }
            Event::Apply(object) => {
                if let Some(current) = &mut self.current {
                    let (key, new) = (key(&object), read(&object));
                    if current.get(&key) != Some(&new) {
                        current.insert(key, new);
                        return Change::Relevant;
                    }
                }
            }
            Event::Delete(object) => {
                let current = self.current.as_mut();
                if current.is_some_and(|current| current.remove(&key(&object)).is_some()) {
                    return Change::Relevant;
                }
            }
        }
        Change::Nothing
    }

    fn values(&self) -> impl Iterator<Item = &T> + Clone {
        self.current.iter().flat_map(BTreeMap::values)
    }
}

/// Which pods are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those of the cluster, and its nodes.
    #[default]
    Cluster,
    /// Those of the customers' namespace: for quotas.
    Namespace,
}

/// All that is watched.
pub(super) struct Objects {
    /// The customers'.
    namespace: String,
    extra: Option<ExtraCapacity>,
    usable: NodeRules,
    scope: Scope,
    nodes: Listing<Node>,
    pods: Listing<Pod>,
    quotas: Listing<Quota>,
    /// When the lists of this scope began.
    listing_since: Instant,
    /// Of what is here now.
    snapshot: Option<Arc<Snapshot>>,
}

impl Objects {
    pub(super) fn new(namespace: &str, extra: Option<ExtraCapacity>, usable: NodeRules) -> Self {
        Self {
            namespace: namespace.to_owned(),
            extra,
            usable,
            scope: Scope::default(),
            nodes: Listing::default(),
            pods: Listing::default(),
            quotas: Listing::default(),
            listing_since: Instant::now(),
            snapshot: None,
        }
    }

    pub(super) fn listing_since(&self) -> Instant {
        self.listing_since
    }

    fn note(&mut self, change: Change) {
        if change == Change::Relevant {
            self.snapshot = None;
        }
    }

    pub(super) fn node_event(&mut self, event: Event<v1::Node>) {
        let change = self.nodes.apply(event, Node::of);
        self.note(change);
    }

    pub(super) fn pod_event(&mut self, event: Event<v1::Pod>) {
        let namespace = self.namespace.as_str();
        let change = self.pods.apply(event, |pod| Pod::of(pod, namespace));
        self.note(change);
    }

    pub(super) fn quota_event(&mut self, event: Event<v1::ResourceQuota>) {
        let change = self.quotas.apply(event, Quota::of);
        self.note(change);
    }

    /// The quotas cannot be read: the dry run alone checks them.
    pub(super) fn without_quotas(&mut self) {
        self.quotas.current = Some(BTreeMap::new());
        self.snapshot = None;
    }

    /// Other pods are going to be listed than before.
    pub(super) fn set_scope(&mut self, scope: Scope) {
        if self.scope != scope {
            self.scope = scope;
            self.nodes = Listing::default();
            self.listing_since = Instant::now();
            self.forget_pods();
        }
    }

    /// The pods cannot be read: nothing is counted.
    pub(super) fn forget_pods(&mut self) {
        self.pods = Listing::default();
        self.snapshot = None;
    }

    /// Whether the pods of the scope have been listed once, and with those of the cluster its nodes.
    pub(super) fn are_pods_listed(&self) -> bool {
        let nodes = self.scope == Scope::Namespace || self.nodes.current.is_some();
        nodes && self.pods.current.is_some()
    }

    pub(super) fn are_quotas_listed(&self) -> bool {
        self.quotas.current.is_some()
    }

    /// Whether everything has been listed once.
    pub(super) fn is_listed(&self) -> bool {
        self.are_pods_listed() && self.are_quotas_listed()
    }

    /// The names of the nodes that are not ready.
    pub(super) fn unready_nodes(&self) -> Vec<String> {
        self.nodes.values().filter_map(Node::unready).map(str::to_owned).collect()
    }

    /// None while it is not known, and where neither nodes nor quotas can be counted.
    pub(super) fn snapshot(&mut self) -> Option<Arc<Snapshot>> {
        if !self.is_listed()
            || (self.scope == Scope::Namespace && self.quotas.values().next().is_none())
        {
            return None;
        }
        if self.snapshot.is_none() {
            let nodes = (self.scope == Scope::Cluster).then(|| self.nodes.values());
            let (extra, usable) = (self.extra.as_ref(), &self.usable);
            let pods = self.pods.values().filter(|pod| pod.owner != Some(Owner::Probe));
            let is_probe = |pod: &&Pod| pod.owner == Some(Owner::Probe) && !pod.is_ending;
            let probes = u64::try_from(self.pods.values().filter(is_probe).count());
            let probes = probes.unwrap_or(u64::MAX);
            let quotas: Vec<Quota> =
                self.quotas.values().map(|quota| quota.without_probes(probes)).collect();
            let snapshot = Snapshot::new(nodes, pods, quotas.iter(), extra, usable);
            self.snapshot = Some(Arc::new(snapshot));
        }
        self.snapshot.clone()
    }
}
