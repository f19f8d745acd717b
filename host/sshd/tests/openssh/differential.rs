//! The same clients and scripts against Debian's sshd and ours. What differs without a [`difference`]
//! is a fault, and so is what takes much longer.

use crate::cases::{CASES, difference};
use crate::reference::{Files, Ours, Ports, Reference, User, reference};
use crate::server::{PASSWORD, program, text};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Cases that run at the same time; most of them wait. Each has one or two connections that have
/// not authenticated yet, and from ten on servers drop some.
const WORKERS: usize = 4;
/// What parts of scripts need beside OpenSSH: a program.
const NEEDS: [(&str, &str); 5] = [
    ("$CONNECT", "python3"),
    ("$AGENT", "node"),
    ("rsync -", "rsync"),
    ("script -", "script"),
    ("sshfs -", "sshfs"),
];
/// A case that took so much longer than with sshd, and more than twice as long, is of another class.
const SLOWER: Duration = Duration::from_secs(2);
/// How often it is tried before that counts: others use the same cores.
const TRIES: usize = 3;

/// The last ones, which take all places of those that have not authenticated yet.
const ALONE: usize = 2;

type Case = (&'static str, &'static str);

/// What a script has shown: exit code, standard output and error.
type Shown = (Option<i32>, String, String);

struct Comparison {
    files: Files,
    user: User,
    reference: Reference,
    ours: Ports,
}

