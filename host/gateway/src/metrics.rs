//! Counts for metrics: no label has more values than there are here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a customer reaches a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    JumpHost,
    Iroh,
}

impl Way {
    pub const ALL: [Self; 2] = [Self::JumpHost, Self::Iroh];

    /// Its name, as the value of a label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JumpHost => "jump-host",
            Self::Iroh => "iroh",
        }
    }
}

/// Why a client got no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A wrong password, or one for a pod that there is not. Keys are offered by the dozen and not
    /// counted.
    Credentials,
    /// It was dropped before it had authenticated or finished its handshake: it took too long, or
    /// others took its place.
    NotAuthenticated,
    /// It named no lease that is live.
    UnknownLease,
    /// It wanted something else than its pod's SSH port.
    NotPermitted,
    /// It, or its lease, has as many sessions as it may.
    TooMany,
    /// It came too often.
    TooFast,
    /// The lease could not be looked up.
    Lookup,
    /// The pod could not be reached.
    Unreachable,
}

impl Rejection {
    pub const ALL: [Self; 8] = [
        Self::Credentials,
        Self::NotAuthenticated,
        Self::UnknownLease,
        Self::NotPermitted,
        Self::TooMany,
        Self::TooFast,
        Self::Lookup,
        Self::Unreachable,
    ];

    /// Its name, as the value of a label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::NotAuthenticated => "not-authenticated",
            Self::UnknownLease => "unknown-lease",
            Self::NotPermitted => "not-permitted",
            Self::TooMany => "too-many",
            Self::TooFast => "too-fast",
            Self::Lookup => "lookup",
            Self::Unreachable => "unreachable",
        }
    }
}

#[derive(Debug, Default)]
struct OfWay {
    open: AtomicU64,
    opened: AtomicU64,
}

#[derive(Debug, Default)]
struct Rejected {
    credentials: AtomicU64,
    not_authenticated: AtomicU64,
    unknown_lease: AtomicU64,
    not_permitted: AtomicU64,
    too_many: AtomicU64,
    too_fast: AtomicU64,
    lookup: AtomicU64,
    unreachable: AtomicU64,
}

/// What a gateway counts, from its start.
#[derive(Debug, Default)]
pub struct Counts {
    jump: OfWay,
    iroh: OfWay,
    rejected: Rejected,
}

impl Counts {
    /// Sessions that are open now: connections that have passed all checks.
    #[must_use]
    pub fn open_sessions(&self, way: Way) -> u64 {
        self.of(way).open.load(Ordering::Relaxed)
    }

    /// Sessions that were opened.
    #[must_use]
    pub fn sessions(&self, way: Way) -> u64 {
        self.of(way).opened.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn rejections(&self, reason: Rejection) -> u64 {
        self.rejected_for(reason).load(Ordering::Relaxed)
    }

    pub(crate) fn reject(&self, reason: Rejection) {
        self.rejected_for(reason).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a session as open until this is dropped.
    pub(crate) fn open(self: &Arc<Self>, way: Way) -> OpenSession {
        self.of(way).open.fetch_add(1, Ordering::Relaxed);
        self.of(way).opened.fetch_add(1, Ordering::Relaxed);
        OpenSession { counts: Arc::clone(self), way }
    }

    fn of(&self, way: Way) -> &OfWay {
        match way {
            Way::JumpHost => &self.jump,
            Way::Iroh => &self.iroh,
        }
    }

    fn rejected_for(&self, reason: Rejection) -> &AtomicU64 {
        let rejected = &self.rejected;
        match reason {
            Rejection::Credentials => &rejected.credentials,
            Rejection::NotAuthenticated => &rejected.not_authenticated,
            Rejection::UnknownLease => &rejected.unknown_lease,
            Rejection::NotPermitted => &rejected.not_permitted,
            Rejection::TooMany => &rejected.too_many,
            Rejection::TooFast => &rejected.too_fast,
            Rejection::Lookup => &rejected.lookup,
            Rejection::Unreachable => &rejected.unreachable,
        }
    }
}

pub(crate) struct OpenSession {
    counts: Arc<Counts>,
    way: Way,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.counts.of(self.way).open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_reason_has_a_count_and_a_name_of_its_own() {
        let counts = Counts::default();
        let names: BTreeSet<&str> = Rejection::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Rejection::ALL.len());
        for reason in Rejection::ALL {
            counts.reject(reason);
            assert_eq!(counts.rejections(reason), 1, "{reason:?}");
        }
    }

    #[test]
    fn a_session_is_open_until_it_is_dropped() {
        let counts = Arc::new(Counts::default());
        let session = counts.open(Way::JumpHost);
        assert_eq!([1, 0], Way::ALL.map(|way| counts.open_sessions(way)));
        drop(session);
        assert_eq!((counts.open_sessions(Way::JumpHost), counts.sessions(Way::JumpHost)), (0, 1));
    }
}
