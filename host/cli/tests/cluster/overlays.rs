//! What the components of the overlays make in a copy of `k8s/overlays/cluster`.

use crate::chart::{chart, named, objects, template};
use crate::support::testbed::{kubectl, root};
use serde_json::{Value, json};

/// As docs/operating.md has it: a copy of the overlay, which names components itself.
fn kustomized_copy(name: &str, components: &[&str]) -> String {
    let copy = root().join("target/e2e/chart").join(name);
    std::fs::create_dir_all(&copy).unwrap();
    for file in std::fs::read_dir(root().join("k8s/overlays/cluster")).unwrap() {
        let file = file.unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let text = text.replace("../../base", "../../../../k8s/base");
        std::fs::write(copy.join(file.file_name()), text).unwrap();
    }
    let own = copy.join("kustomization.yaml");
    let mut text = std::fs::read_to_string(&own).unwrap();
    text.push_str("components:\n");
    for component in components {
        text.push_str(&format!("  - ../../../../k8s/overlays/{component}\n"));
    }
    std::fs::write(&own, text).unwrap();
    kubectl(&["kustomize", &copy.to_string_lossy()])
}

/// Components, the access that they set, and the Pod Security Standard.
const WITHOUT_PORTS: [(&[&str], &str, &str); 5] = [
    (&["gateway", "without-ports"], "gateway", "baseline"),
    (&["gateway-process", "without-ports"], "gateway", "baseline"),
    (&["without-host-ports"], "node-port", "baseline"),
    (&["gateway", "without-ports", "restricted"], "gateway", "restricted"),
    (&["without-host-ports", "restricted"], "node-port", "restricted"),
];

/// Wherever the components are named: what the service sells, what admission accepts and what the
/// namespace enforces go together.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn pods_without_host_ports_are_without_them_everywhere() {
    for (components, access, standard) in WITHOUT_PORTS {
        let manifests = kustomized_copy("copy-without-ports", components);
        let objects = objects(&manifests);
        let (root, volumes) = match standard {
            "restricted" => ("never", vec!["copy"]),
            _ => ("auto", Vec::new()),
        };
        for (name, expected) in [
            ("ACCESS", vec![access, access]),
            ("POD_ROOT", vec![root, root]),
            ("SSH_SERVER_VOLUME", volumes),
        ] {
            let found = objects.values().filter_map(|object| object["data"][name].as_str());
            assert_eq!(found.collect::<Vec<_>>(), expected, "{components:?}: {name}");
        }
        let labels = &named(&manifests, "Namespace", "user-workloads")["metadata"]["labels"];
        assert_eq!(labels["pod-security.kubernetes.io/enforce"], standard, "{components:?}");
    }
}

#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn replicas_on_postgres_are_spread_and_leave_one_at_a_time() {
    let manifests = kustomized_copy("copy-postgres", &["postgres"]);
    let spec = named(&manifests, "Deployment", "paygress")["spec"].clone();
    assert_eq!(spec["replicas"], 3);
    let update = json!({"maxUnavailable": 1, "maxSurge": 1});
    assert_eq!(spec["strategy"], json!({"type": "RollingUpdate", "rollingUpdate": update}));
    let pods = json!({"matchLabels": spec["template"]["metadata"]["labels"]});
    let spread = ["kubernetes.io/hostname", "topology.kubernetes.io/zone"].map(|place| {
        // Where there is one node alone, all of them are there.
        json!({"maxSkew": 1, "topologyKey": place, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": pods})
    });
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["topologySpreadConstraints"], json!(spread));
    let before_stop = &pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"];
    let whole = &pod["terminationGracePeriodSeconds"];
    assert_eq!((before_stop, whole), (&json!(5), &json!(30)), "20 s to answer, and some to spare");
    let budget = named(&manifests, "PodDisruptionBudget", "paygress")["spec"].clone();
    let unready = "AlwaysAllow";
    assert_eq!(
        budget,
        json!({"maxUnavailable": 1, "unhealthyPodEvictionPolicy": unready, "selector": pods})
    );

    let sources = pod["containers"][0]["envFrom"].as_array().unwrap();
    let secrets: Vec<&Value> = sources.iter().map(|source| &source["secretRef"]["name"]).collect();
    assert_eq!(secrets, [&Value::Null, &json!("paygress"), &json!("paygress-postgres")]);
    // They share the database alone.
    let volumes = pod["volumes"].as_array().unwrap();
    let data = json!({"name": "data", "emptyDir": {"sizeLimit": "1Gi"}});
    assert!(volumes.contains(&data), "{volumes:?}");
    let mut kinds = objects(&manifests).into_values().map(|object| object["kind"].clone());
    assert!(kinds.all(|kind| kind != "PersistentVolumeClaim"));
}

/// So no pod of a customer evicts the service, wherever it comes from, nor the service one of them.
#[test]
#[ignore = "needs the testbed: run `cargo xtask test`"]
fn the_service_and_the_gateways_process_have_the_priority() {
    let kustomized = kustomized_copy("copy-priority", &["postgres", "gateway-process"]);
    let values = "gateway.process.enabled=true,postgres.enabled=true,replicas=3";
    let charted = template(&chart(), &["--set", values]);
    for manifests in [kustomized, charted] {
        let class = named(&manifests, "PriorityClass", "paygress");
        assert_eq!(
            (&class["value"], &class["preemptionPolicy"]),
            (&json!(1_000_000), &json!("Never"))
        );
        assert!(class["globalDefault"].is_null(), "it is the customers' too");
        for name in ["paygress", "paygress-gateway"] {
            let pod = named(&manifests, "Deployment", name)["spec"]["template"]["spec"].clone();
            assert_eq!(pod["priorityClassName"], "paygress", "{name}");
        }
    }
}
