//! What a pod needs of its node, and which nodes it may run on.

use super::amounts::Amounts;
use crate::ssh_server::has_reply;
use k8s_openapi::api::core::v1::{
    self, Container, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, ResourceRequirements,
    Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use paygress_core::backend::capacity::Demand;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Once;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

/// A port of the node. The address is not compared: a port that a customer's pod takes is taken on
/// all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct HostPort {
    pub(super) port: i32,
    #[serde(default)]
    pub(super) protocol: Protocol,
}

/// What a pod needs: it is stored with the port of its lease, and new fields are optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct PodDemand {
    pub(super) requests: Amounts,
    /// For quotas alone.
    pub(super) limits: Amounts,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) host_ports: Vec<HostPort>,
    pub(super) priority: i32,
    /// Whether the pod has a deadline of its own: scopes of quotas ask for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) has_deadline: bool,
    /// For quotas alone.
    #[serde(skip_serializing_if = "LeaseObjects::is_empty")]
    pub(super) objects: LeaseObjects,
    pub(super) nodes: NodeRules,
}

/// How many objects a lease makes beside its pod. Of a pod that was watched: none, the API server
/// counts what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct LeaseObjects {
    pub(super) jobs: u64,
    pub(super) secrets: u64,
    pub(super) services: u64,
    /// Of the Services.
    pub(super) node_ports: u64,
}

impl LeaseObjects {
    /// Those of a probe: it has no Services, and nothing to write.
    pub(super) const OF_PROBE: Self = Self { jobs: 1, secrets: 1, services: 0, node_ports: 0 };

    /// Those of a lease with this pod and these Services.
    pub(super) fn of(pod: &Pod, services: &[Service]) -> Self {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let node_ports = services.iter().filter_map(|service| {
            let spec = service.spec.as_ref()?;
            (spec.type_.as_deref() == Some("NodePort")).then(|| spec.ports.iter().flatten().count())
        });
        Self {
            jobs: 1,
            // The login, and what the pod writes to its customer.
            secrets: if pod.spec.as_ref().is_some_and(has_reply) { 2 } else { 1 },
            services: count(services.len()),
            node_ports: node_ports.map(count).fold(0, u64::saturating_add),
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Which nodes a pod may run on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct NodeRules {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    selector: BTreeMap<String, String>,
    /// One of these, if there are some.
    #[serde(skip_serializing_if = "Option::is_none")]
    terms: Option<Vec<Term>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tolerations: Vec<Toleration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
struct Term {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Requirement {
    key: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
struct Toleration {
    key: Option<String>,
    operator: Option<String>,
    value: Option<String>,
    effect: Option<String>,
}

/// A taint that keeps pods away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taint {
    key: String,
    value: Option<String>,
    effect: String,
}

impl Taint {
    pub(super) fn of(taint: &v1::Taint) -> Self {
        let v1::Taint { key, value, effect, .. } = taint.clone();
        Self { key, value, effect }
    }
}

type Quantities = Option<BTreeMap<String, Quantity>>;

impl PodDemand {
    pub(super) fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        Self {
            requests: total(spec, |resources| &resources.requests),
            limits: total(spec, |resources| &resources.limits),
            host_ports: host_ports(spec),
            priority: spec.priority.unwrap_or(0),
            has_deadline: spec.active_deadline_seconds.is_some(),
            objects: LeaseObjects::default(),
            nodes: NodeRules::of(spec),
        }
    }

    /// None for a lease of a version that recorded no demand, and for one that cannot be read:
    /// nothing of it is counted.
    pub(super) fn read(demand: &Demand) -> Option<Self> {
        // The first one is logged: each is read again and again.
        static REPORT: Once = Once::new();
        let read = serde_json::from_str::<Self>(demand.as_str());
        if let Err(error) = &read
            && *demand != Demand::default()
        {
            REPORT.call_once(|| {
                tracing::error!(%error, "what a pod needs cannot be read, and is not counted");
            });
        }
        read.ok()
    }

    pub(super) fn to_demand(&self) -> Demand {
        Demand::new(serde_json::to_string(self).unwrap_or_default())
    }

    /// Whether it neither requests nor limits CPU or memory.
    pub(super) fn is_best_effort(&self) -> bool {
        [&self.requests, &self.limits].iter().all(|amounts| amounts.cpu == 0 && amounts.memory == 0)
    }
}

/// The requests or the limits of a pod, by the scheduler's rule: containers run together, with the
/// init containers that keep running; the other init containers run one after the other before.
fn total(spec: &PodSpec, side: impl Fn(&ResourceRequirements) -> &Quantities) -> Amounts {
    let amounts = |container: &Container| {
        Amounts::of(container.resources.as_ref().and_then(|resources| side(resources).as_ref()))
    };
    let (mut sidecars, mut starting) = (Amounts::default(), Amounts::default());
    for container in spec.init_containers.iter().flatten() {
        let mut together = amounts(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&together);
            starting.raise_to(&sidecars);
        } else {
            together.add(&sidecars);
            starting.raise_to(&together);
        }
    }
    let mut total = sidecars;
    for container in &spec.containers {
        total.add(&amounts(container));
    }
    total.raise_to(&starting);
    total.replace(spec.resources.as_ref().and_then(|resources| side(resources).as_ref()));
    total.add(&Amounts::of(spec.overhead.as_ref()));
    total
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            };
            let port = port.host_port.filter(|port| *port > 0)?;
            Some(HostPort { port, protocol })
        })
        .collect()
}

