//! The ways to a pod, each with a command to paste and with what is needed to check it.

use crate::model::access::AccessModes;
use crate::model::gateway::{GatewayWays, IrohAddress, JumpHostAddress};
use crate::model::host_key::HostKey;
use crate::model::order::{Lease, LeaseState};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// One way to the SSH server of a pod. The host keys of the pod are the same by all of them. Later
/// versions may add others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum AccessWay {
    /// A port of a node.
    HostPort {
        /// Logs in.
        command: String,
        host: String,
        port: u16,
        /// The pod's keys, as lines of a `known_hosts` file; left out where they are not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        known_hosts: Option<String>,
    },
    /// An SSH jump host, which takes the login's key, or its password, for the pod's name.
    JumpHost {
        /// Logs in.
        command: String,
        host: String,
        port: u16,
        /// The jump host's own key, as in an OpenSSH `.pub` file.
        host_key: String,
        /// That key, and the pod's where they are known, as lines of a `known_hosts` file.
        known_hosts: String,
    },
    /// An endpoint of iroh.
    Iroh {
        /// Logs in, with the program `paygress`.
        command: String,
        /// The endpoint's id and its addresses.
        ticket: String,
        /// Its id: a client knows the endpoint by it.
        endpoint_id: String,
        /// The protocol (ALPN) by which clients name the pod.
        protocol: String,
        /// The pod's keys, as lines of a `known_hosts` file; left out where they are not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        known_hosts: Option<String>,
    },
}

/// A way to pods that a service offers, before there is a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum OfferedWay {
    /// A port of a node for each pod.
    HostPort,
    /// An SSH jump host.
    JumpHost {
        host: String,
        port: u16,
        /// Its own key, as in an OpenSSH `.pub` file.
        host_key: String,
    },
    /// An endpoint of iroh.
    Iroh {
        /// Its id.
        endpoint_id: String,
    },
}

/// Those that this version knows.
pub(super) fn known<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let ways = Vec::<Value>::deserialize(deserializer)?;
    Ok(ways.into_iter().filter_map(|way| serde_json::from_value(way).ok()).collect())
}

/// What this version knows of a value that is only shown.
pub(super) fn known_or_none<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

