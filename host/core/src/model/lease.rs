//! Leases: pods that are being, are or were sold.

use crate::model::decision::{LeaseView, Resources};
use crate::model::host_key::HostKey;
use crate::model::http_port::HttpPort;
use crate::model::ids::{
    Customer, ImageRef, LeaseId, PodName, PodUid, PublicKey, TierId, Username, known_customer,
};
use crate::model::later_name::{LaterName, named_or_later};
use crate::model::ssh_host::SshHost;
use crate::model::units::UnixTime;
use serde::{Deserialize, Serialize};

/// What `ssh` connects to if it is given no port.
const SSH_PORT: u16 = 22;

/// How far a lease has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// It has a port or a place, and no pod yet.
    Reserved,
    /// Its pod runs.
    Live,
    /// Its pod is gone and its port free.
    Ended,
}

/// Where the port of a lease is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortKind {
    /// At the pod's node.
    #[default]
    HostPort,
    /// At every node.
    NodePort,
}

impl PortKind {
    /// Leases of earlier versions do not say: most templates use a host port.
    #[must_use]
    pub fn is_host_port(&self) -> bool {
        *self == Self::HostPort
    }
}

/// A pod that is being, is or was sold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its id; its pod's name follows from it.
    pub id: LeaseId,
    /// The customer who bought it, if they are known.
    #[serde(with = "known_customer")]
    pub customer: Option<Customer>,
    pub tier: TierId,
    pub image: ImageRef,
    /// What the pod may use.
    pub resources: Resources,
    /// The SSH user.
    pub username: Username,
    /// The nodes' port; none where it was sold without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whose port that is.
    #[serde(default, skip_serializing_if = "PortKind::is_host_port")]
    pub port_kind: PortKind,
    /// How far it is.
    pub state: LeaseState,
    /// When it was ordered.
    pub created_at: UnixTime,
    /// When it ends; none until the pod is ready.
    pub expires_at: Option<UnixTime>,
    /// Why it ended.
    pub end: Option<EndReason>,
    /// Until when its pod was served; none: until it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_until: Option<UnixTime>,
    /// Until when notices of its end were given, or were needless since its end has moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noticed_at: Option<UnixTime>,
    /// The pod of which the following is known; none where the cluster has not named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<PodUid>,
    /// The keys of its pod's SSH server; none where they are not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_keys: Vec<HostKey>,
    /// Whether its customer is root in the pod; none where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<bool>,
    /// The Nostr key with which the pod has written to its customer; none where it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_key: Option<PublicKey>,
    /// Where its node is reached; none where all pods are reached at the host of the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_host: Option<SshHost>,
    /// Its pod's HTTP port that browsers reach; none where its order had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpPort>,
}

impl Lease {
    /// What `pod_npub` of an answer is: the pod's key, or its name where it has none.
    #[must_use]
    pub fn pod_npub(&self) -> String {
        self.pod_key.as_ref().map_or_else(|| self.pod().into(), PublicKey::npub)
    }

    /// The port that `ssh` connects to: the nodes', or its own default in a pod without one.
    #[must_use]
    pub fn login_port(&self) -> u16 {
        self.port.unwrap_or(SSH_PORT)
    }

    /// The host that `ssh` connects to: that of its node or of the settings, or the pod by its name
    /// where it has no port of the nodes. Only the gateway knows that name.
    #[must_use]
    pub fn login_host(&self, of_settings: &str) -> String {
        match (self.port, &self.ssh_host) {
            (None, _) => self.pod().into(),
            (Some(_), Some(host)) => host.as_str().to_owned(),
            (Some(_), None) => of_settings.to_owned(),
        }
    }

    /// The name of its pod.
    #[must_use]
    pub fn pod(&self) -> PodName {
        self.id.pod_name()
    }

    /// What a policy sees of it when this customer asks at this time.
    #[must_use]
    pub fn view(&self, customer: Option<&Customer>, now: UnixTime) -> LeaseView {
        let expires_at = self.expires_at.unwrap_or(now);
        LeaseView {
            id: self.id.to_string(),
            tier: self.tier.clone(),
            image: self.image.clone(),
            created_at: self.created_at,
            expires_at,
            remaining: expires_at.since(now),
            owned_by_customer: customer.is_some() && self.customer.as_ref() == customer,
        }
    }
}

/// Why a lease is about to end, as it is recorded before its pod is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    pub reason: EndReason,
    /// Until when the pod was served, if that is over already.
    pub served_until: Option<UnixTime>,
}

impl From<EndReason> for Ending {
    fn from(reason: EndReason) -> Self {
        Self { reason, served_until: None }
    }
}

/// Why a pod ended: one spelling on the wire, in the ledger and in logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Its time was over.
    Expired,
    /// It stopped by itself: the customer's process ended or failed.
    Exited,
    /// Somebody removed it.
    Removed,
    /// Disrupted by the cluster: its node was drained or removed, or it was preempted.
    Disrupted,
    /// Evicted since its node ran out of something that pods have without limit. The one that has
    /// most of it is evicted first; whether it was this one is not known.
    Evicted,
    /// The customer stopped it.
    Stopped,
    /// The kernel killed it for lack of memory.
    OutOfMemory,
    /// Evicted since it used more of the node's disk than it has.
    OutOfDisk,
    /// It never ran: its image could not be pulled or started.
    ImageFailed,
    /// Its node is not there any more, or cannot be reached.
    NodeLost,
    /// The operator ended it before its time.
    EndedByOperator,
    /// A reason of a later version: what is paid back for it is not known here.
    Later(LaterName),
}

