//! The end of a lease, as its pod's SSH server reads it.

use paygress_core::model::units::{Seconds, UnixTime};
use paygress_sshd::LeaseEnd;

/// An end with notices so long before. None: no time that was sold is so far away, or no notice that
/// can be configured.
#[must_use]
pub fn lease_end(at: UnixTime, notices: &[Seconds]) -> Option<LeaseEnd> {
    LeaseEnd::new(at.0, notices.iter().map(|before| before.0).collect()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_in_seconds_and_of_a_time_that_can_be_sold() {
        let end = lease_end(UnixTime(1_000), &[Seconds(600), Seconds(60)]).unwrap();
        assert_eq!(end.to_json(), r#"{"expires_at":1000,"notices_seconds":[600,60]}"#);
        assert_eq!(lease_end(UnixTime(u64::MAX), &[]), None);
    }
}
