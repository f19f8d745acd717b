//! A registry in memory, for tests: it can require credentials, speak TLS, be busy, send wrong or
//! endless bytes and redirect.

mod tls;

use self::tls::TlsListener;
use crate::digest::Digest;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const MAX_BODY_BYTES: usize = 64 << 20;
const TOKEN: &str = "a-token-of-the-realm";

/// What the registry requires of every request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RequiredAuth {
    #[default]
    None,
    /// This `user:password`.
    Basic(String),
    /// A token from a realm.
    Bearer {
        /// The `user:password` that the registry's own realm issues tokens for; none: it issues
        /// them to everybody.
        credentials: Option<String>,
        /// Where tokens are issued; none: at the registry's own `/token`.
        realm: Option<String>,
    },
    /// A token that the registry's own `/token` issues for this identity token.
    IdentityToken(String),
    /// A token of the registry's own `/token`, which it issues to everybody; offered in this header,
    /// in which `REALM` stands for it.
    Offered(String),
}

/// How a request for a blob is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BlobBehavior {
    #[default]
    Serve,
    /// A redirect to the same path of this server.
    Redirect(String),
    /// Bytes that never end.
    Endless,
    /// Headers without a body.
    Stall,
}

/// Requests that are answered with a status, and their Retry-After.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    pub requests: u32,
    pub status: StatusCode,
    pub retry_after: Option<String>,
}

/// Where the registry lists what refers to an artifact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReferrersList {
    /// Nowhere: clients keep an index at a tag.
    #[default]
    None,
    Served,
    /// The list is answered with this status, as by a registry that does not know its path.
    Status(StatusCode),
}

/// A request that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedRequest {
    pub method: Method,
    pub path: String,
    pub authorization: Option<String>,
}

#[derive(Default)]
struct Contents {
    required_auth: RequiredAuth,
    blob_behavior: BlobBehavior,
    manifest_server: Option<String>,
    busy: Option<Busy>,
    referrers: ReferrersList,
    upload_server: String,
    blobs: HashMap<String, Bytes>,
    manifests: HashMap<String, (String, Bytes)>,
    uploads: HashMap<String, Vec<u8>>,
    uploads_started: u64,
    requests: Vec<ReceivedRequest>,
}

#[derive(Clone)]
struct Server {
    address: SocketAddr,
    contents: Arc<Mutex<Contents>>,
}

/// The registry. It stops when this is dropped.
pub struct TestRegistry {
    server: Server,
    task: JoinHandle<()>,
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestRegistry {
    /// Listens on a free port of 127.0.0.1.
    pub async fn open(required_auth: RequiredAuth) -> io::Result<Self> {
        Self::open_at(SocketAddr::from(([127, 0, 0, 1], 0)), required_auth).await
    }

    /// Listens on a free port of 127.0.0.1 and speaks TLS, with a certificate and its key in PEM.
    pub async fn open_tls(certificate: &[u8], key: &[u8]) -> io::Result<Self> {
        let listener = TlsListener::bind(certificate, key).await?;
        let address = listener.local_addr()?;
        Ok(Self::serve(listener, address, RequiredAuth::None))
    }

    pub async fn open_at(address: SocketAddr, required_auth: RequiredAuth) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self::serve(listener, address, required_auth))
    }

    fn serve<L: Listener<Addr: Debug>>(
        listener: L,
        address: SocketAddr,
        required_auth: RequiredAuth,
    ) -> Self {
        let contents = Contents { required_auth, ..Contents::default() };
        let server = Server { address, contents: Arc::new(Mutex::new(contents)) };
        let router = Router::new().fallback(serve).with_state(server.clone());
        let task = tokio::spawn(async { axum::serve(listener, router).await.unwrap_or_default() });
        Self { server, task }
    }

    /// Its host and port, with which a reference begins.
    #[must_use]
    pub fn host(&self) -> String {
        self.server.address.to_string()
    }

    pub fn set_blob_behavior(&self, behavior: BlobBehavior) {
        self.server.contents().blob_behavior = behavior;
    }

    /// Redirects requests for manifests to the same path of this server.
    pub fn redirect_manifests(&self, server: &str) {
        self.server.contents().manifest_server = Some(server.to_owned());
    }

    /// Is busy from now on.
    pub fn set_busy(&self, busy: Busy) {
        self.server.contents().busy = Some(busy);
    }

    pub fn set_referrers(&self, list: ReferrersList) {
        self.server.contents().referrers = list;
    }

    /// Sets the server in the location of uploads; without one it is a path.
    pub fn set_upload_server(&self, server: &str) {
        self.server.contents().upload_server = server.to_owned();
    }

    /// Serves these bytes as a blob, whatever their digest is.
    pub fn replace_blob(&self, digest: &Digest, bytes: &[u8]) {
        self.server.contents().blobs.insert(digest.to_string(), Bytes::copy_from_slice(bytes));
    }

    /// Serves these bytes as a manifest, at a tag or at a digest, whatever theirs is.
    pub fn replace_manifest(&self, repository: &str, version: &str, bytes: &[u8]) {
        let manifest = (crate::manifest::MANIFEST.to_owned(), Bytes::copy_from_slice(bytes));
        self.server
            .contents()
            .manifests
            .insert(format!("{repository}/manifests/{version}"), manifest);
    }

    /// Serves these bytes as the list of what refers to the artifact with this digest, if lists are
    /// served at all.
    pub fn replace_referrers(&self, repository: &str, digest: &Digest, bytes: &[u8]) {
        let list = (crate::manifest::INDEX.to_owned(), Bytes::copy_from_slice(bytes));
        self.server.contents().manifests.insert(format!("{repository}/referrers/{digest}"), list);
    }

    #[must_use]
    pub fn manifest(&self, repository: &str, version: &str) -> Option<Vec<u8>> {
        self.server
            .contents()
            .manifests
            .get(&format!("{repository}/manifests/{version}"))
            .map(|(_, bytes)| bytes.to_vec())
    }

    #[must_use]
    pub fn blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.server.contents().blobs.get(&digest.to_string()).map(|bytes| bytes.to_vec())
    }

    pub fn copy_blobs_to(&self, other: &Self) {
        let blobs = self.server.contents().blobs.clone();
        other.server.contents().blobs.extend(blobs);
    }

    pub fn copy_manifests_to(&self, other: &Self) {
        let manifests = self.server.contents().manifests.clone();
        other.server.contents().manifests.extend(manifests);
    }

    /// The requests that were received since the last call.
    #[must_use]
    pub fn take_requests(&self) -> Vec<ReceivedRequest> {
        std::mem::take(&mut self.server.contents().requests)
    }
}

