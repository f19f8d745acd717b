//! The money as the desk sees it. The implementation keeps the wallets.

use crate::backend::policy::Payment;
use crate::model::refusal::Refusal;
use crate::model::secret::Secret;
use crate::model::units::{MintUrl, OrderId, ProofY, Sat};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// What can be read from a token without asking anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// The mint, one of the operator's.
    pub mint: MintUrl,
    /// The sum of the proofs.
    pub gross: Sat,
    /// The Y of every proof: what makes a token pay only once.
    pub ys: Vec<ProofY>,
}

/// A fresh token that gives money back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundToken {
    /// The token. Store it before it is sent.
    pub token: Secret,
    /// What the customer can redeem it for, before the mint's fee on receiving.
    pub amount: Sat,
    /// What the mint kept for making it.
    pub fee: Sat,
}

/// What became of a refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundState {
    /// Nobody has redeemed it yet.
    Waiting,
    /// The customer has the money.
    Redeemed,
}

/// Why a token was not redeemed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The mint said no, for certain: nothing was taken.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The mint's answer was lost: the money may be ours, or not. Ask [`Wallet::settle`] until it
    /// knows.
    #[error("the mint's answer was lost: {0}")]
    Unknown(String),
}

/// What became of a redemption whose answer was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The money is ours: this net amount.
    Received(Sat),
    /// The token was never taken and is still spendable.
    NotSpent,
    /// The token was spent, but not by us.
    SpentElsewhere,
    /// Still nobody knows; why.
    Unknown(String),
}

/// What a wallet is asked to pay (NUT-18).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PaymentRequest {
    /// How much must be left after the mint's input fee.
    pub amount: Sat,
    /// What for, in words; none in an answer to a request that was not paid (NUT-24).
    pub description: Option<String>,
    /// Where the wallet posts its proofs to; none: with the request that they pay for.
    pub target: Option<String>,
}

/// How a mint is, and what it owes us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MintReport {
    /// The mint.
    pub mint: MintUrl,
    /// Whether its tokens are accepted.
    pub accepted: bool,
    /// What is held there.
    pub held: Sat,
    /// Why its last request failed; none: it did not.
    pub fault: Option<String>,
    /// How long its last answer took, in milliseconds.
    pub answered_in_ms: Option<u64>,
}

/// The wallets of all accepted mints.
#[async_trait]
pub trait Wallet: Send + Sync {
    /// Reads a token; asks nobody, keeps nothing.
    ///
    /// # Errors
    /// `invalid_token`, `non_whitelisted_mint`, `unsupported_unit`.
    fn decode(&self, token: &Secret) -> Result<TokenInfo, Refusal>;

    /// What the token is worth after the mint's input fees, and that it is not spent. Takes
    /// nothing.
    ///
    /// # Errors
    /// `invalid_token`, `token_already_spent`, `token_pending`, `mint_network_error`, `mint_error`.
    async fn verify(&self, token: &Secret, token_info: &TokenInfo) -> Result<Payment, Refusal>;

    /// As [`Wallet::verify`], for who lets through without taking the token: every proof must show
    /// that the mint has signed it (NUT-12), since nobody asks the mint to redeem it.
    ///
    /// # Errors
    /// As [`Wallet::verify`].
    async fn verify_dleq(&self, token: &Secret, token_info: &TokenInfo)
    -> Result<Payment, Refusal>;

    /// Swaps the token at its mint: only then is it paid. Gives the net amount.
    ///
    /// # Errors
    /// [`ReceiveError`]: refused for certain, or unknown.
    async fn receive(
        &self,
        order: &OrderId,
        token: &Secret,
        token_info: &TokenInfo,
    ) -> Result<Sat, ReceiveError>;

    /// Finds out what became of a redemption that was begun and not seen to end.
    async fn resolve(&self, order: &OrderId, token_info: &TokenInfo) -> Resolution;

    /// A fresh token over what is left of `amount` after the mint's fee for making it. Asked again
    /// for the same order it gives the same token, so that a crash between making and storing it
    /// costs nothing.
    ///
    /// # Errors
    /// In words, for the log: try again later.
    async fn refund(
        &self,
        order: &OrderId,
        mint: &MintUrl,
        amount: Sat,
    ) -> Result<RefundToken, String>;

    /// Whether the refund of this order was redeemed.
    ///
    /// # Errors
    /// In words, for the log: try again later.
    async fn refund_state(&self, order: &OrderId, mint: &MintUrl) -> Result<RefundState, String>;

    /// Takes back a refund that nobody redeemed; the net amount, or `None` when the customer was
    /// faster. Doing it twice is doing it once.
    ///
    /// # Errors
    /// In words, for the log: try again later.
    async fn reclaim(&self, order: &OrderId, mint: &MintUrl) -> Result<Option<Sat>, String>;

    /// Finishes what an earlier process began at the mints. Called once, before the first order.
    ///
    /// # Errors
    /// In words, for the log, one a mint: those mints' orders wait for [`Wallet::settle`].
    async fn recover(&self) -> Result<(), String>;

    /// The mints whose tokens are accepted, as published in offers.
    fn mints(&self) -> Vec<MintUrl>;

    /// The public key that tokens may be locked to (NUT-11), in hex, as published in offers.
    fn p2pk_pubkey(&self) -> Option<String>;

    /// A payment request (NUT-18) for any of the accepted mints.
    fn payment_request(&self, asked: &PaymentRequest) -> String;

    /// The token of what a wallet posts for a payment request: `{id, mint, unit, proofs}`.
    ///
    /// # Errors
    /// `invalid_token`.
    fn token_from_payload(&self, payload: &str) -> Result<Secret, Refusal>;

    /// How each mint is that money is or may be held at. Asks none.
    ///
    /// # Errors
    /// In words, for the log.
    async fn report(&self) -> Result<Vec<MintReport>, String>;
}
