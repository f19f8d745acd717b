//! The gateway as customers reach it: at the addresses in offers, and with the keys named there.

use super::host::Served;
use super::limit::{Checks, LIMIT, within};
use super::report::{Area, Check, Group};
use crate::config::{Config, GatewayConfig, GatewayProcess};
use crate::gateway::Offered;
use futures::FutureExt;
use futures::future::join_all;
use paygress_core::error_chain;
use paygress_core::model::gateway::JumpHostAddress;
use paygress_gateway::{GatewayTicket, Relay, verify_endpoint, verify_relay};
use paygress_sshd::client::{HostKeyCheck, LoginError, verify_host_key};

const KEYS: Area = Area::new(Group::Gateway, "keys");
const PROCESS: Area = Area::new(Group::Gateway, "process");
const JUMP_HOST: Area = Area::new(Group::Gateway, "jump host");
const ENDPOINT: Area = Area::new(Group::Gateway, "endpoint");
const RELAY: Area = Area::new(Group::Gateway, "relay");

/// None where there is no gateway.
pub(super) async fn checks(config: &Config, served: Served) -> Vec<Check> {
    let Some(gateway) = &config.gateway else { return Vec::new() };
    if gateway.process == GatewayProcess::Service && served == Served::No {
        return vec![PROCESS.ok("it is the service's, and none runs: it was not tried")];
    }
    match Offered::read(config, gateway) {
        Ok(offered) => reached(gateway, &offered).await,
        Err(error) => vec![KEYS.fail(
            error_chain(error.as_ref()),
            "set GATEWAY_KEY_DIR to the directory of the gateway's keys, and run this as the service's user",
        )],
    }
}

async fn reached(gateway: &GatewayConfig, offered: &Offered) -> Vec<Check> {
    let mut all: Vec<Checks<'_>> = Vec::new();
    if let Some(address) = &offered.jump_host {
        all.push(within(JUMP_HOST, LIMIT, jump_host(address)).boxed_local());
    }
    if let Some(ticket) = &offered.ticket {
        all.push(within(ENDPOINT, LIMIT, endpoint(ticket)).boxed_local());
    }
    let relays = gateway.iroh.iter().flat_map(|iroh| &iroh.relays);
    all.extend(relays.map(|it| within(RELAY, LIMIT, relay(it)).boxed_local()));
    join_all(all).await.into_iter().flatten().collect()
}

async fn jump_host(address: &JumpHostAddress) -> Vec<Check> {
    let JumpHostAddress { host, port, host_key } = address;
    let verified = match HostKeyCheck::one_of([host_key.as_str()]) {
        Ok(check) => verify_host_key((host.as_str(), *port), check).await,
        Err(_) => Err(LoginError::WrongHostKey),
    };
    let place = format!("{host}, port {port}");
    let fingerprint = host_key.fingerprint();
    vec![match verified {
        Ok(()) => JUMP_HOST.ok(format!("{place}: has the host key of the offers, {fingerprint}")),
        Err(LoginError::WrongHostKey) => JUMP_HOST.fail(
            format!("{place}: has not the host key of the offers, {fingerprint}"),
            "customers' ssh refuses it: give service and gateway one GATEWAY_KEY_DIR and restart them, or correct GATEWAY_SSH_HOST and GATEWAY_SSH_PORT, which lead to another server",
        ),
        Err(error) => JUMP_HOST.fail(
            format!("{place}: {}", error_chain(&error)),
            "check that what serves the gateway runs, GATEWAY_SSH_HOST, GATEWAY_SSH_PORT, and what forwards to it; where that does not lead back inside, run this outside",
        ),
    }]
}

async fn endpoint(ticket: &GatewayTicket) -> Vec<Check> {
    let id = ticket.endpoint_id();
    vec![match verify_endpoint(ticket).await {
        Ok(()) => ENDPOINT.ok(format!("it has proved its id, {id}")),
        Err(error) => ENDPOINT.fail(
            format!("{id}: {}", error_chain(&error)),
            "check that what serves the gateway runs with the key of this id, GATEWAY_IROH_EXTERNAL, that UDP is forwarded to it, and GATEWAY_IROH_RELAYS",
        ),
    }]
}

async fn relay(relay: &Relay) -> Vec<Check> {
    vec![match verify_relay(relay).await {
        Ok(()) => RELAY.ok(format!("{relay}: takes endpoints")),
        Err(error) => RELAY.fail(
            format!("{relay}: {}", error_chain(&error)),
            "start it, or name another one in GATEWAY_IROH_RELAYS",
        ),
    }]
}
