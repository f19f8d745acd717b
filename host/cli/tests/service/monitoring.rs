//! The alerts and the dashboard of `k8s/overlays/monitoring` are about metrics that the service has.

use crate::support::customer::Running;
use crate::support::testbed::root;
use crate::support::web::Web;
use paygress::sandbox::Sandbox;
use paygress_core::model::order::State;
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

/// The service's series that these files name.
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
    let _running = Running::start(app);
    // Requests are counted from the first on.
    web.ask("GET", "/offers", &[], "").await.good();
    let metrics = web.get("/metrics", OPERATOR).await;
    let types = types(&metrics.body);
    let series = series();
    assert!(series.len() > 15, "{series:?}");
    let unknown: Vec<&String> = series.iter().filter(|series| !is_there(&types, series)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are not in\n{}", metrics.body);
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
