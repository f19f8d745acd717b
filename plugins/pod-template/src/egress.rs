//! What the pods of a tier may connect to, as the operator has set it.

use paygress_policy_sdk::{EgressRule, PortRange, Problems, Protocol};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What the contract allows in all rules of a pod.
const ENTRIES: usize = 32;

// Without a doc comment: it would be part of the schema.
#[derive(Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Egress {
    /// Networks, as 192.0.2.0/24. Left out: the whole internet; empty: nothing.
    #[schemars(length(max = 32))]
    cidrs: Option<Vec<String>>,
    /// Ports, as 443/tcp or 8000-8100/udp. Left out or empty: all.
    #[schemars(length(max = 32), inner(regex(pattern = r"^[0-9]+(-[0-9]+)?/(tcp|udp)$")))]
    ports: Option<Vec<String>>,
}

impl Egress {
    pub(crate) fn check(&self, tier: &str, problems: &mut Problems) {
        let cidrs = self.cidrs.as_deref().unwrap_or_default();
        for cidr in cidrs.iter().filter(|cidr| !is_network(cidr)) {
            let message = format!("{cidr} is not a network; write 192.0.2.0/24");
            problems.add(&["egress", tier, "cidrs"], message);
        }
        let ports = self.ports.as_deref().unwrap_or_default();
        for port in ports.iter().filter(|port| port_range(port).is_none()) {
            let message = format!("{port} is no port; write 443/tcp or 1-1024/udp");
            problems.add(&["egress", tier, "ports"], message);
        }
        for (name, count) in [("cidrs", cidrs.len()), ("ports", self.port_ranges().len())] {
            if count > ENTRIES {
                let message = format!("must not have more than {ENTRIES} entries");
                problems.add_last(&["egress", tier, name], message);
            }
        }
    }

    fn port_ranges(&self) -> Vec<PortRange> {
        self.ports.iter().flatten().filter_map(|port| port_range(port)).collect()
    }

    /// Without `cidrs` they are about the whole internet; with an empty list there is none.
    pub(crate) fn rules(&self) -> Vec<EgressRule> {
        match self.cidrs.clone() {
            Some(cidrs) if cidrs.is_empty() => Vec::new(),
            cidrs => {
                let (cidrs, ports) = (cidrs.unwrap_or_default(), self.port_ranges());
                vec![EgressRule { cidrs, ports }]
            }
        }
    }
}

/// Whether pods may connect there is for the host to say.
fn is_network(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else { return false };
    let (Ok(address), Ok(prefix)) = (address.parse::<IpAddr>(), prefix.parse::<u8>()) else {
        return false;
    };
    prefix <= if address.is_ipv4() { 32 } else { 128 }
}

/// Reads `443/tcp` and `8000-8100/udp`.
fn port_range(text: &str) -> Option<PortRange> {
    let (ports, protocol) = text.split_once('/')?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    (1..=last).contains(&first).then_some(PortRange { protocol, first, last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use paygress_policy_sdk::{Problem, parse};

    /// Of the tier `web`.
    fn parsed(tier: &str) -> Result<Vec<EgressRule>, Vec<Problem>> {
        let settings = parse::<Settings>(&format!(r#"{{"egress": {{"web": {tier}}}}}"#))?;
        assert_eq!(settings.egress.len(), 1);
        Ok(settings.egress["web"].rules())
    }

    #[test]
    fn networks_and_ports_of_a_tier_are_one_rule() {
        let rules = parsed(
            r#"{"cidrs": ["192.0.2.0/24", "2001:db8::/32"], "ports": ["443/tcp", "1-53/udp"]}"#,
        );
        let rules = rules.unwrap();
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].cidrs, ["192.0.2.0/24", "2001:db8::/32"]);
        let ports: Vec<_> =
            rules[0].ports.iter().map(|it| (it.protocol, it.first, it.last)).collect();
        assert_eq!(ports, [(Protocol::Tcp, 443, 443), (Protocol::Udp, 1, 53)]);
    }

    #[test]
    fn what_is_left_out_is_all_of_it_and_an_empty_list_of_networks_is_none() {
        let rules = parsed(r#"{"ports": ["80/tcp"]}"#).unwrap();
        assert_eq!((rules.len(), rules[0].cidrs.len(), rules[0].ports.len()), (1, 0, 1));
        let rules = parsed(r#"{"cidrs": ["192.0.2.7/32"]}"#).unwrap();
        assert_eq!((rules.len(), rules[0].cidrs.len(), rules[0].ports.len()), (1, 1, 0));
        assert!(parsed(r#"{"cidrs": []}"#).unwrap().is_empty());
    }

    #[test]
    fn every_mistake_is_reported_with_its_place() {
        let many = format!(r#"{{"cidrs": ["192.0.2.7/32"{}]}}"#, r#", "192.0.2.7/32""#.repeat(32));
        for (tier, place) in [
            (r#"{"cidrs": ["192.0.2.7"]}"#, "/egress/web/cidrs"),
            (r#"{"cidrs": ["192.0.2.0/33"]}"#, "/egress/web/cidrs"),
            (r#"{"cidrs": ["example.com/24"]}"#, "/egress/web/cidrs"),
            (r#"{"cidrs": "192.0.2.0/24"}"#, "/egress/web/cidrs"),
            (r#"{"ports": ["443"]}"#, "/egress/web/ports"),
            (r#"{"ports": ["0/tcp"]}"#, "/egress/web/ports"),
            (r#"{"ports": ["2-1/tcp"]}"#, "/egress/web/ports"),
            (r#"{"ports": ["65536/tcp"]}"#, "/egress/web/ports"),
            (r#"{"ports": ["1/icmp"]}"#, "/egress/web/ports"),
            (r#"{"port": ["1/tcp"]}"#, "/egress/web/port"),
            ("[]", "/egress/web"),
            (many.as_str(), "/egress/web/cidrs"),
        ] {
            let problems = parsed(tier).unwrap_err();
            assert_eq!((problems.len(), problems[0].path.as_str()), (1, place), "{problems:?}");
        }
    }

    #[test]
    fn what_is_wrong_in_several_places_is_reported_in_order() {
        let tier = r#"{"ports": [1, "x", "443"], "cidrs": ["a", 2], "port": []}"#;
        let problems = parsed(tier).unwrap_err();
        let shown: Vec<_> = problems.iter().map(|it| (&*it.path, &*it.message)).collect();
        assert_eq!(
            shown,
            [
                ("/egress/web/cidrs/1", "must be a text"),
                ("/egress/web/cidrs", "a is not a network; write 192.0.2.0/24"),
                ("/egress/web/ports/0", "must be a text"),
                ("/egress/web/ports", "x is no port; write 443/tcp or 1-1024/udp"),
                ("/egress/web/ports", "443 is no port; write 443/tcp or 1-1024/udp"),
                ("/egress/web/port", "is not a setting; known are: cidrs, ports"),
            ]
        );
    }
}
