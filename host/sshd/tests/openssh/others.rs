//! Clients that are not OpenSSH's. Those that are no Debian package run in `cargo xtask test`,
//! which installs them.

use crate::server::{PASSWORD, Server, are_there, keygen, output, text};
use paygress_sshd::new_host_key;
use russh::keys::HashAlg;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A server, how its host key is shown, and a directory with a user's key.
struct Login {
    server: Server,
    fingerprint: String,
    here: tempfile::TempDir,
}

impl Login {
    async fn new() -> Self {
        let here = tempfile::tempdir().unwrap();
        keygen(&here.path().join("key"), &["ed25519"]);
        let sold = std::fs::read_to_string(here.path().join("key.pub")).unwrap();
        let host_key = new_host_key().unwrap();
        let fingerprint = host_key.public_key().fingerprint(HashAlg::Sha256).to_string();
        let server = Server::start_with(Some(&sold), host_key).await;
        Self { server, fingerprint, here }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    /// A program that gets the password by these variables; it has a minute.
    fn program(&self, name: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("timeout");
        command.arg("60").arg(name).current_dir(self.here.path());
        command.env("DROPBEAR_PASSWORD", PASSWORD).env("SSHPASS", PASSWORD);
        command
    }

    fn dbclient(&self, options: &[&str], command: &str) -> Command {
        let mut dbclient = self.program("dbclient");
        // Twice: whatever the host key is.
        dbclient.args(["-y", "-y", "-p", &self.server.port.to_string()]).args(options);
        dbclient.args(["alice@127.0.0.1", command]);
        dbclient
    }

    /// One of PuTTY's programs.
    fn putty(&self, program: &str, options: &[&str]) -> Command {
        let password = self.file("password");
        std::fs::write(&password, PASSWORD).unwrap();
        let mut command = self.program(program);
        command.args(["-batch", "-hostkey", &self.fingerprint, "-l", "alice", "-pwfile"]);
        command.arg(password).args(["-P", &self.server.port.to_string()]).args(options);
        command
    }
}

/// A file of numbers, and what `md5sum` prints of it.
fn numbers(file: &Path) -> String {
    let lines: String = (1..=400_000).map(|number| format!("{number}\n")).collect();
    std::fs::write(file, lines).unwrap();
    let sum = Command::new("md5sum").stdin(std::fs::File::open(file).unwrap()).output().unwrap();
    text(&sum.stdout)
}

fn same(one: &Path, other: &Path) -> bool {
    std::fs::read(one).unwrap() == std::fs::read(other).unwrap()
}

/// What a program that must succeed prints.
async fn success(command: Command) -> String {
    let done = output(command).await;
    assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    text(&done.stdout)
}

fn shown(done: &Output) -> (String, Option<i32>) {
    (text(&done.stdout), done.status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn dropbears_client_runs_commands_and_carries_scp() {
    if !are_there(&["dbclient", "dropbearconvert"]) {
        return;
    }
    let login = Login::new().await;
    let done = output(login.dbclient(&[], "echo out; echo err >&2; exit 42")).await;
    assert_eq!(shown(&done), ("out\n".to_owned(), Some(42)));
    assert!(text(&done.stderr).ends_with("err\n"), "{}", text(&done.stderr));
    let mut convert = login.program("dropbearconvert");
    convert.args(["openssh", "dropbear", "key", "dropbear-key"]);
    success(convert).await;
    let mut with_key = login.dbclient(&["-i", "dropbear-key"], "echo key; exit 3");
    with_key.env_remove("DROPBEAR_PASSWORD");
    let done = output(with_key).await;
    assert_eq!(shown(&done), ("key\n".to_owned(), Some(3)));
    let sum = numbers(&login.file("up"));
    let mut upload = login.dbclient(&[], "md5sum");
    upload.stdin(std::fs::File::open(login.file("up")).unwrap());
    assert_eq!(success(upload).await, sum);
    let expected = format!("{sum}{}", std::fs::read_to_string(login.file("up")).unwrap());
    let download = login.dbclient(&[], "seq 1 400000 | tee seq | md5sum; cat seq");
    assert_eq!(success(download).await, expected);
    // `scp -S` takes no options. Another process writes the file, or it might be busy.
    let mut wrapper = login.program("sh");
    wrapper.args([
        "-c",
        r#"printf '#!/bin/sh\nexec dbclient -y -y "$@"\n' > wrapper; chmod +x wrapper"#,
    ]);
    success(wrapper).await;
    for (from, to) in [("up", "alice@127.0.0.1:there"), ("alice@127.0.0.1:there", "back")] {
        let mut scp = login.program("scp");
        scp.args(["-O", "-S", "./wrapper", "-P", &login.server.port.to_string(), from, to]);
        success(scp).await;
    }
    assert!(same(&login.file("up"), &login.file("back")));
}

#[tokio::test(flavor = "multi_thread")]
async fn puttys_programs_run_commands_and_copy_files() {
    if !are_there(&["plink", "pscp", "psftp"]) {
        return;
    }
    let login = Login::new().await;
    let done =
        output(login.putty("plink", &["127.0.0.1", "echo out; echo err >&2; exit 42"])).await;
    assert_eq!(shown(&done), ("out\n".to_owned(), Some(42)));
    assert!(text(&done.stderr).ends_with("err\n"), "{}", text(&done.stderr));
    let sum = numbers(&login.file("up"));
    let mut upload = login.putty("plink", &["127.0.0.1", "md5sum"]);
    upload.stdin(std::fs::File::open(login.file("up")).unwrap());
    assert_eq!(success(upload).await, sum);
    let port = login.server.port.to_string();
    let forwarded = login.putty("plink", &["-nc", &format!("127.0.0.1:{port}"), "127.0.0.1"]);
    assert!(success(forwarded).await.starts_with("SSH-2.0-"));
    for protocol in ["-sftp", "-scp"] {
        let (there, back) = (format!("127.0.0.1:there{protocol}"), format!("back{protocol}"));
        success(login.putty("pscp", &[protocol, "up", &there])).await;
        success(login.putty("pscp", &[protocol, &there, &back])).await;
        assert!(same(&login.file("up"), &login.file(&back)), "{protocol}");
    }
    std::fs::write(login.file("batch"), "mkdir d\nput up d/f\nget d/f down\nls d\n").unwrap();
    let listed = success(login.putty("psftp", &["-b", "batch", "127.0.0.1"])).await;
    assert!(listed.contains("2688895"), "{listed}");
    assert!(same(&login.file("up"), &login.file("down")));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// One of the scripts beside this directory, with what it needs.
async fn script(program: impl AsRef<std::ffi::OsStr>, file: &str) {
    let login = Login::new().await;
    let mut command = login.program(program);
    command.arg(root().join("host/sshd/tests/clients").join(file));
    command.arg(login.server.port.to_string()).arg(login.file("key"));
    print!("{}", success(command).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python's packages: run `cargo xtask test`"]
async fn paramiko_works() {
    script(root().join("target/venv-ssh/bin/python"), "with_paramiko.py").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs npm's packages: run `cargo xtask test`"]
async fn the_ssh2_of_npm_works() {
    script("node", "with_ssh2.mjs").await;
}

/// As Ansible runs its modules: as files that it copies, and from standard input.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python's packages: run `cargo xtask test`"]
async fn ansible_pings_and_copies() {
    let login = Login::new().await;
    let (home, port) = (login.server.home.path().display(), login.server.port);
    let inventory = format!(
        "pod ansible_host=127.0.0.1 ansible_port={port} ansible_user=alice \
         ansible_ssh_private_key_file={} ansible_remote_tmp={home}/tmp \
         ansible_python_interpreter=/usr/bin/python3\n",
        login.file("key").display()
    );
    std::fs::write(login.file("inventory"), inventory).unwrap();
    numbers(&login.file("up"));
    let ansible = |pipelining: &str, arguments: &[&str]| {
        let mut command = login.program(root().join("target/venv-ssh/bin/ansible"));
        command.env("ANSIBLE_HOME", login.file("ansible")).env("ANSIBLE_HOST_KEY_CHECKING", "no");
        command.env("ANSIBLE_SSH_CONTROL_PATH_DIR", login.file("control"));
        command.env("ANSIBLE_PIPELINING", pipelining).args(["-i", "inventory", "pod", "-m"]);
        command.args(arguments);
        command
    };
    assert!(success(ansible("no", &["ping"])).await.contains("\"pong\""));
    for (pipelining, expected) in [("yes", "CHANGED"), ("no", "SUCCESS")] {
        let copied = success(ansible(pipelining, &["copy", "-a", "src=up dest=copied"])).await;
        assert!(copied.contains(expected), "{copied}");
    }
    assert!(same(&login.file("up"), &login.server.home.path().join("copied")));
}
