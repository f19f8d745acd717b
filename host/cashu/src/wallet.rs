//! The till: the drawers of all mints, behind the desk's trait.

use crate::client::{MintClient, MintError, codes};
use crate::mint_wallet::{MintWallet, OperationOutcome, WalletFault};
use crate::seed::Seed;
use crate::token;
use crate::wallet_store::{OperationState, WalletStore, total};
use async_trait::async_trait;
use cdk::mint_url::MintUrl;
use cdk::nuts::{
    CurrencyUnit, KeySetInfo, PaymentRequest, PaymentRequestPayload, Proofs, PublicKey, SecretKey,
    State, Token, Transport, TransportType,
};
use paygress_core::backend::policy::Payment;
use paygress_core::backend::wallet::{
    MintReport, PaymentRequest, ReceiveError, RefundState, RefundToken, Resolution, TokenInfo,
    Wallet,
};
use paygress_core::limits;
use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{self, OrderId, Sat};
use paygress_store::db::DatabaseError;
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// How long the start waits for mints to tell what became of what was begun; the others' orders
/// wait for theirs alone.
const RECOVERY: Duration = Duration::from_secs(20);

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The mints whose tokens are accepted.
    pub mints: Vec<String>,
    /// The most that is held at one mint; none: no limit.
    pub max_balance: Option<Sat>,
    /// The key that tokens may be locked to (P2PK), in hex.
    pub lock: Option<Secret>,
}

/// Why there is no till.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A mint's address.
    #[error("{0} is not a mint's URL; write it as https://host[:port][/path]")]
    MintClient(String),
    /// The key.
    #[error("the key for locked tokens is not a secret key")]
    Lock,
    /// The purse.
    #[error("the purse cannot be read: {0}")]
    WalletStore(#[from] DatabaseError),
    /// The system.
    #[error("no connection can be made: {0}")]
    HttpClient(String),
}

/// The wallets of all mints.
pub struct CashuWallet {
    pub(crate) accepted: Vec<MintUrl>,
    pub(crate) drawers: HashMap<units::MintUrl, MintWallet>,
    pub(crate) wallet_store: WalletStore,
    max_balance: Option<Sat>,
    lock: Option<SecretKey>,
}

