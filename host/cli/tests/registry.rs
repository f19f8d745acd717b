//! Policies from a registry: pushed, signed, pulled, and rejected for every possible reason.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use paygress::sandbox::Sandbox;
use paygress_core::backend::policy::Slot;
use paygress_oci::testing::{RequiredAuth, TestRegistry};
use paygress_oci::{Digest, Package, Reference, Registry, SigningKey};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use support::command::{paygress, printed, text};
use support::customer::Running;
use support::keys::{certificate, key};

fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(name)
}

/// Files for all slots, signed.
async fn write_policy_dir(sandbox: &Sandbox, directory: &Path, key: &str) {
    for slot in Slot::ALL {
        let file = directory.join(format!("{slot}.wasm"));
        std::fs::copy(built(&format!("plugins/{slot}.wasm")), &file).unwrap();
        printed(sandbox, &["policy", "sign", &file.to_string_lossy(), "--key", key]).await;
    }
}

fn pricing_digest(history: &str) -> String {
    let last = history.lines().rfind(|line| line.contains("pricing ")).unwrap();
    last.split("pricing ").nth(1).unwrap().chars().take(12).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_from_a_registry_are_accepted_when_a_known_key_signed_them() {
    // long: one session with a running service; each step builds on the last.
    let plain = Sandbox::new(&[], "").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let ((ours, ours_public), (theirs, theirs_public)) =
        (key(directory.path(), "ours"), key(directory.path(), "theirs"));
    write_policy_dir(&plain, directory.path(), &ours).await;
    let sandbox = Sandbox::new(
        &[("POLICY_DIR", &directory.path().to_string_lossy()), ("POLICY_KEYS", &ours_public)],
        "",
    )
    .await
    .unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let registry = TestRegistry::open(RequiredAuth::None).await.unwrap();
    let named = |name: &str| format!("{}/policies/{name}", registry.host());
    let push = async |file: &Path, name: &str, sign: Option<&str>| {
        let (file, reference) = (file.to_string_lossy().into_owned(), named(name));
        let mut arguments = vec!["policy", "push", &file, &reference];
        arguments.extend(sign.iter().flat_map(|key| ["--sign", *key]));
        printed(&sandbox, &arguments).await.trim().to_owned()
    };
    let swap = async |slot: &str, reference: &str| {
        paygress(&sandbox, &["policy", "swap", slot, &format!("oci://{reference}")]).await
    };
    let refused = async |slot: &str, reference: &str, why: &str| {
        let output = swap(slot, reference).await;
        assert!(
            !output.status.success() && text(&output.stderr).contains(why),
            "{why}: {}",
            text(&output.stderr)
        );
    };
    let (flat, surge) =
        (built("plugins-examples/flat-price.wasm"), built("plugins-examples/surge-price.wasm"));
    let before = printed(&sandbox, &["policy", "history"]).await;

    // Each with its reason, and the old one goes on.
    push(&flat, "unsigned:1", None).await;
    refused("pricing", &named("unsigned:1"), "there is no signature").await;
    push(&flat, "theirs:1", Some(&theirs)).await;
    refused("pricing", &named("theirs:1"), "known key").await;
    push(&flat, "images:1", Some(&ours)).await;
    refused("images", &named("images:1"), "slot pricing").await;
    let newer = at("newer.wasm");
    std::fs::write(&newer, newer_contract(&std::fs::read(&flat).unwrap())).unwrap();
    push(Path::new(&newer), "newer:1", Some(&ours)).await;
    refused("pricing", &named("newer:1"), "1.9.0").await;
    refused("pricing", &named("nowhere:1"), "is not there").await;
    refused("pricing", "no reference", "registry is missing").await;
    let pinned = push(&flat, "tampered:1", Some(&ours)).await;
    registry.replace_blob(&Digest::of(&std::fs::read(&flat).unwrap()), b"something else");
    refused("pricing", &pinned, "tampered").await;
    let large = vec![0; (32 << 20) + 1];
    let registry_client = Registry::new(None).unwrap();
    let reference: Reference = named("large:1").parse().unwrap();
    let package = Package {
        component: &large,
        exports: &[],
        imports: &[],
        author: None,
        created: None,
        annotations: &BTreeMap::new(),
    };
    let digest = registry_client.push(&reference, &package).await.unwrap();
    let pem = std::fs::read_to_string(&ours).unwrap();
    registry_client.sign(&reference, &digest, &SigningKey::from_pem(&pem).unwrap()).await.unwrap();
    refused("pricing", &named("large:1"), "bytes").await;
    // A file without a good signature beside it is no better.
    let unsigned = at("unsigned.wasm");
    std::fs::copy(&flat, &unsigned).unwrap();
    let output = paygress(&sandbox, &["policy", "swap", "pricing", &unsigned]).await;
    assert!(text(&output.stderr).contains("there is no signature"), "{}", text(&output.stderr));
    printed(&sandbox, &["policy", "sign", &unsigned, "--key", &theirs]).await;
    let output = paygress(&sandbox, &["policy", "swap", "pricing", &unsigned]).await;
    assert!(text(&output.stderr).contains("known key"), "{}", text(&output.stderr));
    assert_eq!(
        printed(&sandbox, &["policy", "history"]).await,
        before,
        "nothing of that was activated"
    );

    // Signed: it is taken, and the pinned one stays what it was when the tag is moved.
    let pinned = push(&surge, "surge:1", Some(&ours)).await;
    assert!(pinned.contains("surge:1@sha256:"), "{pinned}");
    assert!(swap("pricing", &named("surge:1")).await.status.success());
    let surge_digest = Digest::of(&std::fs::read(&surge).unwrap()).hex();
    assert!(
        surge_digest.starts_with(&pricing_digest(&printed(&sandbox, &["policy", "history"]).await))
    );
    push(&built("plugins/pricing.wasm"), "surge:1", Some(&ours)).await;
    assert!(
        swap("pricing", &named("surge:1")).await.status.success(),
        "the tag leads to another one now"
    );
    assert!(
        !surge_digest
            .starts_with(&pricing_digest(&printed(&sandbox, &["policy", "history"]).await))
    );
    assert!(swap("pricing", &pinned).await.status.success());
    assert!(
        surge_digest.starts_with(&pricing_digest(&printed(&sandbox, &["policy", "history"]).await))
    );

    // There and back, and what it is.
    let back = at("back.wasm");
    printed(&sandbox, &["policy", "pull", &pinned, &back]).await;
    assert_eq!(std::fs::read(&back).unwrap(), std::fs::read(&surge).unwrap());
    let output = printed(
        &sandbox,
        &["policy", "inspect", &format!("oci://{pinned}"), "--key", &ours_public],
    )
    .await;
    for part in [
        &surge_digest[..],
        "slot       pricing, contract 1.1.0",
        "good, by",
        "paygress:policy/types@1.1.0",
    ] {
        assert!(output.contains(part), "{part}: {output}");
    }
    let output =
        printed(&sandbox, &["policy", "inspect", &unsigned, "--key", &theirs_public]).await;
    assert!(output.contains("good, by"), "{output}");
    let output = printed(&sandbox, &["policy", "inspect", &unsigned, "--key", &ours_public]).await;
    assert!(output.contains("not good"), "{output}");
    push(&built("plugins/pricing.wasm"), "unsigned:2", None).await;
    let replay =
        ["policy", "replay", "--since", "1d", "pricing", &format!("oci://{}", named("unsigned:2"))];
    assert!(text(&paygress(&sandbox, &replay).await.stderr).contains("there is no signature"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_elsewhere_is_spoken_to_by_tls_and_must_have_a_certificate_that_the_system_trusts()
 {
    let directory = tempfile::tempdir().unwrap();
    // An address of this machine that looks external: only loopback ones work without TLS.
    let name = "::ffff:127.0.0.1";
    let (private, public) = certificate(directory.path(), name);
    let registry =
        TestRegistry::open_tls(&std::fs::read(&public).unwrap(), &std::fs::read(&private).unwrap())
            .await
            .unwrap();
    let reference =
        registry.host().replace("127.0.0.1", &format!("[{name}]")) + "/policies/pricing:1";
    let component = built("plugins/pricing.wasm").to_string_lossy().into_owned();
    let push = ["policy", "push", &component, &reference];

    let wary = Sandbox::new(&[], "").await.unwrap();
    let output = paygress(&wary, &push).await;
    assert!(
        !output.status.success() && text(&output.stderr).contains("certificate"),
        "{}",
        text(&output.stderr)
    );
    assert!(registry.take_requests().is_empty());

    let sandbox = Sandbox::new(&[("SSL_CERT_FILE", &public)], "").await.unwrap();
    let pinned = printed(&sandbox, &push).await;
    let back = directory.path().join("back.wasm").to_string_lossy().into_owned();
    printed(&sandbox, &["policy", "pull", pinned.trim(), &back]).await;
    assert_eq!(std::fs::read(&back).unwrap(), std::fs::read(&component).unwrap());
}

/// The same component, written for a version of the contract that is not there yet.
fn newer_contract(component: &[u8]) -> Vec<u8> {
    let (old, new) = (b"@1.0.0", b"@1.9.0");
    let mut bytes = component.to_vec();
    for start in 0..bytes.len() - old.len() {
        if bytes[start..].starts_with(old) {
            bytes[start..start + old.len()].copy_from_slice(new);
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn with_required_signatures_the_service_does_not_start_without_them() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, ours_public) = key(directory.path(), "ours");
    let environment = |wanted: &'static str| {
        [
            ("POLICY_KEYS".to_owned(), ours_public.clone()),
            ("POLICY_SIGNATURES".to_owned(), wanted.to_owned()),
        ]
    };
    let sandbox = async |wanted| {
        let environment = environment(wanted);
        let pairs: Vec<(&str, &str)> =
            environment.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        Sandbox::new(&pairs, "").await.unwrap()
    };
    let strict = sandbox("required").await;
    let error = format!("{:#}", strict.app().await.err().unwrap());
    assert!(
        Slot::ALL.iter().all(|slot| error.contains(&format!("{slot}.wasm")))
            && error.contains("no signature"),
        "all at once: {error}"
    );
    assert!(sandbox("warn").await.app().await.is_ok());
    assert!(sandbox("off").await.app().await.is_ok());

    // A signature that comes later is seen, and so is one that does not fit what it lies beside.
    write_policy_dir(&strict, directory.path(), &ours).await;
    let policy_dir = directory.path().to_string_lossy().into_owned();
    let sandbox = Sandbox::new(&[("POLICY_DIR", &policy_dir), ("POLICY_KEYS", &ours_public)], "")
        .await
        .unwrap();
    let app = sandbox.app().await.unwrap();
    let file = directory.path().join("pricing.wasm");
    std::fs::copy(built("plugins-examples/flat-price.wasm"), &file).unwrap();
    let revisions = |looks: usize| {
        (0..looks).for_each(|_| app.policies.poll_policy_dir());
        app.policies.history().len()
    };
    assert_eq!(revisions(3), 1, "the signature is the old component's");
    printed(&sandbox, &["policy", "sign", &file.to_string_lossy(), "--key", &ours]).await;
    assert_eq!(revisions(3), 2);
}
