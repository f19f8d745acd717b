//! `paygress-sshd`: what a leased pod runs. See `k8s/ssh-image/README.md`.
//!
//! usage: `paygress-sshd [--login DIR] [--listen ADDRESS] [--shell PATH] [--home DIR]`
//!
//! As process 1 of a container it starts itself once more and only reaps and forwards signals:
//! orphans of the customer's programs must not pile up.

use paygress_sshd::{Account, new_host_key, serve};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// As shells tell it: 128 and SIGTERM's number.
const TERMINATED: u8 = 143;
const OPTIONS: [(&str, &str); 4] = [
    ("--login", "/run/paygress/login"),
    ("--listen", "0.0.0.0:2222"),
    ("--shell", "/bin/sh"),
    ("--home", "/home/user"),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = if std::process::id() == 1 { init().await } else { run().await };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("paygress-sshd: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Process 1: starts the server, reaps what is orphaned, ends when the server does.
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
    let options = options(std::env::args().skip(1))?;
    let value = |name: &str| options.get(name).cloned().unwrap_or_default();
    let account = Account::read(
        Path::new(&value("--login")),
        PathBuf::from(value("--shell")),
        PathBuf::from(value("--home")),
    )?;
    name_user(&account);
    let listener = TcpListener::bind(value("--listen")).await?;
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        terminate.recv().await;
        stop.send_replace(true);
    });
    serve(listener, account, new_host_key()?, stopped).await;
    // It ends only when it is told to: a Job must not take that for a work that is done.
    Ok(ExitCode::from(TERMINATED))
}

fn options(
    mut arguments: impl Iterator<Item = String>,
) -> Result<HashMap<&'static str, String>, String> {
    let mut options: HashMap<&str, String> =
        OPTIONS.iter().map(|(name, default)| (*name, (*default).to_owned())).collect();
    while let Some(argument) = arguments.next() {
        let known = OPTIONS.iter().find(|(name, _)| *name == argument);
        let (name, _) = known.ok_or_else(|| {
            format!("unknown option {argument}; known are --login, --listen, --shell, --home")
        })?;
        options.insert(name, arguments.next().ok_or_else(|| format!("{name} needs a value"))?);
    }
    Ok(options)
}

/// Gives the user a name in the container's own /etc/passwd, where the image allows it: prompts and
/// `whoami` show it.
fn name_user(account: &Account) {
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    if uid.is_root() {
        return;
    }
    let (home, shell) = (account.home.display(), account.shell.display());
    let line =
        format!("{}:x:{}:{}::{home}:{shell}\n", account.username, uid.as_raw(), gid.as_raw());
    // Best effort: with a read-only file the user is a number, nothing else changes.
    let _ = std::fs::write("/etc/passwd", format!("root:x:0:0::/:/sbin/nologin\n{line}"));
}