impl Server {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The response to a request for a token, or to one without the required credentials.
    fn authenticate(
        &self,
        uri: &Uri,
        authorization: Option<&str>,
        body: &[u8],
    ) -> Option<Response> {
        let required = self.contents().required_auth.clone();
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        let own_realm = format!("http://{}/token", self.address);
        let (expected, challenge) = match &required {
            RequiredAuth::None => return None,
            RequiredAuth::Basic(pair) => (basic(pair), "Basic realm=\"test\"".to_owned()),
            RequiredAuth::Offered(_) if uri.path() == "/token" => {
                return Some(token_response(Some("token")));
            }
            RequiredAuth::Offered(header) => {
                (format!("Bearer {TOKEN}"), header.replace("REALM", &own_realm))
            }
            RequiredAuth::Bearer { credentials, realm: None } if uri.path() == "/token" => {
                let is_known =
                    credentials.as_ref().is_none_or(|pair| authorization == Some(&*basic(pair)));
                return Some(token_response(is_known.then_some("token")));
            }
            RequiredAuth::IdentityToken(token) if uri.path() == "/token" => {
                let body = String::from_utf8_lossy(body);
                let is_known = body.starts_with("grant_type=refresh_token&")
                    && body.ends_with(&format!("&refresh_token={token}"));
                return Some(token_response(is_known.then_some("access_token")));
            }
            RequiredAuth::Bearer { realm: Some(realm), .. } => bearer(realm),
            RequiredAuth::Bearer { realm: None, .. } | RequiredAuth::IdentityToken(_) => {
                bearer(&own_realm)
            }
        };
        (authorization != Some(&*expected))
            .then(|| (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response())
    }
}

/// The expected authorization and the challenge for it.
fn bearer(realm: &str) -> (String, String) {
    (format!("Bearer {TOKEN}"), format!("Bearer realm=\"{realm}\",service=\"test\""))
}

/// The token in this field; none for credentials that are not known.
fn token_response(field: Option<&str>) -> Response {
    match field {
        Some(field) => format!("{{\"{field}\":\"{TOKEN}\"}}").into_response(),
        None => error_response(StatusCode::UNAUTHORIZED),
    }
}

async fn serve(State(server): State<Server>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY_BYTES).await else {
        return error_response(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let received = ReceivedRequest {
        method: head.method.clone(),
        path: head.uri.to_string(),
        authorization: authorization.map(str::to_owned),
    };
    server.contents().requests.push(received);
    if let Some(response) = server.contents().busy() {
        return response;
    }
    if let Some(response) = server.authenticate(&head.uri, authorization, &body) {
        return response;
    }
    let path = head.uri.path().strip_prefix("/v2/").unwrap_or_default();
    if path.is_empty() {
        return StatusCode::OK.into_response();
    }
    let mut contents = server.contents();
    if path.contains("/blobs/uploads/") {
        return contents.upload(&head.method, &head.uri, path, &body);
    }
    match path.rsplit_once("/blobs/") {
        Some((_, digest)) => contents.blob(&head.method, &head.uri, digest),
        None if path.contains("/manifests/") => {
            contents.manifest(&head.method, &head.uri, &head.headers, path, body)
        }
        None if path.contains("/referrers/") => contents.referrers(path),
        None => error_response(StatusCode::NOT_FOUND),
    }
}

impl Contents {
    fn blob(&self, method: &Method, uri: &Uri, digest: &str) -> Response {
        match (&self.blob_behavior, self.blobs.get(digest)) {
            (BlobBehavior::Redirect(server), _) if method == Method::GET => {
                (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, format!("{server}{uri}"))])
                    .into_response()
            }
            (BlobBehavior::Endless, Some(_)) if method == Method::GET => {
                Body::new(UnfinishedBody::Endless).into_response()
            }
            (BlobBehavior::Stall, Some(_)) if method == Method::GET => {
                Body::new(UnfinishedBody::Stalled).into_response()
            }
            (_, Some(bytes)) => bytes.clone().into_response(),
            (_, None) => error_response(StatusCode::NOT_FOUND),
        }
    }

