//! Why the gateway closes a connection of iroh: a code and a text for people.

/// The codes go over the wire, so they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// Both sides have ended.
    Done,
    LeaseEnded,
    Stopping,
    TooMany,
    Unreachable,
    /// The client has sent nothing.
    Silent,
}

impl CloseReason {
    const ALL: [Self; 6] = [
        Self::Done,
        Self::LeaseEnded,
        Self::Stopping,
        Self::TooMany,
        Self::Unreachable,
        Self::Silent,
    ];

    pub(crate) fn code(self) -> u32 {
        match self {
            Self::Done => 0,
            Self::LeaseEnded => 1,
            Self::Stopping => 2,
            Self::TooMany => 3,
            Self::Unreachable => 4,
            Self::Silent => 5,
        }
    }

    /// None for a code of another version.
    pub(crate) fn from_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| u64::from(reason.code()) == code)
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Done => "",
            Self::LeaseEnded => "the lease of the pod has ended: order a new pod",
            Self::Stopping => "the gateway is being stopped: connect again",
            Self::TooMany => "too many connections are open: close one",
            Self::Unreachable => "the pod cannot be reached: try again",
            Self::Silent => "no SSH client has spoken: connect again",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_one_reason() {
        for (code, reason) in (0..).zip(CloseReason::ALL) {
            assert_eq!(reason.code(), code);
            assert_eq!(CloseReason::from_code(code.into()), Some(reason));
        }
        assert_eq!(CloseReason::from_code(6), None);
    }
}
