//! What the order service knows of the HTTP ports of pods, if they are served: what answers name.

use crate::model::ids::PodName;
use crate::model::secret::Secret;

/// How browsers reach the HTTP ports of pods.
pub trait AppLinks: Send + Sync {
    /// The URL of this pod's port.
    fn url(&self, pod: &PodName) -> String;

    /// A link that logs a browser in as the customer of this pod's lease: once, and soon.
    fn login_url(&self, pod: &PodName) -> Secret;
}
