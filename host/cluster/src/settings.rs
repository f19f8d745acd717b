//! What the operator configures of the cluster and its pods.

use crate::capacity::ExtraCapacity;
use crate::guard::Allowed;
use paygress_core::model::access::AccessModes;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Seconds;
use paygress_pod_nostr::ServiceContact;

/// What [`Kubernetes`](crate::Kubernetes) is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace of the pods.
    pub namespace: String,
    /// A label value that only this installation uses.
    pub instance: String,
    /// How long a pod may take to become ready, image pull included.
    pub ready_within: Seconds,
    /// How long a finished Job is kept.
    pub ttl: Seconds,
    /// What templates may ask for beyond the defaults.
    pub allowed: Allowed,
    /// The nodes that an autoscaler adds.
    pub extra_capacity: Option<ExtraCapacity>,
    /// The image with the SSH server that is put into customers' images; none: these bring their
    /// own.
    pub ssh_server_image: Option<String>,
    /// How it comes into them.
    pub ssh_server_volume: SshServerVolume,
    /// What the secrets are derived from by which pods prove their host keys: only this service, and
    /// all of its replicas, have it.
    pub host_key_seed: Secret,
    /// What pods know of this service; none: nothing.
    pub contact: Option<ServiceContact>,
    pub root: PodRoot,
    pub run_image: RunImage,
    /// Whether probe pods are launched.
    pub probe: bool,
    /// Whether pods may write to their customers by themselves.
    pub reply_from_pod: bool,
    /// Where customers reach pods.
    pub ssh_host_from: SshHostFrom,
    /// How long a node may be not ready before the leases of its pods end.
    pub node_lost_after: Seconds,
    /// How the gateway reaches pods.
    pub route: PodRoute,
    /// How customers may reach pods.
    pub access: AccessModes,
}

/// Where customers reach pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshHostFrom {
    /// All at the host that the operator has set.
    Setting,
    /// Each at its node.
    Node,
}

/// How pods' SSH ports are reached from the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodRoute {
    /// In the cluster by their addresses where these answer, or else by the API server.
    Auto,
    /// By their addresses.
    PodNetwork,
    /// By the API server's port forwarding.
    PortForward,
}

/// How the host's SSH server comes into customers' pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshServerVolume {
    /// As a volume of its image, where a probe pod has started so and proved its host keys; or else
    /// copied.
    Auto,
    /// An init container copies it.
    Copy,
    /// As a volume of its image.
    Image,
}

/// Whether pods may run their images' own programs beside the SSH server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunImage {
    /// For orders that want it, where the host puts its SSH server into images.
    Allowed,
    Never,
}

/// Whether customers are root in their pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodRoot {
    /// Where nodes have user namespaces, which a probe pod finds out.
    Auto,
    Never,
}
