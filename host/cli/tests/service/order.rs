//! `paygress order` and `paygress keys`, as a customer types them.

use crate::support::customer::{Buyer, Running};
use paygress::sandbox::Sandbox;
use paygress_nostr::npub;
use paygress_sandbox::free_port;
use serde_json::Value;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

pub(super) async fn paygress(sandbox: &Sandbox, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paygress"));
    command.args(arguments).env_clear().env("NOSTR_RELAYS", sandbox.relay.url().await.to_string());
    command.env("PAYGRESS_CUSTOMER_KEY_FILE", sandbox.directory.path().join("customer/key"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let run = move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_finds_the_offer_buys_extends_and_asks() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let buyer = Buyer::new(&sandbox).await;
    let begun = Instant::now();
    let offers = loop {
        let offers = text(&paygress(&sandbox, &["order", "offers"], "").await.stdout);
        if offers.contains("npub1") || begun.elapsed() > crate::support::customer::TIMEOUT {
            break offers;
        }
    };
    let tier = "1000 msat for 60 s  1 CPU, 1 GiB of memory, SSH";
    for part in ["basic", tier, "images: paygress.local/ssh:1", sandbox.mint.url()] {
        assert!(offers.contains(part), "{part}: {offers}");
    }

    let bought = paygress(
        &sandbox,
        &["order", "spawn", "--token", "-", "--username", "alice", "--json"],
        &buyer.token(5).await,
    )
    .await;
    assert!(bought.status.success(), "{}", text(&bought.stderr));
    let answer: Value = serde_json::from_slice(&bought.stdout).unwrap();
    let pod = answer["pod_name"].as_str().unwrap();
    let plain =
        paygress(&sandbox, &["order", "spawn", "--token", "-"], &buyer.token(5).await).await;
    let plain = text(&plain.stdout);
    assert!(
        plain.starts_with("ssh -p ") && plain.contains("user@127.0.0.1\npassword: "),
        "{plain}"
    );

    let more =
        paygress(&sandbox, &["order", "top-up", pod, "--token", "-"], &buyer.token(3).await).await;
    assert!(
        text(&more.stdout).contains("extended by 120 seconds"),
        "{}{}",
        text(&more.stdout),
        text(&more.stderr)
    );
    let status = text(&paygress(&sandbox, &["order", "status", pod], "").await.stdout);
    assert!(status.starts_with(&format!("{pod}: running, ")), "{status}");

    let refused = paygress(&sandbox, &["order", "spawn", "--token", "cashuBnothing"], "").await;
    assert_eq!((refused.status.code(), text(&refused.stdout).as_str()), (Some(1), ""));
    assert!(text(&refused.stderr).starts_with("invalid_token: "), "{}", text(&refused.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_kept_until_the_budget_is_spent() {
    let settings = [("PAYMENT_RATE_SATS_PER_HOUR", "3600")];
    let sandbox =
        Sandbox::new(&settings, "[policy.duration]\nminimum_seconds = 5\n").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let buyer = Buyer::new(&sandbox).await;
    let service = sandbox.config.keys.public_key().to_hex();
    let spawn = ["order", "--service", &service, "spawn", "--token", "-", "--json"];
    let bought = paygress(&sandbox, &spawn, &buyer.token(30).await).await;
    let answer: Value = serde_json::from_slice(&bought.stdout).unwrap();
    let pod = answer["pod_name"].as_str().unwrap();
    let mut tokens = String::new();
    for _ in 0..3 {
        tokens.push_str(&buyer.token(20).await);
        tokens.push('\n');
    }
    // Less than a minute is left each time: the next token is sent at once.
    let keep = ["order", "--service", &service, "keep", pod, "--tokens", "-", "--budget", "50"];
    let kept = paygress(&sandbox, &keep, &tokens).await;
    let (printed, notes) = (text(&kept.stdout), text(&kept.stderr));
    assert_eq!(kept.status.code(), Some(0), "{notes}");
    assert_eq!(printed.matches("extended by ").count(), 2, "{printed}");
    let spent = "what is left of the budget pays for none of the tokens: 40 sat of 50 sat spent";
    assert!(notes.contains(spent), "{notes}");
    assert!(notes.contains("20 sat in tokens that were not sent"), "{notes}");
    let record = sandbox.directory.path().join(format!("customer/keep-{pod}.json"));
    let record: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    let states: Vec<_> = record["tokens"].as_array().unwrap().iter().map(|t| &t["state"]).collect();
    assert_eq!(states, ["used", "used", "unused"]);
    // Without tokens those of the record are sent; and a pod that is over ends it.
    paygress(&sandbox, &["order", "--service", &service, "stop", pod], "").await;
    let status = paygress(&sandbox, &["order", "--service", &service, "status", pod], "").await;
    let first = format!("{pod}: ended (stopped)\n");
    assert!(text(&status.stdout).starts_with(&first), "{}", text(&status.stdout));
    let keep = ["order", "--service", &service, "keep", pod, "--budget", "100"];
    let ended = paygress(&sandbox, &keep, "").await;
    assert_eq!(ended.status.code(), Some(4), "{}", text(&ended.stderr));
    assert!(text(&ended.stdout).contains("ended (stopped)"), "{}", text(&ended.stdout));
}

/// Pastes a printed command into a shell, with the customer's key.
async fn ssh(command: &str, key: &Path) -> Output {
    let key = key.display();
    let options = format!(
        "ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o GlobalKnownHostsFile=/dev/null -i {key} "
    );
    let line = format!("{} 'echo so says $USER'", command.replacen("ssh ", &options, 1));
    let run = move || Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).output().unwrap();
    tokio::task::spawn_blocking(run).await.unwrap()
}

pub(super) fn generate_key(file: &Path) {
    let options = ["-q", "-t", "ed25519", "-N", "", "-f"];
    let made = Command::new("ssh-keygen").args(options).arg(file).stdin(Stdio::null()).status();
    assert!(made.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_login_is_strict_also_on_a_port_that_was_another_pods() {
    let port = free_port().unwrap().to_string();
    let ports = [("SSH_PORT_RANGE_START", port.as_str()), ("SSH_PORT_RANGE_END", port.as_str())];
    let sandbox = Sandbox::new(&ports, "").await.unwrap();
    let _running = Running::start(sandbox.app().await.unwrap());
    let buyer = Buyer::new(&sandbox).await;
    let (key, service) = (sandbox.directory.path().join("id"), npub(&buyer.service));
    generate_key(&key);
    let public = format!("{}.pub", key.display());
    let known_hosts = sandbox.directory.path().join("customer/known_hosts");
    let buy = async || {
        let spawn = ["order", "spawn", "--service", &service, "--token", "-"];
        let login = ["--username", "alice", "--public-key", &public];
        let arguments: Vec<&str> = spawn.into_iter().chain(login).collect();
        let bought = paygress(&sandbox, &arguments, &buyer.token(5).await).await;
        let printed = text(&bought.stdout);
        assert!(bought.status.success(), "{printed}{}", text(&bought.stderr));
        assert!(!printed.contains("password"), "{printed}");
        let command = printed.lines().next().unwrap().to_owned();
        let pod = printed.lines().last().unwrap().split(' ').next().unwrap().to_owned();
        let file = known_hosts.join(&pod);
        let strict =
            format!("-o StrictHostKeyChecking=yes -o UserKnownHostsFile={}", file.display());
        assert_eq!(command, format!("ssh -p {port} {strict} alice@127.0.0.1"));
        let done = ssh(&command, &key).await;
        assert_eq!(text(&done.stdout), "so says alice\n", "{}", text(&done.stderr));
        (pod, command, file)
    };
    let (pod, command, file) = buy().await;
    let status = ["order", "status", "--service", &service, &pod];
    let status = text(&paygress(&sandbox, &status, "").await.stdout);
    assert!(status.contains(&command), "{status}");
    let of_first = std::fs::read(&file).unwrap();
    let stop = ["order", "stop", "--service", &service, &pod];
    assert!(paygress(&sandbox, &stop, "").await.status.success());
    assert!(!file.exists(), "the keys of a pod that is over are forgotten");

    // Whoever still means the first pod does not log in to the second one.
    buy().await;
    std::fs::write(&file, of_first).unwrap();
    let refused = ssh(&command, &key).await;
    assert_eq!((refused.status.code(), text(&refused.stdout).as_str()), (Some(255), ""));
    let reason = text(&refused.stderr);
    assert!(reason.contains("REMOTE HOST IDENTIFICATION HAS CHANGED"), "{reason}");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_paygress"));
    let done = command.arg("openapi").env_clear().stdout(writer).output().unwrap();
    assert_eq!((done.status.code(), text(&done.stderr).as_str()), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openapi_document_is_printed() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let printed = paygress(&sandbox, &["openapi"], "").await;
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let app = sandbox.app().await.unwrap();
    let web = crate::support::web::Web::new(app.http_address().unwrap());
    let _running = Running::start(app);
    assert_eq!(web.ask("GET", "/openapi.json", &[], "").await.good(), printed);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_and_all_mistakes_are_printed_at_once() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let keys = text(&paygress(&sandbox, &["keys", "generate"], "").await.stdout);
    let lines: Vec<&str> = keys.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("nsec1") && lines[1].starts_with("npub1"));
    let nobody = paygress(&sandbox, &["order", "status", "ssh-pod-aaaaaaaaaa"], "").await;
    assert!(
        text(&nobody.stderr).contains("no service has an offer on these relays"),
        "{}",
        text(&nobody.stderr)
    );
    let served = paygress(&sandbox, &["serve"], "").await;
    let printed = text(&served.stderr);
    for missing in ["NOSTR_PRIVATE_KEY", "WHITELISTED_MINTS", "SSH_HOST"] {
        assert!(printed.contains(missing), "{printed}");
    }
}

/// Nobody is there who could refuse it.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_read_is_refused_before_a_service_is_looked_for() {
    let sandbox = Sandbox::new(&[], "").await.unwrap();
    let top_up = ["order", "top-up", "ssh-pod-aaaaaaaaaa", "--token"];
    for (command, token, why) in [
        (&["order", "spawn", "--token"][..], "", "not a Cashu token"),
        (&["order", "spawn", "--token"][..], "cashuBx", "incomplete or damaged"),
        (&top_up[..], " ", "not a Cashu token"),
        (&top_up[..], "cashuAx", "incomplete or damaged"),
    ] {
        for (argument, input) in [(token, ""), ("-", token)] {
            let why = match argument {
                "-" if token.trim().is_empty() => "no token on standard input",
                _ => why,
            };
            let refused = paygress(&sandbox, &[command, &[argument]].concat(), input).await;
            let notes = text(&refused.stderr);
            assert_eq!((refused.status.code(), text(&refused.stdout).as_str()), (Some(1), ""));
            assert!(notes.starts_with("invalid_token: ") && notes.contains(why), "{notes}");
        }
        let refused = paygress(&sandbox, &[command, &[token, "--json"]].concat(), "").await;
        let answer: Value = serde_json::from_slice(&refused.stdout).unwrap();
        assert_eq!(answer["error_type"], "invalid_token", "{answer}");
    }
}

/// Whoever has that directory next would have the customer's pods.
#[test]
fn the_key_is_not_made_in_the_working_directory() {
    for given in ["", "config"] {
        let (home, working) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_paygress"));
        command.args(["order", "spawn", "--token", "-"]).env_clear().stdin(Stdio::null());
        command.env("NOSTR_RELAYS", "ws://127.0.0.1:9").current_dir(working.path());
        command.env("XDG_CONFIG_HOME", given).env("HOME", home.path());
        let notes = text(&command.output().unwrap().stderr);
        assert!(notes.contains("no token on standard input"), "{notes}");
        assert!(home.path().join(".config/paygress/customer.key").exists(), "{given}: {notes}");
        assert!(std::fs::read_dir(working.path()).unwrap().next().is_none(), "{given}");
    }
}

#[test]
fn a_log_filter_that_cannot_be_read_is_named() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paygress"));
    command.args(["order", "offers"]).env_clear().env("RUST_LOG", "paygress=loud");
    let done = command.output().unwrap();
    let notes = text(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{notes}");
    assert!(notes.starts_with("paygress: RUST_LOG cannot be read: "), "{notes}");
}

/// Whatever the limits were that it was started with.
#[test]
fn no_command_leaves_a_core_dump() {
    let directory = tempfile::tempdir().unwrap();
    let started = "ulimit -S -c unlimited; exec \"$0\" \"$@\"";
    let mut child = Command::new("/bin/sh")
        .args(["-c", started, env!("CARGO_BIN_EXE_paygress")])
        // It waits for the token.
        .args(["order", "spawn", "--token", "-"])
        .env_clear()
        .env("NOSTR_RELAYS", "ws://127.0.0.1:9")
        .env("PAYGRESS_CUSTOMER_KEY_FILE", directory.path().join("key"))
        .current_dir(directory.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let limits = format!("/proc/{}/limits", child.id());
    let begun = Instant::now();
    loop {
        let limits = std::fs::read_to_string(&limits).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        if core.split_whitespace().filter(|word| *word == "0").count() == 2 {
            break;
        }
        assert!(begun.elapsed() < crate::support::customer::TIMEOUT, "{core}");
        std::thread::yield_now();
    }
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-ABRT", &id]).status().unwrap().success());
    let ended = child.wait().unwrap();
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(6), false));
}
