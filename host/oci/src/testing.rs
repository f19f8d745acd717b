//! A registry in memory, for tests: it can ask for passwords, encrypt, forget itself, lie and send
//! one elsewhere.

use crate::digest::Digest;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION, RANGE, WWW_AUTHENTICATE,
};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::body::{Bytes, Frame};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const BODY_BYTES: usize = 64 << 20;
const TOKEN: &str = "a-token-of-the-realm";

/// What the registry asks of everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Demand {
    /// Nothing.
    #[default]
    Nothing,
    /// This `user:password`.
    Basic(String),
    /// A token, which is had for this `user:password`, or for nothing, at this realm, or at the
    /// registry itself.
    Bearer {
        /// Who gets a token; none: everybody.
        credentials: Option<String>,
        /// Where; none: at the registry's own `/token`.
        realm: Option<String>,
    },
}

/// How blobs are answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Blobs {
    /// With their bytes.
    #[default]
    Sent,
    /// With a redirect to this server, which has the same path.
    At(String),
    /// With bytes that never end.
    Endless,
    /// With a head, and then nothing.
    Stalled,
}

/// A request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub path: String,
    /// Its credentials.
    pub authorization: Option<String>,
}

#[derive(Default)]
struct Shelf {
    demand: Demand,
    answer: Blobs,
    upload_server: String,
    blobs: HashMap<String, Bytes>,
    manifests: HashMap<String, (String, Bytes)>,
    uploads: HashMap<String, Vec<u8>>,
    begun: u64,
    seen: Vec<Seen>,
}

#[derive(Clone)]
struct Shop {
    address: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
}

/// The registry. It is gone when this is dropped.
pub struct TestRegistry {
    shop: Shop,
    task: JoinHandle<()>,
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestRegistry {
    /// Opens at a free port of 127.0.0.1.
    pub async fn open(demand: Demand) -> io::Result<Self> {
        Self::open_at(SocketAddr::from(([127, 0, 0, 1], 0)), demand).await
    }

    /// Opens at a free port of 127.0.0.1 and speaks TLS, with a certificate and its key in PEM.
    pub async fn open_tls(certificate: &[u8], key: &[u8]) -> io::Result<Self> {
        let certificate = CertificateDer::from_pem_slice(certificate).map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let config = config
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .map_err(io::Error::other)?;
        let tcp = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = tcp.local_addr()?;
        Ok(Self::serve(Tls { tcp, acceptor: Arc::new(config).into() }, address, Demand::Nothing))
    }

    /// Opens at this address.
    pub async fn open_at(address: SocketAddr, demand: Demand) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self::serve(listener, address, demand))
    }

    fn serve<L: Listener<Addr: Debug>>(listener: L, address: SocketAddr, demand: Demand) -> Self {
        let shop =
            Shop { address, shelf: Arc::new(Mutex::new(Shelf { demand, ..Shelf::default() })) };
        let router = Router::new().fallback(serve).with_state(shop.clone());
        let task = tokio::spawn(async { axum::serve(listener, router).await.unwrap_or_default() });
        Self { shop, task }
    }

    /// What a reference begins with: its host and port.
    #[must_use]
    pub fn host(&self) -> String {
        self.shop.address.to_string()
    }

    /// Says how blobs are answered from now on.
    pub fn answer_blobs(&self, how: Blobs) {
        self.shop.shelf().answer = how;
    }

    /// Says at which server uploads go on; at first they have a path only.
    pub fn take_uploads_at(&self, server: &str) {
        self.shop.shelf().upload_server = server.to_owned();
    }

    /// Puts bytes in the place of a blob, whatever their digest is.
    pub fn replace_blob(&self, digest: &Digest, bytes: &[u8]) {
        self.shop.shelf().blobs.insert(digest.to_string(), Bytes::copy_from_slice(bytes));
    }

    /// Puts bytes in the place of a manifest: at a tag, or at a digest, whatever theirs is.
    pub fn replace_manifest(&self, repository: &str, version: &str, bytes: &[u8]) {
        let manifest = (crate::manifest::MANIFEST.to_owned(), Bytes::copy_from_slice(bytes));
        self.shop.shelf().manifests.insert(format!("{repository}/manifests/{version}"), manifest);
    }

    /// A manifest, as it was put.
    #[must_use]
    pub fn manifest(&self, repository: &str, version: &str) -> Option<Vec<u8>> {
        self.shop
            .shelf()
            .manifests
            .get(&format!("{repository}/manifests/{version}"))
            .map(|(_, bytes)| bytes.to_vec())
    }

    /// A blob, as it was put.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.shop.shelf().blobs.get(&digest.to_string()).map(|bytes| bytes.to_vec())
    }

    /// The blobs of this registry are in the other one too.
    pub fn copy_blobs_to(&self, other: &Self) {
        let blobs = self.shop.shelf().blobs.clone();
        other.shop.shelf().blobs.extend(blobs);
    }

    /// The requests that came since the last call.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shop.shelf().seen)
    }
}

/// Connections that begin with a handshake.
struct Tls {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, from) = Listener::accept(&mut self.tcp).await;
            // Who does not trust the certificate goes away.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

