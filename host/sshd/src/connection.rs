//! One connection: who may in, and what each channel runs.

use crate::Account;
use crate::process::{self, Input, Program, Terminal};
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session as Ssh,
    VerifiedPublicKey,
};
use russh::{
    Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, MethodKind, MethodSet, Preferred, Pty,
};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Channels of one connection.
const CHANNELS: usize = 16;
/// Environment variables that a client may set, and how long each may be.
const VARIABLES: usize = 32;
const VARIABLE_BYTES: usize = 4_096;

type Error = russh::Error;

pub(crate) fn config(
    host_key: PrivateKey,
    max_auth_attempts: usize,
    keepalive: Duration,
) -> Config {
    let curves = [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521];
    let mut algorithms = vec![Algorithm::Ed25519];
    algorithms.extend(curves.map(|curve| Algorithm::Ecdsa { curve }));
    Config {
        methods: MethodSet::from(&[MethodKind::PublicKey, MethodKind::Password][..]),
        auth_rejection_time: Duration::from_secs(1),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        max_auth_attempts,
        inactivity_timeout: Some(keepalive.saturating_mul(4)),
        keepalive_interval: Some(keepalive),
        // Only what this build can verify is offered.
        preferred: Preferred { key: Cow::Owned(algorithms), ..Preferred::default() },
        ..Config::default()
    }
}

/// What is known of a channel before and after its program runs.
struct Line {
    out: Arc<ChannelWriteHalf<Msg>>,
    terminal: Option<Terminal>,
    variables: Vec<(String, String)>,
    input: Option<Input>,
}

/// One client. When it is dropped, every process of it is ended.
pub(crate) struct Session {
    account: Arc<Account>,
    logged_in: watch::Sender<bool>,
    lines: HashMap<ChannelId, Line>,
    // Dropped with the session: the pumps and programs see it and stop.
    alive: watch::Sender<()>,
}

impl Session {
    pub(crate) fn new(account: Arc<Account>, logged_in: watch::Sender<bool>) -> Self {
        Self { account, logged_in, lines: HashMap::new(), alive: watch::Sender::new(()) }
    }

    fn key_matches(&self, user: &str, key: &PublicKey) -> bool {
        user == self.account.username
            && self.account.key.as_ref().is_some_and(|own| own.key_data() == key.key_data())
    }

    fn start(&mut self, id: ChannelId, command: Option<&[u8]>, ssh: &mut Ssh) -> Result<(), Error> {
        let Some(line) = self.lines.get_mut(&id).filter(|line| line.input.is_none()) else {
            return ssh.channel_failure(id);
        };
        let program = Program {
            account: Arc::clone(&self.account),
            command: command.map(<[u8]>::to_vec),
            terminal: line.terminal.take(),
            variables: std::mem::take(&mut line.variables),
        };
        match process::start(program, Arc::clone(&line.out), self.alive.subscribe()) {
            Ok(input) => {
                line.input = Some(input);
                ssh.channel_success(id)
            }
            Err(error) => {
                tracing::warn!(%error, "a program could not be started");
                ssh.channel_failure(id)
            }
        }
    }
}

impl Handler for Session {
    type Error = Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Error> {
        // Both are compared, so that the time does not tell which one was wrong.
        let name = user == self.account.username;
        let word = self.account.password.matches(password);
        if name && word {
            return Ok(Auth::Accept);
        }
        let methods = MethodSet::from(&[MethodKind::PublicKey, MethodKind::Password][..]);
        Ok(Auth::Reject { proceed_with_methods: Some(methods), partial_success: false })
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Error> {
        Ok(if self.key_matches(user, offer.public_key) { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Error> {
        Ok(if self.key_matches(user, key.public_key) { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_succeeded(&mut self, _: &mut Ssh) -> Result<(), Error> {
        self.logged_in.send_replace(true);
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Ssh,
    ) -> Result<(), Error> {
        if self.lines.len() >= CHANNELS {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let id = channel.id();
        // Input arrives through `data` below; an unread half would stall the connection.
        let (_, out) = channel.split();
        self.lines.insert(
            id,
            Line { out: Arc::new(out), terminal: None, variables: Vec::new(), input: None },
        );
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Ssh) -> Result<(), Error> {
        self.lines.remove(&id);
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Ssh) -> Result<(), Error> {
        if let Some(input) = self.lines.get_mut(&id).and_then(|line| line.input.as_mut()) {
            input.end();
        }
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], ssh: &mut Ssh) -> Result<(), Error> {
        match self.lines.get(&id).and_then(|line| line.input.as_ref()) {
            Some(input) if !input.push(data).await => ssh.close(id),
            _ => Ok(()),
        }
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        ssh: &mut Ssh,
    ) -> Result<(), Error> {
        let Some(line) = self.lines.get_mut(&id).filter(|line| line.input.is_none()) else {
            return ssh.channel_failure(id);
        };
        let sane = term.len() <= 64
            && term.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.+".contains(&c));
        line.terminal = Some(Terminal::new(if sane { term } else { "dumb" }, columns, rows));
        ssh.channel_success(id)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &mut Ssh,
    ) -> Result<(), Error> {
        if let Some(input) = self.lines.get(&id).and_then(|line| line.input.as_ref()) {
            input.resize(columns, rows);
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        ssh: &mut Ssh,
    ) -> Result<(), Error> {
        // The locale only, as OpenSSH's servers do: LD_PRELOAD and its like stay the image's.
        let wanted = (name == "LANG" || name.starts_with("LC_"))
            && name.len().saturating_add(value.len()) <= VARIABLE_BYTES;
        let clean = !name.contains('=') && !name.contains('\0') && !value.contains('\0');
        match self.lines.get_mut(&id) {
            Some(line) if wanted && clean && line.variables.len() < VARIABLES => {
                line.variables.push((name.to_owned(), value.to_owned()));
                ssh.channel_success(id)
            }
            _ => ssh.channel_failure(id),
        }
    }

    async fn shell_request(&mut self, id: ChannelId, ssh: &mut Ssh) -> Result<(), Error> {
        self.start(id, None, ssh)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        ssh: &mut Ssh,
    ) -> Result<(), Error> {
        self.start(id, Some(command), ssh)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _: &str,
        ssh: &mut Ssh,
    ) -> Result<(), Error> {
        ssh.channel_failure(id)
    }
}
