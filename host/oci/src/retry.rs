//! Registries that are busy: they say so by 429 or 503, and maybe for how long.

use hyper::StatusCode;
use hyper::header::{HeaderMap, RETRY_AFTER};
use jiff::Timestamp;
use std::time::Duration;

/// A request is sent again this often. The time-out of the whole call bounds it too.
const MAX_RETRIES: u32 = 3;
/// A registry that asks for more is reported to the caller, who knows what can wait.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Before the first retry, if the registry does not say; then twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);

pub(crate) fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// How long to wait before a request that was sent `retries` times again is sent once more.
pub(crate) fn wait(status: StatusCode, headers: &HeaderMap, retries: u32) -> Option<Duration> {
    let usual = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(retries));
    let wait = retry_after(headers, Timestamp::now()).unwrap_or(usual);
    (is_busy(status) && retries < MAX_RETRIES && wait <= MAX_WAIT).then_some(wait)
}

/// What the header says: seconds, or a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))])
    }

    #[test]
    fn the_header_is_read_in_both_forms() {
        let now: Timestamp = "2026-11-27T06:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("0", Some(0)),
            (" 7 ", Some(7)),
            ("Fri, 27 Nov 2026 06:00:09 GMT", Some(9)),
            ("Fri, 27 Nov 2026 05:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("99999999999999999999", None),
        ] {
            let found = retry_after(&headers(text), now);
            assert_eq!(found, expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn waiting_is_bounded() {
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        let seconds = |status, headers: &HeaderMap, retries| {
            wait(status, headers, retries).map(|wait| wait.as_secs())
        };
        let silent = HeaderMap::new();
        assert_eq!(
            [0, 1, 2, 3].map(|each| seconds(busy, &silent, each)),
            [Some(1), Some(2), Some(4), None]
        );
        assert_eq!(seconds(StatusCode::TOO_MANY_REQUESTS, &headers("10"), 0), Some(10));
        assert_eq!(seconds(StatusCode::TOO_MANY_REQUESTS, &headers("11"), 0), None);
        assert_eq!(seconds(busy, &headers("0"), 3), None);
        assert_eq!(seconds(StatusCode::BAD_GATEWAY, &headers("0"), 0), None);
    }
}
