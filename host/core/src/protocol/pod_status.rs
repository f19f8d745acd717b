//! How far a pod is, for its customer.

use crate::model::later_name::{LaterName, named_or_later};
use crate::model::lease::LeaseState;

/// How far a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodStatus {
    /// It is being made.
    Provisioning,
    /// It takes logins.
    Running,
    /// It is over.
    Ended,
    /// A status of a later version.
    Later(LaterName),
}

named_or_later!(PodStatus, "How far a pod is.");

impl PodStatus {
    /// All that this version knows.
    pub const ALL: [Self; 3] = [Self::Provisioning, Self::Running, Self::Ended];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Running => "running",
            Self::Ended => "ended",
            Self::Later(name) => name.as_str(),
        }
    }

    /// The status of that name, if this version knows it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

impl From<LeaseState> for PodStatus {
    fn from(state: LeaseState) -> Self {
        match state {
            LeaseState::Reserved => Self::Provisioning,
            LeaseState::Live => Self::Running,
            LeaseState::Ended => Self::Ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{LeaseId, OrderId};
    use crate::model::units::UnixTime;
    use crate::protocol::{Response, sorted, status};
    use crate::testing;
    use serde_json::json;

    /// Who is older than the service reads what it has bought, and its refunds.
    #[test]
    fn answers_with_names_of_a_later_version_are_read() {
        let lease = testing::lease(LeaseId::of(&OrderId::random()), 0, 900);
        let mut written = sorted(&status(&lease, &[], "host", UnixTime(1)));
        written["status"] = "moving".into();
        written["end_reason"] = "moved-away".into();
        written["image_program"] = "paused".into();
        let read: Response = serde_json::from_value(written.clone()).unwrap();
        let Response::Status(found) = &read else { panic!("{read:?}") };
        assert_eq!((found.status.as_str(), found.image_program), ("moving", None));
        written.as_object_mut().unwrap().remove("image_program");
        assert_eq!(sorted(&read), written);

        let refused = json!({
            "type": "error", "error_type": "too_hot", "message": "a test",
            "end_reason": "moved-away", "refund_token": "cashuBrefund", "refunded_sats": 9,
            "refund_fee_sats": 1,
        });
        let read: Response = serde_json::from_value(refused.clone()).unwrap();
        assert!(read.holds_refund());
        assert_eq!(sorted(&read), refused);
    }

    #[test]
    fn a_status_has_one_spelling() {
        for status in PodStatus::ALL {
            let read: PodStatus = serde_json::from_value(status.as_str().into()).unwrap();
            assert_eq!(read, status);
        }
    }
}
