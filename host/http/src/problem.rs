//! Problem details (RFC 9457), with the stable `error_type` of every door.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use paygress_core::model::refusal::{ErrorType, Refusal};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// What is wrong with a request before it is an order, and has no [`ErrorType`] of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Unauthorized,
    PayloadTooLarge,
    RequestTimeout,
    TooManyRequests,
    NoSuchPage,
    MethodNotAllowed,
}

impl Fault {
    fn token_info(self) -> (&'static str, StatusCode) {
        match self {
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED),
            Self::PayloadTooLarge => ("payload_too_large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::RequestTimeout => ("request_timeout", StatusCode::REQUEST_TIMEOUT),
            Self::TooManyRequests => ("too_many_requests", StatusCode::TOO_MANY_REQUESTS),
            Self::NoSuchPage => ("not_found", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED),
        }
    }
}

/// A problem, as it goes out.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    fields: Map<String, Value>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
}

/// The body of every answer that is not a success (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// `/problems/` and the `error_type`.
    #[serde(rename = "type")]
    kind: String,
    /// The `error_type` in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What happened and what to do.
    detail: String,
    /// The stable code: branch on it.
    error_type: String,
    /// The same as `detail`, as older clients read it.
    message: String,
    /// More, when it helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<String>,
    /// The order, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<String>,
    /// A token that gives back what was taken. Without it nothing was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_token: Option<String>,
    /// What it is worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    refunded_sats: Option<u64>,
}

/// The HTTP status of an error.
pub(crate) fn status_of(code: ErrorType) -> StatusCode {
    match code {
        // A payment that does not fit is a bad request (NUT-24).
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
        ErrorType::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Problem {
    fn build(code: &str, status: StatusCode, message: &str) -> Self {
        let title = code.replace('_', " ");
        let fields = json!({
            "type": format!("/problems/{code}"), "title": title, "status": status.as_u16(), "detail": message,
            "error_type": code, "message": message,
        });
        let fields = if let Value::Object(fields) = fields { fields } else { Map::new() };
        let mut problem = Self { status, fields, headers: Vec::new() };
        if status == StatusCode::SERVICE_UNAVAILABLE || code == ErrorType::TokenPending.as_str() {
            problem = problem.header(header::RETRY_AFTER, HeaderValue::from_static("30"));
        }
        problem
    }

    pub(crate) fn new(fault: Fault, message: &str) -> Self {
        let (code, status) = fault.token_info();
        Self::build(code, status, message)
    }

    pub(crate) fn invalid(message: &str) -> Self {
        Refusal::new(ErrorType::InvalidRequest, message).into()
    }

    /// What to show who has not said who he is.
    pub(crate) fn unauthorized(message: &str) -> Self {
        let challenge = HeaderValue::from_static("Bearer realm=\"paygress\", Nostr, Cashu");
        Self::new(Fault::Unauthorized, message).header(header::WWW_AUTHENTICATE, challenge)
    }

    /// What must be paid first.
    pub(crate) fn payment_required(message: &str) -> Self {
        Self::build("payment_required", StatusCode::PAYMENT_REQUIRED, message)
    }

    /// An answer of the desk that says no.
    pub(crate) fn of_answer(answer: &Value) -> Self {
        let code = answer
            .get("error_type")
            .and_then(Value::as_str)
            .unwrap_or(ErrorType::InternalError.as_str());
        let known: Option<ErrorType> = serde_json::from_value(json!(code)).ok();
        let message = answer.get("message").and_then(Value::as_str).unwrap_or_default();
        let mut problem =
            Self::build(code, known.map_or(StatusCode::INTERNAL_SERVER_ERROR, status_of), message);
        for (name, value) in answer.as_object().into_iter().flatten() {
            // `type` is the kind of an answer there, and the problem's here.
            if name != "type" {
                problem.fields.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        problem
    }

    pub(crate) fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn with(mut self, more: Value) -> Self {
        if let Value::Object(more) = more {
            self.fields.extend(more);
        }
        self
    }

    /// For a gate that knows only yes, 401 and 403 (nginx's `auth_request`).
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self.fields.insert("status".to_owned(), json!(status.as_u16()));
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }
}

/// What an `error_type` means, in a sentence; `None` for any other text.
pub(crate) fn told(code: &str) -> Option<&'static str> {
    let door = [
        (
            "payment_required",
            "The order is not paid for; the answer says what it costs and how to pay.",
        ),
        ("unauthorized", "Say who you are: a bearer token, a NIP-98 signature, or a Cashu token."),
        ("payload_too_large", "The body is longer than any request is."),
        ("request_timeout", "The body came too slowly."),
        ("too_many_requests", "This address asks too often; Retry-After says when to come again."),
        ("method_not_allowed", "This address is not asked with that method."),
    ];
    if let Some((_, meaning)) = door.iter().find(|(name, _)| *name == code) {
        return Some(meaning);
    }
    let code: ErrorType = serde_json::from_value(json!(code)).ok()?;
    Some(match code {
        ErrorType::InvalidRequest => "The request is malformed or contradicts itself.",
        ErrorType::InvalidSpec => "There is no such tier.",
        ErrorType::InvalidToken => {
            "The token cannot be read, is empty, or is locked to somebody else."
        }
        ErrorType::NonWhitelistedMint => {
            "The token is of a mint that this service does not accept."
        }
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
            "One of the operator's policies failed; the operator has been told."
        }
        ErrorType::BackendError => "The cluster refused, or cannot be reached.",
        ErrorType::ProvisioningError => {
            "The pod did not start; refund_token gives back what was taken."
        }
        ErrorType::InternalError => "The service itself is at fault.",
    })
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let mut problem =
            Self::build(refusal.code.as_str(), status_of(refusal.code), &refusal.message);
        if let Some(details) = refusal.details {
            problem.fields.insert("details".to_owned(), details.into());
        }
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(Value::Object(self.fields))).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response.headers_mut().extend(self.headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refund_is_told_in_the_problem() {
        let answer = json!({"type": "error", "error_type": "provisioning_error", "message": "no; refund", "refund_token": "cashuBx"});
        let problem = Problem::of_answer(&answer);
        assert_eq!(
            (problem.status, &problem.fields["type"]),
            (StatusCode::BAD_GATEWAY, &json!("/problems/provisioning_error"))
        );
        assert_eq!(problem.fields["refund_token"], "cashuBx");
    }

    #[test]
    fn what_passes_says_when_to_come_again() {
        let problem = Problem::from(Refusal::new(ErrorType::ResourceUnavailable, "full"));
        assert_eq!(problem.into_response().headers()[header::RETRY_AFTER], "30");
    }
}
