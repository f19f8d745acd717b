//! Responses to customers.

use super::access_way::{AccessWay, known, known_or_none};
use super::fields::from_json;
use super::pod_http::PodHttp;
use super::pod_status::PodStatus;
use super::receipt::SignedReceipt;
use super::shape::check_length;
use crate::model::lease::EndReason;
use crate::model::refusal::Refusal;
use crate::model::run::ProgramState;
use crate::model::secret::Secret;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Declares a type with one value, the `type` of one response: another text does not parse. The
/// text is the value's name in `snake_case`; a literal would not reach the OpenAPI description.
macro_rules! tag {
    ($name:ident, $value:ident $(, $schema:ident)?) => {
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize $(, $schema)?)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            #[default]
            $value,
        }
    };
}

tag!(AccessDetailsTag, AccessDetails, ToSchema);
tag!(TopUpResponseTag, TopUpResponse, ToSchema);
tag!(ErrorTag, Error);
tag!(StatusResponseTag, StatusResponse, ToSchema);
tag!(StopResponseTag, StopResponse, ToSchema);
tag!(EndNoticeTag, EndNotice);

/// Everything that the service answers a customer, as Nostr sends it and the client reads it. HTTP
/// sends an error as a problem (RFC 9457), and the others as they are or with more fields: the types
/// that its OpenAPI document describes are those with a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Response {
    Access(AccessDetails),
    ToppedUp(TopUpResponse),
    Stopped(StopResponse),
    Status(StatusResponse),
    Notice(EndNotice),
    Error(ErrorResponse),
}

impl Response {
    /// The JSON that is sent. Keys are sorted: customers of version 0.1.0 see the same bytes.
    #[must_use]
    pub fn to_json(&self) -> String {
        sorted(self).to_string()
    }

    /// Whether it holds money or a login, or answers about a pod that was paid for. Everything else
    /// is free to cause, or a notice, which nobody waits for: under load it waits, and is dropped
    /// first.
    #[must_use]
    pub fn is_paid(&self) -> bool {
        match self {
            Self::Notice(_) => false,
            Self::Error(error) => error.refund.is_some(),
            Self::Access(_) | Self::ToppedUp(_) | Self::Stopped(_) | Self::Status(_) => true,
        }
    }

    /// Whether it holds a refund that nobody has redeemed yet: who loses this response may have no
    /// other with it.
    #[must_use]
    pub fn holds_refund(&self) -> bool {
        match self {
            Self::Access(_) | Self::ToppedUp(_) | Self::Notice(_) => false,
            Self::Stopped(stopped) => stopped.refunds.refund_token.is_some(),
            Self::Status(status) => status.refund_token.is_some(),
            Self::Error(error) => {
                error.refund.as_ref().is_some_and(|refund| refund.refund_token.is_some())
            }
        }
    }

    /// The signed receipt, if it carries one.
    #[must_use]
    pub fn receipt(&self) -> Option<&SignedReceipt> {
        match self {
            Self::Access(access) => access.receipt.as_deref(),
            Self::ToppedUp(topped_up) => topped_up.receipt.as_deref(),
            Self::Stopped(stopped) => stopped.receipt.as_deref(),
            Self::Error(error) => error.receipt.as_deref(),
            Self::Status(_) | Self::Notice(_) => None,
        }
    }

    /// This response with a receipt, where it is one that carries them.
    #[must_use]
    pub(crate) fn with_receipt(mut self, receipt: Option<SignedReceipt>) -> Self {
        let receipt = receipt.map(Box::new);
        match &mut self {
            Self::Access(access) => access.receipt = receipt,
            Self::ToppedUp(topped_up) => topped_up.receipt = receipt,
            Self::Stopped(stopped) => stopped.receipt = receipt,
            Self::Error(error) => error.receipt = receipt,
            Self::Status(_) | Self::Notice(_) => {}
        }
        self
    }

    /// The error, if it is one.
    #[must_use]
    pub fn error(&self) -> Option<&ErrorResponse> {
        match self {
            Self::Error(error) => Some(error),
            _ => None,
        }
    }
}

impl From<AccessDetails> for Response {
    fn from(details: AccessDetails) -> Self {
        Self::Access(details)
    }
}

