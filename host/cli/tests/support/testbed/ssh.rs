//! OpenSSH's client.

use std::process::{Child, Command, Stdio};

/// OpenSSH's client with a password.
#[derive(Clone, Copy)]
pub struct Ssh<'a> {
    pub port: u16,
    pub username: &'a str,
    pub password: &'a str,
}

impl Ssh<'_> {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("sshpass");
        command.env("SSHPASS", self.password).args(["-e", "ssh", "-p", &self.port.to_string()]);
        command.args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "ConnectTimeout=10",
        ]);
        command.args([
            "-o",
            "PreferredAuthentications=password",
            "-o",
            "NumberOfPasswordPrompts=1",
        ]);
        command.arg(format!("{}@127.0.0.1", self.username)).arg(line).stdin(Stdio::null());
        command
    }

    /// Runs a command; gives its output and exit status.
    pub fn run(&self, line: &str) -> (String, Option<i32>) {
        let output = self.command(line).output().unwrap();
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
    }

    /// Leaves a command running.
    pub fn open(&self, line: &str) -> Child {
        self.command(line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}
