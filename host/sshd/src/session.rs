//! A session channel: its terminal and variables, and the program that it starts.

use crate::account::Account;
use crate::channels::Channels;
use crate::groups::Groups;
use crate::process::{self, Program, Wires};
use crate::sftp;
use crate::terminal::Terminal;
use pty_process::Size;
use russh::server::{Handle, Msg};
use russh::{ChannelId, ChannelWriteHalf};
use rustix::process::{Pid, kill_process_group};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// Environment variables that a client may set, and the size of each with its name.
const MAX_VARIABLES: usize = 32;
const MAX_VARIABLE_BYTES: usize = 4_096;

/// The two ends of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Peers {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
}

impl Peers {
    /// `SSH_CLIENT` and `SSH_CONNECTION`, as OpenSSH sets them.
    fn variables(self) -> [(String, String); 2] {
        let (client, server) = (self.client.ip().to_canonical(), self.server.ip().to_canonical());
        let (client_port, port) = (self.client.port(), self.server.port());
        [
            ("SSH_CLIENT".to_owned(), format!("{client} {client_port} {port}")),
            ("SSH_CONNECTION".to_owned(), format!("{client} {client_port} {server} {port}")),
        ]
    }
}

/// A session channel, before and after its program starts.
pub(crate) struct SessionChannel {
    output: Arc<ChannelWriteHalf<Msg>>,
    /// From `pty-req` and `env`, until the program starts.
    terminal: Option<Terminal>,
    variables: Vec<(String, String)>,
    sizes: watch::Sender<Option<Size>>,
    is_started: bool,
    /// Of its program.
    group: Option<Pid>,
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

    pub(crate) fn resize(&self, size: Size) {
        self.sizes.send_replace(Some(size));
    }

    pub(crate) fn signal(&self, name: &str) {
        if let (Some(group), Some(signal)) = (self.group, process::signal(name)) {
            let _ = kill_process_group(group, signal);
        }
    }
}

/// What the sessions of a connection have in common.
pub(crate) struct Sessions {
    pub(crate) account: Arc<Account>,
    pub(crate) channels: Arc<Channels>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) peers: Peers,
    /// The socket of the client's agent.
    pub(crate) agent: Option<PathBuf>,
}

impl Sessions {
    /// Starts the shell or the command of a channel, once; `false` if that cannot be.
    pub(crate) fn start(&self, id: ChannelId, command: Option<&[u8]>, handle: Handle) -> bool {
        let Some((mut program, wires)) = self.claim(id, handle) else { return false };
        program.command = command.map(<[u8]>::to_vec);
        match process::start(&program, wires) {
            Ok(group) => {
                self.channels.with_session(id, |session| session.group = group);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "cannot start a program");
                false
            }
        }
    }

    /// Serves `sftp` on a channel, once; `false` if that cannot be.
    pub(crate) fn start_sftp(&self, id: ChannelId, handle: Handle) -> bool {
        let Some((program, wires)) = self.claim(id, handle) else { return false };
        sftp::serve(program.account.home.clone(), wires);
        true
    }

    /// A channel serves one program only.
    fn claim(&self, id: ChannelId, handle: Handle) -> Option<(Program, Wires)> {
        let claimed = self.channels.with_session(id, |session| {
            let is_first = !std::mem::replace(&mut session.is_started, true);
            is_first.then(|| {
                let mut variables = std::mem::take(&mut session.variables);
                variables.extend(self.peers.variables());
                let agent = self.agent.as_ref().map(|socket| socket.display().to_string());
                variables.extend(agent.map(|socket| ("SSH_AUTH_SOCK".to_owned(), socket)));
                let (account, terminal) = (Arc::clone(&self.account), session.terminal.take());
                let program = Program { account, command: None, terminal, variables };
                (program, Arc::clone(&session.output), session.sizes.subscribe())
            })
        });
        let (program, output, sizes) = claimed.flatten()?;
        let (input, open) = self.channels.serve(id)?;
        let (channels, groups) = (Arc::clone(&self.channels), Arc::clone(&self.groups));
        Some((program, Wires { output, handle, input, sizes, open, channels, groups }))
    }
}
