//! What customers are told. The types are the schema that the HTTP door publishes.

use super::check_shape;
use crate::backend::policy::Offer;
use crate::model::order::{Lease, LeaseState, Order, RefundEnd, State};
use crate::model::refusal::Refusal;
use crate::model::secret::Secret;
use crate::model::units::{MintUrl, PodName, Sat, Seconds, UnixTime};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseType {
    /// The pod is ready.
    AccessDetails,
    /// The pod lives longer.
    TopUpResponse,
    /// It did not go through.
    Error,
    /// How a pod is.
    StatusResponse,
    /// The pod was stopped.
    StopResponse,
}

/// Whether this is one of our own kind of answers. A service does not answer an answer: two would
/// never stop.
#[must_use]
pub fn is_answer(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        _kind: ResponseType,
    }
    check_shape(text).is_ok() && serde_json::from_str::<Kind>(text).is_ok()
}

/// The pod is ready: how to get in.
#[derive(Serialize, ToSchema)]
pub struct AccessDetails {
    /// `access_details`.
    #[serde(rename = "type")]
    pub kind: ResponseType,
    /// The pod's name, for top-ups and status.
    pub pod_name: String,
    /// The same, as older clients read it.
    pub pod_npub: String,
    /// Where to log in.
    pub ssh_host: String,
    /// At which port.
    pub ssh_port: u16,
    /// The same, as older clients read it.
    pub node_port: u16,
    /// As whom.
    pub ssh_username: String,
    /// With which password.
    pub ssh_password: Option<String>,
    /// Until when it lives (RFC 3339).
    pub expires_at: String,
    /// CPU, in thousandths of a core.
    pub cpu_millicores: u32,
    /// Memory, in MiB.
    pub memory_mb: u32,
    /// The tier.
    pub pod_spec_name: String,
    /// The image.
    pub pod_image: String,
    /// What to type, in words.
    pub instructions: Vec<String>,
}

/// The pod lives longer.
#[derive(Serialize, ToSchema)]
pub struct TopUpResponse {
    /// `top_up_response`.
    #[serde(rename = "type")]
    pub kind: ResponseType,
    /// `true`.
    pub success: bool,
    /// The pod's name.
    pub pod_name: String,
    /// The same, as older clients read it.
    pub pod_npub: String,
    /// By how much, in seconds.
    pub extended_duration_seconds: u64,
    /// Until when it lives now (RFC 3339).
    pub new_expires_at: String,
    /// The same in words.
    pub message: String,
}

/// It did not go through. Unless a `refund_token` comes with it, nothing was taken.
#[derive(Serialize, ToSchema)]
pub struct ErrorResponse {
    /// `error`.
    #[serde(rename = "type")]
    pub kind: ResponseType,
    /// The stable code.
    pub error_type: crate::model::refusal::ErrorType,
    /// What happened and what to do.
    pub message: String,
    /// More, when it helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
}

/// What is paid back.
#[derive(Serialize, ToSchema)]
pub struct Refunds {
    /// What the refunds give back together, before the mint's fee on receiving.
    pub refunded_sats: u64,
    /// What making them cost.
    pub refund_fee_sats: u64,
    /// The first of the tokens that nobody has redeemed yet.
    pub refund_token: Option<String>,
    /// All of them.
    pub refund_tokens: Vec<String>,
}

/// The pod was stopped.
#[derive(Serialize, ToSchema)]
pub struct StopResponse {
    /// `stop_response`.
    #[serde(rename = "type")]
    pub kind: ResponseType,
    /// `true`.
    pub success: bool,
    /// The pod's name.
    pub pod_name: String,
    /// What is paid back, in words.
    pub message: String,
    /// What is paid back.
    #[serde(flatten)]
    pub refunds: Refunds,
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
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

/// How a pod is, for the customer who bought it.
#[derive(Serialize, ToSchema)]
pub struct StatusResponse {
    /// `status_response`.
    #[serde(rename = "type")]
    pub kind: ResponseType,
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
    /// As whom.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refund_token: Option<String>,
    /// All of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refund_tokens: Option<Vec<String>>,
}

/// One tier of an offer.
#[derive(Serialize, ToSchema)]
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
    pub price_msats: u64,
    /// …for so many seconds.
    pub price_seconds: u64,
    /// The least that is accepted, after the mint's fee.
    pub minimum_sats: u64,
}

/// What is for sale.
#[derive(Serialize, ToSchema)]
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

/// An answer as JSON. The types above are of numbers and text: nothing in them can fail.
fn json_of(answer: &impl Serialize) -> Value {
    serde_json::to_value(answer).unwrap_or_default()
}

