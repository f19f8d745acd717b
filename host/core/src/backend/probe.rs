//! What a probe pod shows: see [`Probe`](crate::backend::cluster::Probe).

/// Why a probe pod did not start, or has less than it might.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeProblem {
    /// The image of an order that names none cannot be pulled.
    Image,
    /// The image with the SSH server cannot be pulled.
    ServerImage,
    /// It runs, and nothing listens on its SSH port.
    Port,
    /// It ended as soon as it had started.
    Exited,
    /// It runs, and its SSH server refuses the pod's login.
    Login,
    /// Anything else that kept it from starting.
    NotStarted,
    /// A right is missing, or a rule of the cluster does not allow it.
    Refused,
    /// It starts, but not as root.
    NoUserNamespaces,
    /// It starts, but not with what its image starts by itself.
    NoImagePrograms,
    /// No node, or no quota, has room for it.
    Full,
    /// It was ended, since an order needed its room.
    GaveWay,
    /// The cluster cannot be reached.
    Unavailable,
    /// The policies render no pod for the order of a probe, which has no customer.
    Policies,
}

impl ProbeProblem {
    /// What is wrong and what to do, for the operator. `/readyz` shows it to anybody: it names
    /// settings, and no values.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::Image => {
                "the default image cannot be pulled: load it on the nodes, or set SSH_BASE_IMAGE to one that they can pull"
            }
            Self::ServerImage => {
                "the image of SSH_SERVER_IMAGE cannot be pulled: load it on the nodes, or name one that they can pull"
            }
            Self::Port => {
                "a pod of the default image runs, and nothing listens on SSH_PORT: set SSH_PORT to the port of its SSH server, or set SSH_SERVER_IMAGE"
            }
            Self::Exited => {
                "a pod of the default image ends as soon as it has started: its image must bring an SSH server, or SSH_SERVER_IMAGE must be set"
            }
            Self::Login => {
                "a pod of the default image runs, and its SSH server refuses its login: the image must read it from /run/paygress/login and take the password, or SSH_SERVER_IMAGE must be set"
            }
            Self::NotStarted => {
                "a probe pod does not start: the log has the reason, and `kubectl get events` in the pods' namespace"
            }
            Self::Refused => {
                "the cluster refuses a probe pod: apply k8s/base of this version, and give the admission policy the service's parameters; the log has the reason"
            }
            Self::NoUserNamespaces => {
                "customers are not root: pods with user namespaces do not start, and the log has the reason; update the nodes, or set POD_ROOT=never"
            }
            Self::NoImagePrograms => {
                "orders with run: image are refused: a pod of the default image does not start with its image's own program, and the log has the reason; apply k8s/base of this version, give the admission policy POD_RUN_IMAGE, or set POD_RUN_IMAGE=false"
            }
            Self::Full => {
                "the cluster has no room for a probe pod: whether pods start is not known, and they are sold"
            }
            Self::GaveWay => {
                "a probe pod has given its room to an order: whether pods start is not known, and they are sold"
            }
            Self::Unavailable => {
                "the cluster cannot be reached for a probe pod: whether pods start is not known"
            }
            Self::Policies => {
                "the policies render no pod for an order without a customer: whether pods start is not known, and they are sold; the log has the reason"
            }
        }
    }

    /// Whether customers' pods would not start either, or would be of no use.
    #[must_use]
    pub fn stops_sales(self) -> bool {
        match self {
            Self::Image
            | Self::ServerImage
            | Self::Port
            | Self::Exited
            | Self::Login
            | Self::NotStarted
            | Self::Refused => true,
            Self::NoUserNamespaces
            | Self::NoImagePrograms
            | Self::Full
            | Self::GaveWay
            | Self::Unavailable
            | Self::Policies => false,
        }
    }

    /// Whether nothing is known of whether pods start: what was found before is so still.
    #[must_use]
    pub fn says_nothing(self) -> bool {
        matches!(self, Self::Full | Self::GaveWay | Self::Unavailable | Self::Policies)
    }

    /// Whether another probe of the same pod may find something else before long.
    #[must_use]
    pub fn may_pass(self) -> bool {
        self != Self::NoUserNamespaces
    }
}

/// Whether the pod that tries what no customer may reach has tried another pod too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbours {
    /// It has, and that one was there.
    Tried,
    /// No node, or no quota, has room for another one.
    NoRoom,
    /// The other one does not start, or has ended.
    NotStarted,
}

/// Whether pods are kept from what no customer may reach: the API server, the nodes and each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkIsolation {
    /// A pod has tried in vain.
    Enforced(Neighbours),
    /// A pod has reached some of it.
    NotEnforced,
    /// No pod has tried.
    Unknown,
}

impl Neighbours {
    /// What a pod has found that has reached nothing, for the operator.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Tried => {
                "a probe pod reaches neither the API server nor a node, nor another probe pod"
            }
            Self::NoRoom => {
                "a probe pod reaches neither the API server nor a node; neighbours not tried: no room"
            }
            Self::NotStarted => {
                "a probe pod reaches neither the API server nor a node; neighbours not tried: the other probe pod does not start"
            }
        }
    }
}

impl NetworkIsolation {
    /// What is wrong and what to do, for the operator. `/readyz` shows it to anybody: it names no
    /// addresses.
    #[must_use]
    pub fn warning(self) -> Option<&'static str> {
        match self {
            Self::NotEnforced => Some(
                "customers' pods reach the API server, a node or each other: use a network plugin that enforces NetworkPolicies, apply k8s/base/network.yaml, and add the public addresses of nodes and API server to its `except`; the log has what is reached",
            ),
            Self::Enforced(_) | Self::Unknown => None,
        }
    }
}