impl NodeRules {
    fn of(spec: &PodSpec) -> Self {
        let required = spec.affinity.as_ref().and_then(|affinity| {
            let node = affinity.node_affinity.as_ref()?;
            node.required_during_scheduling_ignored_during_execution.as_ref()
        });
        let tolerations = spec.tolerations.iter().flatten().map(|toleration| Toleration {
            key: toleration.key.clone(),
            operator: toleration.operator.clone(),
            value: toleration.value.clone(),
            effect: toleration.effect.clone(),
        });
        Self {
            selector: spec.node_selector.clone().unwrap_or_default(),
            terms: required
                .map(|required| required.node_selector_terms.iter().map(Term::of).collect()),
            tolerations: tolerations.collect(),
        }
    }

    /// All nodes but those with a taint of another key than these.
    pub(super) fn tolerating(keys: &[String]) -> Self {
        let exists = Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() };
        let tolerate = |key: &String| Toleration { key: Some(key.clone()), ..exists.clone() };
        Self { tolerations: keys.iter().map(tolerate).collect(), ..Self::default() }
    }

    /// All nodes, whatever their taints.
    pub(super) fn any() -> Self {
        let exists = Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() };
        Self { tolerations: vec![exists], ..Self::default() }
    }

    /// Whether a node of this name may run the pod.
    pub(super) fn permit(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        taints: &[Taint],
    ) -> bool {
        let tolerates =
            |taint: &Taint| self.tolerations.iter().any(|toleration| toleration.matches(taint));
        self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self
                .terms
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
            && taints.iter().all(tolerates)
    }
}

impl Term {
    fn of(term: &NodeSelectorTerm) -> Self {
        let read = |requirements: &Option<Vec<NodeSelectorRequirement>>| {
            let read = |it: &NodeSelectorRequirement| Requirement {
                key: it.key.clone(),
                operator: it.operator.clone(),
                values: it.values.clone().unwrap_or_default(),
            };
            requirements.iter().flatten().map(read).collect()
        };
        Self { labels: read(&term.match_expressions), fields: read(&term.match_fields) }
    }

    /// A term without requirements matches no node.
    fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let field = |key: &str| (key == "metadata.name").then_some(name);
        !(self.labels.is_empty() && self.fields.is_empty())
            && self.labels.iter().all(|it| it.matches(labels.get(&it.key).map(String::as_str)))
            && self.fields.iter().all(|it| it.matches(field(&it.key)))
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let is_listed = || value.is_some_and(|value| self.values.iter().any(|it| it == value));
        let numbers = || {
            let wanted: i64 = self.values.first()?.parse().ok()?;
            Some((value?.parse::<i64>().ok()?, wanted))
        };
        match self.operator.as_str() {
            "In" => is_listed(),
            "NotIn" => !is_listed(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => numbers().is_some_and(|(value, wanted)| value > wanted),
            "Lt" => numbers().is_some_and(|(value, wanted)| value < wanted),
            _ => false,
        }
    }
}

/// What is empty counts as left out.
fn set(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

impl Toleration {
    fn matches(&self, taint: &Taint) -> bool {
        let values = match set(&self.operator) {
            Some("Exists") => true,
            None | Some("Equal") => set(&self.value) == set(&taint.value),
            Some(_) => false,
        };
        values
            && set(&self.effect).is_none_or(|effect| effect == taint.effect)
            && match set(&self.key) {
                Some(key) => key == taint.key,
                None => set(&self.operator) == Some("Exists"),
            }
    }
}
