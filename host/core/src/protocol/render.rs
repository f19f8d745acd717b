//! Makes responses of orders and leases.

use super::access_way::{known_hosts, offered_ways};
use super::offer::{OfferContent, OfferedImage, OfferedPolicies, PodSpec, UtilisationPercent};
use super::pod_http::PodHttp;
use super::responses::{
    self, AccessDetails, AccessDetailsTag, EndNotice, EndNoticeTag, ErrorResponse, PodIdentity,
    Refunds, Response, StatusResponse, StatusResponseTag, StopResponse, StopResponseTag,
    TopUpResponse, TopUpResponseTag,
};
use crate::model::catalog::{Catalog, ListedOffer};
use crate::model::decision::{ImageOffer, Utilisation};
use crate::model::host_key::HostKey;
use crate::model::ids::PodName;
use crate::model::lease::EndReason;
use crate::model::order::{Lease, LeaseState, Order, RefundEnd, State};
use crate::model::order_state::Refund;
use crate::model::refusal::Refusal;
use crate::model::secret::Secret;
use crate::model::units::{Sat, Seconds, UnixTime};

/// What a customer checks, as long as the port is this pod's.
fn identity(lease: &Lease, ssh_host: &str) -> PodIdentity {
    if lease.state == LeaseState::Ended {
        return PodIdentity::default();
    }
    let (host, port) = (lease.login_host(ssh_host), lease.login_port());
    PodIdentity { root: lease.root, ..pod_identity(&lease.host_keys, &host, port) }
}

/// What a customer checks of a pod that has these keys at this address.
#[must_use]
pub fn pod_identity(host_keys: &[HostKey], ssh_host: &str, port: u16) -> PodIdentity {
    PodIdentity {
        ssh_host_keys: host_keys.iter().map(HostKey::to_string).collect(),
        known_hosts: known_hosts(host_keys, ssh_host, port),
        root: None,
    }
}

/// How to know the pod, for people; none where its keys are not known.
fn describe_host_keys(keys: &[HostKey]) -> Option<String> {
    let shown: Vec<String> =
        keys.iter().map(|key| format!("{} ({})", key.fingerprint(), key.kind())).collect();
    (!shown.is_empty()).then(|| {
        format!(
            "ssh shows one of these host keys at the first login: {}. To have it checked, write known_hosts to a file and add -o UserKnownHostsFile=FILE -o StrictHostKeyChecking=yes.",
            shown.join(", ")
        )
    })
}

/// How to log in, for people.
fn login_command(lease: &Lease, ssh_host: &str) -> String {
    let user = &lease.username;
    match lease.port {
        Some(port) => format!("ssh -p {port} {user}@{ssh_host}"),
        None => format!("The service's gateway leads to {user}@{}; no port does.", lease.pod()),
    }
}

/// The pod is ready, and lives until `expires_at`. `ssh_host` is where pods are reached that have no
/// host of their own.
#[must_use]
pub fn access(
    lease: &Lease,
    password: Option<&Secret>,
    expires_at: UnixTime,
    ssh_host: &str,
    note: Option<&str>,
) -> AccessDetails {
    let (expires_at, ssh_host) = (expires_at.rfc3339(), lease.login_host(ssh_host));
    let identity = identity(lease, &ssh_host);
    let mut instructions = vec![
        login_command(lease, &ssh_host),
        format!(
            "The pod lives until {expires_at}; send another token with pod_name {} to extend it.",
            lease.pod()
        ),
    ];
    instructions.extend(describe_host_keys(&lease.host_keys));
    instructions.extend(note.map(str::to_owned));
    AccessDetails {
        tag: AccessDetailsTag::AccessDetails,
        pod_name: lease.pod().into(),
        pod_npub: lease.pod_npub(),
        ssh_host,
        ssh_port: lease.login_port(),
        node_port: lease.login_port(),
        ssh_username: lease.username.to_string(),
        ssh_password: password.cloned(),
        identity,
        expires_at,
        cpu_millicores: lease.resources.cpu_millicores,
        memory_mb: lease.resources.memory_mib,
        pod_spec_name: lease.tier.to_string(),
        pod_image: lease.image.to_string(),
        access: Vec::new(),
        http: PodHttp::default(),
        instructions,
        receipt: None,
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
        tag: TopUpResponseTag::TopUpResponse,
        success: true,
        pod_name: pod.to_string(),
        pod_npub: pod.to_string(),
        extended_duration_seconds: extended.0,
        new_expires_at: new_expires_at.rfc3339(),
        message,
        receipt: None,
    })
}

