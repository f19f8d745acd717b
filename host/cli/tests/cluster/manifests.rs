//! What `k8s/base` says, read from its files.

use crate::support::testbed::root;
use ipnet::IpNet;
use paygress::config::keys;
use paygress_http_client::{CLOSED_NETWORKS, OPEN_NETWORK, Reach};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

fn contains(network: &Value, address: IpAddr) -> bool {
    network.as_str().unwrap().parse::<IpNet>().unwrap().contains(&address)
}

fn is_in_block(block: &Value, address: IpAddr) -> bool {
    let except = block["except"].as_array().cloned().unwrap_or_default();
    contains(&block["cidr"], address) && !except.iter().any(|network| contains(network, address))
}

/// Whether an entry of `ports` is about this port.
fn is_port(allowed: &Value, protocol: &str, port: u64) -> bool {
    let Some(first) = allowed["port"].as_u64() else { return allowed["protocol"] == protocol };
    let last = allowed["endPort"].as_u64().unwrap_or(first);
    allowed["protocol"] == protocol && (first..=last).contains(&port)
}

/// Whether a rule by address lets a pod connect there.
fn may_reach(policy: &Value, address: &str, protocol: &str, port: u64) -> bool {
    let address: IpAddr = address.parse().unwrap();
    policy["spec"]["egress"].as_array().unwrap().iter().any(|rule| {
        let mut ports = rule["ports"].as_array().unwrap().iter();
        let is_it = |peer: &Value| peer.get("ipBlock").is_some_and(|it| is_in_block(it, address));
        let peers = rule["to"].as_array();
        ports.any(|allowed| is_port(allowed, protocol, port))
            && peers.is_none_or(|peers| peers.iter().any(is_it))
    })
}

/// More addresses than the testbed has, those of IPv6 among them, and whether pods reach them.
const WAYS_OUT: [(&str, &str, u64, bool); 33] = [
    ("192.0.2.1", "TCP", 443, true),
    ("2001:4860::1", "TCP", 443, true),
    ("192.0.2.1", "UDP", 443, true),
    ("2001:4860::1", "UDP", 25, true),
    // Mail from pods goes by a server at which its sender logs in.
    ("192.0.2.1", "TCP", 25, false),
    ("2001:4860::1", "TCP", 25, false),
    ("192.0.2.1", "TCP", 465, true),
    ("192.0.2.1", "TCP", 587, true),
    ("192.0.2.1", "TCP", 1, true),
    ("192.0.2.1", "TCP", 24, true),
    ("192.0.2.1", "TCP", 26, true),
    ("192.0.2.1", "TCP", 65_535, true),
    // NodeLocal DNS, and not the metadata service of a cloud beside it.
    ("169.254.20.10", "UDP", 53, true),
    ("169.254.20.10", "TCP", 53, true),
    ("169.254.20.10", "TCP", 80, false),
    ("169.254.169.254", "TCP", 53, false),
    ("169.254.169.254", "TCP", 80, false),
    ("168.63.129.16", "TCP", 80, false),
    ("169.254.20.11", "UDP", 53, false),
    ("10.96.0.1", "TCP", 443, false),
    ("100.64.0.1", "TCP", 443, false),
    ("172.16.0.1", "UDP", 53, false),
    ("192.168.0.1", "TCP", 22, false),
    ("127.0.0.1", "TCP", 80, false),
    // 6to4 and Teredo, which lead on to addresses of IPv4.
    ("192.88.99.1", "TCP", 80, false),
    ("2002:a00:1::1", "TCP", 80, false),
    ("2001::1", "UDP", 443, false),
    ("2001:200::1", "TCP", 443, true),
    ("fd00::1", "TCP", 443, false),
    ("fe80::1", "TCP", 80, false),
    ("fd00:ec2::254", "TCP", 80, false),
    ("64:ff9b:1::a00:1", "TCP", 80, false),
    ("::ffff:10.0.0.1", "TCP", 80, false),
];

