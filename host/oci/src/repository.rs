//! One errand in one repository: requests that answer challenges, and blobs whose digests are
//! checked.

use crate::auth::{Bearer, Challenge, challenge, secret};
use crate::digest::Digest;
use crate::error::Error;
use crate::http::{host_of, is_loopback, is_private, is_same_server, is_whole, location, read};
use crate::manifest::{Descriptor, INDEX, MANIFEST};
use crate::reference::Reference;
use crate::registry::Registry;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use serde::Deserialize;

const MANIFEST_BYTES: usize = 1 << 20;
/// Errors and tokens.
const WORDS_BYTES: usize = 64 << 10;
const REDIRECTS: usize = 3;
const BLOB: &str = "application/octet-stream";

/// What the errand may do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
}

/// An errand.
pub(crate) struct RepositoryClient<'a> {
    registry: &'a Registry,
    host: &'a str,
    repository: &'a str,
    access: Access,
    authorization: Option<HeaderValue>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// The distribution specification's errors; their messages are not repeated.
#[derive(Deserialize)]
struct Words {
    errors: Vec<Word>,
}

#[derive(Deserialize)]
struct Word {
    code: String,
}

impl<'a> RepositoryClient<'a> {
    pub(crate) fn new(registry: &'a Registry, reference: &'a Reference, access: Access) -> Self {
        Self {
            registry,
            host: reference.registry(),
            repository: reference.repository(),
            access,
            authorization: None,
        }
    }

    /// A manifest, by its tag or digest. It is whatever the registry says, unless the caller knows
    /// its digest.
    pub(crate) async fn manifest(&mut self, version: &str) -> Result<Bytes, Error> {
        let what = self.named(version);
        let answer = self
            .send(Method::GET, &self.url(&format!("manifests/{version}"))?, "", Bytes::new())
            .await?;
        let answer = self.succeeded(answer, &what).await?;
        read(self.host, answer.into_body(), MANIFEST_BYTES, &format!("the manifest of {what}"))
            .await
    }

    /// A blob, as the manifest describes it.
    pub(crate) async fn blob(&mut self, wanted: &Descriptor, limit: usize) -> Result<Bytes, Error> {
        let what = format!("the blob {} of {}/{}", wanted.digest, self.host, self.repository);
        let Some(size) = usize::try_from(wanted.size).ok().filter(|size| *size <= limit) else {
            return Err(Error::TooLarge { what, limit });
        };
        let url = self.url(&format!("blobs/{}", wanted.digest))?;
        let answer = self.send(Method::GET, &url, "", Bytes::new()).await?;
        let answer = self.followed(url, answer, &what).await?;
        let answer = self.succeeded(answer, &what).await?;
        checked(read(self.host, answer.into_body(), size, &what).await?, wanted.digest, &what)
    }

    /// Sends a blob, if it is not there.
    pub(crate) async fn put_blob(&mut self, bytes: &Bytes) -> Result<(), Error> {
        let digest = Digest::of(bytes);
        let there = self
            .send(Method::HEAD, &self.url(&format!("blobs/{digest}"))?, "", Bytes::new())
            .await?;
        if there.status().is_success() {
            return Ok(());
        }
        let what = format!("the upload of {digest} to {}/{}", self.host, self.repository);
        let url = self.url("blobs/uploads/")?;
        let begun = self.send(Method::POST, &url, BLOB, Bytes::new()).await?;
        let begun = self.succeeded(begun, &what).await?;
        let upload = location(&url, &begun).filter(|upload| is_same_server(&url, upload));
        let upload = upload
            .ok_or_else(|| self.garbage("an upload's location has to be on the same server"))?;
        let join = if upload.query().is_some() { '&' } else { '?' };
        let upload = self.parse(&format!("{upload}{join}digest={digest}"))?;
        let done = self.send(Method::PUT, &upload, BLOB, bytes.clone()).await?;
        self.succeeded(done, &what).await.map(drop)
    }

    /// Sends a manifest.
    pub(crate) async fn put_manifest(
        &mut self,
        version: &str,
        bytes: Vec<u8>,
    ) -> Result<(), Error> {
        let url = self.url(&format!("manifests/{version}"))?;
        let done = self.send(Method::PUT, &url, MANIFEST, bytes.into()).await?;
        self.succeeded(done, &self.named(version)).await.map(drop)
    }

