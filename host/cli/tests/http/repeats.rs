//! Orders that are sent twice, and clients that do not wait.

use crate::service::shared;
use crate::{ready, says, text};
use paygress_nostr::http_auth;
use paygress_sandbox::token::{as_v3, without_dleq};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_order_again_gets_the_same_answer_and_who_hangs_up_loses_nothing() {
    let (_shared, web, buyer) = shared().await;
    let body = json!({"cashu_token": buyer.token(6).await}).to_string();
    let key = [("idempotency-key", "hangs-up-and-asks-again")];
    // Hang up as soon as it is sent.
    let mut stream = TcpStream::connect(web.address).await.unwrap();
    stream
        .write_all(
            format!(
                "POST /spawn-pod HTTP/1.1\r\nHost: x\r\n{}: {}\r\nContent-Length: {}\r\n\r\n{body}",
                key[0].0,
                key[0].1,
                body.len()
            )
            .as_bytes(),
        )
        .await
        .unwrap();
    drop(stream);
    let first = web.ask("POST", "/spawn-pod", &key, &body).await.good();
    let again = web.ask("POST", "/spawn-pod", &key, &body).await.good();
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
}

/// A signature is good for 60 s: whoever has seen the request may send it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_signed_request_that_is_sent_again_does_nothing_twice() {
    let (_shared, web, buyer) = shared().await;
    let sign = |method: &str, path: &str, body: &str| {
        let keys = buyer.client.keys();
        let evidence = http_auth::sign(keys, method, &web.url(path), body.as_bytes()).unwrap();
        format!("Nostr {evidence}")
    };
    let send = async |signature: &str, method: &str, path: &str, body: &str| {
        web.ask(method, path, &[("authorization", signature)], body).await
    };
    let order = json!({"cashu_token": buyer.token(6).await}).to_string();
    let buying = sign("POST", "/spawn-pod", &order);
    let bought = send(&buying, "POST", "/spawn-pod", &order).await.good();
    assert_eq!(send(&buying, "POST", "/spawn-pod", &order).await.good(), bought);
    let pod = text(&bought, "pod_name");

    let more = json!({"pod_name": pod, "cashu_token": buyer.token(4).await}).to_string();
    let extending = sign("POST", "/top-up-pod", &more);
    let extended = send(&extending, "POST", "/top-up-pod", &more).await.good();
    assert_eq!(send(&extending, "POST", "/top-up-pod", &more).await.good(), extended);
    let path = format!("/pods/{pod}");
    let status = send(&sign("GET", &path, ""), "GET", &path, "").await.good();
    assert_eq!(text(&status, "expires_at"), text(&extended, "new_expires_at"));

    let stopping = sign("DELETE", &path, "");
    let stopped = send(&stopping, "DELETE", &path, "").await.good();
    let again = send(&stopping, "DELETE", &path, "").await.good();
    assert_eq!(again["refund_tokens"], stopped["refund_tokens"], "no second refund");
    // Its order is not another one now, whatever the answer.
    send(&buying, "POST", "/spawn-pod", &order).await;
    let pods = send(&sign("GET", "/pods", ""), "GET", "/pods", "").await.good();
    let others = pods["pods"].as_array().unwrap().iter().filter(|other| other["pod_name"] != pod);
    assert_eq!(others.count(), 0, "{pods}");
}

