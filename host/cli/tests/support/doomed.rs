//! A service whose process is killed at one point.

use async_trait::async_trait;
use paygress_core::desk::Rooms;
use paygress_core::policy::Payment;
use paygress_core::refusal::Refusal;
use paygress_core::secret::Secret;
use paygress_core::till::{MintReport, NotRedeemed, PaymentAsked, RefundState, RefundToken, Settlement, Till, TokenFacts};
use paygress_core::units::{MintUrl, OrderId, Sat};
use std::sync::Arc;
use tokio::sync::Notify;

/// Where the world stops turning.
#[derive(Clone, Copy, PartialEq)]
pub enum Stop {
    BeforeTheSwap,
    AfterTheSwap,
    AfterTheRefundWasMade,
}

/// A till whose process is killed at one point.
struct DoomedTill {
    till: Arc<dyn Till>,
    stop: Stop,
    reached: Arc<Notify>,
}

impl DoomedTill {
    async fn doom(&self, here: Stop) {
        if here == self.stop {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Till for DoomedTill {
    fn decode(&self, token: &Secret) -> Result<TokenFacts, Refusal> {
        self.till.decode(token)
    }
    async fn appraise(&self, token: &Secret, facts: &TokenFacts) -> Result<Payment, Refusal> {
        self.till.appraise(token, facts).await
    }
    async fn vouch(&self, token: &Secret, facts: &TokenFacts) -> Result<Payment, Refusal> {
        self.till.vouch(token, facts).await
    }
    async fn redeem(&self, order: &OrderId, token: &Secret, facts: &TokenFacts) -> Result<Sat, NotRedeemed> {
        self.doom(Stop::BeforeTheSwap).await;
        let redeemed = self.till.redeem(order, token, facts).await;
        self.doom(Stop::AfterTheSwap).await;
        redeemed
    }
    async fn settle(&self, order: &OrderId, facts: &TokenFacts) -> Settlement {
        self.till.settle(order, facts).await
    }
    async fn refund(&self, order: &OrderId, mint: &MintUrl, amount: Sat) -> Result<RefundToken, String> {
        let made = self.till.refund(order, mint, amount).await;
        self.doom(Stop::AfterTheRefundWasMade).await;
        made
    }
    fn ask(&self, asked: &PaymentAsked) -> String {
        self.till.ask(asked)
    }
    fn token_of(&self, payload: &str) -> Result<Secret, Refusal> {
        self.till.token_of(payload)
    }
    async fn report(&self) -> Result<Vec<MintReport>, String> {
        self.till.report().await
    }
    async fn refund_state(&self, order: &OrderId, mint: &MintUrl) -> Result<RefundState, String> {
        self.till.refund_state(order, mint).await
    }
    async fn take_back(&self, order: &OrderId, mint: &MintUrl) -> Result<Option<Sat>, String> {
        self.till.take_back(order, mint).await
    }
    async fn recover(&self) -> Result<(), String> {
        self.till.recover().await
    }
    fn mints(&self) -> Vec<MintUrl> {
        self.till.mints()
    }
    fn lock(&self) -> Option<String> {
        self.till.lock()
    }
}

/// Rooms whose till stops there.
pub fn doomed(stop: Stop) -> impl FnOnce(Rooms, Arc<Notify>) -> Rooms + Send + 'static {
    move |rooms, reached| Rooms { till: Arc::new(DoomedTill { till: Arc::clone(&rooms.till), stop, reached }), ..rooms }
}
