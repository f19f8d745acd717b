//! Components and signatures are pushed and pulled, and what a hostile registry sends is rejected.
#![cfg(test)]

mod support;

use paygress_core::error_chain;
use paygress_oci::testing::{BlobBehavior, RequiredAuth, TestRegistry};
use paygress_oci::{
    Artifact, Digest, Error, HttpError, Keys, Reference, Registry, Signature, SigningKey,
    Unverified,
};
use std::time::Duration;
use support::{COMPONENT, LIMIT, key, push, reference, with_timeouts};

/// A registry with a component at `policies/pricing:1`.
struct Fixture {
    server: TestRegistry,
    client: Registry,
    reference: Reference,
    digest: Digest,
}

async fn fixture() -> Fixture {
    let server = TestRegistry::open(RequiredAuth::None).await.unwrap();
    let client = with_timeouts(Duration::from_secs(5), Duration::from_secs(2));
    let reference = reference(&server, "policies/pricing:1");
    let digest = push(&client, &reference, COMPONENT).await.unwrap();
    Fixture { server, client, reference, digest }
}

impl Fixture {
    async fn pull(&self) -> Result<Artifact, Error> {
        self.client.pull(&self.reference, LIMIT).await
    }

    async fn pull_error(&self) -> String {
        error_chain(&self.pull().await.unwrap_err())
    }

    async fn verified(&self, keys: &Keys) -> Result<String, Unverified> {
        let signatures = self.client.signatures(&self.reference, &self.digest).await.unwrap();
        keys.verify_image(&self.digest, &signatures).map(str::to_owned)
    }

    /// Changes the manifest at the tag.
    fn rewrite(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let bytes = self.server.manifest("policies/pricing", "1").unwrap();
        let mut manifest = serde_json::from_slice(&bytes).unwrap();
        change(&mut manifest);
        self.server.replace_manifest("policies/pricing", "1", manifest.to_string().as_bytes());
    }
}

fn keys(named: &[(&str, &SigningKey)]) -> Keys {
    let mut keys = Keys::default();
    named.iter().for_each(|(name, key)| keys.add(name, &key.public_pem()).unwrap());
    keys
}

#[tokio::test]
async fn a_component_goes_and_comes_back() {
    let fixture = fixture().await;
    let artifact = fixture.pull().await.unwrap();
    assert_eq!(
        (artifact.component.as_slice(), artifact.manifest_digest),
        (COMPONENT, fixture.digest)
    );
    assert_eq!(artifact.annotations.get("org.opencontainers.image.title").unwrap(), "pricing");
    assert_eq!(fixture.client.resolve(&fixture.reference).await.unwrap(), fixture.digest);
    assert_eq!(
        push(&fixture.client, &reference(&fixture.server, "other:2"), COMPONENT).await.unwrap(),
        fixture.digest,
        "the same digest"
    );
    let missing =
        fixture.client.pull(&reference(&fixture.server, "policies/pricing:2"), LIMIT).await;
    assert!(matches!(missing, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn the_configuration_is_that_of_wasm_artifacts() {
    let fixture = fixture().await;
    let bytes = fixture.server.manifest("policies/pricing", "1").unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap().parse().unwrap();
    let config = fixture.server.blob(&config).unwrap();
    let layer = serde_json::json!({
        "mediaType": "application/wasm", "digest": Digest::of(COMPONENT), "size": COMPONENT.len(),
        "annotations": {"org.opencontainers.image.title": "component.wasm"},
    });
    let described = serde_json::json!({"mediaType": "application/vnd.wasm.config.v0+json", "digest": Digest::of(&config), "size": config.len()});
    let expected = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described, "layers": [layer], "annotations": {"org.opencontainers.image.title": "pricing"},
    });
    assert_eq!(manifest, expected);
    let expected = serde_json::json!({
        "created": "1970-01-01T00:00:00Z", "author": "A", "architecture": "wasm", "os": "wasip2", "layerDigests": [layer["digest"]],
        "component": {"exports": ["paygress:policy/pricing@1.0.0"], "imports": [], "target": null},
    });
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&config).unwrap(), expected);
    assert_eq!(
        fixture.digest.to_string(),
        "sha256:7062637cefc5cef101cf035256d4dc57f01e760b9d96082f6534ac06fe3012b6",
        "it never changes"
    );
}