impl CashuWallet {
    /// Opens the drawers: of the accepted mints, and of those that the purse has ever dealt with.
    /// Asks no mint yet.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(
        wallet_store: WalletStore,
        seed: Seed,
        settings: &Settings,
    ) -> Result<Self, OpenError> {
        let seed = Arc::new(seed);
        let parse = |text: &str| {
            MintUrl::from_str(text).map_err(|_| OpenError::MintClient(text.to_owned()))
        };
        let accepted: Result<Vec<MintUrl>, OpenError> =
            settings.mints.iter().map(|text| parse(text)).collect();
        let accepted = accepted?;
        let mut urls = accepted.clone();
        for known in wallet_store.mints().await? {
            urls.push(parse(known.as_str())?);
        }
        let mut drawers = HashMap::new();
        for url in urls {
            let mint =
                MintClient::new(url).map_err(|error| OpenError::HttpClient(error.to_string()))?;
            let wallet = MintWallet::new(mint, wallet_store.clone(), Arc::clone(&seed));
            drawers.entry(wallet.name.clone()).or_insert(wallet);
        }
        let lock = settings
            .lock
            .as_ref()
            .map(|key| SecretKey::from_hex(key.expose()).map_err(|_| OpenError::Lock))
            .transpose()?;
        Ok(Self { accepted, drawers, wallet_store, max_balance: settings.max_balance, lock })
    }

    /// What the purse holds at each mint: free to spend, and held by operations that are open.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn balances(&self) -> Result<Vec<(units::MintUrl, Sat, Sat)>, DatabaseError> {
        Ok(self
            .wallet_store
            .balances()
            .await?
            .into_iter()
            .map(|(mint, free, held)| (mint, Sat(free), Sat(held)))
            .collect())
    }

    pub(crate) fn wallet(&self, mint: &units::MintUrl) -> Result<&MintWallet, Refusal> {
        let unknown = || {
            Refusal::new(
                ErrorType::NonWhitelistedMint,
                format!("tokens of {mint} are not accepted"),
            )
        };
        self.drawers.get(mint).ok_or_else(unknown)
    }

    fn lock_key(&self) -> Option<PublicKey> {
        self.lock.as_ref().map(SecretKey::public_key)
    }

    /// The token's proofs, with full keyset ids, and signed where they are locked to us.
    async fn proofs(&self, wallet: &MintWallet, token: &Token) -> Result<Proofs, Refusal> {
        let missing = |keysets: &[KeySetInfo]| of_keysets(token, keysets).is_none();
        let keysets = wallet.mint.keysets(missing).await.map_err(|fault| refusal(&fault))?;
        let foreign =
            || Refusal::new(ErrorType::InvalidToken, "the token's keys are not the mint's");
        let mut proofs = of_keysets(token, &keysets).ok_or_else(foreign)?;
        for proof in proofs.iter_mut().filter(|proof| token::has_conditions(&proof.secret)) {
            let key = self.lock.clone().ok_or_else(|| {
                Refusal::new(ErrorType::InvalidToken, "locked tokens are not accepted")
            })?;
            let unsigned =
                |_| Refusal::new(ErrorType::InvalidToken, "the token's lock cannot be opened");
            proof.sign_p2pk(key).map_err(unsigned)?;
        }
        Ok(proofs)
    }

    /// What the token is worth, and that it is not spent; with `signed`, that every proof shows its
    /// mint's signature.
    async fn look_at(
        &self,
        token: &Secret,
        token_info: &TokenInfo,
        signed: bool,
    ) -> Result<Payment, Refusal> {
        let wallet = self.wallet(&token_info.mint)?;
        let told = |fault: MintError| {
            tracing::warn!(mint = %token_info.mint, %fault, "appraising failed");
            refusal(&fault)
        };
        let ys: Vec<String> = token_info.ys.iter().map(|y| y.0.clone()).collect();
        if self.wallet_store.knows(&ys).await.map_err(|error| internal(&error))? {
            return Err(Refusal::new(
                ErrorType::InvalidToken,
                "this token was made by this service, as a refund; redeem it in your wallet, and pay with a fresh one",
            ));
        }
        self.check_exposure(&token_info.mint, token_info.gross).await?;
        let proofs = self.proofs(wallet, &token::parse(token.expose())?).await?;
        if signed && proofs.iter().any(|proof| proof.dleq.is_none()) {
            let told = "the token's proofs do not show that the mint has signed them: send it with its DLEQ proofs (NUT-12)";
            return Err(Refusal::new(ErrorType::InvalidToken, told));
        }
        if !wallet.check_dleq(&proofs).await.map_err(told)? {
            return Err(Refusal::new(
                ErrorType::InvalidToken,
                "the token is forged: its proofs are not of the mint's keys",
            ));
        }
        let fee = wallet.fee(&proofs).await.map_err(refusal_of)?;
        let net = token_info.gross.0.checked_sub(fee).filter(|net| *net > 0).ok_or_else(|| {
            Refusal::new(
                ErrorType::InsufficientPayment,
                format!(
                    "the mint's fee of {fee} sat takes all of the token's {}",
                    token_info.gross
                ),
            )
        })?;
        let states = wallet.mint.states(&curve_points(token_info)?).await.map_err(told)?;
        if states.contains(&State::Spent) {
            return Err(spent());
        }
        if states.iter().any(|state| *state != State::Unspent) {
            return Err(refusal(&MintError::Rejected {
                code: codes::PENDING,
                detail: String::new(),
            }));
        }
        Ok(Payment {
            mint: token_info.mint.0.clone(),
            gross: token_info.gross,
            fee: Sat(fee),
            net: Sat(net),
        })
    }

    async fn check_exposure(&self, mint: &units::MintUrl, gross: Sat) -> Result<(), Refusal> {
        let Some(limit) = self.max_balance else { return Ok(()) };
        let balances = self.wallet_store.balances().await.map_err(|error| internal(&error))?;
        let held = balances
            .iter()
            .find(|(at, ..)| at == mint)
            .map_or(0, |(_, free, held)| free.saturating_add(*held));
        if held.saturating_add(gross.0) <= limit.0 {
            return Ok(());
        }
        let others: Vec<&str> = self
            .drawers
            .keys()
            .filter(|other| *other != mint)
            .map(units::MintUrl::as_str)
            .collect();
        let told = match others.is_empty() {
            true => "this service holds as much of this mint as it may; try again later".to_owned(),
            false => format!(
                "this service holds as much of this mint as it may; pay with a token of {}",
                others.join(" or ")
            ),
        };
        Err(Refusal::new(ErrorType::ResourceUnavailable, told))
    }
}

