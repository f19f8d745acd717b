//! Problem details (RFC 9457), with the `error_type` of both transports.

use crate::order_handle::OrderHandle;
use crate::sorted_json::SortedJson;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use paygress_core::model::lease::EndReason;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::protocol::{ErrorResponse, SignedReceipt};
use serde::Serialize;
use std::fmt;
use utoipa::ToSchema;

/// What is wrong with a request before it is an order, and has no [`ErrorType`] of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProblemType {
    Unauthorized,
    PayloadTooLarge,
    UnsupportedMediaType,
    RequestTimeout,
    TooManyRequests,
    NoSuchPage,
    MethodNotAllowed,
}

impl ProblemType {
    fn code_and_status(self) -> (&'static str, StatusCode) {
        match self {
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED),
            Self::PayloadTooLarge => ("payload_too_large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE)
            }
            Self::RequestTimeout => ("request_timeout", StatusCode::REQUEST_TIMEOUT),
            Self::TooManyRequests => ("too_many_requests", StatusCode::TOO_MANY_REQUESTS),
            Self::NoSuchPage => ("not_found", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED),
        }
    }
}

/// A problem with its status and headers.
pub(crate) struct Problem {
    status: StatusCode,
    body: Box<ProblemBody>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Tokens in the body stay out of logs.
impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problem")
            .field("status", &self.status)
            .field("error_type", &self.body.error_type)
            .field("message", &self.body.message)
            .finish_non_exhaustive()
    }
}

/// The body of every response that is not a success (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// `/problems/` and the `error_type`.
    #[serde(rename = "type")]
    kind: String,
    /// The `error_type` as text.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What happened and what to do.
    detail: String,
    /// The stable code: branch on it.
    error_type: String,
    /// The same as `detail`, for older clients.
    message: String,
    /// More, when it helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<String>,
    /// The order, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<String>,
    /// Its bearer is the order's customer. Only if the request carried none.
    #[serde(skip_serializing_if = "Option::is_none")]
    bearer_token: Option<String>,
    /// The pod that the order was for, once it was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_name: Option<String>,
    /// Why that pod ended, or never ran, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<EndReason>,
    /// A token that gives back what was taken; null once it is redeemed. Without it nothing was
    /// taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    refund_token: Option<Option<String>>,
    /// Its amount.
    #[serde(skip_serializing_if = "Option::is_none")]
    refunded_sats: Option<u64>,
    /// What making it cost the customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_fee_sats: Option<u64>,
    /// What was decided, signed by the service, with a refund.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SignedReceipt>)]
    receipt: Option<Box<SignedReceipt>>,
}

