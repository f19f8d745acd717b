//! Programs and terminals.

use crate::login::with_options;
use crate::server::{PASSWORD, Server, finished, output, text};
use paygress_sshd::client::{Client, HostKeyCheck, TerminalInput, WindowSize};
use russh::{ChannelMsg, Sig};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

#[tokio::test(flavor = "multi_thread")]
async fn commands_have_their_streams_status_and_environment() {
    let server = Server::start(None).await;
    let mut command = server.ssh("alice", PASSWORD);
    command.arg("echo out; echo err >&2; echo $USER $HOME; exit 42");
    let done = output(command).await;
    assert_eq!(text(&done.stdout), format!("out\nalice {}\n", server.home.path().display()));
    assert_eq!((text(&done.stderr).as_str(), done.status.code()), ("err\n", Some(42)));
    let mut killed = server.ssh("alice", PASSWORD);
    killed.arg("kill -9 $$");
    assert_eq!(output(killed).await.status.code(), Some(255), "as OpenSSH: by a signal");
    let mut large = server.ssh("alice", PASSWORD);
    large.arg("head -c 20000000 /dev/zero");
    assert_eq!(output(large).await.stdout.len(), 20_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn input_and_terminals_work() {
    let server = Server::start(None).await;
    let mut command = server.ssh("alice", PASSWORD);
    command.arg("wc -c").stdin(Stdio::piped()).stdout(Stdio::piped());
    let counted = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(&vec![b'x'; 3_000_000]).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        text(&output.stdout)
    });
    assert_eq!(counted.await.unwrap().trim(), "3000000");
    let mut terminal = server.ssh("alice", PASSWORD);
    terminal.arg("-tt").arg("tty && echo $TERM && stty size").env("TERM", "xterm");
    let shown = text(&output(terminal).await.stdout);
    assert!(shown.contains("/dev/pts/") && shown.contains("xterm"), "{shown}");
}

/// The system takes no longer argument than 128 KiB, also from the client's own command line.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_too_long_starts_and_fails() {
    let server = Server::start(None).await;
    let half = "x".repeat(70_000);
    for (option, expected) in [
        ("-T", ("", "/bin/sh: Argument list too long\n")),
        ("-tt", ("/bin/sh: Argument list too long\r\n", "")),
    ] {
        let mut command = server.client("ssh", "-p");
        command.args([option, "alice@127.0.0.1", "echo", &half, &half]);
        let done = output(command).await;
        let shown = (text(&done.stdout), text(&done.stderr));
        assert_eq!((shown.0.as_str(), shown.1.as_str()), expected, "{option}");
        assert_eq!(done.status.code(), Some(1), "{option}");
    }
}

/// A channel is free again when its program has ended, whoever closes it first.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_commands_run_in_turn_over_one_connection() {
    let server = Server::start(None).await;
    let client =
        Client::login(("127.0.0.1", server.port), "alice", PASSWORD, HostKeyCheck::AcceptAny)
            .await
            .unwrap();
    let started = Instant::now();
    for number in 0..1_000 {
        let done = client.run(&format!("echo {number}")).await.unwrap();
        assert_eq!((done.stdout, done.exit_status), (format!("{number}\n"), 0));
    }
    println!("1000 commands over one connection in {:?}", started.elapsed());
}