#[tokio::test]
async fn a_pinned_digest_counts_more_than_a_tag() {
    let mut fixture = fixture().await;
    fixture.reference = fixture.reference.pinned(fixture.digest);
    let other =
        push(&fixture.client, &reference(&fixture.server, "policies/pricing:1"), b"other bytes")
            .await
            .unwrap();
    assert_eq!(fixture.pull().await.unwrap().component, COMPONENT, "the tag has moved");
    assert!(
        matches!(push(&fixture.client, &fixture.reference, b"other bytes").await, Err(Error::DigestMismatch { found, .. }) if found == other)
    );

    let bytes = fixture.server.manifest("policies/pricing", "1").unwrap();
    fixture.server.replace_manifest("policies/pricing", &fixture.digest.to_string(), &bytes);
    assert!(
        matches!(fixture.pull().await, Err(Error::DigestMismatch { found, .. }) if found == other),
        "the manifest is another one"
    );
    assert!(matches!(
        fixture.client.resolve(&fixture.reference).await,
        Err(Error::DigestMismatch { .. })
    ));
}

#[tokio::test]
async fn a_tampered_layer_is_noticed() {
    let fixture = fixture().await;
    let mut other = COMPONENT.to_vec();
    *other.last_mut().unwrap() ^= 1;
    for bytes in [other.as_slice(), b"", b"short"] {
        fixture.server.replace_blob(&Digest::of(COMPONENT), bytes);
        assert!(
            matches!(fixture.pull().await, Err(Error::DigestMismatch { found, .. }) if found == Digest::of(bytes))
        );
    }
}

#[tokio::test]
async fn too_much_is_too_much() {
    let fixture = fixture().await;
    let short = fixture.client.pull(&fixture.reference, COMPONENT.len() - 1).await;
    assert!(matches!(short, Err(Error::TooLarge { .. })));
    assert!(
        !fixture
            .server
            .take_requests()
            .iter()
            .any(|request| request.method == "GET" && request.path.contains("/blobs/")),
        "it is not even requested"
    );
    fixture.server.set_blob_behavior(BlobBehavior::Endless);
    assert!(
        matches!(fixture.pull().await, Err(Error::TooLarge { limit, .. }) if limit == COMPONENT.len())
    );
    fixture.server.set_blob_behavior(BlobBehavior::Stall);
    // Both limits are the same here, and either may be noticed first.
    assert!(matches!(
        fixture.pull().await,
        Err(Error::TimedOut { limit, .. } | Error::Http(HttpError::TimedOut { limit, .. }))
            if limit == Duration::from_secs(2)
    ));
    fixture.server.replace_manifest("policies/pricing", "1", &vec![b' '; (1 << 20) + 1]);
    assert!(fixture.pull_error().await.contains("more than 1048576 bytes"));
}

#[tokio::test]
async fn a_silent_registry_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at: Reference =
        format!("{}/policies/pricing:1", silent.local_addr().unwrap()).parse().unwrap();
    let head = Duration::from_millis(100);
    let client = with_timeouts(head, Duration::from_secs(60));
    assert!(
        matches!(client.pull(&at, LIMIT).await, Err(Error::Http(HttpError::TimedOut { limit, .. })) if limit == head)
    );
    // It never listens, and nobody else gets its port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let at: Reference =
        format!("{}/policies/pricing:1", socket.local_addr().unwrap()).parse().unwrap();
    let client = with_timeouts(Duration::from_secs(60), Duration::from_secs(60));
    assert!(matches!(
        client.pull(&at, LIMIT).await,
        Err(Error::Http(HttpError::Unreachable { .. }))
    ));
}

