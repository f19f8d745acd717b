//! Who may log in, how often, and what is left when the server stops.

use crate::server::{PASSWORD, SecurityKey, Server, TIMEOUT, are_there, keygen, output, text};
use paygress_sshd::{HostKeys, key_kinds, parse_key};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_user_and_password_are_accepted() {
    let server = Server::start(None).await;
    let run = async |user: &str, password: &str| {
        let mut command = server.ssh(user, password);
        command.arg("echo $USER $LOGNAME $OF_IMAGE; [ $HOME != /of/image ] && echo in");
        text(&output(command).await.stdout)
    };
    assert_eq!(run("alice", PASSWORD).await, "alice alice its own\nin\n");
    assert_eq!(run("admin", PASSWORD).await, "admin admin its own\nin\n", "another name");
    for (user, password) in
        [("alice", "wrong"), ("alice", ""), ("root", PASSWORD), ("alice;id", PASSWORD)]
    {
        assert_eq!(run(user, password).await, "", "{user}");
    }
}

/// A new key of this kind, `ssh-keygen`'s options for it; the file of the secret one.
fn new_key(directory: &Path, options: &[&str]) -> PathBuf {
    let file = directory.join(options.concat());
    keygen(&file, options);
    file
}

fn public_line(key: &Path) -> String {
    std::fs::read_to_string(format!("{}.pub", key.display())).unwrap().trim().to_owned()
}

/// A client with these logs in by the keys that it is given, and asks nobody.
const KEYS_ALONE: [&str; 5] = [
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
    "BatchMode=yes",
    "IdentitiesOnly=yes",
];

/// Logs in with these keys and nothing else, one after the other.
async fn with_keys(server: &Server, keys: &[&Path], options: &[&str]) -> String {
    let mut command = Command::new("ssh");
    command.args(["-p", &server.port.to_string()]);
    for key in keys {
        command.arg("-i").arg(key);
    }
    for option in KEYS_ALONE {
        command.args(["-o", option]);
    }
    for option in options {
        command.args(["-o", option]);
    }
    command.args(["alice@127.0.0.1", "echo in"]).stdin(Stdio::null());
    text(&output(command).await.stdout)
}

