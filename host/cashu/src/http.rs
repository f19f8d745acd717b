//! JSON over HTTP from an untrusted server, with a limit to everything.

use crate::compute::{ComputeShare, compute};
use crate::error::{MintError, ResponseError, UnavailableReason, codes};
use backon::ExponentialBuilder;
use hyper::body::Bytes;
use hyper::header::{DATE, HeaderMap, RETRY_AFTER};
use hyper::http::Result as RequestResult;
use hyper::{Method, Request, StatusCode};
use paygress_core::model::units::{ClockOffset, UnixTime};
use paygress_http_client::{HttpError, Origin, Timeouts};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Proofs in one request: mints accept 1 000 (the default of cdk-mintd).
pub(crate) const MAX_INPUTS: usize = 500;
/// For requests that only read. Mints answer in tenths of a second.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest responses are the signatures of a thousand outputs, at 400 bytes each.
const MAX_RESPONSE_BYTES: usize = 2 << 20;
/// For swaps and payments: the mint writes, and a payment waits for Lightning. Longer than mints'
/// own limits, so that a response is seldom lost.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// The keys of one keyset have 100 bytes each.
const MAX_KEYS_BYTES: usize = 64 << 10;
/// How often a request that only reads is repeated when a server has had too many…
const REPETITIONS: usize = 4;
/// …before the first of them, four times as long before each further one…
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// …and no longer than this. The server may say how long itself…
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// …but no less than this…
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);
/// …and no more: four of them are a minute, the period of most rate limits.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(15);
/// Responses above this may hold hundreds of curve points, and are decoded off the async threads.
const INLINE_DECODE_BYTES: usize = 16 << 10;
/// What is kept of a server's error text.
const MAX_DETAIL_CHARS: usize = 200;

#[derive(Deserialize)]
struct ErrorResponse {
    #[serde(default)]
    code: u32,
    #[serde(default, alias = "error")]
    detail: serde_json::Value,
}

/// What a server may take for one response.
#[derive(Clone, Copy)]
pub(crate) struct ResponseLimits {
    time: Duration,
    bytes: usize,
    /// When it has had too many requests.
    repetitions: usize,
}

impl ResponseLimits {
    pub(crate) const READ: Self =
        Self { time: READ_TIMEOUT, bytes: MAX_RESPONSE_BYTES, repetitions: REPETITIONS };
    /// Not repeated: whatever has no answer is resolved.
    pub(crate) const WRITE: Self =
        Self { time: WRITE_TIMEOUT, bytes: MAX_RESPONSE_BYTES, repetitions: 0 };
    pub(crate) const KEYS: Self =
        Self { time: READ_TIMEOUT, bytes: MAX_KEYS_BYTES, repetitions: REPETITIONS };

    /// The pauses before the repetitions of a request.
    pub(crate) fn repetitions(self) -> ExponentialBuilder {
        ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_factor(4.0)
            .with_max_delay(LONGEST_PAUSE)
            .with_max_times(self.repetitions)
    }
}

/// What a server answered: yes, or no with a reason.
pub(crate) struct JsonResponse {
    origin: Origin,
    /// Of its clock, as far as it says.
    pub(crate) clock: Option<ClockOffset>,
    status: StatusCode,
    body: Bytes,
}

/// Clones share their connections.
#[derive(Clone)]
pub(crate) struct JsonClient(paygress_http_client::HttpClient);

impl JsonClient {
    /// Reads the system's certificates, which blocks: make one and clone it.
    pub(crate) async fn open() -> Result<Self, MintError> {
        compute(|| paygress_http_client::HttpClient::new(Timeouts::all(READ_TIMEOUT)))
            .await
            .map(Self)
            .map_err(|error| MintError::Unavailable(error.into()))
    }

