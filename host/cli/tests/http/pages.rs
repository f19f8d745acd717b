//! The web page, the documentation, and what is served beside the API.

use crate::service::{ORIGIN, shared};
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
    web.ask("GET", "/nothing", &[], "").await.is(404, "not_found");
    web.ask("PUT", "/pods", &[], "").await.is(405, "method_not_allowed");
}
