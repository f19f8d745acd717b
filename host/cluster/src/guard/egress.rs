//! What a pod may connect to. NetworkPolicies are a union, and allow only: what no pod may reach is left
//! out of each of them.

use super::error::{GuardError, Violation};
use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicyEgressRule, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use paygress_core::backend::policy::{EgressRule, PortRange, Protocol};
use paygress_http_client::{CLOSED_NETWORKS, OPEN_NETWORK};
use serde_json::Value;
use std::ops::RangeInclusive;

type Result<T> = std::result::Result<T, GuardError>;

/// The label of pods that the policy for all pods, `customers`, does not select.
pub(crate) const EGRESS_LABEL: &str = "paygress-egress";

/// Where mail servers take mail from each other.
const MAIL: u16 = 25;

/// The rules of a NetworkPolicy that allow this, without what no pod may reach. `except` are further
/// networks that none does.
pub(super) fn check(
    rules: &[EgressRule],
    except: &[IpNet],
) -> Result<Vec<NetworkPolicyEgressRule>> {
    let rules = rules.iter().enumerate();
    rules.map(|(index, rule)| check_rule(&format!("egress[{index}]"), rule, except)).collect()
}

/// That such a pod is given no label by which other policies would add to its rules.
pub(super) fn check_label(template: &Value) -> Result<()> {
    match template.pointer("/metadata/labels").and_then(|labels| labels.get(EGRESS_LABEL)) {
        None => Ok(()),
        Some(_) => Err(error(
            format!("template.metadata.labels.{EGRESS_LABEL}"),
            "is the host's in a pod with egress rules; leave it out",
        )),
    }
}

fn error(path: String, violation: impl Into<Violation>) -> GuardError {
    GuardError::Field { path, violation: violation.into() }
}

fn check_rule(path: &str, rule: &EgressRule, except: &[IpNet]) -> Result<NetworkPolicyEgressRule> {
    let EgressRule { cidrs, ports } = rule;
    let named = cidrs.iter().enumerate().map(|(index, cidr)| {
        network(cidr, except)
            .map_err(|violation| error(format!("{path}.cidrs[{index}]"), violation))
    });
    let mut networks = named.collect::<Result<Vec<_>>>()?;
    if networks.is_empty() {
        networks.extend([IpNet::V4(Ipv4Net::default()), IpNet::V6(OPEN_NETWORK)]);
    }
    let named = ports.iter().enumerate().map(|(index, range)| {
        open_ports(*range).ok_or_else(|| {
            error(format!("{path}.ports[{index}]"), "has no port that pods may connect to")
        })
    });
    let mut ports = named.collect::<Result<Vec<_>>>()?.concat();
    if ports.is_empty() {
        ports.push(NetworkPolicyPort {
            protocol: Some("UDP".to_owned()),
            ..NetworkPolicyPort::default()
        });
        ports.extend(tcp(1..=u16::MAX));
    }
    let to = networks.into_iter().map(|network| peer(network, except)).collect();
    Ok(NetworkPolicyEgressRule { ports: Some(ports), to: Some(to) })
}

/// A network that pods may connect to, at least in part.
fn network(cidr: &str, except: &[IpNet]) -> std::result::Result<IpNet, Violation> {
    let network: IpNet = cidr.parse().map_err(|_| "is not a network; write 192.0.2.0/24")?;
    if network.addr() != network.network() {
        return Err("has bits after its prefix; leave them out".into());
    }
    let is_open = match network {
        IpNet::V4(_) => true,
        IpNet::V6(network) => OPEN_NETWORK.contains(&network),
    };
    if !is_open || all_closed(except).any(|closed| closed.contains(&network)) {
        return Err("is a network that pods may not connect to".into());
    }
    Ok(network)
}

fn all_closed(except: &[IpNet]) -> impl Iterator<Item = IpNet> {
    CLOSED_NETWORKS.into_iter().chain(except.iter().copied())
}

fn peer(network: IpNet, except: &[IpNet]) -> NetworkPolicyPeer {
    let within = all_closed(except).filter(|closed| network.contains(closed));
    let except: Vec<String> = within.map(|closed| closed.to_string()).collect();
    let block = IPBlock {
        cidr: network.to_string(),
        except: Some(except).filter(|except| !except.is_empty()),
    };
    NetworkPolicyPeer { ip_block: Some(block), ..NetworkPolicyPeer::default() }
}

/// These ports, less the one for mail; none if there is no other.
fn open_ports(range: PortRange) -> Option<Vec<NetworkPolicyPort>> {
    let PortRange { protocol, first, last } = range;
    if first == 0 {
        return None;
    }
    let ports = match protocol {
        Protocol::Tcp => tcp(first..=last),
        Protocol::Udp => ports("UDP", first..=last).into_iter().collect(),
    };
    Some(ports).filter(|ports| !ports.is_empty())
}

fn tcp(range: RangeInclusive<u16>) -> Vec<NetworkPolicyPort> {
    let (first, last) = range.into_inner();
    if !(first..=last).contains(&MAIL) {
        return ports("TCP", first..=last).into_iter().collect();
    }
    let parts = [first..=MAIL.saturating_sub(1), MAIL.saturating_add(1)..=last];
    parts.into_iter().filter_map(|part| ports("TCP", part)).collect()
}

/// None where there is no port between them.
fn ports(protocol: &str, range: RangeInclusive<u16>) -> Option<NetworkPolicyPort> {
    let (first, last) = range.into_inner();
    (first <= last).then(|| NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(i32::from(first))),
        end_port: (first < last).then_some(i32::from(last)),
    })
}