#[test]
fn pods_reach_the_internet_and_dns_and_nothing_else() {
    let text = std::fs::read_to_string(root().join("k8s/base/network.yaml")).unwrap();
    let policies = text.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap());
    let policies: Vec<Value> = policies.collect();
    // kube-router lets out what it lets in elsewhere, if one policy does both.
    let types: Vec<&Value> = policies.iter().map(|policy| &policy["spec"]["policyTypes"]).collect();
    assert_eq!(types, [&json!(["Egress"]), &json!(["Egress"]), &json!(["Ingress"])]);
    let selectors = policies.iter().map(|policy| &policy["spec"]["podSelector"]);
    let unlabelled =
        json!({"matchExpressions": [{"key": "paygress-egress", "operator": "DoesNotExist"}]});
    assert_eq!(selectors.collect::<Vec<_>>(), [&json!({}), &unlabelled, &json!({})]);
    let [dns, internet] = [&policies[0], &policies[1]];
    for (address, protocol, port, expected) in WAYS_OUT {
        let reaches = |policy| may_reach(policy, address, protocol, port);
        assert_eq!(
            reaches(dns) || reaches(internet),
            expected,
            "{address}, {protocol} port {port}"
        );
        // Pods with the label.
        let is_dns = address == "169.254.20.10" && port == 53;
        assert_eq!(reaches(dns), is_dns, "{address}, {protocol} port {port}");
    }
}

/// The rules by address for the internet: all but what is closed.
fn internet() -> Value {
    let closed = CLOSED_NETWORKS.map(|network| network.to_string()).into_iter();
    let (ipv4, ipv6): (Vec<_>, Vec<_>) = closed.partition(|network| !network.contains(':'));
    json!([
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ipv4}},
        {"ipBlock": {"cidr": OPEN_NETWORK.to_string(), "except": ipv6}},
    ])
}

/// One list closes networks to pods, and to the service where customers name an address. Pods may
/// try the networks of documentation besides, which nobody has. The service knows the addresses
/// behind NAT64, which pods do not reach.
#[test]
fn pods_reach_what_the_service_reaches_for_customers() {
    let internet =
        json!({"spec": {"egress": [{"ports": [{"protocol": "TCP"}], "to": internet()}]}});
    let ends =
        CLOSED_NETWORKS.into_iter().flat_map(|closed| [closed.network(), closed.broadcast()]);
    let closed = ends.map(|address| (address.to_string(), false, false));
    let others = [
        ("9.9.9.9", true, true),
        ("2620:fe::fe", true, true),
        ("::1", false, false),
        ("64:ff9b:1::9.9.9.9", false, false),
        ("fc00::1", false, false),
        ("fe80::1", false, false),
        ("ff02::1", false, false),
        ("192.0.2.1", true, false),
        ("198.51.100.1", true, false),
        ("203.0.113.1", true, false),
        ("2001:db8::1", true, false),
        ("3fff::1", true, false),
        ("64:ff9b::9.9.9.9", false, true),
    ];
    let others = others.map(|(address, pods, service)| (address.to_owned(), pods, service));
    for (address, pods, service) in closed.chain(others) {
        assert_eq!(may_reach(&internet, &address, "TCP", 443), pods, "{address}");
        let named = vec![SocketAddr::new(address.parse().unwrap(), 443)];
        assert_eq!(Reach::Public.check(named).is_ok(), service, "{address}");
    }
}

/// What a client of iroh says of its addresses brings no packet into the operator's network, whichever
/// process serves the gateway.
#[test]
fn the_gateway_sends_udp_to_the_internet_and_dns_and_nowhere_else() {
    for (overlay, deployment) in [
        ("gateway-process", "gateway-process/deployment.yaml"),
        ("gateway", "cluster/deployment.yaml"),
    ] {
        let read = |file: &str| -> Vec<Value> {
            let text = std::fs::read_to_string(root().join("k8s/overlays").join(file)).unwrap();
            text.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect()
        };
        let component = read(&format!("{overlay}/kustomization.yaml"));
        let resources = component[0]["resources"].as_array().unwrap();
        assert!(resources.contains(&json!("network.yaml")), "{overlay}: {resources:?}");
        let policies = read(&format!("{overlay}/network.yaml"));
        let is_it = |policy: &&Value| policy["metadata"]["name"] == "paygress-gateway";
        let policy = policies.iter().find(is_it).unwrap_or_else(|| panic!("{overlay}: none"));
        assert_eq!(policy["metadata"]["namespace"], "ingress-system");
        let objects = read(deployment);
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        let pods = &deployment["spec"]["template"]["metadata"]["labels"];
        assert_eq!(policy["spec"]["podSelector"]["matchLabels"], *pods, "{overlay}");
        assert_sends_udp_to_the_internet_and_dns(policy);
    }
}

