//! Bundles of cosign 3 are verified as its older signatures are: by the operator's keys.
#![cfg(test)]

mod support;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::StatusCode;
use paygress_oci::testing::{ReferrersList, RequiredAuth, TestRegistry};
use paygress_oci::{Digest, Error, Keys, Reference, Registry, SigningKey, Unverified};
use serde_json::{Value, json};
use support::{COMPONENT, key, push, reference};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

fn by_key() -> Value {
    json!({"publicKey": {"hint": "c2hhMjU2IG9mIHRoZSBrZXk="}, "tlogEntries": []})
}

/// As `cosign sign-blob --key --bundle` writes it.
fn of_blob(key: &SigningKey, bytes: &[u8]) -> Value {
    let digest = BASE64_STANDARD.encode(hex::decode(Digest::of(bytes).hex()).unwrap());
    json!({
        "mediaType": BUNDLE, "verificationMaterial": by_key(),
        "messageSignature": {
            "messageDigest": {"algorithm": "SHA2_256", "digest": digest},
            "signature": key.sign_blob(bytes),
        },
    })
}

fn statement(predicate: &str, digest: &Digest) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1", "predicateType": predicate, "predicate": {},
        "subject": [{"digest": {"sha256": digest.hex()}, "annotations": {}}],
    })
}

/// As `cosign sign --key` writes it, with this statement.
fn envelope(key: &SigningKey, statement: &Value) -> Value {
    let (payload, kind) = (statement.to_string(), "application/vnd.in-toto+json");
    let signed = format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len());
    json!({
        "mediaType": BUNDLE, "verificationMaterial": by_key(),
        "dsseEnvelope": {
            "payload": BASE64_STANDARD.encode(&payload), "payloadType": kind,
            "signatures": [{"sig": key.sign_blob(signed.as_bytes()), "keyid": ""}],
        },
    })
}

fn of_image(key: &SigningKey, digest: &Digest) -> Value {
    envelope(key, &statement(SIGN, digest))
}

fn known(key: &SigningKey) -> Keys {
    let mut keys = Keys::default();
    keys.add("ours", &key.public_pem()).unwrap();
    keys
}

