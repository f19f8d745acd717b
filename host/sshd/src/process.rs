//! One program of one channel: on a terminal or on pipes, pumped until it ends or the client is
//! gone.

use crate::Account;
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

/// Input that a program has not read yet. A client that is this far ahead waits, and its whole
/// connection with it…
const INPUT_BYTES: usize = 8 << 20;
/// …but not longer than this: a program that waits for its own output to be taken would never read
/// on.
const STALL: Duration = Duration::from_secs(30);
/// Output is sent in pieces of this size: russh's packet.
const CHUNK: usize = 32_768;
/// After the program's end, what is still in its pipes is sent for so long; a background process
/// may hold them open.
const DRAIN: Duration = Duration::from_millis(300);
/// From the hang-up to the kill.
const GRACE: Duration = Duration::from_millis(500);

/// The terminal that the client asked for.
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

/// What to run.
pub(crate) struct Program {
    pub(crate) account: Arc<Account>,
    pub(crate) command: Option<Vec<u8>>,
    pub(crate) terminal: Option<Terminal>,
    pub(crate) variables: Vec<(String, String)>,
}

/// The near end of a running program.
pub(crate) struct Input {
    bytes: Option<mpsc::UnboundedSender<Vec<u8>>>,
    waiting: watch::Sender<usize>,
    size: watch::Sender<Option<Size>>,
}

impl Input {
    /// Hands bytes to the program; `false` when it does not read them.
    pub(crate) async fn push(&self, data: &[u8]) -> bool {
        let Some(bytes) = &self.bytes else { return true };
        self.waiting.send_modify(|waiting| *waiting = waiting.saturating_add(data.len()));
        if bytes.send(data.to_vec()).is_err() {
            return true;
        }
        let mut behind = self.waiting.subscribe();
        let synced = behind.wait_for(|waiting| *waiting <= INPUT_BYTES);
        tokio::time::timeout(STALL, synced).await.is_ok()
    }

    /// The client sends no more.
    pub(crate) fn end(&mut self) {
        self.bytes = None;
    }

    pub(crate) fn resize(&self, columns: u32, rows: u32) {
        self.size.send_replace(Some(size(columns, rows)));
    }
}

type Out = Arc<ChannelWriteHalf<Msg>>;

/// Starts the program; it ends by itself, when its channel is dropped, or when `alive`'s sender is.
pub(crate) fn start(program: Program, out: Out, alive: watch::Receiver<()>) -> io::Result<Input> {
    let (bytes, input) = mpsc::unbounded_channel();
    let waiting = watch::Sender::new(0);
    let (size, resizes) = watch::channel(None);
    let feed = Feed { input, waiting: waiting.clone() };
    if program.terminal.is_some() {
        spawn_pty(program, out, feed, resizes, alive)?;
    } else {
        spawn_piped(&program, out, feed, alive)?;
    }
    Ok(Input { bytes: Some(bytes), waiting, size })
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
    out: Out,
    feed: Feed,
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
        let mut feed = feed;
        let input = async {
            loop {
                tokio::select! {
                    bytes = feed.next() => match bytes {
                        Some(bytes) => if write.write_all(&bytes).await.is_err() { break },
                        // The end of input on a terminal is a character.
                        None => { let _ = write.write_all(&[4]).await; break }
                    },
                    changed = resizes.changed() => match changed {
                        Ok(()) => if let Some(size) = *resizes.borrow_and_update() { let _ = write.resize(size); },
                        Err(_) => break,
                    },
                }
            }
            // The write half stays open: closing it would hang the terminal up.
            std::future::pending::<()>().await;
        };
        let output = pump(&mut read, &out, None);
        finish(child, input, output, &out, alive).await;
    });
    Ok(())
}

fn spawn_piped(
    program: &Program,
    out: Out,
    mut feed: Feed,
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
        let input = async move {
            while let Some(bytes) = feed.next().await {
                if write_flushed(&mut stdin, &bytes).await.is_err() {
                    break;
                }
            }
            drop(stdin);
            std::future::pending::<()>().await;
        };
        let output = async {
            tokio::join!(pump(&mut stdout, &out, None), pump(&mut stderr, &out, Some(1)));
        };
        finish(child, input, output, &out, alive).await;
    });
    Ok(())
}

async fn write_flushed(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Runs the pumps until the program has ended and its output is sent, or the client is gone; then
/// says how it ended.
async fn finish(
    mut child: Child,
    input: impl Future<Output = ()>,
    output: impl Future<Output = ()>,
    out: &Out,
    mut alive: watch::Receiver<()>,
) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let run = async {
        tokio::pin!(input, output);
        let mut drained = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                () = &mut output, if !drained => drained = true,
                () = &mut input => {}
            }
        };
        if !drained {
            let _ = tokio::time::timeout(DRAIN, &mut output).await;
        }
        status
    };
    let status = tokio::select! {
        status = run => status.ok(),
        // The sender never sends; this ends when the session is dropped.
        _ = alive.changed() => None,
    };
    match status {
        Some(status) => {
            let _ = out.exit_status(code(status)).await;
            let _ = out.eof().await;
            let _ = out.close().await;
        }
        None => {
            hang_up(group, &mut child).await;
        }
    }
}

/// As a terminal that is closed, then for good.
async fn hang_up(group: Option<Pid>, child: &mut Child) {
    let Some(group) = group else { return };
    let _ = kill_process_group(group, Signal::HUP);
    let _ = tokio::time::timeout(GRACE, child.wait()).await;
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait().await;
}

/// As shells tell it: 128 and the signal's number for a program that was killed.
fn code(status: ExitStatus) -> u32 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| signal.saturating_add(128)))
        .unwrap_or(255);
    u32::try_from(code).unwrap_or(255)
}

async fn pump(from: &mut (impl AsyncRead + Unpin), out: &Out, extended: Option<u32>) {
    let mut buffer = vec![0; CHUNK];
    // A terminal whose program has ended reads as an I/O error; a pipe, as zero bytes.
    while let Ok(read) = from.read(&mut buffer).await {
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { return };
        let bytes = bytes.to_vec();
        let sent = match extended {
            Some(code) => out.extended_data_bytes(code, bytes).await,
            None => out.data_bytes(bytes).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The far end of [`Input`].
struct Feed {
    input: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: watch::Sender<usize>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        // Nobody reads any more, and nobody waits for that.
        self.waiting.send_replace(0);
    }
}

impl Feed {
    async fn next(&mut self) -> Option<Vec<u8>> {
        let bytes = self.input.recv().await?;
        self.waiting.send_modify(|waiting| *waiting = waiting.saturating_sub(bytes.len()));
        Some(bytes)
    }
}
