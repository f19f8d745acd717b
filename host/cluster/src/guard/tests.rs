//! Which ports a template may open, by what the operator sells, what its pod may connect to, and what
//! decides on its node. What else it may have is tested from outside of the crate.

use super::pod::{PREFERRED, REQUIRED};
use super::*;
use paygress_core::backend::policy::{EgressRule, PortRange, Protocol, Resources};
use paygress_core::model::access::AccessMode::{self, Gateway, HostPort, NodePort};
use paygress_core::model::access::AccessModes;
use paygress_core::model::ids::ImageRef;
use paygress_http_client::CLOSED_NETWORKS;
use serde_json::json;

fn placement(access: &[AccessMode]) -> Placement {
    let access = AccessModes::new(access.iter().copied()).unwrap();
    Placement {
        pod_name: "ssh-pod-a".to_owned(),
        image: ImageRef::parse("example.com/ssh:1").unwrap(),
        resources: Resources { cpu_millicores: 500, memory_mib: 64 },
        host_port: access.has_port().then_some(31_000),
        access,
        container_port: 2_222,
        secret_name: "ssh-pod-a".to_owned(),
        secret_mount_path: "/run/paygress/login".to_owned(),
    }
}

/// With this port of the node, or a Service of this type.
fn checked(
    access: &[AccessMode],
    host_port: Option<u16>,
    service: Option<&str>,
) -> Result<Checked, GuardError> {
    let template = json!({"spec": {
        "restartPolicy": "Never",
        "securityContext": {"runAsUser": 1000},
        "containers": [{"name": "ssh", "image": "example.com/ssh:1", "ports": [{"containerPort": 2222, "hostPort": host_port}]}],
    }});
    let service = service.map(|kind| json!({"spec": {"type": kind, "ports": [{"port": 22}]}}));
    let rendered = Rendered {
        pod_template_json: template.to_string(),
        services_json: service.iter().map(Value::to_string).collect(),
        egress: None,
    };
    check(&rendered, &placement(access), &Allowed::default())
}

#[test]
fn a_template_opens_the_port_that_is_sold_and_no_other() {
    for (access, host_port, service, refused) in [
        (&[HostPort][..], Some(31_000), None, None),
        (&[HostPort], None, Some("NodePort"), Some("services[0].spec.type must be ClusterIP")),
        (&[HostPort, Gateway], Some(31_000), None, None),
        (&[HostPort, Gateway], None, None, Some("nobody could log in")),
        (&[NodePort], None, Some("NodePort"), None),
        (&[NodePort], Some(31_000), None, Some("hostPort is not allowed: ACCESS has no host-port")),
        (&[NodePort, Gateway], Some(0), Some("NodePort"), None),
        (&[Gateway], None, None, None),
        (&[Gateway], None, Some("ClusterIP"), None),
        (&[Gateway], Some(31_000), None, Some("hostPort is not allowed: ACCESS has no host-port")),
        (&[Gateway], None, Some("NodePort"), Some("ACCESS has no node-port")),
    ] {
        let message = checked(access, host_port, service).err().map(|error| error.to_string());
        match refused {
            None => assert_eq!(message, None, "{access:?} {host_port:?} {service:?}"),
            Some(reason) => {
                let message = message.unwrap_or_default();
                assert!(message.contains(reason), "{access:?}: {message}");
            }
        }
    }
}

/// What templates of contract 1.0 and 1.1 make of a placement without a port.
#[test]
fn the_port_0_is_none() {
    let Checked { template, .. } = checked(&[Gateway], Some(0), None).unwrap();
    let container = &template.spec.unwrap().containers[0];
    let port = &container.ports.as_ref().unwrap()[0];
    assert_eq!((port.container_port, port.host_port), (2_222, None));
    let message = checked(&[HostPort], Some(0), None).err().unwrap().to_string();
    assert!(message.contains("hostPort must be 31000"), "{message}");
}

/// A pod without a port of its node.
fn without_port() -> Value {
    json!({"spec": {
        "restartPolicy": "Never",
        "securityContext": {"runAsUser": 1000},
        "containers": [{"name": "ssh", "image": "example.com/ssh:1"}],
    }})
}

fn check_by_gateway(template: &Value, service: Option<&Value>) -> Result<Checked, GuardError> {
    let rendered = Rendered {
        pod_template_json: template.to_string(),
        services_json: service.map(Value::to_string).into_iter().collect(),
        egress: None,
    };
    check(&rendered, &placement(&[Gateway]), &Allowed::default())
}

