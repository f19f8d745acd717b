//! What an operator does with the policies of a running service: with the program, over the admin
//! socket and through the policy directory.

use crate::support::command::{built, paygress, printed, text};
use crate::support::customer::{Buyer, Running, TIMEOUT};
use paygress::sandbox::Sandbox;
use paygress_core::model::units::UnixTime;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::net::UnixSocket;

fn write(sandbox: &Sandbox, name: &str, what: &Value) -> String {
    let path = sandbox.directory.path().join(name);
    std::fs::write(&path, what.to_string()).unwrap();
    path.to_string_lossy().into_owned()
}

async fn refusal(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = paygress(sandbox, arguments).await;
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{arguments:?}: {}",
        text(&output.stdout)
    );
    text(&output.stderr)
}

/// How many whole minutes an amount in sat buys, or the error type.
pub(super) async fn bought(buyer: &Buyer, sat: u64) -> Value {
    let answer = buyer.ask(json!({"cashu_token": buyer.token(sat).await})).await;
    let Some(expires_at) = answer["expires_at"].as_str() else {
        return answer["error_type"].clone();
    };
    let expires_at: jiff::Timestamp = expires_at.parse().unwrap();
    // A few seconds of it are over.
    json!(
        u64::try_from(expires_at.as_second())
            .unwrap()
            .saturating_sub(UnixTime::now().0)
            .div_ceil(60)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_replaces_compares_and_goes_back() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let buyer = Buyer::new(&sandbox).await;
    assert_eq!(bought(&buyer, 11).await, 10);
    bad_sets_are_refused_whole(&sandbox).await;
    assert_eq!(bought(&buyer, 11).await, 10);

    let (pricing, duration) = (built("plugins/pricing.wasm"), built("plugins/duration.wasm"));
    let dear = priced(&sandbox, "dear.json", &json!({"sats_per_hour": 120}));
    let swap = ["policy", "swap", "pricing", &pricing, "duration", &duration, "--settings", &dear];
    let output = printed(&sandbox, &swap).await;
    assert!(output.contains("operator") && output.contains("pricing "), "{output}");
    assert_eq!(bought(&buyer, 11).await, 5);
    hostile_one_runs_only_as_a_shadow(&sandbox, &buyer).await;

    // A better one is promoted.
    let cheap = priced(&sandbox, "cheap.json", &json!({"sats_per_hour": 30}));
    let start = ["policy", "shadow", "start", "pricing", &pricing, "--settings", &cheap];
    printed(&sandbox, &start).await;
    assert!(printed(&sandbox, &["policy", "promote"]).await.contains("promotion"));
    assert_eq!(bought(&buyer, 11).await, 20);
    orders_so_far_are_replayed(&sandbox).await;

    // Back, and back once more: not to the one that was rolled back.
    printed(&sandbox, &["policy", "rollback"]).await;
    assert_eq!(bought(&buyer, 11).await, 5);
    printed(&sandbox, &["policy", "rollback"]).await;
    assert_eq!(bought(&buyer, 11).await, 10);
    let history = printed(&sandbox, &["policy", "history"]).await;
    assert_eq!(history.lines().count(), 5, "{history}");
    assert!(history.contains("start") && history.contains("rollback"), "{history}");
    let top = printed(&sandbox, &["policy", "top", "--once"]).await;
    assert_eq!(top.lines().count(), 5, "a head and four slots: {top}");
    for (arguments, reason) in [
        (&["rollback", "77"][..], "policy history"),
        (&["swap", "prices", &pricing], "pod-template"),
        (&["swap", "pricing", "/nowhere.wasm"], "/nowhere.wasm"),
    ] {
        let output = refusal(&sandbox, &[&["policy"], arguments].concat()).await;
        assert!(output.contains(reason), "{arguments:?}: {output}");
    }
}

/// The argument of `--settings` for pricing with these.
fn priced(sandbox: &Sandbox, name: &str, settings: &Value) -> String {
    format!("pricing={}", write(sandbox, name, settings))
}

/// Two slots, one of them bad: neither. And all problems at once.
async fn bad_sets_are_refused_whole(sandbox: &Sandbox) {
    let (pricing, images) = (built("plugins/pricing.wasm"), built("plugins/images.wasm"));
    let dear = priced(sandbox, "dear.json", &json!({"sats_per_hour": 120}));
    let swap = ["policy", "swap", "pricing", &pricing, "duration", &images, "--settings", &dear];
    let reason = refusal(sandbox, &swap).await;
    assert!(reason.contains("duration") && reason.contains("images"), "{reason}");
    let wrong = json!({"sats_per_hour": -1, "sats_per_day": 1});
    let wrong = priced(sandbox, "wrong.json", &wrong);
    let swap = ["policy", "swap", "pricing", &pricing, "--settings", &wrong];
    let reason = refusal(sandbox, &swap).await;
    assert!(reason.contains("/sats_per_hour") && reason.contains("/sats_per_day"), "{reason}");
}

async fn hostile_one_runs_only_as_a_shadow(sandbox: &Sandbox, buyer: &Buyer) {
    let hostile = built("plugins-for-tests/hostile.wasm");
    printed(sandbox, &["policy", "shadow", "start", "pricing", &hostile]).await;
    assert_eq!(bought(buyer, 11).await, 5);
    assert_eq!(bought(buyer, 11).await, 5);
    let begun = Instant::now();
    let report = loop {
        let report = printed(sandbox, &["policy", "shadow", "report", "--json"]).await;
        let report: Value = serde_json::from_str(&report).unwrap();
        if report["comparison"]["orders"] == 2 {
            break report;
        }
        assert!(begun.elapsed() < TIMEOUT, "{report}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(report["candidates"][0]["slot"], "pricing");
    let table = printed(sandbox, &["policy", "shadow", "stop"]).await;
    assert!(table.contains("2 orders, 0 of them the same"), "{table}");
    assert!(refusal(sandbox, &["policy", "promote"]).await.contains("policy shadow start"));
}

/// What would the installed pricing have decided? Six were granted, one of them by itself.
async fn orders_so_far_are_replayed(sandbox: &Sandbox) {
    let pricing = built("plugins/pricing.wasm");
    let replay = ["policy", "replay", "--since", "1d", "pricing", &pricing];
    let replayed = printed(sandbox, &[&replay[..], &["--json"]].concat()).await;
    let replayed: Value = serde_json::from_str(&replayed).unwrap();
    assert_eq!((&replayed["orders"], &replayed["same"]), (&json!(6), &json!(1)), "{replayed}");
    assert_eq!(
        (&replayed["differing"]["seconds"], &replayed["income_sat"]),
        (&json!(5), &json!(60))
    );
    let output = printed(sandbox, &replay).await;
    assert!(
        output.contains("6 orders, 1 of them the same") && output.contains("sold, in seconds"),
        "{output}"
    );
    let yesterday = ["policy", "replay", "--since", "yesterday", "pricing", &pricing];
    assert!(refusal(sandbox, &yesterday).await.contains("7d"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_where_no_service_has_run_names_the_setting() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let pricing = built("plugins/pricing.wasm");
    let replay = ["policy", "replay", "--since", "1d", "pricing", &pricing];
    let reason = refusal(&sandbox, &replay).await;
    assert!(reason.contains(" yet; set POLICY_STATE_DIR, or run this in"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_in_the_directory_is_active_a_moment_later() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for slot in ["images", "pricing", "duration", "pod-template"] {
        std::fs::copy(built(&format!("plugins/{slot}.wasm")), at(&format!("{slot}.wasm"))).unwrap();
    }
    let sandbox =
        Sandbox::new(&[("POLICY_DIR", &directory.path().to_string_lossy())], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let buyer = Buyer::new(&sandbox).await;
    assert_eq!(bought(&buyer, 11).await, 10);
    let changed = async |file: PathBuf, to: &str, revisions: usize| {
        std::fs::copy(built(to), file).unwrap();
        let begun = Instant::now();
        while printed(&sandbox, &["policy", "history"]).await.lines().count() < revisions {
            assert!(begun.elapsed() < TIMEOUT, "the change was not seen");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    changed(at("pricing.wasm"), "plugins-examples/flat-price.wasm", 2).await;
    assert_ne!(bought(&buyer, 11).await, 10);
    assert!(printed(&sandbox, &["policy", "history"]).await.contains("policy-dir"));
    // A rejected file changes nothing, and a good one after it is accepted.
    std::fs::write(at("pricing.wasm"), "no component").unwrap();
    assert_ne!(bought(&buyer, 11).await, 10);
    changed(at("pricing.wasm"), "plugins/pricing.wasm", 3).await;
    assert_eq!(bought(&buyer, 11).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_socket_is_private_and_refuses_malformed_requests() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let socket = sandbox.config.admin_socket.clone();
    assert!(refusal(&sandbox, &["policy", "history"]).await.contains("is it running"));
    // A stale socket of a killed process is replaced; anything else is not. This one never listens: a
    // child of another test that has a copy of it does not keep it from being stale.
    UnixSocket::new_stream().unwrap().bind(&socket).unwrap();
    let running = Running::start(sandbox.app().await.unwrap());
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let error = sandbox.app().await.err().map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(!error.is_empty(), "a second service at the same place");
    let say = |bytes: Vec<u8>| {
        let socket = socket.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(socket).unwrap();
            // It may have hung up before the end.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut output = String::new();
            stream.read_to_string(&mut output).unwrap();
            output
        })
    };
    let part = |slot: &str, bytes: u64| json!({"slot": slot, "bytes": bytes, "settings": null});
    let swap = |parts: Vec<Value>| format!("{}\n", json!({"swap": parts})).into_bytes();
    for (bytes, reason) in [
        (b"hello\n".to_vec(), "cannot be read"),
        (b"{\"history\"".to_vec(), "one line"),
        (vec![b' '; 600_000], "one line"),
        (swap(vec![part("pricing", 1 << 40)]), "may have"),
        (swap(vec![part("pricing", 1_000)]), "cut short"),
        (swap(vec![part("prices", 0)]), "cannot be read"),
        (swap(vec![part("pricing", 0), part("pricing", 0)]), "named twice"),
        (swap(vec![part("pricing", 0); 5]), "four slots"),
        (swap(Vec::new()), "name a slot"),
        (swap(vec![part("pricing", 0)]), "pricing"),
    ] {
        let output = say(bytes).await.unwrap();
        assert!(output.contains("refused") && output.contains(reason), "{reason}: {output}");
    }
    // It still answers.
    assert_eq!(printed(&sandbox, &["policy", "history"]).await.lines().count(), 1);
    drop(running);
}