/// The token's proofs, if all are of these keysets: an id that is not shortened reads without being
/// looked up.
fn of_keysets(token: &Token, keysets: &[KeySetInfo]) -> Option<Proofs> {
    let proofs = token.proofs(keysets).ok()?;
    proofs
        .iter()
        .all(|proof| keysets.iter().any(|keyset| keyset.id == proof.keyset_id))
        .then_some(proofs)
}

fn internal(error: &DatabaseError) -> Refusal {
    tracing::error!(%error, "the purse failed");
    Refusal::new(
        ErrorType::InternalError,
        "the service cannot reach its purse right now; your token was not taken, try again later",
    )
}

/// What a mint's fault means while nothing was taken.
fn refusal(fault: &MintError) -> Refusal {
    match fault {
        MintError::Unavailable(_) => Refusal::new(
            ErrorType::MintNetworkError,
            "the token's mint cannot be reached; your token was not taken, try again later",
        ),
        MintError::InvalidResponse(_) => Refusal::new(
            ErrorType::MintError,
            "the mint's answers make no sense; your token was not taken",
        ),
        MintError::Rejected { code, .. } => match *code {
            codes::SPENT => spent(),
            codes::PENDING | codes::OUTPUTS_PENDING => Refusal::new(
                ErrorType::TokenPending,
                "the token is being spent elsewhere; try again later",
            ),
            codes::NOT_VERIFIED => {
                Refusal::new(ErrorType::InvalidToken, "the mint says that the token is forged")
            }
            codes::KEYSET_UNKNOWN => {
                Refusal::new(ErrorType::InvalidToken, "the token's keys are not the mint's")
            }
            codes::TOO_MANY_INPUTS => Refusal::new(
                ErrorType::InvalidToken,
                "the token has too many proofs; send fewer, larger ones",
            ),
            // Not the mint's words: they are a stranger's.
            code => Refusal::new(
                ErrorType::MintError,
                format!("the mint did not accept the token (code {code}); it was not taken"),
            ),
        },
    }
}

fn spent() -> Refusal {
    Refusal::new(ErrorType::TokenAlreadySpent, "the token has been spent; send a fresh one")
}

fn refusal_of(fault: WalletFault) -> Refusal {
    match fault {
        WalletFault::MintClient(fault) => refusal(&fault),
        WalletFault::WalletStore(error) => internal(&error),
        WalletFault::TooLittle(_) | WalletFault::Crypto(_) => {
            tracing::error!(%fault, "the till failed");
            Refusal::new(
                ErrorType::InternalError,
                "the service cannot take the token; your token was not taken",
            )
        }
    }
}

pub(crate) fn receipt(order: &OrderId) -> String {
    format!("receive {order}")
}

pub(crate) fn refund_of(order: &OrderId) -> String {
    format!("refund {order}")
}

fn sweep_of(order: &OrderId) -> String {
    format!("sweep {order}")
}

fn curve_points(token_info: &TokenInfo) -> Result<Vec<PublicKey>, Refusal> {
    let odd = |_| Refusal::new(ErrorType::InvalidToken, "a proof's secret is not usable");
    token_info.ys.iter().map(|y| PublicKey::from_hex(y.as_str()).map_err(odd)).collect()
}

#[async_trait]
impl Wallet for CashuWallet {
    fn decode(&self, token: &Secret) -> Result<TokenInfo, Refusal> {
        token::decode(token.expose(), &self.accepted, self.lock_key().as_ref())
    }

