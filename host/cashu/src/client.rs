//! One mint over HTTP. It is untrusted: it may be down, slow, endless or wrong, and then only its
//! own orders wait.

use crate::compute::ComputeShare;
use crate::error::{MintError, ResponseError, UnavailableReason};
use crate::health::{CircuitBreaker, RateLimit};
use crate::http::{JsonClient, ResponseLimits};
use crate::keyset::longest_active;
use crate::keyset_owners::MAX_KEYSETS;
use crate::pace::{EarlyKeysets, Pace};
use crate::spent::SpentProofs;
use crate::state_batch::{BatchAnswer, BatchedToken, NextBatch, StateBatch};
use backon::Retryable;
use cdk::mint_url::MintUrl;
use cdk::nuts::{
    CheckStateRequest, CheckStateResponse, CurrencyUnit, Id, KeySet, KeySetInfo, KeysResponse,
    KeysetResponse, MeltQuoteBolt11Request, MeltQuoteBolt11Response, MeltRequest, PublicKey,
    RestoreRequest, RestoreResponse, State, SwapRequest, SwapResponse,
};
use hyper::Method;
use hyper::body::Bytes;
use paygress_core::model::units::UnixTime;
use paygress_core::recent::Recent;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{self, Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OnceCell, Semaphore};

/// Requests in flight to one mint; the rest wait.
const MAX_CONCURRENT_REQUESTS: usize = 8;
/// How long a list of keysets is used, unless a token of a newer one arrives…
const KEYSETS_TTL: Duration = Duration::from_secs(60);
/// …but it is not requested more often than this, and waited for: anybody can invent a keyset.
const KEYSETS_MIN_AGE: Duration = Duration::from_millis(500);
/// Keys of one keyset: one for each power of two that an amount can have, and as many again. They
/// are kept for each of a mint's keysets.
const MAX_KEYS: usize = 128;
/// Keysets whose keys are loaded in the background after their list was: each is a request…
const MAX_PRELOADED: usize = 16;
/// …and one that failed is not loaded so again before. Nor to check tokens that are not proven.
const PRELOAD_RETRY: Duration = Duration::from_secs(3_600);

pub(crate) type Result<T> = std::result::Result<T, MintError>;
type Keysets = Arc<Vec<KeySetInfo>>;
/// Requested once, however many wait for them.
type SharedKeys = Arc<OnceCell<Arc<KeySet>>>;

struct CachedKeysets {
    fetched_at: Instant,
    keysets: Keysets,
}

pub(crate) struct MintClient {
    pub(crate) url: MintUrl,
    http: JsonClient,
    permits: Semaphore,
    pace: Pace,
    pub(crate) breaker: CircuitBreaker,
    pub(crate) rate_limit: RateLimit,
    pub(crate) spent: SpentProofs,
    pub(crate) share: ComputeShare,
    next_states: NextBatch,
    keysets: Mutex<Option<CachedKeysets>>,
    /// Since [`MintClient::take_refreshed`].
    is_refreshed: AtomicBool,
    early_keysets: EarlyKeysets,
    input_fee_ppk: AtomicU64,
    keys: Mutex<HashMap<Id, SharedKeys>>,
    /// Held while keys are loaded in the background.
    preloading: Mutex<()>,
    not_loaded: sync::Mutex<Recent<Id>>,
}

impl MintClient {
    pub(crate) fn new(url: MintUrl, http: JsonClient) -> Self {
        Self {
            url,
            http,
            permits: Semaphore::new(MAX_CONCURRENT_REQUESTS),
            pace: Pace::default(),
            breaker: CircuitBreaker::default(),
            rate_limit: RateLimit::default(),
            spent: SpentProofs::default(),
            share: ComputeShare::half(),
            next_states: NextBatch::default(),
            keysets: Mutex::default(),
            is_refreshed: AtomicBool::default(),
            early_keysets: EarlyKeysets::default(),
            input_fee_ppk: AtomicU64::default(),
            keys: Mutex::default(),
            preloading: Mutex::default(),
            not_loaded: sync::Mutex::new(Recent::new(MAX_KEYSETS, PRELOAD_RETRY)),
        }
    }

