//! What the pods of a tier may connect to, as the operator has set it.

use crate::bindings::exports::paygress::policy::pod_template::{EgressRule, PortRange, Protocol};
use paygress_plugin_settings::SettingsReader;
use std::net::IpAddr;

/// What the contract allows in all rules of a pod.
const ENTRIES: usize = 32;

/// The rules of a tier. Without `cidrs` they are about the whole internet; with an empty list there is
/// none.
pub(crate) fn rules(tier: &mut SettingsReader) -> Vec<EgressRule> {
    let cidrs = tier.strings("cidrs");
    for cidr in cidrs.iter().flatten().filter(|cidr| !is_network(cidr)) {
        tier.problem("cidrs", format!("{cidr} is not a network; write 192.0.2.0/24"));
    }
    let mut ports = Vec::new();
    for text in tier.strings("ports").unwrap_or_default() {
        match port_range(&text) {
            Some(range) => ports.push(range),
            None => {
                tier.problem("ports", format!("{text} is no port; write 443/tcp or 1-1024/udp"))
            }
        }
    }
    for (name, count) in [("cidrs", cidrs.as_ref().map_or(0, Vec::len)), ("ports", ports.len())] {
        if count > ENTRIES {
            tier.problem(name, format!("must not have more than {ENTRIES} entries"));
        }
    }
    match cidrs {
        Some(cidrs) if cidrs.is_empty() => Vec::new(),
        cidrs => vec![EgressRule { cidrs: cidrs.unwrap_or_default(), ports }],
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
    use paygress_plugin_settings::Problem;

    /// Of the tier `web`.
    fn parsed(tier: &str) -> Result<Vec<EgressRule>, Vec<Problem>> {
        let mut reader = SettingsReader::parse(&format!(r#"{{"egress": {{"web": {tier}}}}}"#));
        let tiers = reader.object_map("egress", rules);
        let mut tiers = reader.finish(tiers)?;
        assert_eq!(tiers.len(), 1);
        let (tier, rules) = tiers.remove(0);
        assert_eq!(tier, "web");
        Ok(rules)
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
}
