//! The program of one session channel: on a PTY or on pipes, copied to and from the channel.
//!
//! As with OpenSSH, the channel ends when the program has ended and nobody has its output open any
//! more: no clock cuts what is still to be sent. A program outlives its connection if it can do
//! without terminal and pipes; the [`Groups`] end with the server.

use crate::account::Account;
use crate::channels::Channels;
use crate::groups::Groups;
use crate::input::{DRAIN, InputReceiver};
use crate::terminal::Terminal;
use crate::terminals::{Lines, Terminals};
use bytes::Bytes;
use pty_process::{OwnedWritePty, Size};
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use rustix::termios::tcsetwinsize;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::Child;
use tokio::sync::watch;

/// Output is sent in pieces of this size: the largest packet of russh.
const CHUNK_BYTES: usize = 32_768;
/// The code of SSH_EXTENDED_DATA_STDERR (RFC 4254, 5.2).
const STDERR: u32 = 1;
/// The system's text for E2BIG.
const TOO_LONG: &str = "Argument list too long";
/// The programs' search path if neither the account nor the server has one.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

pub(crate) struct Program {
    pub(crate) account: Arc<Account>,
    /// The name that has logged in.
    pub(crate) user: String,
    /// A shell without one.
    pub(crate) command: Option<Vec<u8>>,
    /// The client's, in place of which the key's runs.
    pub(crate) original_command: Option<Vec<u8>>,
    pub(crate) terminal: Option<Terminal>,
    pub(crate) variables: Vec<(String, String)>,
}

/// What connects a program with its client.
pub(crate) struct Wires {
    pub(crate) output: Arc<ChannelWriteHalf<Msg>>,
    pub(crate) handle: Handle,
    pub(crate) input: InputReceiver,
    pub(crate) sizes: watch::Receiver<Option<Size>>,
    /// Notices that the channel is closed.
    pub(crate) open: watch::Receiver<()>,
    pub(crate) channels: Arc<Channels>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) terminals: Arc<Terminals>,
}

/// Starts the program: its process group. A command that is too long for the system starts and
/// fails, as with OpenSSH, whose process tries to become the shell.
pub(crate) fn start(program: &Program, wires: Wires) -> io::Result<Option<Pid>> {
    let (output, open) = (Arc::clone(&wires.output), wires.open.clone());
    let channels = Arc::clone(&wires.channels);
    let started = match &program.terminal {
        Some(terminal) => spawn_pty(program, terminal, wires),
        None => spawn_piped(program, wires),
    };
    match started {
        Err(error) if error.raw_os_error() == Some(Errno::TOOBIG.raw_os_error()) => {
            let has_terminal = program.terminal.is_some();
            let text = format!("{}: {TOO_LONG}", program.account.shell.display());
            tokio::spawn(fail(text, has_terminal, output, open, channels));
            Ok(None)
        }
        started => started,
    }
}

/// Shows why there is no program, and ends its channel.
async fn fail(
    text: String,
    has_terminal: bool,
    output: Arc<ChannelWriteHalf<Msg>>,
    mut open: watch::Receiver<()>,
    channels: Arc<Channels>,
) {
    let shown = async {
        if has_terminal {
            output.data_bytes(format!("{text}\r\n")).await
        } else {
            output.extended_data_bytes(STDERR, format!("{text}\n")).await
        }
    };
    tokio::select! {
        _ = shown => {}
        _ = open.changed() => {}
    }
    end(&output, &channels, 1).await;
}

/// Ends the channel of what is no program.
pub(crate) async fn end(output: &ChannelWriteHalf<Msg>, channels: &Channels, status: u32) {
    let _ = output.exit_status(status).await;
    let _ = output.eof().await;
    channels.close(output.id());
    let _ = output.close().await;
}

/// The shell by its name, as a login shell or with a command.
fn shell(program: &Program) -> (OsString, Vec<OsString>) {
    let name = program.account.shell.file_name().unwrap_or(program.account.shell.as_os_str());
    match &program.command {
        Some(command) => (name.to_owned(), vec!["-c".into(), OsString::from_vec(command.clone())]),
        None => {
            let mut login = OsString::from("-");
            login.push(name);
            (login, Vec::new())
        }
    }
}

fn environment(program: &Program) -> Vec<(OsString, OsString)> {
    let (account, user) = (&program.account, OsString::from(&program.user));
    let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    let mut variables: Vec<(OsString, OsString)> = vec![("PATH".into(), path)];
    variables.extend(account.environment.iter().cloned());
    let own: [(&str, OsString); 5] = [
        ("MAIL", format!("/var/mail/{}", program.user).into()),
        ("USER", user.clone()),
        ("LOGNAME", user),
        ("HOME", account.home.clone().into()),
        ("SHELL", account.shell.clone().into()),
    ];
    variables.extend(own.map(|(name, value)| (OsString::from(name), value)));
    let terminal = program.terminal.as_ref();
    variables.extend(terminal.map(|it| (OsString::from("TERM"), OsString::from(&it.term))));
    let of_client = program.variables.iter();
    variables.extend(of_client.map(|(name, it)| (OsString::from(name), OsString::from(it))));
    let original = program.original_command.clone().map(OsString::from_vec);
    variables.extend(original.map(|command| (OsString::from("SSH_ORIGINAL_COMMAND"), command)));
    variables
}