/// A line of the table.
enum Row {
    NotRun(String),
    Equal(String),
    Different(String),
    Fault(String),
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_scripts_see_the_same_as_with_debians_sshd() {
    let files = Files::new();
    let user = User::current(files.path());
    let Some(reference) = reference(files.path(), &user) else {
        assert!(std::env::var_os("CI").is_none(), "OpenSSH's sshd is not installed");
        println!("NOT RUN: the comparison with OpenSSH's sshd, which is not installed");
        return;
    };
    let server = Ours::start(files.path(), &user).await;
    let comparison = Comparison { files, user, reference, ours: server.ports };
    let rows = tokio::task::spawn_blocking(move || comparison.rows()).await.unwrap();
    server.stop().await;
    let not_run = rows.iter().filter(|row| matches!(row, Row::NotRun(_))).count();
    let equal = rows.iter().filter(|row| matches!(row, Row::Equal(_))).count();
    let different = rows.iter().filter(|row| matches!(row, Row::Different(_))).count();
    let mut faults = Vec::new();
    for row in &rows {
        let (Row::NotRun(line) | Row::Equal(line) | Row::Different(line) | Row::Fault(line)) = row;
        println!("{line}");
        faults.extend(matches!(row, Row::Fault(_)).then_some(line));
    }
    println!(
        "{equal} of {} behaviours equal, {different} documented differences, {not_run} not run",
        CASES.len()
    );
    assert!(faults.is_empty(), "{} of {} differ: {faults:#?}", faults.len(), CASES.len());
    assert!(not_run == 0 || std::env::var_os("CI").is_none(), "some were not run");
}

impl Comparison {
    /// In the order of [`CASES`].
    fn rows(&self) -> Vec<Row> {
        let cases = &CASES;
        let (together, alone) = cases.split_at(cases.len().saturating_sub(ALONE));
        let next = AtomicUsize::new(0);
        let work = || {
            let mut rows = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(case) = together.get(index) else { return rows };
                rows.push((index, self.row(*case)));
            }
        };
        let mut rows = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
        });
        rows.sort_by_key(|(index, _)| *index);
        let mut rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
        rows.extend(alone.iter().map(|case| self.row(*case)));
        rows
    }

    fn row(&self, (name, script): Case) -> Row {
        if let Some(missing) = self.missing(script) {
            return Row::NotRun(format!("NOT RUN: {name}: there is no {missing}"));
        }
        let ((theirs, between), (ours, took)) = self.both(script);
        let reason = difference(name);
        let line = |result: &str| {
            let (between, took) = (between.as_millis(), took.as_millis());
            format!("{name:<44} sshd {between:>5} ms, ours {took:>5} ms, {result}")
        };
        match (theirs == ours, reason) {
            (true, Some(_)) => Row::Fault(line("EQUAL, AND LISTED AS DIFFERENT")),
            (false, Some(reason)) => Row::Different(line(&format!("different: {reason}"))),
            (false, None) => {
                Row::Fault(line(&format!("DIFFERENT: sshd {theirs:?}, ours {ours:?}")))
            }
            (true, None) if is_slower(between, took) => Row::Fault(line("SLOWER")),
            (true, None) => Row::Equal(line("equal")),
        }
    }

    /// What is missing for a script.
    fn missing(&self, script: &str) -> Option<&'static str> {
        let needed = NEEDS.iter().filter(|(part, _)| script.contains(part));
        let mut missing = needed.map(|(_, name)| *name).filter(|name| program(name).is_none());
        let parts = ["sshpass -", "$KEYS/with-"];
        let needs_files = parts.iter().any(|part| script.contains(part));
        let has_none = needs_files && !self.reference.has_own_files;
        missing.next().or(has_none.then_some("root, who gives sshd files of its own"))
    }

    /// What both have shown, and how long each took.
    fn both(&self, script: &str) -> ((Shown, Duration), (Shown, Duration)) {
        let timed = |ports| {
            let started = Instant::now();
            (self.run(script, ports), started.elapsed())
        };
        let both = || (timed(self.reference.ports), timed(self.ours));
        let mut seen = both();
        for _ in 1..TRIES {
            let ((theirs, between), (ours, took)) = &seen;
            if theirs != ours || !is_slower(*between, *took) {
                break;
            }
            seen = both();
        }
        seen
    }

    /// Runs a script against the server at these ports, and leaves out what belongs to one server.
    fn run(&self, script: &str, ports: Ports) -> Shown {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let keys = self.files.path();
        let client = |tool: &str, port_option: &str, key: &str| {
            let identity = match key {
                "" => String::new(),
                key => format!("-i {}", keys.join(key).display()),
            };
            format!(
                "{tool} -F none {port_option} {} {identity} -o IdentitiesOnly=yes \
                 -o BatchMode=yes -o IdentityAgent=SSH_AUTH_SOCK -o StrictHostKeyChecking=no \
                 -o LogLevel=INFO -o UserKnownHostsFile={}",
                ports.server,
                here.path().join("hosts").display()
            )
        };
        let mut command = Command::new("timeout");
        command.args(["60", "sh", "-c", script]).stdin(Stdio::null());
        command.env("SSH", client("ssh", "-p", "key")).env("CLIENT", client("ssh", "-p", ""));
        command.env("WRONG", client("ssh", "-p", "wrong1"));
        command.env("SFTP", client("sftp", "-P", "key")).env("SCP", client("scp", "-P", "key"));
        command.env("USER", &self.user.name).env("TO", format!("{}@127.0.0.1", self.user.name));
        command.env("PORT", ports.server.to_string()).env("SLOW", ports.slow.to_string());
        command.env("CONNECT", format!("python3 {}", keys.join("connect.py").display()));
        command.env("AGENT", self.files.agent()).env("KEYS", keys).env("SSHPASS", PASSWORD);
        command.env("HERE", here.path()).env("DIR", there.path());
        command.env("TERM", "xterm").env_remove("DISPLAY");
        let done = command.output().unwrap();
        let clean = |bytes: &[u8]| {
            let directories = [(here.path(), "HERE"), (there.path(), "DIR"), (keys, "KEYS")];
            let named = directories.map(|(path, name)| (path.display().to_string(), name));
            let ports = [(ports.server.to_string(), "PORT"), (ports.slow.to_string(), "SLOW")];
            let names = named.into_iter().chain(ports);
            let plain = names.fold(text(bytes), |shown, (own, name)| shown.replace(&own, name));
            let lines = plain.lines().filter(|line| !line.starts_with("Warning: Permanently"));
            lines.map(|line| format!("{}\n", line.trim_end())).collect::<String>()
        };
        (done.status.code(), clean(&done.stdout), clean(&done.stderr))
    }
}

fn is_slower(theirs: Duration, ours: Duration) -> bool {
    ours > theirs.saturating_mul(2).saturating_add(SLOWER)
}
