//! `paygress-sshd`: the SSH server of a leased pod. See `k8s/images/README.md`.
//!
//! usage: `paygress-sshd [--login DIR] [--lease DIR] [--listen ADDRESS] [--tools DIR]
//!     [--shell PATH] [--home DIR] [--host-keys DIR] [--user-namespace]`,
//!     `paygress-sshd install DIR [--user-namespace] [--termination-log PATH]`,
//!     `paygress-sshd hold`: only waits for SIGTERM,
//!     `paygress-sshd reach ADDRESS…`: prints those that take a connection
//!
//! As process 1 of a container it starts itself once more as a child and only reaps processes and
//! forwards SIGTERM: orphans of the user's programs must not pile up.

use paygress_sshd::{
    Account, HostKeySecret, HostKeys, Image, InstallError, NO_USER_NAMESPACE, ReachTask, install,
    listen_on_both_families, reached, require_user_namespace, serve_lease, stopped_by_sigterm,
};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use std::error::Error;
#[cfg(target_env = "gnu")]
use std::ffi::{c_char, c_int};
use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Where it listens without `--listen`.
const PORT: u16 = 2222;

/// As in shells: 128 plus the number of SIGTERM.
const TERMINATED: u8 = 143;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((command, rest)) if command == "install" => install_into(rest).await,
        Some((command, [])) if command == "hold" => hold().await,
        Some((command, rest)) if command == "reach" => reach(rest).await,
        _ if std::process::id() == 1 => init().await,
        _ => run(arguments.into_iter()).await,
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("paygress-sshd: {error}");
            ExitCode::FAILURE
        }
    }
}

/// For the container that a pod ends with, where all others are sidecars.
async fn hold() -> Result<ExitCode, Box<dyn Error>> {
    signal(SignalKind::terminate())?.recv().await;
    Ok(ExitCode::from(TERMINATED))
}

/// For operators and customers who want to see what a pod reaches.
async fn reach(arguments: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    let addresses: Result<Vec<SocketAddr>, _> =
        arguments.iter().map(|argument| argument.parse()).collect();
    let addresses = addresses.map_err(|_| UsageError::Reach)?;
    if addresses.is_empty() {
        return Err(UsageError::Reach.into());
    }
    let reached = reached(&addresses, Duration::ZERO).await;
    let mut output = std::io::stdout().lock();
    for address in reached {
        writeln!(output, "{address}")?;
    }
    Ok(ExitCode::SUCCESS)
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

async fn run(arguments: impl Iterator<Item = String>) -> Result<ExitCode, Box<dyn Error>> {
    let Options { login, lease, listen, tools, shell, home, host_keys, user_namespace } =
        Options::parse(arguments)?;
    if user_namespace == UserNamespace::Required
        && let Err(error) = require_user_namespace()
    {
        eprintln!("paygress-sshd: {error}");
        leave_behind(Path::new(TERMINATION_LOG), &error);
        return Ok(ExitCode::from(NO_USER_NAMESPACE));
    }
    #[cfg(target_env = "gnu")]
    resolve_without_nsswitch();
    let image = Image::find(tools.as_deref(), shell, home);
    let account = Account::read(&login, &image)?;
    image.name_user(&account.username);
    let host_keys = match (host_keys, HostKeySecret::of_login(&login)?) {
        (Some(directory), Some(secret)) => HostKeys::proved(&directory, secret)?,
        (Some(directory), None) => HostKeys::in_directory(&directory)?,
        (None, _) => HostKeys::new()?,
    };
    let listener = match listen {
        Some(address) => TcpListener::bind(address).await?,
        None => listen_on_both_families(PORT).await?,
    };
    serve_lease(listener, account, host_keys, lease, stopped_by_sigterm()?).await;
    // The server ends only on SIGTERM: a Job must not take that for success.
    Ok(ExitCode::from(TERMINATED))
}

/// Names are resolved by /etc/hosts and DNS. glibc, linked statically, would load the libraries that
/// the image's /etc/nsswitch.conf names besides, and crash with those of another glibc.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn resolve_without_nsswitch() {
    unsafe extern "C" {
        /// Of glibc's `nss.h`; 0 is success.
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }
    // SAFETY: both are constants with a NUL at their end, and nothing is resolved yet.
    let failed = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) } != 0;
    if failed {
        tracing::warn!("names are resolved as /etc/nsswitch.conf says");
    }
}