    async fn verify(&self, token: &Secret, token_info: &TokenInfo) -> Result<Payment, Refusal> {
        self.look_at(token, token_info, false).await
    }

    async fn verify_dleq(
        &self,
        token: &Secret,
        token_info: &TokenInfo,
    ) -> Result<Payment, Refusal> {
        self.look_at(token, token_info, true).await
    }

    async fn receive(
        &self,
        order: &OrderId,
        token: &Secret,
        token_info: &TokenInfo,
    ) -> Result<Sat, ReceiveError> {
        let wallet = self.wallet(&token_info.mint)?;
        let proofs = self.proofs(wallet, &token::parse(token.expose())?).await?;
        match wallet.take(&receipt(order), proofs).await {
            Ok(OperationOutcome::Done(operation)) => Ok(Sat(operation.work.got)),
            Ok(OperationOutcome::SpentElsewhere) => Err(spent().into()),
            Ok(OperationOutcome::Failed(Some(fault))) => Err(refusal(&fault).into()),
            Ok(OperationOutcome::Failed(None)) => Err(Refusal::new(
                ErrorType::MintError,
                "the mint did not take the token; it was not taken, try again",
            )
            .into()),
            Ok(OperationOutcome::Unknown(why)) => Err(ReceiveError::Unknown(why)),
            // Whether it was written down before the database failed is not known.
            Err(fault @ WalletFault::WalletStore(_)) => {
                Err(ReceiveError::Unknown(fault.to_string()))
            }
            Err(fault) => Err(refusal_of(fault).into()),
        }
    }

    async fn resolve(&self, order: &OrderId, token_info: &TokenInfo) -> Resolution {
        let wallet = match self.wallet(&token_info.mint) {
            Ok(wallet) => wallet,
            Err(refusal) => return Resolution::Unknown(refusal.message),
        };
        match wallet.finish_latest(&receipt(order)).await {
            Ok(OperationOutcome::Done(operation)) => Resolution::Received(Sat(operation.work.got)),
            Ok(OperationOutcome::Failed(_)) => Resolution::NotSpent,
            Ok(OperationOutcome::SpentElsewhere) => Resolution::SpentElsewhere,
            Ok(OperationOutcome::Unknown(why)) => Resolution::Unknown(why),
            Err(fault) => Resolution::Unknown(fault.to_string()),
        }
    }

    async fn refund(
        &self,
        order: &OrderId,
        mint: &units::MintUrl,
        amount: Sat,
    ) -> Result<RefundToken, String> {
        let wallet = self.wallet(mint).map_err(|refusal| refusal.message)?;
        let (token, operation) = wallet
            .send(&refund_of(order), amount.0, false)
            .await
            .map_err(|fault| fault.to_string())?;
        let made = Sat(operation.work.gave);
        Ok(RefundToken {
            token: Secret::new(token.to_string()),
            amount: made,
            fee: amount.minus(made),
        })
    }

    async fn refund_state(
        &self,
        order: &OrderId,
        mint: &units::MintUrl,
    ) -> Result<RefundState, String> {
        let wallet = self.wallet(mint).map_err(|refusal| refusal.message)?;
        // What we have begun to take back is nobody's redemption.
        let sweeping =
            self.wallet_store.latest(&sweep_of(order)).await.map_err(|error| error.to_string())?;
        if sweeping.is_some_and(|sweep| sweep.state != OperationState::Failed) {
            return Ok(RefundState::Waiting);
        }
        let redeemed =
            wallet.was_redeemed(&refund_of(order)).await.map_err(|fault| fault.to_string())?;
        if redeemed {
            self.wallet_store
                .forget_given(&refund_of(order))
                .await
                .map_err(|error| error.to_string())?;
        }
        Ok(if redeemed { RefundState::Redeemed } else { RefundState::Waiting })
    }