/// The list that is checked before a login is sold is the list that the server verifies.
#[tokio::test(flavor = "multi_thread")]
async fn a_public_key_of_each_listed_kind_is_accepted_instead_of_the_password() {
    let directory = tempfile::tempdir().unwrap();
    let mut kinds = Vec::new();
    for options in [
        &["ed25519"][..],
        &["ecdsa", "-b256"],
        &["ecdsa", "-b384"],
        &["ecdsa", "-b521"],
        &["rsa", "-b2048"],
    ] {
        let key = new_key(directory.path(), options);
        let line = public_line(&key);
        let server = Server::start(Some(&line)).await;
        assert_eq!(with_keys(&server, &[&key], &[]).await, "in\n", "{options:?}");
        kinds.push(line.split(' ').next().unwrap().to_owned());
        if options == ["ed25519"] {
            let other = directory.path().join("other");
            std::fs::create_dir(&other).unwrap();
            assert_eq!(with_keys(&server, &[&new_key(&other, options)], &[]).await, "");
        }
        if options == ["rsa", "-b2048"] {
            for (kind, expected) in
                [("rsa-sha2-256", "in\n"), ("rsa-sha2-512", "in\n"), ("ssh-rsa", "")]
            {
                let option = format!("PubkeyAcceptedAlgorithms={kind}");
                assert_eq!(with_keys(&server, &[&key], &[&option]).await, expected, "{kind}");
            }
        }
    }
    let listed: Vec<_> = key_kinds().into_iter().filter(|kind| !kind.starts_with("sk-")).collect();
    assert_eq!(kinds, listed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_security_key_of_each_listed_kind_is_accepted() {
    if !are_there(&["node"]) {
        return;
    }
    let (directory, mut kinds) = (tempfile::tempdir().unwrap(), Vec::new());
    let security_key = SecurityKey::start(directory.path()).unwrap();
    let agent = format!("IdentityAgent={}", security_key.socket.display());
    for name in ["sk-ed25519", "sk-ecdsa"] {
        let key = directory.path().join(name);
        let line = public_line(&key);
        let (sold, other) = (Server::start(Some(&line)).await, Server::start(None).await);
        let public = key.with_extension("pub");
        assert_eq!(with_keys(&sold, &[&public], &[&agent]).await, "in\n", "{name}");
        assert_eq!(with_keys(&other, &[&public], &[&agent]).await, "", "{name}");
        kinds.push(line.split(' ').next().unwrap().to_owned());
    }
    let listed: Vec<_> = key_kinds().into_iter().filter(|kind| kind.starts_with("sk-")).collect();
    assert_eq!(kinds, listed);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sixth_key_logs_in_whether_sold_or_the_users_own() {
    let directory = tempfile::tempdir().unwrap();
    let keys: Vec<PathBuf> = (0..8)
        .map(|number| {
            let own = directory.path().join(number.to_string());
            std::fs::create_dir(&own).unwrap();
            new_key(&own, &["ed25519"])
        })
        .collect();
    let keys: Vec<&Path> = keys.iter().map(PathBuf::as_path).collect();
    let sold = format!("# two of them\n{}\n\n{}\n", public_line(keys[5]), public_line(keys[6]));
    let server = Server::start(Some(&sold)).await;
    assert_eq!(with_keys(&server, &keys[..6], &[]).await, "in\n", "five wrong keys before it");
    assert_eq!(with_keys(&server, &keys[6..7], &[]).await, "in\n");
    let (own, file) = (keys[7], server.home.path().join(".ssh/authorized_keys"));
    assert_eq!(with_keys(&server, &[own], &[]).await, "");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    for (line, mode, expected) in [
        (format!("# mine\n{}\n", public_line(own)), 0o600, "in\n"),
        (format!("{}\n", public_line(own)), 0o666, ""),
        (format!("unknown {}\n", public_line(own)), 0o600, ""),
        (format!("from=\"10.0.0.0/8\" {}\n", public_line(own)), 0o600, ""),
        (format!("from=\"127.0.0.0/8\" {}\n", public_line(own)), 0o600, "in\n"),
        (format!("expiry-time=\"20000101\" {}\n", public_line(own)), 0o600, ""),
        (format!("unknown {0}\nrestrict {0}\n", public_line(own)), 0o600, "in\n"),
    ] {
        std::fs::write(&file, &line).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(with_keys(&server, &[own], &[]).await, expected, "{mode:o} {line}");
    }
}

/// What the client asks for is a variable of what runs in its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_a_command_runs_nothing_else() {
    let (server, key) = with_options(r#"command="echo \"[$SSH_ORIGINAL_COMMAND]\"; exit 3""#).await;
    for (arguments, expected) in [
        (&["alice@127.0.0.1", "echo in"][..], "[echo in]\n"),
        (&["-T", "alice@127.0.0.1"], "[]\n"),
        (&["-s", "alice@127.0.0.1", "sftp"], "[internal-sftp]\n"),
    ] {
        let done = output(key_client(&server, &key, arguments)).await;
        assert_eq!((text(&done.stdout).as_str(), done.status.code()), (expected, Some(3)));
    }
    let unknown = output(key_client(&server, &key, &["-s", "alice@127.0.0.1", "nothing"])).await;
    assert_eq!(text(&unknown.stdout), "");
}

/// A shell would read files that the client can write.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_sftp_only_runs_no_shell() {
    let server = Server::start_with_shell("/bin/echo").await;
    let key = own_key(&server, r#"command="internal-sftp""#);
    let refusal = "This service allows sftp connections only.";
    for (arguments, expected, code) in [
        (&["alice@127.0.0.1", "echo in"][..], format!("{refusal}\n"), 1),
        (&["-T", "alice@127.0.0.1"], format!("{refusal}\n"), 1),
        (&["-tt", "alice@127.0.0.1"], format!("{refusal}\r\n"), 1),
        (&["-s", "alice@127.0.0.1", "sftp"], String::new(), 0),
    ] {
        let done = output(key_client(&server, &key, arguments)).await;
        assert_eq!((text(&done.stdout), done.status.code()), (expected, Some(code)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restricted_key_has_no_terminal_agent_or_forwarding() {
    let target = Server::start(None).await;
    let to = format!("127.0.0.1:{}", target.port);
    for (options, is_allowed) in [
        ("restrict", false),
        ("no-pty,no-agent-forwarding,no-port-forwarding", false),
        ("restrict,pty,agent-forwarding,port-forwarding", true),
    ] {
        let (server, key) = with_options(options).await;
        let run = async |arguments: &[&str]| output(key_client(&server, &key, arguments)).await;
        let terminal = run(&["-tt", "alice@127.0.0.1", "tty"]).await;
        assert_eq!(text(&terminal.stdout).starts_with("/dev/"), is_allowed, "{options}");
        let greeting = run(&["-W", &to, "alice@127.0.0.1"]).await;
        assert_eq!(text(&greeting.stdout).starts_with("SSH-2.0-"), is_allowed, "{options}");
        let socket = server.home.path().join("r").display().to_string();
        for listener in ["0", &socket] {
            let forward = format!("{listener}:{to}");
            let strict =
                ["-o", "ExitOnForwardFailure=yes", "-R", &forward, "alice@127.0.0.1", "true"];
            assert_eq!(run(&strict).await.status.success(), is_allowed, "{options} {listener}");
        }
        // The client asks for it only if it has one.
        let mut agent = Command::new("ssh-agent");
        agent.arg("ssh").args(key_client(&server, &key, &["-A"]).get_args());
        agent.args(["alice@127.0.0.1", "echo ${SSH_AUTH_SOCK:-none}"]).stdin(Stdio::null());
        assert_eq!(text(&output(agent).await.stdout) != "none\n", is_allowed, "{options}");
    }
}

/// A server whose user has a key with these options in their own file; the file of the secret key.
pub(crate) async fn with_options(options: &str) -> (Server, PathBuf) {
    let server = Server::start(None).await;
    let key = own_key(&server, options);
    (server, key)
}

/// A key with these options in the user's own file; the file of the secret key.
fn own_key(server: &Server, options: &str) -> PathBuf {
    let own = server.home.path().join(".ssh");
    std::fs::create_dir(&own).unwrap();
    let key = new_key(&own, &["ed25519"]);
    let (line, file) = (format!("{options} {}\n", public_line(&key)), own.join("authorized_keys"));
    std::fs::write(&file, line).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    key
}

/// `ssh` with this key alone and these arguments.
fn key_client(server: &Server, key: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-p", &server.port.to_string(), "-i"]).arg(key);
    for option in KEYS_ALONE {
        command.args(["-o", option]);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The user may put anything there; nobody waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_fifo_of_keys_holds_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    let (sold, other) = (directory.path().join("sold"), directory.path().join("other"));
    keygen(&sold, &["ed25519"]);
    keygen(&other, &["ed25519"]);
    let server = Server::start(Some(&public_line(&sold))).await;
    let fifo = server.home.path().join(".ssh/authorized_keys");
    std::fs::create_dir(fifo.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg("-m600").arg(&fifo).status().unwrap().success());
    let logins = async {
        let refused = with_keys(&server, &[&other], &[]).await;
        (refused, with_keys(&server, &[&sold], &[]).await)
    };
    let logins = tokio::time::timeout(TIMEOUT, logins).await;
    // Whoever waits for it goes on: with both ends it opens at once.
    let _both = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    assert_eq!(logins.expect("an answer"), (String::new(), "in\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_is_taken_by_keyboard_interactive_too() {
    let server = Server::start(None).await;
    for (password, expected) in [(PASSWORD, "in\n"), ("wrong", "")] {
        let mut command = Command::new("sshpass");
        command.env("SSHPASS", password).args(["-e", "ssh", "-p", &server.port.to_string()]);
        for option in [
            "PreferredAuthentications=keyboard-interactive",
            "NumberOfPasswordPrompts=1",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
        ] {
            command.args(["-o", option]);
        }
        command.args(["alice@127.0.0.1", "echo in"]).stdin(Stdio::null());
        assert_eq!(text(&output(command).await.stdout), expected);
    }
}

/// Keys of all kinds, the same after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn host_keys_are_kept_in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    // As the server would make it, in seconds.
    let rsa = directory.path().join("ssh_host_rsa_key");
    let made = new_key(directory.path(), &["rsa", "-b2048"]);
    std::fs::rename(&made, &rsa).unwrap();
    let mut scans = Vec::new();
    for _ in 0..2 {
        let keys = HostKeys::in_directory(directory.path()).unwrap();
        let server = Server::start_with(None, keys).await;
        let mut scan = Command::new("ssh-keyscan");
        scan.args(["-p", &server.port.to_string(), "127.0.0.1"]);
        let scanned = text(&output(scan).await.stdout);
        let mut keys: Vec<String> = scanned
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| Some(line.split_once(' ')?.1.to_owned()))
            .collect();
        keys.sort();
        scans.push(keys);
    }
    assert_eq!(scans[0], scans[1]);
    let kinds: Vec<&str> = scans[0].iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(kinds, ["ecdsa-sha2-nistp256", "ssh-ed25519", "ssh-rsa"]);
    for name in ["ssh_host_ed25519_key", "ssh_host_ecdsa_key"] {
        let mode = std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
        let public = std::fs::read_to_string(directory.path().join(format!("{name}.pub"))).unwrap();
        assert!(scans[0].iter().any(|line| public.trim() == line.trim()), "{public}");
    }
}

#[test]
fn a_key_that_could_not_log_in_is_refused_with_the_kinds_that_can() {
    for (line, expected) in [
        ("ssh-dss AAAAB3NzaC1kc3M=", "send one of ssh-ed25519, ecdsa-sha2-nistp256, "),
        ("command=\"x\" ssh-ed25519 AAAA", "send one of ssh-ed25519, "),
        ("", "send one of ssh-ed25519, "),
        ("ssh-ed25519 AAAA", "not usable"),
        ("ssh-rsa AAAA", "not usable"),
    ] {
        let error = parse_key(line).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_address_families_are_served() {
    let server = Server::start(None).await;
    for address in ["127.0.0.1", "::1"] {
        let stream = std::net::TcpStream::connect((address, server.port)).unwrap();
        assert_eq!(banner(stream), "SSH-", "{address}");
    }
}

/// The first bytes that the server sends; none when it closes the connection.
fn banner(mut stream: std::net::TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut banner = [0; 4];
    let read = std::io::Read::read(&mut stream, &mut banner).unwrap_or(0);
    text(&banner[..read])
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_the_server_ends_all_sessions_and_processes() {
    let server = Server::start(None).await;
    // A job whose session has ended, and a session.
    let job = server.run("echo $$ > job; nohup sleep 1000 > /dev/null 2>&1 < /dev/null &");
    assert!(output(job).await.status.success());
    let session = tokio::task::spawn_blocking({
        let mut command = server.run("echo $$ > pid; sleep 1000 & sleep 1000");
        move || command.status().unwrap()
    });
    let groups = [server.line_of("job").await, server.line_of("pid").await];
    assert!(groups.iter().all(|group| is_alive(group)));
    let started = Instant::now();
    server.stop.send_replace(true);
    assert!(!session.await.unwrap().success());
    while groups.iter().any(|group| is_alive(group)) {
        assert!(started.elapsed() < Duration::from_secs(20), "a process has survived the server");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Another test may have the port by now.
    while tokio::net::TcpStream::connect(("127.0.0.1", server.port)).await.is_ok() {
        assert!(started.elapsed() < TIMEOUT, "the server still listens");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether a process of this group runs.
fn is_alive(group: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        // The process group is field 5 of `stat`, the third after the name.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        fields.get(2) == Some(&group) && fields.first() != Some(&"Z")
    })
}

/// Opens this many connections, and keeps those that are served.
fn idle_connections(port: u16, tries: usize) -> Vec<std::net::TcpStream> {
    let open = || std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let served = |stream: &std::net::TcpStream| banner(stream.try_clone().unwrap()) == "SSH-";
    (0..tries).map(|_| open()).filter(served).collect()
}

/// Tries to log in until it works; how often it took.
async fn tries_to_log_in(server: &Server, most: u32) -> u32 {
    for tries in 1..=most {
        let mut command = server.ssh("alice", PASSWORD);
        command.arg("echo in");
        if text(&output(command).await.stdout) == "in\n" {
            return tries;
        }
    }
    panic!("the user cannot log in with {most} tries");
}

fn is_open(stream: &std::net::TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    // What is left of the server's greeting; at its end, nothing more is there yet.
    let mut greeting = [0; 4_096];
    loop {
        match std::io::Read::read(&mut &*stream, &mut greeting) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

/// How many of these are open, once they are so many or fewer.
async fn open_of(idle: &[std::net::TcpStream], most: usize) -> usize {
    let started = Instant::now();
    loop {
        let open = idle.iter().filter(|stream| is_open(stream)).count();
        if open <= most {
            return open;
        }
        assert!(started.elapsed() < TIMEOUT, "{open} are open, not {most}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Source NAT gives everybody the same address: idle connections of it are no lock, however many of
/// the places they hold. The owner has the place of one of them at the first try.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_one_address_lock_nobody_out() {
    for many in [100, 1_000] {
        let server = Server::start(None).await;
        let started = Instant::now();
        let idle = idle_connections(server.port, many);
        let open = open_of(&idle, 100).await;
        println!("{open} of {many} idle connections are open");
        assert!(open >= 30, "{open} of {many} are open");
        tries_to_log_in(&server, 1).await;
        assert!(started.elapsed() < Duration::from_secs(110), "within their grace time");
        let open = open_of(&idle, 100).await;
        assert!(open >= 30, "{open} of {many} are open after the login");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_connections_are_bounded() {
    let server = Server::start(None).await;
    let idle = idle_connections(server.port, 1_000);
    println!("{} of 1000 idle connections were served", idle.len());
    let open = open_of(&idle, 100).await;
    assert!((10..=100).contains(&open), "{open} are open");
    drop(idle);
    tries_to_log_in(&server, 100).await;
}
