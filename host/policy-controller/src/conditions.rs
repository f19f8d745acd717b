//! The status of a `Policy`: its conditions.

use crate::desired::{ApplyStatus, FetchError};
use crate::resource::PolicyStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use paygress_core::backend::policy::{Configured, Slot};

/// The longest message of a condition.
const MESSAGE_CHARS: usize = 4_000;

/// How far the reconciliation of a resource has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    fetched: ConditionState,
    verified: ConditionState,
    valid: ConditionState,
    active: ConditionState,
    /// The resource is in the state that it asks for.
    reached: bool,
    /// When its component takes its settings, if it is in use.
    configured: Option<Configured>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Truth {
    True,
    False,
    #[default]
    Unknown,
}

impl Truth {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

#[derive(Clone, Debug)]
struct ConditionState {
    status: Truth,
    reason: &'static str,
    message: String,
}

impl Default for ConditionState {
    fn default() -> Self {
        Self { status: Truth::Unknown, reason: "Pending", message: String::new() }
    }
}

impl ConditionState {
    fn yes(reason: &'static str) -> Self {
        Self { status: Truth::True, reason, message: String::new() }
    }

    fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: Truth::False, reason, message: message.into() }
    }
}

impl Progress {
    pub(crate) fn invalid_spec(error: &serde_json::Error) -> Self {
        Self { valid: ConditionState::no("InvalidSpec", error.to_string()), ..Self::default() }
    }

    pub(crate) fn slot_taken(slot: Slot) -> Self {
        let message = format!("another, older Policy has the slot {slot}");
        Self { active: ConditionState::no("SlotTaken", message), ..Self::default() }
    }

    pub(crate) fn fetched(result: Result<(), &FetchError>) -> Self {
        let (fetched, verified) = match result {
            Ok(()) => (ConditionState::yes("Fetched"), ConditionState::yes("Verified")),
            Err(error) if error.is_unverified() => {
                (ConditionState::yes("Fetched"), ConditionState::no("Refused", error.to_string()))
            }
            Err(error) => {
                (ConditionState::no("Unavailable", error.to_string()), ConditionState::default())
            }
        };
        Self { fetched, verified, ..Self::default() }
    }

    pub(crate) fn set_applied(&mut self, status: ApplyStatus) {
        self.configured = match status {
            ApplyStatus::Active(configured) | ApplyStatus::Shadowing(configured) => {
                Some(configured)
            }
            _ => None,
        };
        self.reached = self.configured.is_some();
        (self.valid, self.active) = match status {
            ApplyStatus::Active(_) => {
                (ConditionState::yes("Valid"), ConditionState::yes("InForce"))
            }
            ApplyStatus::Shadowing(_) => (
                ConditionState::yes("Valid"),
                ConditionState::no(
                    "Shadow",
                    "it is called beside the active one; see `paygress policy shadow report`",
                ),
            ),
            ApplyStatus::Refused(message) => (
                ConditionState::no("Refused", message),
                ConditionState::no("Refused", "the previously active one stays active"),
            ),
            ApplyStatus::Waiting(message) => {
                (ConditionState::default(), ConditionState::no("Waiting", message))
            }
            ApplyStatus::Superseded(message) => {
                (ConditionState::yes("Valid"), ConditionState::no("Superseded", message))
            }
        };
    }

    /// The summary: true with the reason of `Active`, or false with the first condition that is.
    fn ready(&self) -> ConditionState {
        if self.reached {
            return ConditionState { status: Truth::True, ..self.active.clone() };
        }
        [&self.fetched, &self.verified, &self.valid, &self.active]
            .into_iter()
            .find(|condition| condition.status == Truth::False)
            .cloned()
            .unwrap_or_default()
    }

