//! The program of one channel: on a PTY or on pipes, copied to and from the channel until it ends
//! or the client disconnects.

use crate::account::Account;
use pty_process::Size;
use russh::ChannelWriteHalf;
use russh::server::Msg;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};

/// Input that a program has not read yet. A client that is further ahead waits, and its whole
/// connection with it…
const MAX_BUFFERED_BYTES: usize = 8 << 20;
/// …for at most this time: a program whose own output is not being read may never read its input.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Output is sent in pieces of this size: the largest packet of russh.
const CHUNK_BYTES: usize = 32_768;
/// How long output is still sent after the program's end; a background process may keep the pipes
/// open for ever.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(300);
/// From SIGHUP to SIGKILL.
const KILL_GRACE: Duration = Duration::from_millis(500);
/// The code of SSH_EXTENDED_DATA_STDERR (RFC 4254, 5.2).
const STDERR: u32 = 1;
/// EOT: the end of input on a terminal in canonical mode.
const END_OF_TRANSMISSION: u8 = 4;

/// The terminal of a `pty-req`.
pub(crate) struct Terminal {
    term: String,
    size: Size,
}

impl Terminal {
    pub(crate) fn new(term: &str, columns: u32, rows: u32) -> Self {
        Self { term: term.to_owned(), size: size(columns, rows) }
    }
}

fn size(columns: u32, rows: u32) -> Size {
    let clamp = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
    Size::new(clamp(rows), clamp(columns))
}

pub(crate) struct Program {
    pub(crate) account: Arc<Account>,
    pub(crate) command: Option<Vec<u8>>,
    pub(crate) terminal: Option<Terminal>,
    pub(crate) variables: Vec<(String, String)>,
}

/// The input of a running program.
pub(crate) struct ProgramInput {
    bytes: Option<mpsc::UnboundedSender<Vec<u8>>>,
    /// Bytes that the program has not read yet.
    buffered: watch::Sender<usize>,
    size: watch::Sender<Option<Size>>,
}

impl ProgramInput {
    /// Queues bytes for the program, and waits while too many are queued; `false` when it has not
    /// read on in time.
    pub(crate) async fn push(&self, data: &[u8]) -> bool {
        let Some(bytes) = &self.bytes else { return true };
        self.buffered.send_modify(|buffered| *buffered = buffered.saturating_add(data.len()));
        if bytes.send(data.to_vec()).is_err() {
            return true;
        }
        let mut buffered = self.buffered.subscribe();
        let has_room = buffered.wait_for(|buffered| *buffered <= MAX_BUFFERED_BYTES);
        tokio::time::timeout(STALL_TIMEOUT, has_room).await.is_ok()
    }

    /// Closes the program's standard input.
    pub(crate) fn end(&mut self) {
        self.bytes = None;
    }

    pub(crate) fn resize(&self, columns: u32, rows: u32) {
        self.size.send_replace(Some(size(columns, rows)));
    }
}

type Output = Arc<ChannelWriteHalf<Msg>>;

/// Starts the program. It runs until it exits, until its channel is closed, or until the sender of
/// `alive` is dropped.
pub(crate) fn start(
    program: Program,
    output: Output,
    alive: watch::Receiver<()>,
) -> io::Result<ProgramInput> {
    let (bytes, queue) = mpsc::unbounded_channel();
    let buffered = watch::Sender::new(0);
    let (size, resizes) = watch::channel(None);
    let input = InputQueue { bytes: queue, buffered: buffered.clone() };
    if program.terminal.is_some() {
        spawn_pty(program, output, input, resizes, alive)?;
    } else {
        spawn_piped(&program, output, input, alive)?;
    }
    Ok(ProgramInput { bytes: Some(bytes), buffered, size })
}

fn environment(program: &Program, term: Option<&str>) -> Vec<(String, String)> {
    let account = &program.account;
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    let mut variables = vec![
        ("USER".to_owned(), account.username.clone()),
        ("LOGNAME".to_owned(), account.username.clone()),
        ("HOME".to_owned(), text(&account.home)),
        ("SHELL".to_owned(), text(&account.shell)),
        ("PATH".to_owned(), path),
    ];
    variables.extend(term.map(|term| ("TERM".to_owned(), term.to_owned())));
    variables.extend(program.variables.iter().cloned());
    variables
}

