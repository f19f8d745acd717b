//! What registries may do, and docker takes: redirects, several challenges, other spellings of a
//! host, being busy, plain HTTP.
#![cfg(test)]

mod support;

use hyper::StatusCode;
use paygress_core::error_chain;
use paygress_oci::testing::{Busy, ReferrersList, RequiredAuth, TestRegistry};
use paygress_oci::{Error, HttpError, Reference, Registry, RegistryHost, RegistryOptions};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::{COMPONENT, LIMIT, push, reference};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

#[tokio::test]
async fn manifests_may_be_elsewhere_and_redirects_end() {
    let server = TestRegistry::open(RequiredAuth::None).await.unwrap();
    let store = TestRegistry::open(RequiredAuth::None).await.unwrap();
    let (client, at) = (Registry::new(None).unwrap(), reference(&server, "policies/pricing:1"));
    let digest = push(&client, &at, COMPONENT).await.unwrap();
    server.copy_manifests_to(&store);
    server.redirect_manifests(&format!("http://{}", store.host()));
    assert_eq!(client.pull(&at, LIMIT).await.unwrap().manifest_digest, digest);
    assert_eq!(client.resolve(&at.clone().pinned(digest)).await.unwrap(), digest);
    // Another manifest at the digest is noticed there too.
    store.replace_manifest("policies/pricing", &digest.to_string(), b"{}");
    let tampered = client.resolve(&at.clone().pinned(digest)).await;
    assert!(matches!(tampered, Err(Error::DigestMismatch { .. })));
    for (location, expected) in [
        ("http://store.example".to_owned(), "not https"),
        (format!("http://{}", server.host()), "without end"),
        ("ftp://store.example".to_owned(), "no URL"),
    ] {
        server.redirect_manifests(&location);
        let error = client.pull(&at, LIMIT).await.unwrap_err();
        assert!(matches!(error, Error::Http(HttpError::Redirect { .. })), "{error}");
        assert!(error_chain(&error).contains(expected), "{location}: {}", error_chain(&error));
    }
}

#[tokio::test]
async fn a_token_is_fetched_however_it_is_offered() {
    for header in [
        r#"Bearer realm="REALM",service="test""#,
        r#"Basic realm="a, b", Bearer realm="REALM", service="test""#,
        r#"Bearer realm="REALM",service="test", Basic realm="x""#,
        r#"Negotiate YWJj==, BEARER service=test , realm="REALM""#,
    ] {
        let required_auth = RequiredAuth::Offered(header.to_owned());
        let server = TestRegistry::open(required_auth).await.unwrap();
        let (client, at) = (Registry::new(None).unwrap(), reference(&server, "policies/pricing:1"));
        push(&client, &at, COMPONENT).await.unwrap();
        let token = server.take_requests().into_iter().find(|each| each.path.starts_with("/token"));
        assert!(token.unwrap().path.starts_with("/token?service=test&"), "{header}");
    }
}

#[tokio::test]
async fn ipv6_hosts_are_hosts() {
    let address = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0));
    let server = TestRegistry::open_at(address, RequiredAuth::None).await.unwrap();
    let client = Registry::new(None).unwrap();
    let port = server.host().rsplit_once(':').unwrap().1.to_owned();
    let digest = push(&client, &reference(&server, "a:1"), COMPONENT).await.unwrap();
    let long: Reference = format!("[0:0:0:0:0:0:0:1]:{port}/a:1").parse().unwrap();
    assert_eq!(client.resolve(&long).await.unwrap(), digest);
}

#[tokio::test]
async fn a_busy_registry_gets_the_request_again_and_not_for_ever() {
    let server = TestRegistry::open(RequiredAuth::None).await.unwrap();
    let (client, at) = (Registry::new(None).unwrap(), reference(&server, "policies/pricing:1"));
    push(&client, &at, COMPONENT).await.unwrap();
    let busy = |requests, status, retry_after: Option<&str>| {
        let _ = server.take_requests();
        server.set_busy(Busy { requests, status, retry_after: retry_after.map(str::to_owned) });
    };
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
        busy(3, status, Some("0"));
        assert_eq!(client.pull(&at, LIMIT).await.unwrap().component, COMPONENT);
        assert_eq!(server.take_requests().len(), 3 + 2, "manifest and blob, and what was refused");
        busy(4, status, Some("0"));
        let error = client.pull(&at, LIMIT).await.unwrap_err();
        assert!(matches!(error, Error::Busy { .. }), "{error}");
        assert_eq!(server.take_requests().len(), 4);
    }
    // Who asks for more time than a caller should wait is reported at once, with the time.
    let started = Instant::now();
    busy(1, StatusCode::TOO_MANY_REQUESTS, Some("3600"));
    let error = client.pull(&at, LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("is busy") && error.contains("try again in 3600 s"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(60));
    // A push may be repeated as well.
    busy(2, StatusCode::SERVICE_UNAVAILABLE, Some("0"));
    push(&client, &at, b"another").await.unwrap();
}

