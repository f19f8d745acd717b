//! Components and signatures to a registry and back, and what happens when the registry lies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use paygress_oci::testing::{Blobs, Demand, TestRegistry};
use paygress_oci::{
    Artifact, Digest, Error, Keys, Package, Reference, Registry, SigningKey, Timeouts, Unverified,
};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0 a policy";
const LIMIT: usize = 1 << 20;

/// A registry with a component at `policies/pricing:1`.
struct Scene {
    server: TestRegistry,
    client: Registry,
    reference: Reference,
    digest: Digest,
}

async fn scene() -> Scene {
    let server = TestRegistry::open(Demand::Nothing).await.unwrap();
    let client = impatient();
    let reference = reference(&server, "policies/pricing:1");
    let digest = push(&client, &reference, COMPONENT).await.unwrap();
    Scene { server, client, reference, digest }
}

/// A registry with an auth file, in which `server` has these credentials.
fn client_with(server: &TestRegistry, auth: &str) -> Registry {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, server.host()),
    )
    .unwrap();
    Registry::new(Some(file.path())).unwrap()
}

fn impatient() -> Registry {
    Registry::with_patience(
        None,
        Timeouts { head: Duration::from_secs(5), whole: Duration::from_secs(2) },
    )
    .unwrap()
}

fn reference(server: &TestRegistry, rest: &str) -> Reference {
    format!("oci://{}/{rest}", server.host()).parse().unwrap()
}

async fn push(client: &Registry, reference: &Reference, component: &[u8]) -> Result<Digest, Error> {
    let annotations =
        BTreeMap::from([("org.opencontainers.image.title".to_owned(), "pricing".to_owned())]);
    let exports = ["paygress:policy/pricing@1.0.0".to_owned()];
    let package = Package {
        component,
        exports: &exports,
        imports: &[],
        author: Some("A"),
        created: None,
        annotations: &annotations,
    };
    client.push(reference, &package).await
}

impl Scene {
    async fn pull(&self) -> Result<Artifact, Error> {
        self.client.pull(&self.reference, LIMIT).await
    }

    async fn refused(&self) -> String {
        self.pull().await.unwrap_err().to_string()
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

fn key() -> SigningKey {
    let command = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let made = Command::new("openssl").args(command).output().expect("openssl has to be installed");
    assert!(made.status.success());
    SigningKey::from_pem(&String::from_utf8(made.stdout).unwrap()).unwrap()
}

fn keys(named: &[(&str, &SigningKey)]) -> Keys {
    let mut keys = Keys::default();
    named.iter().for_each(|(name, key)| keys.add(name, &key.public_pem()).unwrap());
    keys
}

#[tokio::test]
async fn a_component_goes_and_comes_back() {
    let scene = scene().await;
    let artifact = scene.pull().await.unwrap();
    assert_eq!(
        (artifact.component.as_slice(), artifact.manifest_digest),
        (COMPONENT, scene.digest)
    );
    assert_eq!(artifact.annotations.get("org.opencontainers.image.title").unwrap(), "pricing");
    assert_eq!(scene.client.resolve(&scene.reference).await.unwrap(), scene.digest);
    assert_eq!(
        push(&scene.client, &reference(&scene.server, "other:2"), COMPONENT).await.unwrap(),
        scene.digest,
        "the same digest"
    );
    let missing = scene.client.pull(&reference(&scene.server, "policies/pricing:2"), LIMIT).await;
    assert!(matches!(missing, Err(Error::Missing(_))));
}

#[tokio::test]
async fn the_configuration_is_that_of_wasm_artefacts() {
    let scene = scene().await;
    let bytes = scene.server.manifest("policies/pricing", "1").unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap().parse().unwrap();
    let config = scene.server.blob(&config).unwrap();
    let layer = serde_json::json!({
        "mediaType": "application/wasm", "digest": Digest::of(COMPONENT), "size": COMPONENT.len(),
        "annotations": {"org.opencontainers.image.title": "component.wasm"},
    });
    let described = serde_json::json!({"mediaType": "application/vnd.wasm.config.v0+json", "digest": Digest::of(&config), "size": config.len()});
    let wanted = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described, "layers": [layer], "annotations": {"org.opencontainers.image.title": "pricing"},
    });
    assert_eq!(manifest, wanted);
    let wanted = serde_json::json!({
        "created": "1970-01-01T00:00:00Z", "author": "A", "architecture": "wasm", "os": "wasip2", "layerDigests": [layer["digest"]],
        "component": {"exports": ["paygress:policy/pricing@1.0.0"], "imports": [], "target": null},
    });
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&config).unwrap(), wanted);
    assert_eq!(
        scene.digest.to_string(),
        "sha256:7062637cefc5cef101cf035256d4dc57f01e760b9d96082f6534ac06fe3012b6",
        "it never changes"
    );
}

