//! The Helm chart: it makes what kustomize makes, and its values change what an overlay would.

use crate::monitoring::Definitions;
use crate::support::testbed::{CLUSTER, dry_run, helm, kubectl, kustomized, output, root};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The oldest that is supported. Helm is built without a version of Kubernetes to suppose.
const KUBERNETES: [&str; 2] = ["--kube-version", "1.30.0"];
/// The namespaces of `k8s/base`, both of which kustomize makes.
const NAMESPACES: [&str; 4] = ["-n", "ingress-system", "--set", "namespaces.service=true"];
/// How Helm treats an object, and what restarts the pod: kustomize changes the ConfigMap's name for
/// that.
const ANNOTATIONS: [&str; 2] = ["helm.sh/resource-policy", "checksum/config"];

/// An overlay of `cluster` with these components, and the values for the same.
struct Variant {
    name: &'static str,
    components: &'static [&'static str],
    /// Of the configuration.
    settings: &'static str,
    values: &'static str,
}

const VARIANTS: [Variant; 10] = [
    Variant { name: "cluster", components: &[], settings: "", values: "replicas=1" },
    Variant {
        name: "gateway",
        components: &["gateway"],
        settings: "",
        values: "gateway.enabled=true",
    },
    Variant {
        name: "without-ports",
        components: &["gateway", "without-ports"],
        settings: "",
        values: "gateway.enabled=true,config.ACCESS=gateway",
    },
    Variant {
        name: "without-host-ports",
        components: &["without-host-ports"],
        settings: "",
        values: "config.ACCESS=node-port",
    },
    Variant {
        name: "restricted",
        components: &["without-host-ports", "restricted"],
        settings: "",
        values: "config.ACCESS=node-port,config.POD_ROOT=never,config.SSH_SERVER_VOLUME=copy",
    },
    Variant {
        name: "egress",
        components: &["egress"],
        settings: "",
        values: "egress.enabled=true",
    },
    Variant {
        name: "postgres",
        components: &["postgres"],
        settings: "",
        values: "postgres.enabled=true,replicas=3",
    },
    Variant {
        name: "gateway-process",
        components: &["postgres", "gateway-process"],
        settings: "",
        values: "gateway.process.enabled=true,postgres.enabled=true,replicas=3",
    },
    Variant {
        name: "gateway-process-without-ports",
        components: &["postgres", "gateway-process", "without-ports"],
        settings: "",
        values: "gateway.process.enabled=true,postgres.enabled=true,replicas=3,config.ACCESS=gateway",
    },
    Variant {
        name: "monitoring",
        components: &["monitoring"],
        settings: "",
        values: "monitoring.enabled=true",
    },
];

impl Variant {
    fn kustomized(&self) -> String {
        let name = format!("chart-{}", self.name);
        let settings: Vec<&str> = self.settings.split_whitespace().collect();
        let settings = json!({"name": "paygress", "namespace": "ingress-system", "behavior": "merge", "literals": settings});
        let manifests = kustomized(&name, "overlays/cluster", self.components, &[settings]);
        let objects = objects(&manifests);
        let settings = objects.values().find(|object| object["data"]["RUN_MODE"].is_string());
        let name = settings.unwrap()["metadata"]["name"].as_str().unwrap();
        manifests.replace(name, "paygress")
    }

    fn charted(&self, chart: &Path, flags: &[&str]) -> String {
        template(chart, &[&["--set", self.values][..], flags].concat())
    }
}

pub(crate) fn chart() -> PathBuf {
    root().join("k8s/chart")
}

/// What is pushed to a registry: without the links to the manifests.
pub(crate) fn packaged(directory: &Path) -> PathBuf {
    let chart = chart();
    let (chart, directory) = (chart.to_string_lossy(), directory.to_string_lossy());
    let printed = output(&mut helm(&["package", &chart, "--destination", &directory]));
    PathBuf::from(printed.trim().rsplit(": ").next().unwrap())
}

pub(crate) fn template(chart: &Path, values: &[&str]) -> String {
    let chart = chart.to_string_lossy();
    let template = ["template", "paygress", &*chart];
    output(&mut helm(&[&template[..], &KUBERNETES, &NAMESPACES, values].concat()))
}