/// The mint has seen the proofs, and whoever the token passed on its way.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_seen_the_proofs_gets_the_state_and_nothing_else() {
    let (_shared, web, buyer) = shared().await;
    let bearer = format!("Bearer {}", "a-bearer-token-that-nobody-else-has-seen");
    let credentials: [&[(&str, &str)]; 3] =
        [&[], &[("idempotency-key", "seen-by-the-mint-0001")], &[("authorization", &bearer)]];
    for headers in credentials {
        let token = buyer.token(6).await;
        let body = json!({"cashu_token": token}).to_string();
        let bought = web.ask("POST", "/spawn-pod", headers, &body).await.good();
        // From (amount, id, secret, C) alone, and as it was sent.
        let rebuilt = json!({"cashu_token": without_dleq(&token).unwrap()}).to_string();
        let other = format!("Bearer {}", "x".repeat(40));
        for body in [&body, &rebuilt] {
            for seen in [
                &[][..],
                &[("idempotency-key", "another-one-that-is-long")],
                &[("authorization", &other)],
            ] {
                let problem = web.ask("POST", "/spawn-pod", seen, body).await;
                let problem = problem.is(409, "token_already_spent");
                assert_eq!(problem["details"], "order state: active");
                for field in ["bearer_token", "refund_token", "ssh_password", "pod_name"] {
                    assert!(problem.get(field).is_none(), "{field} in {problem}");
                }
                assert!(!problem.to_string().contains(text(&bought, "ssh_password")));
            }
        }
        if !headers.is_empty() {
            let again = web.ask("POST", "/spawn-pod", headers, &body).await.good();
            assert_eq!(again, bought, "who placed it gets the same answer");
        }
        // Nor does it open a gate, or name the pod's customer.
        web.ask("GET", "/auth", &[("x-cashu", &token)], "").await.is(403, "token_already_spent");
        // Nor is the refund of its pod for others.
        let own = bought["bearer_token"].as_str().map(|bearer| format!("Bearer {bearer}"));
        let own = own.unwrap_or_else(|| bearer.clone());
        let path = format!("/pods/{}", text(&bought, "pod_name"));
        web.ask("DELETE", &path, &[("authorization", &own)], "").await.good();
        let problem = web.ask("POST", "/spawn-pod", &[], &rebuilt).await;
        let problem = problem.is(409, "token_already_spent");
        assert!(problem.get("refund_token").is_none() && !problem.to_string().contains("cashuB"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_another_form_is_the_same_order() {
    let (_shared, web, buyer) = shared().await;
    let token = buyer.token(6).await;
    let bearer = format!("Bearer {}", "f".repeat(40));
    let mine = [("authorization", bearer.as_str())];
    let order = |token: &str| json!({ "cashu_token": token }).to_string();
    let first = web.ask("POST", "/spawn-pod", &mine, &order(&token)).await.good();
    let v3 = as_v3(&token).unwrap();
    let wrapped = format!("{}\n  {}", &token[..20], &token[20..]);
    for text in [
        v3.clone(),
        format!("web+cashu://{token}"),
        format!("CASHU:{v3}"),
        format!("https://wallet.example/#token={token}"),
        format!("`{}`", token.replace('-', "+").replace('_', "/")),
        wrapped,
    ] {
        let again = web.ask("POST", "/spawn-pod", &mine, &order(&text)).await.good();
        assert_eq!(again, first, "{text}");
        let in_header = [mine[0], ("x-cashu", &text.replace('\n', ""))];
        assert_eq!(web.ask("POST", "/spawn-pod", &in_header, "").await.good(), first, "{text}");
    }
    // Both places may name it, each in its form.
    let both = [mine[0], ("x-cashu", &format!("cashu:{token}"))];
    assert_eq!(web.ask("POST", "/spawn-pod", &both, &order(&token)).await.good(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_names_one_request_of_one_customer() {
    let (_shared, web, buyer) = shared().await;
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
    // The token of the request that was refused is still good.
    web.spawn(json!({"cashu_token": other})).await.good();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_may_be_repeated_with_the_same_key() {
    let (_shared, web, buyer) = shared().await;
    let key = [("idempotency-key", "refused-at-first-0001")];
    let token = buyer.token(6).await;
    let order =
        |minutes: u64| json!({"cashu_token": token, "duration_minutes": minutes}).to_string();
    web.ask("POST", "/spawn-pod", &key, &order(50)).await.is(400, "insufficient_payment");
    web.ask("POST", "/spawn-pod", &key, &order(5)).await.good();
}

/// A refusal comes at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_wait_gets_a_location() {
    let (_shared, web, buyer) = shared().await;
    // Of several lines, as of one list.
    let prefer = [("prefer", "return=minimal"), ("prefer", "respond-async")];
    let body = json!({"cashu_token": buyer.token(6).await}).to_string();
    let response = web.ask("POST", "/spawn-pod", &prefer, &body).await.good();
    let answer = ready(&web, text(&response, "pod_name"), text(&response, "bearer_token")).await;
    assert_eq!(says(&answer, "echo async").await, "async\n");
    let body = json!({"cashu_token": buyer.token(1).await}).to_string();
    web.ask("POST", "/spawn-pod", &prefer, &body).await.is(400, "insufficient_payment");
}
