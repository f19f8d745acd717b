//! A proxy before a mint that injects network faults: what the mint does and what its caller sees
//! differ.

use crate::error::{Result, during};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkFault {
    /// The mint never sees it; the connection is cut.
    LostOnTheWay,
    /// The mint does it; its response is lost.
    AnswerLost,
    /// The mint does it; what comes back is no response.
    InvalidBody,
    /// The mint does it; the response's amounts are changed.
    WrongAmounts,
    /// The mint does it; the response never ends.
    Endless,
    /// The mint never sees it, and the response has no body.
    Status(u16),
    /// The mint never sees it; this is the response, as of the mint or of a server before it.
    Answer(MintAnswer),
    /// The mint does it, and a server between says that it did not.
    DoneAnd(u16),
    /// The mint does it; this is the response.
    DoneAndAnswer(MintAnswer),
    /// This is the response, whoever would send it.
    Coded(CodedAnswer),
    /// The mint does it; half of the response comes, and the connection is cut.
    Truncated,
    /// The mint does it after the caller has given up.
    Late(Duration),
    /// The response comes in small pieces.
    Drip,
    /// The caller waits for ever: where a process is killed inside a request. `true`: the mint does
    /// it before.
    Hang(bool),
}

/// A status and a body, as seen of mints and of the servers before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MintAnswer {
    pub status: u16,
    pub body: &'static str,
}

