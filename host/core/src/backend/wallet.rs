//! The wallets of all accepted mints as their readers see them: one trait per concern.
//!
//! ```text
//! order service ─▶ Wallet = TokenReader + Payments + RefundIssuer + MintDirectory
//! ```

pub use crate::model::token::{RefundToken, TokenInfo};

use crate::model::decision::Payment;
use crate::model::ids::{MintUrl, OrderId, P2pkPubkey};
use crate::model::refusal::Refusal;
use crate::model::secret::Secret;
use crate::model::units::Sat;
use async_trait::async_trait;
use serde::Serialize;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Whether a refund token has been redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundState {
    /// It is still unspent.
    Waiting,
    /// The customer has the money.
    Redeemed,
}

/// What a refund token is to be worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundAmount {
    /// What is left of this after the mint's fee for making it.
    LessFee(Sat),
    /// All of `whole`, if the wallet has that, the fee for making it, and `reserve` for other
    /// refunds. Else as [`RefundAmount::LessFee`] of `due`.
    Whole { whole: Sat, due: Sat, reserve: Sat },
}

/// The cause of a [`WalletError`].
pub type WalletErrorSource = Arc<dyn Error + Send + Sync>;

/// Why a wallet operation has no result. Each is worth another try later.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WalletError {
    #[error("wallet has no mint {0}")]
    UnknownMint(MintUrl),
    /// The operation stays open and is resumed: it is not known yet how it ended.
    #[error("operation is not resolved yet: {0}")]
    Unresolved(#[source] WalletErrorSource),
    /// The operation was not done.
    #[error("operation failed: {0}")]
    Failed(#[source] WalletErrorSource),
    #[error("wallet store is unavailable: {0}")]
    Store(#[source] WalletErrorSource),
}

impl WalletError {
    pub fn unresolved(source: impl Error + Send + Sync + 'static) -> Self {
        Self::Unresolved(Arc::new(source))
    }

    pub fn failed(source: impl Error + Send + Sync + 'static) -> Self {
        Self::Failed(Arc::new(source))
    }

    pub fn store(source: impl Error + Send + Sync + 'static) -> Self {
        Self::Store(Arc::new(source))
    }
}

/// Why a mint's operations are not all resolved.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecoveryFailure {
    #[error("{operations} operations are still open")]
    Open { operations: usize },
    #[error(transparent)]
    Failed(WalletError),
    #[error("mint has not answered in time")]
    Timeout,
}

/// One mint that could not be recovered.
#[derive(Clone, Debug)]
pub struct MintRecoveryFailure {
    pub mint: MintUrl,
    pub failure: RecoveryFailure,
}

/// The mints that could not be recovered. The other mints were.
#[derive(Clone, Debug)]
pub struct RecoveryError {
    pub mints: Vec<MintRecoveryFailure>,
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, failed) in self.mints.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", failed.mint, failed.failure)?;
        }
        Ok(())
    }
}

impl Error for RecoveryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let failed = self.mints.first()?;
        Some(&failed.failure)
    }
}

/// Why a token was not received.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReceiveError {
    /// Final: nothing was taken, and nothing will be for this order, by no replica.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The mint's answer was lost: the money may be ours, or not. Call [`Payments::resolve`] until it
    /// knows.
    #[error("mint's answer was lost: {0}")]
    Unknown(#[source] WalletError),
}

/// What [`Payments::resolve`] may send to the mint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveMode {
    /// The swap once more, unchanged, as long as the mint has not done it: the order is still
    /// wanted.
    Repeat,
    /// Nothing that could take the token: the order is abandoned.
    CheckOnly,
}

/// How a [`Payments::receive`] ended whose answer was lost.
#[derive(Clone, Debug)]
pub enum Resolution {
    /// The token was received; its net amount.
    Received(Sat),
    /// The token is still unspent, and nothing of ours will spend it.
    NotSpent,
    /// The token was spent, but not by us.
    SpentElsewhere,
    /// It is not known yet.
    Unknown(WalletError),
}

/// The content of a payment request (NUT-18).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PaymentRequest {
    /// What must be left after the mint's input fee.
    pub amount: Sat,
    /// None in the response to a request without payment (NUT-24).
    pub description: Option<String>,
    /// Where the payer posts the proofs; none: they come with the request that they pay for.
    pub target: Option<String>,
}

/// A mint's health, and what is held there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MintReport {
    pub mint: MintUrl,
    /// Whether its tokens are accepted.
    pub accepted: bool,
    pub held: Sat,
    /// Why the last request failed, if it did.
    pub fault: Option<String>,
    pub answered_in_ms: Option<u64>,
}