fn spawn_pty(
    program: Program,
    output: Output,
    mut input: InputQueue,
    mut resizes: watch::Receiver<Option<Size>>,
    alive: watch::Receiver<()>,
) -> io::Result<()> {
    let Some(terminal) = &program.terminal else { return Err(io::ErrorKind::InvalidInput.into()) };
    let (pty, pts) = pty_process::open().map_err(io::Error::other)?;
    pty.resize(terminal.size).map_err(io::Error::other)?;
    let mut command = pty_process::Command::new(&program.account.shell)
        .env_clear()
        .envs(environment(&program, Some(&terminal.term)))
        .current_dir(&program.account.home)
        .kill_on_drop(true);
    command = match &program.command {
        Some(line) => command.arg("-c").arg(OsStr::from_bytes(line)),
        None => command.arg("-l"),
    };
    let child = command.spawn(pts).map_err(io::Error::other)?;
    let (mut read, mut write) = pty.into_split();
    tokio::spawn(async move {
        let copy_input = async {
            loop {
                tokio::select! {
                    bytes = input.next() => match bytes {
                        Some(bytes) => if write.write_all(&bytes).await.is_err() { break },
                        None => { let _ = write.write_all(&[END_OF_TRANSMISSION]).await; break }
                    },
                    changed = resizes.changed() => match changed {
                        Ok(()) => if let Some(size) = *resizes.borrow_and_update() { let _ = write.resize(size); },
                        Err(_) => break,
                    },
                }
            }
            // The write half stays open: closing it would send SIGHUP to the program.
            std::future::pending::<()>().await;
        };
        let copy_output = copy(&mut read, &output, None);
        finish(child, copy_input, copy_output, &output, alive).await;
    });
    Ok(())
}

fn spawn_piped(
    program: &Program,
    output: Output,
    mut input: InputQueue,
    alive: watch::Receiver<()>,
) -> io::Result<()> {
    let mut command = tokio::process::Command::new(&program.account.shell);
    match &program.command {
        Some(line) => command.arg("-c").arg(OsStr::from_bytes(line)),
        None => command.arg("-l"),
    };
    let mut child = command
        .env_clear()
        .envs(environment(program, None))
        .current_dir(&program.account.home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let missing = || io::Error::other("the program has no pipes");
    let mut stdin = child.stdin.take().ok_or_else(missing)?;
    let mut stdout = child.stdout.take().ok_or_else(missing)?;
    let mut stderr = child.stderr.take().ok_or_else(missing)?;
    tokio::spawn(async move {
        let copy_input = async move {
            while let Some(bytes) = input.next().await {
                if write_flushed(&mut stdin, &bytes).await.is_err() {
                    break;
                }
            }
            drop(stdin);
            std::future::pending::<()>().await;
        };
        let copy_output = async {
            tokio::join!(
                copy(&mut stdout, &output, None),
                copy(&mut stderr, &output, Some(STDERR))
            );
        };
        finish(child, copy_input, copy_output, &output, alive).await;
    });
    Ok(())
}

async fn write_flushed(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Copies until the program has ended and its output is sent, or the client disconnects; then sends
/// the exit status or ends the program.
async fn finish(
    mut child: Child,
    copy_input: impl Future<Output = ()>,
    copy_output: impl Future<Output = ()>,
    output: &Output,
    mut alive: watch::Receiver<()>,
) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let run = async {
        tokio::pin!(copy_input, copy_output);
        let mut drained = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                () = &mut copy_output, if !drained => drained = true,
                () = &mut copy_input => {}
            }
        };
        if !drained {
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, &mut copy_output).await;
        }
        status
    };
    let status = tokio::select! {
        status = run => status.ok(),
        // The sender never sends: this returns when the connection is dropped.
        _ = alive.changed() => None,
    };
    match status {
        Some(status) => {
            let _ = output.exit_status(exit_code(status)).await;
            let _ = output.eof().await;
            let _ = output.close().await;
        }
        None => {
            hang_up(group, &mut child).await;
        }
    }
}

/// SIGHUP, as when a terminal is closed; SIGKILL to what is left.
async fn hang_up(group: Option<Pid>, child: &mut Child) {
    let Some(group) = group else { return };
    let _ = kill_process_group(group, Signal::HUP);
    let _ = tokio::time::timeout(KILL_GRACE, child.wait()).await;
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait().await;
}

/// As in shells: 128 plus the signal's number for a program that was killed.
fn exit_code(status: ExitStatus) -> u32 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| signal.saturating_add(128)))
        .unwrap_or(255);
    u32::try_from(code).unwrap_or(255)
}

async fn copy(from: &mut (impl AsyncRead + Unpin), output: &Output, extended: Option<u32>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    // At the program's end a PTY returns an I/O error, a pipe zero bytes.
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

/// The receiving end of [`ProgramInput`].
struct InputQueue {
    bytes: mpsc::UnboundedReceiver<Vec<u8>>,
    buffered: watch::Sender<usize>,
}

impl InputQueue {
    async fn next(&mut self) -> Option<Vec<u8>> {
        let bytes = self.bytes.recv().await?;
        self.buffered.send_modify(|buffered| *buffered = buffered.saturating_sub(bytes.len()));
        Some(bytes)
    }
}

impl Drop for InputQueue {
    fn drop(&mut self) {
        // The program reads no more: nobody must wait for it.
        self.buffered.send_replace(0);
    }
}