#[tokio::test]
async fn uploads_stay_on_the_same_server() {
    let (server, other) = (
        TestRegistry::open(RequiredAuth::None).await.unwrap(),
        TestRegistry::open(RequiredAuth::None).await.unwrap(),
    );
    let (client, at) = (Registry::new(None).unwrap(), reference(&server, "policies/pricing:1"));
    server.set_upload_server(&format!("http://{}", other.host()));
    assert!(matches!(push(&client, &at, COMPONENT).await, Err(Error::InvalidResponse { .. })));
    assert_eq!(other.take_requests(), []);
    for elsewhere in ["https://10.0.0.1", "https://169.254.169.254", "https://localhost"] {
        server.set_upload_server(elsewhere);
        let error = push(&client, &at, COMPONENT).await.unwrap_err();
        assert!(error_chain(&error).contains("not on the same server"), "{elsewhere}: {error}");
    }
    server.set_upload_server(&format!("http://{}", server.host()));
    push(&client, &at, COMPONENT).await.unwrap();
}

type Change = Box<dyn Fn(&mut serde_json::Value)>;

/// Changes that make a manifest another artifact's, and the error of each.
fn other_artifacts() -> [(&'static str, Change); 9] {
    let index = "application/vnd.oci.image.index.v1+json";
    [
        (
            "an index",
            Box::new(move |manifest| {
                *manifest =
                    serde_json::json!({"schemaVersion": 2, "mediaType": index, "manifests": []})
            }),
        ),
        ("an index", Box::new(|manifest| manifest["manifests"] = serde_json::json!([]))),
        (
            "docker",
            Box::new(|manifest| {
                manifest["mediaType"] =
                    "application/vnd.docker.distribution.manifest.v2+json".into()
            }),
        ),
        (
            "configuration",
            Box::new(|manifest| {
                manifest["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json".into()
            }),
        ),
        (
            "layer is of type",
            Box::new(|manifest| {
                manifest["layers"][0]["mediaType"] = "application/octet-stream".into()
            }),
        ),
        (
            "2 layers",
            Box::new(|manifest| manifest["layers"] = vec![manifest["layers"][0].clone(); 2].into()),
        ),
        ("0 layers", Box::new(|manifest| manifest["layers"] = serde_json::json!([]))),
        ("cannot be read", Box::new(|manifest| manifest["layers"][0]["size"] = (-1).into())),
        ("cannot be read", Box::new(|manifest| *manifest = serde_json::json!([]))),
    ]
}

#[tokio::test]
async fn other_artifacts_are_rejected_with_a_reason() {
    let fixture = fixture().await;
    let original = fixture.server.manifest("policies/pricing", "1").unwrap();
    for (expected, change) in other_artifacts() {
        fixture.rewrite(change);
        let error = fixture.pull_error().await;
        assert!(error.contains(expected), "{expected}: {error}");
        fixture.server.replace_manifest("policies/pricing", "1", &original);
    }
    fixture.rewrite(|manifest| {
        manifest["layers"][0]["mediaType"] = "application/vnd.wasm.content.layer.v1+wasm".into()
    });
    assert_eq!(fixture.pull().await.unwrap().component, COMPONENT);
}

#[tokio::test]
async fn signatures_name_their_key() {
    let (fixture, ours, theirs) = (fixture().await, key(), key());
    let known = keys(&[("ours", &ours)]);
    assert_eq!(fixture.verified(&known).await, Err(Unverified::NoSignature));
    fixture.client.sign(&fixture.reference, &fixture.digest, &theirs).await.unwrap();
    assert_eq!(
        fixture.verified(&known).await,
        Err(Unverified::UnknownKey { known: "ours".to_owned() })
    );
    for _ in 0..2 {
        fixture.client.sign(&fixture.reference, &fixture.digest, &ours).await.unwrap();
    }
    assert_eq!(fixture.verified(&known).await.unwrap(), "ours");
    assert_eq!(
        fixture.verified(&keys(&[("theirs", &theirs)])).await.unwrap(),
        "theirs",
        "the first signature is still there"
    );
    assert_eq!(
        fixture.client.signatures(&fixture.reference, &fixture.digest).await.unwrap().len(),
        2,
        "signing twice adds one signature"
    );
}

#[tokio::test]
async fn signatures_are_bounded() {
    let (fixture, ours) = (fixture().await, key());
    fixture.client.sign(&fixture.reference, &fixture.digest, &ours).await.unwrap();
    let tag = format!("sha256-{}.sig", fixture.digest.hex());
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&fixture.server.manifest("policies/pricing", &tag).unwrap())
            .unwrap();
    for (many, is_fine) in [(50, true), (51, false)] {
        manifest["layers"] = vec![manifest["layers"][0].clone(); many].into();
        fixture.server.replace_manifest("policies/pricing", &tag, manifest.to_string().as_bytes());
        assert_eq!(
            fixture.client.signatures(&fixture.reference, &fixture.digest).await.is_ok(),
            is_fine
        );
        let one_more = fixture.client.sign(&fixture.reference, &fixture.digest, &key()).await;
        let one_more = error_chain(&one_more.unwrap_err());
        assert!(one_more.contains("50"), "signing never makes the others unreadable: {one_more}");
    }
    manifest["layers"] =
        serde_json::json!([{"mediaType": "text/plain", "digest": fixture.digest, "size": 1}]);
    fixture.server.replace_manifest("policies/pricing", &tag, manifest.to_string().as_bytes());
    assert_eq!(fixture.client.signatures(&fixture.reference, &fixture.digest).await.unwrap(), []);
}

#[tokio::test]
async fn signatures_are_for_one_artifact() {
    let (fixture, ours) = (fixture().await, key());
    let known = keys(&[("ours", &ours)]);
    let other =
        push(&fixture.client, &reference(&fixture.server, "policies/pricing:2"), b"other bytes")
            .await
            .unwrap();
    fixture.client.sign(&fixture.reference, &other, &ours).await.unwrap();
    let tag = |digest: &Digest| format!("sha256-{}.sig", digest.hex());
    let carried = fixture.server.manifest("policies/pricing", &tag(&other)).unwrap();
    fixture.server.replace_manifest("policies/pricing", &tag(&fixture.digest), &carried);
    let error = fixture.verified(&known).await.unwrap_err();
    assert_eq!(
        error,
        Unverified::OtherArtifact { key: "ours".to_owned(), digest: other.to_string() }
    );
}

#[tokio::test]
async fn broken_signatures_are_distinguished() {
    let (fixture, ours) = (fixture().await, key());
    let known = keys(&[("ours", &ours)]);
    fixture.client.sign(&fixture.reference, &fixture.digest, &ours).await.unwrap();
    let [good] = fixture
        .client
        .signatures(&fixture.reference, &fixture.digest)
        .await
        .unwrap()
        .try_into()
        .unwrap();
    let Signature::Simple { payload, signature } = good else { panic!("{good:?}") };
    let verify = |payload: &[u8], signature: &str| {
        let (payload, signature) = (payload.to_vec(), signature.to_owned());
        let signature = Signature::Simple { payload, signature };
        known.verify_image(&fixture.digest, &[signature]).map(str::to_owned)
    };
    assert_eq!(verify(&payload, &signature).unwrap(), "ours");
    assert!(matches!(verify(b"changed", &signature), Err(Unverified::UnknownKey { .. })));
    assert!(matches!(verify(&payload, "not base64!"), Err(Unverified::Malformed(_))));
    assert!(matches!(verify(&payload, "bm90IERFUg=="), Err(Unverified::Malformed(_))));
    assert_eq!(verify(&payload, ""), Err(Unverified::NoSignature));
    assert!(matches!(verify(b"{}", &ours.sign_blob(b"{}")), Err(Unverified::Malformed(_))));
    let attested = String::from_utf8(payload)
        .unwrap()
        .replace("cosign container image signature", "something else");
    assert!(matches!(
        verify(attested.as_bytes(), &ours.sign_blob(attested.as_bytes())),
        Err(Unverified::Malformed(_))
    ));
}
