//! One connection: authentication, and what arrives on its channels.

use crate::account::Account;
use crate::channels::Channels;
use crate::exchanges::{KEY_EXCHANGES, server_limits};
use crate::forward::Forwards;
use crate::groups::Groups;
use crate::host_key_proof::Prover;
use crate::input::{NARROW_WINDOW, WINDOW};
use crate::key_options::KeyOptions;
use crate::keys::SIGNATURE_KINDS;
use crate::progress::{Progress, Stage};
use crate::session::{Peers, Sessions};
use crate::session_channel::SessionChannel;
use crate::terminal::{self, Terminal};
use crate::terminals::Terminals;
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Response, Session,
    VerifiedPublicKey,
};
use russh::{
    Channel, ChannelId, ChannelOpenFailure, MethodKind, MethodSet, Preferred, Pty, Sig, cipher,
};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// Sessions of one connection that are open at the same time, as OpenSSH's `MaxSessions`, which is
/// 10 there.
const MAX_SESSIONS: usize = 128;
/// Failed attempts in one connection, OpenSSH's `MaxAuthTries` and the first one, by which a client
/// asks for the methods.
const MAX_AUTH_TRIES: usize = 7;
/// The answer to a wrong password takes so long.
const PASSWORD_DELAY: Duration = Duration::from_secs(1);
/// The answer to any other attempt.
const REJECTION_DELAY: Duration = Duration::from_millis(10);
/// Keeps the way through firewalls open; a dead peer is noticed by TCP, which gives it minutes.
const KEEPALIVE: Duration = Duration::from_secs(60);

static CIPHERS: [cipher::Name; 6] = [
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
];

type Error = russh::Error;

pub(crate) fn config(host_keys: Vec<PrivateKey>, account: &Account) -> Config {
    Config {
        methods: methods(account),
        auth_rejection_time: REJECTION_DELAY,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: host_keys,
        max_auth_attempts: MAX_AUTH_TRIES,
        // A client that is suspended, or whose reader is, keeps its connection, as with OpenSSH.
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: 0,
        window_size: WINDOW,
        limits: server_limits(),
        preferred: Preferred {
            kex: Cow::Borrowed(&KEY_EXCHANGES),
            cipher: Cow::Borrowed(&CIPHERS),
            key: Cow::Borrowed(&SIGNATURE_KINDS),
            ..Preferred::default()
        },
        ..Config::default()
    }
}

/// How this account logs in.
fn methods(account: &Account) -> MethodSet {
    let by_password = [MethodKind::Password, MethodKind::KeyboardInteractive];
    let mut methods = MethodSet::from(&[MethodKind::PublicKey][..]);
    by_password.into_iter().filter(|_| account.password.is_set()).for_each(|it| methods.push(it));
    methods
}

/// Asks for a password by keyboard-interactive authentication, as PAM does.
#[must_use]
pub fn password_prompt() -> Auth {
    let prompts = Cow::Borrowed(&[(Cow::Borrowed("Password: "), false)][..]);
    Auth::Partial { name: Cow::Borrowed(""), instructions: Cow::Borrowed(""), prompts }
}

/// What all connections of a server have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) account: Arc<Account>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) terminals: Arc<Terminals>,
    /// What proves the host keys.
    pub(crate) prover: Option<Arc<Prover>>,
}

impl Shared {
    pub(crate) fn new(account: Account) -> Self {
        let account = Arc::new(account);
        Self { account, groups: Arc::default(), terminals: Arc::default(), prover: None }
    }
}

/// Handles one client. What it started outlives it only without terminal and pipes.
pub(crate) struct Connection {
    account: Arc<Account>,
    prover: Option<Arc<Prover>>,
    progress: Progress,
    channels: Arc<Channels>,
    sessions: Sessions,
    forwards: Forwards,
}

impl Connection {
    pub(crate) fn new(shared: Shared, peers: Peers, progress: Progress) -> Self {
        let Shared { account, groups, terminals, prover } = shared;
        let channels = Arc::new(Channels::default());
        let sessions = Sessions {
            account: Arc::clone(&account),
            channels: Arc::clone(&channels),
            groups,
            terminals,
            peers,
            user: account.username.clone(),
            options: KeyOptions::default(),
            agent: None,
        };
        let forwards = Forwards::new(Arc::clone(&channels), account.home.clone());
        Self { account, prover, progress, channels, sessions, forwards }
    }

    pub(crate) fn channels(&self) -> Arc<Channels> {
        Arc::clone(&self.channels)
    }

    /// What a key may do, if it logs in. On a thread that may block: the user's own file of keys is
    /// read.
    fn options_of(
        &self,
        user: &str,
        key: &PublicKey,
    ) -> impl Future<Output = Option<KeyOptions>> + Send + use<> {
        self.progress.reach(Stage::Attempted);
        let (account, user, key) = (Arc::clone(&self.account), user.to_owned(), key.clone());
        let client = self.sessions.peers.client.ip();
        let options =
            move || account.is_named(&user).then(|| account.options_of(&key, client)).flatten();
        async move { tokio::task::spawn_blocking(options).await.unwrap_or_default() }
    }

    async fn check_password(&mut self, user: &str, password: &str) -> Auth {
        self.progress.reach(Stage::Attempted);
        // Both are compared, so that the time does not show which one is wrong.
        let user_matches = self.account.is_named(user);
        let password_matches = self.account.password.matches(password);
        if user_matches && password_matches {
            user.clone_into(&mut self.sessions.user);
            return Auth::Accept;
        }
        let _ = tokio::time::timeout(PASSWORD_DELAY, self.progress.dropped()).await;
        let methods = methods(&self.account);
        Auth::Reject { proceed_with_methods: Some(methods), partial_success: false }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The tasks of its channels hold them too.
        self.channels.close_all();
    }
}