    /// `Ok` is an answer of the server itself, not of a broken or overloaded part of it. `origin` is
    /// the server that has named the URL, if another one has.
    pub(crate) async fn exchange(
        &self,
        origin: Option<&Origin>,
        method: Method,
        url: &str,
        body: Bytes,
        limits: ResponseLimits,
    ) -> Result<JsonResponse, MintError> {
        let request = build(method, url, body)
            .map_err(|error| MintError::Unavailable(UnavailableReason::Url(Box::new(error))))?;
        let timeouts = Timeouts { connect: READ_TIMEOUT, head: limits.time, whole: limits.time };
        let sent = match origin {
            Some(origin) => self.0.send_from(origin, request, timeouts).await,
            None => self.0.send_within(request, timeouts).await,
        };
        let response = sent.map_err(http_error)?;
        let origin = response.origin().clone();
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let clock = clock(response.headers());
        let body = response.bytes(limits.bytes).await.map_err(http_error)?;
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(MintError::Unavailable(UnavailableReason::RateLimited { retry_after }));
        }
        let is_overloaded = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY);
        if is_overloaded || (status.is_server_error() && !gives_reason(&body)) {
            return Err(MintError::Unavailable(UnavailableReason::Status(status)));
        }
        if status.is_redirection() || status.is_informational() {
            return Err(MintError::InvalidResponse(ResponseError::Status(status)));
        }
        Ok(JsonResponse { origin, clock, status, body })
    }

    /// What is at a URL, and the server that has sent it, which may name further ones.
    pub(crate) async fn get<T>(
        &self,
        origin: Option<&Origin>,
        url: &str,
    ) -> Result<(T, Origin), MintError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let (method, limits) = (Method::GET, ResponseLimits::READ);
        let response = self.exchange(origin, method, url, Bytes::new(), limits).await?;
        let origin = response.origin.clone();
        Ok((response.decode(&ComputeShare::half()).await?, origin))
    }
}

fn clock(headers: &HeaderMap) -> Option<ClockOffset> {
    ClockOffset::of_http_date(headers.get(DATE)?.to_str().ok()?, UnixTime::now())
}

/// How long a server wants to have no requests, in seconds; its other form, a date, is not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds).clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER))
}

/// Whether a server error is the mint's own refusal: it names a code of the NUTs' table.
fn gives_reason(body: &Bytes) -> bool {
    body.len() <= INLINE_DECODE_BYTES
        && serde_json::from_slice(body)
            .is_ok_and(|response: ErrorResponse| codes::is_of_table(response.code))
}

fn build(method: Method, url: &str, body: Bytes) -> RequestResult<Request<Bytes>> {
    Request::builder()
        .method(method)
        .uri(url)
        .header("accept", "application/json")
        .header("content-type", "application/json")
        .body(body)
}

fn http_error(error: HttpError) -> MintError {
    match error {
        HttpError::BodyTooLarge { .. }
        | HttpError::TinyPieces { .. }
        | HttpError::Redirect { .. } => MintError::InvalidResponse(ResponseError::Http(error)),
        error => MintError::Unavailable(UnavailableReason::Http(error)),
    }
}

impl JsonResponse {
    pub(crate) async fn decode<T>(self, share: &ComputeShare) -> Result<T, MintError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        if self.body.len() <= INLINE_DECODE_BYTES {
            return self.decode_now();
        }
        share.compute(move || self.decode_now()).await
    }

    fn decode_now<T: DeserializeOwned>(self) -> Result<T, MintError> {
        if self.status.is_success() {
            return serde_json::from_slice(&self.body).map_err(|error| {
                MintError::InvalidResponse(ResponseError::Json {
                    line: error.line(),
                    category: error.classify(),
                })
            });
        }
        let response = serde_json::from_slice(&self.body)
            .unwrap_or(ErrorResponse { code: 0, detail: serde_json::Value::Null });
        let detail = response
            .detail
            .as_str()
            .map_or_else(|| response.detail.to_string(), str::to_owned)
            .chars()
            .take(MAX_DETAIL_CHARS)
            .collect();
        Err(MintError::Rejected { code: response.code, detail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backon::BackoffBuilder;
    use hyper::header::HeaderValue;

    #[test]
    fn reads_are_repeated_four_times_and_writes_never() {
        let pauses = |limits: ResponseLimits| limits.repetitions().build().collect::<Vec<_>>();
        let expected = [250, 1_000, 4_000, 10_000].map(Duration::from_millis);
        assert_eq!(pauses(ResponseLimits::READ), expected);
        assert_eq!(pauses(ResponseLimits::KEYS), expected);
        assert!(pauses(ResponseLimits::WRITE).is_empty());
    }

    #[test]
    fn a_server_says_how_long_to_wait_within_bounds() {
        for (text, expected) in [
            ("0", Some(MIN_RETRY_AFTER)),
            ("2", Some(Duration::from_secs(2))),
            (" 15 ", Some(Duration::from_secs(15))),
            ("3600", Some(MAX_RETRY_AFTER)),
            ("18446744073709551615", Some(MAX_RETRY_AFTER)),
            ("18446744073709551616", None),
            ("-1", None),
            ("", None),
            ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            assert_eq!(retry_after(&headers), expected, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