fn assert_sends_udp_to_the_internet_and_dns(policy: &Value) {
    assert_eq!(policy["spec"]["policyTypes"], json!(["Egress"]));
    assert_eq!(policy["spec"]["egress"][2]["to"], internet());
    for (address, port, expected) in [
        ("192.0.2.1", 4_433, true),
        ("2001:4860::1", 4_433, true),
        ("169.254.20.10", 53, true),
        ("169.254.20.10", 4_433, false),
        ("169.254.169.254", 53, false),
        ("10.96.0.10", 4_433, false),
        ("192.168.0.1", 53, false),
        ("127.0.0.1", 53, false),
        ("fd00::1", 4_433, false),
        ("2002:a00:1::1", 4_433, false),
        ("::ffff:10.0.0.1", 4_433, false),
    ] {
        assert_eq!(may_reach(policy, address, "UDP", port), expected, "{address}, port {port}");
        assert!(may_reach(policy, address, "TCP", port), "the API server may be anywhere");
    }
}

/// Otherwise each request to a pod's HTTP port goes by the API server.
#[test]
fn the_service_reaches_the_http_ports_of_pods_with_either_gateway() {
    let from = |app: &str| {
        json!([{
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-system"}},
            "podSelector": {"matchLabels": {"app": app}},
        }])
    };
    let service = json!({"ports": [{"protocol": "TCP"}], "from": from("paygress")});
    let of_ssh = json!({"protocol": "TCP", "port": 2_222});
    let gateway = json!({"ports": [of_ssh], "from": from("paygress-gateway")});
    for (overlay, expected) in
        [("gateway", json!([service])), ("gateway-process", json!([service, gateway]))]
    {
        let path = root().join("k8s/overlays").join(overlay).join("network.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        let policies = text.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap());
        let policies: Vec<Value> = policies.collect();
        let is_it = |policy: &&Value| policy["metadata"]["name"] == "customers-gateway";
        let policy = policies.iter().find(is_it).unwrap_or_else(|| panic!("{overlay}: none"));
        assert_eq!(policy["metadata"]["namespace"], "user-workloads");
        assert_eq!(policy["spec"]["podSelector"], json!({}));
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]));
        assert_eq!(policy["spec"]["ingress"], expected, "{overlay}");
    }
}

