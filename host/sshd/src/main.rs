//! `paygress-sshd`: the SSH server of a leased pod. See `k8s/ssh-image/README.md`.
//!
//! usage: `paygress-sshd [--login DIR] [--listen ADDRESS] [--shell PATH] [--home DIR]
//!     [--host-keys DIR]`
//!
//! As process 1 of a container it starts itself once more as a child and only reaps processes and
//! forwards SIGTERM: orphans of the user's programs must not pile up.

use paygress_sshd::{Account, HostKeys, listen_on_both_families, serve};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Where it listens without `--listen`.
const PORT: u16 = 2222;

/// As in shells: 128 plus the number of SIGTERM.
const TERMINATED: u8 = 143;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = if std::process::id() == 1 { init().await } else { run().await };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("paygress-sshd: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Process 1: starts the server, reaps orphans, exits when the server does.
async fn init() -> Result<ExitCode, Box<dyn Error>> {
    let mut children = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let server = std::process::Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .spawn()?;
    let server =
        Pid::from_raw(i32::try_from(server.id())?).ok_or("the server has no process id")?;
    loop {
        tokio::select! {
            _ = children.recv() => {}
            _ = terminate.recv() => kill_process(server, Signal::TERM)?,
        }
        while let Ok(Some((ended, status))) = wait(WaitOptions::NOHANG) {
            if ended == server {
                let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
                return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
            }
        }
    }
}

async fn run() -> Result<ExitCode, Box<dyn Error>> {
    let Options { login, listen, shell, home, host_keys } =
        Options::parse(std::env::args().skip(1))?;
    let account = Account::read(&login, shell, home)?;
    name_user(&account);
    let host_keys = match host_keys {
        Some(directory) => HostKeys::in_directory(&directory)?,
        None => HostKeys::new()?,
    };
    let listener = match listen {
        Some(address) => TcpListener::bind(address).await?,
        None => listen_on_both_families(PORT).await?,
    };
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        terminate.recv().await;
        stop.send_replace(true);
    });
    serve(listener, account, host_keys, stopped).await;
    // The server ends only on SIGTERM: a Job must not take that for success.
    Ok(ExitCode::from(TERMINATED))
}

struct Options {
    login: PathBuf,
    listen: Option<String>,
    shell: PathBuf,
    home: PathBuf,
    host_keys: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error(
        "unknown option {0}; the options are --login, --listen, --shell, --home and --host-keys"
    )]
    UnknownOption(String),
    #[error("{0} needs a value")]
    MissingValue(String),
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, UsageError> {
        let mut options = Self {
            login: "/run/paygress/login".into(),
            listen: None,
            shell: "/bin/sh".into(),
            home: "/home/user".into(),
            host_keys: None,
        };
        while let Some(option) = arguments.next() {
            if !matches!(
                option.as_str(),
                "--login" | "--listen" | "--shell" | "--home" | "--host-keys"
            ) {
                return Err(UsageError::UnknownOption(option));
            }
            let Some(value) = arguments.next() else {
                return Err(UsageError::MissingValue(option));
            };
            match option.as_str() {
                "--login" => options.login = value.into(),
                "--listen" => options.listen = Some(value),
                "--shell" => options.shell = value.into(),
                "--host-keys" => options.host_keys = Some(value.into()),
                _ => options.home = value.into(),
            }
        }
        Ok(options)
    }
}

/// Adds the user to the container's own /etc/passwd, if the image allows it, so that prompts and
/// `whoami` show the name.
fn name_user(account: &Account) {
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    if uid.is_root() {
        return;
    }
    let (home, shell) = (account.home.display(), account.shell.display());
    let line =
        format!("{}:x:{}:{}::{home}:{shell}\n", account.username, uid.as_raw(), gid.as_raw());
    // Best effort: if the file is read-only, the user is shown as a number, and nothing else
    // changes.
    let _ = std::fs::write("/etc/passwd", format!("root:x:0:0::/:/sbin/nologin\n{line}"));
}