impl Shop {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who has not what is demanded is told what that is.
    fn refusal(&self, demand: &Demand, uri: &Uri, given: Option<&str>) -> Option<Response> {
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        let (is_welcome, challenge) = match demand {
            Demand::Nothing => (true, String::new()),
            Demand::Basic(pair) => {
                (given == Some(&*basic(pair)), "Basic realm=\"test\"".to_owned())
            }
            Demand::Bearer { credentials, realm } if uri.path() == "/token" && realm.is_none() => {
                let is_welcome =
                    credentials.as_ref().is_none_or(|pair| given == Some(&*basic(pair)));
                return Some(if is_welcome {
                    format!("{{\"token\":\"{TOKEN}\"}}").into_response()
                } else {
                    told(StatusCode::UNAUTHORIZED)
                });
            }
            Demand::Bearer { realm, .. } => {
                let realm =
                    realm.clone().unwrap_or_else(|| format!("http://{}/token", self.address));
                (
                    given == Some(&*format!("Bearer {TOKEN}")),
                    format!("Bearer realm=\"{realm}\",service=\"test\""),
                )
            }
        };
        (!is_welcome)
            .then(|| (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response())
    }
}

async fn serve(State(shop): State<Shop>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES).await else {
        return told(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let given = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let demand = shop.shelf().demand.clone();
    let seen = Seen {
        method: head.method.clone(),
        path: head.uri.to_string(),
        authorization: given.map(str::to_owned),
    };
    shop.shelf().seen.push(seen);
    if let Some(refusal) = shop.refusal(&demand, &head.uri, given) {
        return refusal;
    }
    let path = head.uri.path().strip_prefix("/v2/").unwrap_or_default();
    if path.is_empty() {
        return StatusCode::OK.into_response();
    }
    let mut shelf = shop.shelf();
    if path.contains("/blobs/uploads/") {
        return shelf.upload(&head.method, &head.uri, path, &body);
    }
    match path.rsplit_once("/blobs/") {
        Some((_, digest)) => shelf.blob(&head.method, &head.uri, digest),
        None if path.contains("/manifests/") => {
            shelf.manifest(&head.method, &head.headers, path, body)
        }
        None => told(StatusCode::NOT_FOUND),
    }
}

impl Shelf {
    fn blob(&self, method: &Method, uri: &Uri, digest: &str) -> Response {
        match (&self.answer, self.blobs.get(digest)) {
            (Blobs::At(server), _) if method == Method::GET => {
                (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, format!("{server}{uri}"))])
                    .into_response()
            }
            (Blobs::Endless, Some(_)) if method == Method::GET => {
                Body::new(Odd { is_endless: true }).into_response()
            }
            (Blobs::Stalled, Some(_)) if method == Method::GET => {
                Body::new(Odd { is_endless: false }).into_response()
            }
            (_, Some(bytes)) => bytes.clone().into_response(),
            (_, None) => told(StatusCode::NOT_FOUND),
        }
    }

    fn upload(&mut self, method: &Method, uri: &Uri, path: &str, body: &Bytes) -> Response {
        let server = self.upload_server.clone();
        let here = |path: &str| (LOCATION, format!("{server}/v2/{path}"));
        if method == Method::POST {
            self.begun = self.begun.wrapping_add(1);
            let path = format!("{path}{}", self.begun);
            self.uploads.insert(path.clone(), Vec::new());
            return (StatusCode::ACCEPTED, [here(&path)]).into_response();
        }
        let Some(upload) = self.uploads.get_mut(path) else { return told(StatusCode::NOT_FOUND) };
        upload.extend_from_slice(body);
        if method == Method::PATCH {
            let range = format!("0-{}", upload.len().saturating_sub(1));
            return (StatusCode::ACCEPTED, [here(path), (RANGE, range)]).into_response();
        }
        let digest = Digest::of(upload).to_string();
        let query = uri.query().unwrap_or_default().replace("%3A", ":");
        if !query.contains(&format!("digest={digest}")) {
            return told(StatusCode::BAD_REQUEST);
        }
        let bytes = self.uploads.remove(path).unwrap_or_default();
        self.blobs.insert(digest, bytes.into());
        StatusCode::CREATED.into_response()
    }

    fn manifest(
        &mut self,
        method: &Method,
        headers: &HeaderMap,
        path: &str,
        body: Bytes,
    ) -> Response {
        if method == Method::PUT {
            let content = headers
                .get(CONTENT_TYPE)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned();
            let digest = Digest::of(&body);
            let repository = path.split("/manifests/").next().unwrap_or_default();
            self.manifests.insert(
                format!("{repository}/manifests/{digest}"),
                (content.clone(), body.clone()),
            );
            self.manifests.insert(path.to_owned(), (content, body));
            return (StatusCode::CREATED, [("docker-content-digest", digest.to_string())])
                .into_response();
        }
        let Some((content, bytes)) = self.manifests.get(path) else {
            return told(StatusCode::NOT_FOUND);
        };
        let digest = Digest::of(bytes).to_string();
        (
            [(CONTENT_TYPE.as_str(), content.clone()), ("docker-content-digest", digest)],
            bytes.clone(),
        )
            .into_response()
    }
}

/// An error, with a body that is not to be repeated.
fn told(status: StatusCode) -> Response {
    (status, r#"{"errors":[{"code":"UNKNOWN","message":"the registry's own words"}]}"#)
        .into_response()
}

/// A body that never ends: with bytes, or without.
struct Odd {
    is_endless: bool,
}

impl hyper::body::Body for Odd {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.is_endless {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 4096])))))
        } else {
            Poll::Pending
        }
    }
}
