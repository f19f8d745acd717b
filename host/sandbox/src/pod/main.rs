//! `paygress-pod`: what runs in a local pod. The local runtime starts it; nobody else needs to.
//!
//! ```text
//! paygress-pod enter OPTIONS… -- COMMAND…   process 1: gives the pod its files, runs the command
//! paygress-pod init COMMAND…                process 1 where bubblewrap has given the pod its files
//! paygress-pod serve LOGIN LEASE HOME       the SSH server; its listener is the standard input
//! paygress-pod check LOGIN LEASE HOME       whether a pod can run as it was started
//! ```

mod enter;
mod keyring;

use paygress_sandbox::{HOST_KEY, READY};
use paygress_sshd::{Account, Image, PrivateKey};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use std::error::Error;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use tokio::net::TcpListener;

const SHELL: &str = "/bin/sh";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("paygress-pod: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[OsString]) -> Result<ExitCode, Box<dyn Error>> {
    let (role, arguments) = arguments.split_first().ok_or("it is started by the local runtime")?;
    match (role.to_str(), arguments) {
        (Some("enter"), arguments) => Ok(enter::enter(arguments)?),
        (Some("init"), arguments) => Ok(enter::init(arguments)?),
        (Some("serve"), [login, lease, home]) => {
            serve(Path::new(login), Path::new(lease), Path::new(home))
        }
        (Some("check"), [login, lease, home]) => {
            check(Path::new(login), Path::new(lease), Path::new(home))
        }
        _ => Err("it is started by the local runtime".into()),
    }
}

/// Until it is killed; by SIGTERM it ends the programs of its sessions as well.
fn serve(login: &Path, lease: &Path, home: &Path) -> Result<ExitCode, Box<dyn Error>> {
    // Its listener is a socket of the machine's network, and the programs of its sessions have the same
    // user: they must not take it, nor read the host key.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    keyring::leave_session_keyring()?;
    // Not in the session of the terminal that the runtime was started from: a pod could type there.
    let _ = rustix::process::setsid();
    let image = Image::find(None, Some(SHELL.into()), Some(home.to_owned()));
    let account = Account::read(login, &image)?;
    let host_key = PrivateKey::from_openssh(std::fs::read(login.join(HOST_KEY))?)?;
    let listener = std::net::TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let stopped = paygress_sshd::stopped_by_sigterm()?;
        writeln!(std::io::stdout(), "{READY}")?;
        let lease = lease.to_owned();
        paygress_sshd::serve_lease(listener, account, host_key, lease, stopped).await;
        Ok::<_, Box<dyn Error>>(ExitCode::SUCCESS)
    })
}

/// Does what a login does: reads, writes, and opens a terminal; not as root.
fn check(login: &Path, lease: &Path, home: &Path) -> Result<ExitCode, Box<dyn Error>> {
    if rustix::process::geteuid().is_root() {
        return Err("the pod would run as root".into());
    }
    std::fs::read(login.join(HOST_KEY))?;
    std::fs::read_dir(lease)?;
    std::fs::write(home.join("written"), "")?;
    std::fs::read_dir("/proc/self")?;
    OpenOptions::new().read(true).write(true).open("/dev/ptmx")?;
    Ok(ExitCode::SUCCESS)
}