/// An order that failed; with the refund when money had been taken.
#[must_use]
pub fn refused(order: &Order, refusal: &Refusal) -> Response {
    let mut error = ErrorResponse::from(refusal);
    error.pod_name = order.state.agreement().map(|_| order.pod().into());
    if let Some(refund) = order.state.refund() {
        error.message = format!("{}; {}", refusal.message, describe_refund(refund));
        error.refund = Some(responses::Refund {
            refund_token: order.state.refund_token().cloned(),
            refunded_sats: refund.amount.0,
            refund_fee_sats: refund.fee.0,
        });
    }
    Response::Error(error)
}

/// Refunds, for people: those that wait are summed up.
fn describe_refunds(made: &[&Refund]) -> String {
    let (waiting, ended): (Vec<&Refund>, Vec<&Refund>) =
        made.iter().copied().partition(|refund| refund.end().is_none());
    let described: Vec<String> = match waiting.len() {
        0 | 1 => made.iter().map(|refund| describe_refund(refund)).collect(),
        count => {
            let (refunded, fee) =
                (sum(&waiting, |refund| refund.amount), sum(&waiting, |refund| refund.fee));
            let fee = match fee {
                Sat(0) => String::new(),
                fee => format!(", after the mint's fees of {fee}"),
            };
            let several = format!("refunded {refunded} in {count} tokens{fee}; receive them soon");
            std::iter::once(several)
                .chain(ended.iter().map(|refund| describe_refund(refund)))
                .collect()
        }
    };
    described.join("; ")
}

fn sum(refunds: &[&Refund], amount: fn(&Refund) -> Sat) -> Sat {
    refunds.iter().map(|refund| amount(refund)).fold(Sat(0), Sat::plus)
}

/// A refund, for people.
fn describe_refund(refund: &Refund) -> String {
    let (refunded, fee) = (refund.amount, refund.fee);
    let fee =
        if fee == Sat(0) { String::new() } else { format!(", after the mint's fee of {fee}") };
    match refund.end() {
        None => format!("refund_token gives {refunded} back{fee}; redeem it soon"),
        Some(RefundEnd::Redeemed) => format!("the refund of {refunded} was redeemed"),
        Some(RefundEnd::Reclaimed(_)) => {
            format!("the refund of {refunded} was not redeemed in time and is not good any more")
        }
    }
}

/// The sum of the orders' refunds, and the tokens that are not redeemed yet.
fn refunds(orders: &[&Order]) -> Refunds {
    let made: Vec<&Refund> = orders.iter().filter_map(|order| order.state.refund()).collect();
    let tokens: Vec<Secret> =
        orders.iter().filter_map(|order| order.state.refund_token().cloned()).collect();
    Refunds {
        refunded_sats: sum(&made, |refund| refund.amount).0,
        refund_fee_sats: sum(&made, |refund| refund.fee).0,
        refund_token: tokens.first().cloned(),
        refund_tokens: tokens,
    }
}

fn is_refund_pending(orders: &[&Order]) -> bool {
    orders.iter().any(|order| order.state() == State::RefundPending)
}

/// The pod was stopped, or had ended for this reason; with what is paid back for its unused time.
#[must_use]
pub fn stopped(pod: &PodName, orders: &[&Order], end_reason: Option<EndReason>) -> StopResponse {
    let made: Vec<&Refund> = orders.iter().filter_map(|order| order.state.refund()).collect();
    let refund_pending = is_refund_pending(orders);
    let message = match (made.is_empty(), refund_pending) {
        (true, false) => "stopped; nothing is paid back".to_owned(),
        (true, true) => "stopped; the refund follows: ask for the pod's status".to_owned(),
        (false, false) => format!("stopped; {}", describe_refunds(&made)),
        (false, true) => format!(
            "stopped; {}; the rest follows: ask for the pod's status",
            describe_refunds(&made)
        ),
    };
    StopResponse {
        tag: StopResponseTag::StopResponse,
        success: true,
        pod_name: pod.to_string(),
        message,
        end_reason,
        refunds: refunds(orders),
        refund_pending,
        receipt: None,
    }
}

fn left(lease: &Lease, now: UnixTime) -> Seconds {
    let end = lease.expires_at.filter(|_| lease.state != LeaseState::Ended);
    end.map_or(Seconds(0), |at| at.since(now))
}

/// The reason is stored before the end.
fn end_reason(lease: &Lease) -> Option<EndReason> {
    lease.end.filter(|_| lease.state == LeaseState::Ended)
}

/// The pod ends soon, or has ended.
#[must_use]
pub fn end_notice(lease: &Lease, now: UnixTime) -> EndNotice {
    let (left, end_reason) = (left(lease, now), end_reason(lease));
    let message = match end_reason {
        Some(reason) => format!("the pod has ended: {}", reason.as_str()),
        None => {
            format!("the pod ends in {left}; send another token with its pod_name to extend it")
        }
    };
    EndNotice {
        tag: EndNoticeTag::EndNotice,
        pod_name: lease.pod().into(),
        expires_at: lease.expires_at.unwrap_or(now).rfc3339(),
        time_remaining_seconds: left.0,
        end_reason,
        message,
    }
}

