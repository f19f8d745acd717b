//! One mint over HTTP. It is a stranger: it may be away, slow, endless or wrong, and costs its own
//! orders only.

use crate::health::Health;
use cdk::mint_url::MintUrl;
use cdk::nuts::{
    CheckStateRequest, CheckStateResponse, CurrencyUnit, Id, KeySet, KeySetInfo, KeysResponse,
    KeysetResponse, MeltQuoteBolt11Request, MeltQuoteBolt11Response, MeltRequest, PublicKey,
    RestoreRequest, RestoreResponse, State, SwapRequest, SwapResponse,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client as Http, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use paygress_core::model::units::Seconds;
use paygress_http_client::{chain, connector};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Semaphore};

/// Reading from a mint. It answers in tenths of a second.
const ASK: Duration = Duration::from_secs(10);
/// A swap or a payment: the mint writes, and a payment waits for Lightning. Longer than a mint's
/// own limits, so that an answer is seldom lost.
const ACT: Duration = Duration::from_secs(60);
/// An answer. The largest are the signatures of a thousand outputs, at 400 bytes each.
const BODY_BYTES: usize = 2 << 20;
/// Requests at one mint at the same time; the rest wait.
const AT_ONCE: usize = 8;
/// Between two requests' beginnings at one mint: mints limit their callers, and a busy shop is one
/// caller.
const PACE: Duration = Duration::from_millis(10);
/// How long a list of keysets is used. A token of a newer one has it read again…
const KEYSETS: Duration = Duration::from_secs(60);
/// …but not more often than this: anybody can invent a keyset.
const KEYSETS_AGAIN: Duration = Duration::from_secs(2);
/// What the mint said of its error, in our log: more is somebody's joke.
const DETAIL_CHARS: usize = 200;

/// Why a mint did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MintError {
    /// It cannot be reached, does not answer in time, or has a fault of its own. What was asked may
    /// have been done.
    #[error("the mint is away: {0}")]
    Away(String),
    /// It answered what no mint answers. What was asked may have been done.
    #[error("the mint's answer makes no sense: {0}")]
    Garbage(String),
    /// It says no.
    #[error("the mint refused ({code}): {detail:?}")]
    Refused {
        /// The code of its error, see the NUTs; 0 when it named none.
        code: u32,
        /// In its words.
        detail: String,
    },
}

/// Codes of the NUTs' table of errors that are told apart.
pub(crate) mod codes {
    pub(crate) const NOT_VERIFIED: u32 = 10_001;
    pub(crate) const SPENT: u32 = 11_001;
    pub(crate) const PENDING: u32 = 11_002;
    pub(crate) const SIGNED: u32 = 11_003;
    pub(crate) const OUTPUTS_PENDING: u32 = 11_004;
    pub(crate) const TOO_MANY_INPUTS: u32 = 11_014;
    pub(crate) const KEYSET_UNKNOWN: u32 = 12_001;
    pub(crate) const KEYSET_INACTIVE: u32 = 12_002;
    pub(crate) const KEYSET_EXPIRED: u32 = 12_003;

    /// Whether a swap that is refused so was not done and will not be. Codes beyond the table, and
    /// none at all, are a mint's own troubles: its database was busy, for instance.
    pub(crate) fn is_final(code: u32) -> bool {
        (10_000..13_000).contains(&code) && ![PENDING, OUTPUTS_PENDING].contains(&code)
    }
}

#[derive(Deserialize)]
struct ErrorResponse {
    #[serde(default)]
    code: u32,
    #[serde(default, alias = "error")]
    detail: serde_json::Value,
}

pub(crate) type Asked<T> = Result<T, MintError>;
type Keysets = Arc<Vec<KeySetInfo>>;

