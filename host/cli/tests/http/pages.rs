//! The web page, the documentation, and what is served beside the API.

use crate::service::{ORIGIN, opened, shared};
use serde_json::json;

/// Where a page's parts would come from another server.
const ELSEWHERE: [&str; 9] = [
    "src=\"http",
    "src=\"//",
    "href=\"http",
    "href=\"//",
    "url(http",
    "url(//",
    "from 'http",
    "import('http",
    "fetch('http",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_its_parts_say_what_may_be_loaded() {
    let (_shared, web, _buyer) = shared().await;
    for path in [
        "/",
        "/app.js",
        "/receipts.js",
        "/shared.js",
        "/terminal.js",
        "/style.css",
        "/operator",
        "/operator.js",
        "/charts.js",
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
        for from in ELSEWHERE {
            assert!(!answer.body.contains(from), "{path} loads {from}…");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_allowed_origins_may_order() {
    let (_shared, web, _buyer) = shared().await;
    let preflight = async |origin: &str| {
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        web.ask("OPTIONS", "/spawn-pod", &headers, "").await
    };
    let allowed = preflight(ORIGIN).await;
    assert_eq!(allowed.headers["access-control-allow-origin"], ORIGIN);
    let denied = preflight("https://evil.example").await;
    assert!(!denied.headers.contains_key("access-control-allow-origin"));
}

/// A payment request is for any wallet, so `/pay` is open to all pages; nothing else is, with
/// `CORS_ORIGINS` (the shared service) and without.
#[tokio::test(flavor = "multi_thread")]
async fn any_web_wallet_may_pay_and_nothing_else() {
    let (_shared, with_origins, _buyer) = shared().await;
    let (_sandbox, _running, without_origins, _buyer) = opened(&[], "").await;
    let pay = format!("/pay?for=bearer:{}", "a".repeat(64));
    for web in [with_origins, without_origins] {
        let wallet = ("origin", "https://wallet.example");
        for (method, path, is_open) in [
            ("POST", pay.as_str(), true),
            ("POST", "/spawn-pod", false),
            ("POST", "/top-up-pod", false),
            ("GET", "/pods", false),
            ("GET", "/auth", false),
            ("GET", "/offers", false),
            ("POST", "/pay/", false),
            ("POST", "/payments", false),
        ] {
            let preflight = [
                wallet,
                ("access-control-request-method", method),
                ("access-control-request-headers", "content-type"),
            ];
            let answer = web.ask("OPTIONS", path, &preflight, "").await;
            let allowed = answer.headers.get("access-control-allow-origin");
            assert_eq!(allowed.is_some(), is_open, "preflight of {path}");
            if is_open {
                assert_eq!(answer.status, 200, "{path}");
                assert_eq!(allowed.unwrap(), wallet.1, "{path}");
                for (header, needed) in [("methods", "POST"), ("headers", "content-type")] {
                    let header = &answer.headers[format!("access-control-allow-{header}")];
                    assert!(header.to_str().unwrap().contains(needed), "{header:?}");
                }
            }
            let answer = web.ask(method, path, &[wallet], "").await;
            let allowed = answer.headers.get("access-control-allow-origin");
            assert_eq!(allowed.is_some(), is_open, "{method} {path}");
            if is_open {
                answer.is(400, "invalid_token");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_caches_and_lost_clients_get_what_http_says() {
    let (_shared, web, _buyer) = shared().await;
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
    // As a list, and as a proxy that compresses writes it.
    let tag = script.headers["etag"].to_str().unwrap();
    let weak = format!("\"x\", W/{tag}");
    let listed = [("if-none-match", "\"other\""), ("if-none-match", weak.as_str())];
    assert_eq!(web.ask("GET", "/app.js", &listed, "").await.status, 304);
    web.ask("GET", "/nothing", &[], "").await.is(404, "not_found");
    web.ask("PUT", "/pods", &[], "").await.is(405, "method_not_allowed");
}
