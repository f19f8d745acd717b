//! What is said over the socket: one request and one reply a connection, each a line of JSON. The
//! components that a request names follow its line, one after the other.

use paygress_core::backend::policy::{Slot, SlotStats};
use paygress_policy::{Revision, ShadowReport};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest request line: settings of four components.
pub(crate) const LINE_BYTES: u64 = 512 << 10;
/// The longest reply: the whole history.
pub(crate) const REPLY_BYTES: u64 = 16 << 20;

/// A component for a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentUpload {
    /// The slot.
    pub slot: Slot,
    /// How many bytes of it follow; 0 for one in a registry.
    #[serde(default)]
    pub bytes: u64,
    /// The signature of those bytes.
    #[serde(default)]
    pub signature: Option<String>,
    /// Where it is, in a registry.
    #[serde(default)]
    pub reference: Option<String>,
    /// Its settings; left out: those of the component in force.
    #[serde(default)]
    pub settings: Option<Map<String, Value>>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Put these in force, all or none.
    Swap(Vec<ComponentUpload>),
    /// Go back: to that publication, or to what was in force before.
    Rollback(Option<u64>),
    /// What has been in force?
    History,
    /// How do the policies in force do?
    Report,
    /// Have these decide beside those in force.
    ShadowStart(Vec<ComponentUpload>),
    /// How do they do?
    ShadowReport,
    /// End that.
    ShadowStop,
    /// Put them in force.
    Promote,
}

impl Request {
    pub(crate) fn parts(&self) -> &[ComponentUpload] {
        match self {
            Self::Swap(parts) | Self::ShadowStart(parts) => parts,
            _ => &[],
        }
    }
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// This is in force now.
    Published(Revision),
    /// What has been in force, oldest first.
    History(Vec<Revision>),
    /// How the policies in force do.
    Report(Vec<SlotStats>),
    /// How the candidates do.
    Shadow(ShadowReport),
    /// It is done.
    Done,
    /// It was not done, and what was in force is: why.
    Refused(String),
}
