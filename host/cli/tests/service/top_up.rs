//! `paygress-top-up`, as a customer types it in their pod.

use crate::support::command::text;
use crate::support::customer::{Buyer, Running};
use paygress::sandbox::Sandbox;
use paygress_nostr::{Keys, npub, nsec};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const FOR_OTHERS: &str = "[policy.duration]\nextend_by_others = true\n";

/// A login in a pod: its home and its variables.
struct Shell {
    home: TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Shell {
    async fn new(sandbox: &Sandbox, pod: &str) -> Self {
        let variables = vec![
            ("PAYGRESS_POD", pod.to_owned()),
            ("PAYGRESS_NPUB", npub(&sandbox.config.keys.public_key())),
            ("PAYGRESS_RELAYS", sandbox.relay.url().await.to_string()),
        ];
        Self { home: tempfile::tempdir().unwrap(), variables }
    }

    async fn top_up(&self, arguments: &[&str], input: &str) -> Output {
        // The tests of its own crate have cargo build it beside this crate's.
        let program = Path::new(env!("CARGO_BIN_EXE_paygress")).with_file_name("paygress-nostr");
        assert!(program.exists(), "cargo build --package paygress-pod-nostr");
        let mut command = Command::new(program);
        command.arg("top-up").args(arguments).env_clear().env("HOME", self.home.path());
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_owned();
        let run = move || {
            let mut child = command.spawn().unwrap();
            // It may end without reading it.
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            child.wait_with_output().unwrap()
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    fn directory(&self) -> PathBuf {
        self.home.path().join(".paygress/top-ups")
    }

    fn records(&self) -> Vec<(PathBuf, Value)> {
        let Ok(entries) = std::fs::read_dir(self.directory()) else { return Vec::new() };
        let read = |path: PathBuf| {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            let record = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            (path, record)
        };
        entries.map(|entry| read(entry.unwrap().path())).collect()
    }
}

async fn pod_of(buyer: &Buyer) -> String {
    let bought = buyer.ask(json!({"cashu_token": buyer.token(5).await})).await;
    bought["pod_name"].as_str().unwrap_or_else(|| panic!("{bought}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_pasted_in_a_pod_extends_it() {
    let sandbox = Sandbox::new(&[], FOR_OTHERS).await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let buyer = Buyer::new(&sandbox).await;
    let pod = pod_of(&buyer).await;
    let shell = Shell::new(&sandbox, &pod).await;
    let token = buyer.token(3).await;
    let more = shell.top_up(&[], &format!("cashu:{token}\n")).await;
    let (printed, notes) = (text(&more.stdout), text(&more.stderr));
    assert_eq!(more.status.code(), Some(0), "{notes}");
    let until = printed.strip_prefix("extended by 120 seconds, until ").unwrap_or(&notes);
    let status = buyer.ask(json!({"type": "status", "pod_name": pod})).await;
    assert_eq!(status["expires_at"], until.trim(), "{status}");
    assert!(!notes.contains(&token), "{notes}");
    // The same token by another key, and a text that is none.
    for (input, reason, records) in [
        (token.as_str(), "token_already_spent: ", 2),
        ("cashuBnothing", "invalid_token: ", 3),
        ("hello", "not a Cashu token", 3),
        ("", "there is no token", 3),
    ] {
        let refused = shell.top_up(&[], input).await;
        let notes = text(&refused.stderr);
        assert_eq!((refused.status.code(), text(&refused.stdout).as_str()), (Some(1), ""));
        assert!(notes.contains(reason), "{notes}");
        assert_eq!(shell.records().len(), records, "{reason}");
    }
    let wrong = shell.top_up(&["cashuBsecret"], "").await;
    assert_eq!(wrong.status.code(), Some(1));
    assert!(!text(&wrong.stderr).contains("secret"), "{}", text(&wrong.stderr));
    assert!(shell.records().iter().all(|(_, record)| record["answer"].is_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_buyer_alone_extends_nothing_is_taken() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let buyer = Buyer::new(&sandbox).await;
    let shell = Shell::new(&sandbox, &pod_of(&buyer).await).await;
    let token = buyer.token(3).await;
    let refused = shell.top_up(&[], &token).await;
    let notes = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{notes}");
    for part in ["not_owner: ", "Nothing was taken", "paygress order top-up"] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    buyer.wallet.receive(&token).await.unwrap();
}

/// As after a crash between the record and the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_top_up_without_an_answer_is_sent_again_and_paid_once() {
    let sandbox = Sandbox::new(&[], FOR_OTHERS).await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let buyer = Buyer::new(&sandbox).await;
    let pod = pod_of(&buyer).await;
    let shell = Shell::new(&sandbox, &pod).await;
    let record = json!({
        "key": nsec(&Keys::generate()),
        "service": npub(&buyer.service),
        "relays": [sandbox.relay.url().await.to_string()],
        "pod": pod,
        "token": buyer.token(3).await,
    });
    std::fs::create_dir_all(shell.directory()).unwrap();
    let mut printed = Vec::new();
    for _ in 0..2 {
        let file = shell.directory().join("0123456789abcdef.json");
        std::fs::write(&file, record.to_string()).unwrap();
        let resumed = shell.top_up(&["--resume"], "").await;
        assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed.stderr));
        printed.push(text(&resumed.stdout));
        assert!(shell.records()[0].1["answer"].as_str().unwrap().contains("top_up_response"));
    }
    assert!(printed[0].starts_with("extended by 120 seconds, until "), "{printed:?}");
    assert_eq!(printed[0], printed[1], "it was paid once");
    let nothing = shell.top_up(&["--resume"], "").await;
    assert_eq!((nothing.status.code(), text(&nothing.stdout).as_str()), (Some(0), ""));
    assert!(text(&nothing.stderr).contains("no top-up waits"), "{}", text(&nothing.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_offline_loses_no_token() {
    let sandbox = Sandbox::new(&[], FOR_OTHERS).await.unwrap();
    let buyer = Buyer::new(&sandbox).await;
    let shell = Shell::new(&sandbox, "ssh-pod-abcdefghij").await;
    let token = buyer.token(3).await;
    let unknown = shell.top_up(&["--wait", "1"], &token).await;
    let notes = text(&unknown.stderr);
    assert_eq!((unknown.status.code(), text(&unknown.stdout).as_str()), (Some(2), ""), "{notes}");
    assert!(notes.contains("may have been taken") && notes.contains("--resume"), "{notes}");
    let records = shell.records();
    assert_eq!((records.len(), records[0].1["token"].as_str()), (1, Some(token.as_str())));
    assert!(records[0].1["answer"].is_null());
    // It is back, and there is no such pod.
    let _running = Running::start(sandbox.app().await.unwrap());
    let resumed = shell.top_up(&["--resume"], "").await;
    let notes = text(&resumed.stderr);
    assert_eq!(resumed.status.code(), Some(1), "{notes}");
    assert!(notes.contains("not_found: ") && notes.contains("Nothing was taken"), "{notes}");
    buyer.wallet.receive(&token).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_nostr_it_names_the_way_over_http() {
    let variables = vec![
        ("PAYGRESS_POD", "ssh-pod-abcdefghij".to_owned()),
        ("PAYGRESS_URL", "https://pods.example.com".to_owned()),
    ];
    let shell = Shell { home: tempfile::tempdir().unwrap(), variables };
    let refused = shell.top_up(&[], "cashuBabc").await;
    let notes = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{notes}");
    for part in ["POST https://pods.example.com/top-up-pod", "\"ssh-pod-abcdefghij\""] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    assert!(shell.records().is_empty());
}
