//! Responses to customers. The OpenAPI description is made of these types.

use super::check_shape;
use crate::backend::policy::Offer;
use crate::model::order::{Lease, LeaseState, Order, RefundEnd, State};
use crate::model::refusal::Refusal;
use crate::model::secret::Secret;
use crate::model::units::{MintUrl, PodName, Sat, Seconds, UnixTime};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Declares a type with one value, the `type` of one response: another text does not parse.
macro_rules! tag {
    ($name:ident, $text:literal) => {
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        pub enum $name {
            #[default]
            #[serde(rename = $text)]
            Tag,
        }
    };
}

tag!(AccessDetailsTag, "access_details");
tag!(TopUpResponseTag, "top_up_response");
tag!(ErrorTag, "error");
tag!(StatusResponseTag, "status_response");
tag!(StopResponseTag, "stop_response");

/// Everything that the service answers a customer. Both transports send it, the client reads it,
/// and the OpenAPI description is made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Response {
    Access(AccessDetails),
    ToppedUp(TopUpResponse),
    Stopped(StopResponse),
    Status(StatusResponse),
    Error(ErrorResponse),
}

impl Response {
    /// The JSON that is sent. Keys are sorted: customers of version 0.1.0 see the same bytes.
    #[must_use]
    pub fn to_json(&self) -> String {
        sorted(self).to_string()
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
    }
    #[derive(Deserialize)]
    struct Tagged {
        #[serde(rename = "type")]
        _tag: AnyTag,
    }
    check_shape(text).is_ok() && serde_json::from_str::<Tagged>(text).is_ok()
}

/// The pod is ready: how to log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessDetails {
    /// `access_details`.
    #[serde(rename = "type")]
    pub tag: AccessDetailsTag,
    /// The pod's name, for top-ups and status.
    pub pod_name: String,
    /// The same as `pod_name`, for older clients.
    pub pod_npub: String,
    /// The host to log in to.
    pub ssh_host: String,
    /// Its port.
    pub ssh_port: u16,
    /// The same as `ssh_port`, for older clients.
    pub node_port: u16,
    /// The user to log in as.
    pub ssh_username: String,
    /// The password.
    #[serde(with = "exposed")]
    #[schema(value_type = Option<String>)]
    pub ssh_password: Option<Secret>,
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
    /// Commands and hints for people.
    pub instructions: Vec<String>,
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
    /// The same as `pod_name`, for older clients.
    pub pod_npub: String,
    /// The time that was added, in seconds.
    pub extended_duration_seconds: u64,
    /// When the pod ends now (RFC 3339).
    pub new_expires_at: String,
    /// The same, for people.
    pub message: String,
}

/// The request failed. Unless a `refund_token` comes with it, nothing was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    /// What is paid back, when money was taken.
    #[serde(flatten)]
    pub refund: Option<Refund>,
}

impl From<&Refusal> for ErrorResponse {
    fn from(refusal: &Refusal) -> Self {
        Self {
            tag: ErrorTag::Tag,
            error_type: refusal.code,
            message: refusal.message.clone(),
            details: refusal.details.clone(),
            pod_name: None,
            refund: None,
        }
    }
}

/// The refund of one order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refund {
    /// A token that gives back what was taken; null once it is redeemed.
    #[serde(with = "exposed")]
    #[schema(value_type = Option<String>)]
    pub refund_token: Option<Secret>,
    /// Its amount, before the mint's fee on receiving.
    pub refunded_sats: u64,
    /// What making it cost.
    pub refund_fee_sats: u64,
}

/// The refunds of several orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refunds {
    /// Their sum, before the mint's fee on receiving.
    pub refunded_sats: u64,
    /// What making them cost.
    pub refund_fee_sats: u64,
    /// The first of the tokens that are not redeemed yet.
    #[serde(with = "exposed")]
    #[schema(value_type = Option<String>)]
    pub refund_token: Option<Secret>,
    /// All of them.
    #[serde(with = "exposed_list")]
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
    /// What is paid back.
    #[serde(flatten)]
    pub refunds: Refunds,
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PodStatus {
    /// It is being made.
    Provisioning,
    /// It takes logins.
    Running,
    /// It is over.
    Ended,
}

impl From<LeaseState> for PodStatus {
    fn from(state: LeaseState) -> Self {
        match state {
            LeaseState::Reserved => Self::Provisioning,
            LeaseState::Live => Self::Running,
            LeaseState::Ended => Self::Ended,
        }
    }
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
    /// Whether a refund is being made: ask again.
    pub refund_pending: bool,
    /// What the refunds of its orders give back together; left out when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refunded_sats: Option<u64>,
    /// What making them cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refund_fee_sats: Option<u64>,
    /// The first of the tokens that nobody has redeemed yet.
    #[serde(default, with = "exposed", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub refund_token: Option<Secret>,
    /// All of them.
    #[serde(default, with = "exposed_option_list", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub refund_tokens: Option<Vec<Secret>>,
}

