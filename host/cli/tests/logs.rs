//! The log: a line of each order, and no secret in any. A program of its own, since it sets the
//! global subscriber.
#![cfg(test)]

mod support;

use paygress::log::{self, LogFormat};
use paygress::sandbox::Sandbox;
use paygress_nostr::nsec;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use support::customer::{Buyer, Running, until};
use support::secrets::{self, SearchedLog};
use support::web::Web;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What was logged so far.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines of settled orders. Those that are not JSON fail the test.
    fn settled(&self) -> Vec<Value> {
        let text = self.text();
        // The last one may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter(|line: &Value| line["message"] == "settled").collect()
    }
}

const OPERATOR: &str = "an-operator-token-that-is-long-enough";
const PASSWORD: &str = "a-very-secret-password";
/// What cannot be read may be a token all the same.
const NONSENSE: &str = "cashuBnonsense-that-looks-like-a-token";

/// Every secret that a run has made: those of its requests, and of the answers.
async fn use_the_service(sandbox: &Sandbox, buyer: &Buyer, web: &Web) -> Vec<String> {
    let tokens =
        [buyer.token(11).await, buyer.token(12).await, buyer.token(2).await, buyer.token(9).await];
    let [first, second, refused, more] = tokens.clone();
    let own = buyer.ask(json!({"cashu_token": first, "ssh_password": PASSWORD})).await;
    let pod = own["pod_name"].as_str().unwrap_or_else(|| panic!("{own}")).to_owned();
    let bought = web.spawn(json!({"cashu_token": second})).await.good();
    buyer.ask(json!({"cashu_token": refused, "tier": "galactic"})).await;
    buyer.ask(json!({"cashu_token": more, "pod_name": pod})).await;
    buyer.ask(json!({"cashu_token": NONSENSE})).await;
    let operator = format!("Bearer {OPERATOR}");
    let headers = [("authorization", operator.as_str())];
    let lease = format!("/operator/leases/{}", bought["pod_name"].as_str().unwrap());
    web.ask("DELETE", &lease, &headers, "").await.good();
    let stopped = buyer.ask(json!({"type": "stop", "pod_name": pod})).await;
    let refunds = stopped["refund_tokens"].as_array().cloned().unwrap_or_default();
    let mut secrets = Vec::from(tokens);
    secrets.extend(refunds.iter().map(|token| token.as_str().unwrap().to_owned()));
    for field in ["ssh_password", "bearer_token"] {
        secrets.push(bought[field].as_str().unwrap().to_owned());
    }
    let keys = &sandbox.config.keys;
    secrets.extend([nsec(keys), keys.secret_key().to_secret_hex(), nsec(buyer.client.keys())]);
    secrets.extend([OPERATOR, PASSWORD, NONSENSE, "nsec1"].map(str::to_owned));
    let mnemonic = sandbox.config.wallet.with_extension("mnemonic");
    secrets.push(std::fs::read_to_string(mnemonic).unwrap().trim().to_owned());
    secrets
}

/// What the fixtures do that start a service as a process.
#[test]
fn a_secret_in_the_log_of_a_process_is_found() {
    secrets::add("a secret of the test");
    let environment = BTreeMap::from([("OPERATOR_TOKEN".to_owned(), OPERATOR.to_owned())]);
    for (text, is_good) in [
        ("INFO served", true),
        ("INFO served\nWARN of a secret of the test", false),
        ("INFO by an-operator-token-that-is-long-enough", false),
        ("INFO sent cashuBo2F0", false),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let log = SearchedLog::new(file.reopen().unwrap(), &environment);
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(log)));
        assert_eq!(dropped.is_ok(), is_good, "{text}");
    }
}

/// The lines of `use_the_service`: three orders are sold and paid back later, one is refused, and what
/// cannot be read is no order.
const SETTLED: usize = 7;

/// Each order has one line of each state that it settled in.
fn assert_one_line_each(settled: &[Value]) {
    let mut orders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in settled {
        let [order, state] = ["order", "state"].map(|field| line[field].as_str().unwrap());
        orders.entry(order).or_default().push(state);
    }
    let mut states: Vec<Vec<&str>> = orders.into_values().collect();
    states.sort();
    let (sold, refused) = (vec!["active", "refunded"], vec!["refused"]);
    assert_eq!(states, [sold.clone(), sold.clone(), sold, refused], "{settled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_order_is_a_line_of_json_and_no_secret_is_logged() {
    let lines = Lines::default();
    let writer = lines.clone();
    // All that the service has: whoever looks for a fault logs everything.
    let layer = log::layer("info,paygress=trace", LogFormat::Json, move || writer.clone()).unwrap();
    tracing_subscriber::registry().with(layer).init();
    let settings = [("OPERATOR_TOKEN", OPERATOR), ("RUN_MODE", "both")];
    let sandbox = Sandbox::new(&settings, "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let web = Web::new(app.http_address().unwrap());
    let running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let secrets = use_the_service(&sandbox, &buyer, &web).await;
    let settled = until("the orders have no lines", async || {
        let settled = lines.settled();
        (settled.len() >= SETTLED).then_some(settled)
    })
    .await;
    drop(running);
    for line in &settled {
        assert!(line["order"].as_str().is_some_and(|id| id.len() == 16), "{line}");
        assert!(line["state"].is_string() && line["seconds"].is_u64(), "{line}");
        assert!(line["timestamp"].is_string() && line["level"] == "INFO", "{line}");
    }
    assert!(settled.iter().any(|line| line["refusal"] == "invalid_spec"), "{settled:?}");
    assert_one_line_each(&settled);
    let text = lines.text();
    for secret in secrets {
        let place = text.find(&secret);
        let around = place.map(|at| text[..at].lines().last().unwrap_or_default().to_owned());
        assert!(place.is_none(), "a secret is logged, after: {around:?}");
    }
}