#[tokio::test]
async fn a_pinned_digest_counts_more_than_a_tag() {
    let mut scene = scene().await;
    scene.reference = scene.reference.pinned(scene.digest);
    let other =
        push(&scene.client, &reference(&scene.server, "policies/pricing:1"), b"other bytes")
            .await
            .unwrap();
    assert_eq!(scene.pull().await.unwrap().component, COMPONENT, "the tag has moved");
    assert!(
        matches!(push(&scene.client, &scene.reference, b"other bytes").await, Err(Error::Tampered { found, .. }) if found == other)
    );

    let bytes = scene.server.manifest("policies/pricing", "1").unwrap();
    scene.server.replace_manifest("policies/pricing", &scene.digest.to_string(), &bytes);
    assert!(
        matches!(scene.pull().await, Err(Error::Tampered { found, .. }) if found == other),
        "the manifest is another one"
    );
    assert!(matches!(scene.client.resolve(&scene.reference).await, Err(Error::Tampered { .. })));
}

#[tokio::test]
async fn a_tampered_layer_is_noticed() {
    let scene = scene().await;
    let mut other = COMPONENT.to_vec();
    *other.last_mut().unwrap() ^= 1;
    for bytes in [other.as_slice(), b"", b"short"] {
        scene.server.replace_blob(&Digest::of(COMPONENT), bytes);
        assert!(
            matches!(scene.pull().await, Err(Error::Tampered { found, .. }) if found == Digest::of(bytes))
        );
    }
}

#[tokio::test]
async fn too_much_is_too_much() {
    let scene = scene().await;
    let short = scene.client.pull(&scene.reference, COMPONENT.len() - 1).await;
    assert!(matches!(short, Err(Error::TooLarge { .. })));
    assert!(
        !scene
            .server
            .seen()
            .iter()
            .any(|seen| seen.method == "GET" && seen.path.contains("/blobs/")),
        "it is not even asked for"
    );
    scene.server.answer_blobs(Blobs::Endless);
    assert!(
        matches!(scene.pull().await, Err(Error::TooLarge { limit, .. }) if limit == COMPONENT.len())
    );
    scene.server.answer_blobs(Blobs::Stalled);
    assert!(matches!(scene.pull().await, Err(Error::Slow { seconds: 2, .. })));
    scene.server.replace_manifest("policies/pricing", "1", &vec![b' '; (1 << 20) + 1]);
    assert!(scene.refused().await.contains("more than 1048576 bytes"));
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at: Reference =
        format!("{}/policies/pricing:1", silent.local_addr().unwrap()).parse().unwrap();
    let patience = Timeouts { head: Duration::from_millis(100), whole: Duration::from_secs(60) };
    let client = Registry::with_patience(None, patience).unwrap();
    assert!(matches!(client.pull(&at, LIMIT).await, Err(Error::Slow { seconds: 0, .. })));
    drop(silent);
    assert!(matches!(client.pull(&at, LIMIT).await, Err(Error::Away { .. })));
}

#[tokio::test]
async fn uploads_stay_on_the_same_server() {
    let (server, other) = (
        TestRegistry::open(Demand::Nothing).await.unwrap(),
        TestRegistry::open(Demand::Nothing).await.unwrap(),
    );
    let (client, at) = (Registry::new(None).unwrap(), reference(&server, "policies/pricing:1"));
    server.take_uploads_at(&format!("http://{}", other.host()));
    assert!(matches!(push(&client, &at, COMPONENT).await, Err(Error::Garbage { .. })));
    assert_eq!(other.seen(), []);
    server.take_uploads_at(&format!("http://{}", server.host()));
    push(&client, &at, COMPONENT).await.unwrap();
}

#[tokio::test]
async fn other_artefacts_are_refused_with_a_reason() {
    let scene = scene().await;
    let original = scene.server.manifest("policies/pricing", "1").unwrap();
    let index = "application/vnd.oci.image.index.v1+json";
    type Change = Box<dyn Fn(&mut serde_json::Value)>;
    let changes: [(&str, Change); 9] = [
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
    ];
    for (told, change) in changes {
        scene.rewrite(change);
        let error = scene.refused().await;
        assert!(error.contains(told), "{told}: {error}");
        scene.server.replace_manifest("policies/pricing", "1", &original);
    }
    scene.rewrite(|manifest| {
        manifest["layers"][0]["mediaType"] = "application/vnd.wasm.content.layer.v1+wasm".into()
    });
    assert_eq!(scene.pull().await.unwrap().component, COMPONENT);
}

