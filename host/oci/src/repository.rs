//! The distribution specification's requests for one repository. Challenges are answered, and what
//! is addressed by a digest is checked against it.

use crate::challenge::{Bearer, Challenge, challenge};
use crate::credentials::{Credential, Credentials};
use crate::digest::Digest;
use crate::error::{Error, ResponseError};
use crate::manifest::{Descriptor, INDEX, MANIFEST};
use crate::reference::{Reference, RegistryHost};
use crate::retry;
use hyper::body::Bytes;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT,
};
use hyper::{Method, Request, StatusCode, Uri};
use jiff::Timestamp;
use paygress_http_client::{
    ConnectError, HttpClient, HttpError, Origin, RedirectError, RedirectPolicy, Response,
    check_destination, host, is_http_url, is_loopback, is_same_server,
};
use serde::Deserialize;
use std::collections::BTreeSet;
use zeroize::Zeroizing;

const MAX_MANIFEST_BYTES: usize = 1 << 20;
const MAX_ERROR_BYTES: usize = 64 << 10;
const MAX_TOKEN_BYTES: usize = 64 << 10;
/// Blobs are often kept by an object store, and manifests may be.
const REDIRECTS: RedirectPolicy = RedirectPolicy { max_hops: 3 };
/// Those of a DNS name.
const MAX_HOST_CHARS: usize = 253;
const BLOB: &str = "application/octet-stream";
const FORM: &str = "application/x-www-form-urlencoded";

/// What the client may do in the repository.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
}

/// A client for one repository. It keeps the authorization of its last challenge.
pub(crate) struct RepositoryClient<'a> {
    http: &'a HttpClient,
    credentials: &'a Credentials,
    plain_http: &'a BTreeSet<RegistryHost>,
    reference: &'a Reference,
    access: Access,
    authorization: Option<HeaderValue>,
}

/// One request, which may have to be sent again with an authorization.
struct Call<'a> {
    method: Method,
    url: &'a Uri,
    /// The server that has named the URL, if it is not the registry's own.
    named_by: Option<&'a Origin>,
    content_type: &'static str,
    body: Bytes,
}

impl<'a> Call<'a> {
    fn get(url: &'a Uri) -> Self {
        Self { method: Method::GET, url, named_by: None, content_type: BLOB, body: Bytes::new() }
    }
}

/// Realms name it in either way.
#[derive(Deserialize)]
struct TokenResponse {
    token: Option<String>,
    access_token: Option<String>,
}

/// The distribution specification's errors; their messages are not repeated.
#[derive(Deserialize)]
struct ErrorResponse {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    code: String,
}

impl<'a> RepositoryClient<'a> {
    pub(crate) fn new(
        http: &'a HttpClient,
        credentials: &'a Credentials,
        plain_http: &'a BTreeSet<RegistryHost>,
        reference: &'a Reference,
        access: Access,
    ) -> Self {
        Self { http, credentials, plain_http, reference, access, authorization: None }
    }

    /// A manifest, by its tag or digest. The caller checks it against a digest, if there is one.
    pub(crate) async fn manifest(&mut self, version: &str) -> Result<Bytes, Error> {
        let subject = self.versioned(version);
        let url = self.url(&format!("manifests/{version}"))?;
        let response = self.get(&url).await?;
        let response = self.succeeded(response, &subject).await?;
        read(response, MAX_MANIFEST_BYTES, &format!("the manifest of {subject}")).await
    }

    /// The index of what refers to the artifact with this digest; none if nothing does. A registry
    /// that has no such list answers with one of these, and clients keep the index at a tag.
    pub(crate) async fn referrers(&mut self, digest: &Digest) -> Result<Option<Bytes>, Error> {
        let url = self.url(&format!("referrers/{digest}"))?;
        let response = self.get(&url).await?;
        let is_unsupported = matches!(
            response.status(),
            StatusCode::NOT_FOUND
                | StatusCode::BAD_REQUEST
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::NOT_ACCEPTABLE
        );
        if is_unsupported {
            return match self.manifest(&format!("sha256-{}", digest.hex())).await {
                Err(Error::NotFound(_)) => Ok(None),
                index => index.map(Some),
            };
        }
        let subject = format!("the referrers of {}", self.versioned(&digest.to_string()));
        let response = self.succeeded(response, &subject).await?;
        read(response, MAX_MANIFEST_BYTES, &subject).await.map(Some)
    }

