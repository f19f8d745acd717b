//! The gateway's endpoint of iroh: its key, its addresses and its relays. It uses the operator's
//! relays alone, and no service that looks up addresses: tickets have them.

use crate::limits;
use crate::ticket::GatewayTicket;
use iroh::endpoint::{
    BindError, Connection, IdleTimeout, Incoming, InvalidSocketAddr, QuicTransportConfig,
    RelayStatus, VarInt, presets,
};
use iroh::{
    Endpoint, EndpointAddr, KeyParsingError, RelayMode, RelayUrl, RelayUrlParseError, SecretKey,
    Watcher,
};
use paygress_core::backoff::doubling;
use paygress_core::error_chain;
use paygress_core::model::secret::Secret;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The endpoint's key, which the operator has: tickets name it. It is never printed.
#[derive(Clone)]
pub struct EndpointKey(SecretKey);

/// The text is no key.
#[derive(Debug, thiserror::Error)]
#[error("the gateway's endpoint key is not 64 hex digits: make one with `openssl rand -hex 32`")]
pub struct EndpointKeyError(#[source] KeyParsingError);

impl EndpointKeyError {
    /// Its code, for the operator's programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "endpoint-key-invalid"
    }
}

impl EndpointKey {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(SecretKey::generate())
    }

    /// Parses the text of [`to_text`](Self::to_text).
    ///
    /// # Errors
    /// [`EndpointKeyError`].
    pub fn parse(text: &Secret) -> Result<Self, EndpointKeyError> {
        text.expose().trim().parse().map(Self).map_err(EndpointKeyError)
    }

    /// The key in hex, to be kept.
    #[must_use]
    pub fn to_text(&self) -> Secret {
        Secret::new(hex::encode(self.0.to_bytes()))
    }
}

impl fmt::Debug for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndpointKey(…)")
    }
}

/// A relay of the operator's, by its URL: needed where the endpoint has no open UDP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay(RelayUrl);

/// The text is no relay's URL.
#[derive(Debug, thiserror::Error)]
#[error("a relay is named by a URL like https://relay.example.com")]
pub struct RelayError(#[source] Option<RelayUrlParseError>);

impl RelayError {
    /// Its code, for the operator's programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "relay-invalid"
    }
}

impl Relay {
    pub(crate) fn url(&self) -> &RelayUrl {
        &self.0
    }
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Relay {
    type Err = RelayError;

    fn from_str(text: &str) -> Result<Self, RelayError> {
        let url: RelayUrl = text.parse().map_err(|error| RelayError(Some(error)))?;
        match matches!(url.scheme(), "https" | "http") && url.has_host() {
            true => Ok(Self(url)),
            false => Err(RelayError(None)),
        }
    }
}

/// Where an endpoint listens, and how it is found.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    pub key: EndpointKey,
    /// The UDP addresses that it listens on, one of each family at the most. None: a free port of
    /// all addresses, which is another one after a restart, as are the tickets' then.
    pub udp: Vec<SocketAddr>,
    /// Addresses under which it is reached from outside, if they are others.
    pub external: Vec<SocketAddr>,
    /// None: it is reached directly only.
    pub relays: Vec<Relay>,
}

impl EndpointOptions {
    /// An endpoint with this key that listens on a free port and has no relay.
    #[must_use]
    pub fn new(key: EndpointKey) -> Self {
        Self { key, udp: Vec::new(), external: Vec::new(), relays: Vec::new() }
    }

    /// The ticket of the endpoint that another process opens with these options: of its addresses, the
    /// external ones.
    #[must_use]
    pub fn ticket(&self) -> GatewayTicket {
        let mut addr = EndpointAddr::new(self.key.0.public());
        for address in &self.external {
            addr = addr.with_ip_addr(*address);
        }
        for relay in &self.relays {
            addr = addr.with_relay_url(relay.0.clone());
        }
        GatewayTicket::new(addr)
    }
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("the gateway's endpoint has two UDP addresses of one family: give it one of each")]
    Address(#[source] InvalidSocketAddr),
    #[error("the gateway's endpoint cannot be opened: is its UDP address in use, or not here?")]
    Bind(#[source] Box<BindError>),
}

impl EndpointError {
    /// Its code, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Address(_) => "endpoint-address",
            Self::Bind(_) => "endpoint-bind",
        }
    }
}

/// An endpoint that listens. A gateway that serves it opens it again when it has failed.
#[derive(Clone, Debug)]
pub struct IrohEndpoint {
    options: Arc<EndpointOptions>,
    /// None: it was closed or has failed, and is not open again yet.
    open: Arc<Mutex<Option<Endpoint>>>,
}

