//! Forwarding in all directions, by TCP and by Unix sockets, and the client's agent.

use crate::server::{PASSWORD, Server, finished, free_port, output, text};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;

const BYTES: usize = 3_000_000;
const TIMEOUT: Option<Duration> = Some(Duration::from_secs(60));

/// Sends back what it gets, in capitals, to one connection after the other; its port.
fn capitals() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || capitalise(&stream, &stream));
        }
    });
    port
}

fn capitalise(mut from: impl Read, mut to: impl Write) {
    let mut piece = [0; 30_000];
    loop {
        match from.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(read) => to.write_all(&piece[..read].to_ascii_uppercase()).unwrap_or_default(),
        }
    }
}

/// Sends lower case through a stream, ends them, and reads capitals to their end.
fn goes_through(
    mut to: impl Write + Send,
    mut from: impl Read,
    end: impl FnOnce(&mut dyn Write) + Send,
) {
    let mut received = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            to.write_all(&vec![b'x'; BYTES]).unwrap();
            end(&mut to);
        });
        let mut piece = vec![0; 1 << 16];
        while received.len() < BYTES {
            let read = from.read(&mut piece).unwrap();
            assert!(read > 0, "{} bytes", received.len());
            received.extend_from_slice(&piece[..read]);
        }
    });
    assert!(received.len() == BYTES && received.iter().all(|byte| *byte == b'X'));
}

/// A client without a session, with these options.
fn forwarding(server: &Server, options: &[&str]) -> Child {
    let mut command = server.client_that_logs("ssh", "-p", "INFO");
    command.args(["-o", "ExitOnForwardFailure=yes", "-N"]);
    command.args(options).arg("alice@127.0.0.1").stderr(Stdio::piped()).spawn().unwrap()
}

/// Ends the client; sshpass passes SIGTERM on to it.
fn stop(mut child: Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    child.wait().unwrap();
}

