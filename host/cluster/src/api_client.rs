//! The client of an API server that is reached directly, as `kube` makes it but for one option of its
//! sockets.

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::{Client as HyperClient, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// The library has no option for this: with Nagle's algorithm the first request of a connection is
/// held until the API server has acknowledged the handshake, which takes its kernel 40 ms.
pub(crate) fn direct(config: Config) -> Result<Client, kube::Error> {
    let tls = config.rustls_https_connector_with_connector(tcp())?;
    let mut connector = TimeoutConnector::new(tls);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let client = HyperClient::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client);
    Ok(Client::new(service, config.default_namespace))
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tower_service::Service;

    #[tokio::test]
    async fn nothing_is_held_back_on_a_new_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let connected = tcp().call(url.parse().unwrap()).await.unwrap();
        assert!(connected.inner().nodelay().unwrap());
    }
}