#[tokio::test]
async fn signatures_name_their_key() {
    let (scene, ours, theirs) = (scene().await, key(), key());
    let known = keys(&[("ours", &ours)]);
    assert_eq!(scene.verified(&known).await, Err(Unverified::NoSignature));
    scene.client.sign(&scene.reference, &scene.digest, &theirs).await.unwrap();
    assert_eq!(
        scene.verified(&known).await,
        Err(Unverified::UnknownKey { known: "ours".to_owned() })
    );
    for _ in 0..2 {
        scene.client.sign(&scene.reference, &scene.digest, &ours).await.unwrap();
    }
    assert_eq!(scene.verified(&known).await.unwrap(), "ours");
    assert_eq!(
        scene.verified(&keys(&[("theirs", &theirs)])).await.unwrap(),
        "theirs",
        "the first signature is still there"
    );
    assert_eq!(
        scene.client.signatures(&scene.reference, &scene.digest).await.unwrap().len(),
        2,
        "who signs twice has signed once"
    );
}

#[tokio::test]
async fn signatures_are_bounded() {
    let (scene, ours) = (scene().await, key());
    scene.client.sign(&scene.reference, &scene.digest, &ours).await.unwrap();
    let tag = format!("sha256-{}.sig", scene.digest.hex());
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&scene.server.manifest("policies/pricing", &tag).unwrap()).unwrap();
    for (many, is_fine) in [(50, true), (51, false)] {
        manifest["layers"] = vec![manifest["layers"][0].clone(); many].into();
        scene.server.replace_manifest("policies/pricing", &tag, manifest.to_string().as_bytes());
        assert_eq!(scene.client.signatures(&scene.reference, &scene.digest).await.is_ok(), is_fine);
        let one_more = scene
            .client
            .sign(&scene.reference, &scene.digest, &key())
            .await
            .unwrap_err()
            .to_string();
        assert!(one_more.contains("50"), "nobody makes the others unreadable: {one_more}");
    }
    manifest["layers"] =
        serde_json::json!([{"mediaType": "text/plain", "digest": scene.digest, "size": 1}]);
    scene.server.replace_manifest("policies/pricing", &tag, manifest.to_string().as_bytes());
    assert_eq!(scene.client.signatures(&scene.reference, &scene.digest).await.unwrap(), []);
}

#[tokio::test]
async fn signatures_are_for_one_artefact() {
    let (scene, ours) = (scene().await, key());
    let known = keys(&[("ours", &ours)]);
    let other =
        push(&scene.client, &reference(&scene.server, "policies/pricing:2"), b"other bytes")
            .await
            .unwrap();
    scene.client.sign(&scene.reference, &other, &ours).await.unwrap();
    let tag = |digest: &Digest| format!("sha256-{}.sig", digest.hex());
    let carried = scene.server.manifest("policies/pricing", &tag(&other)).unwrap();
    scene.server.replace_manifest("policies/pricing", &tag(&scene.digest), &carried);
    let error = scene.verified(&known).await.unwrap_err();
    assert_eq!(
        error,
        Unverified::OtherArtefact { key: "ours".to_owned(), digest: other.to_string() }
    );
}

#[tokio::test]
async fn broken_signatures_are_told_apart() {
    let (scene, ours) = (scene().await, key());
    let known = keys(&[("ours", &ours)]);
    scene.client.sign(&scene.reference, &scene.digest, &ours).await.unwrap();
    let [good] =
        scene.client.signatures(&scene.reference, &scene.digest).await.unwrap().try_into().unwrap();
    let verify = |payload: &[u8], signature: &str| {
        let signature =
            paygress_oci::Signature { payload: payload.to_vec(), signature: signature.to_owned() };
        known.verify_image(&scene.digest, &[signature]).map(str::to_owned)
    };
    assert_eq!(verify(&good.payload, &good.signature).unwrap(), "ours");
    assert!(matches!(verify(b"changed", &good.signature), Err(Unverified::UnknownKey { .. })));
    assert!(matches!(verify(&good.payload, "not base64!"), Err(Unverified::Malformed(_))));
    assert!(matches!(verify(&good.payload, "bm90IERFUg=="), Err(Unverified::Malformed(_))));
    assert_eq!(verify(&good.payload, ""), Err(Unverified::NoSignature));
    assert!(matches!(verify(b"{}", &ours.sign_blob(b"{}")), Err(Unverified::Malformed(_))));
    let attested = String::from_utf8(good.payload)
        .unwrap()
        .replace("cosign container image signature", "something else");
    assert!(matches!(
        verify(attested.as_bytes(), &ours.sign_blob(attested.as_bytes())),
        Err(Unverified::Malformed(_))
    ));
}