    /// Sends a request, and again with what the challenge asks for.
    async fn send(
        &mut self,
        method: Method,
        url: &Uri,
        content: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let answer =
            self.once(&method, url, content, body.clone(), self.authorization.clone()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let asked = challenge(answer.headers())
            .ok_or_else(|| self.garbage("it asks for credentials, and not for which kind"))?;
        self.authorization = Some(match asked {
            Challenge::Basic => {
                self.registry.auth.of(self.host)?.ok_or_else(|| self.anonymous())?
            }
            Challenge::Bearer(bearer) => self.token(&bearer).await?,
        });
        self.once(&method, url, content, body, self.authorization.clone()).await
    }

    async fn once(
        &self,
        method: &Method,
        url: &Uri,
        content: &str,
        body: Bytes,
        authorization: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::builder().method(method).uri(url).header(USER_AGENT, "paygress");
        if method == Method::GET {
            request = request.header(ACCEPT, format!("{MANIFEST}, {INDEX}, */*"));
        } else if method != Method::HEAD {
            request = request.header(CONTENT_TYPE, content).header(CONTENT_LENGTH, body.len());
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request =
            request.body(Full::new(body)).map_err(|_| self.garbage("a URL that is none"))?;
        self.registry.web.send(request).await
    }

    /// Goes where the registry keeps a blob. Credentials go along as far as its own server, and no
    /// further.
    async fn followed(
        &self,
        mut at: Uri,
        mut answer: Response<Incoming>,
        what: &str,
    ) -> Result<Response<Incoming>, Error> {
        let wrong =
            |reason| Error::Redirect { host: self.host.to_owned(), what: what.to_owned(), reason };
        let mut authorization = self.authorization.clone();
        for _ in 0..REDIRECTS {
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            let to = location(&at, &answer).ok_or_else(|| wrong("its location is no URL"))?;
            if !is_private(&at, &to) {
                return Err(wrong("its location is not https"));
            }
            authorization = authorization.filter(|_| is_same_server(&at, &to));
            answer = self.once(&Method::GET, &to, "", Bytes::new(), authorization.clone()).await?;
            at = to;
        }
        if answer.status().is_redirection() {
            Err(wrong("it does so without end"))
        } else {
            Ok(answer)
        }
    }

    /// Fetches a token. What we are goes to the realm only if it is not overheard there.
    async fn token(&self, bearer: &Bearer) -> Result<HeaderValue, Error> {
        let scope = format!(
            "repository:{}:{}",
            self.repository,
            if self.access == Access::Push { "pull,push" } else { "pull" }
        );
        let url = self.parse(&bearer.url(&scope))?;
        if !is_private(&self.url("")?, &url) {
            return Err(Error::Realm { host: self.host.to_owned(), realm: host_of(&url) });
        }
        let basic = self.registry.auth.of(self.host)?;
        let is_anonymous = basic.is_none();
        let answer = self.once(&Method::GET, &url, "", Bytes::new(), basic).await?;
        if is_anonymous && answer.status() == StatusCode::UNAUTHORIZED {
            return Err(self.anonymous());
        }
        let answer = self.succeeded(answer, &format!("a token for {}", self.repository)).await?;
        let bytes = read(self.host, answer.into_body(), WORDS_BYTES, "the token").await?;
        let token: Option<Token> = serde_json::from_slice(&bytes).ok();
        let token = token
            .and_then(|token| token.token.or(token.access_token))
            .and_then(|token| secret(&format!("Bearer {token}")));
        token.ok_or_else(|| self.garbage("there is no token in the realm's answer"))
    }

    /// The answer, if it is a yes.
    async fn succeeded(
        &self,
        answer: Response<Incoming>,
        what: &str,
    ) -> Result<Response<Incoming>, Error> {
        let (host, what, status) = (self.host.to_owned(), what.to_owned(), answer.status());
        match status {
            status if status.is_success() => Ok(answer),
            StatusCode::NOT_FOUND => Err(Error::Missing(what)),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::Denied { host, what }),
            _ => {
                let words = read(self.host, answer.into_body(), WORDS_BYTES, "the error")
                    .await
                    .unwrap_or_default();
                Err(Error::Refused { host, what, status: status.as_u16(), code: code(&words) })
            }
        }
    }

    /// The registry is asked in the clear only on this machine.
    fn url(&self, path: &str) -> Result<Uri, Error> {
        let host = self
            .host
            .parse::<hyper::http::uri::Authority>()
            .map_err(|_| self.garbage("its name is none"))?;
        let scheme = if is_loopback(host.host()) { "http" } else { "https" };
        self.parse(&format!("{scheme}://{host}/v2/{}/{path}", self.repository))
    }

    fn parse(&self, url: &str) -> Result<Uri, Error> {
        url.parse().ok().filter(is_whole).ok_or_else(|| self.garbage("a URL that is none"))
    }

    fn named(&self, version: &str) -> String {
        let mark = if version.contains(':') { '@' } else { ':' };
        format!("{}/{}{mark}{version}", self.host, self.repository)
    }

    fn anonymous(&self) -> Error {
        Error::Anonymous { host: self.host.to_owned() }
    }

    fn garbage(&self, reason: &str) -> Error {
        Error::Garbage { host: self.host.to_owned(), reason: reason.to_owned() }
    }
}

/// The bytes, if they are those of the digest.
pub(crate) fn checked(bytes: Bytes, expected: Digest, what: &str) -> Result<Bytes, Error> {
    let found = Digest::of(&bytes);
    if found == expected {
        Ok(bytes)
    } else {
        Err(Error::Tampered { what: what.to_owned(), expected, found })
    }
}

/// The first code of an error, if it looks like one.
fn code(words: &[u8]) -> String {
    let words: Option<Words> = serde_json::from_slice(words).ok();
    let code = words
        .and_then(|words| words.errors.into_iter().next())
        .map(|word| word.code)
        .unwrap_or_default();
    let is_code =
        code.len() <= 40 && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    if is_code { code } else { String::new() }
}