/// HTTP with an end to everything.
pub(crate) struct HttpClient(Http<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl HttpClient {
    pub(crate) fn new() -> Asked<Self> {
        let connector =
            connector(ASK).map_err(|error| MintError::Unavailable(error.to_string()))?;
        Ok(Self(
            Http::builder(TokioExecutor::new()).pool_max_idle_per_host(AT_ONCE).build(connector),
        ))
    }

    /// `Ok` is an answer of the server itself: yes or a reasoned no.
    async fn exchange(
        &self,
        method: Method,
        url: &str,
        body: Option<Vec<u8>>,
        patience: Duration,
    ) -> Asked<(StatusCode, Bytes)> {
        let exchange = async {
            let away = |error: &dyn std::fmt::Display| MintError::Unavailable(error.to_string());
            let uri: Uri = url.parse().map_err(|error| away(&error))?;
            let request =
                Request::builder().method(method).uri(uri).header("accept", "application/json");
            let request = request
                .header("content-type", "application/json")
                .body(Full::from(body.unwrap_or_default()));
            let response = self
                .0
                .request(request.map_err(|error| away(&error))?)
                .await
                .map_err(|error| away(&chain(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), BODY_BYTES).collect().await;
            let bytes =
                body.map_err(|error| MintError::InvalidResponse(error.to_string()))?.to_bytes();
            let busy =
                [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY]
                    .contains(&status);
            if status.is_server_error() || busy {
                return Err(MintError::Unavailable(format!("HTTP {}", status.as_u16())));
            }
            if status.is_redirection() || status.is_informational() {
                return Err(MintError::InvalidResponse(format!("HTTP {}", status.as_u16())));
            }
            Ok((status, bytes))
        };
        let answer = tokio::time::timeout(patience, exchange).await;
        answer.unwrap_or_else(|_| {
            Err(MintError::Unavailable(format!("no answer within {} s", patience.as_secs())))
        })
    }

    /// Reads one thing.
    pub(crate) async fn get<T: DeserializeOwned>(&self, url: &str) -> Asked<T> {
        understand(self.exchange(Method::GET, url, None, ASK).await?)
    }
}

fn understand<T: DeserializeOwned>((status, bytes): (StatusCode, Bytes)) -> Asked<T> {
    if status.is_success() {
        return serde_json::from_slice(&bytes).map_err(|error| {
            MintError::InvalidResponse(format!("line {}: {:?}", error.line(), error.classify()))
        });
    }
    let told = serde_json::from_slice(&bytes)
        .unwrap_or(ErrorResponse { code: 0, detail: serde_json::Value::Null });
    let detail = told.detail.as_str().map_or_else(|| told.detail.to_string(), str::to_owned);
    Err(MintError::Rejected {
        code: told.code,
        detail: detail.chars().take(DETAIL_CHARS).collect(),
    })
}

/// A mint.
pub(crate) struct MintClient {
    pub(crate) url: MintUrl,
    web: HttpClient,
    places: Semaphore,
    pace: Mutex<tokio::time::Instant>,
    pub(crate) health: Health,
    keysets: Mutex<Option<(Instant, Keysets)>>,
    keys: Mutex<HashMap<Id, Arc<KeySet>>>,
}

impl MintClient {
    pub(crate) fn new(url: MintUrl) -> Asked<Self> {
        let (places, pace) = (Semaphore::new(AT_ONCE), Mutex::new(tokio::time::Instant::now()));
        Ok(Self {
            url,
            web: HttpClient::new()?,
            places,
            pace,
            health: Health::default(),
            keysets: Mutex::default(),
            keys: Mutex::default(),
        })
    }

    /// Waits for this request's turn.
    async fn turn(&self) {
        let turn = {
            let mut next = self.pace.lock().await;
            let turn = (*next).max(tokio::time::Instant::now());
            *next = turn.checked_add(PACE).unwrap_or(turn);
            turn
        };
        tokio::time::sleep_until(turn).await;
    }

    /// One request, in a place of this mint's own.
    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        patience: Duration,
    ) -> Asked<T> {
        self.health.check().map_err(MintError::Unavailable)?;
        let url = self
            .url
            .join_paths(&path.split('/').collect::<Vec<_>>())
            .map_err(|error| MintError::Unavailable(error.to_string()))?;
        let _place = self
            .places
            .acquire()
            .await
            .map_err(|error| MintError::Unavailable(error.to_string()))?;
        self.turn().await;
        let begun = Instant::now();
        let answer = self.web.exchange(method, url.as_str(), body, patience).await;
        self.health.note(&self.url, begun.elapsed(), answer.as_ref().err());
        understand(answer?)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Asked<T> {
        self.send(Method::GET, path, None, ASK).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Asked<T> {
        let body = serde_json::to_vec(body)
            .map_err(|error| MintError::InvalidResponse(error.to_string()))?;
        self.send(Method::POST, path, Some(body), patience).await
    }

    /// The mint's keysets in sat; read again when they are old, or when one is missing.
    pub(crate) async fn keysets(&self, missing: impl Fn(&[KeySetInfo]) -> bool) -> Asked<Keysets> {
        let known = self.keysets.lock().await.clone();
        if let Some((at, keysets)) = known {
            let age = at.elapsed();
            if age < KEYSETS_AGAIN || (age < KEYSETS && !missing(&keysets)) {
                return Ok(keysets);
            }
        }
        let mut found = self.get::<KeysetResponse>("v1/keysets").await?.keysets;
        found.retain(|keyset| keyset.unit == CurrencyUnit::Sat);
        let keysets = Arc::new(found);
        *self.keysets.lock().await = Some((Instant::now(), Arc::clone(&keysets)));
        Ok(keysets)
    }

    /// Forgets the keysets: the mint has said that one is not in use any more.
    pub(crate) async fn forget_keysets(&self) {
        *self.keysets.lock().await = None;
    }

    /// The keys of a keyset. Its id is made of them: they never change.
    pub(crate) async fn keys(&self, id: Id) -> Asked<Arc<KeySet>> {
        if let Some(known) = self.keys.lock().await.get(&id) {
            return Ok(Arc::clone(known));
        }
        let found = self.get::<KeysResponse>(&format!("v1/keys/{id}")).await?.keysets;
        let keyset =
            found.into_iter().find(|keyset| keyset.id == id && keyset.unit == CurrencyUnit::Sat);
        let keyset = keyset.ok_or_else(|| {
            MintError::InvalidResponse("it does not show the keys that were asked for".to_owned())
        })?;
        keyset.verify_id().map_err(|_| {
            MintError::InvalidResponse("a keyset's keys do not make its id".to_owned())
        })?;
        let keyset = Arc::new(keyset);
        self.keys.lock().await.insert(id, Arc::clone(&keyset));
        Ok(keyset)
    }

    /// The state of each of these proofs, in their order.
    pub(crate) async fn states(&self, ys: &[PublicKey]) -> Asked<Vec<State>> {
        let response: CheckStateResponse =
            self.post("v1/checkstate", &CheckStateRequest { ys: ys.to_vec() }, ASK).await?;
        let states: HashMap<PublicKey, State> =
            response.states.into_iter().map(|state| (state.y, state.state)).collect();
        let missing =
            || MintError::InvalidResponse("it does not tell the state of every proof".to_owned());
        ys.iter().map(|y| states.get(y).copied().ok_or_else(missing)).collect()
    }

    pub(crate) async fn swap(&self, request: &SwapRequest) -> Asked<SwapResponse> {
        self.post("v1/swap", request, ACT).await
    }

    pub(crate) async fn restore(&self, request: &RestoreRequest) -> Asked<RestoreResponse> {
        self.post("v1/restore", request, ASK).await
    }

    pub(crate) async fn melt_quote(
        &self,
        request: &MeltQuoteBolt11Request,
    ) -> Asked<MeltQuoteBolt11Response<String>> {
        self.post("v1/melt/quote/bolt11", request, ASK).await
    }

    pub(crate) async fn melt_quote_state(
        &self,
        quote: &str,
    ) -> Asked<MeltQuoteBolt11Response<String>> {
        self.get(&format!("v1/melt/quote/bolt11/{quote}")).await
    }

    pub(crate) async fn melt(
        &self,
        request: &MeltRequest<String>,
    ) -> Asked<MeltQuoteBolt11Response<String>> {
        self.post("v1/melt/bolt11", request, ACT).await
    }
}

/// The keyset that the mint signs with, the cheapest first.
pub(crate) fn active(keysets: &[KeySetInfo], now: Seconds) -> Option<&KeySetInfo> {
    let usable =
        |keyset: &&KeySetInfo| keyset.active && keyset.final_expiry.is_none_or(|at| at > now.0);
    keysets.iter().filter(usable).min_by_key(|keyset| keyset.input_fee_ppk)
}