/// A registry that speaks plain HTTP at an address of this machine that looks like another one's.
async fn elsewhere() -> (TestRegistry, String) {
    let server = TestRegistry::open(RequiredAuth::None).await.unwrap();
    let host = server.host().replace("127.0.0.1", "[::ffff:127.0.0.1]");
    (server, host)
}

#[tokio::test]
async fn plain_http_is_spoken_where_the_operator_says_so() {
    let (server, host) = elsewhere().await;
    let at: Reference = format!("{host}/policies/pricing:1").parse().unwrap();
    let error = push(&Registry::new(None).unwrap(), &at, COMPONENT).await.unwrap_err();
    assert!(matches!(error, Error::NotTls { .. }), "{error}");
    assert!(error.to_string().contains("REGISTRY_PLAIN_HTTP"), "{error}");
    assert_eq!(server.take_requests(), []);

    let named: RegistryHost = host.to_uppercase().parse().unwrap();
    let options = RegistryOptions { plain_http: [named].into(), ..RegistryOptions::default() };
    let client = Registry::with_options(&options).unwrap();
    push(&client, &at, COMPONENT).await.unwrap();
    assert_eq!(client.pull(&at, LIMIT).await.unwrap().component, COMPONENT);
    // A redirect within the server is followed, and to nowhere else.
    server.redirect_manifests("http://store.example");
    assert!(error_chain(&client.pull(&at, LIMIT).await.unwrap_err()).contains("not https"));
    server.redirect_manifests(&format!("http://{host}"));
    assert!(error_chain(&client.pull(&at, LIMIT).await.unwrap_err()).contains("without end"));
}

#[tokio::test]
async fn what_is_wrong_with_a_connection_is_explained() {
    // It never listens.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let resetting = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let resets = resetting.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = resetting.accept().await {
            let _ = stream.read(&mut [0; 512]).await;
            let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await;
        }
    });
    let resets = resets.to_string().replace("127.0.0.1", "[::ffff:127.0.0.1]");
    for (host, expected) in [
        (
            closed.local_addr().unwrap().to_string(),
            "cannot be reached: the connection was refused: nothing listens there",
        ),
        ("registry.invalid".to_owned(), "cannot be reached: its name has no address"),
        (resets, "does not speak TLS: give it a certificate"),
    ] {
        let at: Reference = format!("{host}/policies/pricing:1").parse().unwrap();
        let error = Registry::new(None).unwrap().pull(&at, LIMIT).await.unwrap_err();
        let text = error_chain(&error);
        assert!(
            text.contains(&host) && text.ends_with(expected) || text.contains(expected),
            "{text}"
        );
        assert!(!text.contains("client error") && !text.contains("os error"), "{text}");
    }
}

#[tokio::test]
async fn a_registry_without_referrers_has_the_tag_read() {
    let server = TestRegistry::open(RequiredAuth::None).await.unwrap();
    server.set_referrers(ReferrersList::None);
    let (client, at) = (Registry::new(None).unwrap(), reference(&server, "policies/pricing:1"));
    let digest = push(&client, &at, COMPONENT).await.unwrap();
    let _ = server.take_requests();
    assert_eq!(client.signatures(&at, &digest).await.unwrap(), []);
    let paths: Vec<_> = server.take_requests().into_iter().map(|each| each.path).collect();
    let hex = digest.hex();
    assert_eq!(
        paths,
        [
            format!("/v2/policies/pricing/manifests/sha256-{hex}.sig"),
            format!("/v2/policies/pricing/referrers/{digest}"),
            format!("/v2/policies/pricing/manifests/sha256-{hex}"),
        ]
    );
}
