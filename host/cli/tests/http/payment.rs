//! What an order costs, and how it is paid.

use crate::service::{opened, shared, with_room};
use crate::{ready, says, text};
use paygress_core::model::ids::Customer;
use paygress_core::model::secret::Secret;
use paygress_sandbox::token::{RequestedPayment, inflated, requested_payment, without_dleq};
use serde_json::{Value, json};

fn alice() -> Value {
    json!({"ssh_username": "alice", "duration_minutes": 5, "tier": "standard"})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_paid_is_priced() {
    let (shared, web, _buyer) = shared().await;
    let unpaid = web.spawn(alice()).await;
    let price = unpaid.is(402, "payment_required");
    assert_eq!(
        (price["amount"].as_u64(), &price["unit"], price["duration_seconds"].as_u64()),
        (Some(10), &json!("sat"), Some(300))
    );
    let requested = requested_payment(unpaid.headers["x-cashu"].to_str().unwrap()).unwrap();
    assert_eq!(
        requested,
        RequestedPayment {
            // The mint's fee for spending three proofs is one of them.
            sat: 11,
            mints: vec![shared.sandbox.mint.url().to_owned()],
            description: None,
            has_transport: false
        },
        "in band (NUT-24)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_a_header_pays() {
    let (_shared, web, buyer) = shared().await;
    // As NUT-24 has it.
    let token = buyer.token(11).await;
    let bought =
        web.ask("POST", "/spawn-pod", &[("x-cashu", &token)], &alice().to_string()).await.good();
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
}

/// As wallets pay that do not add the mint's fee themselves.
#[tokio::test(flavor = "multi_thread")]
async fn the_exact_amount_of_a_payment_request_buys_what_it_says() {
    let (_shared, web, buyer) = shared().await;
    for minutes in [1, 3] {
        let order = json!({"duration_minutes": minutes});
        let price = web.spawn(order.clone()).await.is(402, "payment_required");
        let requested = requested_payment(text(&price, "payment_request")).unwrap();
        let token = buyer.token(requested.sat).await;
        let (paid, order) = ([("x-cashu", token.as_str())], order.to_string());
        let bought = web.ask("POST", "/spawn-pod", &paid, &order).await.good();
        let pod = format!("/pods/{}", text(&bought, "pod_name"));
        let status = web.get(&pod, text(&bought, "bearer_token")).await.good();
        let seconds = status["time_remaining_seconds"].as_u64().unwrap();
        assert!((60 * minutes - 30..=60 * minutes + 60).contains(&seconds), "{minutes}: {status}");
    }
}

/// The pod belongs to the bearer token's customer.
#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_pays_by_the_payment_request() {
    let (_shared, web, buyer) = shared().await;
    let price = web.spawn(alice()).await.is(402, "payment_required");
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

/// Anybody can write the URL that a wallet pays at: the order is stored as what it is, and counts for
/// the customer once it is paid for.
#[tokio::test(flavor = "multi_thread")]
async fn whom_a_wallet_names_has_not_placed_the_order_themselves() {
    let (sandbox, _running, web, buyer) = opened(&[], "").await;
    let own = web.spawn(json!({"cashu_token": buyer.token(6).await})).await.good();
    let price = web.spawn(alice()).await.is(402, "payment_required");
    buyer.wallet.pay_request(text(&price, "payment_request")).await.unwrap();
    let ledger = rusqlite::Connection::open(&sandbox.environment["LEDGER_PATH"]).unwrap();
    for (bearer, is_named) in
        [(text(&own, "bearer_token"), false), (text(&price, "bearer_token"), true)]
    {
        let customer = Customer::of_bearer(&Secret::new(bearer)).to_string();
        let query = "SELECT body FROM orders WHERE customer = ?1";
        let body: String = ledger.query_row(query, [&customer], |row| row.get(0)).unwrap();
        assert_eq!(body.contains("\"named_by_payer\":\"true\""), is_named, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_lets_through_what_would_buy_or_has_bought() {
    let (_shared, web, buyer) = shared().await;
    let token = buyer.token(6).await;
    let gate = async |query: &str, headers: &[(&str, &str)]| {
        web.ask("GET", &format!("/auth{query}"), headers, "").await
    };
    assert_eq!(gate(&format!("?token={token}&duration_minutes=5"), &[]).await.status, 200);
    let good = gate("", &[("x-cashu", &token)]).await;
    assert_eq!((good.status, &good.headers["x-paygress-auth"]), (200, &"token".parse().unwrap()));
    gate(&format!("?token={token}&duration_minutes=6"), &[]).await.is(403, "insufficient_payment");
    let nobody = gate("", &[]).await.is(401, "unauthorized");
    assert!(text(&nobody, "detail").ends_with("a pod's bearer token into Authorization: Bearer"));
    // Who invents proofs shows no signature for them; who changes what they are worth shows a wrong
    // one.
    gate("", &[("x-cashu", &without_dleq(&token).unwrap())]).await.is(403, "invalid_token");
    gate("", &[("x-cashu", &inflated(&token).unwrap())]).await.is(403, "invalid_token");
    gate("?token=cashuBnonsense", &[]).await.is(403, "invalid_token");
    gate("?duration_minutes=x", &[]).await.is(403, "invalid_request");
    // It is still good: nothing was taken. Once it has bought, its customer passes while the pod
    // lives, and the token does not: others have seen it.
    let bought = web.spawn(json!({"cashu_token": token})).await.good();
    gate("", &[("x-cashu", &token)]).await.is(403, "token_already_spent");
    let bearer = format!("Bearer {}", text(&bought, "bearer_token"));
    let lease = gate("", &[("authorization", &bearer)]).await;
    assert_eq!((lease.status, &lease.headers["x-paygress-auth"]), (200, &"lease".parse().unwrap()));
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

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_sent_to_their_wallet_for_what_is_sold_out() {
    let (_sandbox, _running, web, buyer) = with_room(1).await;
    let first = web.spawn(json!({"duration_minutes": 5})).await;
    first.is(402, "payment_required");
    assert!(first.headers.contains_key("x-cashu"));
    let (token, gate) = (buyer.token(6).await, "/auth?duration_minutes=5");
    let gated = async || web.ask("GET", gate, &[("x-cashu", token.as_str())], "").await;
    assert_eq!(gated().await.status, 200);
    let bought = web.spawn(json!({"cashu_token": buyer.token(6).await})).await.good();

    let full = web.spawn(json!({"duration_minutes": 5})).await;
    let refused = full.is(503, "resource_unavailable");
    assert!(!full.headers.contains_key("x-cashu"), "{refused}");
    assert!(refused.get("payment_request").is_none(), "{refused}");
    gated().await.is(403, "resource_unavailable");
    // What is sold can be extended.
    let bearer = format!("Bearer {}", text(&bought, "bearer_token"));
    let more = json!({"pod_name": bought["pod_name"], "duration_minutes": 3}).to_string();
    let more = web.ask("POST", "/top-up-pod", &[("authorization", &bearer)], &more).await;
    more.is(402, "payment_required");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_sent_to_their_wallet_when_all_ports_are_leased() {
    let ports = [("SSH_PORT_RANGE_START", "29871"), ("SSH_PORT_RANGE_END", "29871")];
    let (_sandbox, _running, web, buyer) = opened(&ports, "").await;
    web.spawn(json!({})).await.is(402, "payment_required");
    web.spawn(json!({"cashu_token": buyer.token(6).await})).await.good();
    let full = web.spawn(json!({})).await;
    full.is(503, "resource_unavailable");
    assert!(!full.headers.contains_key("x-cashu"));
}