/// Tokens before anything is paid. Spends nothing.
#[async_trait]
pub trait TokenReader: Send + Sync {
    /// Decodes a token offline.
    ///
    /// # Errors
    /// `invalid_token`, `non_whitelisted_mint`, `unsupported_unit`.
    async fn decode(&self, token: &Secret) -> Result<TokenInfo, Refusal>;

    /// The token's value after the mint's input fees. Checks that it is unspent; spends nothing.
    ///
    /// # Errors
    /// `invalid_token`, `token_already_spent`, `token_pending`, `mint_network_error`, `mint_error`.
    async fn verify(&self, token: &Secret, token_info: &TokenInfo) -> Result<Payment, Refusal>;

    /// As [`TokenReader::verify`], for callers that grant access without receiving the token: every
    /// proof must carry a valid DLEQ proof (NUT-12), since no swap will check its signature.
    ///
    /// # Errors
    /// As [`TokenReader::verify`].
    async fn verify_dleq(&self, token: &Secret, token_info: &TokenInfo)
    -> Result<Payment, Refusal>;

    /// Whether every proof carries a valid DLEQ proof (NUT-12), as far as that is known without a
    /// request: such a token cannot be invented. Those of a mint whose keys are not known yet are
    /// not proven, nor those with a proof that the mint has called spent.
    async fn is_proven(&self, _token: &Secret, _token_info: &TokenInfo) -> bool {
        false
    }

    /// The token in a payment payload (NUT-18): `{id, mint, unit, proofs}`.
    ///
    /// # Errors
    /// `invalid_token`.
    async fn token_from_payload(&self, payload: &str) -> Result<Secret, Refusal>;
}

/// Receiving the tokens of orders.
#[async_trait]
pub trait Payments: Send + Sync {
    /// Swaps the token at its mint (NUT-03): only then is it paid. Returns the net amount.
    ///
    /// # Errors
    /// [`ReceiveError`]: refused for certain, or unknown.
    async fn receive(
        &self,
        order: &OrderId,
        token: &Secret,
        token_info: &TokenInfo,
    ) -> Result<Sat, ReceiveError>;

    /// Finds out how an interrupted [`Payments::receive`] ended.
    async fn resolve(
        &self,
        order: &OrderId,
        token_info: &TokenInfo,
        mode: ResolveMode,
    ) -> Resolution;

    /// Whether its store has room for what new orders need.
    async fn has_room(&self) -> bool {
        true
    }

    /// Finishes the operations that an earlier process began. Call it before the first order.
    ///
    /// # Errors
    /// [`RecoveryError`]: orders of those mints wait for [`Payments::resolve`].
    async fn recover(&self) -> Result<(), RecoveryError>;
}

/// Making refund tokens, and reclaiming those that nobody has redeemed.
#[async_trait]
pub trait RefundIssuer: Send + Sync {
    /// Makes a token. Idempotent per order, whatever the amount is later: a crash between making and
    /// storing it loses nothing.
    ///
    /// # Errors
    /// [`WalletError`]: try again later.
    async fn refund(
        &self,
        order: &OrderId,
        mint: &MintUrl,
        amount: RefundAmount,
    ) -> Result<RefundToken, WalletError>;

    /// # Errors
    /// [`WalletError`]: try again later.
    async fn refund_state(
        &self,
        order: &OrderId,
        mint: &MintUrl,
    ) -> Result<RefundState, WalletError>;

    /// Reclaims a refund that was not redeemed. Returns the net amount, or `None` when the customer
    /// was faster. Idempotent.
    ///
    /// # Errors
    /// [`WalletError`]: try again later.
    async fn reclaim(&self, order: &OrderId, mint: &MintUrl) -> Result<Option<Sat>, WalletError>;
}

/// The mints, and what is published of them.
#[async_trait]
pub trait MintDirectory: Send + Sync {
    /// The accepted mints, as published in offers.
    fn mints(&self) -> Vec<MintUrl>;

    /// The public key that tokens may be locked to, as published in offers.
    fn p2pk_pubkey(&self) -> Option<P2pkPubkey>;

    /// A payment request (NUT-18) for any of the accepted mints.
    fn payment_request(&self, request: &PaymentRequest) -> String;

    /// The health and balance of every mint, from what is known already.
    ///
    /// # Errors
    /// [`WalletError::Store`].
    async fn report(&self) -> Result<Vec<MintReport>, WalletError>;
}

/// The wallets of all accepted mints: what the order service needs.
pub trait Wallet: TokenReader + Payments + RefundIssuer + MintDirectory {}

impl<T> Wallet for T where T: TokenReader + Payments + RefundIssuer + MintDirectory + ?Sized {}