#[test]
fn a_service_has_few_ports() {
    for (count, refused) in [(16, None), (17, Some("must not have more than 16 entries"))] {
        let port = |port: u16| json!({"name": format!("p-{port}"), "port": port});
        let ports: Vec<Value> = (1..=count).map(port).collect();
        let service = json!({"spec": {"ports": ports}});
        let message = check_by_gateway(&without_port(), Some(&service)).err();
        let message = message.map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.map_or(message.is_empty(), |text| message.contains(text)), "{message}");
    }
}

/// A pod whose place depends on other pods, where these fields of its spec say so.
fn with_scheduling(name: &str, value: &Value) -> Result<Checked, GuardError> {
    let mut template = without_port();
    template["spec"][name] = value.clone();
    check_by_gateway(&template, None)
}

/// Capacity counts no such rules: the pod would be sold where no node takes it.
#[test]
fn no_other_pods_decide_whether_a_pod_has_a_node() {
    let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {}});
    let node =
        json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]});
    let spread = |action: Option<&str>| {
        json!([{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": action,
        }])
    };
    let preferred = json!([{"weight": 1, "podAffinityTerm": term}]);
    let (not_allowed, must_be) = ("is not allowed", "must be ScheduleAnyway");
    for (name, value, refused) in [
        ("affinity", json!({"podAffinity": {REQUIRED: [term]}}), Some(not_allowed)),
        ("affinity", json!({"podAntiAffinity": {REQUIRED: [term]}}), Some(not_allowed)),
        ("affinity", json!("none"), Some("spec.affinity must be an object")),
        ("affinity", json!({"nodeAffinity": {REQUIRED: node}}), None),
        ("affinity", json!({"podAffinity": null, "podAntiAffinity": {REQUIRED: []}}), None),
        ("affinity", json!({"podAntiAffinity": {PREFERRED: preferred, REQUIRED: null}}), None),
        ("topologySpreadConstraints", spread(Some("DoNotSchedule")), Some(must_be)),
        ("topologySpreadConstraints", spread(None), Some(must_be)),
        ("topologySpreadConstraints", spread(Some("ScheduleAnyway")), None),
    ] {
        let message = with_scheduling(name, &value).err().map(|error| error.to_string());
        match refused {
            None => assert_eq!(message, None, "{value}"),
            Some(reason) => {
                let message = message.unwrap_or_default();
                assert!(message.contains(reason), "{value}: {message}");
            }
        }
    }
}

const TCP: Protocol = Protocol::Tcp;
const UDP: Protocol = Protocol::Udp;

fn rule(cidrs: &[&str], ports: &[(Protocol, u16, u16)]) -> EgressRule {
    let range = |(protocol, first, last): &(Protocol, u16, u16)| PortRange {
        protocol: *protocol,
        first: *first,
        last: *last,
    };
    EgressRule {
        cidrs: cidrs.iter().map(|cidr| (*cidr).to_owned()).collect(),
        ports: ports.iter().map(range).collect(),
    }
}

/// Of a template with this label, where the operator has closed two networks more.
fn with_egress(
    label: &str,
    rules: Vec<EgressRule>,
) -> Result<Option<Vec<NetworkPolicyEgressRule>>, GuardError> {
    let template = json!({
        "metadata": {"labels": {label: "web"}},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsUser": 1000},
            "containers": [{"name": "ssh", "image": "example.com/ssh:1"}],
        },
    });
    let rendered = Rendered {
        pod_template_json: template.to_string(),
        services_json: Vec::new(),
        egress: Some(rules),
    };
    let except = ["203.0.113.0/28", "2001:db8:1::/48"];
    let egress_except = except.map(|cidr| cidr.parse().unwrap()).to_vec();
    let allowed = Allowed { egress_except, ..Allowed::default() };
    check(&rendered, &placement(&[Gateway]), &allowed).map(|checked| checked.egress)
}

fn allowed_by(rules: Vec<EgressRule>) -> Value {
    json!(with_egress("any", rules).unwrap().unwrap())
}

#[test]
fn egress_rules_become_those_of_a_network_policy() {
    let rules = vec![rule(&["192.0.2.0/24", "2001:db8::7/128"], &[(TCP, 443, 443), (UDP, 1, 53)])];
    let to = json!([
        {"ipBlock": {"cidr": "192.0.2.0/24"}},
        {"ipBlock": {"cidr": "2001:db8::7/128"}},
    ]);
    let ports = json!([
        {"protocol": "TCP", "port": 443},
        {"protocol": "UDP", "port": 1, "endPort": 53},
    ]);
    assert_eq!(allowed_by(rules), json!([{"ports": ports, "to": to}]));
    assert_eq!(allowed_by(vec![]), json!([]));
}