/// The state of a pod, with the refunds of the customer's orders for it. `ssh_host` is where pods are
/// reached that have no host of their own.
#[must_use]
pub fn status(lease: &Lease, orders: &[&Order], ssh_host: &str, now: UnixTime) -> StatusResponse {
    let refunds =
        orders.iter().any(|order| order.state.refund().is_some()).then(|| refunds(orders));
    let left = left(lease, now);
    StatusResponse {
        tag: StatusResponseTag::StatusResponse,
        pod_name: lease.pod().into(),
        status: lease.state.into(),
        expires_at: lease.expires_at.map(UnixTime::rfc3339),
        end_reason: end_reason(lease),
        time_remaining_seconds: left.0,
        cpu_millicores: lease.resources.cpu_millicores,
        memory_mb: lease.resources.memory_mib,
        pod_spec_name: lease.tier.to_string(),
        ssh_host: lease.login_host(ssh_host),
        ssh_port: lease.login_port(),
        ssh_username: lease.username.to_string(),
        identity: identity(lease, ssh_host),
        access: Vec::new(),
        http: PodHttp::default(),
        image_program: None,
        refund_pending: is_refund_pending(orders),
        refunded_sats: refunds.as_ref().map(|refunds| refunds.refunded_sats),
        refund_fee_sats: refunds.as_ref().map(|refunds| refunds.refund_fee_sats),
        refund_token: refunds.as_ref().and_then(|refunds| refunds.refund_token.clone()),
        refund_tokens: refunds.map(|refunds| refunds.refund_tokens),
    }
}

/// What is for sale.
#[must_use]
pub fn offer(catalog: &Catalog) -> OfferContent {
    let spec = |listed: &ListedOffer| {
        let offer = &listed.offer;
        PodSpec {
            id: offer.id.to_string(),
            name: offer.name.clone(),
            description: offer.description.clone(),
            cpu_millicores: offer.resources.cpu_millicores,
            memory_mb: offer.resources.memory_mib,
            rate_msats_per_sec: offer.price.msat.0.div_ceil(offer.price.seconds.0.max(1)),
            price_msats: offer.price.msat.0,
            price_seconds: offer.price.seconds.0,
            minimum_sats: offer.minimum.0,
            available: listed.available,
        }
    };
    let image = |image: &ImageOffer| OfferedImage {
        reference: image.reference.clone(),
        description: image.description.clone(),
    };
    OfferContent {
        // Of the default tier; the dearer ones give less for their minimum.
        minimum_duration_seconds: catalog
            .offers
            .first()
            .map(|listed| listed.offer.price.buys(listed.offer.minimum))
            .unwrap_or_default()
            .0,
        whitelisted_mints: catalog.mints.iter().map(|mint| mint.to_string()).collect(),
        pod_specs: catalog.offers.iter().map(spec).collect(),
        p2pk_pubkey: catalog.p2pk_pubkey.clone().map(String::from),
        utilisation_percent: catalog.utilisation.map(|Utilisation { cpu, memory }| {
            let percent = |thousandths: u32| {
                thousandths.saturating_add(5).checked_div(10).unwrap_or_default()
            };
            UtilisationPercent { cpu: percent(cpu), memory: percent(memory) }
        }),
        root: Some(catalog.root),
        run_image: catalog.run_image.then_some(true),
        http_ports: catalog.http_ports.then_some(true),
        images: catalog.images.iter().map(image).collect(),
        access: offered_ways(&catalog.access, &catalog.ways),
        policies: catalog.policies.as_ref().map(OfferedPolicies::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_response_to_a_stop_says_that_a_refund_follows() {
        let refunded = testing::order(testing::spawn(), State::Refunded).unwrap();
        let pending = testing::order(testing::spawn(), State::RefundPending).unwrap();
        let answer = |orders: &[&Order]| stopped(&refunded.pod(), orders, None);
        for (orders, end) in [
            (&[&pending][..], "stopped; the refund follows: ask for the pod's status"),
            (&[&refunded, &pending], "; the rest follows: ask for the pod's status"),
        ] {
            let stopped = answer(orders);
            assert!(stopped.refund_pending && stopped.message.ends_with(end), "{stopped:?}");
            let response = Response::from(stopped);
            let json = response.to_json();
            assert_eq!(serde_json::from_str::<Response>(&json).unwrap(), response, "{json}");
        }
        // As it was before there was such a field.
        let none: &[&Order] = &[];
        for orders in [none, &[&refunded]] {
            let json = Response::from(answer(orders)).to_json();
            assert!(!json.contains("refund_pending") && !json.contains("follows"), "{json}");
            let Ok(Response::Stopped(read)) = serde_json::from_str(&json) else { panic!("{json}") };
            assert!(!read.refund_pending);
        }
    }
}
