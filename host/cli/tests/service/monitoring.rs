//! The alerts and the dashboard of `k8s/overlays/monitoring` are about metrics that the service or a
//! gateway in a process of its own has.

use super::gateway::standalone_gateway;
use crate::support::customer::Running;
use crate::support::testbed::root;
use crate::support::web::Web;
use paygress::sandbox::Sandbox;
use paygress_core::model::order::State;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const OPERATOR: &str = "a token of the operator of this test";
const SETTINGS: [(&str, &str); 4] = [
    ("OPERATOR_TOKEN", OPERATOR),
    ("GATEWAY_SSH_LISTEN", "127.0.0.1:0"),
    ("GATEWAY_IROH", "true"),
    ("GATEWAY_IROH_BIND", "127.0.0.1:0"),
];
const FILES: [&str; 2] = ["rules.yaml", "paygress.json"];

fn text(file: &str) -> String {
    std::fs::read_to_string(root().join("k8s/overlays/monitoring").join(file)).unwrap()
}

/// The series of this project that these files name.
fn series() -> BTreeSet<String> {
    let texts: Vec<String> = FILES.into_iter().map(text).collect();
    let names =
        texts.iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_'));
    names.filter(|name| name.starts_with("paygress_")).map(str::to_owned).collect()
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
