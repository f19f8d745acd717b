//! The process of a local pod.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// What a pod prints once it takes logins.
pub const READY: &str = "ready";

/// For the server of a pod to end the programs of its sessions.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(7);

/// How much of what it prints instead is read.
const MAX_ERROR_BYTES: u64 = 1_024;

/// A process, killed when this is dropped.
struct Handle(OwnedFd);

impl Handle {
    fn signal(&self, signal: Signal) {
        // It may have ended.
        let _ = pidfd_send_signal(&self.0, signal);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// A pod that takes logins; killed when this is dropped.
pub(crate) struct PodProcess {
    handle: Handle,
    /// Nothing is ever sent: at the end the sender is dropped.
    ended: watch::Receiver<()>,
}

impl PodProcess {
    /// Starts it and waits until it takes logins. `cleanup` is run at its end.
    pub(crate) async fn start(command: Command, cleanup: Option<Command>) -> io::Result<Self> {
        let (report, started) = oneshot::channel();
        let (end, ended) = watch::channel(());
        // The kernel kills the process with the thread that started it (PR_SET_PDEATHSIG). This one
        // lives as long as the pod; one of the runtime may end before.
        std::thread::Builder::new().name("pod".to_owned()).spawn(move || {
            run(command, cleanup, report);
            drop(end);
        })?;
        let handle = started.await.map_err(io::Error::other)??;
        Ok(Self { handle, ended })
    }

    pub(crate) fn kill(&self) {
        self.handle.signal(Signal::KILL);
    }

    /// Lets its server end the programs of its sessions, where nothing else would.
    pub(crate) async fn terminate(&mut self) {
        self.handle.signal(Signal::TERM);
        let _ = tokio::time::timeout(TERMINATE_TIMEOUT, self.ended()).await;
    }

    /// Waits until nothing of the pod is left.
    pub(crate) async fn ended(&mut self) {
        while self.ended.changed().await.is_ok() {}
    }
}

/// From the start of a pod to its end.
fn run(
    mut command: Command,
    cleanup: Option<Command>,
    report: oneshot::Sender<io::Result<Handle>>,
) {
    let spawned = spawn(&mut command);
    // The listener is the pod's alone.
    drop(command);
    let (mut child, handle, mut output) = match spawned {
        Ok(spawned) => spawned,
        Err(error) => {
            let _ = report.send(Err(error));
            return;
        }
    };
    // Nobody may wait for it any more: then the handle is dropped, which kills.
    let _ = report.send(ready(&mut output).map(|()| handle));
    let _ = child.wait();
    if let Some(mut cleanup) = cleanup {
        let _ = cleanup.output();
    }
    // The end of its output: none of its processes is left that had it open.
    let _ = io::copy(&mut output, &mut io::sink());
}

fn spawn(command: &mut Command) -> io::Result<(Child, Handle, BufReader<PipeReader>)> {
    let (output, writer) = io::pipe()?;
    // Never the terminal of whoever started this.
    let child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    let handle = Handle(pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?);
    Ok((child, handle, BufReader::new(output)))
}

/// Waits until it takes logins.
fn ready(output: &mut BufReader<PipeReader>) -> io::Result<()> {
    let mut text = String::new();
    let mut begin = output.take(MAX_ERROR_BYTES);
    begin.read_line(&mut text)?;
    if text.trim_end() == READY {
        return Ok(());
    }
    begin.read_to_string(&mut text)?;
    Err(io::Error::other(format!("it ended: {}", text.trim_end())))
}