/// One tier of an offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PodSpec {
    /// What orders say.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// One or two sentences.
    pub description: String,
    /// CPU, in thousandths of a core.
    pub cpu_millicores: u32,
    /// Memory, in MiB.
    pub memory_mb: u32,
    /// The price, rounded up for old readers.
    pub rate_msats_per_sec: u64,
    /// The price, exactly: so many thousandths of a sat…
    #[serde(default)]
    pub price_msats: u64,
    /// …for so many seconds.
    #[serde(default)]
    pub price_seconds: u64,
    /// The least that is accepted, after the mint's fee.
    #[serde(default)]
    pub minimum_sats: u64,
}

/// What is for sale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OfferContent {
    /// What the least payment buys of the first tier.
    pub minimum_duration_seconds: u64,
    /// The mints whose tokens are accepted.
    pub whitelisted_mints: Vec<String>,
    /// What is for sale, the default tier first.
    pub pod_specs: Vec<PodSpec>,
    /// Tokens may be locked to it (NUT-11), so that nobody on the way can spend them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p2pk_pubkey: Option<String>,
}

/// The pod is ready.
#[must_use]
pub fn access(order: &Order, lease: &Lease, ssh_host: &str, note: Option<&str>) -> AccessDetails {
    let expires_at = order.expires_at.unwrap_or_default().rfc3339();
    let mut instructions = vec![
        format!("ssh -p {} {}@{ssh_host}", lease.port, lease.username),
        format!(
            "The pod lives until {expires_at}; send another token with pod_name {} to extend it.",
            lease.pod()
        ),
    ];
    instructions.extend(note.map(str::to_owned));
    AccessDetails {
        tag: AccessDetailsTag::Tag,
        pod_name: lease.pod().0,
        pod_npub: lease.pod().0,
        ssh_host: ssh_host.to_owned(),
        ssh_port: lease.port,
        node_port: lease.port,
        ssh_username: lease.username.clone(),
        ssh_password: order.secrets.password.clone(),
        expires_at,
        cpu_millicores: lease.resources.cpu_millicores,
        memory_mb: lease.resources.memory_mib,
        pod_spec_name: lease.tier.clone(),
        pod_image: lease.image.clone(),
        instructions,
    }
}

/// The pod lives longer.
#[must_use]
pub fn topped_up(
    pod: &PodName,
    extended: Seconds,
    new_expires_at: UnixTime,
    note: Option<&str>,
) -> Response {
    let mut message = format!("extended by {} seconds", extended.0);
    if let Some(note) = note {
        message.push_str("; ");
        message.push_str(note);
    }
    Response::ToppedUp(TopUpResponse {
        tag: TopUpResponseTag::Tag,
        success: true,
        pod_name: pod.0.clone(),
        pod_npub: pod.0.clone(),
        extended_duration_seconds: extended.0,
        new_expires_at: new_expires_at.rfc3339(),
        message,
    })
}

/// An order that failed; with the refund when money had been taken.
#[must_use]
pub fn refused(order: &Order, refusal: &Refusal) -> Response {
    let mut error = ErrorResponse::from(refusal);
    error.pod_name = order.decision.is_some().then(|| order.pod().0);
    if let (Some(refunded), Some(fee)) = (order.refunded, order.refund_fee) {
        error.message = format!("{}; {}", refusal.message, describe_refund(order));
        error.refund = Some(Refund {
            refund_token: order.secrets.refund_token.clone(),
            refunded_sats: refunded.0,
            refund_fee_sats: fee.0,
        });
    }
    Response::Error(error)
}

/// A refund, for people.
fn describe_refund(order: &Order) -> String {
    let (refunded, fee) =
        (order.refunded.unwrap_or_default(), order.refund_fee.unwrap_or_default());
    let fee =
        if fee == Sat(0) { String::new() } else { format!(", after the mint's fee of {fee}") };
    match order.refund_end {
        None => format!("refund_token gives {refunded} back{fee}; redeem it soon"),
        Some(RefundEnd::Redeemed) => format!("the refund of {refunded} was redeemed"),
        Some(RefundEnd::Reclaimed(_)) => {
            format!("the refund of {refunded} was not redeemed in time and is not good any more")
        }
    }
}

