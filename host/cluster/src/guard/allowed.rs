//! What the operator allows.

/// What templates may ask for beyond the defaults: names, compared exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Extended resources: `nvidia.com/gpu`.
    pub devices: Vec<String>,
    /// Runtime classes: `gvisor`.
    pub runtime_classes: Vec<String>,
    /// Keys of taints that pods may tolerate.
    pub tolerations: Vec<String>,
}
