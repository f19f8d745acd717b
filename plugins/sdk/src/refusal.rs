//! Refusals: the customer keeps the token.

use crate::contract::types::paygress::policy::types::Refusal;
use crate::problem::truncate_message;
use std::fmt::Display;

/// The codes of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// The order contradicts itself, or cannot be granted as it is.
    InvalidRequest,
    /// There is no such tier.
    InvalidSpec,
    ImageNotAllowed,
    /// The net amount buys less than the minimum, or less than was requested.
    InsufficientPayment,
    /// Not possible now; it may be later.
    ResourceUnavailable,
    NotOwner,
    LeaseExpired,
}

impl RefusalCode {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidSpec => "invalid_spec",
            Self::ImageNotAllowed => "image_not_allowed",
            Self::InsufficientPayment => "insufficient_payment",
            Self::ResourceUnavailable => "resource_unavailable",
            Self::NotOwner => "not_owner",
            Self::LeaseExpired => "lease_expired",
        }
    }
}

/// A refusal. The message tells the customer what happened and what to do; it is cut at 500 bytes.
#[must_use]
pub fn refuse(code: RefusalCode, message: impl Display) -> Refusal {
    Refusal { code: code.as_str().to_owned(), message: truncate_message(&message.to_string()) }
}
