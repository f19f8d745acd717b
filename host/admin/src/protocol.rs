//! One request and one reply per connection, each a line of JSON. The components that a request
//! announces follow its line, one after the other. The JSON forms are a protocol: they stay as they
//! are.

use paygress_core::backend::policy::{Slot, SlotStats};
use paygress_core::model::sales::Sales;
use paygress_core::orders::EndedLease;
use paygress_policy::{Revision, ShadowReport};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Length of a request line: the settings of four components.
pub(crate) const REQUEST_BYTES: u64 = 512 << 10;
/// Length of a reply: the whole history.
pub(crate) const REPLY_BYTES: u64 = 16 << 20;

/// A component for a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentUpload {
    pub slot: Slot,
    /// How many bytes of it follow; 0 if it is in a registry.
    #[serde(default)]
    pub bytes: u64,
    /// The signature of those bytes.
    #[serde(default)]
    pub signature: Option<String>,
    /// Its reference, if it is in a registry.
    #[serde(default)]
    pub reference: Option<String>,
    /// Its settings; by default those of the active component.
    #[serde(default)]
    pub settings: Option<Map<String, Value>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Activate these components, all or none.
    Swap(Vec<ComponentUpload>),
    /// Go back to this revision, or to the one before the active one.
    Rollback(Option<u64>),
    /// List the revisions.
    History,
    /// Return the statistics of the active policies.
    Report,
    /// Run these components beside the active ones.
    ShadowStart(Vec<ComponentUpload>),
    /// Return how the shadow compares so far.
    ShadowReport,
    /// Stop the shadow.
    ShadowStop,
    /// Activate the components of the shadow.
    Promote,
    /// End the lease of this pod; what is left of it is paid back.
    LeaseEnd(String),
    /// Sell this from now on, or return what is sold.
    Sales(Option<Sales>),
}

impl Request {
    pub(crate) fn uploads(&self) -> &[ComponentUpload] {
        match self {
            Self::Swap(uploads) | Self::ShadowStart(uploads) => uploads,
            _ => &[],
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// This revision is active now.
    Published(Revision),
    /// All revisions, oldest first.
    History(Vec<Revision>),
    /// The statistics of the active policies.
    Report(Vec<SlotStats>),
    /// How the shadow compares.
    Shadow(ShadowReport),
    /// This lease is over.
    LeaseEnded(EndedLease),
    /// What is sold.
    Sales(Sales),
    Done,
    /// Nothing was done, for this reason.
    Refused(String),
}
