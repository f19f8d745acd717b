//! The same clients and scripts against Debian's sshd and ours. What differs without a reason in
//! [`DIFFERENCES`] is a fault.

use crate::cases::{CASES, DIFFERENCES};
use crate::server::text;
use paygress_sshd::{Account, Password, new_host_key, parse_keys, serve};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The account of whoever runs the tests: name, home and shell.
struct User {
    name: String,
    home: PathBuf,
    shell: PathBuf,
}

impl User {
    fn current() -> Self {
        let id = text(&Command::new("id").arg("-u").output().unwrap().stdout);
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let own = fields.into_iter().find(|fields| fields[2] == id.trim()).unwrap();
        Self { name: own[0].to_owned(), home: own[5].into(), shell: own[6].into() }
    }
}

fn sshd() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap();
    let directories = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    directories.map(|directory| directory.join("sshd")).find(|program| program.exists())
}

fn keygen(file: &Path) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-N", "", "-t", "ed25519", "-f"]).arg(file);
    assert!(command.status().unwrap().success());
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Ends with the test.
struct Reference(Child);

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Debian's sshd with a configuration of its own.
fn reference(sshd: &Path, files: &Path, port: u16) -> Reference {
    keygen(&files.join("host"));
    let configuration = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nPidFile none\nStrictModes no\n\
         AuthorizedKeysFile {key}.pub\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nAcceptEnv LANG LC_*\nSubsystem sftp internal-sftp\n\
         PrintMotd no\nPrintLastLog no\n",
        host = files.join("host").display(),
        key = files.join("key").display(),
    );
    let file = files.join("sshd_config");
    std::fs::write(&file, configuration).unwrap();
    // For the separation of privileges, if this is root.
    let _ = std::fs::create_dir_all("/run/sshd");
    let mut command = Command::new(sshd);
    command.args(["-D", "-e", "-f"]).arg(file).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let started = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "sshd has ended: is there a user sshd?");
        assert!(started.elapsed() < Duration::from_secs(20), "sshd does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Reference(child)
}

/// Runs a script against the server at this port: exit code, standard output and error, without
/// what belongs to one server.
fn run(script: &str, files: &Path, user: &User, port: u16) -> (Option<i32>, String, String) {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let client = |program: &str, port_option: &str, key: &str| {
        format!(
            "{program} -F none {port_option} {port} -i {} -o IdentitiesOnly=yes -o BatchMode=yes \
             -o IdentityAgent=SSH_AUTH_SOCK -o StrictHostKeyChecking=no -o LogLevel=INFO \
             -o UserKnownHostsFile={}",
            files.join(key).display(),
            here.path().join("hosts").display()
        )
    };
    let mut command = Command::new("timeout");
    command.args(["30", "sh", "-c", script]).stdin(Stdio::null());
    command.env("SSH", client("ssh", "-p", "key")).env("WRONG", client("ssh", "-p", "host"));
    command.env("SFTP", client("sftp", "-P", "key")).env("TO", format!("{}@127.0.0.1", user.name));
    command.env("PORT", port.to_string()).env("TERM", "xterm").env_remove("DISPLAY");
    command.env("HERE", here.path()).env("DIR", there.path());
    let done = command.output().unwrap();
    let clean = |bytes: &[u8]| {
        let directories = [(here.path(), "HERE"), (there.path(), "DIR")];
        let plain = directories.into_iter().fold(text(bytes), |shown, (path, name)| {
            shown.replace(&path.display().to_string(), name)
        });
        let plain = plain.replace(&port.to_string(), "PORT");
        let lines = plain.lines().filter(|line| !line.starts_with("Warning: Permanently added"));
        lines.map(|line| format!("{}\n", line.trim_end())).collect::<String>()
    };
    (done.status.code(), clean(&done.stdout), clean(&done.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_scripts_see_the_same_as_with_debians_sshd() {
    let Some(sshd) = sshd() else {
        assert!(std::env::var_os("CI").is_none(), "OpenSSH's sshd is not installed");
        println!("NOT RUN: the comparison with OpenSSH's sshd, which is not installed");
        return;
    };
    let (user, files) = (User::current(), tempfile::tempdir().unwrap());
    let key = files.path().join("key");
    keygen(&key);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, reference_port) = (listener.local_addr().unwrap().port(), free_port());
    let reference = reference(&sshd, files.path(), reference_port);
    let account = Account {
        username: user.name.clone(),
        aliases: Vec::new(),
        password: Password::none(),
        keys: parse_keys(&std::fs::read_to_string(key.with_extension("pub")).unwrap()).unwrap(),
        shell: user.shell.clone(),
        home: user.home.clone(),
        environment: Vec::new(),
    };
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let server = tokio::spawn(serve(listener, account, new_host_key().unwrap(), stopped));
    let faults =
        tokio::task::spawn_blocking(move || compare(files.path(), &user, reference_port, port))
            .await
            .unwrap();
    stop.send_replace(true);
    server.await.unwrap();
    drop(reference);
    assert!(faults.is_empty(), "{} of {} differ: {faults:#?}", faults.len(), CASES.len());
}

/// Prints the table; the differences that are not documented.
fn compare(files: &Path, user: &User, reference: u16, port: u16) -> Vec<String> {
    let (mut equal, mut faults) = (0_usize, Vec::new());
    for (name, script) in CASES {
        let started = Instant::now();
        let theirs = run(script, files, user, reference);
        let between = started.elapsed();
        let ours = run(script, files, user, port);
        let took = started.elapsed().saturating_sub(between);
        let reason = DIFFERENCES.iter().find(|(case, _)| *case == name).map(|(_, reason)| *reason);
        let result = match (theirs == ours, reason) {
            (true, None) => "equal".to_owned(),
            (true, Some(_)) => {
                faults.push(format!("{name}: equal, and listed as different"));
                "EQUAL, AND LISTED AS DIFFERENT".to_owned()
            }
            (false, Some(reason)) => format!("different: {reason}"),
            (false, None) => {
                faults.push(format!("{name}: sshd {theirs:?}, ours {ours:?}"));
                "DIFFERENT".to_owned()
            }
        };
        equal = equal.saturating_add(usize::from(theirs == ours));
        let (between, took) = (between.as_millis(), took.as_millis());
        println!("{name:<44} sshd {between:>5} ms, ours {took:>5} ms, {result}");
    }
    println!(
        "{equal} of {} behaviours equal, {} documented differences",
        CASES.len(),
        DIFFERENCES.len()
    );
    faults
}