/// By kind, namespace and name.
pub(crate) fn objects(manifests: &str) -> BTreeMap<String, Value> {
    let mut objects = BTreeMap::new();
    for text in manifests.split("\n---\n").filter(|text| text.contains("kind: ")) {
        let text = text.trim_start_matches("---\n");
        let mut object: Value =
            serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        normalise(&mut object);
        let metadata = &object["metadata"];
        let id = format!("{} {} {}", object["kind"], metadata["namespace"], metadata["name"]);
        assert!(objects.insert(id.clone(), object).is_none(), "{id} is there twice");
    }
    objects
}

/// Leaves out what only Helm needs, and the order of what is a set.
fn normalise(object: &mut Value) {
    for pointer in ["/metadata", "/spec/template/metadata"] {
        let Some(metadata) = object.pointer_mut(pointer).and_then(Value::as_object_mut) else {
            continue;
        };
        let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
        let is_empty = annotations.is_some_and(|annotations| {
            annotations.retain(|name, _| !ANNOTATIONS.contains(&name.as_str()));
            annotations.is_empty()
        });
        if is_empty {
            metadata.remove("annotations");
        }
    }
    for pointer in ["/spec/template/spec/volumes", "/spec/template/spec/containers/0/ports"] {
        if let Some(list) = object.pointer_mut(pointer).and_then(Value::as_array_mut) {
            list.sort_by_key(ToString::to_string);
        }
    }
}

