use super::*;
use paygress_http_client::Timeouts;

#[test]
fn authorizations_are_not_shown() {
    assert!(!format!("{:?}", secret("Basic dTpw").unwrap()).contains("dTpw"));
}

#[test]
fn a_realm_is_where_the_registry_could_redirect_to() {
    let http = HttpClient::new(Timeouts::default()).unwrap();
    let (credentials, plain_http) = (Credentials::default(), BTreeSet::new());
    for (registry, realm, expected) in [
        ("r.example", "https://auth.example/token", None),
        ("r.example", "https://r.example/token", None),
        ("r.example", "http://auth.example/token", Some("is not https")),
        ("r.example", "https://10.0.0.1/token", Some("is a private address")),
        ("r.example", "https://169.254.169.254/token", Some("is a private address")),
        ("r.example", "https://localhost/token", Some("is a private address")),
        ("r.example", "https://[fd00::1]:8443/token", Some("is a private address")),
        ("r.example", "https://[::ffff:127.0.0.1]/token", Some("is a private address")),
        ("9.9.9.9", "https://192.168.0.1/token", Some("is a private address")),
        ("10.0.0.1", "https://10.0.0.2/token", None),
        ("127.0.0.1:5000", "http://127.0.0.1:5001/token", None),
    ] {
        let reference: Reference = format!("{registry}/policies/pricing:1").parse().unwrap();
        let client =
            RepositoryClient::new(&http, &credentials, &plain_http, &reference, Access::Pull);
        let error = client.check_realm(&parse(realm).unwrap()).err();
        let is_expected = match (&error, expected) {
            (None, None) => true,
            (Some(error), Some(expected)) => error.to_string().contains(expected),
            _ => false,
        };
        assert!(is_expected, "{registry} to {realm}: {error:?}");
    }
}

/// Nothing is sent there: this fails before a connection, with and without credentials.
#[tokio::test]
async fn a_token_is_not_fetched_from_a_private_address() {
    let http = HttpClient::new(Timeouts::default()).unwrap();
    let (credentials, plain_http) = (Credentials::default(), BTreeSet::new());
    let reference: Reference = "r.example/policies/pricing:1".parse().unwrap();
    let client = RepositoryClient::new(&http, &credentials, &plain_http, &reference, Access::Pull);
    let offered = HeaderValue::from_static(r#"Bearer realm="https://169.254.169.254/token""#);
    let headers = HeaderMap::from_iter([(hyper::header::WWW_AUTHENTICATE, offered)]);
    let Some(Challenge::Bearer(bearer)) = challenge(&headers) else { panic!("no bearer") };
    let registry = Origin::named(client.url("").unwrap());
    let error = client.token(&bearer, &registry).await.unwrap_err();
    assert!(
        matches!(&error, Error::PrivateRealm { realm, .. } if realm == "169.254.169.254"),
        "{error}"
    );
    // As a name leads there.
    let source = ConnectError::PrivateAddress;
    let error = client.unsent(HttpError::Unreachable { host: "auth.example".into(), source });
    assert!(
        matches!(&error, Error::PrivateRealm { realm, .. } if realm == "auth.example"),
        "{error}"
    );
}

#[test]
fn error_codes_are_repeated_and_messages_are_not() {
    let code = |code: &str| {
        error_code(format!(r#"{{"errors": [{{"code": {code:?}, "message": "x"}}]}}"#).as_bytes())
    };
    assert_eq!(code("MANIFEST_UNKNOWN").as_deref(), Some("MANIFEST_UNKNOWN"));
    assert_eq!(code("a secret"), None);
    assert_eq!(error_code(b"<html>"), None);
}
