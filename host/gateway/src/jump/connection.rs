//! One connection to the jump host: authentication by the lease, and channels to its pod's SSH port.

use super::channel_tasks::ChannelTasks;
use super::queue::{Backlog, Excess, InputReceiver, InputSender};
use crate::access::LeaseLogin;
use crate::limits;
use crate::metrics::Rejection;
use crate::piece::Piece;
use crate::pump;
use crate::sessions::WaitingBytes;
use crate::shared::{SessionPermit, Shared};
use bytes::Bytes;
use paygress_core::backend::pod_streams::ByteStream;
use paygress_core::model::ids::PodName;
use paygress_sshd::{
    KEY_EXCHANGES, Progress, SIGNATURE_KINDS, Stage, password_prompt, server_limits,
};
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Response, Session,
    VerifiedPublicKey,
};
use russh::{
    Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Disconnect, MethodKind, MethodSet,
    Preferred,
};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

/// The names of the pod, as seen from the pod.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

const NO_SHELL: &str =
    "there is no shell here, only the way to the pod: ssh -J POD@GATEWAY USER@POD";
const ELSEWHERE: &str = "only the SSH port of the pod that you have logged in with";
const TOO_MANY_CHANNELS: &str = "too many connections to the pod are open: close one";
const TOO_MANY_SESSIONS: &str = "the lease has as many connections as it may: close one";
const UNREACHABLE: &str = "the pod cannot be reached: try again";

type Error = russh::Error;

pub(super) fn config(host_key: PrivateKey) -> Config {
    Config {
        methods: methods(),
        auth_rejection_time: limits::REJECTION_DELAY,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        max_auth_attempts: limits::AUTH_TRIES,
        inactivity_timeout: None,
        keepalive_interval: Some(limits::SSH_KEEP_ALIVE),
        keepalive_max: 0,
        window_size: limits::WINDOW,
        maximum_packet_size: limits::PACKET,
        event_buffer_size: limits::QUEUED_PIECES,
        limits: server_limits(),
        preferred: Preferred {
            kex: Cow::Borrowed(&KEY_EXCHANGES),
            key: Cow::Borrowed(&SIGNATURE_KINDS),
            ..Preferred::default()
        },
        ..Config::default()
    }
}

/// The same for every name: they show nothing of a lease.
fn methods() -> MethodSet {
    MethodSet::from(
        &[MethodKind::PublicKey, MethodKind::Password, MethodKind::KeyboardInteractive][..],
    )
}

/// With the code of RFC 4254 and a text of our own, which OpenSSH's client prints.
fn failure(kind: &ChannelOpenFailure, reason: &str) -> ChannelOpenFailure {
    ChannelOpenFailure::Other { code: kind.code(), reason: reason.to_owned() }
}

/// A channel to the pod.
struct Open {
    /// Until the client sends EOF.
    input: Option<InputSender>,
    task: AbortHandle,
    /// Its task notices when it is dropped with the channel.
    _open: oneshot::Sender<()>,
}

/// The lease that the client has named.
struct NamedLease {
    pod: PodName,
    login: Option<LeaseLogin>,
}

/// Handles one client. With it all its channels are closed.
pub(super) struct Connection {
    shared: Arc<Shared>,
    progress: Progress,
    /// The pod, once the client has authenticated.
    authenticated: watch::Sender<Option<PodName>>,
    named: Option<NamedLease>,
    /// Held by its channels too.
    permit: Option<Arc<SessionPermit>>,
    channels: HashMap<ChannelId, Open>,
    backlog: Backlog,
    tasks: ChannelTasks,
}

impl Connection {
    pub(super) fn new(
        shared: Arc<Shared>,
        progress: Progress,
        authenticated: watch::Sender<Option<PodName>>,
        tasks: ChannelTasks,
    ) -> Self {
        Self {
            shared,
            progress,
            authenticated,
            named: None,
            permit: None,
            channels: HashMap::new(),
            backlog: Backlog::new(WaitingBytes::default()),
            tasks,
        }
    }

    /// The login of the lease that has this name. A connection has one lookup: a client that names
    /// another pod afterwards has the wrong connection.
    async fn login(&mut self, user: &str) -> Option<&LeaseLogin> {
        let pod = Shared::pod_name(user)?;
        if self.named.is_none() {
            let login = self.shared.login(&pod).await;
            self.named = Some(NamedLease { pod: pod.clone(), login });
        }
        self.named.as_ref().filter(|named| named.pod == pod)?.login.as_ref()
    }

    async fn check_key(&mut self, user: &str, key: &PublicKey) -> Auth {
        self.progress.reach(Stage::Attempted);
        let login = self.login(user).await;
        match login.is_some_and(|login| login.accepts_key(key)) {
            true => Auth::Accept,
            false => Auth::reject(),
        }
    }

    async fn check_secret(&mut self, user: &str, attempt: &str) -> Auth {
        self.progress.reach(Stage::Attempted);
        let login = self.login(user).await;
        if login.is_some_and(|login| login.accepts_secret(attempt)) {
            return Auth::Accept;
        }
        self.shared.counts.reject(Rejection::Credentials);
        tokio::time::sleep(limits::PASSWORD_DELAY).await;
        Auth::Reject { proceed_with_methods: Some(methods()), partial_success: false }
    }