/// Rules without an address or a port allow all of them in a NetworkPolicy, and must not here.
#[test]
fn what_no_pod_reaches_is_left_out_of_what_contains_it() {
    let internet = allowed_by(vec![rule(&[], &[])]);
    let closed = CLOSED_NETWORKS.map(|network| network.to_string()).into_iter();
    let (mut ipv4, mut ipv6): (Vec<_>, Vec<_>) = closed.partition(|network| !network.contains(':'));
    ipv4.push("203.0.113.0/28".to_owned());
    ipv6.push("2001:db8:1::/48".to_owned());
    let to = json!([
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ipv4}},
        {"ipBlock": {"cidr": "2000::/3", "except": ipv6}},
    ]);
    let ports = json!([
        {"protocol": "UDP"},
        {"protocol": "TCP", "port": 1, "endPort": 24},
        {"protocol": "TCP", "port": 26, "endPort": 65_535},
    ]);
    assert_eq!(internet, json!([{"ports": ports, "to": to}]));

    let wide = ["192.0.0.0/8", "203.0.113.0/24", "2001::/16"];
    let wide = allowed_by(vec![rule(&wide, &[(TCP, 25, 26)])]);
    for (index, except) in [
        json!(["192.0.0.0/24", "192.88.99.0/24", "192.168.0.0/16"]),
        json!(["203.0.113.0/28"]),
        json!(["2001::/23", "2001:db8:1::/48"]),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(wide[0]["to"][index]["ipBlock"]["except"], except);
    }
    assert_eq!(wide[0]["ports"], json!([{"protocol": "TCP", "port": 26}]));
    let mail = allowed_by(vec![rule(&[], &[(TCP, 24, 25), (UDP, 25, 25)])]);
    let ports = json!([{"protocol": "TCP", "port": 24}, {"protocol": "UDP", "port": 25}]);
    assert_eq!(mail[0]["ports"], ports);
}

#[test]
fn what_is_closed_is_not_opened() {
    let closed = "egress[1].cidrs[0] is a network that pods may not connect to";
    let by_cidr = |cidr: &str| {
        let rules = vec![rule(&["192.0.2.0/24"], &[]), rule(&[cidr], &[])];
        with_egress("any", rules).err().map(|error| error.to_string()).unwrap_or_default()
    };
    for cidr in [
        "10.0.0.0/8",
        "10.96.0.1/32",
        "127.0.0.1/32",
        "168.63.129.16/32",
        "169.254.169.254/32",
        "169.254.20.10/32",
        "172.31.0.0/16",
        "192.88.99.1/32",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "198.19.0.0/16",
        "0.0.0.0/8",
        "255.255.255.255/32",
        "203.0.113.7/32",
        "2001:db8:1::/48",
        "2001:db8:1:2::/64",
        "2001::/32",
        "2002:a00:1::/48",
        "::/0",
        "fd00::/8",
        "fe80::/10",
        "::1/128",
        "::ffff:c000:200/120",
        "64:ff9b::/96",
    ] {
        assert_eq!(by_cidr(cidr), closed, "{cidr}");
    }
    for (cidr, reason) in [
        ("192.0.2.7/24", "bits after its prefix"),
        ("192.0.2.7", "is not a network"),
        ("192.0.2.0/33", "is not a network"),
        ("example.com/24", "is not a network"),
        (" 192.0.2.0/24", "is not a network"),
    ] {
        let message = by_cidr(cidr);
        assert!(message.contains(reason), "{cidr}: {message}");
    }
    for range in [(TCP, 25, 25), (TCP, 0, 80), (UDP, 0, 0), (TCP, 90, 80)] {
        let message = with_egress("any", vec![rule(&[], &[range])]).unwrap_err().to_string();
        assert_eq!(message, "egress[0].ports[0] has no port that pods may connect to");
    }
}

#[test]
fn no_other_policy_adds_to_the_rules_of_a_pod() {
    let message = with_egress(EGRESS_LABEL, vec![]).unwrap_err().to_string();
    assert!(
        message.contains("template.metadata.labels.paygress-egress is the host's"),
        "{message}"
    );
}
