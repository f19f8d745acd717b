//! Which relays we connect to because a customer names them.

use async_wsocket::futures_util::stream::SplitSink;
use async_wsocket::futures_util::{Sink, SinkExt, StreamExt, TryStreamExt};
use async_wsocket::{ConnectionMode, Message, WebSocket};
use nostr_sdk::Url;
use nostr_sdk::pool::transport::error::TransportError;
use nostr_sdk::pool::transport::websocket::{WebSocketSink, WebSocketStream, WebSocketTransport};
use nostr_sdk::types::url::Host;
use nostr_sdk::util::BoxedFuture;
use paygress_http_client::is_public;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{self, Poll};
use std::time::Duration;
use tokio::net::TcpStream;

/// Why an external relay is not connected to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("the relay's URL must be wss:// without credentials")]
    Url,
    #[error("the relay's name cannot be resolved")]
    Lookup(#[source] std::io::Error),
    #[error("the relay's address is not public")]
    NotPublic,
    #[error("the relay does not answer in time")]
    Timeout,
}

/// The addresses of an external relay: encrypted, without credentials in the URL, and public
/// wherever the name resolves to.
pub(crate) async fn resolve(url: &Url) -> Result<Vec<SocketAddr>, AddressError> {
    if url.scheme() != "wss" || !url.username().is_empty() || url.password().is_some() {
        return Err(AddressError::Url);
    }
    let port = url.port_or_known_default().unwrap_or(443);
    let addresses: Vec<SocketAddr> = match url.host() {
        Some(Host::Ipv4(ip)) => vec![(ip, port).into()],
        Some(Host::Ipv6(ip)) => vec![(ip, port).into()],
        Some(Host::Domain(name)) => {
            tokio::net::lookup_host((name, port)).await.map_err(AddressError::Lookup)?.collect()
        }
        None => Vec::new(),
    };
    if addresses.is_empty() || !addresses.iter().all(|address| is_public(address.ip())) {
        return Err(AddressError::NotPublic);
    }
    Ok(addresses)
}

/// Connects to the addresses that were checked, and no others: resolved again, a name may lead
/// elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublicOnly;

impl WebSocketTransport for PublicOnly {
    fn support_ping(&self) -> bool {
        true
    }

    fn connect<'a>(
        &'a self,
        url: &'a Url,
        _: &'a ConnectionMode,
        timeout: Duration,
    ) -> BoxedFuture<'a, Result<(WebSocketSink, WebSocketStream), TransportError>> {
        Box::pin(async move {
            let connect = async {
                let addresses = resolve(url).await.map_err(TransportError::backend)?;
                let tcp = TcpStream::connect(addresses.as_slice())
                    .await
                    .map_err(TransportError::backend)?;
                let (socket, _) = tokio_tungstenite::client_async_tls(url.as_str(), tcp)
                    .await
                    .map_err(TransportError::backend)?;
                Ok::<_, TransportError>(WebSocket::Tokio(socket))
            };
            let timed_out = |_| TransportError::backend(AddressError::Timeout);
            let connected = tokio::time::timeout(timeout, connect).await.map_err(timed_out)??;
            let (sink, stream) = connected.split();
            let sink: WebSocketSink = Box::new(TransportSink(sink));
            let stream: WebSocketStream = Box::pin(stream.map_err(TransportError::backend));
            Ok((sink, stream))
        })
    }
}

/// The sink with the library's error type. Not `sink_map_err`: that one panics when it is polled
/// after an error.
struct TransportSink(SplitSink<WebSocket, Message>);

impl Sink<Message> for TransportSink {
    type Error = TransportError;

    fn poll_ready(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Result<(), TransportError>> {
        self.0.poll_ready_unpin(context).map_err(TransportError::backend)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), TransportError> {
        self.0.start_send_unpin(message).map_err(TransportError::backend)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Result<(), TransportError>> {
        self.0.poll_flush_unpin(context).map_err(TransportError::backend)
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Result<(), TransportError>> {
        self.0.poll_close_unpin(context).map_err(TransportError::backend)
    }
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
            assert!(resolve(&url).await.is_err(), "{bad}");
            assert!(
                PublicOnly
                    .connect(&url, &ConnectionMode::Direct, Duration::from_secs(5))
                    .await
                    .is_err(),
                "{bad}"
            );
        }
        for (good, address) in [
            ("wss://8.8.8.8", "8.8.8.8:443"),
            ("wss://[2606:4700::1111]:444/path", "[2606:4700::1111]:444"),
        ] {
            assert_eq!(
                resolve(&Url::parse(good).unwrap()).await.unwrap(),
                vec![address.parse::<SocketAddr>().unwrap()],
                "{good}"
            );
        }
    }
}