#[tokio::test]
async fn passwords_are_given_to_who_asks() {
    for demand in [
        Demand::Basic("alice:secret".to_owned()),
        Demand::Bearer { credentials: Some("alice:secret".to_owned()), realm: None },
    ] {
        let server = TestRegistry::open(demand).await.unwrap();
        let at = reference(&server, "policies/pricing:1");
        let alice = client_with(&server, "YWxpY2U6c2VjcmV0");
        let digest = push(&alice, &at, COMPONENT).await.unwrap();
        alice.sign(&at, &digest, &key()).await.unwrap();
        assert_eq!(alice.pull(&at, LIMIT).await.unwrap().manifest_digest, digest);
        assert!(matches!(
            Registry::new(None).unwrap().pull(&at, LIMIT).await,
            Err(Error::Anonymous { .. })
        ));
        let error = client_with(&server, "YWxpY2U6d3Jvbmc=").pull(&at, LIMIT).await.unwrap_err();
        assert!(matches!(error, Error::Denied { .. }), "{error}");
        assert!(!error.to_string().contains("wrong:") && !format!("{error:?}").contains("d3Jvbmc"));
    }
}

#[tokio::test]
async fn tokens_are_had_for_nothing_too() {
    let server =
        TestRegistry::open(Demand::Bearer { credentials: None, realm: None }).await.unwrap();
    let (client, at) = (Registry::new(None).unwrap(), reference(&server, "policies/pricing:1"));
    push(&client, &at, COMPONENT).await.unwrap();
    client.pull(&at, LIMIT).await.unwrap();
    let tokens = server
        .seen()
        .into_iter()
        .filter(|seen| seen.path.starts_with("/token"))
        .map(|seen| seen.path)
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
        let demand = Demand::Bearer { credentials: None, realm: Some(realm.to_owned()) };
        let server = TestRegistry::open(demand).await.unwrap();
        let client = client_with(&server, "YWxpY2U6c2VjcmV0");
        let error =
            client.pull(&reference(&server, "policies/pricing:1"), LIMIT).await.unwrap_err();
        assert!(matches!(error, Error::Realm { .. } | Error::Garbage { .. }), "{realm}: {error}");
    }
}

#[tokio::test]
async fn a_blob_may_be_elsewhere_and_credentials_stay_here() {
    let store = TestRegistry::open(Demand::Nothing).await.unwrap();
    let server = TestRegistry::open(Demand::Basic("alice:secret".to_owned())).await.unwrap();
    let (alice, at) =
        (client_with(&server, "YWxpY2U6c2VjcmV0"), reference(&server, "policies/pricing:1"));
    push(&alice, &at, COMPONENT).await.unwrap();
    server.copy_blobs_to(&store);
    server.answer_blobs(Blobs::At(format!("http://{}", store.host())));
    assert_eq!(alice.pull(&at, LIMIT).await.unwrap().component, COMPONENT);
    let seen = store.seen();
    assert_eq!(seen.iter().map(|seen| seen.authorization.clone()).collect::<Vec<_>>(), [None]);

    store.replace_blob(&Digest::of(COMPONENT), b"other bytes");
    assert!(matches!(
        alice.pull(&at, LIMIT).await,
        Err(Error::Tampered { .. } | Error::TooLarge { .. })
    ));
    server.answer_blobs(Blobs::At("http://blobs.example".to_owned()));
    assert!(alice.pull(&at, LIMIT).await.unwrap_err().to_string().contains("not https"));
    server.answer_blobs(Blobs::At(format!("http://{}", server.host())));
    assert!(alice.pull(&at, LIMIT).await.unwrap_err().to_string().contains("without end"));
    assert_eq!(
        server
            .seen()
            .iter()
            .filter(|seen| seen.path.contains("/blobs/sha256") && seen.method == "GET")
            .count(),
        3 + 4
    );
}