#[test]
fn a_bundle_beside_a_file_is_verified() {
    let (ours, theirs) = (key(), key());
    let keys = known(&ours);
    let verify = |bundle: &Value| keys.verify_blob(COMPONENT, &format!("{bundle:#}\n"));
    assert_eq!(verify(&of_blob(&ours, COMPONENT)).unwrap(), "ours");
    for (bundle, expected) in [
        (of_blob(&theirs, COMPONENT), "no signature is by a known key (ours)"),
        (of_blob(&ours, b"another"), "no signature is by a known key (ours)"),
        (
            changed(
                of_blob(&theirs, COMPONENT),
                "/verificationMaterial",
                json!({"certificate": {}}),
            ),
            "keyless",
        ),
        (changed(of_blob(&ours, COMPONENT), "/mediaType", json!("text/plain")), "another type"),
        (
            changed(of_blob(&ours, COMPONENT), "/messageSignature/signature", json!("!")),
            "not base64",
        ),
        (
            changed(of_blob(&ours, COMPONENT), "/messageSignature/signature", json!("AAAA")),
            "not ECDSA",
        ),
        (changed(of_blob(&ours, COMPONENT), "/messageSignature", json!(null)), "has no signature"),
        (json!({}), "not a Sigstore bundle"),
        (
            envelope(&ours, &statement("https://slsa.dev/provenance/v1", &Digest::of(COMPONENT))),
            "attestation",
        ),
    ] {
        let error = verify(&bundle).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let error = keys.verify_blob(COMPONENT, "not base64!").unwrap_err().to_string();
    assert!(error.contains("neither the base64 of a signature nor a Sigstore bundle"), "{error}");
    let large = format!("{{{}}}", " ".repeat(256 << 10));
    let error = keys.verify_blob(COMPONENT, &large).unwrap_err().to_string();
    assert!(error.contains("more than 256 KiB"), "{error}");
}

fn changed(mut bundle: Value, pointer: &str, value: Value) -> Value {
    *bundle.pointer_mut(pointer).unwrap() = value;
    bundle
}

/// A registry with a component.
struct Fixture {
    server: TestRegistry,
    client: Registry,
    reference: Reference,
    digest: Digest,
}

async fn fixture(list: ReferrersList) -> Fixture {
    let server = TestRegistry::open(RequiredAuth::None).await.unwrap();
    server.set_referrers(list);
    let (client, reference) =
        (Registry::new(None).unwrap(), reference(&server, "policies/pricing:1"));
    let digest = push(&client, &reference, COMPONENT).await.unwrap();
    Fixture { server, client, reference, digest }
}

impl Fixture {
    /// Attaches bundles as cosign does: each an artifact that refers to the component, and an index
    /// of them at a tag if the registry lists none.
    fn attach(&self, bundles: &[(Value, Value)]) {
        self.attach_behind(0, bundles);
    }

    /// As [`Self::attach`], behind so many of which the list does not say what they are.
    fn attach_behind(&self, untyped: u32, bundles: &[(Value, Value)]) {
        let gone = |number: u32| json!({"digest": Digest::of(&number.to_le_bytes()), "size": 4, "mediaType": "application/vnd.oci.image.manifest.v1+json"});
        let mut index: Vec<Value> = (0..untyped).map(gone).collect();
        for (bundle, annotations) in bundles {
            let (bundle, empty) = (bundle.to_string(), "{}");
            let descriptor = |kind: &str, bytes: &str| json!({"mediaType": kind, "digest": Digest::of(bytes.as_bytes()), "size": bytes.len()});
            let manifest = json!({
                "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "artifactType": BUNDLE, "annotations": annotations,
                "config": descriptor("application/vnd.oci.empty.v1+json", empty),
                "layers": [descriptor(BUNDLE, &bundle)],
                "subject": {"mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": self.digest, "size": 1},
            })
            .to_string();
            let digest = Digest::of(manifest.as_bytes());
            self.server.replace_blob(&Digest::of(bundle.as_bytes()), bundle.as_bytes());
            let at = digest.to_string();
            self.server.replace_manifest("policies/pricing", &at, manifest.as_bytes());
            index.push(json!({"digest": digest, "size": manifest.len(), "artifactType": BUNDLE,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "annotations": annotations}));
        }
        let index = json!({"schemaVersion": 2, "manifests": index}).to_string();
        let tag = format!("sha256-{}", self.digest.hex());
        self.server.replace_manifest("policies/pricing", &tag, index.as_bytes());
    }

    async fn verified(&self, keys: &Keys) -> Result<String, Unverified> {
        let signatures = self.client.signatures(&self.reference, &self.digest).await.unwrap();
        keys.verify_image(&self.digest, &signatures).map(str::to_owned)
    }
}

#[tokio::test]
async fn bundles_that_refer_to_an_artifact_are_verified_wherever_they_are_listed() {
    let lists = [
        ReferrersList::None,
        ReferrersList::Served,
        ReferrersList::Status(StatusCode::BAD_REQUEST),
        ReferrersList::Status(StatusCode::METHOD_NOT_ALLOWED),
    ];
    for list in lists {
        let (fixture, ours, theirs) = (fixture(list).await, key(), key());
        let keys = known(&ours);
        assert_eq!(fixture.verified(&keys).await, Err(Unverified::NoSignature), "{list:?}");
        fixture.attach(&[(of_image(&theirs, &fixture.digest), json!({}))]);
        assert!(matches!(fixture.verified(&keys).await, Err(Unverified::UnknownKey { .. })));
        let annotations = json!({"dev.sigstore.bundle.predicateType": SIGN});
        fixture.attach(&[
            (of_image(&theirs, &fixture.digest), json!({})),
            (of_image(&ours, &fixture.digest), annotations),
        ]);
        assert_eq!(fixture.verified(&keys).await.unwrap(), "ours", "{list:?}");
    }
}

#[tokio::test]
async fn statements_about_an_artifact_are_no_signatures_of_it() {
    let (fixture, ours) = (fixture(ReferrersList::None).await, key());
    let keys = known(&ours);
    let other = Digest::of(b"another");
    let provenance = "https://slsa.dev/provenance/v1";
    for (bundle, expected) in [
        (of_image(&ours, &other), "is for another artifact"),
        (envelope(&ours, &statement(provenance, &fixture.digest)), "attestation"),
        (
            envelope(&ours, &json!({"_type": "other", "subject": [], "predicateType": SIGN})),
            "in-toto",
        ),
        (envelope(&ours, &json!([])), "cannot be read"),
        (
            changed(
                of_image(&ours, &fixture.digest),
                "/dsseEnvelope/payloadType",
                json!("text/plain"),
            ),
            "not of an in-toto statement",
        ),
    ] {
        fixture.attach(&[(bundle, json!({}))]);
        let error = fixture.verified(&keys).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let signed = of_image(&ours, &fixture.digest);
    let one = signed["dsseEnvelope"]["signatures"][0].clone();
    let other = of_image(&key(), &fixture.digest)["dsseEnvelope"]["signatures"][0].clone();
    let several = |count: usize| {
        let mut all = vec![other.clone(); count - 1];
        all.push(one.clone());
        changed(signed.clone(), "/dsseEnvelope/signatures", all.into())
    };
    fixture.attach(&[(several(8), json!({}))]);
    assert_eq!(fixture.verified(&keys).await.unwrap(), "ours", "the last of eight");
    fixture.attach(&[(several(9), json!({}))]);
    let error = fixture.verified(&keys).await.unwrap_err().to_string();
    assert!(error.contains("more than 8 signatures"), "{error}");
    // One that says what it is need not be fetched, and its size does not matter.
    let annotations = json!({"dev.sigstore.bundle.predicateType": provenance});
    let large = json!({"predicate": "x".repeat(1 << 20)});
    fixture.attach(&[(large, annotations), (of_image(&ours, &fixture.digest), json!({}))]);
    assert_eq!(fixture.verified(&keys).await.unwrap(), "ours");
}

#[tokio::test]
async fn bundles_are_bounded_and_older_signatures_do_not_depend_on_them() {
    let (fixture, ours) = (fixture(ReferrersList::None).await, key());
    let many = |count: usize| vec![(of_image(&ours, &fixture.digest), json!({})); count];
    fixture.attach(&many(50));
    assert_eq!(fixture.verified(&known(&ours)).await.unwrap(), "ours");
    fixture.attach(&many(51));
    let too_many = fixture.client.signatures(&fixture.reference, &fixture.digest).await;
    assert!(matches!(too_many, Err(Error::Signatures { .. })));
    fixture.attach_behind(60, &many(1));
    assert_eq!(fixture.verified(&known(&ours)).await.unwrap(), "ours");
    fixture.attach_behind(60, &[]);
    let not_looked_at = fixture.client.signatures(&fixture.reference, &fixture.digest).await;
    assert!(matches!(not_looked_at, Err(Error::Signatures { .. })));
    fixture.attach(&[(json!("x".repeat((256 << 10) + 1)), json!({}))]);
    let too_large = fixture.client.signatures(&fixture.reference, &fixture.digest).await;
    assert!(matches!(too_large, Err(Error::TooLarge { .. })));
    // A registry that is wrong about referrers has signatures at the tag all the same.
    fixture.client.sign(&fixture.reference, &fixture.digest, &ours).await.unwrap();
    fixture.server.set_referrers(ReferrersList::Status(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(fixture.verified(&known(&ours)).await.unwrap(), "ours");
}