fn command(program: &Program) -> tokio::process::Command {
    let (name, arguments) = shell(program);
    let mut command = tokio::process::Command::new(&program.account.shell);
    // A user may have removed it.
    let home = Some(program.account.home.as_path()).filter(|home| home.is_dir());
    command
        .arg0(name)
        .args(arguments)
        .env_clear()
        .envs(environment(program))
        .current_dir(home.unwrap_or(Path::new("/")))
        .kill_on_drop(true);
    command
}

fn spawn_pty(program: &Program, terminal: &Terminal, wires: Wires) -> io::Result<Option<Pid>> {
    let (pty, pts) = pty_process::open().map_err(io::Error::other)?;
    pty.resize(terminal.size).map_err(io::Error::other)?;
    terminal.apply_modes(&pts);
    let name = rustix::pty::ptsname(&pty, Vec::new())?;
    let mut command = command(program);
    command.env("SSH_TTY", OsStr::from_bytes(name.as_bytes()));
    let child = pty_process::Command::from(command).spawn(pts).map_err(system_error)?;
    let window = pty.as_fd().try_clone_to_owned()?;
    let (mut read, write) = pty.into_split();
    let Wires { output, handle, input, sizes, open, channels, groups, terminals } = wires;
    let output_of_end = Arc::clone(&output);
    // A terminal is hung up at once.
    let drain = Duration::ZERO;
    let ending = Ending { output: output_of_end, handle, open, channels, groups, drain };
    let group = ending.track(&child);
    tokio::spawn(async move {
        let lines = terminals.open();
        let copy_output = async move { copy_from_pty(&mut read, &output, lines).await };
        ending.run(child, group, copy_to_pty(input, sizes, write, window), copy_output).await;
    });
    Ok(group)
}

