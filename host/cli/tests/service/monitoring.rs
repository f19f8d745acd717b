//! The alerts and the dashboard of `k8s/overlays/monitoring` are about metrics that the service or a
//! gateway in a process of its own has; names and labels of these.

use super::gateway::standalone_gateway;
use crate::support::customer::{Buyer, Running};
use crate::support::testbed::root;
use crate::support::web::Web;
use paygress::app::App;
use paygress::sandbox::Sandbox;
use paygress_core::Cluster;
use paygress_core::model::order::State;
use paygress_core::model::refusal::ErrorType;
use paygress_core::testing::SharedNodes;
use paygress_gateway::{Rejection, Way};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const OPERATOR: &str = "a token of the operator of this test";
const SETTINGS: [(&str, &str); 4] = [
    ("OPERATOR_TOKEN", OPERATOR),
    ("GATEWAY_SSH_LISTEN", "127.0.0.1:0"),
    ("GATEWAY_IROH", "true"),
    ("GATEWAY_IROH_BIND", "127.0.0.1:0"),
];
const FILES: [&str; 2] = ["rules.yaml", "paygress.json"];
/// What the dashboard must show: the panel, the labels that it tells apart, and the series.
const PANELS: [(&str, &str, &str); 11] = [
    ("Orders by state", "by (state)", "paygress_orders"),
    ("Held at each mint", "by (mint)", "paygress_mint_held_sats"),
    ("Capacity", "", "paygress_leases"),
    ("Capacity", "", "paygress_ports_in_use"),
    ("Capacity", "", "paygress_ports"),
    ("Node utilisation", "", "paygress_nodes_cpu_utilisation_ratio"),
    ("Node utilisation", "", "paygress_nodes_memory_utilisation_ratio"),
    ("Time to login", "", "paygress_login_seconds_bucket"),
    ("Policy latency", "by (le, slot)", "paygress_policy_call_seconds_bucket"),
    ("Policy refusals", "by (slot, code)", "paygress_policy_refusals_total"),
    ("Policy faults", "by (slot)", "paygress_policy_faults_total"),
];

fn text(file: &str) -> String {
    std::fs::read_to_string(root().join("k8s/overlays/monitoring").join(file)).unwrap()
}

/// The series of this project that a text names.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let names = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    names.filter(|name| name.starts_with("paygress_"))
}

/// Those that these files name.
fn series() -> BTreeSet<String> {
    let texts = FILES.map(text);
    texts.iter().flat_map(|text| named(text)).map(str::to_owned).collect()
}