async fn until_exists(path: &Path) {
    let started = Instant::now();
    while !path.exists() {
        assert!(started.elapsed() < Duration::from_secs(30), "{}", path.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn through_unix(path: &Path) {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(TIMEOUT).unwrap();
    goes_through(&stream, &stream, |_| ());
}

/// Through the SOCKS proxy on this port to one that answers in capitals.
pub(crate) fn through_socks(socks: u16, port: u16) {
    let mut stream = TcpStream::connect(("127.0.0.1", socks)).unwrap();
    stream.set_read_timeout(TIMEOUT).unwrap();
    // SOCKS 5: no authentication; connect to a name.
    stream.write_all(b"\x05\x01\x00\x05\x01\x00\x03\x09localhost").unwrap();
    stream.write_all(&port.to_be_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..4], [5, 0, 5, 0], "connected");
    goes_through(&stream, &stream, |_| ());
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut answer).unwrap(), 0, "the end arrives as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_and_output_reach_a_port() {
    let server = Server::start(None).await;
    let port = capitals();
    let mut command = server.client("ssh", "-p");
    command.args(["-W", &format!("127.0.0.1:{port}"), "alice@127.0.0.1"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    tokio::task::spawn_blocking(move || goes_through(stdin, stdout, |_| ())).await.unwrap();
    assert!(finished(child).await.status.success());
    // A port where nobody listens.
    let silent = TcpSocket::new_v4().unwrap();
    silent.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let free = silent.local_addr().unwrap().port();
    let mut refused = server.client("ssh", "-p");
    refused.args(["-W", &format!("127.0.0.1:{free}"), "alice@127.0.0.1"]);
    let refused = output(refused).await;
    assert_eq!(refused.status.code(), Some(255));
    let message = text(&refused.stderr);
    assert!(message.contains("stdio forwarding failed"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_a_jump_host() {
    let (jump, server) = (Server::start(None).await, Server::start(None).await);
    // The inner sshpass finds no password in the environment.
    let password = jump.home.path().join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let proxy = format!(
        "ProxyCommand=sshpass -f {} ssh -p {} -o StrictHostKeyChecking=no -o LogLevel=ERROR \
         -o UserKnownHostsFile=/dev/null -W %h:%p alice@127.0.0.1",
        password.display(),
        jump.port
    );
    let mut command = server.client("ssh", "-p");
    command.args(["-o", &proxy, "alice@127.0.0.1", "pwd; echo $SSH_CONNECTION"]);
    let shown = text(&output(command).await.stdout);
    let home = server.home.path().display().to_string();
    assert!(shown.starts_with(&home) && shown.contains(" 127.0.0.1 "), "{shown}");
}

/// `-L` from and to Unix sockets and ports, `-D`.
#[tokio::test(flavor = "multi_thread")]
async fn local_listeners_reach_the_pod() {
    let server = Server::start(None).await;
    let here = tempfile::tempdir().unwrap();
    let (to_tcp, to_unix) = (here.path().join("tcp"), here.path().join("unix"));
    let there = server.home.path().join("socket");
    let listener = UnixListener::bind(&there).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        capitalise(&stream, &stream);
    });
    let port = capitals();
    let socks = free_port();
    let client = forwarding(
        &server,
        &[
            "-L",
            &format!("{}:127.0.0.1:{port}", to_tcp.display()),
            "-L",
            &format!("{}:{}", to_unix.display(), there.display()),
            "-D",
            &format!("127.0.0.1:{socks}"),
        ],
    );
    until_exists(&to_tcp).await;
    until_exists(&to_unix).await;
    tokio::task::spawn_blocking(move || {
        through_unix(&to_tcp);
        through_unix(&to_unix);
        through_socks(socks, port);
    })
    .await
    .unwrap();
    stop(client);
}

/// What is sent to it is discarded, as with OpenSSH.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_reads_no_more_holds_up_no_other() {
    let server = Server::start(None).await;
    let here = tempfile::tempdir().unwrap();
    let (to_deaf, to_port) = (here.path().join("deaf"), here.path().join("port"));
    let there = server.home.path().join("socket");
    let listener = UnixListener::bind(&there).unwrap();
    let deaf = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.shutdown(Shutdown::Read).unwrap();
        stream
    });
    let client = forwarding(
        &server,
        &[
            "-L",
            &format!("{}:{}", to_deaf.display(), there.display()),
            "-L",
            &format!("{}:127.0.0.1:{}", to_port.display(), capitals()),
        ],
    );
    until_exists(&to_deaf).await;
    until_exists(&to_port).await;
    tokio::task::spawn_blocking(move || {
        let mut stream = UnixStream::connect(&to_deaf).unwrap();
        stream.set_write_timeout(TIMEOUT).unwrap();
        // More than the client's window.
        stream.write_all(&vec![b'x'; 2 * BYTES]).unwrap();
        through_unix(&to_port);
        drop(deaf.join().unwrap());
    })
    .await
    .unwrap();
    stop(client);
}

/// `-R`, on a port that the server chooses and on a Unix socket, until the client goes.
#[tokio::test(flavor = "multi_thread")]
async fn remote_listeners_reach_the_client() {
    let server = Server::start(None).await;
    let target = format!("127.0.0.1:{}", capitals());
    let there = server.home.path().join("socket");
    let (tcp, unix) = (format!("0:{target}"), format!("{}:{target}", there.display()));
    let mut client = forwarding(&server, &["-R", &tcp, "-R", &unix]);
    let mut messages = BufReader::new(client.stderr.take().unwrap());
    let port = loop {
        let mut line = String::new();
        assert!(messages.read_line(&mut line).unwrap() > 0, "no port is named");
        if let Some(rest) = line.strip_prefix("Allocated port ") {
            break rest.split(' ').next().unwrap().parse::<u16>().unwrap();
        }
    };
    until_exists(&there).await;
    tokio::task::spawn_blocking(move || {
        for address in ["127.0.0.1", "::1"] {
            let stream = TcpStream::connect((address, port)).unwrap();
            stream.set_read_timeout(TIMEOUT).unwrap();
            goes_through(&stream, &stream, |_| ());
        }
        through_unix(&there);
    })
    .await
    .unwrap();
    stop(client);
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(20), "the listener outlives its client");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A port that is taken in both families.
    let taken = forwarding(&server, &["-R", &format!("{}:{target}", server.port)]);
    assert_eq!(finished(taken).await.status.code(), Some(255));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_agent_is_at_hand_and_goes_with_the_client() {
    let server = Server::start(None).await;
    let here = tempfile::tempdir().unwrap();
    let (socket, key) = (here.path().join("agent"), here.path().join("key"));
    let mut agent = Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until_exists(&socket).await;
    let keygen = ["-q", "-N", "", "-C", "of the agent", "-t", "ed25519", "-f"];
    assert!(Command::new("ssh-keygen").args(keygen).arg(&key).status().unwrap().success());
    let mut add = Command::new("ssh-add");
    add.arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket);
    assert!(add.status().unwrap().success());
    for (option, expected) in [("-A", "of the agent"), ("-a", "none")] {
        let mut command = server.client("ssh", "-p");
        command.env("SSH_AUTH_SOCK", &socket).arg(option).arg("alice@127.0.0.1");
        command.arg("echo ${SSH_AUTH_SOCK:-none} > socket; ssh-add -L 2>&1; cat socket");
        let shown = text(&output(command).await.stdout);
        assert!(shown.contains(expected), "{option}: {shown}");
        let path = server.line_of("socket").await;
        let started = Instant::now();
        while Path::new(&path).exists() {
            assert!(started.elapsed() < Duration::from_secs(20), "{path} is left");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_display_is_refused_and_the_session_goes_on() {
    let server = Server::start(None).await;
    let mut command = server.client_that_logs("ssh", "-p", "INFO");
    command.env("DISPLAY", "127.0.0.1:0");
    command.args(["-X", "alice@127.0.0.1", "echo $DISPLAY in"]);
    let done = output(command).await;
    assert_eq!(text(&done.stdout), "in\n");
    assert!(text(&done.stderr).contains("X11 forwarding request failed"), "{}", text(&done.stderr));
}
