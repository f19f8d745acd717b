//! The HTTP API of a whole service: payment, access control, and hostile clients.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use futures::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use paygress::sandbox::Sandbox;
use paygress_nostr::http_auth;
use paygress_sandbox::token::{RequestedPayment, inflated, requested_payment, without_dleq};
use paygress_sshd::client::Client;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use support::customer::{Buyer, Running, TIMEOUT};
use support::web::Web;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

const OPERATOR: &str = "the operator's own long token";

async fn opened(settings: &[(&str, &str)], file: &str) -> (Sandbox, Running, Web, Buyer) {
    let mut all = vec![("OPERATOR_TOKEN", OPERATOR), ("REQUESTS_PER_MINUTE", "100000")];
    all.extend_from_slice(settings);
    let sandbox = Sandbox::new(&all, file).await.unwrap();
    let app = sandbox.app().await.unwrap();
    let web = Web::new(app.http_address().unwrap());
    let running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    (sandbox, running, web, buyer)
}

fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().unwrap_or_else(|| panic!("no {field} in {answer}"))
}

async fn says(answer: &Value, command: &str) -> String {
    let address = ("127.0.0.1", u16::try_from(answer["ssh_port"].as_u64().unwrap()).unwrap());
    let client = Client::login(address, text(answer, "ssh_username"), text(answer, "ssh_password"))
        .await
        .unwrap();
    client.run(command).await.unwrap().stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_paid_is_priced_and_a_wallet_pays_it() {
    // long: one session with a running service; each step builds on the last.
    let (sandbox, _running, web, buyer) = opened(&[], "").await;
    let order = json!({"ssh_username": "alice", "duration_minutes": 5, "tier": "standard"});
    let unpaid = web.spawn(order.clone()).await;
    let price = unpaid.is(402, "payment_required");
    assert_eq!(
        (price["amount"].as_u64(), &price["unit"], price["duration_seconds"].as_u64()),
        (Some(10), &json!("sat"), Some(300))
    );
    let requested = requested_payment(unpaid.headers["x-cashu"].to_str().unwrap()).unwrap();
    assert_eq!(
        requested,
        RequestedPayment {
            sat: 10,
            mints: vec![sandbox.mint.url().to_owned()],
            has_transport: false
        },
        "in band (NUT-24)"
    );

    // In a header, as NUT-24 has it.
    let token = buyer.token(11).await;
    let bought =
        web.ask("POST", "/spawn-pod", &[("x-cashu", &token)], &order.to_string()).await.good();
    assert_eq!(
        (text(&bought, "ssh_username"), text(&bought, "pod_spec_name")),
        ("alice", "standard")
    );
    assert_eq!(says(&bought, "echo $USER").await, "alice\n");
    let bearer = text(&bought, "bearer_token");
    let status = web.get(&format!("/pods/{}", text(&bought, "pod_name")), bearer).await.good();
    assert_eq!(
        (text(&status, "status"), status.get("ssh_password")),
        ("running", None),
        "{status}"
    );
    let access =
        web.get(&format!("/pods/{}/access", text(&bought, "pod_name")), bearer).await.good();
    assert_eq!(access["ssh_password"], bought["ssh_password"]);

    // In Authorization, without a body.
    let authorization = format!("Cashu {}", buyer.token(5).await);
    let second =
        web.ask("POST", "/spawn-pod", &[("authorization", &authorization)], "").await.good();
    assert_eq!(text(&second, "ssh_username"), "user");

    // By a wallet that reads the payment request: the pod belongs to the bearer token's customer.
    let requested = requested_payment(text(&price, "payment_request")).unwrap();
    assert!(requested.has_transport);
    buyer.wallet.pay_request(text(&price, "payment_request")).await.unwrap();
    let bearer = text(&price, "bearer_token");
    let pods = web.get("/pods", bearer).await.good();
    assert_eq!(pods["pods"].as_array().unwrap().len(), 1, "{pods}");
    let pod = text(&pods["pods"][0], "pod_name").to_owned();
    let access = ready(&web, &pod, bearer).await;
    assert_eq!(says(&access, "echo paid by a wallet").await, "paid by a wallet\n");
    let authorization = format!("Bearer {bearer}");
    let headers = [("authorization", authorization.as_str())];
    let more = json!({"pod_name": pod, "duration_minutes": 3}).to_string();
    let price = web.ask("POST", "/top-up-pod", &headers, &more).await.is(402, "payment_required");
    assert_eq!(
        (price["amount"].as_u64(), price.get("bearer_token")),
        (Some(6), None),
        "the tier's price: {price}"
    );
    buyer.wallet.pay_request(text(&price, "payment_request")).await.unwrap();
    let now = web.get(&format!("/pods/{pod}"), bearer).await.good();
    assert!(now["time_remaining_seconds"].as_u64().unwrap() > 400, "{now}");
    // A wallet that pays for a pod that has ended is refused.
    web.ask("DELETE", &format!("/pods/{pod}"), &headers, "").await.good();
    let error = buyer.wallet.pay_request(text(&price, "payment_request")).await.unwrap_err();
    assert!(error.to_string().contains("lease_expired"), "{error}");
}

/// The pod's login, once it takes it.
async fn ready(web: &Web, pod: &str, bearer: &str) -> Value {
    let begun = Instant::now();
    loop {
        let access = web.get(&format!("/pods/{pod}/access"), bearer).await;
        if access.status == 200 {
            return access.json();
        }
        assert!(begun.elapsed() < TIMEOUT, "{}", access.body);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_or_touches_the_pod_of_another() {
    // long: one session with a running service; each step builds on the last.
    let (_sandbox, _running, web, buyer) = opened(&[], "").await;
    let mine = "the-bearer-token-of-one-customer-at-random";
    let bearer = format!("Bearer {mine}");
    let bought = web
        .ask(
            "POST",
            "/spawn-pod",
            &[("authorization", &bearer)],
            &json!({"cashu_token": buyer.token(20).await}).to_string(),
        )
        .await
        .good();
    assert!(
        bought.get("bearer_token").is_none(),
        "a customer with a bearer token of their own gets none"
    );
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
    assert_eq!(web.get(&order, mine).await.good()["ssh_password"], bought["ssh_password"]);
    assert_eq!(web.get("/pods", &other).await.good(), json!({"pods": []}));
    web.ask("GET", "/pods", &[], "").await.is(401, "unauthorized");
    web.get("/pods", "short").await.is(401, "unauthorized");

    // One customer has so many streams, and no more.
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(
            web.open("GET", &format!("/pods/{pod}/events"), &[("authorization", &bearer)], "")
                .await,
        );
    }
    web.get(&format!("/pods/{pod}/events"), mine).await.is(429, "too_many_requests");
    drop(streams);

    // The operator sees that it exists, and no login.
    let listing = web.get("/pods", OPERATOR).await;
    assert!(listing.good()["pods"][0]["pod_name"] == pod);
    let overview = web.get("/operator/overview", OPERATOR).await;
    assert_eq!(overview.good()["leases"][0]["pod_name"], pod);
    assert_eq!(overview.json()["income"][0]["earned_sats"], 19, "{}", overview.body);
    assert!(overview.json()["policies"][1]["calls"].as_u64().unwrap() > 0);
    let metrics = web.get("/metrics", OPERATOR).await;
    for line in [
        "paygress_leases 1",
        "paygress_orders{state=\"active\"} 1",
        "paygress_income_day_sats 19",
        "paygress_policy_call_seconds_count{slot=\"pricing\"",
        "paygress_mint_up{",
        "paygress_http_requests_total{route=\"/spawn-pod\",method=\"POST\",status=\"200\"} 1",
    ] {
        assert!(metrics.body.contains(line), "{line} is missing:\n{}", metrics.body);
    }
    for shown in [&listing.body, &overview.body, &metrics.body] {
        for secret in [text(&bought, "ssh_password"), mine, "cashuB"] {
            assert!(!shown.contains(secret), "a secret is shown");
        }
    }
    for path in ["/operator/overview", "/metrics"] {
        web.get(path, mine).await.is(401, "unauthorized");
        web.ask("GET", path, &[], "").await.is(401, "unauthorized");
    }
    // Another customer may not extend it, by this policy: there is no 402, and their token stays
    // good.
    web.ask("POST", "/top-up-pod", &[], &json!({"pod_name": pod}).to_string())
        .await
        .is(403, "not_owner");
    let token = buyer.token(3).await;
    web.ask(
        "POST",
        "/top-up-pod",
        &[],
        &json!({"pod_name": pod, "cashu_token": token}).to_string(),
    )
    .await
    .is(403, "not_owner");
    assert!(buyer.wallet.receive(&token).await.unwrap() > 0);
    // Its customer may, and stop it: the unused time is paid back, and a repeated request says so
    // again.
    let bearer = format!("Bearer {mine}");
    let more = web
        .ask(
            "POST",
            "/top-up-pod",
            &[("authorization", &bearer)],
            &json!({"pod_name": pod, "cashu_token": buyer.token(4).await}).to_string(),
        )
        .await
        .good();
    assert_eq!(more["extended_duration_seconds"], 180);
    let stopped =
        web.ask("DELETE", &format!("/pods/{pod}"), &[("authorization", &bearer)], "").await.good();
    let refunds: u64 = {
        let mut sum = 0;
        for token in stopped["refund_tokens"].as_array().unwrap() {
            sum += buyer.wallet.receive(token.as_str().unwrap()).await.unwrap();
        }
        sum
    };
    assert!((17..=21).contains(&refunds), "{stopped}");
    assert_eq!(
        web.ask("DELETE", &format!("/pods/{pod}"), &[("authorization", &bearer)], "").await.good()
            ["success"],
        true
    );
    web.get(&format!("/pods/{pod}/access"), mine).await.is(410, "lease_expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_order_again_gets_the_same_answer_and_who_hangs_up_loses_nothing() {
    // long: one session with a running service; each step builds on the last.
    let (_sandbox, _running, web, buyer) = opened(&[], "").await;
    let body = json!({"cashu_token": buyer.token(6).await}).to_string();
    // Hang up as soon as it is sent.
    let mut stream = TcpStream::connect(web.address).await.unwrap();
    stream
        .write_all(
            format!(
                "POST /spawn-pod HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        )
        .await
        .unwrap();
    drop(stream);
    let first = web.ask("POST", "/spawn-pod", &[], &body).await.good();
    let again = web.ask("POST", "/spawn-pod", &[], &body).await.good();
    assert_eq!(first, again, "one token, one pod, one answer");
    let pods = web.get("/pods", text(&first, "bearer_token")).await.good();
    assert_eq!(pods["pods"].as_array().unwrap().len(), 1);
    assert_eq!(
        web.get(&format!("/orders/{}", text(&first, "order_id")), text(&first, "bearer_token"))
            .await
            .good()["pod_name"],
        first["pod_name"]
    );
    // The same token for something else is not the same order.
    web.ask("POST", "/spawn-pod", &[], &body.replace('}', ",\"ssh_username\":\"bob\"}"))
        .await
        .is(409, "token_already_spent");

    let key = [("idempotency-key", "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9")];
    let body = json!({"cashu_token": buyer.token(6).await}).to_string();
    let kept = web.ask("POST", "/spawn-pod", &key, &body).await.good();
    assert_eq!(web.ask("POST", "/spawn-pod", &key, &body).await.good(), kept);
    let (other, mine) = (buyer.token(6).await, "k".repeat(40));
    let clash = web
        .ask("POST", "/spawn-pod", &key, &json!({"cashu_token": other}).to_string())
        .await
        .is(400, "invalid_request");
    assert!(text(&clash, "detail").contains("another request"));
    web.ask("POST", "/spawn-pod", &[key[0], ("authorization", &format!("Bearer {mine}"))], &body)
        .await
        .is(400, "invalid_request");
    web.ask("POST", "/spawn-pod", &[("idempotency-key", "1")], &body)
        .await
        .is(400, "invalid_request");
    // A refused request may be repeated with the same key.
    let key = [("idempotency-key", "refused-at-first-0001")];
    let token = buyer.token(6).await;
    let order =
        |minutes: u64| json!({"cashu_token": token, "duration_minutes": minutes}).to_string();
    web.ask("POST", "/spawn-pod", &key, &order(50)).await.is(400, "insufficient_payment");
    web.ask("POST", "/spawn-pod", &key, &order(5)).await.good();

    // A client that does not want to wait gets a location.
    let accepted = web
        .ask(
            "POST",
            "/spawn-pod",
            &[("prefer", "respond-async")],
            &json!({"cashu_token": other}).to_string(),
        )
        .await;
    let response = accepted.good();
    let answer = ready(&web, text(&response, "pod_name"), text(&response, "bearer_token")).await;
    assert_eq!(says(&answer, "echo async").await, "async\n");
    // And at once when it is refused.
    web.ask(
        "POST",
        "/spawn-pod",
        &[("prefer", "respond-async")],
        &json!({"cashu_token": buyer.token(1).await}).to_string(),
    )
    .await
    .is(400, "insufficient_payment");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_bought_over_one_transport_is_used_over_the_other() {
    let (_sandbox, _running, web, buyer) = opened(&[], "").await;
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
    let sold = usize::from(here.status == 200) + usize::from(there.get("ssh_port").is_some());
    assert_eq!(sold, 1, "{} and {there}", here.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_lets_through_what_would_buy_or_has_bought() {
    let (_sandbox, _running, web, buyer) = opened(&[], "").await;
    let token = buyer.token(6).await;
    let gate = async |query: &str, headers: &[(&str, &str)]| {
        web.ask("GET", &format!("/auth{query}"), headers, "").await
    };
    assert_eq!(gate(&format!("?token={token}&duration_minutes=5"), &[]).await.status, 200);
    let good = gate("", &[("x-cashu", &token)]).await;
    assert_eq!((good.status, &good.headers["x-paygress-auth"]), (200, &"token".parse().unwrap()));
    gate(&format!("?token={token}&duration_minutes=6"), &[]).await.is(403, "insufficient_payment");
    gate("", &[]).await.is(401, "unauthorized");
    // Who invents proofs shows no signature for them; who changes what they are worth shows a wrong
    // one.
    gate("", &[("x-cashu", &without_dleq(&token).unwrap())]).await.is(403, "invalid_token");
    gate("", &[("x-cashu", &inflated(&token).unwrap())]).await.is(403, "invalid_token");
    gate("?token=cashuBnonsense", &[]).await.is(403, "invalid_token");
    gate("?duration_minutes=x", &[]).await.is(403, "invalid_request");
    // It is still good: nothing was taken. Once it has bought, it is good while its pod lives.
    let bought = web.spawn(json!({"cashu_token": token})).await.good();
    assert_eq!(gate("", &[("x-cashu", &token)]).await.headers["x-paygress-auth"], "lease");
    let bearer = format!("Bearer {}", text(&bought, "bearer_token"));
    assert_eq!(gate("", &[("authorization", &bearer)]).await.status, 200);
    web.ask(
        "DELETE",
        &format!("/pods/{}", text(&bought, "pod_name")),
        &[("authorization", &bearer)],
        "",
    )
    .await
    .good();
    gate("", &[("x-cashu", &token)]).await.is(403, "token_already_spent");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_sent_from_the_order_to_the_end() {
    let (_sandbox, _running, web, buyer) = opened(
        &[("PAYMENT_RATE_SATS_PER_HOUR", "3600"), ("RUN_MODE", "http")],
        "[policy.duration]\nminimum_seconds = 5\n",
    )
    .await;
    let body = json!({"cashu_token": buyer.token(9).await}).to_string();
    let response =
        web.ask("POST", "/spawn-pod", &[("prefer", "respond-async")], &body).await.good();
    let path = format!("/pods/{}/events", text(&response, "pod_name"));
    let bearer = format!("Bearer {}", text(&response, "bearer_token"));
    let response = web.open("GET", &path, &[("authorization", &bearer)], "").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let whole = tokio::time::timeout(TIMEOUT, response.into_body().collect())
        .await
        .expect("the stream ends with the pod")
        .unwrap();
    let whole = String::from_utf8(whole.to_bytes().to_vec()).unwrap();
    let stages: Vec<&str> = whole.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let at = |stage: &str| {
        stages
            .iter()
            .position(|response| *response == stage)
            .unwrap_or_else(|| panic!("{stage} was not sent: {stages:?}"))
    };
    assert!(at("ready") < at("expiring") && at("expiring") < at("ended"), "{stages:?}");
    assert!(whole.contains("\"expires_at\":\"20"), "{whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_opens_for_its_customer_only() {
    let (_sandbox, _running, web, buyer) = opened(&[], "").await;
    let bought = web
        .spawn(json!({"cashu_token": buyer.token(6).await, "ssh_username": "alice"}))
        .await
        .good();
    let url = format!("ws://{}/pods/{}/terminal", web.address, text(&bought, "pod_name"));
    let hello = |bearer: &str| {
        Message::text(json!({"bearer_token": bearer, "columns": 80, "rows": 24}).to_string())
    };
    for wrong in
        [hello(&"x".repeat(40)), hello(""), Message::text("nonsense"), Message::binary(vec![0; 4])]
    {
        let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
        socket.send(wrong).await.unwrap();
        let answer = socket.next().await.unwrap().unwrap();
        assert!(
            matches!(&answer, Message::Close(Some(frame)) if u16::from(frame.code) == 4_403),
            "{answer:?}"
        );
    }
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    socket.send(hello(text(&bought, "bearer_token"))).await.unwrap();
    socket.send(Message::text(json!({"columns": 132, "rows": 40}).to_string())).await.unwrap();
    socket.send(Message::binary(b"stty size; echo so says $USER; exit\n".to_vec())).await.unwrap();
    let mut shown = String::new();
    let closed = loop {
        match tokio::time::timeout(TIMEOUT, socket.next())
            .await
            .expect("the shell ends")
            .unwrap()
            .unwrap()
        {
            Message::Binary(bytes) => shown.push_str(&String::from_utf8_lossy(&bytes)),
            Message::Close(frame) => break frame,
            _ => {}
        }
    };
    assert!(shown.contains("40 132") && shown.contains("so says alice"), "{shown}");
    assert_eq!(u16::from(closed.unwrap().code), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_buyers_at_once_each_get_their_pod() {
    // long: one session with a running service; each step builds on the last.
    const BUYERS: usize = 200;
    // Behind a proxy: each buyer has an address of their own.
    let (sandbox, _running, web, buyer) =
        opened(&[("TRUSTED_PROXIES", "127.0.0.1"), ("REQUESTS_PER_MINUTE", "30")], "").await;
    buyer.wallet.fill(2_000).await.unwrap();
    let mut tokens = Vec::new();
    for _ in 0..BUYERS {
        tokens.push(buyer.token(4).await);
    }
    let buying = tokens.into_iter().enumerate().map(|(n, token)| {
        let web = web.clone();
        async move {
            let address = format!("198.51.100.{}", n + 1);
            let headers = [("x-forwarded-for", address.as_str()), ("x-cashu", token.as_str())];
            web.ask("POST", "/spawn-pod", &headers, "{}").await
        }
    });
    // And in between two that would hold everybody up, if they could.
    let lorises = (0..80).map(|_| slow(&web, "POST /spawn-pod HTTP/1.1\r\nX-Slow: "));
    let drips = (0..8).map(|_| {
        slow(&web, "POST /spawn-pod HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n{\"a\": \"")
    });
    let oversized = (0..8).map(|_| oversized(&web));
    let (answers, lorises, drips, oversized) = tokio::join!(
        futures::future::join_all(buying),
        futures::future::join_all(lorises),
        futures::future::join_all(drips),
        futures::future::join_all(oversized)
    );
    let pods: HashSet<String> =
        answers.iter().map(|answer| text(&answer.good(), "pod_name").to_owned()).collect();
    assert_eq!(pods.len(), BUYERS, "each buyer has their own pod");
    assert!(
        lorises.iter().all(|(took, _)| *took < Duration::from_secs(20)),
        "a slow head is cut off"
    );
    assert!(
        drips.iter().all(|(took, response)| *took < Duration::from_secs(40)
            && response.starts_with("HTTP/1.1 408")),
        "{drips:?}"
    );
    assert!(oversized.iter().all(|response| response.starts_with("HTTP/1.1 413")), "{oversized:?}");

    // The ledger has each order.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_paygress"));
    command.args(["ledger", "list"]).env_clear().envs(&sandbox.environment);
    let listed = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(
        listed
            .lines()
            .filter(|line| line.contains(" active ") && pods.iter().any(|pod| line.contains(pod)))
            .count(),
        BUYERS
    );
    // A client that sends too many requests gets Retry-After; the others are served.
    let greedy = [("x-forwarded-for", "203.0.113.5")];
    let mut response = web.ask("GET", "/offers", &greedy, "").await;
    for _ in 0..40 {
        response = web.ask("GET", "/offers", &greedy, "").await;
    }
    response.is(429, "too_many_requests");
    assert!(response.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(
        web.ask("GET", "/offers", &[("x-forwarded-for", "203.0.113.6")], "").await.status,
        200
    );
}

/// Sends this and then a byte a second, until it is cut off; how long that took, and the response.
async fn slow(web: &Web, head: &str) -> (Duration, String) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(web.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    let (mut read, mut write) = stream.split();
    let drip = async {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await
    };
    tokio::select! {
        _ = read.read_to_end(&mut response) => {}
        () = drip => {}
        () = tokio::time::sleep(TIMEOUT) => panic!("it was not cut off"),
    }
    (begun.elapsed(), String::from_utf8_lossy(&response).into_owned())
}

/// Sends a body that does not end; gives the response.
async fn oversized(web: &Web) -> String {
    let mut stream = TcpStream::connect(web.address).await.unwrap();
    stream
        .write_all(b"POST /spawn-pod HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        .await
        .unwrap();
    let (mut read, mut write) = stream.split();
    let flood = async {
        while write.write_all(&[b'x'; 4_096]).await.is_ok() {}
        std::future::pending::<()>().await
    };
    let mut response = [0_u8; 64];
    tokio::select! {
        length = read.read(&mut response) => String::from_utf8_lossy(&response[..length.unwrap_or(0)]).into_owned(),
        () = flood => unreachable!("it waits for ever"),
        () = tokio::time::sleep(TIMEOUT) => panic!("it was not cut off"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_its_parts_say_what_may_be_loaded() {
    // long: a table of files and headers.
    let (_sandbox, _running, web, _buyer) =
        opened(&[("CORS_ORIGINS", "https://shop.example")], "").await;
    for path in [
        "/",
        "/app.js",
        "/shared.js",
        "/style.css",
        "/operator",
        "/operator.js",
        "/docs",
        "/openapi.json",
        "/qr.svg?text=creqA",
        "/problems/not_owner",
    ] {
        let answer = web.ask("GET", path, &[], "").await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(
            (&answer.headers["x-content-type-options"], &answer.headers["referrer-policy"]),
            (&"nosniff".parse().unwrap(), &"no-referrer".parse().unwrap())
        );
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("frame-ancestors 'none'")
                && !policy.contains("script-src 'self' 'unsafe"),
            "{path}: {policy}"
        );
        // Nothing of it comes from elsewhere.
        for from in [
            "src=\"http",
            "src=\"//",
            "href=\"http",
            "href=\"//",
            "url(http",
            "url(//",
            "from 'http",
            "import('http",
            "fetch('http",
        ] {
            assert!(!answer.body.contains(from), "{path} loads {from}…");
        }
    }
    let allowed = web
        .ask(
            "OPTIONS",
            "/spawn-pod",
            &[("origin", "https://shop.example"), ("access-control-request-method", "POST")],
            "",
        )
        .await;
    assert_eq!(allowed.headers["access-control-allow-origin"], "https://shop.example");
    let denied = web
        .ask(
            "OPTIONS",
            "/spawn-pod",
            &[("origin", "https://evil.example"), ("access-control-request-method", "POST")],
            "",
        )
        .await;
    assert!(!denied.headers.contains_key("access-control-allow-origin"));
    assert_eq!(
        web.ask("GET", "/readyz", &[], "").await.good(),
        json!({"ready": true, "ailments": []})
    );
    assert_eq!(web.ask("GET", "/healthz", &[], "").await.body, "ok");
    let script = web.ask("GET", "/app.js", &[], "").await;
    let again = web
        .ask("GET", "/app.js", &[("if-none-match", script.headers["etag"].to_str().unwrap())], "")
        .await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    web.ask("GET", "/nothing", &[], "").await.is(404, "not_found");
    web.ask("PUT", "/pods", &[], "").await.is(405, "method_not_allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_a_typed_problem_and_never_a_fault() {
    // long: a table of bad requests.
    let (_sandbox, _running, web, buyer) = opened(&[], "").await;
    for body in [
        "nonsense",
        "[]",
        "{\"a\"",
        "{\"cashu_token\":7}",
        "{\"pod_name\":\"x\"}",
        "\u{0}",
        "{\"ssh_username\":\"a;rm\"}",
        "{\"cashu_token\":\"a\",\"cashu_token\":\"b\"}",
    ] {
        web.ask("POST", "/spawn-pod", &[], body).await.is(400, "invalid_request");
    }
    web.ask("POST", "/spawn-pod", &[], &"x".repeat(200_000)).await.is(413, "payload_too_large");
    web.spawn(json!({"cashu_token": "cashuBgarbage"})).await.is(400, "invalid_token");
    let token = buyer.token(3).await;
    let two = web
        .ask(
            "POST",
            "/spawn-pod",
            &[("x-cashu", &token)],
            &json!({"cashu_token": buyer.token(3).await}).to_string(),
        )
        .await;
    assert!(text(&two.is(400, "invalid_request"), "detail").contains("two tokens"));
    web.ask("POST", "/spawn-pod", &[("authorization", "Basic eDp5")], "{}")
        .await
        .is(401, "unauthorized");
    web.ask("POST", "/spawn-pod", &[("authorization", "Nostr e30=")], "{}")
        .await
        .is(401, "unauthorized");
    web.ask("POST", "/top-up-pod", &[("x-cashu", &token)], "{\"pod_name\":\"ssh-pod-unknown\"}")
        .await
        .is(404, "not_found");
    web.ask("POST", "/pay?for=me", &[], "{}").await.is(400, "invalid_request");
    web.ask("POST", &format!("/pay?for=bearer:{}", "a".repeat(64)), &[], "{}")
        .await
        .is(400, "invalid_token");
    web.ask("GET", "/pods/%ff", &[("authorization", &format!("Bearer {}", "b".repeat(40)))], "")
        .await
        .is(400, "invalid_request");
    web.ask(
        "GET",
        &format!("/pods/{}", "n".repeat(5_000)),
        &[("authorization", &format!("Bearer {}", "b".repeat(40)))],
        "",
    )
    .await
    .is(404, "not_found");
    web.ask(
        "POST",
        "/spawn-pod",
        &[("x-cashu", &token), ("prefer", "wait=nonsense; ,,")],
        "{\"tier\":\"none\"}",
    )
    .await
    .is(400, "invalid_spec");
    // Raw bytes that are no HTTP.
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /spawn-pod HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(web.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut response = Vec::new();
        tokio::time::timeout(TIMEOUT, stream.read_to_end(&mut response))
            .await
            .expect("it is cut off")
            .unwrap_or(0);
    }
    assert!(
        buyer.wallet.receive(&token).await.unwrap() > 0,
        "after all of it the token is still good"
    );
    assert_eq!(web.ask("GET", "/healthz", &[], "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_price_is_never_an_amount_that_would_be_refused() {
    // Whole hours, two at least, four at most; an hour is what is suggested.
    let rules = "[policy.duration]\nminimum_seconds = 7200\nmaximum_seconds = 14400\nround_to_seconds = 3600\n";
    let (_sandbox, _running, web, buyer) = opened(&[], rules).await;
    for (order, amount, seconds) in [
        (json!({}), 120, 7_200),
        (json!({"duration_minutes": 60}), 120, 7_200),
        (json!({"duration_minutes": 150}), 180, 10_800),
        (json!({"duration_minutes": 240}), 240, 14_400),
    ] {
        let price = web.spawn(order.clone()).await.is(402, "payment_required");
        assert_eq!(
            (price["amount"].as_u64(), price["duration_seconds"].as_u64()),
            (Some(amount), Some(seconds)),
            "{order}"
        );
    }
    web.spawn(json!({"duration_minutes": 600})).await.is(400, "invalid_request");
    // And the price is what is taken.
    let price = web.spawn(json!({"duration_minutes": 150})).await.json();
    buyer.wallet.pay_request(text(&price, "payment_request")).await.unwrap();
    let access = web.get("/pods", text(&price, "bearer_token")).await.good();
    assert_eq!(access["pods"].as_array().unwrap().len(), 1, "{access}");
}
