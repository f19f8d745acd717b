//! What is recorded of each change of the active policies. The JSON forms are stored in
//! `history.jsonl` and sent over the admin socket: they stay as they are.

use crate::set::{Source, Sources};
use paygress_core::backend::policy::Slot;
use paygress_core::model::ids::HexDigest;
use paygress_core::model::units::UnixTime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A component by its digest, and its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentRef {
    /// Of the component.
    pub digest: HexDigest,
    /// A JSON object.
    pub settings: String,
}

impl ComponentRef {
    #[must_use]
    pub fn of(source: &Source) -> Self {
        Self { digest: HexDigest::of(&source.component), settings: source.settings.clone() }
    }
}

/// References for some of the slots, or for all.
pub type ComponentRefs = BTreeMap<Slot, ComponentRef>;

/// The references of these components.
#[must_use]
pub fn component_refs(sources: &Sources) -> ComponentRefs {
    sources.iter().map(|(slot, source)| (*slot, ComponentRef::of(source))).collect()
}

/// Why a revision was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// The process started, with what the directory and the configuration held.
    Start,
    /// A file in the directory changed.
    #[serde(rename = "folder")]
    PolicyDir,
    /// An operator's command.
    Operator,
    /// An operator promoted a shadow.
    Promotion,
    /// A `Policy` resource.
    Resource,
    /// An operator went back to this revision.
    Rollback(u64),
}

impl Trigger {
    /// Whether an operator decided it, rather than a file, a resource or a start.
    pub(crate) fn is_manual(self) -> bool {
        matches!(self, Self::Operator | Self::Promotion | Self::Rollback(_))
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::PolicyDir => f.write_str("policy-dir"),
            Self::Operator => f.write_str("operator"),
            Self::Promotion => f.write_str("promotion"),
            Self::Resource => f.write_str("resource"),
            Self::Rollback(to) => write!(f, "rollback to {to}"),
        }
    }
}

/// One change of the active policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// 1, 2, 3…
    pub number: u64,
    pub at: UnixTime,
    #[serde(rename = "by")]
    pub trigger: Trigger,
    /// The slots that it changed, or whose owner it changed.
    pub slots: Vec<Slot>,
    /// The slots that it assigned to `Policy` resources, each with that resource's version.
    #[serde(rename = "wishes", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub desired: BTreeMap<Slot, String>,
    /// What is active from then on.
    pub set: ComponentRefs,
    /// What the directory and the configuration held when they were last accepted: only a
    /// difference from this is a change.
    #[serde(rename = "folder")]
    pub policy_dir: ComponentRefs,
}

impl Revision {
    /// The revision after these, of now, without changes yet.
    pub(crate) fn next(revisions: &[Self]) -> Self {
        let number = revisions.last().map_or(0, |last| last.number).saturating_add(1);
        let (slots, desired, set, policy_dir) = Default::default();
        Self {
            number,
            at: UnixTime::now(),
            trigger: Trigger::Start,
            slots,
            desired,
            set,
            policy_dir,
        }
    }
}

/// The version of the resource that owns a slot: the last revision that changed the slot came from
/// that resource.
pub(crate) fn desired_version(revisions: &[Revision], slot: Slot) -> Option<&str> {
    revisions
        .iter()
        .rfind(|revision| revision.slots.contains(&slot))?
        .desired
        .get(&slot)
        .map(String::as_str)
}

/// The revision whose set this one made active: itself, or the one that it went back to.
fn resolved<'a>(revisions: &'a [Revision], mut revision: &'a Revision) -> Option<&'a Revision> {
    while let Trigger::Rollback(to) = revision.trigger {
        revision = revisions.iter().find(|earlier| earlier.number == to && to < revision.number)?;
    }
    Some(revision)
}

/// The revision to go back to: the one before the active one. Going back again goes back further;
/// `None` if there is no earlier one.
pub(crate) fn previous(revisions: &[Revision]) -> Option<&Revision> {
    let active = resolved(revisions, revisions.last()?)?;
    let mut at = active;
    while at.set == active.set {
        at = resolved(
            revisions,
            revisions.iter().rev().find(|earlier| earlier.number < at.number)?,
        )?;
    }
    Some(at)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn revision(number: u64, trigger: Trigger, component: &str) -> Revision {
        let digest = HexDigest::of(component);
        let component_ref = ComponentRef { digest, settings: "{}".to_owned() };
        Revision {
            number,
            at: UnixTime(number),
            trigger,
            slots: vec![],
            desired: BTreeMap::new(),
            set: BTreeMap::from([(Slot::Pricing, component_ref)]),
            policy_dir: ComponentRefs::new(),
        }
    }

    #[test]
    fn going_back_twice_goes_back_further_and_never_forward() {
        let mut all = vec![
            revision(1, Trigger::Start, "a"),
            revision(2, Trigger::PolicyDir, "b"),
            revision(3, Trigger::Operator, "c"),
        ];
        assert_eq!(previous(&all).unwrap().number, 2);
        all.push(revision(4, Trigger::Rollback(2), "b"));
        assert_eq!(previous(&all).unwrap().number, 1);
        all.push(revision(5, Trigger::Rollback(1), "a"));
        assert_eq!(previous(&all), None);
        all.push(revision(6, Trigger::Operator, "d"));
        assert_eq!(previous(&all).unwrap().number, 1, "not to what was rolled back");
    }

    /// Lines that the first version wrote are read, and written the same.
    #[test]
    fn the_stored_form_is_that_of_the_first_version() {
        let lines = [
            r#"{"number":1,"at":1767268800,"by":"start","slots":["images","pricing","duration","pod-template"],"set":{"pricing":{"digest":"a","settings":"{}"}},"folder":{"pricing":{"digest":"a","settings":"{}"}}}"#,
            r#"{"number":2,"at":1767268801,"by":"folder","slots":["pricing"],"set":{},"folder":{}}"#,
            r#"{"number":3,"at":1767268802,"by":"operator","slots":[],"set":{},"folder":{}}"#,
            r#"{"number":4,"at":1767268803,"by":"promotion","slots":[],"set":{},"folder":{}}"#,
            r#"{"number":5,"at":1767268804,"by":"resource","slots":["pricing"],"wishes":{"pricing":"uid 1"},"set":{},"folder":{}}"#,
            r#"{"number":6,"at":1767268805,"by":{"rollback":2},"slots":["pricing"],"set":{},"folder":{}}"#,
        ];
        for line in lines {
            let revision: Revision = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&revision).unwrap(), line);
        }
    }
}
