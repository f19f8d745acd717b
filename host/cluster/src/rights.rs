//! What the service may do in the cluster: `k8s/base` and the overlay `egress` grant it, and a test
//! holds both to be equal.

/// What needs a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RightPurpose {
    /// Pods of customers, in their namespace: `rbac.yaml`.
    Leases,
    /// A gateway, or HTTP ports of pods, outside of the pods' network, in the same namespace:
    /// `rbac.yaml`. The login at a probe pod uses it too, and is left out without.
    Gateway,
    /// Pods whose template says what they connect to, in the same namespace: `rbac.yaml` of the
    /// overlay `egress`.
    Egress,
    /// What the nodes have left, in the whole cluster: `capacity.yaml`.
    Capacity,
    /// `Policy` resources, in their namespace: `policies.yaml`.
    Policies,
}

impl RightPurpose {
    /// The file of `k8s` that grants it.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Leases | Self::Gateway => "base/rbac.yaml",
            Self::Egress => "overlays/egress/rbac.yaml",
            Self::Capacity => "base/capacity.yaml",
            Self::Policies => "base/policies.yaml",
        }
    }
}

/// What may be done with one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    pub purpose: RightPurpose,
    /// Empty: the core group.
    pub group: &'static str,
    /// With its subresource, if it is one's: `pods/portforward`.
    pub resource: &'static str,
    pub verbs: &'static [&'static str],
}

const fn right(
    purpose: RightPurpose,
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
) -> Right {
    Right { purpose, group, resource, verbs }
}

/// Each verb that the service uses.
pub const RIGHTS: [Right; 12] = [
    right(
        RightPurpose::Leases,
        "batch",
        "jobs",
        &["create", "get", "list", "watch", "patch", "delete"],
    ),
    right(RightPurpose::Leases, "", "pods", &["create", "get", "list", "watch", "patch"]),
    right(RightPurpose::Leases, "", "secrets", &["create", "delete"]),
    right(RightPurpose::Leases, "", "services", &["create", "delete", "list"]),
    right(RightPurpose::Leases, "", "resourcequotas", &["list", "watch"]),
    right(RightPurpose::Gateway, "", "pods/portforward", &["create", "get"]),
    right(RightPurpose::Egress, "networking.k8s.io", "networkpolicies", &["create"]),
    right(RightPurpose::Capacity, "", "nodes", &["list", "watch"]),
    right(RightPurpose::Capacity, "", "pods", &["list", "watch"]),
    right(RightPurpose::Policies, "paygress.dev", "policies", &["get", "list", "watch"]),
    right(RightPurpose::Policies, "paygress.dev", "policies/status", &["patch"]),
    right(RightPurpose::Policies, "", "configmaps", &["get"]),
];
