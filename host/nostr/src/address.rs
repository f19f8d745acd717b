//! Which relays we connect to because a customer names them.

use nostr_sdk::Url;
use nostr_sdk::types::url::Host;
use paygress_http_client::{NotPublic, Reach};
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

/// What a relay may send us at once: it only has to confirm an event.
const MESSAGE_BYTES: usize = 64 << 10;
/// Read at a time. The library's own 128 KiB would be taken by each connection.
const BUFFER_BYTES: usize = 4 << 10;

/// A connection to a relay.
pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why an external relay is not connected to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("the relay's URL must be wss:// without credentials")]
    Url,
    #[error("the relay's name cannot be resolved")]
    Lookup(#[source] std::io::Error),
    #[error("the relay's address is not public")]
    NotPublic(#[from] NotPublic),
    #[error("the relay cannot be reached")]
    Tcp(#[source] std::io::Error),
    #[error("the relay does not speak WebSocket")]
    WebSocket(#[source] Box<tokio_tungstenite::tungstenite::Error>),
}

impl AddressError {
    /// Whether it will never be connected to: not for what it does, but for what it is.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Url | Self::NotPublic(_))
    }
}

/// The addresses of an external relay: encrypted, without credentials in the URL, and public
/// wherever the name resolves to.
async fn resolve(url: &Url, reach: Reach) -> Result<Vec<SocketAddr>, AddressError> {
    let is_public_url =
        url.scheme() == "wss" && url.username().is_empty() && url.password().is_none();
    if reach == Reach::Public && !is_public_url {
        return Err(AddressError::Url);
    }
    let port = url.port_or_known_default().unwrap_or(443);
    let addresses: Vec<SocketAddr> = match url.host() {
        Some(Host::Ipv4(ip)) => vec![(ip, port).into()],
        Some(Host::Ipv6(ip)) => vec![(ip, port).into()],
        Some(Host::Domain(name)) => {
            tokio::net::lookup_host((name, port)).await.map_err(AddressError::Lookup)?.collect()
        }
        None => return Err(AddressError::Url),
    };
    Ok(reach.check(addresses)?)
}

/// Whether it is one that may be connected to, by its URL and by what its name resolves to now.
pub(crate) async fn is_allowed(url: &Url, reach: Reach) -> bool {
    resolve(url, reach).await.is_ok()
}

/// Connects to the addresses that were checked, and no others: resolved again, a name may lead
/// elsewhere. The connection is all that is held: it ends when this future or the socket is dropped.
pub(crate) async fn connect(url: &Url, reach: Reach) -> Result<Socket, AddressError> {
    let addresses = resolve(url, reach).await?;
    let tcp = TcpStream::connect(addresses.as_slice()).await.map_err(AddressError::Tcp)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(MESSAGE_BYTES))
        .max_frame_size(Some(MESSAGE_BYTES));
    let connected = client_async_tls_with_config(url.as_str(), tcp, Some(config), None).await;
    let (socket, _) = connected.map_err(|error| AddressError::WebSocket(Box::new(error)))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_external_relay_is_not_in_a_private_network() {
        for bad in [
            "ws://8.8.8.8",
            "wss://127.0.0.1",
            "wss://127.1",
            "wss://2130706433",
            "wss://0x7f000001",
            "wss://localhost",
            "wss://10.0.0.1",
            "wss://192.168.1.1:7777",
            "wss://172.20.0.1",
            "wss://169.254.169.254/latest",
            "wss://100.64.0.1",
            "wss://0.0.0.0",
            "wss://[::1]",
            "wss://[::ffff:10.0.0.1]",
            "wss://[64:ff9b::a00:1]",
            "wss://[64:ff9b:1::808:808]",
            "wss://[2002:7f00:1::]",
            "wss://[fd00::1]",
            "wss://[fe80::1]",
            "wss://user:pass@8.8.8.8",
            "wss://does-not-exist.invalid",
        ] {
            let Ok(url) = Url::parse(bad) else { continue };
            assert!(!is_allowed(&url, Reach::Public).await, "{bad}");
            assert!(connect(&url, Reach::Public).await.is_err(), "{bad}");
        }
        for (good, address) in [
            ("wss://8.8.8.8", "8.8.8.8:443"),
            ("wss://[2606:4700::1111]:444/path", "[2606:4700::1111]:444"),
        ] {
            assert_eq!(
                resolve(&Url::parse(good).unwrap(), Reach::Public).await.unwrap(),
                vec![address.parse::<SocketAddr>().unwrap()],
                "{good}"
            );
        }
    }
}