/// Whether what a channel requested was done.
struct Done(bool);

fn answer(id: ChannelId, done: Done, session: &mut Session) -> Result<(), Error> {
    if done.0 { session.channel_success(id) } else { session.channel_failure(id) }
}

impl Handler for Connection {
    type Error = Error;

    /// The first request of a client that has exchanged keys.
    async fn authentication_banner(&mut self) -> Result<Option<String>, Error> {
        self.progress.reach(Stage::KeysExchanged);
        Ok(None)
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Error> {
        Ok(self.check_password(user, password).await)
    }

    /// Asks for the password, as PAM does; or proves the host keys, and then refuses any response.
    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Error> {
        if response.is_none()
            && let Some(proof) = self.prover.as_ref().and_then(|prover| prover.prove(user))
        {
            return Ok(Auth::Partial {
                name: Cow::Borrowed(""),
                instructions: Cow::Owned(proof),
                prompts: Cow::Owned(Vec::new()),
            });
        }
        let Some(mut response) = response.filter(|_| self.account.password.is_set()) else {
            return Ok(password_prompt());
        };
        let password = response.next().unwrap_or_default();
        Ok(self.check_password(user, &String::from_utf8_lossy(&password)).await)
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Error> {
        let options = self.options_of(user, offer.public_key).await;
        Ok(if options.is_some() { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Error> {
        let Some(options) = self.options_of(user, key.public_key).await else {
            return Ok(Auth::reject());
        };
        self.sessions.options = options;
        user.clone_into(&mut self.sessions.user);
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), Error> {
        self.progress.reach(Stage::Authenticated).then_some(()).ok_or(Error::Disconnect)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        let id = channel.id();
        // Input arrives through `data` below; a read half that nobody reads would stall the
        // connection.
        let (_, output) = channel.split();
        if self.channels.open_session(id, SessionChannel::new(output), MAX_SESSIONS) {
            reply.accept().await;
        } else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        if self.sessions.options.allows_open(host, port) {
            self.forwards.connect_tcp(channel, host, port, reply);
        } else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        }
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        if self.sessions.options.allows_open_unix(path) {
            self.forwards.connect_unix(channel, path, reply);
        } else {
            // As with OpenSSH, which has the other reason for ports only.
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.channels.expect(id);
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, Error> {
        if !self.sessions.options.allows_listen(address, *port) {
            return Ok(false);
        }
        let bound = self.forwards.listen_tcp(address, *port, session.handle()).await;
        *port = bound.unwrap_or(*port);
        Ok(bound.is_some())
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _: &mut Session,
    ) -> Result<bool, Error> {
        Ok(self.forwards.cancel_tcp(address, port))
    }

    async fn streamlocal_forward(
        &mut self,
        path: &str,
        session: &mut Session,
    ) -> Result<bool, Error> {
        let is_allowed = self.sessions.options.allows_forwarding;
        Ok(is_allowed && self.forwards.listen_unix(path, session.handle()))
    }

    async fn cancel_streamlocal_forward(
        &mut self,
        path: &str,
        _: &mut Session,
    ) -> Result<bool, Error> {
        Ok(self.forwards.cancel_unix(path))
    }

    async fn agent_request(&mut self, _: ChannelId, session: &mut Session) -> Result<bool, Error> {
        if !self.sessions.options.allows_agent {
            return Ok(false);
        }
        match self.forwards.listen_agent(session.handle()) {
            Ok(socket) => {
                self.sessions.agent = Some(socket);
                Ok(true)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot listen for a client's agent");
                Ok(false)
            }
        }
    }

    /// There is no display in a pod.
    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(id)
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.channels.close(id);
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.channels.end_input(id);
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Error> {
        if let Some(input) = self.channels.input(id) {
            input.push(data).await;
        }
        Ok(())
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        if self.channels.is_any_full() { NARROW_WINDOW } else { WINDOW }
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        let terminal = Terminal::new(term, terminal::size(columns, rows, width, height), modes);
        let is_set = self.sessions.options.allows_terminal
            && self.channels.with_session(id, |channel| channel.set_terminal(terminal))
                == Some(true);
        answer(id, Done(is_set), session)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _: &mut Session,
    ) -> Result<(), Error> {
        let size = terminal::size(columns, rows, width, height);
        self.channels.with_session(id, |channel| channel.resize(size));
        Ok(())
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, _: &mut Session) -> Result<(), Error> {
        let name = match &signal {
            Sig::ABRT => "ABRT",
            Sig::ALRM => "ALRM",
            Sig::FPE => "FPE",
            Sig::HUP => "HUP",
            Sig::ILL => "ILL",
            Sig::INT => "INT",
            Sig::KILL => "KILL",
            Sig::PIPE => "PIPE",
            Sig::QUIT => "QUIT",
            Sig::SEGV => "SEGV",
            Sig::TERM => "TERM",
            Sig::USR1 => "USR1",
            Sig::Custom(name) => name.as_str(),
        };
        self.channels.with_session(id, |channel| channel.signal(name));
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        let is_set = self.channels.with_session(id, |channel| channel.set_variable(name, value));
        answer(id, Done(is_set == Some(true)), session)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Error> {
        let is_started = self.sessions.start(id, None, session.handle());
        answer(id, Done(is_started), session)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        let is_started = self.sessions.start(id, Some(command), session.handle());
        answer(id, Done(is_started), session)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        let is_started = name == "sftp" && self.sessions.start_sftp(id, session.handle());
        answer(id, Done(is_started), session)
    }
}
