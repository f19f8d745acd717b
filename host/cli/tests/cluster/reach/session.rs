//! A customer's pod, and OpenSSH's client in the customer's network. It trusts nobody but whom the
//! answer names.

use crate::machines::LoginKey;
use crate::support::testbed::{in_namespace, wait_for};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Much longer than anything here takes.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// A way to a pod, as answers name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    HostPort,
    JumpHost,
    Iroh,
}

impl Way {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::HostPort => "host-port",
            Self::JumpHost => "jump-host",
            Self::Iroh => "iroh",
        }
    }
}

/// A pod that was bought, and its customer.
pub(super) struct Pod {
    pub(super) answer: Value,
    pub(super) key: LoginKey,
    /// The customer's network; none: that of the test.
    pub(super) namespace: Option<String>,
}

/// What a client is started with.
pub(super) struct Client<'a> {
    /// To paste, up to the user and the host.
    pub(super) command: &'a str,
    pub(super) known_hosts: &'a str,
    pub(super) key: &'a LoginKey,
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// A file of this name for each client: several run at the same time.
fn own_file(key: &LoginKey, name: &str) -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    key.path(&format!("{name}-{}", NUMBER.fetch_add(1, Ordering::Relaxed)))
}

impl Pod {
    pub(super) fn name(&self) -> &str {
        text(&self.answer, "pod_name")
    }

    pub(super) fn way(&self, way: Way) -> &Value {
        let ways = self.answer["access"].as_array().unwrap();
        let found = ways.iter().find(|it| it["type"] == way.as_str());
        found.unwrap_or_else(|| panic!("no {} in {ways:?}", way.as_str()))
    }

    /// The client of this way, as the answer has it.
    pub(super) fn client(&self, way: Way) -> Client<'_> {
        let way = self.way(way);
        let (command, known_hosts) = (text(way, "command"), text(way, "known_hosts"));
        Client { command, known_hosts, key: &self.key }
    }

    /// This client, in the customer's network; it runs this in the pod.
    pub(super) fn ssh(&self, client: &Client<'_>, line: &str) -> Command {
        let (known_hosts, config) =
            (own_file(&self.key, "known_hosts"), own_file(&self.key, "config"));
        std::fs::write(&known_hosts, format!("{}\n", client.known_hosts)).unwrap();
        let settings = format!(
            "Host *\nIdentityFile {}\nIdentitiesOnly yes\nIdentityAgent none\nBatchMode yes\nStrictHostKeyChecking yes\nUserKnownHostsFile {}\nGlobalKnownHostsFile /dev/null\nLogLevel ERROR\nConnectTimeout 20\nControlPath none\n",
            client.key.path("key").display(),
            known_hosts.display()
        );
        std::fs::write(&config, settings).unwrap();
        let with_config = format!("exec ssh -F {} ", config.display());
        let command = client.command.replacen("ssh ", &with_config, 1);
        let programs = Path::new(env!("CARGO_BIN_EXE_paygress")).parent().unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut shell = in_namespace(self.namespace.as_deref(), "sh");
        shell.args(["-c", &format!("{command} '{line}'")]).env("PATH", path).stdin(Stdio::null());
        shell
    }

    pub(super) fn try_run(&self, client: &Client<'_>, line: &str) -> Output {
        self.ssh(client, line).output().unwrap()
    }

    /// What this prints in the pod; it must succeed.
    pub(super) fn run(&self, way: Way, line: &str) -> Vec<u8> {
        let done = self.try_run(&self.client(way), line);
        let shown = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{}: {}: {shown}", way.as_str(), done.status);
        done.stdout
    }

    /// A login must fail, with this in its message, and nothing may have run in the pod.
    pub(super) fn refuses(&self, client: &Client<'_>, message: &str) {
        let done = self.try_run(client, "echo in");
        let shown = String::from_utf8_lossy(&done.stderr);
        assert_eq!((done.stdout.as_slice(), done.status.code()), (&b""[..], Some(255)), "{shown}");
        assert!(shown.contains(message), "{} does not say: {message}: {shown}", client.command);
    }

    /// A session by this way.
    pub(super) fn session(&self, way: Way) -> Session {
        let opened = self.try_session(&self.client(way));
        opened.unwrap_or_else(|NoSession(shown)| panic!("{}: {shown}", way.as_str()))
    }

    pub(super) fn try_session(&self, client: &Client<'_>) -> Result<Session, NoSession> {
        Session::open(self.ssh(client, "exec cat"), own_file(&self.key, "messages"))
    }
}

/// What the client shows in place of a session.
pub(super) struct NoSession(pub(super) String);

/// `cat` in a pod. It ends with this.
pub(super) struct Session {
    client: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    /// What the terminal would show besides.
    messages: PathBuf,
}

impl Session {
    fn open(mut ssh: Command, messages: PathBuf) -> Result<Self, NoSession> {
        let shown = File::create(&messages).unwrap();
        let mut client =
            ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(shown).spawn().unwrap();
        let input = client.stdin.take().unwrap();
        let mut stdout = client.stdout.take().unwrap();
        let (sender, output) = channel();
        // It ends with the client.
        std::thread::spawn(move || {
            let mut piece = vec![0; 65_536];
            while let Ok(read @ 1..) = stdout.read(&mut piece) {
                if sender.send(piece[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut session = Self { client, input, output, messages };
        match session.try_echo(b"in") {
            true => Ok(session),
            false => {
                let ended = session.client.wait().unwrap();
                Err(NoSession(format!("{ended}: {}", session.messages())))
            }
        }
    }

    /// Sends this, and gets it back; not if the session has ended.
    fn try_echo(&mut self, bytes: &[u8]) -> bool {
        if self.input.write_all(bytes).and_then(|()| self.input.flush()).is_err() {
            return false;
        }
        let mut received = Vec::with_capacity(bytes.len());
        while received.len() < bytes.len() {
            match self.output.recv_timeout(LONG) {
                Ok(piece) => received.extend(piece),
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("no answer in time"),
            }
        }
        assert!(received == bytes, "{} bytes come back as they were", bytes.len());
        true
    }

    /// It is there: this comes back. How long that takes.
    pub(super) fn echoes(&mut self, bytes: &[u8]) -> Duration {
        let started = Instant::now();
        assert!(self.try_echo(bytes), "the session has ended: {}", self.messages());
        started.elapsed()
    }

    /// Waits for its end; gives what the client has shown.
    pub(super) fn end(mut self, limit: Duration) -> String {
        wait_for("a session to end", limit, || self.client.try_wait().unwrap().is_some());
        self.messages()
    }

    fn messages(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.messages).unwrap()).into_owned()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}
