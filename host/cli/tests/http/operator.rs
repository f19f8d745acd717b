//! What the operator sees of the past, searches for and does; and that nobody else does.

use crate::service::{OPERATOR, opened, shared};
use crate::support::customer::Running;
use crate::support::web::{Answer, Web};
use crate::text;
use paygress::sandbox::Sandbox;
use paygress_core::model::ids::{LeaseId, OrderId};
use paygress_core::model::order::{Lease, LeaseState};
use paygress_core::testing;
use paygress_store::SqlStore;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

const LEASES: u32 = 5_000;
/// How long a search through all of them may take: in a debug build, and while other tests run.
const SEARCHED_WITHIN: Duration = Duration::from_secs(2);
/// The fastest of so many counts.
const SEARCHES: u32 = 3;

async fn operator(web: &Web, method: &str, path: &str, body: &str) -> Answer {
    web.ask(method, path, &[("authorization", &format!("Bearer {OPERATOR}"))], body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_operator_searches_and_acts() {
    let (_shared, web, _buyer) = shared().await;
    let pod = "/operator/leases/ssh-pod-aaaaaaaaaa";
    for (method, path, body) in [
        ("GET", "/operator/history", ""),
        ("GET", "/operator/leases", ""),
        ("GET", "/operator/leases?limit=none", ""),
        ("DELETE", pod, ""),
        ("GET", "/operator/sales", ""),
        ("POST", "/operator/sales", r#"{"sales": "paused"}"#),
    ] {
        web.ask(method, path, &[], body).await.is(401, "unauthorized");
        let customer = format!("Bearer {}", "c".repeat(40));
        let answer = web.ask(method, path, &[("authorization", &customer)], body).await;
        answer.is(401, "unauthorized");
        // What a browser adds by itself, for a page of others, is no token.
        let foreign = [("cookie", OPERATOR), ("origin", "https://evil.example")];
        let answer = web.ask(method, path, &foreign, body).await;
        answer.is(401, "unauthorized");
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{path}");
    }
    assert_eq!(operator(&web, "GET", "/operator/sales", "").await.good(), json!({"sales": "open"}));
    operator(&web, "DELETE", pod, "").await.is(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_wrong_is_answered_with_what_is_wrong() {
    let (_shared, web, _buyer) = shared().await;
    let long = format!("/operator/leases?q={}", "x".repeat(513));
    for (path, named) in [
        ("/operator/leases?state=lost", "state must be"),
        ("/operator/leases?limit=0", "limit must be from 1 to 200"),
        ("/operator/leases?limit=201", "limit must be from 1 to 200"),
        ("/operator/leases?limit=x", "limit"),
        ("/operator/leases?after=1", "after must be"),
        ("/operator/leases?customer=bob", "customer must be"),
        ("/operator/leases?order=by", "order must be one of"),
        (long.as_str(), "q has at most 512 bytes"),
        ("/operator/history?days=0", "days must be from 1 to 90"),
        ("/operator/history?days=91", "days must be from 1 to 90"),
    ] {
        let problem = operator(&web, "GET", path, "").await.is(400, "invalid_request");
        assert!(text(&problem, "detail").contains(named), "{path}: {problem}");
    }
    for body in ["", "{}", r#"{"sales": "closed"}"#, r#"{"sales": "paused", "until": 7}"#] {
        operator(&web, "POST", "/operator/sales", body).await.is(400, "invalid_request");
    }
    assert_eq!(operator(&web, "GET", "/operator/sales", "").await.good()["sales"], "open");
}

fn pods(page: &Value) -> Vec<&str> {
    page["leases"].as_array().unwrap().iter().map(|lease| text(lease, "pod_name")).collect()
}

async fn check_search(web: &Web, first: &str, second: &str) {
    // A page at a time, by what they have in common, and by what they have not.
    let page = operator(web, "GET", "/operator/leases?limit=1&q=ssh-pod", "").await.good();
    let next = format!("/operator/leases?limit=1&q=ssh-pod&after={}", text(&page, "next"));
    let rest = operator(web, "GET", &next, "").await.good();
    let mut found = [pods(&page), pods(&rest)].concat();
    found.sort_unstable();
    let mut expected = [first, second];
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(rest["next"], Value::Null);
    let one = operator(web, "GET", &format!("/operator/leases?q={first}"), "").await.good();
    assert_eq!(pods(&one), [first]);
}

/// Of one order that brought money, and one that was paid back.
fn check_history(history: &Value) {
    let hours = history["hours"].as_array().unwrap().clone();
    assert_eq!(hours.len(), 25);
    let sum = |field: &str| hours.iter().map(|hour| hour[field].as_i64().unwrap()).sum::<i64>();
    assert_eq!((sum("orders"), sum("leases_begun")), (1, 2), "{hours:?}");
    assert!(sum("earned_sats") > 0 && hours[24]["leases"].as_u64().unwrap() >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_pauses_sales_searches_and_ends_a_lease() {
    let (_sandbox, _running, web, buyer) = opened(&[], "").await;
    let bought = web.spawn(json!({"cashu_token": buyer.token(20).await})).await.good();
    let second = web.spawn(json!({"cashu_token": buyer.token(20).await})).await.good();
    let (first, second) = (text(&bought, "pod_name"), text(&second, "pod_name"));

    let paused = r#"{"sales": "paused"}"#;
    operator(&web, "POST", "/operator/sales", paused).await.good();
    let token = buyer.token(7).await;
    web.spawn(json!({"cashu_token": token})).await.is(503, "resource_unavailable");
    web.spawn(json!({})).await.is(503, "resource_unavailable");
    assert!(buyer.wallet.receive(&token).await.unwrap() > 0, "it was not taken");
    let overview = operator(&web, "GET", "/operator/overview", "").await.good();
    assert!(overview["warnings"].to_string().contains("paused"), "{overview}");
    operator(&web, "POST", "/operator/sales", r#"{"sales": "open"}"#).await.good();

    check_search(&web, first, second).await;
    let path = format!("/operator/leases/{first}");
    let ended = operator(&web, "DELETE", &path, "").await.good();
    assert_eq!(
        (text(&ended, "pod_name"), text(&ended, "end_reason")),
        (first, "ended-by-operator")
    );
    assert!((18..=20).contains(&ended["refunded_sats"].as_u64().unwrap()), "{ended}");
    let bearer = text(&bought, "bearer_token");
    let status = crate::support::customer::until("it is not paid back", async || {
        let status = web.get(&format!("/pods/{first}"), bearer).await.good();
        status["refund_tokens"][0].is_string().then_some(status)
    })
    .await;
    assert_eq!(status["end_reason"], "ended-by-operator", "{status}");
    let refund = status["refund_tokens"][0].as_str().unwrap();
    let again = operator(&web, "DELETE", &path, "").await;
    assert_eq!(again.good(), ended, "the same again");
    let all = operator(&web, "GET", "/operator/leases?state=all", "").await;
    let history = operator(&web, "GET", "/operator/history?days=1", "").await;
    for shown in [&again.body, &all.body, &history.body] {
        for secret in [text(&bought, "ssh_password"), bearer, refund, "cashuB"] {
            assert!(!shown.contains(secret), "a secret is shown");
        }
    }
    let current = operator(&web, "GET", "/operator/leases", "").await.good();
    assert_eq!(pods(&current), [second]);

    check_history(&history.good());
}

/// Writes leases that are over, as an earlier process has left them.
async fn leave_leases(ledger: &Path) {
    drop(SqlStore::sqlite(ledger).await.unwrap());
    let mut connection = rusqlite::Connection::open(ledger).unwrap();
    let transaction = connection.transaction().unwrap();
    for n in 0..LEASES {
        let id = LeaseId::of(&OrderId::random());
        let lease = Lease {
            image: testing::image(&format!("debian:{n}")),
            state: LeaseState::Ended,
            ..testing::lease(id, u64::from(n / 3), u64::from(n))
        };
        let body = serde_json::to_string(&lease).unwrap();
        let insert = "INSERT INTO leases (id, pod, customer, state, created_at, body)
             VALUES (?1, ?2, '', 'ended', ?3, ?4)";
        let (id, pod) = (lease.id.as_str(), lease.pod().to_string());
        transaction.execute(insert, rusqlite::params![id, pod, n / 3, body]).unwrap();
    }
    transaction.commit().unwrap();
}

/// All pages of a search.
async fn all_pages(web: &Web, query: &str) -> Vec<Value> {
    let mut pages: Vec<Value> = Vec::new();
    loop {
        let after = pages.last().map(|page| format!("&after={}", text(page, "next")));
        let path = format!("/operator/leases?{query}{}", after.unwrap_or_default());
        let page = operator(web, "GET", &path, "").await.good();
        let is_last = page["next"].is_null();
        pages.push(page);
        if is_last {
            return pages;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_leases_are_searched_a_page_at_a_time() {
    let settings = [("OPERATOR_TOKEN", OPERATOR), ("REQUESTS_PER_MINUTE", "100000")];
    let sandbox = Sandbox::new(&settings, "").await.unwrap();
    leave_leases(Path::new(&sandbox.environment["LEDGER_PATH"])).await;
    let app = sandbox.app().await.unwrap();
    let web = Web::new(app.http_address().unwrap());
    let _running = Running::start(app);

    let all = all_pages(&web, "state=all&limit=200").await;
    let names: Vec<&str> = all.iter().flat_map(pods).collect();
    let different: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!((all.len(), names.len(), different.len()), (25, 5_000, 5_000));
    assert!(all.iter().all(|page| pods(page).len() == 200));
    // Behind all others: one request finds it.
    let mut fastest = Duration::MAX;
    for _ in 0..SEARCHES {
        let begun = Instant::now();
        let oldest = all_pages(&web, "state=ended&limit=200&q=debian:0").await;
        fastest = fastest.min(begun.elapsed());
        let [oldest] = oldest.as_slice() else { panic!("{} pages", oldest.len()) };
        assert_eq!((pods(oldest).len(), &oldest["leases"][0]["image"]), (1, &json!("debian:0")));
    }
    assert!(fastest < SEARCHED_WITHIN, "{fastest:?}");
    for query in ["state=all&q=fedora", "state=current"] {
        let nothing = all_pages(&web, query).await;
        assert!(nothing.len() == 1 && pods(&nothing[0]).is_empty(), "{query}: {nothing:?}");
    }
}
