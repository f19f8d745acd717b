//! Policies from a registry: pushed, signed, pulled, and rejected for every possible reason.

use crate::support::command::{built, paygress, printed, published, text};
use crate::support::customer::{Buyer, Running};
use crate::support::keys::{certificate, key, write_signed_policies};
use paygress::sandbox::Sandbox;
use paygress_core::backend::policy::Slot;
use paygress_oci::testing::{RequiredAuth, TestRegistry};
use paygress_oci::{Digest, Package, Reference, Registry, SigningKey};
use serde_json::json;
use std::collections::BTreeMap;
use std::process::Output;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

fn pricing_digest(history: &str) -> String {
    let last = history.lines().rfind(|line| line.contains("pricing ")).unwrap();
    last.split("pricing ").nth(1).unwrap().chars().take(12).collect()
}

/// A service that accepts components of one key, and a registry.
struct Session {
    sandbox: Sandbox,
    _running: Running,
    registry: TestRegistry,
    directory: TempDir,
    /// Files of the private and the public key.
    ours: (String, String),
    theirs: (String, String),
}

impl Session {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (ours, theirs) = (key(directory.path(), "ours"), key(directory.path(), "theirs"));
        write_signed_policies(directory.path(), &ours.0);
        let policy_dir = directory.path().to_string_lossy().into_owned();
        let settings = [("POLICY_DIR", policy_dir.as_str()), ("POLICY_KEYS", &ours.1)];
        let sandbox = Sandbox::new(&settings, "").await.unwrap();
        let running = Running::start(sandbox.app().await.unwrap());
        let registry = TestRegistry::open(RequiredAuth::None).await.unwrap();
        Self { sandbox, _running: running, registry, directory, ours, theirs }
    }

    fn at(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    fn named(&self, name: &str) -> String {
        format!("{}/policies/{name}", self.registry.host())
    }

    /// Gives the reference with its digest.
    async fn push(&self, file: &str, name: &str, sign: Option<&str>) -> String {
        let reference = self.named(name);
        let mut arguments = vec!["policy", "push", file, &reference];
        arguments.extend(sign.iter().flat_map(|key| ["--sign", *key]));
        printed(&self.sandbox, &arguments).await.trim().to_owned()
    }

    async fn swap(&self, slot: &str, reference: &str) -> Output {
        let source = format!("oci://{reference}");
        paygress(&self.sandbox, &["policy", "swap", slot, &source]).await
    }

    async fn refused(&self, slot: &str, reference: &str, why: &str) {
        let output = self.swap(slot, reference).await;
        assert!(
            !output.status.success() && text(&output.stderr).contains(why),
            "{why}: {}",
            text(&output.stderr)
        );
    }

    async fn history(&self) -> String {
        printed(&self.sandbox, &["policy", "history"]).await
    }

    /// A component that is larger than the service takes, signed.
    async fn push_large(&self) -> String {
        let large = vec![0; (32 << 20) + 1];
        let client = Registry::new(None).unwrap();
        let reference: Reference = self.named("large:1").parse().unwrap();
        let package = Package {
            component: &large,
            exports: &[],
            imports: &[],
            author: None,
            created: None,
            annotations: &BTreeMap::new(),
        };
        let digest = client.push(&reference, &package).await.unwrap();
        let pem = std::fs::read_to_string(&self.ours.0).unwrap();
        client.sign(&reference, &digest, &SigningKey::from_pem(&pem).unwrap()).await.unwrap();
        self.named("large:1")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_from_a_registry_are_accepted_when_a_known_key_signed_them() {
    let session = Session::new().await;
    let before = session.history().await;
    others_are_refused(&session).await;
    let unsigned = unsigned_file_is_refused(&session).await;
    assert_eq!(session.history().await, before, "nothing of that was activated");
    let pinned = signed_ones_are_accepted(&session).await;
    they_are_pulled_and_inspected(&session, &pinned, &unsigned).await;

    session.push(&built("plugins/pricing.wasm"), "unsigned:2", None).await;
    let unsigned = format!("oci://{}", session.named("unsigned:2"));
    let replay = ["policy", "replay", "--since", "1d", "pricing", &unsigned];
    let replayed = paygress(&session.sandbox, &replay).await;
    assert!(text(&replayed.stderr).contains("there is no signature"));
}

/// Each with its reason.
async fn others_are_refused(session: &Session) {
    let flat = built("plugins-examples/flat-price.wasm");
    let ours = Some(session.ours.0.as_str());
    session.push(&flat, "unsigned:1", None).await;
    session.push(&flat, "theirs:1", Some(&session.theirs.0)).await;
    session.push(&flat, "images:1", ours).await;
    let newer = session.at("newer.wasm");
    std::fs::write(&newer, newer_contract(&std::fs::read(&flat).unwrap())).unwrap();
    session.push(&newer, "newer:1", ours).await;
    for (slot, reference, why) in [
        ("pricing", session.named("unsigned:1"), "there is no signature"),
        ("pricing", session.named("theirs:1"), "known key"),
        ("images", session.named("images:1"), "slot pricing"),
        ("pricing", session.named("newer:1"), "1.9.0"),
        ("pricing", session.named("nowhere:1"), "is not there"),
        ("pricing", "no reference".to_owned(), "registry is missing"),
        ("pricing", session.push_large().await, "bytes"),
    ] {
        session.refused(slot, &reference, why).await;
    }
    let pinned = session.push(&flat, "tampered:1", ours).await;
    session.registry.replace_blob(&Digest::of(&std::fs::read(&flat).unwrap()), b"something else");
    session.refused("pricing", &pinned, "tampered").await;
}

/// A file without a good signature beside it is no better. Gives its name; it is signed with their
/// key.
async fn unsigned_file_is_refused(session: &Session) -> String {
    let unsigned = session.at("unsigned.wasm");
    std::fs::copy(built("plugins-examples/flat-price.wasm"), &unsigned).unwrap();
    let swap = ["policy", "swap", "pricing", &unsigned];
    let output = paygress(&session.sandbox, &swap).await;
    assert!(text(&output.stderr).contains("there is no signature"), "{}", text(&output.stderr));
    let sign = ["policy", "sign", &unsigned, "--key", &session.theirs.0];
    printed(&session.sandbox, &sign).await;
    let output = paygress(&session.sandbox, &swap).await;
    assert!(text(&output.stderr).contains("known key"), "{}", text(&output.stderr));
    unsigned
}

/// The pinned one stays what it was when the tag is moved. Gives its reference.
async fn signed_ones_are_accepted(session: &Session) -> String {
    let (surge, ours) = (built("plugins-examples/surge-price.wasm"), Some(session.ours.0.as_str()));
    let digest = Digest::of(&std::fs::read(&surge).unwrap()).hex();
    let is_surge = async || digest.starts_with(&pricing_digest(&session.history().await));
    let pinned = session.push(&surge, "surge:1", ours).await;
    assert!(pinned.contains("surge:1@sha256:"), "{pinned}");
    assert!(session.swap("pricing", &session.named("surge:1")).await.status.success());
    assert!(is_surge().await);
    session.push(&built("plugins/pricing.wasm"), "surge:1", ours).await;
    assert!(
        session.swap("pricing", &session.named("surge:1")).await.status.success(),
        "the tag leads to another one now"
    );
    assert!(!is_surge().await);
    assert!(session.swap("pricing", &pinned).await.status.success());
    assert!(is_surge().await);
    pinned
}

async fn they_are_pulled_and_inspected(session: &Session, pinned: &str, unsigned: &str) {
    let (back, surge) = (session.at("back.wasm"), built("plugins-examples/surge-price.wasm"));
    let surge = std::fs::read(surge).unwrap();
    printed(&session.sandbox, &["policy", "pull", pinned, &back]).await;
    assert_eq!(std::fs::read(&back).unwrap(), surge);
    let inspect = async |component: &str, key: &str| {
        printed(&session.sandbox, &["policy", "inspect", component, "--key", key]).await
    };
    let output = inspect(&format!("oci://{pinned}"), &session.ours.1).await;
    for part in [
        &Digest::of(&surge).hex()[..],
        "slot       pricing, contract 1.3.0",
        "good, by",
        "paygress:policy/types@1.3.0",
    ] {
        assert!(output.contains(part), "{part}: {output}");
    }
    let output = inspect(unsigned, &session.theirs.1).await;
    assert!(output.contains("good, by"), "{output}");
    let output = inspect(unsigned, &session.ours.1).await;
    assert!(output.contains("not good"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_recomputed_in_components_of_a_registry() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let app = sandbox.app().await.unwrap();
    let directory = published(&sandbox, &app.policies);
    let _running = Running::start(app);
    let buyer = Buyer::new(&sandbox).await;
    let answer = buyer.ask(json!({"cashu_token": buyer.token(9).await})).await;
    let file = sandbox.directory.path().join("answer.json").to_string_lossy().into_owned();
    std::fs::write(&file, answer.to_string()).unwrap();
    let registry = TestRegistry::open(RequiredAuth::None).await.unwrap();
    let mut verify = vec!["receipt".to_owned(), "verify".to_owned(), file];
    for slot in [Slot::Images, Slot::Pricing, Slot::Duration] {
        let component = format!("{directory}/{slot}.wasm");
        let reference = format!("{}/policies/{slot}:1", registry.host());
        printed(&sandbox, &["policy", "push", &component, &reference]).await;
        verify.extend(["--components".to_owned(), format!("oci://{reference}")]);
        verify.extend(["--settings".to_owned(), format!("{slot}={directory}/{slot}.json")]);
    }
    let verify: Vec<&str> = verify.iter().map(String::as_str).collect();
    let verified = printed(&sandbox, &verify).await;
    assert!(verified.contains("price, time, refund terms: recomputed"), "{verified}");
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
    let component = built("plugins/pricing.wasm");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_elsewhere_is_reached_through_the_proxy_of_the_environment() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.local_addr().unwrap();
    let connect = tokio::spawn(async move {
        let (client, _) = proxy.accept().await.unwrap();
        let (reading, mut writing) = client.into_split();
        let mut request = BufReader::new(reading).lines();
        let first = request.next_line().await.unwrap().unwrap();
        while request.next_line().await.unwrap().is_some_and(|line| !line.is_empty()) {}
        writing.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await.unwrap();
        first
    });
    let component = built("plugins/pricing.wasm");
    let push = ["policy", "push", &component, "registry.example/policies/pricing:1"];
    let url = format!("http://user:secret@{address}");
    let sandbox = Sandbox::new(&[("HTTPS_PROXY", &url)], "").await.unwrap();
    let output = paygress(&sandbox, &push).await;
    let error = text(&output.stderr);
    assert_eq!(connect.await.unwrap(), "CONNECT registry.example:443 HTTP/1.1");
    let expected =
        format!("registry.example cannot be reached: the proxy {address} does not connect");
    assert!(error.contains(&expected) && !error.contains("secret"), "{error}");
}

/// The same component, written for a version of the contract that is not there yet.
fn newer_contract(component: &[u8]) -> Vec<u8> {
    let (old, new) = (b"@1.3.0", b"@1.9.0");
    let mut bytes = component.to_vec();
    for start in 0..bytes.len() {
        if bytes[start..].starts_with(old) {
            bytes[start..][..old.len()].copy_from_slice(new);
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
    write_signed_policies(directory.path(), &ours);
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