    /// The body is made once the request may be made.
    async fn request<T>(
        &self,
        method: Method,
        path: &str,
        body: impl Fn() -> Result<Bytes> + Send + Sync,
        limits: ResponseLimits,
    ) -> Result<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let url = self
            .url
            .join_paths(&path.split('/').collect::<Vec<_>>())
            .map_err(|error| MintError::Unavailable(UnavailableReason::Url(Box::new(error))))?;
        let exchange = || self.exchange::<T>(method.clone(), url.as_str(), &body, limits);
        exchange
            .retry(limits.repetitions())
            .adjust(|error, pause| match error {
                MintError::Unavailable(UnavailableReason::RateLimited { retry_after }) => {
                    pause.map(|pause| retry_after.unwrap_or(pause))
                }
                _ => None,
            })
            .await
    }

    /// One request, once it may be made.
    async fn exchange<T>(
        &self,
        method: Method,
        url: &str,
        body: &(impl Fn() -> Result<Bytes> + Sync),
        limits: ResponseLimits,
    ) -> Result<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        self.breaker.check().map_err(MintError::Unavailable)?;
        let _permit = self
            .permits
            .acquire()
            .await
            .map_err(|_| MintError::Unavailable(UnavailableReason::Closed))?;
        self.pace.wait().await;
        let body = body()?;
        let started = Instant::now();
        let error = match self.http.exchange(None, method, url, body, limits).await {
            Ok(response) => {
                self.breaker.record_success(&self.url, started.elapsed());
                return response.decode(&self.share).await;
            }
            Err(error) => error,
        };
        match &error {
            // The mint is there: those whose requests are too many must not close it to all.
            MintError::Unavailable(UnavailableReason::RateLimited { retry_after }) => {
                self.rate_limit.record(&self.url, *retry_after);
            }
            error => self.breaker.record_failure(&self.url, error),
        }
        Err(error)
    }

    async fn get<T: DeserializeOwned + Send + 'static>(&self, path: &str) -> Result<T> {
        self.request(Method::GET, path, no_body, ResponseLimits::READ).await
    }

    async fn post<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        body: &impl Serialize,
        limits: ResponseLimits,
    ) -> Result<T> {
        let body = encode(body)?;
        self.request(Method::POST, path, || Ok(body.clone()), limits).await
    }

    /// The mint's keysets in sat; requested again when they are old, or when `is_missing` says that
    /// one is missing.
    pub(crate) async fn keysets(
        &self,
        is_missing: impl Fn(&[KeySetInfo]) -> bool,
    ) -> Result<Keysets> {
        let since = Instant::now();
        loop {
            let wait = match self.keysets.lock().await.as_ref() {
                None => break,
                Some(cached) => {
                    let age = cached.fetched_at.elapsed();
                    let is_current = age < KEYSETS_TTL && !is_missing(&cached.keysets);
                    // Nothing newer than what was fetched meanwhile.
                    if is_current || cached.fetched_at >= since {
                        return Ok(Arc::clone(&cached.keysets));
                    }
                    KEYSETS_MIN_AGE.saturating_sub(age)
                }
            };
            if wait.is_zero() {
                break;
            }
            tokio::time::sleep(wait).await;
        }
        self.request_keysets().await
    }

    /// As [`MintClient::keysets`], for a token that anybody may have invented: its order has a slot, and
    /// does not wait until the list may be requested. What is missing may be newer than the list.
    pub(crate) async fn keysets_now(
        &self,
        is_missing: impl Fn(&[KeySetInfo]) -> bool,
    ) -> Result<Keysets> {
        if let Some(cached) = self.keysets.lock().await.as_ref() {
            let age = cached.fetched_at.elapsed();
            let is_current = age < KEYSETS_TTL && !is_missing(&cached.keysets);
            if is_current || (age < KEYSETS_MIN_AGE && !self.early_keysets.may_request()) {
                return Ok(Arc::clone(&cached.keysets));
            }
        }
        self.request_keysets().await
    }

    async fn request_keysets(&self) -> Result<Keysets> {
        let mut keysets = self.get::<KeysetResponse>("v1/keysets").await?.keysets;
        keysets.retain(|keyset| keyset.unit == CurrencyUnit::Sat);
        if keysets.len() > MAX_KEYSETS {
            let error = ResponseError::TooManyKeysets(keysets.len());
            return Err(MintError::InvalidResponse(error));
        }
        if let Some(active) = longest_active(&keysets, UnixTime::now()) {
            self.input_fee_ppk.store(active.input_fee_ppk, Ordering::Relaxed);
        }
        let keysets = Arc::new(keysets);
        *self.keysets.lock().await =
            Some(CachedKeysets { fetched_at: Instant::now(), keysets: Arc::clone(&keysets) });
        self.is_refreshed.store(true, Ordering::Relaxed);
        Ok(keysets)
    }

    /// Whether the keysets were requested since the last call.
    pub(crate) fn take_refreshed(&self) -> bool {
        self.is_refreshed.swap(false, Ordering::Relaxed)
    }

    /// The fee for spending a proof of the active keyset, in thousandths of a sat, as far as it is
    /// known (NUT-02).
    pub(crate) fn input_fee_ppk(&self) -> u64 {
        self.input_fee_ppk.load(Ordering::Relaxed)
    }

    /// Requests the keysets again: the mint has refused what was made from them.
    pub(crate) async fn refresh_keysets(&self) -> Result<()> {
        self.keysets(|_| true).await.map(drop)
    }

    /// The keysets that are known, however old, without a request.
    pub(crate) async fn known_keysets(&self) -> Option<Keysets> {
        self.keysets.lock().await.as_ref().map(|cached| Arc::clone(&cached.keysets))
    }

    /// The keys of a keyset, if they are known without a request.
    pub(crate) async fn known_keys(&self, id: Id) -> Option<Arc<KeySet>> {
        self.keys.lock().await.get(&id).and_then(|keys| keys.get().cloned())
    }

    /// The keys of a keyset. Its id is their hash: they never change.
    pub(crate) async fn keys(&self, id: Id) -> Result<Arc<KeySet>> {
        let keys = Arc::clone(self.keys.lock().await.entry(id).or_default());
        keys.get_or_try_init(|| self.request_keys(id)).await.cloned()
    }

    /// As [`MintClient::keys`]; `None` if they cannot be loaded, or could not lately.
    pub(crate) async fn loadable_keys(&self, id: Id) -> Option<Arc<KeySet>> {
        let known = self.known_keys(id).await;
        if known.is_some() || self.not_loaded().contains(&id) {
            return known;
        }
        let keys = self.keys(id).await;
        if keys.is_err() {
            self.not_loaded().insert(&id);
        }
        keys.ok()
    }

    async fn request_keys(&self, id: Id) -> Result<Arc<KeySet>> {
        let path = format!("v1/keys/{id}");
        let keyset = self
            .request::<KeysResponse>(Method::GET, &path, no_body, ResponseLimits::KEYS)
            .await?
            .keysets
            .into_iter()
            .find(|keyset| keyset.id == id && keyset.unit == CurrencyUnit::Sat)
            .ok_or(MintError::InvalidResponse(ResponseError::KeysetMissing))?;
        let keys = keyset.keys.keys().len();
        if keys > MAX_KEYS {
            return Err(MintError::InvalidResponse(ResponseError::TooManyKeys(keys)));
        }
        keyset.verify_id().map_err(|_| MintError::InvalidResponse(ResponseError::KeysetId))?;
        Ok(Arc::new(keyset))
    }

    fn not_loaded(&self) -> sync::MutexGuard<'_, Recent<Id>> {
        self.not_loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads the keys of some of these keysets that are not known yet, in the background: a token of
    /// an older keyset is known to be the mint's before an order of it has had its turn.
    pub(crate) async fn preload_keys(self: &Arc<Self>, keysets: Vec<Id>) {
        let missing: Vec<Id> = {
            let known = self.keys.lock().await;
            let mut failed = self.not_loaded();
            let is_missing = |id: &Id| {
                !known.get(id).is_some_and(|keys| keys.initialized()) && !failed.contains(id)
            };
            keysets.into_iter().filter(is_missing).take(MAX_PRELOADED).collect()
        };
        if missing.is_empty() {
            return;
        }
        let client = Arc::clone(self);
        tokio::spawn(async move {
            let Ok(_preloading) = client.preloading.try_lock() else { return };
            for id in missing {
                let Err(error) = client.keys(id).await else { continue };
                tracing::debug!(mint = %client.url, keyset = %id, %error, "keys were not loaded");
                client.not_loaded().insert(&id);
                if matches!(error, MintError::Unavailable(_)) {
                    // Further failures would suspend the mint.
                    return;
                }
            }
        });
    }

    /// The state of each of these proofs, in their order (NUT-07).
    pub(crate) async fn states(&self, ys: &[PublicKey]) -> Result<Vec<State>> {
        let response: CheckStateResponse = self
            .post("v1/checkstate", &CheckStateRequest { ys: ys.to_vec() }, ResponseLimits::READ)
            .await?;
        self.states_in(&by_y(response), ys)
    }

    /// As [`MintClient::states`], in one request with those of other tokens that wait for its start.
    pub(crate) async fn states_of_token(
        self: &Arc<Self>,
        ys: &[PublicKey],
    ) -> std::result::Result<Vec<State>, Arc<MintError>> {
        let Some(BatchedToken { answer, is_first }) = self.next_states.join(ys) else {
            return self.states(ys).await.map_err(Arc::new);
        };
        if is_first {
            // In a task of its own: the others wait for it too.
            let client = Arc::clone(self);
            tokio::spawn(async move { client.request_batch().await });
        }
        match answer.await {
            Ok(BatchAnswer { states: Ok(states), is_shared }) => {
                match self.states_in(&states, ys) {
                    // A mint that shortens long lists.
                    Err(_) if is_shared => self.states(ys).await.map_err(Arc::new),
                    found => found.map_err(Arc::new),
                }
            }
            Ok(BatchAnswer { states: Err(error), is_shared })
                if !is_shared || matches!(*error, MintError::Unavailable(_)) =>
            {
                Err(error)
            }
            // It may be because of another token.
            Ok(_) | Err(_) => self.states(ys).await.map_err(Arc::new),
        }
    }

    /// Requests the states of the next batch, which is closed when the request starts.
    async fn request_batch(&self) {
        let started: OnceLock<StateBatch> = OnceLock::new();
        let body = || {
            let batch = started.get_or_init(|| self.next_states.close());
            encode(&CheckStateRequest { ys: batch.ys() })
        };
        let response: Result<CheckStateResponse> =
            self.request(Method::POST, "v1/checkstate", body, ResponseLimits::READ).await;
        let states = match response {
            Ok(response) => Ok(Arc::new(by_y(response))),
            Err(error) => Err(Arc::new(error)),
        };
        // It has not started where the mint is suspended.
        let batch = started.into_inner().unwrap_or_else(|| self.next_states.close());
        batch.answer(&states);
    }

    /// The states of these proofs, in their order. Those that are spent are remembered.
    fn states_in(
        &self,
        states: &HashMap<PublicKey, State>,
        ys: &[PublicKey],
    ) -> Result<Vec<State>> {
        let states = ys
            .iter()
            .map(|y| states.get(y).copied())
            .collect::<Option<Vec<State>>>()
            .ok_or(MintError::InvalidResponse(ResponseError::StateMissing))?;
        let spent = ys.iter().zip(&states).filter(|(_, state)| **state == State::Spent);
        self.spent.record(spent.map(|(y, _)| y.to_hex()));
        Ok(states)
    }

    pub(crate) async fn swap(&self, request: &SwapRequest) -> Result<SwapResponse> {
        self.post("v1/swap", request, ResponseLimits::WRITE).await
    }

    pub(crate) async fn restore(&self, request: &RestoreRequest) -> Result<RestoreResponse> {
        self.post("v1/restore", request, ResponseLimits::READ).await
    }

    pub(crate) async fn melt_quote(
        &self,
        request: &MeltQuoteBolt11Request,
    ) -> Result<MeltQuoteBolt11Response<String>> {
        self.post("v1/melt/quote/bolt11", request, ResponseLimits::READ).await
    }

    pub(crate) async fn melt_quote_state(
        &self,
        quote: &str,
    ) -> Result<MeltQuoteBolt11Response<String>> {
        self.get(&format!("v1/melt/quote/bolt11/{quote}")).await
    }

    pub(crate) async fn melt(
        &self,
        request: &MeltRequest<String>,
    ) -> Result<MeltQuoteBolt11Response<String>> {
        self.post("v1/melt/bolt11", request, ResponseLimits::WRITE).await
    }
}