impl MintAnswer {
    /// A web firewall's.
    pub const FORBIDDEN: Self = Self { status: 403, body: "<html><h1>403 Forbidden</h1></html>" };
    /// FastAPI's validator, before Nutshell.
    pub const UNPROCESSABLE: Self =
        Self { status: 422, body: r#"{"detail":[{"loc":["body"],"msg":"too long"}]}"# };
    pub const NO_BODY: Self = Self { status: 400, body: "" };
    /// Nutshell's for what it has no code for.
    pub const NO_CODE: Self = Self { status: 400, body: r#"{"detail":"error","code":0}"# };
    /// cdk's for what it has no code for, and for a busy database.
    pub const UNKNOWN_CODE: Self = Self { status: 400, body: r#"{"code":50000,"detail":"busy"}"# };
    pub const WITNESS: Self = Self { status: 400, body: r#"{"code":20008,"detail":"witness"}"# };
    pub const FORGED: Self = Self { status: 400, body: r#"{"code":10001,"detail":"forged"}"# };
    /// Nutshell's for an inactive keyset and for much else.
    pub const TRANSACTION: Self = Self { status: 400, body: r#"{"detail":"error","code":11000}"# };
    pub const PENDING: Self = Self { status: 400, body: r#"{"code":11002,"detail":"pending"}"# };
    pub const SIGNED: Self = Self { status: 400, body: r#"{"code":11003,"detail":"signed"}"# };
    pub const OUTPUTS_PENDING: Self =
        Self { status: 400, body: r#"{"code":11004,"detail":"outputs are pending"}"# };
    pub const NO_KEYSET: Self = Self { status: 400, body: r#"{"code":12001,"detail":"keyset"}"# };
    pub const INACTIVE: Self = Self { status: 400, body: r#"{"code":12002,"detail":"inactive"}"# };
    /// The mint's own refusal in spite of its status.
    pub const CODED_500: Self = Self { status: 500, body: r#"{"code":20008,"detail":"witness"}"# };
    pub const BUSY_500: Self = Self { status: 500, body: r#"{"code":50000,"detail":"busy"}"# };
    pub const TOO_MANY: Self = Self { status: 429, body: r#"{"code":11000,"detail":"slow down"}"# };
    pub const GARBAGE: Self = Self { status: 200, body: "<html>welcome</html>" };

    /// All that a fault test goes through.
    pub const ALL: [Self; 17] = [
        Self::FORBIDDEN,
        Self::UNPROCESSABLE,
        Self::NO_BODY,
        Self::NO_CODE,
        Self::UNKNOWN_CODE,
        Self::WITNESS,
        Self::FORGED,
        Self::TRANSACTION,
        Self::PENDING,
        Self::SIGNED,
        Self::OUTPUTS_PENDING,
        Self::NO_KEYSET,
        Self::INACTIVE,
        Self::CODED_500,
        Self::BUSY_500,
        Self::TOO_MANY,
        Self::GARBAGE,
    ];
}

/// An answer with any status and any code of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodedAnswer {
    pub status: u16,
    /// None: the body is empty.
    pub code: Option<u32>,
    /// Whether the mint does what was requested before.
    pub done: bool,
}

impl CodedAnswer {
    fn body(self) -> String {
        self.code
            .map_or_else(String::new, |code| format!(r#"{{"detail":"any error","code":{code}}}"#))
    }
}

impl NetworkFault {
    /// All that a fault test goes through, beside [`NetworkFault::answers`].
    pub const ALL: [Self; 11] = [
        Self::LostOnTheWay,
        Self::AnswerLost,
        Self::InvalidBody,
        Self::WrongAmounts,
        Self::Endless,
        Self::Truncated,
        Self::Status(500),
        Self::Status(429),
        Self::DoneAnd(502),
        Self::DoneAnd(429),
        Self::Drip,
    ];

    /// Each of [`MintAnswer::ALL`], from a mint that has not done it and from one that has.
    pub fn answers() -> impl Iterator<Item = Self> {
        MintAnswer::ALL.into_iter().flat_map(|one| [Self::Answer(one), Self::DoneAndAnswer(one)])
    }
}

struct Plan {
    path: String,
    /// What the body holds; empty: whatever it is.
    content: String,
    fault: NetworkFault,
    times: usize,
    /// Requests of this path that pass before.
    after: usize,
}

struct Shared {
    mint: String,
    client: Client<HttpConnector, Full<Bytes>>,
    plan: Mutex<Option<Plan>>,
    met: Mutex<usize>,
    hung: Notify,
    /// Requests that the mint has yet to get, or to answer.
    on_the_way: watch::Sender<usize>,
}

/// One of them.
struct OnTheWay(Arc<Shared>);

impl OnTheWay {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.on_the_way.send_modify(|requests| *requests = requests.saturating_add(1));
        Self(Arc::clone(shared))
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        self.0.on_the_way.send_modify(|requests| *requests = requests.saturating_sub(1));
    }
}

/// A server in front of a mint.
pub struct FaultProxy {
    url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FaultProxy {
    /// A proxy before the mint at this address.
    pub async fn to(mint: &str) -> Result<Self> {
        let listener =
            TcpListener::bind("127.0.0.1:0").await.map_err(during("start the fault proxy"))?;
        let address = listener.local_addr().map_err(during("start the fault proxy"))?;
        let url = format!("http://{address}");
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let shared = Arc::new(Shared {
            mint: mint.to_owned(),
            client,
            plan: Mutex::default(),
            met: Mutex::default(),
            hung: Notify::new(),
            on_the_way: watch::Sender::new(0),
        });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, shared, server })
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on, after `after` of them, `times` requests whose path contains this fail.
    pub fn plan(&self, path: &str, fault: NetworkFault, after: usize, times: usize) {
        let (path, content) = (path.to_owned(), String::new());
        self.shared.set_plan(Plan { path, content, fault, times, after });
    }

    /// From now on, requests whose path contains this fail if their body contains `content`, as
    /// before a firewall.
    pub fn plan_for_content(&self, path: &str, content: &str, fault: NetworkFault) {
        let (path, content) = (path.to_owned(), content.to_owned());
        self.shared.set_plan(Plan { path, content, fault, times: usize::MAX, after: 0 });
    }

    /// Lets everything pass.
    pub fn clear(&self) {
        *self.shared.plan.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits until a request hangs.
    pub async fn hung(&self) {
        self.shared.hung.notified().await;
    }

    /// Waits until the mint has answered all that has arrived here, also what is passed on late.
    pub fn idle(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut on_the_way = self.shared.on_the_way.subscribe();
        async move {
            let _ = on_the_way.wait_for(|requests| *requests == 0).await.is_ok();
        }
    }

    /// How many requests have failed as planned.
    #[must_use]
    pub fn met(&self) -> usize {
        *self.shared.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn set_plan(&self, plan: Plan) {
        *self.met.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
    }

    fn fault(&self, path: &str, body: &[u8]) -> Option<NetworkFault> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let planned = plan.as_mut().filter(|plan| {
            path.contains(&plan.path) && String::from_utf8_lossy(body).contains(&plan.content)
        })?;
        if planned.after > 0 {
            planned.after = planned.after.saturating_sub(1);
            return None;
        }
        if planned.times == 0 {
            return None;
        }
        planned.times = planned.times.saturating_sub(1);
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        *met = met.saturating_add(1);
        Some(planned.fault)
    }

    async fn forward(&self, parts: Parts, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let path = parts.uri.path_and_query().map_or("/", axum::http::uri::PathAndQuery::as_str);
        let forwarded = Request::builder()
            .method(parts.method)
            .uri(format!("{}{path}", self.mint))
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(during("forward the request"))?;
        let response =
            self.client.request(forwarded).await.map_err(during("forward the request"))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(during("read the response"))?;
        Ok((status, body.to_bytes()))
    }
}

fn response(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn planned(answer: MintAnswer) -> Response<Body> {
    response(status(answer.status), Body::from(answer.body))
}

fn coded(answer: CodedAnswer) -> Response<Body> {
    response(status(answer.status), Body::from(answer.body()))
}

/// A body that breaks the connection.
fn cut() -> Body {
    Body::from_stream(futures::stream::once(async {
        Err::<Bytes, _>(std::io::Error::other("cut"))
    }))
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, 10 << 20).await else {
        return response(StatusCode::BAD_GATEWAY, Body::empty());
    };
    let fault = shared.fault(parts.uri.path(), &body);
    let hung = Arc::clone(&shared);
    match fault {
        Some(NetworkFault::LostOnTheWay) => return response(StatusCode::OK, cut()),
        Some(NetworkFault::Status(code)) => return response(status(code), Body::empty()),
        Some(NetworkFault::Answer(answer)) => return planned(answer),
        Some(NetworkFault::Coded(answer)) if !answer.done => return coded(answer),
        Some(NetworkFault::Hang(false)) => {
            shared.hung.notify_one();
            return std::future::pending().await;
        }
        Some(NetworkFault::Late(by)) => {
            let on_the_way = OnTheWay::new(&shared);
            tokio::spawn(async move {
                tokio::time::sleep(by).await;
                let _ = shared.forward(parts, body).await;
                drop(on_the_way);
            });
            return response(StatusCode::OK, cut());
        }
        _ => {}
    }
    // The caller may be killed meanwhile; the mint finishes what it has begun. (cdk's mint, cut off
    // in between, would hold the proofs as pending until it is started again.)
    let on_the_way = OnTheWay::new(&shared);
    let forwarded = async move {
        let done = shared.forward(parts, body).await;
        drop(on_the_way);
        done
    };
    let done = tokio::spawn(forwarded).await;
    let (code, bytes) = match done {
        Ok(Ok(done)) => done,
        _ => return response(StatusCode::BAD_GATEWAY, Body::empty()),
    };
    if let Some(NetworkFault::Hang(_)) = fault {
        hung.hung.notify_one();
        return std::future::pending().await;
    }
    changed(fault, code, bytes)
}

/// The mint's answer, with this fault.
fn changed(fault: Option<NetworkFault>, code: StatusCode, bytes: Bytes) -> Response<Body> {
    match fault {
        Some(NetworkFault::AnswerLost) => response(StatusCode::OK, cut()),
        Some(NetworkFault::InvalidBody) => {
            response(StatusCode::OK, Body::from("{\"signatures\": 7}"))
        }
        Some(NetworkFault::WrongAmounts) => {
            let text = String::from_utf8_lossy(&bytes)
                .replace("\"amount\":1,", "\"amount\":64,")
                .replace("\"amount\":4,", "\"amount\":2,");
            response(code, Body::from(text))
        }
        Some(NetworkFault::Endless) => {
            let chunk = Bytes::from(vec![b' '; 64 << 10]);
            response(
                code,
                Body::from_stream(futures::stream::repeat_with(move || {
                    Ok::<_, std::io::Error>(chunk.clone())
                })),
            )
        }
        Some(NetworkFault::Drip) => {
            let drops: Vec<Bytes> =
                bytes.chunks(bytes.len().div_ceil(8).max(1)).map(Bytes::copy_from_slice).collect();
            let slow = futures::stream::unfold(drops.into_iter(), |mut drops| async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                drops.next().map(|drop| (Ok::<_, std::io::Error>(drop), drops))
            });
            response(code, Body::from_stream(slow))
        }
        Some(NetworkFault::DoneAnd(code)) => response(status(code), Body::empty()),
        Some(NetworkFault::DoneAndAnswer(answer)) => planned(answer),
        Some(NetworkFault::Coded(answer)) => coded(answer),
        Some(NetworkFault::Truncated) => {
            let half = bytes.slice(..bytes.len() / 2);
            let error = Err(std::io::Error::other("cut"));
            response(code, Body::from_stream(futures::stream::iter([Ok(half), error])))
        }
        _ => response(code, Body::from(bytes)),
    }
}
