//! A session channel: its terminal and variables, and what is known of its program.

use crate::terminal::Terminal;
use pty_process::Size;
use russh::ChannelWriteHalf;
use russh::server::Msg;
use rustix::process::Pid;
use std::sync::Arc;
use tokio::sync::watch;

/// Environment variables that a client may set, and the size of each with its name.
const MAX_VARIABLES: usize = 32;
const MAX_VARIABLE_BYTES: usize = 4_096;

/// A session channel, before and after its program starts.
pub(crate) struct SessionChannel {
    pub(crate) output: Arc<ChannelWriteHalf<Msg>>,
    /// From `pty-req` and `env`, until the program starts.
    pub(crate) terminal: Option<Terminal>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) sizes: watch::Sender<Option<Size>>,
    pub(crate) is_started: bool,
    /// Of its program, if the client may send it signals.
    pub(crate) group: Option<Pid>,
}

impl SessionChannel {
    pub(crate) fn new(output: ChannelWriteHalf<Msg>) -> Self {
        Self {
            output: Arc::new(output),
            terminal: None,
            variables: Vec::new(),
            sizes: watch::Sender::new(None),
            is_started: false,
            group: None,
        }
    }

    /// `false` when the program has started.
    pub(crate) fn set_terminal(&mut self, terminal: Terminal) -> bool {
        if !self.is_started {
            self.terminal = Some(terminal);
        }
        !self.is_started
    }

    /// Only the locale, as Debian's sshd_config does (`AcceptEnv LANG LC_*`): a client must not set
    /// LD_PRELOAD.
    pub(crate) fn set_variable(&mut self, name: &str, value: &str) -> bool {
        let is_locale = (name == "LANG" || name.starts_with("LC_"))
            && name.len().saturating_add(value.len()) <= MAX_VARIABLE_BYTES;
        let is_clean = !name.contains('=') && !name.contains('\0') && !value.contains('\0');
        let is_taken = is_locale && is_clean && self.variables.len() < MAX_VARIABLES;
        if is_taken {
            self.variables.push((name.to_owned(), value.to_owned()));
        }
        is_taken
    }

    /// Before and after the program starts.
    pub(crate) fn resize(&mut self, size: Size) {
        if let Some(terminal) = &mut self.terminal {
            terminal.size = size;
        }
        self.sizes.send_replace(Some(size));
    }
}
