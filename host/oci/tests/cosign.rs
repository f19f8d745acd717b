//! What cosign 3 itself wrote is verified: `fixtures/cosign-3`, whose README says how it was made.
#![cfg(test)]

mod support;

use hyper::StatusCode;
use paygress_oci::testing::{ReferrersList, RequiredAuth, TestRegistry};
use paygress_oci::{
    ComponentFetcher, Digest, Error, FetchError, Keys, Reference, Registry, Signature,
    SignatureMode, Unverified, VerificationPolicy,
};
use std::path::Path;
use std::sync::Arc;
use support::{LIMIT, key, reference};

const REPOSITORY: &str = "policies/pricing";

fn recorded(name: &str) -> Vec<u8> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cosign-3");
    std::fs::read(directory.join(name)).unwrap()
}

fn text(name: &str) -> String {
    String::from_utf8(recorded(name)).unwrap()
}

fn keys(name: &str, pem: &str) -> Keys {
    let mut keys = Keys::default();
    keys.add(name, pem).unwrap();
    keys
}

fn cosign() -> Keys {
    keys("cosign", &text("cosign.pub"))
}

fn another() -> Keys {
    keys("another", &key().public_pem())
}

/// A registry with the artifact and what refers to it, and nothing that names the latter.
struct Fixture {
    server: TestRegistry,
    client: Registry,
    reference: Reference,
    digest: Digest,
}

impl Fixture {
    async fn open() -> Self {
        let server = TestRegistry::open(RequiredAuth::None).await.unwrap();
        for name in [
            "pricing.wasm",
            "signature.bundle.json",
            "attestation.bundle.json",
            "older.payload.json",
        ] {
            let blob = recorded(name);
            server.replace_blob(&Digest::of(&blob), &blob);
        }
        for name in ["manifest.json", "signature.json", "attestation.json"] {
            let manifest = recorded(name);
            server.replace_manifest(REPOSITORY, &Digest::of(&manifest).to_string(), &manifest);
        }
        server.replace_manifest(REPOSITORY, "1", &recorded("manifest.json"));
        let (client, reference) =
            (Registry::new(None).unwrap(), reference(&server, "policies/pricing:1"));
        Self { server, client, reference, digest: Digest::of(&recorded("manifest.json")) }
    }

    /// Keeps an index at the artifact's tag, as cosign does.
    fn tag(&self, index: &str) {
        let tag = format!("sha256-{}", self.digest.hex());
        self.server.replace_manifest(REPOSITORY, &tag, index.as_bytes());
    }

    /// The name of the key, by the artifact's signatures.
    async fn verified(&self, keys: &Keys) -> Result<String, Unverified> {
        let signatures = self.client.signatures(&self.reference, &self.digest).await.unwrap();
        keys.verify_image(&self.digest, &signatures).map(str::to_owned)
    }

    /// As the service pulls it, with these keys.
    async fn pull(&self, keys: Keys) -> Result<Vec<u8>, FetchError> {
        let verification = VerificationPolicy::new(keys, SignatureMode::Required);
        let fetcher =
            ComponentFetcher::new(Registry::new(None).unwrap(), Arc::new(verification), LIMIT);
        fetcher.pull(&self.reference.to_string()).await.map(|artifact| artifact.component)
    }

    /// The artifact is accepted by its key alone.
    async fn assert_signed(&self, case: &str) {
        assert_eq!(self.verified(&cosign()).await.unwrap(), "cosign", "{case}");
        assert_eq!(self.pull(cosign()).await.unwrap(), recorded("pricing.wasm"), "{case}");
        let refused = self.pull(another()).await.unwrap_err();
        let unknown = matches!(
            &refused,
            FetchError::Unverified { reason: Unverified::UnknownKey { .. }, .. }
        );
        assert!(unknown, "{case}: {refused}");
    }
}

#[test]
fn a_file_is_verified_by_what_cosign_wrote_beside_it() {
    let file = recorded("pricing.wasm");
    let mut changed = file.clone();
    *changed.last_mut().unwrap() ^= 1;
    for name in ["pricing.wasm.bundle.json", "pricing.wasm.sig"] {
        let (signature, keys) = (text(name), cosign());
        assert_eq!(keys.verify_blob(&file, &signature).unwrap(), "cosign", "{name}");
        let refused = keys.verify_blob(&changed, &signature);
        assert!(matches!(refused, Err(Unverified::UnknownKey { .. })), "{name}: {refused:?}");
        let another = another();
        let refused = another.verify_blob(&file, &signature);
        assert!(matches!(refused, Err(Unverified::UnknownKey { .. })), "{name}: {refused:?}");
    }
}

