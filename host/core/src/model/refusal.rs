//! Why a request fails: a stable code, what happened and what to do.

use crate::model::later_name::{LaterName, named_or_later};
use crate::model::lease::EndReason;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The stable codes that go over the wire as `error_type`. Clients branch on them; none is ever
/// renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorType {
    /// The message is malformed or contradicts itself.
    InvalidRequest,
    /// There is no such tier.
    InvalidSpec,
    /// The token cannot be read, is empty, or is locked to somebody else.
    InvalidToken,
    /// The token is of a mint that this service does not accept.
    NonWhitelistedMint,
    /// The token's unit is not sat.
    UnsupportedUnit,
    /// The net amount buys too little.
    InsufficientPayment,
    /// The token was spent before.
    TokenAlreadySpent,
    /// The token is being spent right now, here or elsewhere.
    TokenPending,
    /// The mint cannot be reached.
    MintNetworkError,
    /// The mint answered with an error.
    MintError,
    /// The image is not on the operator's allowlist.
    ImageNotAllowed,
    /// No room now: ports, quota, capacity.
    ResourceUnavailable,
    /// The lease is another customer's.
    NotOwner,
    /// There is no such lease.
    NotFound,
    /// The lease is over.
    LeaseExpired,
    /// A policy failed; the log and the metrics say so.
    PolicyUnavailable,
    /// The cluster refused or cannot be reached.
    BackendError,
    /// The pod did not start.
    ProvisioningError,
    /// A fault of the service itself.
    InternalError,
    /// A code of a later version: the message says what it means.
    Later(LaterName),
}

named_or_later!(ErrorType);

impl ErrorType {
    /// All that this version knows.
    pub const ALL: [Self; 19] = [
        Self::InvalidRequest,
        Self::InvalidSpec,
        Self::InvalidToken,
        Self::NonWhitelistedMint,
        Self::UnsupportedUnit,
        Self::InsufficientPayment,
        Self::TokenAlreadySpent,
        Self::TokenPending,
        Self::MintNetworkError,
        Self::MintError,
        Self::ImageNotAllowed,
        Self::ResourceUnavailable,
        Self::NotOwner,
        Self::NotFound,
        Self::LeaseExpired,
        Self::PolicyUnavailable,
        Self::BackendError,
        Self::ProvisioningError,
        Self::InternalError,
    ];

    /// The code as it goes over the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidSpec => "invalid_spec",
            Self::InvalidToken => "invalid_token",
            Self::NonWhitelistedMint => "non_whitelisted_mint",
            Self::UnsupportedUnit => "unsupported_unit",
            Self::InsufficientPayment => "insufficient_payment",
            Self::TokenAlreadySpent => "token_already_spent",
            Self::TokenPending => "token_pending",
            Self::MintNetworkError => "mint_network_error",
            Self::MintError => "mint_error",
            Self::ImageNotAllowed => "image_not_allowed",
            Self::ResourceUnavailable => "resource_unavailable",
            Self::NotOwner => "not_owner",
            Self::NotFound => "not_found",
            Self::LeaseExpired => "lease_expired",
            Self::PolicyUnavailable => "policy_unavailable",
            Self::BackendError => "backend_error",
            Self::ProvisioningError => "provisioning_error",
            Self::InternalError => "internal_error",
            Self::Later(name) => name.as_str(),
        }
    }

    /// The code of that name, if this version knows it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }

    /// The code that a policy may refuse with (see `wit/1.0/types.wit`); `None` for every other
    /// text.
    #[must_use]
    pub fn of_policy(code: &str) -> Option<Self> {
        [
            Self::InvalidRequest,
            Self::InvalidSpec,
            Self::ImageNotAllowed,
            Self::InsufficientPayment,
            Self::ResourceUnavailable,
            Self::NotOwner,
            Self::LeaseExpired,
        ]
        .into_iter()
        .find(|known| known.as_str() == code)
    }
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: the code, what happened and what to do, and details for the curious. Never holds a
/// secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The stable code.
    pub code: ErrorType,
    /// What happened and what to do.
    pub message: String,
    /// More, when it helps. A record of few bytes leaves it out.
    #[serde(default)]
    pub details: Option<String>,
    /// Why the pod ended, or never ran, if that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
}

impl Refusal {
    /// A refusal without details.
    #[must_use]
    pub fn new(code: ErrorType, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None, end_reason: None }
    }

    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }

    /// Of a pod that has ended, or never ran.
    #[must_use]
    pub fn with_end_reason(mut self, reason: EndReason) -> Self {
        self.end_reason = Some(reason);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_name_is_the_serialised_name() {
        for code in ErrorType::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            let read: ErrorType = serde_json::from_value(code.as_str().into()).unwrap();
            assert_eq!(read, code);
        }
    }

    #[test]
    fn a_refusal_of_a_later_version_is_read_and_written_as_it_was() {
        let refusal = Refusal::new(ErrorType::BackendError, "a test")
            .with_end_reason(EndReason::EndedByOperator);
        let mut json = serde_json::to_value(refusal).unwrap();
        json["code"] = "too_hot".into();
        json["end_reason"] = "moved-away".into();
        let read: Refusal = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(read.to_string(), "too_hot: a test");
        assert_eq!(serde_json::to_value(&read).unwrap(), json);
    }

    #[test]
    fn a_policy_may_not_claim_that_the_token_is_spent() {
        assert_eq!(ErrorType::of_policy("image_not_allowed"), Some(ErrorType::ImageNotAllowed));
        assert_eq!(ErrorType::of_policy("token_already_spent"), None);
        assert_eq!(ErrorType::of_policy(""), None);
    }
}