    async fn reclaim(&self, order: &OrderId, mint: &units::MintUrl) -> Result<Option<Sat>, String> {
        let wallet = self.wallet(mint).map_err(|refusal| refusal.message)?;
        let failed = |fault: WalletFault| fault.to_string();
        let given =
            self.wallet_store.given(&refund_of(order)).await.map_err(|error| error.to_string())?;
        let outcome = match wallet.finish_latest(&sweep_of(order)).await.map_err(failed)? {
            OperationOutcome::Failed(_)
                if total(&given) > wallet.fee(&given).await.map_err(failed)? =>
            {
                wallet.take(&sweep_of(order), given).await.map_err(failed)?
            }
            // The mint's fee would take all of it: whoever has it may keep it.
            OperationOutcome::Failed(_) => return Ok(Some(Sat(0))),
            known => known,
        };
        let back = match outcome {
            OperationOutcome::Done(operation) => Some(Sat(operation.work.got)),
            OperationOutcome::SpentElsewhere => None,
            OperationOutcome::Failed(fault) => {
                return Err(fault.map_or_else(|| "not taken".to_owned(), |fault| fault.to_string()));
            }
            OperationOutcome::Unknown(why) => return Err(why),
        };
        self.wallet_store
            .forget_given(&refund_of(order))
            .await
            .map_err(|error| error.to_string())?;
        Ok(back)
    }

    async fn recover(&self) -> Result<(), String> {
        let each = self.drawers.iter().map(|(mint, wallet)| async move {
            match tokio::time::timeout(RECOVERY, wallet.recover()).await {
                Ok(Ok(0)) => None,
                Ok(Ok(open)) => Some(format!("{mint}: {open} operations wait")),
                Ok(Err(fault)) => Some(format!("{mint}: {fault}")),
                Err(_) => Some(format!("{mint}: no answer yet")),
            }
        });
        let failures: Vec<String> =
            futures::future::join_all(each).await.into_iter().flatten().collect();
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }

    fn mints(&self) -> Vec<units::MintUrl> {
        let mut mints: Vec<units::MintUrl> =
            self.accepted.iter().map(|mint| units::MintUrl(mint.to_string())).collect();
        mints.sort();
        mints
    }

    fn p2pk_pubkey(&self) -> Option<String> {
        self.lock_key().map(|key| key.to_hex())
    }

    fn payment_request(&self, asked: &PaymentRequest) -> String {
        let target = |target: &String| Transport {
            _type: TransportType::HttpPost,
            target: target.clone(),
            tags: Vec::new(),
        };
        let request = PaymentRequest {
            payment_id: None,
            amount: Some(asked.amount.0.into()),
            unit: Some(CurrencyUnit::Sat),
            single_use: Some(true),
            mints: self.accepted.clone(),
            mint_preferred: None,
            supported_methods: Vec::new(),
            description: asked.description.clone(),
            transports: asked.target.iter().map(target).collect(),
            nut10: None,
        };
        request.to_string()
    }

    fn token_from_payload(&self, payload: &str) -> Result<Secret, Refusal> {
        // The parser's own words would quote what it met, and that may be a proof's secret.
        let odd = || {
            Refusal::new(
                ErrorType::InvalidToken,
                "this is no payment: send {mint, unit, proofs} as JSON (NUT-18)",
            )
        };
        let payload: PaymentRequestPayload = serde_json::from_str(payload).map_err(|_| odd())?;
        if payload.proofs.is_empty() || payload.proofs.len() > limits::TOKEN_PROOFS {
            return Err(Refusal::new(
                ErrorType::InvalidToken,
                format!("a payment has 1 to {} proofs", limits::TOKEN_PROOFS),
            ));
        }
        Ok(Secret::new(Token::new(payload.mint, payload.proofs, None, payload.unit).to_string()))
    }

    async fn report(&self) -> Result<Vec<MintReport>, String> {
        let report = |holding: crate::MintBalance| MintReport {
            mint: holding.mint,
            accepted: holding.accepted,
            held: holding.free.plus(holding.held),
            fault: holding.health.why,
            answered_in_ms: holding
                .health
                .took
                .and_then(|took| u64::try_from(took.as_millis()).ok()),
        };
        Ok(self
            .overview(false)
            .await
            .map_err(|error| error.to_string())?
            .into_iter()
            .map(report)
            .collect())
    }
}