#[tokio::test]
async fn an_artifact_is_verified_wherever_its_bundle_is_listed() {
    let unlisted = Fixture::open().await;
    assert_eq!(unlisted.verified(&cosign()).await, Err(Unverified::NoSignature));

    let tagged = Fixture::open().await;
    tagged.tag(&text("index.json"));
    tagged.assert_signed("cosign's index").await;
    // Some clients write no types.
    let typed = r#","artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json""#;
    assert!(text("index.json").contains(typed));
    tagged.tag(&text("index.json").replace(typed, ""));
    tagged.assert_signed("an index without types").await;

    let listed = Fixture::open().await;
    listed.server.set_referrers(ReferrersList::Served);
    listed.assert_signed("a list with the artifacts' own types").await;
    listed.server.replace_referrers(REPOSITORY, &listed.digest, &recorded("referrers.json"));
    listed.assert_signed("a list with the types of configurations").await;
}

#[tokio::test]
async fn an_artifact_is_verified_by_the_older_signature_at_its_tag() {
    let fixture = Fixture::open().await;
    let tag = format!("sha256-{}.sig", fixture.digest.hex());
    fixture.server.replace_manifest(REPOSITORY, &tag, &recorded("older.json"));
    fixture.assert_signed("the tag").await;
    fixture.server.set_referrers(ReferrersList::Status(StatusCode::INTERNAL_SERVER_ERROR));
    fixture.assert_signed("the tag alone").await;
}

#[tokio::test]
async fn a_signature_is_of_one_artifact_and_its_bytes_are_checked() {
    let fixture = Fixture::open().await;
    fixture.tag(&text("index.json"));
    let signatures = fixture.client.signatures(&fixture.reference, &fixture.digest).await.unwrap();
    let other = Digest::of(b"another");
    let refused = cosign().verify_image(&other, &signatures).map(str::to_owned);
    let expected =
        Unverified::OtherArtifact { key: "cosign".to_owned(), digest: fixture.digest.to_string() };
    assert_eq!(refused, Err(expected));

    let bundle = recorded("signature.bundle.json");
    let mut changed = bundle.clone();
    *changed.last_mut().unwrap() ^= 1;
    fixture.server.replace_blob(&Digest::of(&bundle), &changed);
    let refused = fixture.client.signatures(&fixture.reference, &fixture.digest).await;
    assert!(matches!(refused, Err(Error::DigestMismatch { .. })), "{refused:?}");
}

#[tokio::test]
async fn an_attestation_is_no_signature_and_hides_none() {
    let bundle = Signature::Bundle(text("attestation.bundle.json"));
    let fixture = Fixture::open().await;
    let refused = cosign().verify_image(&fixture.digest, &[bundle]).unwrap_err().to_string();
    assert!(refused.contains("attestation"), "{refused}");

    // The index does not say which of the two is the attestation: its manifest does.
    let attestation = text("attestation.json");
    let listed = Digest::of(attestation.as_bytes()).to_string();
    assert!(text("index.json").contains(&listed));
    let large = attestation.replace(r#""size":787"#, r#""size":1048576"#);
    assert_ne!(large, attestation);
    let at = Digest::of(large.as_bytes()).to_string();
    fixture.server.replace_manifest(REPOSITORY, &at, large.as_bytes());
    fixture.tag(&text("index.json").replace(&listed, &at));
    fixture.assert_signed("a large attestation").await;
    // Nor does one hide it that is listed, but not there any more.
    let gone = Digest::of(b"another").to_string();
    fixture.tag(&text("index.json").replace(&listed, &gone));
    fixture.assert_signed("a deleted attestation").await;
    // Nor what is not a manifest at all, if the index says nothing of it.
    let index =
        text("index.json").replace("vnd.dev.sigstore.bundle.v0.3+json", "vnd.oci.empty.v1+json");
    fixture.server.replace_manifest(REPOSITORY, &gone, b"another");
    fixture.tag(&index.replace(&listed, &gone));
    fixture.assert_signed("something else").await;
}
