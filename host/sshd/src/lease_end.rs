//! When the lease of a pod ends, and what its terminals show of that.

use crate::date::{DAY, civil, hour_and_minute};
use serde::Deserialize;
use serde_json::json;

/// The file with a [`LeaseEnd`].
pub const END_FILE: &str = "end.json";
/// The longest such file. One with eight notices has some 120 bytes.
pub(crate) const MAX_END_BYTES: u64 = 1_024;
/// What the service configures at most.
const MAX_NOTICES: usize = 8;
const MAX_NOTICE_SECONDS: u64 = DAY;
/// The end of the year 9999.
const MAX_TIME: u64 = 253_402_300_799;
/// A pod that is stopped so few seconds before its end has had its time: the clock of its node is
/// not the service's.
const CLOCKS_DIFFER: u64 = 10;
/// Less is shown in seconds, or in minutes.
const IN_MINUTES: u64 = 45;
const IN_HOURS: u64 = 7_200;

/// When a lease ends, and how long before there are notices.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Fields")]
pub struct LeaseEnd {
    expires_at: u64,
    notices_seconds: Vec<u64>,
}

/// As they are in the file. Others are passed over: a later service may write more.
#[derive(Deserialize)]
struct Fields {
    expires_at: u64,
    notices_seconds: Vec<u64>,
}

/// Why this is not the end of a lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseEndError {
    #[error("longer than {MAX_END_BYTES} bytes")]
    TooLong,
    #[error("expires_at is later than the year 9999")]
    Late,
    #[error(
        "notices_seconds has more than {MAX_NOTICES} numbers, or one not from 1 to {MAX_NOTICE_SECONDS}"
    )]
    Notices,
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl TryFrom<Fields> for LeaseEnd {
    type Error = LeaseEndError;

    fn try_from(fields: Fields) -> Result<Self, LeaseEndError> {
        Self::new(fields.expires_at, fields.notices_seconds)
    }
}

impl LeaseEnd {
    /// An end in seconds since the Unix epoch, with notices so many seconds before.
    ///
    /// # Errors
    /// A number is out of its range.
    pub fn new(expires_at: u64, notices_seconds: Vec<u64>) -> Result<Self, LeaseEndError> {
        let is_notice = |before: &u64| (1..=MAX_NOTICE_SECONDS).contains(before);
        if expires_at > MAX_TIME {
            Err(LeaseEndError::Late)
        } else if notices_seconds.len() > MAX_NOTICES || !notices_seconds.iter().all(is_notice) {
            Err(LeaseEndError::Notices)
        } else {
            Ok(Self { expires_at, notices_seconds })
        }
    }

    /// Reads what [`LeaseEnd::to_json`] has written.
    ///
    /// # Errors
    /// [`LeaseEndError`].
    pub fn parse(json: &[u8]) -> Result<Self, LeaseEndError> {
        if u64::try_from(json.len()).map_or(true, |length| length > MAX_END_BYTES) {
            return Err(LeaseEndError::TooLong);
        }
        Ok(serde_json::from_slice(json)?)
    }

    /// The content of [`END_FILE`].
    #[must_use]
    pub fn to_json(&self) -> String {
        let Self { expires_at, notices_seconds } = self;
        json!({"expires_at": expires_at, "notices_seconds": notices_seconds}).to_string()
    }

    /// Seconds since the Unix epoch.
    #[must_use]
    pub const fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// The latest notice whose time has come: how long before the end it is.
    fn latest(&self, now: u64) -> Option<u64> {
        let left = self.expires_at.checked_sub(now).filter(|left| *left > 0)?;
        self.notices_seconds.iter().copied().filter(|before| left <= *before).min()
    }

    fn notice(&self, now: u64) -> String {
        let (at, left) = (clock(self.expires_at, now), length(self.expires_at.saturating_sub(now)));
        format!("This pod ends at {at}, in {left}. To extend it, send a token with its pod_name.")
    }
}

