//! Whose pod it is: its customer's alone, over whatever transport it was bought.

use crate::service::{OPERATOR, opened, shared};
use crate::support::web::Web;
use crate::text;
use paygress_nostr::http_auth;
use paygress_sandbox::token::requested_payment;
use serde_json::{Value, json};

/// A bearer token of a customer, and what buys with it.
struct Customer {
    token: &'static str,
    bearer: String,
}

impl Customer {
    fn new(token: &'static str) -> Self {
        Self { token, bearer: format!("Bearer {token}") }
    }

    async fn ask(&self, web: &Web, method: &str, path: &str, body: &Value) -> Value {
        let headers = [("authorization", self.bearer.as_str())];
        web.ask(method, path, &headers, &body.to_string()).await.good()
    }

    async fn buy(&self, web: &Web, token: String) -> Value {
        let bought = self.ask(web, "POST", "/spawn-pod", &json!({"cashu_token": token})).await;
        assert!(
            bought.get("bearer_token").is_none(),
            "a customer with a bearer token of their own gets none"
        );
        bought
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_or_touches_the_pod_of_another() {
    let (_shared, web, buyer) = shared().await;
    let mine = Customer::new("the-bearer-token-of-one-customer-at-random");
    let bought = mine.buy(&web, buyer.token(20).await).await;
    let pod = text(&bought, "pod_name");
    let other = "x".repeat(40);
    for (method, path) in [
        ("GET", format!("/pods/{pod}")),
        ("GET", format!("/pods/{pod}/access")),
        ("GET", format!("/pods/{pod}/events")),
        ("DELETE", format!("/pods/{pod}")),
    ] {
        let bearer = format!("Bearer {other}");
        web.ask(method, &path, &[("authorization", &bearer)], "").await.is(403, "not_owner");
        let nobody = web.ask(method, &path, &[], "").await;
        nobody.is(401, "unauthorized");
        assert!(nobody.headers["www-authenticate"].to_str().unwrap().contains("Bearer"));
        web.ask(method, &path, &[("authorization", &format!("Bearer {OPERATOR}"))], "")
            .await
            .is(401, "unauthorized");
    }
    let order = format!("/orders/{}", text(&bought, "order_id"));
    web.get(&order, &other).await.is(403, "not_owner");
    assert_eq!(web.get(&order, mine.token).await.good()["ssh_password"], bought["ssh_password"]);
    assert_eq!(web.get("/pods", &other).await.good(), json!({"pods": []}));
    web.ask("GET", "/pods", &[], "").await.is(401, "unauthorized");
    web.get("/pods", "short").await.is(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_has_so_many_streams_and_no_more() {
    let (_shared, web, buyer) = shared().await;
    let mine = Customer::new("the-bearer-token-of-a-customer-who-watches");
    let bought = mine.buy(&web, buyer.token(5).await).await;
    let events = format!("/pods/{}/events", text(&bought, "pod_name"));
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(web.open("GET", &events, &[("authorization", &mine.bearer)], "").await);
    }
    web.get(&events, mine.token).await.is(429, "too_many_requests");
    drop(streams);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_that_a_pod_exists_and_no_login() {
    let (_sandbox, _running, web, buyer) = opened(&[], "").await;
    let mine = Customer::new("the-bearer-token-of-one-customer-at-random");
    let bought = mine.buy(&web, buyer.token(20).await).await;
    let pod = text(&bought, "pod_name");
    let listing = web.get("/pods", OPERATOR).await;
    assert!(listing.good()["pods"][0]["pod_name"] == pod);
    let overview = web.get("/operator/overview", OPERATOR).await;
    assert_eq!(overview.good()["leases"][0]["pod_name"], pod);
    assert_eq!(overview.json()["income"][0]["earned_sats"], 19, "{}", overview.body);
    assert!(overview.json()["policies"][1]["calls"].as_u64().unwrap() > 0);
    let metrics = web.get("/metrics", OPERATOR).await;
    for line in [
        "paygress_ready 1",
        "paygress_disk_has_room 1",
        "paygress_login_seconds_count 1",
        "paygress_login_seconds_bucket{le=\"0.75\"}",
        "paygress_login_seconds_bucket{le=\"+Inf\"} 1",
        "paygress_leases 1",
        "paygress_orders{state=\"active\"} 1",
        "paygress_income_day_sats 19",
        "paygress_policy_call_seconds_count{slot=\"pricing\"",
        "paygress_policy_call_seconds_bucket{le=\"0.000025\",slot=\"pricing\"",
        "paygress_policy_call_seconds_bucket{le=\"+Inf\",slot=\"pricing\"",
        "paygress_mint_up{",
        "paygress_http_requests_total{route=\"/spawn-pod\",method=\"POST\",status=\"200\"} 1",
    ] {
        assert!(metrics.body.contains(line), "{line} is missing:\n{}", metrics.body);
    }
    // Whichever digest it has: each of the default policies.
    let is_snapshot =
        |line: &&str| line.starts_with("paygress_policy_snapshot{slot=\"") && line.ends_with("} 1");
    assert_eq!(metrics.body.lines().filter(is_snapshot).count(), 4, "{}", metrics.body);
    // It is no number of whole seconds.
    let sum = metrics.body.lines().find_map(|it| it.strip_prefix("paygress_login_seconds_sum "));
    assert!(sum.unwrap().parse::<f64>().unwrap().fract() > 0.0, "{sum:?}");
    for shown in [&listing.body, &overview.body, &metrics.body] {
        for secret in [text(&bought, "ssh_password"), mine.token, "cashuB"] {
            assert!(!shown.contains(secret), "a secret is shown");
        }
    }
    for path in ["/operator/overview", "/metrics"] {
        web.get(path, mine.token).await.is(401, "unauthorized");
        web.ask("GET", path, &[], "").await.is(401, "unauthorized");
    }
}

/// By this policy. Others get no 402, and their token stays good.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_extended_and_stopped_by_its_customer_only() {
    let (_shared, web, buyer) = shared().await;
    let mine = Customer::new("the-bearer-token-of-a-customer-who-stops");
    let bought = mine.buy(&web, buyer.token(20).await).await;
    let pod = text(&bought, "pod_name");
    web.ask("POST", "/top-up-pod", &[], &json!({"pod_name": pod}).to_string())
        .await
        .is(403, "not_owner");
    let token = buyer.token(3).await;
    let more = json!({"pod_name": pod, "cashu_token": token}).to_string();
    web.ask("POST", "/top-up-pod", &[], &more).await.is(403, "not_owner");
    assert!(buyer.wallet.receive(&token).await.unwrap() > 0);

    let more = json!({"pod_name": pod, "cashu_token": buyer.token(4).await});
    let more = mine.ask(&web, "POST", "/top-up-pod", &more).await;
    assert_eq!(more["extended_duration_seconds"], 180);
    // The unused time is paid back, and a repeated request says so again.
    let (path, headers) = (format!("/pods/{pod}"), [("authorization", mine.bearer.as_str())]);
    let stopped = web.ask("DELETE", &path, &headers, "").await.good();
    let mut refunds = 0;
    for token in stopped["refund_tokens"].as_array().unwrap() {
        refunds += buyer.wallet.receive(token.as_str().unwrap()).await.unwrap();
    }
    assert!((17..=21).contains(&refunds), "{stopped}");
    assert_eq!(web.ask("DELETE", &path, &headers, "").await.good()["success"], true);
    web.get(&format!("{path}/access"), mine.token).await.is(410, "lease_expired");
}

/// What a price of three minutes more is to everybody, but for the payment request in it.
fn price_to_everybody(pod: &str, mint: &str) -> Value {
    let message = format!(
        "3 min more for {pod}: 6 sat after the mint's input fee. Send a token of {mint} in X-Cashu, in Authorization: Cashu, or as cashu_token in the body; or have a wallet pay payment_request"
    );
    json!({
        "type": "/problems/payment_required",
        "title": "payment required",
        "status": 402,
        "error_type": "payment_required",
        "detail": message,
        "message": message,
        "amount": 6,
        "unit": "sat",
        "mints": [mint],
        "duration_seconds": 180,
        "price_msats": 2_000,
        "price_seconds": 60,
    })
}

/// Where others extend it too. Its name may be public, in a command of `ssh` for instance.
#[tokio::test(flavor = "multi_thread")]
async fn a_price_says_what_the_pod_is_to_its_customer_only() {
    let for_others = "[policy.duration]\nextend_by_others = true\n";
    let (sandbox, _running, web, buyer) = opened(&[], for_others).await;
    let mine = Customer::new("the-bearer-token-of-a-customer-who-extends");
    let order = json!({"cashu_token": buyer.token(20).await, "tier": "standard"});
    let bought = mine.ask(&web, "POST", "/spawn-pod", &order).await;
    let pod = text(&bought, "pod_name");
    let to_others = price_to_everybody(pod, sandbox.mint.url());
    let mut to_its_customer = to_others.clone();
    for (field, value) in
        [("tier", json!("standard")), ("cpu_millicores", json!(2_000)), ("memory_mb", json!(2_048))]
    {
        to_its_customer[field] = value;
    }
    let other = format!("Bearer {}", "x".repeat(40));
    let more = json!({"pod_name": pod, "duration_minutes": 3}).to_string();
    for (bearer, expected) in
        [(Some(&mine.bearer), &to_its_customer), (Some(&other), &to_others), (None, &to_others)]
    {
        let headers: Vec<(&str, &str)> =
            bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        let answer = web.ask("POST", "/top-up-pod", &headers, &more).await;
        let mut price = answer.is(402, "payment_required");
        let fields = price.as_object_mut().unwrap();
        assert_eq!(fields.remove("bearer_token").is_some(), bearer.is_none());
        let request = fields.remove("payment_request").unwrap();
        assert_eq!(&price, expected);
        let described = requested_payment(request.as_str().unwrap()).unwrap().description;
        assert_eq!(described, Some(format!("Paygress demo: 3 min more for {pod}")));
        let in_band = requested_payment(answer.headers["x-cashu"].to_str().unwrap()).unwrap();
        assert_eq!(in_band.description, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_bought_over_one_transport_is_used_over_the_other() {
    let (_shared, web, buyer) = shared().await;
    let bought = buyer.ask(json!({"cashu_token": buyer.token(6).await})).await;
    let pod = text(&bought, "pod_name");
    let signed = async |method: &str, path: &str, body: &str| {
        let evidence =
            http_auth::sign(buyer.client.keys(), method, &web.url(path), body.as_bytes()).unwrap();
        web.ask(method, path, &[("authorization", &format!("Nostr {evidence}"))], body).await
    };
    assert_eq!(signed("GET", &format!("/pods/{pod}"), "").await.good()["status"], "running");
    let body = json!({"pod_name": pod, "cashu_token": buyer.token(4).await}).to_string();
    assert_eq!(signed("POST", "/top-up-pod", &body).await.good()["extended_duration_seconds"], 180);
    // Bought here with a signature, extended and stopped there with a message.
    let body = json!({"cashu_token": buyer.token(6).await}).to_string();
    let second = signed("POST", "/spawn-pod", &body).await.good();
    assert!(second.get("bearer_token").is_none());
    let pod = text(&second, "pod_name");
    let more = buyer.ask(json!({"pod_name": pod, "cashu_token": buyer.token(4).await})).await;
    assert_eq!(more["success"], true, "{more}");
    assert_eq!(buyer.ask(json!({"type": "stop", "pod_name": pod})).await["success"], true);
    // A signature for something else opens nothing.
    let evidence =
        http_auth::sign(buyer.client.keys(), "GET", &web.url("/pods/other"), b"").unwrap();
    let forged = web
        .ask("GET", &format!("/pods/{pod}"), &[("authorization", &format!("Nostr {evidence}"))], "")
        .await;
    assert!(text(&forged.is(401, "unauthorized"), "detail").contains("tag u"));
    // One token over both transports at once buys one pod.
    let token = buyer.token(6).await;
    let (here, there) = tokio::join!(
        web.spawn(json!({"cashu_token": token})),
        buyer.ask(json!({"cashu_token": token}))
    );
    let (sold_here, sold_there) = (here.status == 200, there.get("ssh_port").is_some());
    assert_ne!(sold_here, sold_there, "{} and {there}", here.body);
}
