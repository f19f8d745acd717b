//! Identifies a set of policies about which something is known.

use crate::backend::policy::PolicySet;
use std::sync::{Arc, Weak};

/// The identity of a set of policies, settings included. A set that is published anew is another one,
/// whatever it holds. It keeps no component in memory.
#[derive(Clone)]
pub(super) struct SetIdentity(Weak<dyn PolicySet>);

impl SetIdentity {
    pub(super) fn of(set: &Arc<dyn PolicySet>) -> Self {
        Self(Arc::downgrade(set))
    }

    pub(super) fn is_of(&self, set: &Arc<dyn PolicySet>) -> bool {
        // The address of a set that is gone is not used again as long as this is there.
        Weak::ptr_eq(&self.0, &Arc::downgrade(set))
    }
}