/// The HTTP status of an error.
pub(crate) fn status_of(code: ErrorType) -> StatusCode {
    match code {
        // A payment that does not match is a bad request (NUT-24).
        ErrorType::InvalidRequest
        | ErrorType::InvalidSpec
        | ErrorType::InvalidToken
        | ErrorType::NonWhitelistedMint
        | ErrorType::UnsupportedUnit
        | ErrorType::InsufficientPayment
        | ErrorType::ImageNotAllowed => StatusCode::BAD_REQUEST,
        ErrorType::NotOwner => StatusCode::FORBIDDEN,
        ErrorType::NotFound => StatusCode::NOT_FOUND,
        ErrorType::TokenAlreadySpent | ErrorType::TokenPending => StatusCode::CONFLICT,
        ErrorType::LeaseExpired => StatusCode::GONE,
        ErrorType::MintError | ErrorType::ProvisioningError => StatusCode::BAD_GATEWAY,
        ErrorType::MintNetworkError
        | ErrorType::ResourceUnavailable
        | ErrorType::PolicyUnavailable
        | ErrorType::BackendError => StatusCode::SERVICE_UNAVAILABLE,
        // One that a later version has stored.
        ErrorType::InternalError | ErrorType::Later(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Problem {
    fn build(code: &str, status: StatusCode, message: &str) -> Self {
        let body = ProblemBody {
            kind: format!("/problems/{code}"),
            title: code.replace('_', " "),
            status: status.as_u16(),
            detail: message.to_owned(),
            error_type: code.to_owned(),
            message: message.to_owned(),
            details: None,
            order_id: None,
            bearer_token: None,
            pod_name: None,
            end_reason: None,
            refund_token: None,
            refunded_sats: None,
            refund_fee_sats: None,
            receipt: None,
        };
        let problem = Self { status, body: Box::new(body), headers: Vec::new() };
        if status == StatusCode::SERVICE_UNAVAILABLE || code == ErrorType::TokenPending.as_str() {
            return problem.header(header::RETRY_AFTER, HeaderValue::from_static("30"));
        }
        problem
    }

    pub(crate) fn new(problem_type: ProblemType, message: &str) -> Self {
        let (code, status) = problem_type.code_and_status();
        Self::build(code, status, message)
    }

    pub(crate) fn invalid(message: &str) -> Self {
        Refusal::new(ErrorType::InvalidRequest, message).into()
    }

    pub(crate) fn internal(message: &str) -> Self {
        Refusal::new(ErrorType::InternalError, message).into()
    }

    pub(crate) fn unauthorized(message: &str) -> Self {
        let challenge = HeaderValue::from_static("Bearer realm=\"paygress\", Nostr, Cashu");
        Self::new(ProblemType::Unauthorized, message).header(header::WWW_AUTHENTICATE, challenge)
    }

    pub(crate) fn operator_disabled() -> Self {
        let message = "there is no operator's view; set OPERATOR_TOKEN to have one";
        Self::new(ProblemType::NoSuchPage, message)
    }

    pub(crate) fn operator_only() -> Self {
        Self::unauthorized("this is for the operator: Authorization: Bearer, with OPERATOR_TOKEN")
    }

    pub(crate) fn payment_required(message: &str) -> Self {
        Self::build("payment_required", StatusCode::PAYMENT_REQUIRED, message)
    }

    /// The order service's response that an order failed.
    pub(crate) fn of_response(error: &ErrorResponse) -> Self {
        let code = error.error_type;
        let mut problem = Self::build(code.as_str(), status_of(code), &error.message);
        problem.body.details.clone_from(&error.details);
        problem.body.pod_name.clone_from(&error.pod_name);
        problem.body.end_reason = error.end_reason;
        problem.body.receipt.clone_from(&error.receipt);
        if let Some(refund) = &error.refund {
            let token = refund.refund_token.as_ref().map(|token| token.expose().to_owned());
            problem.body.refund_token = Some(token);
            problem.body.refunded_sats = Some(refund.refunded_sats);
            problem.body.refund_fee_sats = Some(refund.refund_fee_sats);
        }
        problem
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn with_handle(mut self, handle: OrderHandle) -> Self {
        self.body.order_id = Some(handle.order_id);
        self.body.bearer_token = handle.bearer_token;
        self
    }

    /// For a proxy that understands only success, 401 and 403 (nginx's `auth_request`).
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self.body.status = status.as_u16();
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The problem as a part of a longer body.
    pub(crate) fn into_response_as<B: Serialize>(
        self,
        extend: impl FnOnce(ProblemBody) -> B,
    ) -> Response {
        let mut response = (self.status, SortedJson(extend(*self.body))).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response.headers_mut().extend(self.headers);
        response
    }
}

/// What an `error_type` means, in a sentence; `None` for any other text.
pub(crate) fn describe_error(code: &str) -> Option<&'static str> {
    let http_only = [
        (
            "payment_required",
            "The order is not paid for; the answer says what it costs and how to pay.",
        ),
        ("unauthorized", "Authenticate with a bearer token, a NIP-98 signature, or a Cashu token."),
        ("payload_too_large", "The body is longer than any request is."),
        ("unsupported_media_type", "The body is compressed; send it as it is."),
        ("request_timeout", "The body came too slowly."),
        (
            "too_many_requests",
            "Too many requests from this address; wait for the time in Retry-After.",
        ),
        ("method_not_allowed", "The path does not support this method."),
    ];
    if let Some((_, meaning)) = http_only.iter().find(|(name, _)| *name == code) {
        return Some(meaning);
    }
    Some(match ErrorType::named(code)? {
        ErrorType::InvalidRequest => "The request is malformed or contradicts itself.",
        ErrorType::InvalidSpec => "There is no such tier.",
        ErrorType::InvalidToken => "The token is unreadable, empty, or locked to another key.",
        ErrorType::NonWhitelistedMint => "The service does not accept tokens of this mint.",
        ErrorType::UnsupportedUnit => "The token's unit is not sat.",
        ErrorType::InsufficientPayment => "What is left after the mint's fee buys too little.",
        ErrorType::TokenAlreadySpent => "The token was spent before; send a fresh one.",
        ErrorType::TokenPending => "The token is being spent right now, here or elsewhere.",
        ErrorType::MintNetworkError => {
            "The token's mint cannot be reached; the token is still good."
        }
        ErrorType::MintError => "The mint answered with an error.",
        ErrorType::ImageNotAllowed => "The image is not on the operator's list.",
        ErrorType::ResourceUnavailable => "There is no room now: ports, quota or capacity.",
        ErrorType::NotOwner => "The pod or order is another customer's.",
        ErrorType::NotFound => "There is no such thing.",
        ErrorType::LeaseExpired => "The pod has ended.",
        ErrorType::PolicyUnavailable => {
            "One of the operator's policies failed; the reason is in the operator's log."
        }
        ErrorType::BackendError => "The cluster refused, or cannot be reached.",
        ErrorType::ProvisioningError => {
            "The pod did not start; refund_token gives back what was taken."
        }
        ErrorType::InternalError => "The service itself is at fault.",
        ErrorType::Later(_) => return None,
    })
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let mut problem =
            Self::build(refusal.code.as_str(), status_of(refusal.code), &refusal.message);
        problem.body.details = refusal.details;
        problem.body.end_reason = refusal.end_reason;
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.into_response_as(|body| body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use serde_json::Value;

    /// What version 0.1.0 sent for each of its responses and refusals.
    const RECORDED: &str = include_str!("../../cli/tests/fixtures/v0.1.0/wire/problems.jsonl");

    async fn body(problem: Problem) -> (Vec<(String, String)>, String) {
        let (parts, body) = problem.into_response().into_parts();
        let headers = parts.headers.iter();
        let mut headers: Vec<(String, String)> = headers
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        headers.sort();
        let body = body.collect().await.unwrap().to_bytes();
        (headers, String::from_utf8(body.to_vec()).unwrap())
    }

    /// A problem that no response or refusal was recorded with.
    fn problem_named(name: &str) -> Problem {
        let problem_type = match name {
            "payload too large" => ProblemType::PayloadTooLarge,
            "request timeout" => ProblemType::RequestTimeout,
            "too many requests" => ProblemType::TooManyRequests,
            "no such page" => ProblemType::NoSuchPage,
            "method not allowed" => ProblemType::MethodNotAllowed,
            "unauthorized" => return Problem::unauthorized("what happened"),
            "payment required" => return Problem::payment_required("what happened"),
            other => panic!("{other} is no problem"),
        };
        Problem::new(problem_type, "what happened")
    }

    #[tokio::test]
    async fn problems_have_the_bytes_of_version_0_1_0() {
        let mut compared = 0;
        for line in RECORDED.lines() {
            let recorded: Value = serde_json::from_str(line).unwrap();
            let input = recorded["input"].clone();
            let problem = if let Some(refusal) = input.get("refusal") {
                Problem::from(Refusal {
                    code: serde_json::from_value(refusal["code"].clone()).unwrap(),
                    message: refusal["message"].as_str().unwrap().to_owned(),
                    details: refusal["details"].as_str().map(str::to_owned),
                    end_reason: None,
                })
            } else if input.is_object() {
                Problem::of_response(&serde_json::from_value(input).unwrap())
            } else {
                problem_named(recorded["name"].as_str().unwrap().rsplit(": ").next().unwrap())
            };
            assert_eq!(u64::from(problem.status.as_u16()), recorded["status"], "{line}");
            let mut headers: Vec<(String, String)> =
                serde_json::from_value(recorded["headers"].clone()).unwrap();
            headers.sort();
            assert_eq!(
                body(problem).await,
                (headers, recorded["body"].as_str().unwrap().to_owned()),
                "{line}"
            );
            compared += 1;
        }
        assert_eq!(compared, 71);
    }

    #[tokio::test]
    async fn the_problem_carries_the_refund() {
        let error: ErrorResponse = serde_json::from_str(
            r#"{"type": "error", "error_type": "provisioning_error", "message": "no; refund",
                "refund_token": "cashuBx", "refunded_sats": 7, "refund_fee_sats": 1}"#,
        )
        .unwrap();
        let problem = Problem::of_response(&error);
        assert!(!format!("{problem:?}").contains("cashuBx"), "a token is in Debug");
        assert_eq!(problem.status, StatusCode::BAD_GATEWAY);
        let body: Value = serde_json::from_str(&body(problem).await.1).unwrap();
        assert_eq!(body["type"], "/problems/provisioning_error");
        assert_eq!(body["refund_token"], "cashuBx");
    }

    #[test]
    fn a_temporary_problem_says_when_to_retry() {
        let problem = Problem::from(Refusal::new(ErrorType::ResourceUnavailable, "full"));
        assert_eq!(problem.into_response().headers()[header::RETRY_AFTER], "30");
    }

    #[test]
    fn every_error_type_has_a_description() {
        // Those of `ErrorType` are described by an exhaustive match.
        let problem_types = [
            ProblemType::Unauthorized,
            ProblemType::PayloadTooLarge,
            ProblemType::RequestTimeout,
            ProblemType::TooManyRequests,
            ProblemType::NoSuchPage,
            ProblemType::MethodNotAllowed,
            ProblemType::UnsupportedMediaType,
        ];
        for (code, _) in problem_types.map(ProblemType::code_and_status) {
            assert!(describe_error(code).is_some(), "{code}");
        }
        assert!(describe_error("payment_required").is_some());
        assert!(describe_error("no_such_code").is_none());
    }
}