/// The pod is ready: how to get in.
#[must_use]
pub fn access(order: &Order, lease: &Lease, ssh_host: &str, note: Option<&str>) -> Value {
    let expires_at = order.expires_at.unwrap_or_default().rfc3339();
    let mut instructions = vec![
        format!("ssh -p {} {}@{ssh_host}", lease.port, lease.username),
        format!(
            "The pod lives until {expires_at}; send another token with pod_name {} to extend it.",
            lease.pod()
        ),
    ];
    instructions.extend(note.map(str::to_owned));
    json_of(&AccessDetails {
        kind: ResponseType::AccessDetails,
        pod_name: lease.pod().0,
        pod_npub: lease.pod().0,
        ssh_host: ssh_host.to_owned(),
        ssh_port: lease.port,
        node_port: lease.port,
        ssh_username: lease.username.clone(),
        ssh_password: order.secrets.password.as_ref().map(|password| password.expose().to_owned()),
        expires_at,
        cpu_millicores: lease.resources.cpu_millicores,
        memory_mb: lease.resources.memory_mib,
        pod_spec_name: lease.tier.clone(),
        pod_image: lease.image.clone(),
        instructions,
    })
}

/// The pod lives longer.
#[must_use]
pub fn topped_up(
    pod: &PodName,
    extended: Seconds,
    new_expires_at: UnixTime,
    note: Option<&str>,
) -> Value {
    let mut message = format!("extended by {} seconds", extended.0);
    if let Some(note) = note {
        message.push_str("; ");
        message.push_str(note);
    }
    json_of(&TopUpResponse {
        kind: ResponseType::TopUpResponse,
        success: true,
        pod_name: pod.0.clone(),
        pod_npub: pod.0.clone(),
        extended_duration_seconds: extended.0,
        new_expires_at: new_expires_at.rfc3339(),
        message,
    })
}

/// It did not go through, and nothing was taken.
#[must_use]
pub fn error(refusal: &Refusal) -> Value {
    json_of(&ErrorResponse {
        kind: ResponseType::Error,
        error_type: refusal.code,
        message: refusal.message.clone(),
        details: refusal.details.clone(),
    })
}

/// An order that did not go through; with the refund when money had been taken.
#[must_use]
pub fn refused(order: &Order, refusal: &Refusal) -> Value {
    let mut answer = error(refusal);
    let Some(fields) = answer.as_object_mut() else { return answer };
    if order.decision.is_some() {
        fields.insert("pod_name".into(), json!(order.pod()));
    }
    if let (Some(refunded), Some(fee)) = (order.refunded, order.refund_fee) {
        fields.insert(
            "refund_token".into(),
            json!(order.secrets.refund_token.as_ref().map(Secret::expose)),
        );
        fields.insert("refunded_sats".into(), json!(refunded));
        fields.insert("refund_fee_sats".into(), json!(fee));
        fields.insert(
            "message".into(),
            json!(format!("{}; {}", refusal.message, refund_told(order))),
        );
    }
    answer
}

/// What a refund is, in words.
fn refund_told(order: &Order) -> String {
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

/// The refunds of orders: what they give back together, and the tokens that nobody has redeemed
/// yet.
fn refunds(orders: &[&Order]) -> Refunds {
    let made: Vec<&&Order> = orders.iter().filter(|order| order.refunded.is_some()).collect();
    let sum = |of: fn(&Order) -> Option<Sat>| {
        made.iter().filter_map(|order| of(order)).fold(Sat(0), Sat::plus).0
    };
    let tokens: Vec<String> = made
        .iter()
        .filter_map(|order| order.secrets.refund_token.as_ref())
        .map(|token| token.expose().to_owned())
        .collect();
    Refunds {
        refunded_sats: sum(|order| order.refunded),
        refund_fee_sats: sum(|order| order.refund_fee),
        refund_token: tokens.first().cloned(),
        refund_tokens: tokens,
    }
}

/// The pod was stopped; with what is paid back for its unused time.
#[must_use]
pub fn stopped(pod: &PodName, orders: &[&Order]) -> Value {
    let told: Vec<String> = orders.iter().map(|order| refund_told(order)).collect();
    let message = if told.is_empty() {
        "stopped; nothing is paid back".to_owned()
    } else {
        format!("stopped; {}", told.join("; "))
    };
    json_of(&StopResponse {
        kind: ResponseType::StopResponse,
        success: true,
        pod_name: pod.0.clone(),
        message,
        refunds: refunds(orders),
    })
}

/// How a pod is, for the customer who bought it, with the refunds of his orders.
#[must_use]
pub fn status(lease: &Lease, orders: &[&Order], ssh_host: &str, now: UnixTime) -> Value {
    let refunds = orders.iter().any(|order| order.refunded.is_some()).then(|| refunds(orders));
    let left = lease
        .expires_at
        .filter(|_| lease.state != LeaseState::Ended)
        .map_or(Seconds(0), |at| at.since(now));
    json_of(&StatusResponse {
        kind: ResponseType::StatusResponse,
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
    })
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
