//! A service whose process is killed at one point.

use async_trait::async_trait;
use paygress_core::backend::policy::Payment;
use paygress_core::backend::wallet::{
    MintDirectory, MintReport, PaymentRequest, Payments, ReceiveError, RecoveryError, RefundAmount,
    RefundIssuer, RefundState, RefundToken, Resolution, ResolveMode, TokenInfo, TokenReader,
    Wallet, WalletError,
};
use paygress_core::model::ids::{MintUrl, OrderId, P2pkPubkey};
use paygress_core::model::refusal::Refusal;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::Sat;
use paygress_core::orders::Backends;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Where the process is killed.
#[derive(Clone, Copy, PartialEq)]
pub enum Stop {
    /// Of the first order only.
    BeforeTheFirstIsDecoded,
    BeforeTheSwap,
    AfterTheSwap,
    AfterTheRefundWasMade,
}

/// A wallet whose process is killed at one point.
struct CrashingWallet {
    wallet: Arc<dyn Wallet>,
    stop: Stop,
    reached: Arc<Notify>,
    decodes: AtomicBool,
}

impl CrashingWallet {
    async fn doom(&self, here: Stop) {
        if here == self.stop {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl TokenReader for CrashingWallet {
    async fn decode(&self, token: &Secret) -> Result<TokenInfo, Refusal> {
        if !self.decodes.swap(true, Ordering::SeqCst) {
            self.doom(Stop::BeforeTheFirstIsDecoded).await;
        }
        self.wallet.decode(token).await
    }
    async fn verify(&self, token: &Secret, token_info: &TokenInfo) -> Result<Payment, Refusal> {
        self.wallet.verify(token, token_info).await
    }
    async fn verify_dleq(
        &self,
        token: &Secret,
        token_info: &TokenInfo,
    ) -> Result<Payment, Refusal> {
        self.wallet.verify_dleq(token, token_info).await
    }
    async fn token_from_payload(&self, payload: &str) -> Result<Secret, Refusal> {
        self.wallet.token_from_payload(payload).await
    }
}

#[async_trait]
impl Payments for CrashingWallet {
    async fn receive(
        &self,
        order: &OrderId,
        token: &Secret,
        token_info: &TokenInfo,
    ) -> Result<Sat, ReceiveError> {
        self.doom(Stop::BeforeTheSwap).await;
        let redeemed = self.wallet.receive(order, token, token_info).await;
        self.doom(Stop::AfterTheSwap).await;
        redeemed
    }
    async fn resolve(
        &self,
        order: &OrderId,
        token_info: &TokenInfo,
        mode: ResolveMode,
    ) -> Resolution {
        self.wallet.resolve(order, token_info, mode).await
    }
    async fn recover(&self) -> Result<(), RecoveryError> {
        self.wallet.recover().await
    }
}

#[async_trait]
impl RefundIssuer for CrashingWallet {
    async fn refund(
        &self,
        order: &OrderId,
        mint: &MintUrl,
        amount: RefundAmount,
    ) -> Result<RefundToken, WalletError> {
        let made = self.wallet.refund(order, mint, amount).await;
        self.doom(Stop::AfterTheRefundWasMade).await;
        made
    }
    async fn refund_state(
        &self,
        order: &OrderId,
        mint: &MintUrl,
    ) -> Result<RefundState, WalletError> {
        self.wallet.refund_state(order, mint).await
    }
    async fn reclaim(&self, order: &OrderId, mint: &MintUrl) -> Result<Option<Sat>, WalletError> {
        self.wallet.reclaim(order, mint).await
    }
}

#[async_trait]
impl MintDirectory for CrashingWallet {
    fn mints(&self) -> Vec<MintUrl> {
        self.wallet.mints()
    }
    fn p2pk_pubkey(&self) -> Option<P2pkPubkey> {
        self.wallet.p2pk_pubkey()
    }
    fn payment_request(&self, request: &PaymentRequest) -> String {
        self.wallet.payment_request(request)
    }
    async fn report(&self) -> Result<Vec<MintReport>, WalletError> {
        self.wallet.report().await
    }
}

/// Backends whose wallet stops there.
pub fn crashing(stop: Stop) -> impl FnOnce(Backends, Arc<Notify>) -> Backends + Send + 'static {
    move |backends, reached| Backends {
        wallet: Arc::new(CrashingWallet {
            wallet: Arc::clone(&backends.wallet),
            stop,
            reached,
            decodes: AtomicBool::new(false),
        }),
        ..backends
    }
}