named_or_later!(EndReason, "Why a pod ended. Later versions may add values.");

impl EndReason {
    /// All that this version knows.
    pub const ALL: [Self; 11] = [
        Self::Expired,
        Self::Exited,
        Self::Removed,
        Self::Disrupted,
        Self::Evicted,
        Self::Stopped,
        Self::OutOfMemory,
        Self::OutOfDisk,
        Self::ImageFailed,
        Self::NodeLost,
        Self::EndedByOperator,
    ];

    /// Its name, as it is stored and sent.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Exited => "exited",
            Self::Removed => "removed",
            Self::Disrupted => "disrupted",
            Self::Evicted => "evicted",
            Self::Stopped => "stopped",
            Self::OutOfMemory => "out-of-memory",
            Self::OutOfDisk => "out-of-disk",
            Self::ImageFailed => "image-failed",
            Self::NodeLost => "node-lost",
            Self::EndedByOperator => "ended-by-operator",
            Self::Later(name) => name.as_str(),
        }
    }

    /// The reason of that name, if this version knows it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// Whether it is the service's to make good: all unused time is paid back, at its expense.
    #[must_use]
    pub fn is_provider_fault(self) -> bool {
        matches!(self, Self::Removed | Self::Disrupted | Self::NodeLost | Self::EndedByOperator)
    }

    /// Whether it is the customer's own doing, or may be, before the time was over: unused time is
    /// paid back on the terms of a stop, and one step at least is charged.
    #[must_use]
    pub fn is_as_a_stop(self) -> bool {
        matches!(self, Self::Stopped | Self::Evicted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::http_port::HttpAccess;
    use crate::model::ids::OrderId;
    use crate::testing;

    #[test]
    fn a_lease_of_an_earlier_version_has_no_host_keys() {
        let id = LeaseId::of(&OrderId::random());
        let host_keys = vec![HostKey::parse(testing::HOST_KEY).unwrap()];
        let pod_key = Some(PublicKey::from_bytes([7; 32]));
        let ssh_host = Some(SshHost::parse("203.0.113.7").unwrap());
        let lease = Lease {
            pod_uid: PodUid::parse("a").ok(),
            host_keys,
            root: Some(true),
            pod_key,
            ssh_host,
            http: HttpPort::new(8_080, HttpAccess::Public),
            ..testing::lease(id.clone(), 1, 2)
        };
        let json = serde_json::to_value(&lease).unwrap();
        assert_eq!(json["host_keys"], serde_json::json!([testing::HOST_KEY]));
        assert_eq!(serde_json::from_value::<Lease>(json.clone()).unwrap(), lease);
        let mut earlier = json;
        for added in ["pod_uid", "host_keys", "root", "pod_key", "ssh_host", "http"] {
            earlier.as_object_mut().unwrap().remove(added).unwrap();
        }
        let read: Lease = serde_json::from_value(earlier.clone()).unwrap();
        assert_eq!(read, testing::lease(id, 1, 2));
        assert_eq!(serde_json::to_value(&read).unwrap(), earlier, "it is written as it was");
        assert!(earlier.get("noticed_at").is_none(), "{earlier}");
    }

    #[test]
    fn a_reason_has_one_spelling_and_those_of_version_0_1_0_are_read() {
        for reason in EndReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        let old = ["expired", "exited", "removed", "disrupted", "evicted", "stopped"];
        for (reason, name) in EndReason::ALL.into_iter().zip(old) {
            let read: EndReason = serde_json::from_value(name.into()).unwrap();
            assert_eq!(read, reason, "{name}");
        }
    }

    #[test]
    fn a_reason_of_a_later_version_is_read_and_written_as_it_was() {
        let lease = testing::lease(LeaseId::of(&OrderId::random()), 1, 2);
        let mut json = serde_json::to_value(&lease).unwrap();
        json["end"] = "moved-away".into();
        let read: Lease = serde_json::from_value(json.clone()).unwrap();
        let end = read.end.unwrap();
        assert!(matches!(end, EndReason::Later(_)) && end.as_str() == "moved-away", "{end:?}");
        assert!(!end.is_provider_fault() && !end.is_as_a_stop());
        assert_eq!(serde_json::to_value(&read).unwrap(), json);
        assert!(serde_json::from_value::<EndReason>(7.into()).is_err(), "it is no name");
    }

    /// What is done with a lease depends on these: nothing is done by guessing.
    #[test]
    fn a_state_or_a_kind_of_port_of_a_later_version_is_not_read() {
        let lease = testing::lease(LeaseId::of(&OrderId::random()), 1, 2);
        for field in ["state", "port_kind"] {
            let mut json = serde_json::to_value(&lease).unwrap();
            json[field] = "moved-away".into();
            let error = serde_json::from_value::<Lease>(json).unwrap_err().to_string();
            assert!(error.contains("unknown variant `moved-away`"), "{field}: {error}");
        }
    }
}