impl From<StopResponse> for Response {
    fn from(stopped: StopResponse) -> Self {
        Self::Stopped(stopped)
    }
}

impl From<StatusResponse> for Response {
    fn from(status: StatusResponse) -> Self {
        Self::Status(status)
    }
}

impl From<EndNotice> for Response {
    fn from(notice: EndNotice) -> Self {
        Self::Notice(notice)
    }
}

impl From<&Refusal> for Response {
    fn from(refusal: &Refusal) -> Self {
        Self::Error(ErrorResponse::from(refusal))
    }
}

/// The value with sorted keys. The types here are of numbers and text: serialising cannot fail.
#[must_use]
pub fn sorted(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Whether the text is a response of a service like this one. A service does not answer a
/// response: two of them would never stop.
#[must_use]
pub fn is_response(text: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum AnyTag {
        AccessDetails,
        TopUpResponse,
        Error,
        StatusResponse,
        StopResponse,
        EndNotice,
        PodAccessDetails,
    }
    #[derive(Deserialize)]
    struct Tagged {
        #[serde(rename = "type")]
        _tag: AnyTag,
    }
    check_length(text).is_ok() && from_json::<Tagged>(text, "").is_ok()
}

/// What a customer checks before they log in. What is not known is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PodIdentity {
    /// The public host keys of the pod's SSH server, each as in an OpenSSH `.pub` file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_host_keys: Vec<String>,
    /// The same as lines of a `known_hosts` file, for `StrictHostKeyChecking=yes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<String>,
    /// Whether the customer is root in the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<bool>,
}

/// The pod is ready: how to log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessDetails {
    /// `access_details`.
    #[serde(rename = "type")]
    pub tag: AccessDetailsTag,
    /// The pod's name, for top-ups and status.
    pub pod_name: String,
    /// The key with which the pod itself has written to the customer; where it has not, the same as
    /// `pod_name`.
    pub pod_npub: String,
    /// The host to log in to.
    pub ssh_host: String,
    /// Its port.
    pub ssh_port: u16,
    /// The same as `ssh_port`, for older clients.
    pub node_port: u16,
    /// The user to log in as.
    pub ssh_username: String,
    /// The password; null if only the key logs in that came with the order.
    #[serde(with = "super::exposed::option")]
    #[schema(value_type = Option<String>)]
    pub ssh_password: Option<Secret>,
    /// What to check before the login.
    #[serde(flatten)]
    pub identity: PodIdentity,
    /// When the pod ends (RFC 3339).
    pub expires_at: String,
    /// CPU, in thousandths of a core.
    pub cpu_millicores: u32,
    /// Memory, in MiB.
    pub memory_mb: u32,
    /// The tier.
    pub pod_spec_name: String,
    /// The image.
    pub pod_image: String,
    /// The ways to the pod, if there are more than its port.
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<AccessWay>,
    #[serde(flatten)]
    pub http: PodHttp,
    /// Commands and hints for people.
    pub instructions: Vec<String>,
    /// What was decided, signed by the service; left out where the operator has it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SignedReceipt>)]
    pub receipt: Option<Box<SignedReceipt>>,
}

/// The pod lives longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopUpResponse {
    /// `top_up_response`.
    #[serde(rename = "type")]
    pub tag: TopUpResponseTag,
    /// `true`.
    pub success: bool,
    /// The pod's name.
    pub pod_name: String,
    /// As in `access_details`.
    pub pod_npub: String,
    /// The time that was added, in seconds.
    pub extended_duration_seconds: u64,
    /// When the pod ends now (RFC 3339).
    pub new_expires_at: String,
    /// The same, for people.
    pub message: String,
    /// What was decided, signed by the service; left out where the operator has it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SignedReceipt>)]
    pub receipt: Option<Box<SignedReceipt>>,
}

/// The request failed. Unless a `refund_token` comes with it, nothing was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorResponse {
    /// `error`.
    #[serde(rename = "type")]
    pub tag: ErrorTag,
    /// The stable code.
    pub error_type: crate::model::refusal::ErrorType,
    /// What happened and what to do.
    pub message: String,
    /// More about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
    /// The pod that the order was for, once it was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// Why that pod ended, or never ran, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// What is paid back, when money was taken.
    #[serde(flatten)]
    pub refund: Option<Refund>,
    /// What was decided, signed by the service, with a refund.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<SignedReceipt>>,
}