/// Whether root of this container must be another user outside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UserNamespace {
    Any,
    Required,
}

struct Options {
    login: PathBuf,
    /// Where there is none, terminals show nothing of the end.
    lease: PathBuf,
    listen: Option<String>,
    tools: Option<PathBuf>,
    shell: Option<PathBuf>,
    home: Option<PathBuf>,
    host_keys: Option<PathBuf>,
    user_namespace: UserNamespace,
}

#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error(
        "unknown option {0}; the options are --login, --lease, --listen, --tools, --shell, --home, \
         --host-keys and --user-namespace"
    )]
    UnknownOption(String),
    #[error("{0} needs a value")]
    MissingValue(String),
    #[error(
        "the command is: paygress-sshd install DIR [--user-namespace] [--termination-log PATH]"
    )]
    Install,
    #[error("the command is: paygress-sshd reach ADDRESS:PORT…, with addresses and no names")]
    Reach,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, UsageError> {
        let mut options = Self {
            login: "/run/paygress/login".into(),
            lease: "/run/paygress/lease".into(),
            listen: None,
            tools: None,
            shell: None,
            home: None,
            host_keys: None,
            user_namespace: UserNamespace::Any,
        };
        while let Some(option) = arguments.next() {
            if option == "--user-namespace" {
                options.user_namespace = UserNamespace::Required;
                continue;
            }
            if !matches!(
                option.as_str(),
                "--login"
                    | "--lease"
                    | "--listen"
                    | "--tools"
                    | "--shell"
                    | "--home"
                    | "--host-keys"
            ) {
                return Err(UsageError::UnknownOption(option));
            }
            let Some(value) = arguments.next() else {
                return Err(UsageError::MissingValue(option));
            };
            match option.as_str() {
                "--login" => options.login = value.into(),
                "--lease" => options.lease = value.into(),
                "--listen" => options.listen = Some(value),
                "--tools" => options.tools = Some(value.into()),
                "--shell" => options.shell = Some(value.into()),
                "--host-keys" => options.host_keys = Some(value.into()),
                _ => options.home = Some(value.into()),
            }
        }
        Ok(options)
    }
}

/// Where Kubernetes reads what a container leaves behind.
const TERMINATION_LOG: &str = "/dev/termination-log";

async fn install_into(arguments: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    let usage = || UsageError::Install;
    let (directory, mut options) = arguments.split_first().ok_or_else(usage)?;
    let (mut log, mut needs_namespace) = (TERMINATION_LOG, false);
    while let Some((option, rest)) = options.split_first() {
        options = match (option.as_str(), rest) {
            ("--user-namespace", rest) => {
                needs_namespace = true;
                rest
            }
            ("--termination-log", [path, rest @ ..]) => {
                log = path.as_str();
                rest
            }
            _ => return Err(usage().into()),
        };
    }
    if directory.starts_with('-') {
        return Err(usage().into());
    }
    let (directory, log) = (Path::new(directory), Path::new(log));
    let permitted = if needs_namespace { require_user_namespace() } else { Ok(()) };
    let installed = permitted.and_then(|()| install(directory, log));
    if let Err(error) = &installed {
        leave_behind(log, error);
    }
    installed?;
    if let Err(error) = report_reached(log).await {
        // Nothing but this report depends on it.
        eprintln!("paygress-sshd: what this pod reaches is not known: {error}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Tries what the service wants to know of a probe pod, and adds it to the termination message.
async fn report_reached(log: &Path) -> Result<(), Box<dyn Error>> {
    let Some(task) = ReachTask::from_environment()? else { return Ok(()) };
    let report = task.run().await;
    let mut existing = OpenOptions::new().append(true).open(log)?;
    existing.write_all(report.to_line().as_bytes())?;
    Ok(())
}

/// Kubernetes has made the file, and shows what is in it.
fn leave_behind(log: &Path, error: &InstallError) {
    let existing = OpenOptions::new().write(true).truncate(true).open(log);
    let _ = existing.and_then(|mut file| writeln!(file, "{error}"));
}