/// It is open to the outside, and has none of the service's rights to make or end pods.
#[test]
fn the_gateway_finds_pods_and_connects_to_them_by_an_account_of_its_own() {
    let read = |name: &str| -> Vec<Value> {
        let path = root().join("k8s/overlays/gateway-process").join(name);
        let text = std::fs::read_to_string(path).unwrap();
        text.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect()
    };
    let rights = read("rbac.yaml");
    let [account, role, binding] = [&rights[0], &rights[1], &rights[2]];
    assert_eq!(
        role["rules"],
        json!([
            {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
            {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["create", "get"]},
        ])
    );
    assert_eq!((&role["kind"], &binding["kind"]), (&json!("Role"), &json!("RoleBinding")));
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["name"], account["metadata"]["name"]);
    let pod = &read("deployment.yaml")[0]["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
    assert_ne!(pod["serviceAccountName"], "paygress");
    assert!(
        read("kustomization.yaml")[0]["resources"]
            .as_array()
            .unwrap()
            .contains(&json!("rbac.yaml"))
    );
}

/// A lease's own NetworkPolicy adds to those of all pods: it must leave out what these do.
#[test]
fn what_is_closed_to_all_pods_is_closed_to_those_with_egress_rules() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let documents = |path: &str| -> Vec<Value> {
        let text = read(path);
        text.split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect()
    };
    assert_eq!(documents("k8s/base/network.yaml")[1]["spec"]["egress"][0]["to"], internet());
    let admission = documents("k8s/overlays/egress/admission.yaml")[0]["spec"].clone();
    let variables = admission["variables"].as_array().unwrap();
    let variable = variables.iter().find(|variable| variable["name"] == "closed").unwrap();
    let expression = variable["expression"].as_str().unwrap();
    // As CEL has it too, in the same order.
    let closed = CLOSED_NETWORKS.map(|network| network.to_string());
    assert!(expression.starts_with(&format!("{closed:?} + params")), "{expression}");
    assert!(read("k8s/overlays/egress/admission.yaml").contains(&OPEN_NETWORK.to_string()));
    // Operators copy the example.
    let ipv4: Vec<&str> =
        closed.iter().map(String::as_str).filter(|it| !it.contains(':')).collect();
    let example = format!("\n            except: [{}]\n", ipv4.join(", "));
    assert!(read("docs/operating.md").contains(&example), "{example}");
}

#[test]
fn the_admission_policy_has_the_defaults_of_the_settings() {
    let text = std::fs::read_to_string(root().join("k8s/base/admission.yaml")).unwrap();
    let parameters = text.split("\n---\n").next().unwrap();
    let parameters: Value = serde_saphyr::from_str(parameters).unwrap();
    let settings: Vec<&str> = parameters["data"]
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(name, value)| {
            let key = keys::find(name)?;
            assert_eq!(value.as_str(), Some(key.default.unwrap_or_default()), "{name}");
            Some(key.name)
        })
        .collect();
    assert_eq!(settings.len(), 13, "{settings:?}");
}

/// What `pod_reply` of the cluster's crate makes; its own tests have the same.
#[test]
fn the_admission_policy_knows_the_container_that_writes_to_the_customer() {
    let text = std::fs::read_to_string(root().join("k8s/base/admission.yaml")).unwrap();
    let policy = text.split("\n---\n").nth(1).unwrap();
    let policy: Value = serde_saphyr::from_str(policy).unwrap();
    let validations = policy["spec"]["validations"].as_array().unwrap();
    let rule = |message: &str| {
        let of_message = |rule: &&Value| rule["message"].as_str().unwrap().contains(message);
        let rule = validations.iter().find(of_message).unwrap_or_else(|| panic!("{message}"));
        rule["expression"].as_str().unwrap().to_owned()
    };
    let second = rule("a second init container");
    for part in [
        r#"[1].name == "paygress-reply""#,
        r#"["/bin/paygress-nostr", "reply", "--message", "/.paygress-reply/message.json", "--host-keys", "/.paygress/host-keys", "--termination-message", "/dev/termination-log"]"#,
    ] {
        assert!(second.contains(part), "{part}: {second}");
    }
    let mounted = rule("mounted by its init container");
    assert!(mounted.contains("variables.replyVolumes"), "{mounted}");
    // Only as the second of two it has no command but its own.
    assert!(mounted.contains("variables.initContainers.size() == 2"), "{mounted}");
}

#[test]
fn the_rights_on_the_whole_cluster_are_to_list_and_watch_nodes_and_pods() {
    let text = std::fs::read_to_string(root().join("k8s/base/capacity.yaml")).unwrap();
    let role: Value = serde_saphyr::from_str(text.split("\n---\n").next().unwrap()).unwrap();
    assert_eq!(role["kind"], "ClusterRole");
    assert_eq!(
        role["rules"],
        json!([{"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["list", "watch"]}])
    );
    // Every other file of the base grants rights in a namespace.
    for entry in std::fs::read_dir(root().join("k8s/base")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let is_capacity = path.ends_with("capacity.yaml");
        assert_eq!(text.contains("kind: ClusterRole\n"), is_capacity, "{}", path.display());
    }
}
