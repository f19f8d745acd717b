//! Registries that are busy: they say so by 429 or 503, and maybe for how long.

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use hyper::StatusCode;
use hyper::header::{HeaderMap, RETRY_AFTER};
use jiff::Timestamp;
use std::time::Duration;

/// A request is sent again this often. The time-out of the whole call bounds it too.
const MAX_RETRIES: usize = 3;
/// A registry that asks for more is reported to the caller, who knows what can wait.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Before the first retry, if the registry does not say; then twice as long. Jitter at most doubles
/// each.
const FIRST_WAIT: Duration = Duration::from_secs(1);

pub(crate) fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// How long to wait before each retry of one request, if the registry does not say.
pub(crate) fn waits() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_WAIT)
        .with_factor(2.0)
        .with_max_times(MAX_RETRIES)
        .with_jitter()
        .build()
}

/// How long to wait before a request is sent once more; none if it is not.
pub(crate) fn wait(
    status: StatusCode,
    headers: &HeaderMap,
    waits: &mut ExponentialBackoff,
) -> Option<Duration> {
    if !is_busy(status) {
        return None;
    }
    let usual = waits.next()?;
    let wait = retry_after(headers, Timestamp::now()).unwrap_or(usual);
    (wait <= MAX_WAIT).then_some(wait)
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
    use std::collections::BTreeSet;

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
    fn waits_double_with_jitter_and_end() {
        let (busy, silent) = (StatusCode::SERVICE_UNAVAILABLE, HeaderMap::new());
        let mut of_one = waits();
        for least in [1, 2, 4].map(Duration::from_secs) {
            let found = wait(busy, &silent, &mut of_one).unwrap();
            assert!((least..=least.saturating_mul(2)).contains(&found), "{least:?}: {found:?}");
        }
        assert_eq!(wait(busy, &silent, &mut of_one), None);
        assert_eq!(wait(busy, &headers("0"), &mut of_one), None);
        let first: BTreeSet<Duration> = (0..8).filter_map(|_| waits().next()).collect();
        assert!(first.len() > 1, "clients of one registry come back together: {first:?}");
    }

    #[test]
    fn what_a_registry_asks_for_is_bounded() {
        for (status, text, expected) in [
            (StatusCode::TOO_MANY_REQUESTS, "10", Some(10)),
            (StatusCode::TOO_MANY_REQUESTS, "11", None),
            (StatusCode::SERVICE_UNAVAILABLE, "0", Some(0)),
            (StatusCode::BAD_GATEWAY, "0", None),
        ] {
            let found = wait(status, &headers(text), &mut waits());
            assert_eq!(found, expected.map(Duration::from_secs), "{status}: {text}");
        }
    }
}