    /// The status to write. A condition whose status is the same as in `old` keeps its transition
    /// time.
    pub(crate) fn into_status(
        self,
        generation: Option<i64>,
        old: &PolicyStatus,
        now: &Time,
    ) -> PolicyStatus {
        let ready = self.ready();
        let conditions = [
            ("Fetched", self.fetched),
            ("Verified", self.verified),
            ("Valid", self.valid),
            ("Active", self.active),
            ("Ready", ready),
        ];
        let condition = |(type_, state): (&str, ConditionState)| {
            let status = state.status.as_str();
            let since = old
                .conditions
                .iter()
                .find(|old| old.type_ == type_ && old.status == status)
                .map_or(now, |old| &old.last_transition_time);
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: state.reason.to_owned(),
                message: state.message.chars().take(MESSAGE_CHARS).collect(),
                last_transition_time: since.clone(),
                observed_generation: generation,
            }
        };
        PolicyStatus {
            observed_generation: generation,
            configured: self.configured,
            conditions: conditions.into_iter().map(condition).collect(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::Value;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn states(status: &PolicyStatus) -> Vec<String> {
        status
            .conditions
            .iter()
            .map(|condition| {
                format!("{}={} {}", condition.type_, condition.status, condition.reason)
            })
            .collect()
    }

    fn written(progress: Progress) -> Vec<String> {
        states(&progress.into_status(Some(1), &PolicyStatus::default(), &at(0)))
    }

    fn applied(status: ApplyStatus) -> Progress {
        let mut progress = Progress::fetched(Ok(()));
        progress.set_applied(status);
        progress
    }

    #[test]
    fn ready_summarises_what_was_applied() {
        for (status, [valid, active, ready]) in [
            (
                ApplyStatus::Active(Configured::Snapshot),
                ["True Valid", "True InForce", "True InForce"],
            ),
            (
                ApplyStatus::Shadowing(Configured::Snapshot),
                ["True Valid", "False Shadow", "True Shadow"],
            ),
            (
                ApplyStatus::Refused(String::new()),
                ["False Refused", "False Refused", "False Refused"],
            ),
            (
                ApplyStatus::Waiting(String::new()),
                ["Unknown Pending", "False Waiting", "False Waiting"],
            ),
            (
                ApplyStatus::Superseded(String::new()),
                ["True Valid", "False Superseded", "False Superseded"],
            ),
        ] {
            let expected = [
                "Fetched=True Fetched".to_owned(),
                "Verified=True Verified".to_owned(),
                format!("Valid={valid}"),
                format!("Active={active}"),
                format!("Ready={ready}"),
            ];
            assert_eq!(written(applied(status)), expected);
        }
    }

    #[test]
    fn ready_summarises_why_nothing_was_applied() {
        let missing = FetchError::NoConfigMap("pricing".to_owned());
        let other = FetchError::DigestMismatch { found: paygress_oci::Digest::of(b"x") };
        let unfetched = |error: &FetchError| {
            let mut progress = Progress::fetched(Err(error));
            progress.set_applied(ApplyStatus::Waiting("no component".to_owned()));
            progress
        };
        let unknown = ["Fetched=Unknown Pending", "Verified=Unknown Pending"];
        let invalid = serde_json::from_str::<u8>("").unwrap_err();
        for (progress, first, last) in [
            (
                unfetched(&missing),
                ["Fetched=False Unavailable", "Verified=Unknown Pending"],
                ["Valid=Unknown Pending", "Active=False Waiting", "Ready=False Unavailable"],
            ),
            (
                unfetched(&other),
                ["Fetched=True Fetched", "Verified=False Refused"],
                ["Valid=Unknown Pending", "Active=False Waiting", "Ready=False Refused"],
            ),
            (
                Progress::invalid_spec(&invalid),
                unknown,
                ["Valid=False InvalidSpec", "Active=Unknown Pending", "Ready=False InvalidSpec"],
            ),
            (
                Progress::slot_taken(Slot::Pricing),
                unknown,
                ["Valid=Unknown Pending", "Active=False SlotTaken", "Ready=False SlotTaken"],
            ),
        ] {
            assert_eq!(written(progress), [&first[..], &last[..]].concat());
        }
    }

    #[test]
    fn the_message_of_ready_is_that_of_the_first_failure() {
        let missing = FetchError::NoConfigMap("pricing".to_owned());
        let mut progress = Progress::fetched(Err(&missing));
        progress.set_applied(ApplyStatus::Waiting("its component is unavailable".to_owned()));
        let status = progress.into_status(Some(1), &PolicyStatus::default(), &at(0));
        assert_eq!(status.conditions[4].message, missing.to_string());
    }

    #[test]
    fn transition_times_change_with_the_status_only() {
        let first = applied(ApplyStatus::Waiting("a".to_owned()));
        let first = first.into_status(Some(1), &PolicyStatus::default(), &at(10));
        let again = applied(ApplyStatus::Waiting("a".to_owned()));
        assert_eq!(again.into_status(Some(1), &first, &at(20)), first, "nothing is written");
        // Another reason and message, and another generation, are no transition.
        let refused = applied(ApplyStatus::Superseded("b".to_owned()));
        let refused = refused.into_status(Some(2), &first, &at(20));
        let times = |status: &PolicyStatus| -> Vec<Time> {
            status
                .conditions
                .iter()
                .map(|condition| condition.last_transition_time.clone())
                .collect()
        };
        assert_eq!(times(&refused), [at(10), at(10), at(20), at(10), at(10)]);
        assert_eq!(refused.observed_generation, Some(2));
        assert!(refused.conditions.iter().all(|one| one.observed_generation == Some(2)));
        let active = applied(ApplyStatus::Active(Configured::Snapshot)).into_status(
            Some(2),
            &refused,
            &at(30),
        );
        assert_eq!(times(&active), [at(10), at(10), at(20), at(30), at(30)]);
    }

    #[test]
    fn it_shows_when_a_component_in_use_takes_its_settings() {
        let status = |status| applied(status).into_status(None, &PolicyStatus::default(), &at(0));
        for configured in [Configured::EachCall, Configured::Snapshot] {
            for used in [ApplyStatus::Active(configured), ApplyStatus::Shadowing(configured)] {
                assert_eq!(status(used).configured, Some(configured));
            }
        }
        let waiting = status(ApplyStatus::Waiting(String::new()));
        assert_eq!(waiting.configured, None);
        // A merge patch removes what is null, and keeps what is left out.
        assert_eq!(serde_json::to_value(&waiting).unwrap().get("configured"), Some(&Value::Null));
        // A status of an earlier version, and one of a later version.
        for (written, configured) in
            [("{}", None), (r#"{"configured": "snapshot"}"#, Some(Configured::Snapshot))]
        {
            let read: PolicyStatus = serde_json::from_str(written).unwrap();
            assert_eq!(read.configured, configured);
        }
    }

    #[test]
    fn messages_are_bounded() {
        let long = applied(ApplyStatus::Refused("é".repeat(10_000)));
        let status = long.into_status(None, &PolicyStatus::default(), &at(0));
        assert_eq!(status.conditions[2].message.chars().count(), MESSAGE_CHARS);
    }
}