/// `ControlMaster`: a client whose connection others share by this socket.
async fn master(server: &Server) -> (Child, PathBuf) {
    let socket = server.home.path().join("control");
    let mut master = server.ssh("alice", PASSWORD);
    master.args(["-o", "ControlMaster=yes", "-o"]).arg(format!("ControlPath={}", socket.display()));
    let master = master.args(["-N"]).spawn().unwrap();
    let started = Instant::now();
    while !socket.exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "the client does not log in");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (master, socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_commands_of_openssh_share_one_connection_in_turn() {
    let server = Server::start(None).await;
    let (mut master, socket) = master(&server).await;
    // Without the master there would be no connection: the port is not that of SSH.
    let each = r#"ssh -S "$0" -o LogLevel=ERROR alice@127.0.0.1 "echo $number" || exit"#;
    let mut commands = Command::new("sh");
    commands.args(["-c", &format!("for number in $(seq 1 1000); do {each}; done")]);
    commands.arg(&socket).stdin(Stdio::null());
    let started = Instant::now();
    let done = output(commands).await;
    println!("1000 commands of OpenSSH over one connection in {:?}", started.elapsed());
    let expected: String = (1..=1_000).map(|number| format!("{number}\n")).collect();
    assert!(text(&done.stdout) == expected, "{}{}", text(&done.stdout), text(&done.stderr));
    assert!(done.status.success());
    master.kill().unwrap();
    master.wait().unwrap();
}

/// The bound is on sessions that are open at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_share_one_connection_up_to_a_bound() {
    let server = Server::start(None).await;
    let (mut master, socket) = master(&server).await;
    let session = |command: &str| {
        let mut ssh = Command::new("ssh");
        ssh.arg("-S").arg(&socket).args(["-o", "LogLevel=ERROR", "alice@127.0.0.1", command]);
        ssh.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        ssh.spawn().unwrap()
    };
    let open: Vec<Child> = (0..128)
        .map(|_| session("echo in >> in; while [ ! -e go ]; do sleep 0.2; done; echo out; exit 3"))
        .collect();
    let lines = || std::fs::read_to_string(server.home.path().join("in")).unwrap_or_default();
    let started = Instant::now();
    while lines().lines().count() < open.len() {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", lines().lines().count());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = finished(session("echo one more")).await;
    assert_eq!(text(&refused.stdout), "", "above the bound");
    std::fs::write(server.home.path().join("go"), "").unwrap();
    for session in open {
        let done = finished(session).await;
        assert_eq!((text(&done.stdout).as_str(), done.status.code()), ("out\n", Some(3)));
    }
    assert_eq!(text(&finished(session("echo free again")).await.stdout), "free again\n");
    master.kill().unwrap();
    master.wait().unwrap();
}

/// What OpenSSH sets, and what a client may.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_know_their_connection_and_locale() {
    let server = Server::start(None).await;
    let mut command = server.client("ssh", "-p");
    command.args(["-o", "SendEnv=LANG LC_* LD_PRELOAD"]).env("LANG", "C.UTF-8");
    command.env("LC_TIME", "C").env("LD_PRELOAD_", "x").args(["-tt", "alice@127.0.0.1"]);
    command.arg("env | sort; echo tty=$(tty)");
    let shown = text(&output(command).await.stdout).replace('\r', "");
    let value = |name: &str| {
        let line = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{name} is not in {shown}")).to_owned()
    };
    assert_eq!((value("LANG").as_str(), value("LC_TIME").as_str()), ("C.UTF-8", "C"));
    assert_eq!(value("SSH_TTY"), value("tty"));
    let connection = value("SSH_CONNECTION");
    let parts: Vec<&str> = connection.split(' ').collect();
    let port = server.port.to_string();
    assert_eq!((parts[0], parts[2], parts[3]), ("127.0.0.1", "127.0.0.1", port.as_str()));
    assert_eq!(value("SSH_CLIENT"), format!("127.0.0.1 {} {port}", parts[1]));
    assert!(!shown.contains("LD_PRELOAD"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_its_size_and_follows_it() {
    let server = Server::start(None).await;
    let client =
        Client::login(("127.0.0.1", server.port), "alice", PASSWORD, HostKeyCheck::AcceptAny)
            .await
            .unwrap();
    let (output, mut screen) = mpsc::channel(16);
    let size = |columns, rows| WindowSize { columns, rows };
    let (keys, input) = mpsc::channel(16);
    let input = futures::stream::unfold(input, async |mut input| {
        let next = input.recv().await?;
        Some((next, input))
    });
    tokio::spawn(client.terminal(size(81, 25), input, output));
    let typed = |text: &str| TerminalInput::Keys(text.as_bytes().to_vec());
    keys.send(typed("stty size\r")).await.unwrap();
    let mut shown = String::new();
    for (waits_for, then) in [
        ("25 81", vec![TerminalInput::Resize(size(132, 43)), typed("stty size\r")]),
        ("43 132", vec![typed("\x04")]),
    ] {
        while !shown.contains(waits_for) {
            let piece = tokio::time::timeout(Duration::from_secs(30), screen.recv()).await;
            shown.push_str(&text(&piece.expect(waits_for).expect(waits_for)));
        }
        for then in then {
            keys.send(then).await.unwrap();
        }
    }
}

/// What a session shows until this is in it.
async fn shown_until(channel: &mut russh::Channel<russh::client::Msg>, until: &str) -> String {
    let mut shown = String::new();
    while !shown.contains(until) {
        let message = tokio::time::timeout(Duration::from_secs(30), channel.wait()).await;
        match message.expect(until) {
            Some(ChannelMsg::Data { data }) => shown.push_str(&text(&data)),
            Some(_) => {}
            None => panic!("{until} is not in {shown}"),
        }
    }
    shown
}

/// Before its program starts, while it does not read, and when its client types no more.
#[tokio::test(flavor = "multi_thread")]
async fn each_session_of_a_connection_has_its_own_window() {
    let server = Server::start(None).await;
    let config = Arc::new(russh::client::Config::default());
    let address = ("127.0.0.1", server.port);
    let mut client = russh::client::connect(config, address, AnyServer).await.unwrap();
    assert!(client.authenticate_password("alice", PASSWORD).await.unwrap().success());
    let command = "stty -echo; trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done";
    let mut channels = Vec::new();
    for columns in [80, 90] {
        let mut channel = client.channel_open_session().await.unwrap();
        channel.request_pty(true, "xterm", 70, 24, 0, 0, &[]).await.unwrap();
        channel.window_change(columns, 24, 0, 0).await.unwrap();
        channel.exec(true, command).await.unwrap();
        shown_until(&mut channel, &format!("24 {columns}\r\n")).await;
        channels.push(channel);
    }
    let [first, second] = &mut channels[..] else { panic!("there are two") };
    // More than a terminal keeps for a program that does not read.
    first.data_bytes(b"x\n".repeat(50_000)).await.unwrap();
    first.window_change(100, 25, 1_000, 500).await.unwrap();
    shown_until(first, "25 100\r\n").await;
    second.eof().await.unwrap();
    second.window_change(110, 26, 0, 0).await.unwrap();
    let shown = shown_until(second, "26 110\r\n").await;
    assert!(!shown.contains("25 100"), "{shown}");
}

/// A client that accepts any server.
struct AnyServer;

impl russh::client::Handler for AnyServer {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// OpenSSH's client cannot send one.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_reaches_the_program_and_its_end_the_client() {
    let server = Server::start(None).await;
    let config = Arc::new(russh::client::Config::default());
    let address = ("127.0.0.1", server.port);
    let mut client = russh::client::connect(config, address, AnyServer).await.unwrap();
    assert!(client.authenticate_password("alice", PASSWORD).await.unwrap().success());
    for (command, sent, expected) in [
        (
            "trap 'echo caught; exit 9' USR2; echo $$ > pid1; while :; do sleep 0.05; done",
            "USR2",
            "9",
        ),
        ("echo $$ > pid2; exec sleep 1000", "TERM", "TERM"),
    ] {
        let mut channel = client.channel_open_session().await.unwrap();
        channel.exec(true, command).await.unwrap();
        server.line_of(if sent == "USR2" { "pid1" } else { "pid2" }).await;
        channel.signal(russh::Sig::Custom(sent.to_owned())).await.unwrap();
        let mut end = None;
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::ExitStatus { exit_status } => end = Some(exit_status.to_string()),
                ChannelMsg::ExitSignal { signal_name: Sig::TERM, .. } => end = Some("TERM".into()),
                _ => {}
            }
        }
        assert_eq!(end.as_deref(), Some(expected), "{command}");
    }
}

/// The client may not end what the key runs in place of what it asks for.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_a_key_gets_no_signals() {
    let (server, key) = with_options(r#"command="echo started; read line; echo got $line""#).await;
    let config = Arc::new(russh::client::Config::default());
    let address = ("127.0.0.1", server.port);
    let mut client = russh::client::connect(config, address, AnyServer).await.unwrap();
    let key = Arc::new(russh::keys::load_secret_key(key, None).unwrap());
    let key = russh::keys::PrivateKeyWithHashAlg::new(key, None);
    assert!(client.authenticate_publickey("alice", key).await.unwrap().success());
    let mut channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "true").await.unwrap();
    shown_until(&mut channel, "started\n").await;
    channel.signal(Sig::KILL).await.unwrap();
    channel.data_bytes("line\n").await.unwrap();
    shown_until(&mut channel, "got line\n").await;
}