pub(crate) fn named(manifests: &str, kind: &str, name: &str) -> Value {
    let objects = objects(manifests);
    let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.values().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}")).clone()
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_chart_makes_what_kustomize_makes() {
    let directory = tempfile::tempdir().unwrap();
    let (chart, archive) = (chart(), packaged(directory.path()));
    let path = chart.to_string_lossy();
    for variant in &VARIANTS {
        let lint = ["lint", "--strict", &*path, "--set", variant.values];
        output(&mut helm(&[&lint[..], &KUBERNETES].concat()));
        let expected = objects(&variant.kustomized());
        for chart in [&chart, &archive] {
            // The pod of `helm test` is none of kustomize's.
            let found = objects(&variant.charted(chart, &["--no-hooks"]));
            let (ids, expected_ids) = (found.keys(), expected.keys());
            assert!(ids.clone().eq(expected_ids), "{}: {ids:?}", variant.name);
            for (id, object) in &expected {
                assert_eq!(found[id], *object, "{}: {id}", variant.name);
            }
        }
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_cluster_takes_every_overlay_and_what_the_chart_makes() {
    let _alone = CLUSTER.lock();
    let _definitions = Definitions::new();
    let minikube = root().join("k8s/overlays/minikube");
    let minikube = kubectl(&["kustomize", &minikube.to_string_lossy()]);
    let of_variant = |variant: &Variant| [variant.kustomized(), variant.charted(&chart(), &[])];
    for manifests in VARIANTS.iter().flat_map(of_variant).chain([minikube]) {
        let answer = dry_run(&manifests);
        assert!(answer.status.success(), "{answer:?}");
        let taken = String::from_utf8(answer.stdout).unwrap();
        assert_eq!(taken.lines().count(), objects(&manifests).len(), "{taken}");
    }
}

/// By how pods are reached, and what they may be.
const STANDARDS: [(&str, &str, &str, &str); 6] = [
    ("host-port,node-port", "auto", "auto", "privileged"),
    ("host-port, gateway", "never", "copy", "privileged"),
    ("node-port", "auto", "auto", "baseline"),
    ("gateway", "auto", "copy", "baseline"),
    ("gateway", "never", "image", "baseline"),
    ("node-port,gateway", "never", "copy", "restricted"),
];

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_namespace_of_the_pods_is_as_strict_as_their_access_allows() {
    for (access, root, volume, expected) in STANDARDS {
        let config = json!({"ACCESS": access, "POD_ROOT": root, "SSH_SERVER_VOLUME": volume});
        let config = format!("config={config}");
        let gateway = format!("gateway.enabled={}", access.contains("gateway"));
        let manifests = template(&chart(), &["--set-json", &config, "--set", &gateway]);
        let labels = &named(&manifests, "Namespace", "user-workloads")["metadata"]["labels"];
        assert_eq!(labels["pod-security.kubernetes.io/enforce"], expected, "{config}");
        let ingress = &named(&manifests, "NetworkPolicy", "customers-ingress")["spec"]["ingress"];
        assert_eq!(ingress[0]["from"].is_array(), access == "gateway", "{config}");
        let parameters = named(&manifests, "ConfigMap", "paygress-admission");
        assert_eq!(parameters["data"]["ACCESS"], access);
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn settings_and_namespaces_are_the_same_wherever_they_are() {
    let config = json!({"SSH_PORT": 2200, "SSH_PORT_RANGE_END": 60_000, "POD_RUN_IMAGE": true, "POD_NAMESPACE": "pods", "NOSTR_RELAYS": null});
    let except = json!(["203.0.113.7/32", "2001:db8:1::/48"]);
    let (config, except) = (format!("config={config}"), format!("network.except={except}"));
    let gateway = "gateway.enabled=true";
    let values = ["--set", gateway, "--set-json", &config, "--set-json", &except, "-n", "sales"];
    let manifests = template(&chart(), &values);
    assert!(!manifests.contains("user-workloads") && !manifests.contains("ingress-system"));
    let settings = &named(&manifests, "ConfigMap", "paygress")["data"];
    for data in [settings, &named(&manifests, "ConfigMap", "paygress-admission")["data"]] {
        for (name, value) in
            [("SSH_PORT", "2200"), ("SSH_PORT_RANGE_END", "60000"), ("POD_RUN_IMAGE", "true")]
        {
            assert_eq!(data[name], value, "{name}");
        }
    }
    assert!(settings.get("NOSTR_RELAYS").is_none(), "{settings}");
    assert_eq!(settings["POLICY_NAMESPACE"], "sales");
    let ingress = &named(&manifests, "NetworkPolicy", "customers-ingress")["spec"]["ingress"];
    assert_eq!(ingress[0]["ports"][0]["port"], 2_200);
    for (name, rule) in [("customers", 0), ("paygress-gateway", 2)] {
        let policy = named(&manifests, "NetworkPolicy", name);
        let blocks = policy["spec"]["egress"][rule]["to"].as_array().unwrap();
        for (block, network) in blocks.iter().zip(["203.0.113.7/32", "2001:db8:1::/48"]) {
            let except = block["ipBlock"]["except"].as_array().unwrap();
            assert!(except.contains(&json!(network)), "{name}: {block}");
        }
    }
}

/// Of a gateway in a process of its own: what differs from the service's, and what is the same.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_gateways_process_has_values_of_its_own() {
    let process = json!({
        "enabled": true,
        "secret": "keys",
        "image": "registry.example/paygress:1",
        "pod": {"nodeSelector": {"pool": "edge"}},
        "resources": {"limits": {"memory": "1Gi"}},
    });
    let service = json!({"spec": {"type": "NodePort"}});
    let gateway = format!("gateway={}", json!({"process": process, "service": service}));
    let except = format!("network.except={}", json!(["203.0.113.7/32"]));
    let others = "image=registry.example/paygress:2,postgres.enabled=true,secrets={mine},config.SSH_PORT=2200";
    let values = ["--set-json", &gateway, "--set-json", &except, "--set", others];
    let manifests = template(&chart(), &values);
    let pod = |name| named(&manifests, "Deployment", name)["spec"]["template"]["spec"].clone();
    let (of_gateway, of_service) = (pod("paygress-gateway"), pod("paygress"));
    let containers = [&of_gateway["containers"][0], &of_service["containers"][0]];
    assert_eq!(containers[0]["image"], process["image"]);
    assert_eq!(containers[1]["image"], "registry.example/paygress:2");
    assert_eq!(containers[0]["resources"], process["resources"]);
    assert_eq!(containers[0]["envFrom"], containers[1]["envFrom"]);
    assert_eq!(containers[0]["envFrom"][1]["secretRef"]["name"], "mine");
    assert_eq!(of_gateway["nodeSelector"], json!({"pool": "edge"}));
    assert!(of_service.get("nodeSelector").is_none(), "{of_service}");
    let keys = json!({"name": "gateway-keys", "secret": {"secretName": "keys"}});
    for pod in [&of_gateway, &of_service] {
        assert!(pod["volumes"].as_array().unwrap().contains(&keys), "{pod}");
    }
    assert_eq!(named(&manifests, "Service", "paygress-gateway")["spec"]["type"], "NodePort");
    let of_http = named(&manifests, "Service", "paygress-gateway-http");
    assert!(of_http["spec"].get("type").is_none(), "{of_http}");
    let ingress = &named(&manifests, "NetworkPolicy", "customers-gateway")["spec"]["ingress"];
    assert_eq!(ingress[1]["ports"][0]["port"], 2_200);
    let policy = named(&manifests, "NetworkPolicy", "paygress-gateway");
    let internet = &policy["spec"]["egress"][2]["to"][0]["ipBlock"]["except"];
    assert!(internet.as_array().unwrap().contains(&json!("203.0.113.7/32")), "{internet}");
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn labels_annotations_and_variables_of_the_operator_are_added() {
    let variable = json!({"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "app", "key": "uri"}}});
    let variables = format!("extraEnv={}", json!([variable]));
    let enabled = "gateway.process.enabled=true,postgres.enabled=true,egress.enabled=true,monitoring.enabled=true,files.a=b";
    let own = "commonLabels.team=sales,podLabels.network=vetted,podAnnotations.scanned=yes";
    let values = ["--set", enabled, "--set-string", own, "--set-json", &variables];
    let manifests = template(&chart(), &values);
    for (id, object) in objects(&manifests) {
        assert_eq!(object["metadata"]["labels"]["team"], "sales", "{id}");
    }
    for name in ["paygress", "paygress-gateway"] {
        let deployment = named(&manifests, "Deployment", name);
        let pod = &deployment["spec"]["template"];
        assert_eq!(pod["metadata"]["labels"], json!({"app": name, "network": "vetted"}));
        assert_eq!(pod["metadata"]["annotations"]["scanned"], "yes");
        assert_eq!(pod["spec"]["containers"][0]["env"], json!([variable]));
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], json!({"app": name}));
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_right_to_forward_to_pods_is_granted_by_a_value() {
    let process = "gateway.process.enabled=true,postgres.enabled=true";
    for (granted, values) in
        [(true, process.to_owned()), (false, format!("{process},gateway.portForward=false"))]
    {
        let manifests = template(&chart(), &["--set", &values]);
        for name in ["paygress", "paygress-gateway"] {
            let role = named(&manifests, "Role", name);
            let rules = role["rules"].as_array().unwrap();
            let forwards = json!(["pods/portforward"]);
            assert_eq!(rules.iter().any(|rule| rule["resources"] == forwards), granted, "{role}");
            assert!(rules.iter().any(|rule| rule["resources"] == json!(["pods"])), "{role}");
        }
    }
}

/// What the cluster takes as it is: a name of a port or host that is wrong is nobody's error there.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_ingress_leads_from_the_public_url_to_the_service() {
    let ingress = json!({"enabled": true, "className": "nginx", "hosts": ["*.apps.example.com"], "tlsSecret": "certificate"});
    let ingress = format!("ingress={ingress}");
    let url = "config.PUBLIC_URL=https://sales.example.com:8443/pods";
    let manifests = template(&chart(), &["--set-json", &ingress, "--set", url]);
    let spec = named(&manifests, "Ingress", "paygress")["spec"].clone();
    let hosts = json!(["sales.example.com", "*.apps.example.com"]);
    assert_eq!(spec["tls"], json!([{"hosts": hosts, "secretName": "certificate"}]));
    assert_eq!(spec["ingressClassName"], "nginx");
    let service = named(&manifests, "Service", "paygress");
    for (rule, host) in spec["rules"].as_array().unwrap().iter().zip(hosts.as_array().unwrap()) {
        assert_eq!(rule["host"], *host);
        let backend = &rule["http"]["paths"][0]["backend"]["service"];
        assert_eq!(backend["name"], service["metadata"]["name"]);
        assert_eq!(backend["port"]["name"], service["spec"]["ports"][0]["name"]);
    }
    let answer = dry_run(&named(&manifests, "Ingress", "paygress").to_string());
    assert!(answer.status.success(), "{answer:?}");
}

/// Which Services the pod of `helm test` requests.
const REQUESTED: [(&str, &[&str]); 4] = [
    ("config.RUN_MODE=both", &["paygress"]),
    ("config.RUN_MODE=nostr", &[]),
    (
        "config.RUN_MODE=http,gateway.process.enabled=true,postgres.enabled=true",
        &["paygress", "paygress-gateway-http"],
    ),
    (
        "config.RUN_MODE=nostr,gateway.process.enabled=true,postgres.enabled=true",
        &["paygress-gateway-http"],
    ),
];

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn helm_test_requests_what_is_served() {
    for (values, services) in REQUESTED {
        let manifests = template(&chart(), &["--set", values]);
        let objects = objects(&manifests);
        let pods = objects.values().filter(|object| object["kind"] == "Pod");
        let containers = pods.flat_map(|pod| pod["spec"]["containers"].as_array().unwrap());
        let urls: Vec<&Value> = containers.map(|container| &container["command"][4]).collect();
        let url = |name: &&str| json!(format!("http://{name}.ingress-system.svc/readyz"));
        let expected: Vec<Value> = services.iter().map(url).collect();
        assert_eq!(urls, expected.iter().collect::<Vec<_>>(), "{values}");
        for service in services {
            let ports = &named(&manifests, "Service", service)["spec"]["ports"];
            assert_eq!(ports[0]["port"], 80, "{service}");
        }
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn values_that_cannot_work_are_refused() {
    for values in [
        "replicas=3",
        "replicas=3,postgres.enabled=true,gateway.enabled=true",
        "config.OPERATOR_TOKEN=secret",
        "config.NOSTR_PRIVATE_KEY=secret",
        "config.ssh_host=lower",
        "config.SSH_HOSTT=misspelt",
        "network.except={203.0.113.7}",
        "gateway.process.enabled=true",
        "gateway.process.enabled=true,postgres.enabled=true,gateway.enabled=true",
        "gateway.process.replicas=2",
        "config.ACCESS=gateway",
        r"config.ACCESS=host-port\,gateway,config.GATEWAY_IROH=false,files.paygress\.toml=ssh_port=2222",
        "extraEnv[0].name=OPERATOR_TOKEN,extraEnv[0].value=secret",
        "commonLabels.app=other",
        "podLabels.app=other",
        "ingress.enabled=true,config.RUN_MODE=nostr",
        "unknown=1",
    ] {
        let chart = chart();
        let path = chart.to_string_lossy();
        let template = ["template", "paygress", &*path, "--set", values];
        let refused = helm(&[&template[..], &KUBERNETES].concat()).output().unwrap();
        assert!(!refused.status.success(), "{values}");
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn a_gateway_may_be_in_the_settings_alone() {
    for gateway in [
        "config.GATEWAY_IROH=true",
        "config.GATEWAY_SSH_LISTEN=[::]:2222",
        r"files.paygress\.toml=gateway_iroh=true",
        "extraEnv[0].name=GATEWAY_SSH_LISTEN,extraEnv[0].value=[::]:2222",
        "config.PAYGRESS_CONFIG=/etc/paygress/own.toml",
    ] {
        let manifests = template(&chart(), &["--set", "config.ACCESS=gateway", "--set", gateway]);
        let settings = &named(&manifests, "ConfigMap", "paygress")["data"];
        assert_eq!(settings["ACCESS"], "gateway", "{gateway}");
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_documented_values_are_the_charts() {
    let text = std::fs::read_to_string(root().join("docs/operating.md")).unwrap();
    let (_, section) = text.split_once("### With Helm\n").unwrap();
    let values = section.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), values).unwrap();
    let path = file.path().to_string_lossy();
    let manifests = template(&chart(), &["--values", &path]);
    let settings = &named(&manifests, "ConfigMap", "paygress")["data"];
    assert_eq!(settings["SSH_HOST"], "node.example.com");
    assert_eq!(settings["PAYGRESS_CONFIG"], "/etc/paygress/paygress.toml");
    let files = &named(&manifests, "ConfigMap", "paygress-files")["data"]["paygress.toml"];
    let files: toml::Table = files.as_str().unwrap().parse().unwrap();
    assert_eq!(files["policy"]["pricing"]["sats_per_hour"].as_integer(), Some(100));
    let quota = named(&manifests, "ResourceQuota", "customers");
    assert_eq!(quota["spec"]["hard"]["pods"], 50);
}

/// What uninstalling must not remove: money, pods that were sold, and the walls around them.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn uninstalling_leaves_the_wallet_and_what_was_sold() {
    let chart = chart();
    let path = chart.to_string_lossy();
    let template = ["template", "paygress", &*path];
    let manifests = output(&mut helm(&[&template[..], &KUBERNETES].concat()));
    let is_left = |text: &&str| text.contains("helm.sh/resource-policy: keep");
    let kinds = manifests.split("\n---\n").filter(is_left).map(|text| {
        let object: Value = serde_saphyr::from_str(text.trim_start_matches("---\n")).unwrap();
        object["kind"].as_str().unwrap().to_owned()
    });
    let mut kinds: Vec<String> = kinds.collect();
    kinds.sort();
    kinds.dedup();
    let left = [
        "ConfigMap",
        "CustomResourceDefinition",
        "Namespace",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];
    assert_eq!(kinds, left);
}