impl From<&Refusal> for ErrorResponse {
    fn from(refusal: &Refusal) -> Self {
        Self {
            tag: ErrorTag::Error,
            error_type: refusal.code,
            message: refusal.message.clone(),
            details: refusal.details.clone(),
            pod_name: None,
            end_reason: refusal.end_reason,
            refund: None,
            receipt: None,
        }
    }
}

/// The refund of one order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    /// A token that gives back what was taken; null once it is redeemed.
    #[serde(with = "super::exposed::option")]
    pub refund_token: Option<Secret>,
    /// Its amount, before the mint's fee on receiving.
    pub refunded_sats: u64,
    /// What making it cost the customer.
    pub refund_fee_sats: u64,
}

/// The refunds of several orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refunds {
    /// Their sum, before the mint's fee on receiving.
    pub refunded_sats: u64,
    /// What making them cost the customer.
    pub refund_fee_sats: u64,
    /// The first of the tokens that are not redeemed yet.
    #[serde(with = "super::exposed::option")]
    #[schema(value_type = Option<String>)]
    pub refund_token: Option<Secret>,
    /// All of them.
    #[serde(with = "super::exposed::list")]
    #[schema(value_type = Vec<String>)]
    pub refund_tokens: Vec<Secret>,
}

/// The pod was stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StopResponse {
    /// `stop_response`.
    #[serde(rename = "type")]
    pub tag: StopResponseTag,
    /// `true`.
    pub success: bool,
    /// The pod's name.
    pub pod_name: String,
    /// What is paid back, for people.
    pub message: String,
    /// Why it ended, which may have been before the stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// What is paid back.
    #[serde(flatten)]
    pub refunds: Refunds,
    /// Whether a refund is still being made: ask for the status. Left out if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refund_pending: bool,
    /// What was decided, signed by the service; left out where the operator has it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SignedReceipt>)]
    pub receipt: Option<Box<SignedReceipt>>,
}

/// The state of a pod, for the customer who bought it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusResponse {
    /// `status_response`.
    #[serde(rename = "type")]
    pub tag: StatusResponseTag,
    /// The pod's name.
    pub pod_name: String,
    /// How far it is.
    pub status: PodStatus,
    /// Until when it lives (RFC 3339); null until it is ready.
    pub expires_at: Option<String>,
    /// Why it is over; left out while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// What is left.
    pub time_remaining_seconds: u64,
    /// CPU, in thousandths of a core.
    pub cpu_millicores: u32,
    /// Memory, in MiB.
    pub memory_mb: u32,
    /// The tier.
    pub pod_spec_name: String,
    /// Where to log in.
    pub ssh_host: String,
    /// At which port.
    pub ssh_port: u16,
    /// The user to log in as.
    pub ssh_username: String,
    /// What to check before the login.
    #[serde(flatten)]
    pub identity: PodIdentity,
    /// The ways to the pod, if there are more than its port.
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<AccessWay>,
    #[serde(flatten)]
    pub http: PodHttp,
    /// How the image's own program is; left out where there is none, or where that is not known.
    #[serde(default, deserialize_with = "known_or_none", skip_serializing_if = "Option::is_none")]
    pub image_program: Option<ProgramState>,
    /// Whether a refund is being made: ask again.
    pub refund_pending: bool,
    /// What the refunds of its orders give back together; left out when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refunded_sats: Option<u64>,
    /// What making them cost the customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refund_fee_sats: Option<u64>,
    /// The first of the tokens that nobody has redeemed yet.
    #[serde(default, with = "super::exposed::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub refund_token: Option<Secret>,
    /// All of them.
    #[serde(
        default,
        with = "super::exposed::option_list",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<Vec<String>>)]
    pub refund_tokens: Option<Vec<Secret>>,
}

/// A pod ends soon, or has ended: for customers who want notices. It answers nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndNotice {
    /// `end_notice`.
    #[serde(rename = "type")]
    pub tag: EndNoticeTag,
    /// The pod's name.
    pub pod_name: String,
    /// When it ends, or was to end (RFC 3339).
    pub expires_at: String,
    /// What is left.
    pub time_remaining_seconds: u64,
    /// Why it has ended; left out while it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// The same, for people.
    pub message: String,
}
