//! What the operator allows.

use ipnet::IpNet;
use paygress_core::backend::policy::Resources;
use std::num::NonZeroU32;

/// What templates may ask for beyond the defaults: names, compared exactly; and what they may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Extended resources: `nvidia.com/gpu`.
    pub devices: Vec<String>,
    /// Runtime classes: `gvisor`.
    pub runtime_classes: Vec<String>,
    /// Keys of taints that pods may tolerate.
    pub tolerations: Vec<String>,
    pub overcommit: Overcommit,
    /// Networks that no pod's egress rules open, beyond
    /// [`CLOSED_NETWORKS`](paygress_http_client::CLOSED_NETWORKS).
    pub egress_except: Vec<IpNet>,
}

/// How many times more is sold than is requested of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overcommit {
    pub cpu: NonZeroU32,
    pub memory: NonZeroU32,
}

impl Default for Overcommit {
    fn default() -> Self {
        Self { cpu: NonZeroU32::MIN, memory: NonZeroU32::MIN }
    }
}

impl Overcommit {
    /// What a pod requests to which this was sold: a part of it, rounded up.
    #[must_use]
    pub fn requests(self, sold: &Resources) -> Resources {
        let part = |amount: u32, of: NonZeroU32| amount.div_ceil(of.get()).max(1);
        Resources {
            cpu_millicores: part(sold.cpu_millicores, self.cpu),
            memory_mib: part(sold.memory_mib, self.memory),
        }
    }
}
