//! Fuzz targets: one function for each parser of untrusted bytes. It panics when the parser breaks
//! a promise.
//!
//! ```text
//! libFuzzer ─▶ bin/{token,message,template,component}.rs ─▶ a function here ─▶ the crate's parser
//! ```
//!
//! The seeds of the corpus are in `seeds/`. Run a target with `cargo xtask fuzz`.
//!
//! ```
//! paygress_fuzz::message(br#"{"cashu_token": "cashuB", "duration_minutes": 5}"#);
//! ```
#![allow(clippy::panic, clippy::expect_used, reason = "a fuzz target reports by panicking")]

use paygress_cashu::{CashuWallet, Seed, Settings, WalletStore};
use paygress_cluster::guard::{Allowed, check};
use paygress_core::backend::policy::{Placement, Rendered, Resources, Slot};
use paygress_core::backend::wallet::TokenReader;
use paygress_core::model::access::AccessModes;
use paygress_core::model::ids::{ImageRef, MintUrl};
use paygress_core::model::secret::Secret;
use paygress_core::protocol::{self, Request};
use paygress_policy::{Host, PolicyDir, PolicyEngine, Source, Sources};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The mint of the tokens in `seeds/`.
pub const MINT: &str = "https://mint.example";

/// A Cashu token: a decoded token keeps to the limits, a refusal has a message.
pub fn token(bytes: &[u8]) {
    thread_local! {
        static WALLET: OnceCell<(CashuWallet, tokio::runtime::Runtime, tempfile::TempDir)> = const { OnceCell::new() };
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    WALLET.with(|wallet| {
        let (wallet, runtime, _) = wallet.get_or_init(|| {
            let directory = tempfile::tempdir().expect("a directory");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let wallet_store = runtime
                .block_on(WalletStore::sqlite(&directory.path().join("wallet")))
                .expect("a wallet store");
            let seed = runtime
                .block_on(Seed::load_or_create(&directory.path().join("mnemonic")))
                .expect("a seed");
            let settings = Settings {
                mints: vec![MintUrl::parse(MINT).expect("the URL of a mint")],
                max_balance: None,
                p2pk_secret_key: Some(Secret::new("7".repeat(64))),
            };
            let wallet = runtime
                .block_on(CashuWallet::open(wallet_store, seed, &settings))
                .expect("a wallet");
            (wallet, runtime, directory)
        });
        match runtime.block_on(wallet.decode(&Secret::new(text))) {
            Ok(token_info) => {
                assert_eq!(token_info.mint.as_str(), MINT);
                assert!(
                    token_info.gross.0 > 0
                        && token_info.gross.0 <= paygress_core::limits::TOKEN_SAT
                );
                assert!((1..=paygress_core::limits::TOKEN_PROOFS).contains(&token_info.ys.len()));
            }
            Err(refusal) => assert!(!refusal.message.is_empty()),
        }
        // The same bytes as the payload of a payment request (NUT-18).
        match runtime.block_on(wallet.token_from_payload(text)) {
            Ok(token) => drop(runtime.block_on(wallet.decode(&token))),
            Err(refusal) => assert!(!refusal.message.is_empty()),
        }
    });
}

/// The text of a message: a user name has no character that a shell interprets, and a refusal never
/// quotes a token.
pub fn message(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = protocol::is_response(text);
    match Request::parse(text) {
        Ok(Request::Buy {
            purchase: paygress_core::model::order::Purchase::Spawn { username, .. },
            token,
            ..
        }) => {
            let username = username.as_str();
            assert!(
                username.bytes().all(|c| c.is_ascii_lowercase()
                    || c.is_ascii_digit()
                    || c == b'_'
                    || c == b'-')
            );
            assert!(username != "root" && !username.starts_with('-'));
            assert!(
                token
                    .is_none_or(|token| token.expose().len() <= paygress_core::limits::TOKEN_BYTES)
            );
        }
        Ok(_) => {}
        Err(refusal) => {
            let tokens = text
                .match_indices("cashuB")
                .filter_map(|(at, _)| text.get(at..at.saturating_add(16)));
            tokens.for_each(|token| {
                assert!(!refusal.message.contains(token), "a token is quoted: {}", refusal.message)
            });
        }
    }
    // The same bytes as the content of a seal (NIP-59).
    let _ = paygress_nostr::gift_wrap::parse_decrypted(text);
}

/// A rendered template: a pod that passes the guard has no access to the host.
pub fn template(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let placement = Placement {
        pod_name: "ssh-pod-a".to_owned(),
        image: ImageRef::parse("example.com/ssh:1").expect("an image"),
        resources: Resources { cpu_millicores: 500, memory_mib: 64 },
        host_port: Some(31_000),
        access: AccessModes::default(),
        container_port: 2_222,
        secret_name: "ssh-pod-a".to_owned(),
        secret_mount_path: "/run/paygress/login".to_owned(),
    };
    let (template, services) = text.split_once('\n').unwrap_or((text, ""));
    let services_json = services.lines().take(4).map(str::to_owned).collect();
    let rendered = Rendered { pod_template_json: template.to_owned(), services_json, egress: None };
    let Ok(checked) = check(&rendered, &placement, &Allowed::default()) else { return };
    let spec = checked.template.spec.expect("a pod has a spec");
    assert!(spec.host_network.is_none() && spec.host_pid.is_none() && spec.host_ipc.is_none());
    assert!(
        spec.service_account_name.is_none()
            && spec.node_name.is_none()
            && spec.init_containers.is_none()
    );
    assert_eq!(spec.automount_service_account_token, Some(false));
    for volume in spec.volumes.iter().flatten() {
        assert!(
            volume.host_path.is_none()
                && volume.projected.is_none()
                && (volume.empty_dir.is_some() != volume.secret.is_some())
        );
    }
    let [container] = spec.containers.as_slice() else { panic!("one container") };
    assert_eq!(container.image.as_deref(), Some("example.com/ssh:1"));
    let security = container.security_context.as_ref().expect("a security context");
    assert_eq!(
        (security.privileged, security.allow_privilege_escalation, security.run_as_non_root),
        (Some(false), Some(false), Some(true))
    );
    assert!(
        container
            .ports
            .iter()
            .flatten()
            .all(|port| port.host_port.is_none_or(|port| port == 31_000))
    );
}

/// A component: it is loaded, or rejected with a reason; the host keeps working either way.
pub fn component(bytes: &[u8]) {
    thread_local! {
        static HOST: OnceCell<Arc<Host>> = const { OnceCell::new() };
    }
    HOST.with(|host| {
        let host = host.get_or_init(|| {
            let plugins = std::env::var("FUZZ_PLUGINS")
                .expect("FUZZ_PLUGINS is the directory of the default policies");
            let sources = PolicyDir::new(plugins.into(), BTreeMap::new())
                .sources()
                .expect("the policies are built");
            Host::load(PolicyEngine::start(None).expect("a policy engine"), &sources)
                .expect("the default policies load")
        });
        if let Err(rejected) =
            host.swap(&Sources::from([(Slot::Pricing, Source::plain(bytes.to_vec()))]), || Ok(()))
        {
            assert!(!rejected.to_string().is_empty());
        }
    });
}
