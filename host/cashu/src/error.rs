//! What can go wrong at a mint, and in a wallet.

use cdk::lightning_invoice::ParseOrSemanticError;
use cdk::nuts::Id;
use hyper::StatusCode;
use paygress_core::backend::store::LedgerError;
use paygress_core::model::ids::MintUrl;
use paygress_core::model::units::Sat;
use paygress_http_client::{HttpError, RedirectError, SetupError};
use paygress_store::db::DatabaseError;
use std::error::Error;
use std::time::Duration;

/// An error of the protocol library, whose types differ from function to function.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Why a request to a mint failed.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// It may have done it.
    #[error("mint is unavailable: {0}")]
    Unavailable(#[source] UnavailableReason),
    /// It may have done it.
    #[error("mint's response is invalid: {0}")]
    InvalidResponse(#[source] ResponseError),
    #[error("mint rejected the request ({code}): {detail:?}")]
    Rejected {
        /// See the NUTs' table of errors; 0 when there is none, as from a firewall before the mint.
        code: u32,
        /// The mint's own text: untrusted.
        detail: String,
    },
}

impl MintError {
    /// Whether the mint has rejected what was sent to it, and not because of the outputs alone.
    pub(crate) fn is_about_token(&self) -> bool {
        matches!(self, Self::Rejected { code, .. } if codes::is_about_inputs(*code))
    }
}

/// Why a server has no answer.
#[derive(Debug, thiserror::Error)]
pub enum UnavailableReason {
    #[error("{}", paygress_core::error_chain(.0))]
    Http(#[source] HttpError),
    #[error("HTTP {}", .0.as_u16())]
    Status(StatusCode),
    /// It has had too many requests (429).
    #[error("HTTP 429")]
    RateLimited {
        /// How long it wants to have none, if it says so.
        retry_after: Option<Duration>,
    },
    /// Nothing was sent.
    #[error("suspended after {failures} failures: {last_error}")]
    Suspended { failures: u32, last_error: String },
    #[error("URL is invalid: {0}")]
    Url(#[source] BoxError),
    #[error("HTTP cannot be set up: {}", paygress_core::error_chain(.0))]
    Setup(#[from] SetupError),
    #[error("request queue is closed")]
    Closed,
    /// It may have done it.
    #[error("request has waited for others for too long")]
    Queue,
}

/// What is wrong with a server's response. The response itself is not quoted: it may hold proofs.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    #[error("{}", paygress_core::error_chain(.0))]
    Http(#[source] HttpError),
    #[error("unexpected HTTP status {}", .0.as_u16())]
    Status(StatusCode),
    #[error("line {line}: {category:?}")]
    Json { line: usize, category: serde_json::error::Category },
    #[error("request cannot be encoded: {0}")]
    Encode(#[source] serde_json::Error),
    #[error("keyset was requested and not returned")]
    KeysetMissing,
    #[error("keyset's id does not match its keys")]
    KeysetId,
    #[error("no active keyset in sat")]
    NoActiveKeyset,
    #[error("{0} keysets in sat, which is too many")]
    TooManyKeysets(usize),
    #[error("{0} keys in one keyset, which is too many")]
    TooManyKeys(usize),
    #[error("a proof's state was requested and not returned")]
    StateMissing,
    #[error(transparent)]
    Signatures(#[from] SignatureError),
}

/// What is wrong with a mint's blind signatures.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    #[error("{signatures} signatures for {outputs} outputs")]
    Count { signatures: usize, outputs: usize },
    #[error("a signature is by an unknown key")]
    UnknownKey,
    #[error("a signature is over another amount than requested")]
    Amount,
    #[error("a signature's DLEQ proof is invalid")]
    Dleq,
    #[error("signatures cannot be unblinded: {0}")]
    Unblind(#[source] BoxError),
}

/// The NUTs' error codes that are handled differently.
pub(crate) mod codes {
    /// There is no code.
    pub(crate) const NONE: u32 = 0;
    pub(crate) const NOT_VERIFIED: u32 = 10_001;
    /// Nutshell's for any transaction that it does not like, of an inactive keyset for instance.
    pub(crate) const TRANSACTION: u32 = 11_000;
    pub(crate) const SPENT: u32 = 11_001;
    pub(crate) const PENDING: u32 = 11_002;
    pub(crate) const SIGNED: u32 = 11_003;
    pub(crate) const OUTPUTS_PENDING: u32 = 11_004;
    pub(crate) const TOO_MANY_INPUTS: u32 = 11_014;

    /// Whether the code is of the NUTs' table: the mint itself has read the request. Others, and
    /// none at all (0), may be of a server before it, or of a busy database.
    pub(crate) fn is_of_table(code: u32) -> bool {
        (10_000..40_000).contains(&code)
    }

    /// Whether the request may succeed when it is repeated unchanged.
    pub(crate) fn is_transient(code: u32) -> bool {
        !is_of_table(code) || code == PENDING
    }

    /// Whether a swap may succeed with other outputs: of the keyset that is active now, or from
    /// derivation counters that were not used before.
    pub(crate) fn is_about_outputs(code: u32) -> bool {
        matches!(code, TRANSACTION | SIGNED | OUTPUTS_PENDING) || is_about_keysets(code)
    }

    /// Whether a swap may be rejected so because of the token that it spends, and of nothing else.
    pub(crate) fn is_about_inputs(code: u32) -> bool {
        (10_000..11_000).contains(&code) || matches!(code, SPENT | PENDING | TOO_MANY_INPUTS)
    }

    fn is_about_keysets(code: u32) -> bool {
        (12_000..13_000).contains(&code)
    }
}

/// Why a keyset that a mint lists is not used. `keyset_owners.rs` says what it protects from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysetConflict {
    #[error(
        "keyset {keyset}, which {mint} lists, has the secrets of one of {owner}, which listed it first: it is not used; remove the mint that you do not trust from WHITELISTED_MINTS"
    )]
    Owned { keyset: Id, mint: MintUrl, owner: MintUrl },
    #[error(
        "keyset {keyset} is listed by {mint} and by {other}, and it is not known whose it is: it is not used; remove one of them from WHITELISTED_MINTS, restart, and run `paygress wallet restore`"
    )]
    Contested { keyset: Id, mint: MintUrl, other: MintUrl },
    #[error("keyset {keyset} is not used: {mint} has listed too many before")]
    TooMany { keyset: Id, mint: MintUrl },
}

impl KeysetConflict {
    pub(crate) fn keyset(&self) -> Id {
        match self {
            Self::Owned { keyset, .. }
            | Self::Contested { keyset, .. }
            | Self::TooMany { keyset, .. } => *keyset,
        }
    }
}

/// Why it is not known yet how an operation ended. It stays open.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    #[error(transparent)]
    Mint(#[from] MintError),
    #[error("mint's signatures are invalid: {0}")]
    Signatures(#[source] SignatureError),
    #[error("proofs are pending at the mint")]
    ProofsPending,
    #[error("swap may still be on its way")]
    SwapInFlight,
    #[error("payment is in progress")]
    PaymentPending,
    #[error("payment is in progress, or its quote has not expired yet")]
    QuoteOpen,
    #[error("mint does not know the payment's state yet")]
    PaymentUnknown,
    #[error(transparent)]
    Check(Box<MintWalletError>),
}

/// Why an operation of one mint's wallet was not done.
#[derive(Debug, thiserror::Error)]
pub enum MintWalletError {
    #[error(transparent)]
    Mint(#[from] MintError),
    #[error("wallet store failed: {0}")]
    Store(#[from] DatabaseError),
    /// Among the proofs that one request can spend.
    #[error("wallet has {available} sat at this mint, which is not enough")]
    InsufficientFunds { available: u64 },
    /// Nothing was begun.
    #[error("what the wallet has at this mint may be owed to others")]
    NotSpared,
    #[error("not resolved yet: {0}")]
    Unresolved(#[from] Box<Unresolved>),
    #[error("proofs were not accepted; try again")]
    Unfinished,
    #[error("proofs were spent elsewhere: another program uses this wallet's seed")]
    SpentElsewhere,
    /// Nothing was begun.
    #[error("proofs that were selected were taken by other operations meanwhile, again and again")]
    ProofsTaken,
    /// Nothing was begun.
    #[error("too many operations at this mint are not resolved yet")]
    CountersReserved,
    #[error("proofs are not of this mint's keysets")]
    ForeignKeyset,
    #[error(transparent)]
    Keyset(#[from] KeysetConflict),
    #[error(
        "restore ended at its limit: the mint signs without end, or the wallet is very large; `paygress wallet restore` may take longer"
    )]
    RestoreLimit,
    #[error("mint's fee for the token was raised from {agreed} to {fee} sat meanwhile")]
    FeeRaised { agreed: u64, fee: u64 },
    /// Nothing was begun.
    #[error("balance at this mint would exceed its limit")]
    BalanceLimit,
    /// Nothing was begun.
    #[error("balance at this mint would exceed its limit if all open payments were received")]
    BalanceBusy,
    #[error("operation has no outputs")]
    NoOutputs,
    #[error("payment has no quote")]
    NoQuote,
    #[error("keyset's derivation counter is exhausted")]
    CounterExhausted,
    #[error("keyset's denominations need {outputs} outputs for {amount} sat")]
    TooManyOutputs { amount: u64, outputs: u64 },
    #[error("{0}")]
    Cdk(#[source] BoxError),
}

impl MintWalletError {
    /// Whether the same may succeed later, or may have been begun.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Unresolved(_) | Self::Store(_) | Self::ProofsTaken)
    }

    pub(crate) fn cdk(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Cdk(Box::new(error))
    }
}

impl From<SignatureError> for MintWalletError {
    fn from(error: SignatureError) -> Self {
        Self::Mint(MintError::InvalidResponse(error.into()))
    }
}

/// Why an operator's command was not done.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    #[error("wallet has no mint {0}; it has those of WHITELISTED_MINTS and of earlier payments")]
    UnknownMint(MintUrl),
    #[error("neither a bolt11 invoice nor a Lightning address: {0}")]
    Destination(#[source] ParseOrSemanticError),
    #[error("Lightning address without an amount; give one with --amount")]
    Amount,
    #[error(transparent)]
    LightningAddress(#[from] LightningAddressError),
    /// It is resolved by the next call or at the next start.
    #[error("not known yet: {0}; repeat the command")]
    Unresolved(#[source] Unresolved),
    #[error("an earlier payment is in progress: {0}; repeat the command later")]
    EarlierPayment(#[source] Unresolved),
    #[error("no Lightning route was found; nothing was paid")]
    NoRoute,
    #[error("{restored} restored with the mint's other keysets, but {conflict}")]
    PartlyRestored { restored: Sat, conflict: KeysetConflict },
    /// What is owed to customers is not known.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Wallet(#[from] MintWalletError),
}

impl From<DatabaseError> for OperatorError {
    fn from(error: DatabaseError) -> Self {
        Self::Wallet(error.into())
    }
}

/// Why a Lightning address (LUD-16) gave no invoice.
#[derive(Debug, thiserror::Error)]
pub enum LightningAddressError {
    #[error("not a Lightning address; write name@domain")]
    Malformed,
    #[error("Lightning address accepts {min} to {max} msat")]
    AmountOutOfRange { min: u64, max: u64 },
    #[error("Lightning address has a callback that is not used: {0}")]
    InsecureCallback(#[source] RedirectError),
    #[error("Lightning address's server: {0}")]
    Server(#[from] MintError),
    #[error("invoice is invalid: {0}")]
    Invoice(#[source] ParseOrSemanticError),
    #[error("invoice is over another amount than requested")]
    WrongAmount,
}

#[cfg(test)]
mod tests {
    use super::MintWalletError;

    #[test]
    fn proofs_that_others_took_pass_and_too_little_does_not() {
        assert!(MintWalletError::ProofsTaken.is_passing());
        assert!(!MintWalletError::NotSpared.is_passing());
    }
}
