//! What the operator configures of the cluster and its pods.

use crate::capacity::ExtraCapacity;
use crate::guard::Allowed;
use paygress_core::model::units::Seconds;

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
    pub root: PodRoot,
    /// Whether probe pods are launched.
    pub probe: bool,
    /// Whether pods may write to their customers by themselves.
    pub reply_from_pod: bool,
}

/// Whether customers are root in their pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodRoot {
    /// Where nodes have user namespaces, which a probe pod finds out.
    Auto,
    Never,
}