/// `14:05 UTC`, with the date if it is another day's.
fn clock(time: u64, now: u64) -> String {
    let (hour, minute) = hour_and_minute(time);
    let days = time.div_euclid(DAY);
    if days == now.div_euclid(DAY) {
        return format!("{hour:02}:{minute:02} UTC");
    }
    let (year, month, day) = civil(days);
    let month = month.saturating_add(1);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// `10 minutes`
fn length(seconds: u64) -> String {
    let rounded = |unit: u64| seconds.saturating_add(unit.div_euclid(2)).div_euclid(unit);
    let (count, unit) = match seconds {
        0..IN_MINUTES => (seconds, "second"),
        IN_MINUTES..IN_HOURS => (rounded(60), "minute"),
        _ => (rounded(3_600), "hour"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// What is known of the end, and what terminals have had of it. Times are seconds since the Unix
/// epoch.
#[derive(Default)]
pub(crate) struct EndNotices {
    end: Option<LeaseEnd>,
    /// The latest notice of this end that was given.
    given: Option<u64>,
}

impl EndNotices {
    /// Replaces the end. A text if it is a later one, and a notice of the former was given.
    pub(crate) fn set(&mut self, end: LeaseEnd, now: u64) -> Option<String> {
        let (expires_at, latest) = (end.expires_at, end.latest(now));
        let former = self.end.replace(end).map(|former| former.expires_at);
        if former == Some(expires_at) {
            return None;
        }
        let had_notice = self.given.take().is_some();
        if !had_notice || former.is_none_or(|former| expires_at < former) {
            return None;
        }
        // The text has the new end: notices whose time has come already would only repeat it.
        self.given = latest;
        Some(format!("This pod was extended until {}.", clock(expires_at, now)))
    }

    /// The text of the notice that is due, once.
    pub(crate) fn due_notice(&mut self, now: u64) -> Option<String> {
        let end = self.end.as_ref()?;
        let latest = end.latest(now)?;
        if self.given.is_some_and(|given| given <= latest) {
            return None;
        }
        self.given = Some(latest);
        Some(end.notice(now))
    }

    /// What a terminal shows that is opened now.
    pub(crate) fn at_login(&self, now: u64) -> Option<String> {
        let end = self.end.as_ref()?;
        end.latest(now).map(|_| end.notice(now))
    }

    /// In how many seconds the next notice is due.
    pub(crate) fn until_next(&self, now: u64) -> Option<u64> {
        let end = self.end.as_ref()?;
        let times = end.notices_seconds.iter().map(|before| end.expires_at.saturating_sub(*before));
        times.filter_map(|at| at.checked_sub(now).filter(|left| *left > 0)).min()
    }

    /// What terminals show when the pod is stopped; none if its end is not known.
    pub(crate) fn last(&self, now: u64) -> Option<&'static str> {
        let end = self.end.as_ref()?;
        let is_over = end.expires_at <= now.saturating_add(CLOCKS_DIFFER);
        Some(if is_over {
            "This pod ends: its time is over."
        } else {
            "This pod is stopped before its time is over."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 31 January 2025, 14:05:00.
    const END: u64 = 1_738_332_300;

    fn end(expires_at: u64) -> LeaseEnd {
        LeaseEnd::new(expires_at, vec![600, 60]).unwrap()
    }

    fn notices(expires_at: u64) -> EndNotices {
        let mut notices = EndNotices::default();
        assert_eq!(notices.set(end(expires_at), expires_at.saturating_sub(3_600)), None);
        notices
    }

    #[test]
    fn what_is_written_is_read_and_all_else_is_refused() {
        let written = end(END).to_json();
        assert_eq!(written, r#"{"expires_at":1738332300,"notices_seconds":[600,60]}"#);
        assert_eq!(LeaseEnd::parse(written.as_bytes()).unwrap(), end(END));
        let more = r#"{"expires_at":1,"notices_seconds":[],"of_a_later_version":{}}"#;
        assert_eq!(LeaseEnd::parse(more.as_bytes()).unwrap().expires_at(), 1);
        let padded = format!("{}{written}", " ".repeat(1_024));
        for wrong in [
            "",
            "{}",
            "[1738332300,[600]]x",
            r#"{"expires_at":1738332300}"#,
            r#"{"expires_at":-1,"notices_seconds":[]}"#,
            r#"{"expires_at":1.5,"notices_seconds":[]}"#,
            r#"{"expires_at":"1738332300","notices_seconds":[]}"#,
            r#"{"expires_at":253402300800,"notices_seconds":[]}"#,
            r#"{"expires_at":1,"notices_seconds":[0]}"#,
            r#"{"expires_at":1,"notices_seconds":[86401]}"#,
            r#"{"expires_at":1,"notices_seconds":[1,2,3,4,5,6,7,8,9]}"#,
            r#"{"expires_at":1,"expires_at":2,"notices_seconds":[]}"#,
            &format!("{written} x"),
            &padded,
        ] {
            assert!(LeaseEnd::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_notice_is_given_once_when_it_is_due() {
        let mut notices = notices(END);
        assert_eq!((notices.due_notice(END - 601), notices.until_next(END - 601)), (None, Some(1)));
        assert_eq!(notices.at_login(END - 601), None);
        let text = "This pod ends at 14:05 UTC, in 10 minutes. To extend it, send a token with its pod_name.";
        assert_eq!(notices.due_notice(END - 600).as_deref(), Some(text));
        assert_eq!(
            (notices.due_notice(END - 599), notices.until_next(END - 599)),
            (None, Some(539))
        );
        let at_login = notices.at_login(END - 300).unwrap();
        assert!(at_login.contains("at 14:05 UTC, in 5 minutes."), "{at_login}");
        assert!(notices.due_notice(END - 59).unwrap().contains("in 1 minute."));
        assert_eq!((notices.due_notice(END - 58), notices.until_next(END - 58)), (None, None));
        assert_eq!((notices.due_notice(END), notices.at_login(END)), (None, None));
    }

    #[test]
    fn of_several_that_were_missed_the_last_one_is_given() {
        let mut notices = notices(END);
        assert!(notices.due_notice(END - 30).unwrap().contains("in 30 seconds."));
        assert_eq!(notices.due_notice(END - 29), None);
    }

    #[test]
    fn an_extension_is_shown_to_whoever_has_had_a_notice() {
        let mut notices = notices(END);
        assert_eq!(notices.set(end(END + 60), END - 700), None, "nobody has had a notice");
        assert!(notices.due_notice(END - 540).is_some());
        assert_eq!(notices.set(end(END + 60), END - 530), None, "the same end");
        assert_eq!(notices.due_notice(END - 530), None);
        let text = "This pod was extended until 14:15 UTC.";
        assert_eq!(notices.set(end(END + 600), END + 30).as_deref(), Some(text));
        assert_eq!(
            notices.due_notice(END + 30),
            None,
            "its ten minutes have begun, and it has that end"
        );
        assert!(notices.due_notice(END + 540).unwrap().contains("14:15 UTC, in 1 minute."));
        let text = "This pod was extended until 2025-02-01 14:05 UTC.";
        assert_eq!(notices.set(end(END + DAY), END + 545).as_deref(), Some(text));
        assert_eq!(notices.until_next(END + 545), Some(DAY - 600 - 545));
        assert_eq!(notices.set(end(END + 2 * DAY), END + 550), None, "no notice of this end yet");
    }

    #[test]
    fn the_last_line_has_the_reason() {
        assert_eq!(EndNotices::default().last(END), None);
        let notices = notices(END);
        for now in [END - 10, END, END + 60] {
            assert_eq!(notices.last(now), Some("This pod ends: its time is over."));
        }
        let early = Some("This pod is stopped before its time is over.");
        assert_eq!(notices.last(END - 11), early);
    }

    #[test]
    fn lengths_are_short() {
        for (seconds, text) in [
            (1, "1 second"),
            (44, "44 seconds"),
            (59, "1 minute"),
            (599, "10 minutes"),
            (7_199, "120 minutes"),
            (7_200, "2 hours"),
            (86_400, "24 hours"),
        ] {
            assert_eq!(length(seconds), text);
        }
    }
}