    /// A blob, as the manifest describes it.
    pub(crate) async fn blob(
        &mut self,
        descriptor: &Descriptor,
        limit: usize,
    ) -> Result<Bytes, Error> {
        let subject = format!("the blob {} of {}", descriptor.digest, self.name());
        let Some(size) = usize::try_from(descriptor.size).ok().filter(|size| *size <= limit) else {
            return Err(Error::TooLarge { subject, limit });
        };
        let url = self.url(&format!("blobs/{}", descriptor.digest))?;
        let response = self.get(&url).await?;
        let response = self.succeeded(response, &subject).await?;
        checked(read(response, size, &subject).await?, descriptor.digest, &subject)
    }

    /// Sends a blob, if it is not there.
    pub(crate) async fn put_blob(&mut self, bytes: &Bytes) -> Result<(), Error> {
        let digest = Digest::of(bytes);
        let url = self.url(&format!("blobs/{digest}"))?;
        let there = self.send(Call { method: Method::HEAD, ..Call::get(&url) }).await?;
        if there.status().is_success() {
            return Ok(());
        }
        let subject = format!("the upload of {digest} to {}", self.name());
        let url = self.url("blobs/uploads/")?;
        let started = self.send(Call { method: Method::POST, ..Call::get(&url) }).await?;
        let started = self.succeeded(started, &subject).await?;
        let upload = started.location().filter(|upload| is_same_server(&url, upload));
        let upload = upload.ok_or_else(|| self.invalid(ResponseError::UploadElsewhere))?;
        let join = if upload.query().is_some() { '&' } else { '?' };
        let url = parse(&format!("{upload}{join}digest={digest}"))
            .ok_or_else(|| self.invalid(ResponseError::UploadElsewhere))?;
        let call = Call { method: Method::PUT, body: bytes.clone(), ..Call::get(&url) };
        let response = self.send(call).await?;
        self.succeeded(response, &subject).await.map(drop)
    }

    pub(crate) async fn put_manifest(
        &mut self,
        version: &str,
        bytes: Vec<u8>,
    ) -> Result<(), Error> {
        let url = self.url(&format!("manifests/{version}"))?;
        let (method, body) = (Method::PUT, bytes.into());
        let call = Call { method, content_type: MANIFEST, body, ..Call::get(&url) };
        let response = self.send(call).await?;
        let subject = format!("the upload of {}", self.versioned(version));
        self.succeeded(response, &subject).await.map(drop)
    }

    /// What is at a URL, wherever the registry keeps it.
    async fn get(&mut self, url: &Uri) -> Result<Response, Error> {
        let response = self.send(Call::get(url)).await?;
        let headers = self.headers(&Call::get(url), self.authorization.clone());
        Ok(self.http.follow(response, headers, REDIRECTS).await?)
    }

