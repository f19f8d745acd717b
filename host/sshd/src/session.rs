//! The programs of session channels.

use crate::account::Account;
use crate::channels::Channels;
use crate::groups::Groups;
use crate::key_options::{INTERNAL_SFTP, KeyOptions};
use crate::process::{self, Program, Wires};
use crate::session_channel::SessionChannel;
use crate::sftp;
use crate::terminals::Terminals;
use russh::ChannelId;
use russh::server::Handle;
use rustix::process::kill_process_group;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

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

impl SessionChannel {
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
    pub(crate) terminals: Arc<Terminals>,
    pub(crate) peers: Peers,
    /// The name that has logged in.
    pub(crate) user: String,
    /// Of the key that has logged in.
    pub(crate) options: KeyOptions,
    /// The socket of the client's agent.
    pub(crate) agent: Option<PathBuf>,
}

impl Sessions {
    /// Starts the shell or the command of a channel, once; `false` if that cannot be.
    pub(crate) fn start(&self, id: ChannelId, command: Option<&[u8]>, handle: Handle) -> bool {
        let Some((mut program, wires)) = self.claim(id, handle) else { return false };
        let command = command.map(<[u8]>::to_vec);
        match self.options.command.as_deref() {
            None => program.command = command,
            Some(INTERNAL_SFTP) => {
                sftp::refuse(program.terminal.as_ref(), wires);
                return true;
            }
            Some(forced) => {
                program.command = Some(forced.into());
                program.original_command = command;
            }
        }
        match process::start(&program, wires) {
            Ok(group) => {
                // As with OpenSSH: a client sends no signals to what the key runs in its place.
                let group = group.filter(|_| self.options.command.is_none());
                self.channels.with_session(id, |session| session.group = group);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "cannot start a program");
                false
            }
        }
    }

    /// Serves `sftp` on a channel, once, unless the key has a command of its own; `false` if that
    /// cannot be.
    pub(crate) fn start_sftp(&self, id: ChannelId, handle: Handle) -> bool {
        if self.options.command.as_ref().is_some_and(|forced| forced != INTERNAL_SFTP) {
            return self.start(id, Some(INTERNAL_SFTP.as_bytes()), handle);
        }
        let Some((program, wires)) = self.claim(id, handle) else { return false };
        sftp::serve(program.account, wires);
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
                let user = self.user.clone();
                let program = Program {
                    account,
                    user,
                    command: None,
                    original_command: None,
                    terminal,
                    variables,
                };
                (program, Arc::clone(&session.output), session.sizes.subscribe())
            })
        });
        let (program, output, sizes) = claimed.flatten()?;
        if program.terminal.is_some() {
            self.channels.set_had_terminal();
        }
        let (input, open) = self.channels.serve(id)?;
        let (channels, groups) = (Arc::clone(&self.channels), Arc::clone(&self.groups));
        let terminals = Arc::clone(&self.terminals);
        Some((program, Wires { output, handle, input, sizes, open, channels, groups, terminals }))
    }
}