/// The sum of the orders' refunds, and the tokens that are not redeemed yet.
fn refunds(orders: &[&Order]) -> Refunds {
    let made: Vec<&&Order> = orders.iter().filter(|order| order.refunded.is_some()).collect();
    let sum = |amount: fn(&Order) -> Option<Sat>| {
        made.iter().filter_map(|order| amount(order)).fold(Sat(0), Sat::plus).0
    };
    let tokens: Vec<Secret> =
        made.iter().filter_map(|order| order.secrets.refund_token.clone()).collect();
    Refunds {
        refunded_sats: sum(|order| order.refunded),
        refund_fee_sats: sum(|order| order.refund_fee),
        refund_token: tokens.first().cloned(),
        refund_tokens: tokens,
    }
}

/// The pod was stopped; with what is paid back for its unused time.
#[must_use]
pub fn stopped(pod: &PodName, orders: &[&Order]) -> StopResponse {
    let described: Vec<String> = orders.iter().map(|order| describe_refund(order)).collect();
    let message = if described.is_empty() {
        "stopped; nothing is paid back".to_owned()
    } else {
        format!("stopped; {}", described.join("; "))
    };
    StopResponse {
        tag: StopResponseTag::Tag,
        success: true,
        pod_name: pod.0.clone(),
        message,
        refunds: refunds(orders),
    }
}

/// The state of a pod, with the refunds of the customer's orders for it.
#[must_use]
pub fn status(lease: &Lease, orders: &[&Order], ssh_host: &str, now: UnixTime) -> StatusResponse {
    let refunds = orders.iter().any(|order| order.refunded.is_some()).then(|| refunds(orders));
    let left = lease
        .expires_at
        .filter(|_| lease.state != LeaseState::Ended)
        .map_or(Seconds(0), |at| at.since(now));
    StatusResponse {
        tag: StatusResponseTag::Tag,
        pod_name: lease.pod().0,
        status: lease.state.into(),
        expires_at: lease.expires_at.map(UnixTime::rfc3339),
        time_remaining_seconds: left.0,
        cpu_millicores: lease.resources.cpu_millicores,
        memory_mb: lease.resources.memory_mib,
        pod_spec_name: lease.tier.clone(),
        ssh_host: ssh_host.to_owned(),
        ssh_port: lease.port,
        ssh_username: lease.username.clone(),
        refund_pending: orders.iter().any(|order| order.state == State::RefundPending),
        refunded_sats: refunds.as_ref().map(|refunds| refunds.refunded_sats),
        refund_fee_sats: refunds.as_ref().map(|refunds| refunds.refund_fee_sats),
        refund_token: refunds.as_ref().and_then(|refunds| refunds.refund_token.clone()),
        refund_tokens: refunds.map(|refunds| refunds.refund_tokens),
    }
}

/// What is for sale.
#[must_use]
pub fn offer(offers: &[Offer], mints: &[MintUrl], lock: Option<&str>) -> OfferContent {
    let spec = |offer: &Offer| PodSpec {
        id: offer.id.clone(),
        name: offer.name.clone(),
        description: offer.description.clone(),
        cpu_millicores: offer.resources.cpu_millicores,
        memory_mb: offer.resources.memory_mib,
        rate_msats_per_sec: offer.price.msat.0.div_ceil(offer.price.seconds.0.max(1)),
        price_msats: offer.price.msat.0,
        price_seconds: offer.price.seconds.0,
        minimum_sats: offer.minimum.0,
    };
    OfferContent {
        // Of the default tier; the dearer ones give less for their minimum.
        minimum_duration_seconds: offers
            .first()
            .map(|offer| offer.price.buys(offer.minimum))
            .unwrap_or_default()
            .0,
        whitelisted_mints: mints.iter().map(|mint| mint.0.clone()).collect(),
        pod_specs: offers.iter().map(spec).collect(),
        p2pk_pubkey: lock.map(str::to_owned),
    }
}

/// Secrets that are meant for the customer who reads the response. They stay out of `Debug`.
mod exposed {
    use crate::model::secret::Secret;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        secret: &Option<Secret>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(Secret::expose).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Secret>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
    }
}

mod exposed_list {
    use crate::model::secret::Secret;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        secrets: &[Secret],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(secrets.iter().map(Secret::expose))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Secret>, D::Error> {
        Ok(Vec::<String>::deserialize(deserializer)?.into_iter().map(Secret::new).collect())
    }
}

mod exposed_option_list {
    use crate::model::secret::Secret;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        secrets: &Option<Vec<Secret>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let texts: Option<Vec<&str>> =
            secrets.as_ref().map(|secrets| secrets.iter().map(Secret::expose).collect());
        texts.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<Secret>>, D::Error> {
        let texts = Option::<Vec<String>>::deserialize(deserializer)?;
        Ok(texts.map(|texts| texts.into_iter().map(Secret::new).collect()))
    }
}