impl IrohEndpoint {
    /// Opens it. It does not wait for a relay: that may come later.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn bind(options: EndpointOptions) -> Result<Self, EndpointError> {
        let open = Some(bind(&options).await?);
        Ok(Self { options: Arc::new(options), open: Arc::new(Mutex::new(open)) })
    }

    /// Its addresses as they are known now; none while it is closed. They grow when a relay is found,
    /// and change with the machine's.
    #[must_use]
    pub fn ticket(&self) -> Option<GatewayTicket> {
        let endpoint = self.endpoint()?;
        let mut addr = endpoint.addr();
        let bound = endpoint.bound_sockets().into_iter();
        let own = bound.filter(|address| !address.ip().is_unspecified());
        for address in own.chain(self.options.external.iter().copied()) {
            addr = addr.with_ip_addr(address);
        }
        // Which one is nearest is not known before one answers.
        if addr.relay_urls().next().is_none() {
            for relay in &self.options.relays {
                addr = addr.with_relay_url(relay.0.clone());
            }
        }
        Some(GatewayTicket::new(addr))
    }

    /// Whether it is closed: nobody reaches it until it is open again.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.endpoint().is_none()
    }

    /// Whether relays are configured and it is connected to none of them: clients that cannot reach
    /// it directly cannot reach it at all.
    #[must_use]
    pub fn lacks_relay(&self) -> bool {
        let Some(endpoint) = self.endpoint() else { return false };
        let statuses = endpoint.home_relay_status().get();
        !self.options.relays.is_empty() && !statuses.iter().any(RelayStatus::is_connected)
    }

    /// Closes it, and its sessions with it. A gateway that serves it opens it again.
    pub async fn close(&self) {
        let endpoint = self.lock().take();
        if let Some(endpoint) = endpoint {
            endpoint.close().await;
        }
    }

    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        self.lock().clone()
    }

    /// Lets go of one that accepts nothing any more: its sockets are closed with its last owner.
    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    /// Opens it again, however often that has to be tried.
    pub(crate) async fn reopen(&self) {
        for pause in doubling(limits::REOPEN_FIRST, limits::REOPEN_LONGEST) {
            tokio::time::sleep(pause).await;
            match bind(&self.options).await {
                Ok(endpoint) => {
                    tracing::info!("the endpoint of iroh is open again");
                    *self.lock() = Some(endpoint);
                    return;
                }
                Err(error) => {
                    let error = error_chain(&error);
                    tracing::warn!(error, "the endpoint of iroh cannot be opened again yet");
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Endpoint>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn bind(options: &EndpointOptions) -> Result<Endpoint, EndpointError> {
    let EndpointOptions { key, udp, external, relays } = options;
    let mut builder = Endpoint::builder(presets::Minimal)
        .secret_key(key.0.clone())
        .relay_mode(relay_mode(relays.iter().map(|relay| relay.0.clone())))
        .transport_config(transport(limits::LEAST_QUIC_WINDOW));
    if !udp.is_empty() {
        builder = builder.clear_ip_transports();
    }
    for address in udp {
        builder = builder.bind_addr(*address).map_err(EndpointError::Address)?;
    }
    for address in external {
        builder = builder.external_addr(*address);
    }
    let bound = Box::pin(builder.bind()).await;
    bound.map_err(|error| EndpointError::Bind(Box::new(error)))
}

/// Uses these relays, and no default ones.
pub(crate) fn relay_mode(relays: impl Iterator<Item = RelayUrl>) -> RelayMode {
    let mut relays = relays.peekable();
    match relays.peek() {
        Some(_) => RelayMode::custom(relays),
        None => RelayMode::Disabled,
    }
}

/// Accepts a connection by this protocol alone. Under way are at most as many bytes as the window
/// has, each way. None: the handshake has failed.
pub(crate) async fn accept(
    endpoint: &Endpoint,
    incoming: Incoming,
    protocol: Vec<u8>,
    window: u32,
) -> Option<Connection> {
    let config = endpoint
        .create_server_config_builder(vec![protocol])
        .set_transport_config(transport(window))
        .build();
    match incoming.accept_with(Arc::new(config)).ok()?.await {
        Ok(connection) => {
            connection.set_receive_window(VarInt::from_u32(window));
            Some(connection)
        }
        Err(error) => {
            tracing::debug!(%error, "a handshake failed");
            None
        }
    }
}

/// One stream for each connection and no datagrams, little memory for each, and a short time until a
/// silent peer is given up. A path has the same time as the connection: the connection ends with its
/// last path.
///
/// The receive window is the least that a connection gets. A client that comes again by a session
/// ticket closes a connection that begins with less than the ticket's.
fn transport(send_window: u32) -> QuicTransportConfig {
    let idle = IdleTimeout::try_from(limits::IDLE).ok();
    QuicTransportConfig::builder()
        .max_idle_timeout(idle)
        .keep_alive_interval(limits::QUIC_KEEP_ALIVE)
        .default_path_max_idle_timeout(limits::IDLE)
        .default_path_keep_alive_interval(limits::QUIC_KEEP_ALIVE)
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(limits::QUIC_WINDOW))
        .receive_window(VarInt::from_u32(limits::LEAST_QUIC_WINDOW))
        .send_window(u64::from(send_window))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alpn;

    /// One that is narrower than the last does not put off a client that comes again.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_sends_as_much_ahead_as_its_window_has() {
        let mut options = EndpointOptions::new(EndpointKey::generate());
        options.udp = vec!["127.0.0.1:0".parse().unwrap()];
        let endpoint = IrohEndpoint::bind(options).await.unwrap();
        let (gateway, ticket) = (endpoint.endpoint().unwrap(), endpoint.ticket().unwrap());
        let client = Box::pin(Endpoint::builder(presets::Minimal).bind()).await.unwrap();
        for window in [limits::QUIC_WINDOW, limits::LEAST_QUIC_WINDOW, limits::QUIC_WINDOW] {
            let accepted = async {
                let incoming = gateway.accept().await.unwrap();
                accept(&gateway, incoming, alpn::BARE.to_vec(), window).await.unwrap()
            };
            let connected = client.connect(ticket.addr().clone(), alpn::BARE);
            let (accepted, connected) = tokio::join!(Box::pin(accepted), Box::pin(connected));
            let connection = connected.unwrap();
            assert_eq!(connection.max_datagram_size(), None, "they would wait besides");
            let (mut send, _receive) = connection.open_bi().await.unwrap();
            let most = usize::try_from(window).unwrap();
            // Nobody reads it, so that each write takes all that is left of the window.
            let (mut sent, bytes) = (0, vec![7; most.saturating_mul(2)]);
            let writes = async {
                while sent < most {
                    sent = sent.saturating_add(send.write(&bytes).await.unwrap());
                }
            };
            tokio::time::timeout(limits::HANDSHAKE, writes).await.expect("there is room for it");
            assert_eq!(sent, most);
            drop(accepted);
        }
        client.close().await;
    }

    #[test]
    fn a_key_is_the_same_after_it_was_kept() {
        let key = EndpointKey::generate();
        let read = EndpointKey::parse(&key.to_text()).unwrap();
        assert_eq!(read.to_text(), key.to_text());
        assert_eq!(format!("{key:?}"), "EndpointKey(…)");
        for other in ["", "ab", "x"] {
            let error = EndpointKey::parse(&Secret::new(other)).unwrap_err();
            assert_eq!(error.code(), "endpoint-key-invalid", "{other}");
        }
    }

    #[test]
    fn a_relay_is_a_url_of_a_server() {
        for url in ["https://relay.example.com", "http://192.0.2.7:3340/"] {
            assert!(url.parse::<Relay>().is_ok(), "{url}");
        }
        for other in ["", "relay.example.com", "ftp://relay.example.com", "data:,x"] {
            assert!(other.parse::<Relay>().is_err(), "{other}");
        }
    }

    #[test]
    fn another_process_knows_the_id_and_the_external_addresses() {
        let mut options = EndpointOptions::new(EndpointKey::generate());
        let id = options.ticket().endpoint_id();
        options.external = vec!["192.0.2.7:4433".parse().unwrap()];
        options.relays = vec!["https://relay.example.com".parse().unwrap()];
        let ticket = options.ticket();
        assert_eq!((ticket.endpoint_id(), id.len()), (id, 64));
        assert_eq!(ticket.addr().addrs.len(), 2);
    }

    #[test]
    fn without_relays_of_the_operators_there_are_none() {
        assert_eq!(relay_mode(std::iter::empty()), RelayMode::Disabled);
    }

    /// A gateway that is killed leaves no session hanging for longer.
    #[test]
    fn a_silent_peer_is_given_up_within_five_seconds() {
        assert!(limits::IDLE < std::time::Duration::from_secs(5));
        assert!(limits::QUIC_KEEP_ALIVE.saturating_mul(3) < limits::IDLE);
        assert!(limits::LOOKUP < limits::IDLE, "a client is answered before it is dropped");
    }
}