    /// Sends a request, and sends it once more if the registry requires credentials for it.
    async fn send(&mut self, call: Call<'_>) -> Result<Response, Error> {
        let response = self.send_once(&call, self.authorization.clone()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let authorization = match challenge(response.headers()) {
            Some(Challenge::Basic) => self.basic().await?,
            Some(Challenge::Bearer(bearer)) => self.token(&bearer, response.origin()).await?,
            None => return Err(self.invalid(ResponseError::NoChallenge)),
        };
        self.authorization = Some(authorization);
        self.send_once(&call, self.authorization.clone()).await
    }

    /// Sends a request, and sends it again while the registry is busy. All requests of the
    /// distribution specification may be repeated.
    async fn send_once(
        &self,
        call: &Call<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Response, Error> {
        let headers = self.headers(call, authorization);
        let mut waits = retry::waits();
        loop {
            let mut request = Request::new(call.body.clone());
            *request.method_mut() = call.method.clone();
            *request.uri_mut() = call.url.clone();
            *request.headers_mut() = headers.clone();
            let sent = match call.named_by {
                Some(origin) => self.http.send_from(origin, request, self.http.timeouts()).await,
                None => self.http.send(request).await,
            };
            let response = sent.map_err(|error| self.unsent(error))?;
            match retry::wait(response.status(), response.headers(), &mut waits) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Ok(response),
            }
        }
    }

    fn headers(&self, call: &Call<'_>, authorization: Option<HeaderValue>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static("paygress"));
        if call.method == Method::GET {
            let types = format!("{MANIFEST}, {INDEX}, */*");
            headers.extend(HeaderValue::try_from(types).ok().map(|types| (ACCEPT, types)));
        } else if call.method != Method::HEAD {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(call.content_type));
            headers.insert(CONTENT_LENGTH, call.body.len().into());
        }
        headers.extend(authorization.map(|authorization| (AUTHORIZATION, authorization)));
        headers
    }

    async fn basic(&self) -> Result<HeaderValue, Error> {
        match self.credentials.get(self.reference).await? {
            Some(Credential::Basic(pair)) => {
                basic_header(&pair).ok_or_else(|| self.unauthenticated())
            }
            Some(Credential::IdentityToken(_)) => {
                Err(Error::PasswordRequired { registry: self.registry() })
            }
            None => Err(self.unauthenticated()),
        }
    }

    /// Whether tokens may be fetched there. Credentials go to a realm only if they cannot be overheard
    /// on the way, and a registry sends us nowhere that it could not redirect us to.
    fn check_realm(&self, url: &Uri) -> Result<(), Error> {
        let (realm, registry) = (bounded(host(url)), self.registry());
        check_destination(&self.url("")?, url).map_err(|error| match error {
            RedirectError::PrivateAddress => Error::PrivateRealm { registry, realm },
            _ => Error::InsecureRealm { registry, realm },
        })
    }

    /// Fetches a token, as this response of the registry wants it.
    async fn token(&self, bearer: &Bearer, registry: &Origin) -> Result<HeaderValue, Error> {
        let actions = if self.access == Access::Push { "pull,push" } else { "pull" };
        let scope = format!("repository:{}:{actions}", self.reference.repository());
        let invalid_realm = || self.invalid(ResponseError::InvalidRealm);
        let url = parse(&bearer.url(&scope)).ok_or_else(invalid_realm)?;
        self.check_realm(&url)?;
        let credential = self.credentials.get(self.reference).await?;
        let is_anonymous = credential.is_none();
        let named_by = Some(registry);
        let get = Call { named_by, ..Call::get(&url) };
        let response = match credential {
            Some(Credential::IdentityToken(token)) => {
                let realm = parse(&bearer.realm).ok_or_else(invalid_realm)?;
                let body = bearer.form(&scope, &token).into();
                let method = Method::POST;
                let call = Call { method, url: &realm, named_by, content_type: FORM, body };
                self.send_once(&call, None).await?
            }
            Some(Credential::Basic(pair)) => self.send_once(&get, basic_header(&pair)).await?,
            None => self.send_once(&get, None).await?,
        };
        if is_anonymous && response.status() == StatusCode::UNAUTHORIZED {
            return Err(self.unauthenticated());
        }
        let subject = format!("a token for {}", self.reference.repository());
        let response = self.succeeded(response, &subject).await?;
        let bytes = read(response, MAX_TOKEN_BYTES, "the token").await?;
        let token: Option<TokenResponse> = serde_json::from_slice(&bytes).ok();
        token
            .and_then(|response| response.token.or(response.access_token))
            .and_then(|token| secret(&format!("Bearer {token}")))
            .ok_or_else(|| self.invalid(ResponseError::NoToken))
    }