fn no_body() -> Result<Bytes> {
    Ok(Bytes::new())
}

fn encode(body: &impl Serialize) -> Result<Bytes> {
    let encoded = serde_json::to_vec(body);
    let failed = |error| MintError::InvalidResponse(ResponseError::Encode(error));
    encoded.map(Bytes::from).map_err(failed)
}

fn by_y(response: CheckStateResponse) -> HashMap<PublicKey, State> {
    response.states.into_iter().map(|state| (state.y, state.state)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeMint, OneKey, keyset_of};
    use cdk::Amount;
    use cdk::nuts::{Keys, SecretKey};

    #[tokio::test]
    async fn a_keyset_of_more_keys_than_amounts_need_is_refused_and_not_kept() {
        let key = SecretKey::generate().public_key();
        for (count, is_used) in [(1_usize, true), (128, true), (129, false), (10_000, false)] {
            let amounts = 1..=u64::try_from(count).unwrap();
            let keys = Keys::new(amounts.map(|amount| (Amount::from(amount), key)).collect());
            let keyset = keyset_of(keys);
            let id = keyset.id;
            let body = serde_json::to_string(&KeysResponse { keysets: vec![keyset] }).unwrap();
            let bytes = body.len();
            let mint = FakeMint::start(move |_, _| ("200 OK", body.clone())).await;
            let directory = tempfile::tempdir().unwrap();
            let wallet = mint.wallet(directory.path()).await;
            match wallet.client.keys(id).await {
                Ok(keyset) => assert_eq!(keyset.keys.keys().len(), count),
                Err(MintError::InvalidResponse(ResponseError::TooManyKeys(keys))) => {
                    assert_eq!(keys, count);
                }
                Err(MintError::InvalidResponse(ResponseError::Http(error))) => {
                    assert!(bytes > 64 << 10, "{bytes}: {error}");
                }
                Err(error) => panic!("{count}: {error}"),
            }
            assert_eq!(wallet.client.known_keys(id).await.is_some(), is_used, "{count}");
            println!("{count} keys, {bytes} bytes: {}", if is_used { "used" } else { "refused" });
        }
    }

    #[tokio::test]
    async fn of_a_tokens_proofs_those_are_remembered_that_are_spent() {
        let mint = FakeMint::start(|_, body| {
            let (status, states) = OneKey::unspent(body);
            (status, states.replacen("UNSPENT", "SPENT", 1))
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let wallet = mint.wallet(directory.path()).await;
        let ys = [(); 2].map(|()| SecretKey::generate().public_key());
        assert_eq!(wallet.client.states(&ys).await.unwrap(), [State::Spent, State::Unspent]);
        let [spent, unspent] = ys.map(|y| y.to_hex());
        assert!(wallet.client.spent.contains_any([&unspent, &spent]));
        assert!(!wallet.client.spent.contains_any([&unspent]), "it pays for another order");
    }
}
