//! A mint without money.

use crate::support::fake::{TOO_LARGE, without_mints};
use async_trait::async_trait;
use paygress_core::backend::policy::Payment;
use paygress_core::backend::wallet::{
    Payments, ReceiveError, RecoveryError, RefundAmount, RefundIssuer, RefundState, RefundToken,
    Resolution, ResolveMode, TokenInfo, TokenReader, WalletError,
};
use paygress_core::model::ids::{MintUrl, OrderId, ProofY};
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// A mint that is slow. A token is its kind, its mint and a number: `honest` is good and proven,
/// `plain` is good, `forged` is refused when it is swapped, `lost` gets no answer, nor does `hung`,
/// which is proven; `silent` is proven, and is never verified; `spent` is proven, and is spent elsewhere
/// before it is swapped; `poor` is proven, and worth less than any pod. [`TOO_LARGE`] is good and proven
/// too, and sent for that tier.
pub(crate) struct SlowMint {
    latency: Duration,
    /// Closed while tokens are not verified, or not swapped.
    pub(crate) verifying: Semaphore,
    pub(crate) swapping: Semaphore,
    /// Requests that have begun, with the token's kind.
    begun: Mutex<Vec<String>>,
    pub(crate) resolutions: AtomicUsize,
}

impl SlowMint {
    pub(crate) fn new(latency: Duration) -> Self {
        Self {
            latency,
            verifying: Semaphore::new(Semaphore::MAX_PERMITS),
            swapping: Semaphore::new(Semaphore::MAX_PERMITS),
            begun: Mutex::default(),
            resolutions: AtomicUsize::new(0),
        }
    }

    /// Neither verifies nor swaps until it is opened.
    pub(crate) fn closed() -> Self {
        let (verifying, swapping) = (Semaphore::new(0), Semaphore::new(0));
        Self { verifying, swapping, ..Self::new(Duration::ZERO) }
    }

    fn kind(token: &Secret) -> String {
        token.expose().split('-').next().unwrap_or_default().to_owned()
    }

    async fn request(&self, token: &Secret) {
        self.begun.lock().unwrap().push(Self::kind(token));
        tokio::time::sleep(self.latency).await;
    }

    pub(crate) fn begun(&self, kind: &str) -> usize {
        self.begun.lock().unwrap().iter().filter(|begun| *begun == kind).count()
    }
}

#[async_trait]
impl TokenReader for SlowMint {
    async fn decode(&self, token: &Secret) -> Result<TokenInfo, Refusal> {
        let parts: Vec<&str> = token.expose().split('-').collect();
        let mint = MintUrl::parse(format!("https://{}.invalid", parts[1])).unwrap();
        let y = ProofY::parse(format!("{:0>66}", parts[2])).unwrap();
        let gross = if parts[0] == "poor" { Sat(0) } else { Sat(10) };
        Ok(TokenInfo { mint, gross, ys: vec![y] })
    }
    async fn verify(&self, token: &Secret, info: &TokenInfo) -> Result<Payment, Refusal> {
        if Self::kind(token) == "silent" {
            self.begun.lock().unwrap().push(Self::kind(token));
            return std::future::pending().await;
        }
        let _open = self.verifying.acquire().await.unwrap();
        self.request(token).await;
        let (mint, gross) = (info.mint.clone(), info.gross);
        Ok(Payment { mint, gross, fee: Sat(0), net: gross })
    }
    async fn verify_dleq(&self, token: &Secret, info: &TokenInfo) -> Result<Payment, Refusal> {
        self.verify(token, info).await
    }
    async fn is_proven(&self, token: &Secret, _: &TokenInfo) -> bool {
        const PROVEN: [&str; 6] = ["honest", "hung", "silent", "spent", "poor", TOO_LARGE];
        PROVEN.contains(&Self::kind(token).as_str())
    }
    async fn token_from_payload(&self, payload: &str) -> Result<Secret, Refusal> {
        Ok(Secret::new(payload))
    }
}

#[async_trait]
impl Payments for SlowMint {
    async fn receive(
        &self,
        _: &OrderId,
        token: &Secret,
        info: &TokenInfo,
    ) -> Result<Sat, ReceiveError> {
        if Self::kind(token) == "spent" {
            return Err(Refusal::new(ErrorType::TokenAlreadySpent, "it was spent").into());
        }
        let _open = self.swapping.acquire().await.unwrap();
        self.request(token).await;
        match Self::kind(token).as_str() {
            "honest" | "plain" => Ok(info.gross),
            "lost" | "hung" => Err(ReceiveError::Unknown(lost())),
            _ => Err(Refusal::new(ErrorType::InvalidToken, "the token is forged").into()),
        }
    }
    async fn resolve(&self, _: &OrderId, _: &TokenInfo, _: ResolveMode) -> Resolution {
        self.resolutions.fetch_add(1, Ordering::Relaxed);
        Resolution::Unknown(lost())
    }
    async fn recover(&self) -> Result<(), RecoveryError> {
        Ok(())
    }
}

fn lost() -> WalletError {
    WalletError::unresolved(io::Error::other("no answer"))
}

#[async_trait]
impl RefundIssuer for SlowMint {
    async fn refund(
        &self,
        _: &OrderId,
        _: &MintUrl,
        _: RefundAmount,
    ) -> Result<RefundToken, WalletError> {
        Err(lost())
    }
    async fn refund_state(&self, _: &OrderId, _: &MintUrl) -> Result<RefundState, WalletError> {
        Ok(RefundState::Waiting)
    }
    async fn reclaim(&self, _: &OrderId, _: &MintUrl) -> Result<Option<Sat>, WalletError> {
        Ok(None)
    }
}

without_mints!(SlowMint);