    /// The response, if its status says that the request succeeded.
    async fn succeeded(&self, response: Response, subject: &str) -> Result<Response, Error> {
        let (registry, subject) = (self.registry(), subject.to_owned());
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::NOT_FOUND => Err(Error::NotFound(subject)),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Error::Denied { registry, subject })
            }
            status if retry::is_busy(status) => {
                let retry_after = retry::retry_after(response.headers(), Timestamp::now());
                Err(Error::Busy { registry, subject, status: status.as_u16(), retry_after })
            }
            status => {
                let body = response.bytes(MAX_ERROR_BYTES).await.unwrap_or_default();
                let (status, code) = (status.as_u16(), error_code(&body));
                Err(Error::Rejected { registry, subject, status, code })
            }
        }
    }

    /// Plain HTTP is spoken to a registry on this machine, and to those of which the operator says so.
    fn url(&self, path: &str) -> Result<Uri, Error> {
        let registry = self.reference.registry();
        let authority = registry.parse::<hyper::http::uri::Authority>();
        let is_local = authority.is_ok_and(|authority| is_loopback(authority.host()));
        let is_plain = is_local || self.plain_http.contains(self.reference.host());
        let scheme = if is_plain { "http" } else { "https" };
        let url = format!("{scheme}://{registry}/v2/{}/{path}", self.reference.repository());
        Ok(parse(&url).ok_or(HttpError::InvalidUrl)?)
    }

    fn registry(&self) -> String {
        self.reference.registry().to_owned()
    }

    fn name(&self) -> String {
        format!("{}/{}", self.reference.registry(), self.reference.repository())
    }

    fn versioned(&self, version: &str) -> String {
        let separator = if version.contains(':') { '@' } else { ':' };
        format!("{}{separator}{version}", self.name())
    }

    fn unauthenticated(&self) -> Error {
        Error::Unauthenticated { registry: self.registry() }
    }

    /// Nothing was sent to a registry that does not speak TLS, or to a realm that is not public: what to
    /// do is known.
    fn unsent(&self, error: HttpError) -> Error {
        match error {
            HttpError::Unreachable { host, source: ConnectError::PrivateAddress } => {
                Error::PrivateRealm { registry: self.registry(), realm: bounded(host) }
            }
            HttpError::Unreachable { source: ConnectError::NotTls, .. } => {
                Error::NotTls { registry: self.registry() }
            }
            error => error.into(),
        }
    }

    fn invalid(&self, source: ResponseError) -> Error {
        Error::InvalidResponse { registry: self.registry(), source }
    }
}

/// The bytes, if they have this digest.
pub(crate) fn checked(bytes: Bytes, expected: Digest, subject: &str) -> Result<Bytes, Error> {
    let found = Digest::of(&bytes);
    if found == expected {
        Ok(bytes)
    } else {
        Err(Error::DigestMismatch { subject: subject.to_owned(), expected, found })
    }
}

async fn read(response: Response, limit: usize, subject: &str) -> Result<Bytes, Error> {
    response.bytes(limit).await.map_err(|error| match error {
        HttpError::BodyTooLarge { limit, .. } => {
            Error::TooLarge { subject: subject.to_owned(), limit }
        }
        error => error.into(),
    })
}

/// A host that a registry chose: no more of it than a name may have.
fn bounded(host: String) -> String {
    host.chars().take(MAX_HOST_CHARS).collect()
}

fn parse(url: &str) -> Option<Uri> {
    url.parse().ok().filter(is_http_url)
}

fn basic_header(pair: &str) -> Option<HeaderValue> {
    let text = Zeroizing::new(format!("Basic {pair}"));
    secret(&text)
}

/// A header that no log shows.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The first code of an error response, if it looks like one.
fn error_code(body: &[u8]) -> Option<String> {
    let response: ErrorResponse = serde_json::from_slice(body).ok()?;
    let code = response.errors.into_iter().next()?.code;
    let is_code =
        code.len() <= 40 && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    is_code.then_some(code)
}

#[cfg(test)]
mod tests;
