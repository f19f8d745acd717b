//! Credentials are sent where a registry requires them, and nowhere else.
#![cfg(test)]

mod support;

use paygress_oci::testing::{BlobBehavior, RequiredAuth, TestRegistry};
use paygress_oci::{Digest, Error, HttpError, Registry};
use support::{COMPONENT, LIMIT, key, push, reference};

/// A client with an auth file, in which `server` has these credentials.
struct Authenticated {
    client: Registry,
    file: tempfile::NamedTempFile,
}

impl Authenticated {
    fn new(server: &TestRegistry, entry: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut authenticated = Self { client: Registry::new(None).unwrap(), file };
        authenticated.write(server, entry);
        authenticated.client = Registry::new(Some(authenticated.file.path())).unwrap();
        authenticated
    }

    fn write(&self, server: &TestRegistry, entry: &str) {
        let auths = format!(r#"{{"auths": {{"{}": {entry}}}}}"#, server.host());
        std::fs::write(self.file.path(), auths).unwrap();
    }
}

/// alice:secret
const ALICE: &str = r#"{"auth": "YWxpY2U6c2VjcmV0"}"#;
const IDENTITY: &str = r#"{"auth": "YWxpY2U6", "identitytoken": "an-identity-token"}"#;
/// alice:wrong
const WRONG: &str = r#"{"auth": "YWxpY2U6d3Jvbmc="}"#;

fn alice_only() -> RequiredAuth {
    RequiredAuth::Basic("alice:secret".to_owned())
}

fn alice_realm() -> RequiredAuth {
    RequiredAuth::Bearer { credentials: Some("alice:secret".to_owned()), realm: None }
}

#[tokio::test]
async fn passwords_are_sent_when_required() {
    for required_auth in [alice_only(), alice_realm()] {
        let server = TestRegistry::open(required_auth).await.unwrap();
        let at = reference(&server, "policies/pricing:1");
        let Authenticated { client: alice, file: _file } = Authenticated::new(&server, ALICE);
        let digest = push(&alice, &at, COMPONENT).await.unwrap();
        alice.sign(&at, &digest, &key()).await.unwrap();
        assert_eq!(alice.pull(&at, LIMIT).await.unwrap().manifest_digest, digest);
        assert!(matches!(
            Registry::new(None).unwrap().pull(&at, LIMIT).await,
            Err(Error::Unauthenticated { .. })
        ));
        let wrong = Authenticated::new(&server, WRONG);
        let error = wrong.client.pull(&at, LIMIT).await.unwrap_err();
        assert!(matches!(error, Error::Denied { .. }), "{error}");
        assert!(!error.to_string().contains("wrong:") && !format!("{error:?}").contains("d3Jvbmc"));
        // The file is read again: now the password is right.
        wrong.write(&server, ALICE);
        assert_eq!(wrong.client.pull(&at, LIMIT).await.unwrap().manifest_digest, digest);
        std::fs::remove_file(wrong.file.path()).unwrap();
        let error = wrong.client.pull(&at, LIMIT).await.unwrap_err();
        assert!(matches!(error, Error::AuthFile { .. }), "{error}");
    }
}

#[tokio::test]
async fn tokens_are_issued_without_credentials_too() {
    let server =
        TestRegistry::open(RequiredAuth::Bearer { credentials: None, realm: None }).await.unwrap();
    let (client, at) = (Registry::new(None).unwrap(), reference(&server, "policies/pricing:1"));
    push(&client, &at, COMPONENT).await.unwrap();
    client.pull(&at, LIMIT).await.unwrap();
    let tokens = server
        .take_requests()
        .into_iter()
        .filter(|request| request.path.starts_with("/token"))
        .map(|request| request.path)
        .collect::<Vec<_>>();
    let scope =
        |access| format!("/token?service=test&scope=repository%3Apolicies%2Fpricing%3A{access}");
    assert_eq!(tokens, [scope("pull%2Cpush"), scope("pull")]);
}

#[tokio::test]
async fn passwords_are_not_sent_in_the_clear() {
    for realm in [
        "http://auth.example/token",
        "http://alice@127.0.0.1/token",
        "ftp://127.0.0.1/",
        "nonsense",
    ] {
        let required_auth =
            RequiredAuth::Bearer { credentials: None, realm: Some(realm.to_owned()) };
        let server = TestRegistry::open(required_auth).await.unwrap();
        let at = reference(&server, "policies/pricing:1");
        for entry in [ALICE, IDENTITY] {
            let alice = Authenticated::new(&server, entry);
            let error = alice.client.pull(&at, LIMIT).await.unwrap_err();
            assert!(
                matches!(error, Error::InsecureRealm { .. } | Error::InvalidResponse { .. }),
                "{realm}: {error}"
            );
        }
        let sent = server.take_requests();
        assert!(sent.iter().all(|request| request.authorization.is_none()), "{realm}: {sent:?}");
    }
}

#[tokio::test]
async fn a_blob_may_be_elsewhere_and_credentials_stay_here() {
    let store = TestRegistry::open(RequiredAuth::None).await.unwrap();
    let server = TestRegistry::open(alice_only()).await.unwrap();
    let at = reference(&server, "policies/pricing:1");
    let Authenticated { client: alice, file: _file } = Authenticated::new(&server, ALICE);
    push(&alice, &at, COMPONENT).await.unwrap();
    server.copy_blobs_to(&store);
    server.set_blob_behavior(BlobBehavior::Redirect(format!("http://{}", store.host())));
    assert_eq!(alice.pull(&at, LIMIT).await.unwrap().component, COMPONENT);
    let requests = store.take_requests();
    assert_eq!(
        requests.iter().map(|request| request.authorization.clone()).collect::<Vec<_>>(),
        [None]
    );

    store.replace_blob(&Digest::of(COMPONENT), b"other bytes");
    assert!(matches!(
        alice.pull(&at, LIMIT).await,
        Err(Error::DigestMismatch { .. } | Error::TooLarge { .. })
    ));
    server.set_blob_behavior(BlobBehavior::Redirect("http://blobs.example".to_owned()));
    let redirect_error = async || match alice.pull(&at, LIMIT).await.unwrap_err() {
        Error::Http(HttpError::Redirect { source, .. }) => source.to_string(),
        error => panic!("{error}"),
    };
    assert!(redirect_error().await.contains("not https"));
    server.set_blob_behavior(BlobBehavior::Redirect(format!("http://{}", server.host())));
    assert!(redirect_error().await.contains("without end"));
    assert_eq!(
        server
            .take_requests()
            .iter()
            .filter(|request| request.path.contains("/blobs/sha256") && request.method == "GET")
            .count(),
        3 + 4
    );
}

#[tokio::test]
async fn identity_tokens_are_exchanged_for_access_tokens() {
    let required_auth = RequiredAuth::IdentityToken("an-identity-token".to_owned());
    let server = TestRegistry::open(required_auth).await.unwrap();
    let at = reference(&server, "policies/pricing:1");
    let identity = Authenticated::new(&server, IDENTITY);
    push(&identity.client, &at, COMPONENT).await.unwrap();
    assert_eq!(identity.client.pull(&at, LIMIT).await.unwrap().component, COMPONENT);
    let requests = server.take_requests();
    let exchange = requests.iter().find(|request| request.path == "/token").unwrap();
    assert_eq!((exchange.method.as_str(), &exchange.authorization), ("POST", &None));
    let other = Authenticated::new(&server, r#"{"identitytoken": "another"}"#);
    assert!(matches!(other.client.pull(&at, LIMIT).await, Err(Error::Denied { .. })));

    let server = TestRegistry::open(alice_only()).await.unwrap();
    let identity = Authenticated::new(&server, IDENTITY);
    let error = identity.client.pull(&reference(&server, "a:1"), LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::PasswordRequired { .. }), "{error}");
}

#[tokio::test]
async fn credentials_of_a_part_of_a_registry_are_used_there_only() {
    let server = TestRegistry::open(alice_only()).await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let auths = format!(r#"{{"auths": {{"{}/team": {ALICE}}}}}"#, server.host());
    std::fs::write(file.path(), auths).unwrap();
    let client = Registry::new(Some(file.path())).unwrap();
    push(&client, &reference(&server, "team/pricing:1"), COMPONENT).await.unwrap();
    for other in ["pricing:1", "teams/pricing:1"] {
        let error = client.pull(&reference(&server, other), LIMIT).await.unwrap_err();
        assert!(matches!(error, Error::Unauthenticated { .. }), "{other}: {error}");
    }
}