    fn upload(&mut self, method: &Method, uri: &Uri, path: &str, body: &Bytes) -> Response {
        let server = self.upload_server.clone();
        let location = |path: &str| (LOCATION, format!("{server}/v2/{path}"));
        if method == Method::POST {
            self.uploads_started = self.uploads_started.wrapping_add(1);
            let path = format!("{path}{}", self.uploads_started);
            self.uploads.insert(path.clone(), Vec::new());
            return (StatusCode::ACCEPTED, [location(&path)]).into_response();
        }
        let Some(upload) = self.uploads.get_mut(path) else {
            return error_response(StatusCode::NOT_FOUND);
        };
        upload.extend_from_slice(body);
        if method == Method::PATCH {
            let range = format!("0-{}", upload.len().saturating_sub(1));
            return (StatusCode::ACCEPTED, [location(path), (RANGE, range)]).into_response();
        }
        let digest = Digest::of(upload).to_string();
        let query = uri.query().unwrap_or_default().replace("%3A", ":");
        if !query.contains(&format!("digest={digest}")) {
            return error_response(StatusCode::BAD_REQUEST);
        }
        let bytes = self.uploads.remove(path).unwrap_or_default();
        self.blobs.insert(digest, bytes.into());
        StatusCode::CREATED.into_response()
    }

    fn busy(&mut self) -> Option<Response> {
        let busy = self.busy.as_mut().filter(|busy| busy.requests > 0)?;
        busy.requests = busy.requests.saturating_sub(1);
        let mut response = error_response(busy.status);
        let wait = busy.retry_after.as_ref().and_then(|text| HeaderValue::from_str(text).ok());
        response.headers_mut().extend(wait.map(|wait| (RETRY_AFTER, wait)));
        Some(response)
    }

    fn referrers(&self, path: &str) -> Response {
        match self.referrers {
            ReferrersList::None => return error_response(StatusCode::NOT_FOUND),
            ReferrersList::Status(status) => return error_response(status),
            ReferrersList::Served => {}
        }
        if let Some((content, bytes)) = self.manifests.get(path) {
            return ([(CONTENT_TYPE, content.clone())], bytes.clone()).into_response();
        }
        let (repository, digest) = path.split_once("/referrers/").unwrap_or_default();
        let at_digest = format!("{repository}/manifests/sha256:");
        let listed = self.manifests.iter().filter_map(|(path, (_, bytes))| {
            let manifest: Value = serde_json::from_slice(bytes).ok()?;
            let refers = manifest.get("subject")?.get("digest")? == digest;
            (path.starts_with(&at_digest) && refers).then(|| {
                json!({
                    "mediaType": crate::manifest::MANIFEST, "size": bytes.len(),
                    "digest": Digest::of(bytes), "artifactType": manifest.get("artifactType"),
                    "annotations": manifest.get("annotations").cloned().unwrap_or(json!({})),
                })
            })
        });
        let manifests: Vec<Value> = listed.collect();
        let index = json!({"schemaVersion": 2, "mediaType": crate::manifest::INDEX, "manifests": manifests});
        ([(CONTENT_TYPE, crate::manifest::INDEX)], index.to_string()).into_response()
    }

    fn manifest(
        &mut self,
        method: &Method,
        uri: &Uri,
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
        if let Some(server) = &self.manifest_server {
            let location = [(LOCATION, format!("{server}{uri}"))];
            return (StatusCode::TEMPORARY_REDIRECT, location).into_response();
        }
        let Some((content, bytes)) = self.manifests.get(path) else {
            return error_response(StatusCode::NOT_FOUND);
        };
        let digest = Digest::of(bytes).to_string();
        (
            [(CONTENT_TYPE.as_str(), content.clone()), ("docker-content-digest", digest)],
            bytes.clone(),
        )
            .into_response()
    }
}

/// An error, with a message that clients must not repeat.
fn error_response(status: StatusCode) -> Response {
    (status, r#"{"errors":[{"code":"UNKNOWN","message":"the registry's own message"}]}"#)
        .into_response()
}

/// A body that never ends.
enum UnfinishedBody {
    Endless,
    Stalled,
}

impl hyper::body::Body for UnfinishedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match *self {
            Self::Endless => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 4096]))))),
            Self::Stalled => Poll::Pending,
        }
    }
}