/// Lines for a server that is known by this name; none where its keys are not known.
pub(super) fn known_hosts(keys: &[HostKey], host: &str, port: u16) -> Option<String> {
    let lines: Vec<String> = keys.iter().map(|key| key.known_hosts_line(host, port)).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// The ways to the pod of a lease; none where there is no gateway, and customers know its port, or
/// where the pod is over.
#[must_use]
pub fn access_ways(lease: &Lease, ssh_host: &str, gateway: &GatewayWays) -> Vec<AccessWay> {
    if lease.state == LeaseState::Ended || *gateway == GatewayWays::default() {
        return Vec::new();
    }
    let host = lease.login_host(ssh_host);
    let host_port = lease.port.map(|port| AccessWay::HostPort {
        command: format!("ssh -p {port} {}@{host}", lease.username),
        port,
        known_hosts: known_hosts(&lease.host_keys, &host, port),
        host,
    });
    let jump_host = gateway.jump_host.as_ref().map(|jump_host| by_jump_host(lease, jump_host));
    let iroh = gateway.iroh.as_ref().map(|iroh| by_iroh(lease, iroh));
    [host_port, jump_host, iroh].into_iter().flatten().collect()
}

fn by_jump_host(lease: &Lease, jump_host: &JumpHostAddress) -> AccessWay {
    let JumpHostAddress { host, port, host_key } = jump_host;
    let pod = lease.pod();
    // `ssh` takes the last colon for that of the port.
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let own = host_key.known_hosts_line(host, *port);
    let of_pod = known_hosts(&lease.host_keys, pod.as_str(), 22);
    AccessWay::JumpHost {
        command: format!("ssh -J {pod}@{bracketed}:{port} {}@{pod}", lease.username),
        host: host.clone(),
        port: *port,
        host_key: host_key.to_string(),
        known_hosts: [Some(own), of_pod].into_iter().flatten().collect::<Vec<_>>().join("\n"),
    }
}

fn by_iroh(lease: &Lease, iroh: &IrohAddress) -> AccessWay {
    let pod = lease.pod();
    let IrohAddress { ticket, endpoint_id, protocol_prefix } = iroh;
    AccessWay::Iroh {
        command: format!(
            "ssh -o ProxyCommand='paygress order proxy {pod} {ticket}' {}@{pod}",
            lease.username
        ),
        ticket: ticket.clone(),
        endpoint_id: endpoint_id.clone(),
        protocol: format!("{protocol_prefix}{pod}"),
        known_hosts: known_hosts(&lease.host_keys, pod.as_str(), 22),
    }
}

/// The ways that are offered; none without a gateway.
#[must_use]
pub fn offered_ways(modes: &AccessModes, gateway: &GatewayWays) -> Vec<OfferedWay> {
    if *gateway == GatewayWays::default() {
        return Vec::new();
    }
    let jump_host = gateway.jump_host.as_ref().map(|it| OfferedWay::JumpHost {
        host: it.host.clone(),
        port: it.port,
        host_key: it.host_key.to_string(),
    });
    let iroh =
        gateway.iroh.as_ref().map(|it| OfferedWay::Iroh { endpoint_id: it.endpoint_id.clone() });
    let host_port = modes.has_port().then_some(OfferedWay::HostPort);
    [host_port, jump_host, iroh].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{LeaseId, OrderId};
    use crate::model::ssh_host::SshHost;
    use crate::model::units::UnixTime;
    use crate::protocol::{AccessDetails, Response, access, sorted, status};
    use crate::testing;
    use serde_json::json;

    fn gateway() -> GatewayWays {
        let host_key = HostKey::parse(testing::HOST_KEY).unwrap();
        let jump_host = JumpHostAddress { host: "g.example".to_owned(), port: 2_222, host_key };
        let iroh = IrohAddress {
            ticket: "endpointabc".to_owned(),
            endpoint_id: "ab".to_owned(),
            protocol_prefix: "paygress/ssh/1/".to_owned(),
        };
        GatewayWays { jump_host: Some(jump_host), iroh: Some(iroh) }
    }

    fn lease() -> Lease {
        let host_keys = vec![HostKey::parse(testing::HOST_KEY).unwrap()];
        Lease { host_keys, ..testing::lease(LeaseId::of(&OrderId::random()), 1, 2) }
    }

    #[test]
    fn each_way_has_its_command_and_what_to_check() {
        let (lease, key) = (lease(), testing::HOST_KEY);
        let (pod, user, port) = (lease.pod(), lease.username.clone(), lease.login_port());
        let ways = sorted(&access_ways(&lease, "h", &gateway()));
        let expected = json!([
            {"type": "host-port", "command": format!("ssh -p {port} {user}@h"), "host": "h",
             "port": port, "known_hosts": format!("[h]:{port} {key}")},
            {"type": "jump-host", "command": format!("ssh -J {pod}@g.example:2222 {user}@{pod}"),
             "host": "g.example", "port": 2222, "host_key": key,
             "known_hosts": format!("[g.example]:2222 {key}\n{pod} {key}")},
            {"type": "iroh",
             "command": format!("ssh -o ProxyCommand='paygress order proxy {pod} endpointabc' {user}@{pod}"),
             "ticket": "endpointabc", "endpoint_id": "ab",
             "protocol": format!("paygress/ssh/1/{pod}"), "known_hosts": format!("{pod} {key}")},
        ]);
        assert_eq!(ways, expected);
        let over = Lease { state: LeaseState::Ended, ..lease };
        assert!(access_ways(&over, "h", &gateway()).is_empty());
    }

    #[test]
    fn without_a_gateway_answers_are_as_they_were() {
        assert!(access_ways(&lease(), "h", &GatewayWays::default()).is_empty());
        assert!(offered_ways(&AccessModes::default(), &GatewayWays::default()).is_empty());
        let details = access(&lease(), None, UnixTime(2), "h", None);
        assert!(sorted(&details).get("access").is_none());
    }

    #[test]
    fn ways_of_later_versions_are_left_out_by_clients() {
        let ways = access_ways(&lease(), "h", &gateway());
        let details = AccessDetails {
            access: ways.clone(),
            ..access(&lease(), None, UnixTime(2), "h", None)
        };
        let mut written = sorted(&details);
        written["access"].as_array_mut().unwrap().push(json!({"type": "pigeon", "loft": 7}));
        let read: Response = serde_json::from_value(written).unwrap();
        let Response::Access(read) = read else { panic!("{read:?}") };
        assert_eq!(read.access, ways);
    }

    #[test]
    fn what_is_sold_without_a_port_is_offered_without_one() {
        let kind = |way: &OfferedWay| match way {
            OfferedWay::HostPort => "host-port",
            OfferedWay::JumpHost { .. } => "jump-host",
            OfferedWay::Iroh { .. } => "iroh",
        };
        let offered = |modes: &AccessModes| -> Vec<&str> {
            offered_ways(modes, &gateway()).iter().map(kind).collect()
        };
        assert_eq!(offered(&AccessModes::default()), ["host-port", "jump-host", "iroh"]);
        assert_eq!(offered(&AccessModes::gateway()), ["jump-host", "iroh"]);
        let portless = Lease { port: None, ..lease() };
        let ways = access_ways(&portless, "h", &gateway());
        let is_port = |way: &AccessWay| matches!(way, AccessWay::HostPort { .. });
        assert_eq!((ways.len(), ways.iter().any(is_port)), (2, false));
    }

    #[test]
    fn an_address_of_ipv6_is_in_brackets() {
        let mut gateway = gateway();
        gateway.jump_host.as_mut().unwrap().host = "2001:db8::7".to_owned();
        let ways = access_ways(&lease(), "h", &gateway);
        let Some(AccessWay::JumpHost { command, .. }) = ways.get(1) else { panic!("{ways:?}") };
        assert!(command.contains("@[2001:db8::7]:2222 "), "{command}");
    }

    #[test]
    fn a_pod_with_a_host_of_its_own_is_reached_there() {
        let key = HostKey::parse(testing::HOST_KEY).unwrap();
        let id = LeaseId::parse("abcdefghij").unwrap();
        let mut lease = Lease { host_keys: vec![key.clone()], ..testing::lease(id, 0, 9) };
        for (own, host, known_host) in [
            (None, "setting.example", "[setting.example]:20427"),
            (Some("Node-1.example"), "node-1.example", "[node-1.example]:20427"),
            (Some("[2001:db8::1]"), "2001:db8::1", "[2001:db8::1]:20427"),
        ] {
            lease.port = Some(20_427);
            lease.ssh_host = own.map(|own| SshHost::parse(own).unwrap());
            let login = access(&lease, None, UnixTime(9), "setting.example", None);
            assert_eq!(login.instructions[0], format!("ssh -p 20427 user@{host}"));
            let running = status(&lease, &[], "setting.example", UnixTime(1));
            for response in [Response::from(login), Response::from(running)] {
                let json = sorted(&response);
                assert_eq!(json["ssh_host"], host);
                assert_eq!(json["known_hosts"], format!("{known_host} {key}"));
            }
        }
    }
}