/// The error of the system, as it is where there are pipes.
fn system_error(error: pty_process::Error) -> io::Error {
    match error {
        pty_process::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

/// How the output of a program was copied.
enum Copied {
    /// To its end, or as long as somebody read it.
    All,
    /// The pod ends, and the terminal has shown its last line.
    HungUp,
}

/// The output of the program, with lines about the pod between its pieces.
async fn copy_from_pty(
    pty: &mut (impl AsyncRead + Unpin),
    output: &ChannelWriteHalf<Msg>,
    mut lines: Lines,
) -> Copied {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let bytes = tokio::select! {
            // A line is shown before what follows it.
            biased;
            line = lines.next() => match line {
                Some(line) => line,
                None => return Copied::HungUp,
            },
            // At the program's end it returns an error.
            read = pty.read(&mut buffer) => match read.ok().and_then(|read| buffer.get(..read)) {
                Some(bytes) if !bytes.is_empty() => Bytes::copy_from_slice(bytes),
                _ => return Copied::All,
            },
        };
        if output.data_bytes(bytes).await.is_err() {
            return Copied::All;
        }
    }
}

/// Ends only with the program: closing the terminal would hang it up.
async fn copy_to_pty(
    mut input: InputReceiver,
    mut sizes: watch::Receiver<Option<Size>>,
    mut pty: OwnedWritePty,
    window: OwnedFd,
) {
    loop {
        let bytes = tokio::select! {
            biased;
            () = follow(&mut sizes, &window) => break,
            bytes = input.next() => match bytes {
                Some(bytes) => bytes,
                // As with OpenSSH: the terminal goes on, and its program with it.
                None => break,
            },
        };
        // What is typed after a change of the size sees it, and a program that does not read too.
        let written = tokio::select! {
            biased;
            () = follow(&mut sizes, &window) => break,
            written = pty.write_all(&bytes) => written,
        };
        if written.is_err() {
            break;
        }
    }
    drop(input);
    follow(&mut sizes, &window).await;
}

/// Gives the terminal the sizes of the client's window; never ends.
async fn follow(sizes: &mut watch::Receiver<Option<Size>>, window: &OwnedFd) {
    while sizes.changed().await.is_ok() {
        let size = *sizes.borrow_and_update();
        if let Some(size) = size {
            let _ = tcsetwinsize(window, size.into());
        }
    }
    std::future::pending().await
}

fn spawn_piped(program: &Program, wires: Wires) -> io::Result<Option<Pid>> {
    let mut child = command(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let missing = || io::Error::other("the program has no pipes");
    let mut stdin = child.stdin.take().ok_or_else(missing)?;
    let mut stdout = child.stdout.take().ok_or_else(missing)?;
    let mut stderr = child.stderr.take().ok_or_else(missing)?;
    let Wires { output, handle, mut input, open, channels, groups, .. } = wires;
    let output_of_end = Arc::clone(&output);
    let ending = Ending { output: output_of_end, handle, open, channels, groups, drain: DRAIN };
    let group = ending.track(&child);
    tokio::spawn(async move {
        let copy_input = async move {
            while let Some(bytes) = input.next().await {
                if write_flushed(&mut stdin, &bytes).await.is_err() {
                    break;
                }
            }
        };
        let copy_output = async move {
            tokio::join!(
                copy(&mut stdout, &output, None),
                copy(&mut stderr, &output, Some(STDERR))
            );
            Copied::All
        };
        ending.run(child, group, copy_input, copy_output).await;
    });
    Ok(group)
}

async fn write_flushed(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// What tells the client of the program's end.
struct Ending {
    output: Arc<ChannelWriteHalf<Msg>>,
    handle: Handle,
    open: watch::Receiver<()>,
    channels: Arc<Channels>,
    groups: Arc<Groups>,
    /// How long the program is given what its client has sent before it closed the channel.
    drain: Duration,
}

impl Ending {
    fn track(&self, child: &Child) -> Option<Pid> {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let group = id.and_then(Pid::from_raw);
        if let Some(group) = group {
            self.groups.add(group);
        }
        group
    }

    /// Copies until the program has ended and its output is sent, or the channel is closed, or its
    /// terminal hung up; then waits for the program alone.
    async fn run(
        mut self,
        mut child: Child,
        group: Option<Pid>,
        copy_input: impl Future<Output = ()> + Send,
        copy_output: impl Future<Output = Copied> + Send,
    ) {
        let mut copy_input: Option<Pin<Box<dyn Future<Output = ()> + Send + '_>>> =
            Some(Box::pin(copy_input));
        let mut copy_output = Box::pin(copy_output);
        let (mut is_running, mut is_sending) = (true, true);
        while is_running || is_sending {
            tokio::select! {
                status = child.wait(), if is_running => {
                    is_running = false;
                    // Nobody reads what is still to come.
                    copy_input = None;
                    self.report(status.ok()).await;
                }
                copied = &mut copy_output, if is_sending => match copied {
                    Copied::All => is_sending = false,
                    Copied::HungUp => break,
                },
                () = finished(&mut copy_input) => copy_input = None,
                // The sender never sends: the channel is closed.
                _ = self.open.changed() => break,
            }
        }
        // Closes terminal and pipes, that of the input when the program has all of it.
        drop(copy_output);
        if let Some(rest) = copy_input {
            let _ = tokio::time::timeout(self.drain, rest).await;
        }
        // After the exit status: a client that has seen both ends may close the channel, and russh
        // answers that at once.
        let _ = self.output.eof().await;
        self.channels.close(self.output.id());
        let _ = self.output.close().await;
        let _ = child.wait().await;
        if let Some(group) = group {
            self.groups.leader_ended(group);
        }
    }

    async fn report(&self, status: Option<ExitStatus>) {
        match status.map(|status| (status.code(), status.signal(), status.core_dumped())) {
            Some((_, Some(signal), core_dumped)) => {
                let (id, name) = (self.output.id(), signal_name(signal));
                let _ = self
                    .handle
                    .exit_signal_request(id, name, core_dumped, String::new(), String::new())
                    .await;
            }
            Some((code, None, _)) => {
                let code = code.and_then(|code| u32::try_from(code).ok()).unwrap_or(255);
                let _ = self.output.exit_status(code).await;
            }
            None => {
                let _ = self.output.exit_status(255).await;
            }
        }
    }
}

/// Waits for what is left; for ever if nothing is.
async fn finished(future: &mut Option<Pin<Box<dyn Future<Output = ()> + Send + '_>>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The signals of RFC 4254, 6.10.
const SIGNALS: [(&str, Signal); 13] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
];

/// The signal of a name.
pub(crate) fn signal(name: &str) -> Option<Signal> {
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal)
}

/// The name of a signal, OpenSSH's for one that has none.
fn signal_name(number: i32) -> Sig {
    let named = SIGNALS.iter().find(|(_, signal)| signal.as_raw() == number);
    Sig::Custom(named.map_or("SIG@openssh.com", |(name, _)| *name).to_owned())
}

pub(crate) async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    output: &ChannelWriteHalf<Msg>,
    extended: Option<u32>,
) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(read) = from.read(&mut buffer).await {
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { return };
        let bytes = bytes.to_vec();
        let sent = match extended {
            Some(code) => output.extended_data_bytes(code, bytes).await,
            None => output.data_bytes(bytes).await,
        };
        if sent.is_err() {
            return;
        }
    }
}