/// The metrics of this answer, with their types.
fn types(metrics: &str) -> BTreeMap<&str, &str> {
    metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

/// Whether a metric of these has the series.
fn is_there(types: &BTreeMap<&str, &str>, series: &str) -> bool {
    let is = |suffix: &str, kind: &str| {
        series.strip_suffix(suffix).is_some_and(|name| types.get(name) == Some(&kind))
    };
    is("", "gauge") || is("_total", "counter") || is("_bucket", "histogram")
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_dashboard_are_about_metrics_that_are_there() {
    let sandbox = Sandbox::new(&SETTINGS, "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let web = Web::new(app.http_address().unwrap());
    let gateway = standalone_gateway(&sandbox, &app, OPERATOR).await;
    let web_of_gateway = Web::new(gateway.http_address().unwrap());
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let _served = tokio::spawn(gateway.serve(stopped));
    let _running = Running::start(app);
    // Requests are counted from the first on.
    web.ask("GET", "/offers", &[], "").await.good();
    let metrics = web.get("/metrics", OPERATOR).await;
    let of_gateway = web_of_gateway.get("/metrics", OPERATOR).await;
    let (types, types_of_gateway) = (types(&metrics.body), types(&of_gateway.body));
    let series = series();
    assert!(series.len() > 15, "{series:?}");
    let is_known =
        |series: &&String| is_there(&types, series) || is_there(&types_of_gateway, series);
    let unknown: Vec<&String> = series.iter().filter(|series| !is_known(series)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are not in\n{}{}", metrics.body, of_gateway.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_the_utilisation_of_the_nodes() {
    let sandbox = Sandbox::new(&[("OPERATOR_TOKEN", OPERATOR)], "").await.unwrap();
    let pods = Cluster::from(sandbox.cluster());
    let cluster = Cluster { capacity: Arc::new(SharedNodes(Some(250))), ..pods };
    let app = App::build(&sandbox.config, cluster, |backends| backends).await.unwrap();
    let web = Web::new(app.http_address().unwrap());
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    web.spawn(json!({"cashu_token": buyer.token(20).await})).await.good();
    let metrics = web.get("/metrics", OPERATOR).await;
    for line in
        ["paygress_nodes_cpu_utilisation_ratio 0.25", "paygress_nodes_memory_utilisation_ratio 0.0"]
    {
        assert!(metrics.body.lines().any(|it| it == line), "{line} is missing:\n{}", metrics.body);
    }
}

#[test]
fn the_dashboard_shows_what_operators_look_for() {
    let dashboard: Value = serde_json::from_str(&text("paygress.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    for (title, labels, series) in PANELS {
        let panel = panels.iter().find(|panel| panel["title"] == title);
        let panel = panel.unwrap_or_else(|| panic!("no panel is named {title}"));
        let mut queries = panel["targets"].as_array().unwrap().iter();
        let shows = queries.any(|target| {
            let query = target["expr"].as_str().unwrap();
            query.contains(labels) && named(query).any(|name| name == series)
        });
        assert!(shows, "{title} shows no {series} {labels}");
    }
}

/// Whether anybody is informed when one of them serves nobody, or is gone.
#[test]
fn each_process_has_alerts_for_its_readiness_and_its_end() {
    let rules: Value = serde_saphyr::from_str(&text("rules.yaml")).unwrap();
    let rules = rules["spec"]["groups"][0]["rules"].as_array().unwrap();
    let expressions: Vec<&str> = rules.iter().map(|rule| rule["expr"].as_str().unwrap()).collect();
    for series in ["paygress_ready", "paygress_gateway_ready"] {
        assert!(expressions.contains(&format!("min({series}) == 0").as_str()), "{series}");
        let absent = format!("absent({series})");
        assert!(expressions.iter().any(|expression| expression.starts_with(&absent)), "{series}");
    }
}

#[test]
fn states_are_those_of_orders() {
    let texts = FILES.map(text).concat().replace('\\', "");
    let matchers = texts.split("paygress_orders{state").skip(1);
    let states: BTreeSet<&str> =
        matchers.flat_map(|matcher| matcher.split('"').nth(1).unwrap().split('|')).collect();
    for state in &states {
        assert!(State::parse(state).is_some(), "{state}");
    }
    assert!(states.contains("refund-pending") && states.contains("payment-unknown"), "{states:?}");
}

/// `promtool` runs them.
#[test]
fn each_alert_has_a_test_in_which_it_fires() {
    let rules: Value = serde_saphyr::from_str(&text("rules.yaml")).unwrap();
    let rules = rules["spec"]["groups"][0]["rules"].as_array().unwrap();
    let tests = std::fs::read_to_string(root().join("host/cli/tests/service/alerts.yaml")).unwrap();
    let tests: Value = serde_saphyr::from_str(&tests).unwrap();
    let fired = tests["tests"].as_array().unwrap().iter().flat_map(|test| {
        let expected = test["promql_expr_test"].as_array().unwrap().iter();
        expected.flat_map(|it| it["exp_samples"].as_array().unwrap())
    });
    let fired: Vec<&str> = fired.map(|sample| sample["labels"].as_str().unwrap()).collect();
    for rule in rules {
        let name = format!("alertname={}", rule["alert"]);
        assert!(fired.iter().any(|labels| labels.contains(&name)), "{name}: {fired:?}");
    }
}

/// What a label may be: what this project or the operator has named, never a client.
fn is_bounded(name: &str, value: &str, mint: &str) -> bool {
    let is_digest = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    match name {
        "le" => value == "+Inf" || value.parse::<f64>().is_ok_and(|bound| bound > 0.0),
        "slot" => ["images", "pricing", "duration", "pod-template"].contains(&value),
        "digest" => is_digest,
        "code" => ErrorType::named(value).is_some(),
        "state" => State::parse(value).is_some(),
        "mint" => value.trim_end_matches('/') == mint.trim_end_matches('/'),
        "method" => ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "other"].contains(&value),
        "status" => value.parse::<u16>().is_ok_and(|status| (100..600).contains(&status)),
        // A pattern of the router.
        "route" => value == "none" || value.starts_with('/'),
        "way" => Way::ALL.iter().any(|way| way.as_str() == value),
        "reason" => Rejection::ALL.iter().any(|reason| reason.as_str() == value),
        _ => false,
    }
}

/// The labels of a line, as Prometheus writes them.
fn labels(line: &str) -> Vec<(&str, &str)> {
    let Some((_, rest)) = line.split_once('{') else { return Vec::new() };
    let (labels, _) = rest.rsplit_once('}').unwrap();
    let labels = labels.strip_suffix('"').unwrap().split("\",");
    labels.map(|label| label.split_once("=\"").unwrap()).collect()
}

/// By the conventions of Prometheus: base units, and `_total` for counters alone.
fn assert_conventional(metrics: &str) {
    for (name, kind) in types(metrics) {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        assert!(name.starts_with("paygress_") && name.bytes().all(is_plain), "{name}");
        for unit in ["ms", "us", "milliseconds", "microseconds", "minutes", "kib", "mib", "percent"]
        {
            assert!(!name.ends_with(&format!("_{unit}")), "{name}");
        }
        assert_ne!(kind, "unknown", "{name}");
        assert!(kind != "histogram" || name.ends_with("_seconds"), "{name}");
        let other = match kind {
            "counter" => name.to_owned(),
            _ => format!("{name}_total"),
        };
        let mut samples = metrics.lines().filter_map(|line| line.split(['{', ' ']).next());
        assert!(!samples.any(|sample| sample == other), "{kind} {other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_conventional_and_no_client_makes_a_label() {
    let sandbox = Sandbox::new(&SETTINGS, "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let web = Web::new(app.http_address().unwrap());
    let _running = Running::start(app);
    let chosen = "chosen-by-a-client";
    for (method, path) in [
        ("GET", format!("/{chosen}")),
        ("GET", format!("/pods/{chosen}")),
        ("BREW", "/offers".to_owned()),
        ("GET", format!("/offers?{chosen}={chosen}")),
    ] {
        web.ask(method, &path, &[("user-agent", chosen)], "").await;
    }
    web.spawn(json!({"cashu_token": chosen, "pod_spec": chosen, "pod_image": chosen})).await;
    let metrics = web.get("/metrics", OPERATOR).await;
    assert!(!metrics.body.contains(chosen) && !metrics.body.contains("BREW"), "{}", metrics.body);
    assert!(metrics.body.contains("method=\"other\""), "{}", metrics.body);
    for line in metrics.body.lines().filter(|line| !line.starts_with('#')) {
        for (name, value) in labels(line) {
            assert!(is_bounded(name, value, sandbox.mint.url()), "{line}");
        }
    }
    assert_conventional(&metrics.body);
}