    /// The client's pod, if it may have this port of this host.
    fn target(&self, host: &str, port: u32) -> Option<PodName> {
        let NamedLease { pod, login } = self.named.as_ref().filter(|_| self.permit.is_some())?;
        let is_own = host == pod.as_str() || LOOPBACK.contains(&host);
        let is_ssh = login.as_ref().is_some_and(|login| login.accepts_port(port));
        (is_own && is_ssh).then(|| pod.clone())
    }

    /// Forgets channels whose connection was refused, or has ended. Whether there may be another:
    /// those that the client has closed count until what it has sent is passed on.
    fn has_room(&mut self) -> bool {
        self.channels.retain(|_, open| !open.task.is_finished());
        self.tasks.running() < limits::CHANNELS
    }

    fn connect(&mut self, channel: Channel<Msg>, pod: PodName, reply: ChannelOpenHandle) {
        let id = channel.id();
        // Input arrives through `data` below: a read half that is full would hold up the connection.
        let (_, output) = channel.split();
        let (input, receiver) = self.backlog.queue();
        let (open, mut closed) = oneshot::channel();
        let (shared, permit) = (Arc::clone(&self.shared), self.permit.clone());
        let task = self.tasks.spawn(async move {
            let _permit = permit;
            let stream = tokio::select! {
                stream = shared.open(&pod) => stream,
                _ = &mut closed => return,
            };
            let Some(stream) = stream else {
                return reply
                    .reject(failure(&ChannelOpenFailure::ConnectFailed, UNREACHABLE))
                    .await;
            };
            reply.accept().await;
            relay(stream, receiver, output, closed).await;
        });
        self.channels.insert(id, Open { input: Some(input), task, _open: open });
    }
}

/// Copies both ways until both have ended. When the client has closed the channel, what it has sent
/// before still goes to the pod.
async fn relay(
    stream: Box<dyn ByteStream>,
    mut input: InputReceiver,
    output: ChannelWriteHalf<Msg>,
    closed: oneshot::Receiver<()>,
) {
    let (mut from_pod, mut to_pod) = tokio::io::split(stream);
    let upwards = async {
        while let Some(bytes) = input.next().await {
            if to_pod.write_all(&bytes).await.is_err() || to_pod.flush().await.is_err() {
                break;
            }
        }
        let _ = to_pod.shutdown().await;
    };
    let copied = async {
        let mut piece = Piece::new(limits::CHANNEL_PIECE_BYTES);
        while let Ok(bytes) = piece.read(&mut from_pod).await {
            let bytes = Bytes::copy_from_slice(bytes);
            if bytes.is_empty() || output.data_bytes(bytes).await.is_err() {
                break;
            }
        }
        let _ = output.eof().await;
    };
    let downwards = async {
        tokio::select! {
            () = copied => {}
            _ = closed => {}
        }
    };
    pump::both(upwards, downwards, limits::LINGER).await;
    let _ = output.close().await;
}

impl Handler for Connection {
    type Error = Error;

    /// The first request of a client that has exchanged keys.
    async fn authentication_banner(&mut self) -> Result<Option<String>, Error> {
        self.progress.reach(Stage::KeysExchanged);
        Ok(None)
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Error> {
        Ok(self.check_secret(user, password).await)
    }

    /// Asks for the secret as PAM asks for a password.
    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Error> {
        let Some(mut response) = response else {
            return Ok(password_prompt());
        };
        let attempt = response.next().unwrap_or_default();
        Ok(self.check_secret(user, &String::from_utf8_lossy(&attempt)).await)
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Error> {
        Ok(self.check_key(user, offer.public_key).await)
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Error> {
        if !SIGNATURE_KINDS.contains(key.algorithm) {
            return Ok(Auth::reject());
        }
        Ok(self.check_key(user, key.public_key).await)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Error> {
        let Some(named) = &self.named else { return Err(Error::Inconsistent) };
        let Some(permit) = self.shared.begin_session(&named.pod) else {
            return session.disconnect(Disconnect::TooManyConnections, TOO_MANY_SESSIONS, "en");
        };
        self.backlog = Backlog::new(permit.place.waiting());
        self.permit = Some(Arc::new(permit));
        self.progress.reach(Stage::Authenticated);
        self.authenticated.send_replace(Some(named.pod.clone()));
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.shared.counts.reject(Rejection::NotPermitted);
        reply.reject(failure(&ChannelOpenFailure::AdministrativelyProhibited, NO_SHELL)).await;
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
        let Some(pod) = self.target(host, port) else {
            self.shared.counts.reject(Rejection::NotPermitted);
            reply.reject(failure(&ChannelOpenFailure::AdministrativelyProhibited, ELSEWHERE)).await;
            return Ok(());
        };
        if self.has_room() {
            self.connect(channel, pod, reply);
        } else {
            self.shared.counts.reject(Rejection::TooMany);
            let full = failure(&ChannelOpenFailure::ResourceShortage, TOO_MANY_CHANNELS);
            reply.reject(full).await;
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.channels.remove(&id);
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        if let Some(open) = self.channels.get_mut(&id) {
            open.input = None;
        }
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Error> {
        if let Some(input) = self.channels.get(&id).and_then(|open| open.input.as_ref()) {
            input.push(data);
        }
        self.backlog.pace().await.map_err(|Excess| Error::Inconsistent)
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        if self.backlog.is_full() { limits::NARROW_WINDOW } else { limits::WINDOW }
    }
}
