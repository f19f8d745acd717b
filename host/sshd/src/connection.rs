//! One connection: authentication, and the requests on its channels.

use crate::account::{Account, KEY_KINDS};
use crate::process::{self, Program, ProgramInput, Terminal};
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
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
const MAX_CHANNELS: usize = 16;
/// Environment variables that a client may set, and the size of each with its name.
const MAX_VARIABLES: usize = 32;
const MAX_VARIABLE_BYTES: usize = 4_096;
/// The longest name of a terminal type.
const MAX_TERM_BYTES: usize = 64;
/// Failed attempts in one connection, each but the first answered after a second.
const MAX_AUTH_TRIES: usize = 6;
/// A dead peer is noticed after three of these.
const KEEPALIVE: Duration = Duration::from_secs(60);

type Error = russh::Error;

pub(crate) fn config(host_key: PrivateKey) -> Config {
    Config {
        methods: MethodSet::from(&[MethodKind::PublicKey, MethodKind::Password][..]),
        auth_rejection_time: Duration::from_secs(1),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        max_auth_attempts: MAX_AUTH_TRIES,
        inactivity_timeout: Some(KEEPALIVE.saturating_mul(4)),
        keepalive_interval: Some(KEEPALIVE),
        preferred: Preferred { key: Cow::Borrowed(&KEY_KINDS), ..Preferred::default() },
        ..Config::default()
    }
}

/// A session channel, before and after its program starts.
struct SessionChannel {
    output: Arc<ChannelWriteHalf<Msg>>,
    /// From `pty-req` and `env`, until the program starts.
    terminal: Option<Terminal>,
    variables: Vec<(String, String)>,
    /// Set when the program has started.
    input: Option<ProgramInput>,
}

/// Handles one client. When it is dropped, all processes that it started are ended.
pub(crate) struct Connection {
    account: Arc<Account>,
    authenticated: watch::Sender<bool>,
    channels: HashMap<ChannelId, SessionChannel>,
    // Its receivers, one in each program's task, notice when it is dropped with the connection.
    alive: watch::Sender<()>,
}

impl Connection {
    pub(crate) fn new(account: Arc<Account>, authenticated: watch::Sender<bool>) -> Self {
        Self { account, authenticated, channels: HashMap::new(), alive: watch::Sender::new(()) }
    }

    fn key_matches(&self, user: &str, key: &PublicKey) -> bool {
        user == self.account.username
            && self.account.key.as_ref().is_some_and(|own| own.key_data() == key.key_data())
    }

    fn start(
        &mut self,
        id: ChannelId,
        command: Option<&[u8]>,
        session: &mut Session,
    ) -> Result<(), Error> {
        let Some(channel) = self.channels.get_mut(&id).filter(|channel| channel.input.is_none())
        else {
            return session.channel_failure(id);
        };
        let program = Program {
            account: Arc::clone(&self.account),
            command: command.map(<[u8]>::to_vec),
            terminal: channel.terminal.take(),
            variables: std::mem::take(&mut channel.variables),
        };
        match process::start(program, Arc::clone(&channel.output), self.alive.subscribe()) {
            Ok(input) => {
                channel.input = Some(input);
                session.channel_success(id)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot start a program");
                session.channel_failure(id)
            }
        }
    }
}

impl Handler for Connection {
    type Error = Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Error> {
        // Both are compared, so that the time does not show which one is wrong.
        let user_matches = user == self.account.username;
        let password_matches = self.account.password.matches(password);
        if user_matches && password_matches {
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

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), Error> {
        self.authenticated.send_replace(true);
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        if self.channels.len() >= MAX_CHANNELS {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let id = channel.id();
        // Input arrives through `data` below; a read half that nobody reads would stall the
        // connection.
        let (_, output) = channel.split();
        self.channels.insert(
            id,
            SessionChannel {
                output: Arc::new(output),
                terminal: None,
                variables: Vec::new(),
                input: None,
            },
        );
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.channels.remove(&id);
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        if let Some(input) = self.channels.get_mut(&id).and_then(|channel| channel.input.as_mut()) {
            input.end();
        }
        Ok(())
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        match self.channels.get(&id).and_then(|channel| channel.input.as_ref()) {
            Some(input) if !input.push(data).await => session.close(id),
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
        session: &mut Session,
    ) -> Result<(), Error> {
        let Some(channel) = self.channels.get_mut(&id).filter(|channel| channel.input.is_none())
        else {
            return session.channel_failure(id);
        };
        let is_valid = term.len() <= MAX_TERM_BYTES
            && term.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.+".contains(&c));
        channel.terminal = Some(Terminal::new(if is_valid { term } else { "dumb" }, columns, rows));
        session.channel_success(id)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), Error> {
        if let Some(input) = self.channels.get(&id).and_then(|channel| channel.input.as_ref()) {
            input.resize(columns, rows);
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        // Only the locale, as Debian's sshd_config does (`AcceptEnv LANG LC_*`): a client must not
        // set LD_PRELOAD.
        let is_locale = (name == "LANG" || name.starts_with("LC_"))
            && name.len().saturating_add(value.len()) <= MAX_VARIABLE_BYTES;
        let is_clean = !name.contains('=') && !name.contains('\0') && !value.contains('\0');
        match self.channels.get_mut(&id) {
            Some(channel) if is_locale && is_clean && channel.variables.len() < MAX_VARIABLES => {
                channel.variables.push((name.to_owned(), value.to_owned()));
                session.channel_success(id)
            }
            _ => session.channel_failure(id),
        }
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Error> {
        self.start(id, None, session)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        self.start(id, Some(command), session)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(id)
    }
}
